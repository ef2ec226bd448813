"""Bits, batch norm and moving averages of a training, on every device."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from energy_at.attacks import pgd
from energy_at.attacks.threat import Linf
from energy_at.doctor.findings import Checks, Verdict, judged
from energy_at.doctor.trials import (
    Weights,
    batch,
    equal,
    noise,
    on_every_device,
    one_thread,
    small_net,
    trained,
    undisturbed,
)
from energy_at.training.callbacks.ema import EMA

DECAY = 0.5
CURE = "undo what was edited in energy_at/{}; if nothing was, pip install -U {}"


def checks() -> Checks:
    """Checks of the training."""
    return on_every_device({"determinism": determinism, "batch norm": batch_norm, "ema": ema})


def determinism(device: torch.device) -> Verdict:
    """Whether one seed gives one training, bit for bit; on a GPU also in deterministic mode."""
    again = trained(device), trained(device)
    other = trained(device, seed=1)
    same = equal(again[0].live[-1], again[1].live[-1])
    claims = {
        "a step changes the weights": not equal(again[0].live[0], again[0].live[-1]),
        "another seed gives other weights": not equal(again[0].live[-1], other.live[-1]),
    }
    if device.type == "cpu":
        claims["two trainings from one seed give the same bits"] = same
        return judged(claims, "two trainings from one seed: same bits", CURE.format("", "torch"))
    strict = [trained(device, deterministic=True).live[-1] for _ in range(2)]
    claims["two trainings with +trainer.deterministic=true give the same bits"] = equal(*strict)
    said = "two trainings from one seed: same bits, with +trainer.deterministic=true and without"
    verdict = judged(claims, said, CURE.format("", "torch"))
    if verdict.status == "pass" and not same:
        return Verdict(
            "warn",
            "two trainings from one seed differ in bits; not with +trainer.deterministic=true",
            "+trainer.deterministic=true, where bits matter more than speed",
        )
    return verdict


@one_thread()
def batch_norm(device: torch.device) -> Verdict:
    """An attack in training mode leaves the network alone; a tracked one moves statistics once."""
    x, y = batch(device)
    with undisturbed():
        net = small_net(device).train()
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    norms[-1].eval()  # as in fine-tuning: not every module is in one mode
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = deepcopy(net)
    pgd(Linf(8 / 255))(net, x, y, generator=noise(device))
    claims = {"an attack leaves running statistics as they are": _same_buffers(before, net)}
    start = pgd(Linf(8 / 255))(net, x, y, track_stats=True, generator=noise(device)).x_start
    before(start)
    claims |= {
        "a tracked attack moves them as its first pass does": _same_buffers(before, net),
        "a pass in training mode moves them": int(norms[0].num_batches_tracked or 0) == 1,
        "attacks leave modes as they are": _modes(before) == _modes(net),
        "attacks leave weights and their gradients as they are": _untouched(before, net),
    }
    said = f"{len(norms)} layers: modes, gradients and statistics untouched; moved once if tracked"
    return judged(claims, said, CURE.format("modes.py and energy_at/attacks", "torch"))


@one_thread()
def ema(device: torch.device) -> Verdict:
    """The average is one, and changes neither the training nor what is validated."""
    strict = True if device.type == "cuda" else None
    plain = trained(device, epochs=2, deterministic=strict)
    found = trained(device, epochs=2, deterministic=strict, callbacks=[EMA(decay=DECAY)])
    beside = {"val/acc/pgd", "val_ema/acc/pgd"} <= found.metrics.keys() and found.average != []
    claims = {
        "a training with it is the training without it": all(
            equal(a, b) for a, b in zip(plain.live, found.live, strict=True)
        ),
        "val/... is the live network": all(
            equal(a, b) for a, b in zip(found.live[1::2], found.validated, strict=True)
        ),
        "val_ema/... is measured beside it": beside,
        "it shares no memory with the network": not found.shared,
    }
    if beside:
        average = found.average[-1]
        claims |= {
            "it follows a = decay a + (1 - decay) w": _close(_averaged(found.live), average),
            "it differs from the network": not _close(found.live[-1], average),
        }
    said = f"follows its recurrence for {len(found.live)} steps, leaves training and val/... alone"
    return judged(claims, said, CURE.format("training/ema.py", "lightning torch"))


def _averaged(steps: Sequence[Weights]) -> Weights:
    average = steps[0]
    for live in steps[1:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * live[name] for name in live}
    return average


def _same_buffers(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.allclose(x, y) for x, y in zip(a.buffers(), b.buffers(), strict=True))


def _modes(net: nn.Module) -> list[tuple[bool, bool]]:
    return [
        (module.training, getattr(module, "track_running_stats", False)) for module in net.modules()
    ]


def _untouched(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) and y.grad is not None and bool((y.grad == 1).all())
        for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )


def _close(a: Weights, b: Weights) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-6) for name in a)
