"""What samples are drawn from: training images, energies, a fitted start."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from safetensors.torch import load_file, save_file
from torch import Tensor

from energy_at import __version__
from energy_at.core.files import digest, replacing
from energy_at.core.rng import CountedNoise
from energy_at.core.types import Labels, PerExample
from energy_at.data import ImageSet
from energy_at.evaluation import TrainedModel, result_key
from energy_at.sampling.langevin import ENERGIES, Chains
from energy_at.sampling.plan import SamplingPlan
from energy_at.sampling.starts import BLOCK, Fitted
from energy_at.sampling.training_images import TrainingImages, embed

SHOWN_ENERGIES = 2000  # training images whose energies the report names, if nothing needs them all


@dataclass(frozen=True)
class Material:
    """What the samples of a network are drawn from; tensors lie on its device."""

    model: TrainedModel
    plan: SamplingPlan
    classes: tuple[int, ...]  # of the samples; number i is of class i modulo their number
    cache: Path  # folder of files that other samplings of the network reuse
    shared: Path  # of what samplings of other networks reuse too
    images: TrainingImages
    energies: PerExample  # of the images, in nats, as the sampler descends them; NaN if unknown
    fit: Fitted  # of the start
    progress: bool  # show bars

    def of_classes(self, images: ImageSet) -> ImageSet:
        """The images of the classes of the samples."""
        return images.take(is_of(self.classes, images.labels).nonzero().flatten())

    @property
    def training_energies(self) -> PerExample:
        """Energies of the training images of these classes, on the CPU, in nats.

        At most ``SHOWN_ENERGIES`` of them where neither start nor guidance needs all.
        """
        energies = self.energies[is_of(self.classes, self.images.labels)].cpu()
        return energies[energies.isfinite()]

    def portions(self, done: set[int]) -> Iterator[Chains]:
        """Samples at their start, class by class, without the numbers that are ``done``.

        Whole blocks of ``BLOCK`` numbers of one class are drawn, so that the last bits of a start
        do not depend on which samples are missing.
        """
        classes, n = len(self.classes), self.plan.n
        for turn, label in enumerate(self.classes):
            for first in range(0, n, BLOCK * classes):
                number = torch.arange(BLOCK) * classes + first + turn
                wanted = [i < n and i not in done for i in number.tolist()]
                if any(wanted):
                    yield self._block(number, label).take(torch.tensor(wanted))

    def first(self, label: int) -> Chains:
        """The start of sample 0 as if it were of this class."""
        return self._block(torch.arange(BLOCK), label).take(slice(1))

    def _block(self, number: Labels, label: int) -> Chains:
        plan, device = self.plan, self.energies.device
        noise = CountedNoise(CountedNoise.of(number.tolist(), plan.seed).keys.to(device))
        rows = plan.start.draw(label, number, noise, self.images, self.fit)
        y = torch.full_like(number, label).to(device)
        target = plan.guidance.targets(y, self.energies, self.images.labels, noise)
        x = rows.reshape(len(rows), *self.images.pixels.shape[1:])
        x = x.contiguous(memory_format=torch.channels_last)
        return Chains.start_at(number.to(device), y, x, target, noise)


def is_of(classes: Sequence[int], labels: Labels) -> Bool[Tensor, " images"]:
    return torch.isin(labels, torch.tensor(classes, device=labels.device))


def prepare(
    model: TrainedModel,
    plan: SamplingPlan,
    cache: Path,
    classes: tuple[int, ...] | None = None,
    *,
    shared: Path | None = None,
    progress: bool = False,
) -> Material:
    """The material, computed once for a network and its data, then read from ``cache``.

    ``shared``, the same folder if left out, is for what does not depend on the network.

    Raises:
        ValueError: if the start cannot be fitted to these images.
    """
    device, data = model.device, model.data.train
    number = int(model.config.dataset.classes)
    images = TrainingImages(data.pixels.to(device), data.labels.to(device), number)
    plan.start.require(images, plan.n)
    chosen = tuple(range(number)) if classes is None else classes
    needs_all = plan.start.needs_features or plan.guidance.needs_energies
    of_chosen = is_of(chosen, data.labels).nonzero().flatten()
    known = None if needs_all else of_chosen[:: 1 + (len(of_chosen) - 1) // SHOWN_ENERGIES]
    embedded = data if known is None else data.take(known)
    key = result_key(model, embedded, {"cache": "embedding"})
    options: dict[str, Any] = {"progress": progress}
    options["channels_last"] = model.config.training.channels_last
    pixels = images.pixels if known is None else images.pixels[known]
    embedding = cached(
        cache, "embedding", key, lambda: embed(model.net, pixels, **options)._asdict()
    )
    start, features = plan.settings["start"], None
    fitted_to = [start, data.digests()]
    if plan.start.needs_features:
        fitted_to += [key]
        features = embedding["features"].to(device)
        if (others := plan.start.others(images)) is not None:
            options["label"] = "features of other images"
            theirs = cached(
                cache,
                "embedding",
                cache_key(key, plan.start.digests),
                lambda: embed(model.net, others.to(device), **options)._asdict(),
            )
            features = torch.cat([features, theirs["features"].to(device)])
    fit = cached(
        cache,
        f"start-{start['name']}",
        cache_key(*fitted_to),
        lambda: plan.start.fit(images, features),
    )
    energies = ENERGIES[plan.sampler.energy](embedding["logits"], embedded.labels)
    if known is not None:
        energies = torch.full((len(data),), torch.nan).index_copy(0, known, energies)
    fit = {name: value.to(device) for name, value in fit.items()}
    return Material(
        model, plan, chosen, cache, shared or cache, images, energies.to(device), fit, progress
    )


def cache_key(*values: Any) -> str:
    """Digest of these values and of the versions that compute with them."""
    return digest([*values, __version__, torch.__version__])


def cached(folder: Path, name: str, key: str, compute: Callable[[], Fitted]) -> Fitted:
    """The tensors in a file; computed and written if it is missing or damaged."""
    path = folder / f"{name}-{key[:12]}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except Exception:  # safetensors raises its own kinds
            path.unlink()
    tensors = {name: value.detach().cpu().contiguous() for name, value in compute().items()}
    if tensors:
        with replacing(path) as part:
            save_file(tensors, part)
    return tensors
