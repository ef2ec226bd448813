"""Images that lead from one class to another."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from energy_at.core.rules import ArgumentError
from energy_at.core.types import Images, Logits, PerExample, Pixels
from energy_at.models.modes import eval_mode
from energy_at.sampling.langevin import Chains, generate
from energy_at.sampling.plan import SamplingPlan, chosen_classes
from energy_at.sampling.prepare import Material
from energy_at.sampling.samples import as_bytes
from energy_at.sampling.training_images import embed


class Between(nn.Module):
    """A classifier whose logit of one class is a mean of that and of another one.

    Its joint energy under ``first`` is ``(1 - share) E(x, first) + share E(x, second)``.

    Args:
        net: The classifier.
        first: Class whose logit is replaced.
        second: The other class.
        share: Of the second class, in [0, 1].
    """

    def __init__(self, net: nn.Module, first: int, second: int, share: float) -> None:
        super().__init__()
        self.net, self.first, self.second, self.share = net, first, second, share

    def forward(self, x: Images) -> Logits:
        logits: Logits = self.net(x)
        mixed = torch.lerp(logits[:, self.first], logits[:, self.second], self.share)
        others = torch.arange(logits.shape[1], device=x.device) != self.first
        return torch.where(others, logits, mixed[:, None])


@dataclass(frozen=True)
class Interpolation:
    """Images between two classes.

    Attributes:
        classes: The first and the second class.
        shares: Of the second class: from 0 to 1, evenly spaced.
        pixels: (images, channels, height, width), bytes.
        energies: ``E(x, y)`` under the first and the second class, in nats: (2, images).
    """

    classes: tuple[int, int]
    shares: tuple[float, ...]
    pixels: Pixels
    energies: Tensor

    def report(self) -> dict[str, Any]:
        """Classes, shares and energies for ``samples.json``."""
        return {
            "classes": list(self.classes),
            "share": list(self.shares),
            "energies": self.energies.tolist(),
        }


def ends_of(typed: Any, dataset: DictConfig, plan: SamplingPlan) -> tuple[int, int] | None:
    """The two classes that are typed as numbers or names; ``None`` if none are typed.

    Raises:
        ArgumentError: if they are not two classes, or not joint energies are sampled.
    """
    if typed is None:
        return None
    first, second = chosen_classes(typed, dataset, "interpolate", 2)
    if plan.sampler.energy != "joint":
        must = "joint: interpolate mixes the energies E(x, y) of two classes"
        raise ArgumentError("sampler.energy", plan.sampler.energy, must)
    if plan.frames == 1:
        raise ArgumentError("frames", 1, "0, or at least 2 with interpolate")
    return first, second


def interpolate(material: Material, classes: tuple[int, int], images: int) -> Interpolation:
    """Samples of mixtures of two classes: of their energies, starts and target energies.

    All have the noise of sample 0, so that neighbours are alike, and the first and the last are
    what it would be of either class.

    Args:
        material: What samples are drawn from.
        classes: The first and the second class.
        images: How many, at least 2.
    """
    plan, net = material.plan, material.model.net
    first, second = map(material.first, classes)
    shares = torch.linspace(0, 1, images).tolist()
    ends: list[Chains] = []
    with eval_mode(net):
        for share in shares:
            start = torch.lerp(first.start, second.start, share)
            target: PerExample = torch.lerp(first.target, second.target, share)
            chain = replace(first, start=start, x=start, target=target)
            mixture = Between(net, *classes, share)
            ends += generate(mixture, plan.sampler, plan.guidance, [chain], 1)
    pixels = as_bytes(Chains.concat(ends).x)
    channels_last = material.model.config.training.channels_last
    logits = embed(net, pixels, channels_last=channels_last).logits.cpu()
    return Interpolation(classes, tuple(shares), pixels, -logits[:, list(classes)].T)
