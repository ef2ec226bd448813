"""Chains from their start to their end, with their energies: what the sampler does to an image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from energy_at.core.types import PerExample, Pixels
from energy_at.energy.energies import joint_energy
from energy_at.models.modes import Tiled, eval_mode, tile_of
from energy_at.sampling.langevin import Chains
from energy_at.sampling.prepare import Material
from energy_at.sampling.samples import Samples, as_bytes
from energy_at.sampling.training_images import embed


@dataclass(frozen=True)
class Trajectory:
    """Frames of one chain, evenly spaced from its start to its end.

    Attributes:
        label: Class of the chain.
        steps: Number of steps before each frame.
        pixels: (frames, channels, height, width), bytes.
        energies: ``E(x, y)`` of each frame, in nats.
    """

    label: int
    steps: tuple[int, ...]
    pixels: Pixels
    energies: PerExample


def trajectories(material: Material, samples: Samples, frames: int) -> list[Trajectory]:
    """The first sample of each class, run once more: every sample has its own seed.

    Args:
        material: What the samples were drawn from.
        samples: All samples, by number.
        frames: Images of each chain; 0 for no chain.
    """
    if not frames:
        return []
    first = {int(label): i for i, label in reversed(list(enumerate(samples.label.tolist())))}
    chosen = [first[label] for label in material.classes if label in first]
    wanted = {
        number: torch.linspace(0, int(samples.steps[number]), frames).round().int().tolist()
        for number in chosen
    }
    seen = _run_again(material, set(samples.number.tolist()) - set(chosen), wanted)
    found = []
    for number, steps in wanted.items():
        label = int(samples.label[number])
        pixels = torch.stack([seen[number, step] for step in steps])
        model = material.model
        logits = embed(
            model.net, pixels, channels_last=model.config.training.channels_last
        ).logits.cpu()
        energies = joint_energy(logits, torch.full((frames,), label))
        found.append(Trajectory(label, tuple(steps), pixels, energies))
    return found


def _run_again(
    material: Material, others: set[int], wanted: dict[int, list[int]]
) -> dict[tuple[int, int], Tensor]:
    """Images of the chains that are not ``others``, by number and step, where they are wanted."""
    plan, seen = material.plan, {}

    def keep(chains: Chains) -> None:
        places = zip(chains.number.tolist(), chains.steps.tolist(), strict=True)
        for place, pixels in zip(places, as_bytes(chains.x), strict=True):
            if place[1] in wanted[place[0]]:
                seen[place] = pixels

    last = material.model.config.training.channels_last
    net = Tiled(material.model.net, tile_of(material.model.device), channels_last=last)
    active = Chains.concat(list(material.portions(others)))
    keep(active)
    with eval_mode(net):
        while plan.sampler.steps and len(active):
            active, stopped, _ = plan.sampler.advance(net, active, plan.guidance)
            keep(active)
            keep(stopped)
    return seen
