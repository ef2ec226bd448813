"""How a network runs: context managers that restore it, and evaluation in tiles of one size."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from energy_at.core.rng import global_draws
from energy_at.core.types import Classifier, Images, Logits, kind_of
from energy_at.models.compile import is_compiled


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; restores each submodule's mode."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def try_on(net: Classifier, x: Images) -> Logits:
    """Logits (n, classes) of a few images in evaluation mode, with their graph.

    Raises:
        ValueError: if the network does not take these images, or does not return logits.
    """
    given = x.detach().clone().requires_grad_() * 1.0
    with (
        torch.enable_grad(),
        eval_mode(net) if isinstance(net, nn.Module) else nullcontext(),
        global_draws(x.device),
        # importing the compiler takes a second, and draws random numbers
        torch.compiler.set_stance("force_eager")
        if "torch._dynamo" in sys.modules
        else nullcontext(),
    ):
        try:
            logits = net(given)
        except (RuntimeError, AssertionError, ValueError) as error:
            if "view size is not compatible" in str(error):  # of the memory format, not the shape
                raise
            why = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the network does not take images of shape {tuple(x.shape[1:])}: {why}"
            ) from error
    require_tensor(logits)
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(
            "the network must return logits of shape (batch, classes), of 2 classes or more, got "
            f"{tuple(logits.shape)} for {len(x)} images"
        )
    if not torch.equal(given.detach(), x):
        raise ValueError("the network changes the images that it is given: let it copy them first")
    return logits


def require_tensor(logits: Any) -> None:
    """Raises ``ValueError`` for an output that cannot be logits."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(
            "the network must return logits, one tensor (batch, classes) of floating-point "
            f"numbers, got {kind_of(logits)}: wrap it in a module that returns them alone"
        )


@contextmanager
def frozen_running_stats(model: Callable[..., Any]) -> Iterator[None]:
    """Forward passes inside do not change the running statistics of batch norm.

    Layers in training mode still normalize with the statistics of the batch.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    norms = [m for m in modules if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def frozen_parameters(model: Callable[..., Any]) -> Iterator[None]:
    """Forward passes inside have gradients of their input only."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    trained = [
        (module._parameters, name, parameter)
        for module in modules
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.requires_grad
    ]
    compiled = isinstance(model, nn.Module) and is_compiled(model)

    def require_gradients(mode: bool) -> None:
        for parameters, name, parameter in trained:
            parameter.requires_grad_(mode)
            if compiled:  # torch 2.11 looks at it again only if the dictionary has changed
                parameters[name] = None
                parameters[name] = parameter

    require_gradients(False)
    try:
        yield
    finally:
        require_gradients(True)


def input_gradients_only(model: Callable[..., Any]) -> AbstractContextManager[None]:
    """Frozen parameters where the network is compiled.

    Autograd computes the gradients that are asked for; a compiled backward pass always computes
    those of all parameters too.
    """
    compiled = isinstance(model, nn.Module) and is_compiled(model)
    return frozen_parameters(model) if compiled else nullcontext()


@contextmanager
def no_graph() -> Iterator[None]:
    """``torch.no_grad`` that is safe under autocast.

    Autocast caches the low-precision copy of each weight. A copy made without a graph would be
    reused by the training forward pass, whose weights would then get no gradient.
    """
    try:
        with torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """fp32 inside, neither autocast nor TF32: every accuracy that is reported is measured in it."""
    settings, name, exact = _precisions()
    before = [getattr(setting, name) for setting in settings]
    for setting in settings:
        setattr(setting, name, exact)
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setattr(setting, name, value)


def _precisions() -> tuple[list[Any], str, str | bool]:
    """The settings that may make a product inexact, their attribute, and its exact value."""
    backends: Any = torch.backends
    if not hasattr(backends.mkldnn, "matmul"):  # torch < 2.9
        return [backends.cudnn, backends.cuda.matmul], "allow_tf32", False
    # The old attributes cannot be read where a user has set the new ones.
    products = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    return [*products, backends.mkldnn.matmul, backends.mkldnn.conv], "fp32_precision", "ieee"


def tile_of(device: torch.device) -> int:
    return 16 if device.type == "cpu" else 128


class Tiled(nn.Module):
    """A network in evaluation mode whose logits do not depend on the other images, bit for bit.

    It takes ``size`` images at a time, the last ones padded; without ``channels_last`` they are
    stored channel by channel, else as they come.

    The kernels of a matrix product, and with them the last bits of an image's logits and gradient,
    depend on the size of the batch; in tiles of one size they do not. A network that cuts its
    logits off from its input has a gradient of zero instead of none.
    """

    def __init__(self, net: nn.Module, size: int, *, channels_last: bool = True) -> None:
        super().__init__()
        self.net = net
        self.size = size
        self.channels_last = channels_last

    def forward(self, x: Images) -> Logits:
        padding = -len(x) % self.size
        if not self.channels_last:
            x = x.contiguous()
        if padding:
            last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
            x = torch.cat([x, torch.zeros_like(x[:1]).expand(padding, -1, -1, -1)])
            # Kernels, and the last bits with them, depend on the memory format too.
            kind = torch.channels_last if last else torch.contiguous_format
            x = x.contiguous(memory_format=kind)
        tiles: tuple[Images, ...] = torch.split(x, self.size)
        whole = torch.cat([self.net(tile) for tile in tiles])
        if x.requires_grad:
            whole = whole + 0 * x.flatten(1).sum(1, keepdim=True)
        return whole[: len(x) - padding]
