"""Accuracy of a network under attack, in fp32 and evaluation mode."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from energy_at.attacks import Attack
from energy_at.modes import eval_mode, full_precision, no_graph
from energy_at.shapes import Images, Labels


def robust_accuracy(
    net: nn.Module,
    batches: Iterable[tuple[Images, Labels]],
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of images that stay right: clean, and under each attack.

    An image that is wrong before an attack counts as wrong under it and is not attacked.

    Returns:
        ``"clean"``, one entry for each attack, and ``"n"``, the number of images.
    """
    right = dict.fromkeys(["clean", *attacks], 0)
    n = 0
    with eval_mode(net):
        for index, (x, y) in enumerate(batches):
            n += len(y)
            with full_precision(x.device.type):
                correct = _correct(net, x, y)
                right["clean"] += int(correct.sum())
                for name, attack in attacks.items():
                    generator = torch.Generator(x.device).manual_seed(seed + index)
                    right[name] += _survivors(net, x[correct], y[correct], attack, generator)
    return {name: count / n for name, count in right.items()} | {"n": n}


def _survivors(
    net: nn.Module, x: Images, y: Labels, attack: Attack, generator: torch.Generator
) -> int:
    if not len(y):
        return 0
    return int(_correct(net, attack(net, x, y, generator=generator).x_adv, y).sum())


def _correct(net: nn.Module, x: Images, y: Labels) -> torch.Tensor:
    with no_graph():
        return net(x).argmax(1) == y  # type: ignore[no-any-return]
