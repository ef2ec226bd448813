"""``torch.compile`` of a bare network; attacks, energies and losses stay uncompiled.

A network becomes one graph for each way it is run in: training or evaluation, moving its running
statistics or not, gradients of weights, of images, of both or of none, fp32 or bf16, and each size
of a batch. FGSM + DER with validation takes four. Beyond torch's limit of eight it raises instead
of continuing without compilation, since each graph must be whole (``fullgraph``).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError

BACKEND = "inductor"


def compile_net(net: nn.Module, mode: str) -> None:
    """Compiles a network in place, on its first call; names of weights and copies stay plain.

    A second derivative of it raises a ``RuntimeError`` of torch's; a copy of it is not compiled.

    Raises:
        ValueError: for another mode, or if nothing can be compiled here.
    """
    from torch._functorch import config as functorch

    require_compiler(mode)
    # Graphs belong to the code, not to a network: those of an earlier one would count.
    torch.compiler.reset()
    # The attack's graph is run backward twice: by the attack and by the training step.
    if hasattr(functorch, "donated_buffer"):
        functorch.donated_buffer = False
    options: dict[str, Any] = {} if mode == "default" else {"mode": mode}
    net.compile(fullgraph=True, dynamic=False, backend=BACKEND, **options)


def is_compiled(net: nn.Module) -> bool:
    """Whether a call of the network, or of one inside it, runs compiled."""
    return any(module._compiled_call_impl is not None for module in net.modules())


def switch_of(net: nn.Module) -> Callable[[bool], None]:
    """Disables and enables the compilation of a compiled network, keeping its graphs."""
    compiled = net._compiled_call_impl

    def turn(on: bool) -> None:
        # torch.compiler.set_stance would do it for every network of the process.
        net._compiled_call_impl = compiled if on else None

    return turn


def require_compiler(mode: str) -> None:
    """Raises ``ValueError`` if the mode is unknown, or nothing can be compiled here."""
    require_ranges("training.CompiledNet", mode=mode)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(lambda x: x.sin() + 1, backend=BACKEND)(torch.ones(64, device=device))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        must = "null without a C++ compiler that works (such as g++ and the headers of Python)"
        raise ArgumentError("mode", mode, f"{must}: {reason}") from error
