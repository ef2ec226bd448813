"""What samples are drawn from: training images, their energies and fitted starts, kept in files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from energy_at.core.files import replacing
from energy_at.core.rng import CountedNoise
from energy_at.core.types import Labels, PerExample
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.sampling import ENERGIES, Chains, TrainingImages, embed
from energy_at.sampling.keys import key_of, network_key
from energy_at.sampling.plan import Plan
from energy_at.sampling.starts import BLOCK

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Material:
    """What samples are drawn from, on the device of the network.

    Attributes:
        images: The training images.
        energies: Theirs, of the kind that the sampler descends, in nats.
        fit: Of the start.
    """

    images: TrainingImages
    energies: PerExample
    fit: Tensors

    def portions(self, plan: Plan, done: set[int]) -> Iterator[Chains]:
        """Samples at their start, class by class; those that are done are left out.

        Whoever is wanted, whole blocks of ``BLOCK`` numbers of one class are drawn.
        """
        classes = self.images.classes
        for label in range(classes):
            for first in range(0, plan.n, BLOCK * classes):
                number = torch.arange(BLOCK) * classes + first + label
                wanted = [i < plan.n and i not in done for i in number.tolist()]
                if any(wanted):
                    yield self._block(plan, number, label).take(torch.tensor(wanted))

    def _block(self, plan: Plan, number: Labels, label: int) -> Chains:
        device = self.energies.device
        noise = CountedNoise.of(number.tolist(), plan.seed)
        noise = CountedNoise(noise.keys.to(device))
        rows = plan.start.draw(label, noise, self.images, self.fit)
        y = torch.full_like(number, label).to(device)
        target = plan.guidance.targets(y, self.energies, self.images.labels, noise)
        x = rows.reshape(len(rows), *self.images.pixels.shape[1:])
        x = x.contiguous(memory_format=torch.channels_last)
        return Chains.start_at(number.to(device), y, x, target, noise)


def prepared(subject: TrainedModel, plan: Plan, cache: Path) -> Material:
    """The material, fitted once for a network and its data, then read from ``cache``.

    Raises:
        ValueError: if the start cannot be fitted to these images.
    """
    device = subject.device
    data = subject.data.train
    classes = int(subject.config.dataset.classes)
    images = TrainingImages(data.pixels.to(device), data.labels.to(device), classes)
    plan.start.require(images)
    of_images, of_network = data.digests(), network_key(subject)
    seen = cached(
        cache / f"embedding-{key_of(of_images, of_network)[:12]}.safetensors",
        lambda: _embedding(subject, images),
    )
    start = plan.settings["start"]
    of_start = [start, of_images, *(of_network if plan.start.needs_features else [])]
    features = seen["features"].to(device) if plan.start.needs_features else None
    fit = cached(
        cache / f"start-{start['name']}-{key_of(of_start)[:12]}.safetensors",
        lambda: plan.start.fit(images, features),
    )
    energies = ENERGIES[plan.sampler.energy](seen["logits"].to(device), images.labels)
    return Material(images, energies, {name: value.to(device) for name, value in fit.items()})


def _embedding(subject: TrainedModel, images: TrainingImages) -> Tensors:
    logits, features = embed(
        subject.net, images.pixels, channels_last=subject.config.training.channels_last
    )
    return {"logits": logits, "features": features}


def cached(path: Path, find: Callable[[], Tensors]) -> Tensors:
    """What the file holds; found and written if it is not there, or damaged."""
    if path.is_file():
        try:
            return load_file(path)
        except Exception:  # safetensors raises its own kinds
            path.unlink()
    found = {name: value.detach().cpu().contiguous() for name, value in find().items()}
    if not found:
        return found
    with replacing(path) as part:
        save_file(found, part)
    return found
