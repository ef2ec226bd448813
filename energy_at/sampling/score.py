"""Scores of a sampling: energies, controls, distances to training images, IS and FID."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from energy_at.core.types import Labels
from energy_at.data import ImageSet
from energy_at.energy.energies import joint_energy, marginal_energy
from energy_at.evaluation import TrainedModel
from energy_at.sampling.langevin import ENERGIES
from energy_at.sampling.prepare import Material, SamplingPlan, cache_key, cached
from energy_at.sampling.quality import (
    MIN_IMAGES,
    ExtractorModule,
    Features,
    compute_scores,
    extract_features,
)
from energy_at.sampling.samples import Samples, as_bytes
from energy_at.sampling.training_images import TrainingImages, as_rows, embed

REFERENCE = "reference images"
SAMPLES, START, HELD_OUT, MEANS = "samples", "start alone", "held-out images", "class means"
MOST = 2000  # images whose nearest training image is looked for, and of a class whose pairs count
CHUNK = 2048


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each image, by pixels.

    Attributes:
        distances: L2, in units of the pixel range.
        places: Of the training images.
    """

    distances: Float[Tensor, " images"]
    places: Labels


@dataclass(frozen=True)
class SampleScores:
    """Energies, controls and scores of a sampling.

    Attributes:
        samples: The images, and how they were drawn.
        energies: Of the images as they are written: ``joint`` and ``marginal``, in nats.
        descended: Energies of these images too, of the kind that was descended.
        sets: The samples and their score.
        near: Nearest training images of the samples and of held-out images.
        rows: Scores of every set.
        training: The training images.
        classes: Their names.
        training_energies: Of the training images, of the kind that was descended.
    """

    samples: Samples
    energies: Mapping[str, Tensor]
    descended: Tensor
    sets: Mapping[str, ImageSet]
    near: Mapping[str, Nearest]
    rows: Mapping[str, Mapping[str, Any]]
    training: ImageSet
    classes: Sequence[str]
    training_energies: Tensor


@dataclass(frozen=True)
class Scorers:
    """Networks that score samples.

    Attributes:
        extractor: Of the features that IS and FID are computed from; ``None`` for neither.
        classifier: An independent classifier, or ``None``.
        cache: Folder of the features of all sets but the samples.
        progress: Show bars.
    """

    extractor: ExtractorModule | None
    classifier: nn.Module | None
    cache: Path
    progress: bool


def score_samples(
    model: TrainedModel, plan: SamplingPlan, material: Material, samples: Samples, scorers: Scorers
) -> SampleScores:
    """Energies of the samples, their controls, and a row of scores for each set."""
    logits, _ = embed(
        model.net,
        samples.pixels.to(model.device),
        channels_last=model.config.training.channels_last,
    )
    logits = logits.cpu()
    means = as_bytes(material.images.means())
    every = sets(samples, model.data.test, means, plan.seed)
    near = {
        name: find_nearest(
            every[name], material.images, f"nearest of {name}", progress=scorers.progress
        )
        for name in (SAMPLES, START, HELD_OUT)
    }
    energies = {
        "joint": joint_energy(logits, samples.label),
        "marginal": marginal_energy(logits),
    }
    return SampleScores(
        samples=samples,
        energies=energies,
        descended=ENERGIES[plan.sampler.energy](logits, samples.label),
        sets=every,
        near=near,
        rows=_rows(model, plan, every, near, scorers),
        training=model.data.train,
        classes=_class_names(model),
        training_energies=material.energies.cpu(),
    )


def _rows(
    model: TrainedModel,
    plan: SamplingPlan,
    every: Mapping[str, ImageSet],
    near: Mapping[str, Nearest],
    scorers: Scorers,
) -> dict[str, dict[str, Any]]:
    channels_last = model.config.training.channels_last
    rows: dict[str, dict[str, Any]] = {
        name: {
            "images": len(images),
            "classifier_accuracy": classifier_accuracy(
                scorers.classifier, images, channels_last=channels_last
            ),
            "variety": variety(images),
        }
        for name, images in every.items()
    }
    for name, neighbours in near.items():
        rows[name]["nearest"] = float(neighbours.distances.median())
        rows[name]["copied"] = copy_rate(neighbours, near[HELD_OUT])
    for name, values in _quality(model, plan, every, scorers).items():
        rows[name] |= values
    return rows


def _class_names(model: TrainedModel) -> list[str]:
    """Of the configuration of the data set; numbers where it has none."""
    dataset = model.config.dataset
    return [str(name) for name in dataset.get("names") or range(dataset.classes)]


def _quality(
    model: TrainedModel, plan: SamplingPlan, every: Mapping[str, ImageSet], scorers: Scorers
) -> dict[str, dict[str, Any]]:
    """Scores of every set against the reference."""
    if scorers.extractor is None:
        return {}
    real: ImageSet = getattr(model.data, plan.reference)
    features = {
        name: _features(images, scorers.extractor, model, name, scorers)
        for name, images in {**every, REFERENCE: real}.items()
    }
    enough = [name for name, images in every.items() if len(images) >= MIN_IMAGES]
    return {name: asdict(compute_scores(features[name], features[REFERENCE])) for name in enough}


def _features(
    images: ImageSet, extractor: ExtractorModule, model: TrainedModel, name: str, scorers: Scorers
) -> Features:
    """Features of a set; of all sets but the samples, computed once and kept in a file."""

    def extract() -> Features:
        return extract_features(
            extractor, images.pixels, model.device, label=name, progress=scorers.progress
        )

    if name == SAMPLES:
        return extract()
    key = cache_key(images.digests(), extractor.name, _weights(extractor))
    path = scorers.cache / f"features-{extractor.name}-{key[:12]}.safetensors"
    file = cached(path, lambda: vars(extract()))
    return Features(file["logits"], file["values"])


def _weights(extractor: ExtractorModule) -> list[float]:
    """Distinguishes the weights of extractors with the same name."""
    return [float(p.double().sum()) for p in extractor.module.parameters()]


def sets(samples: Samples, held_out: ImageSet, means: Tensor, seed: int) -> dict[str, ImageSet]:
    """The samples, and the sets that they are to be compared with.

    Args:
        samples: Finished.
        held_out: Real images that nothing was fitted to; as many as there are samples are drawn,
            or all if there are fewer.
        means: Mean image of every class, as bytes; each sample's class has its own.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(held_out), generator=generator)[: len(samples)].sort().values
    return {
        SAMPLES: ImageSet(samples.pixels, samples.label),
        START: ImageSet(samples.start, samples.label),
        HELD_OUT: held_out.take(drawn),
        MEANS: ImageSet(means[samples.label], samples.label),
    }


def find_nearest(
    images: ImageSet, training: TrainingImages, label: str, *, progress: bool
) -> Nearest:
    """The nearest training image of each of the first ``MOST`` images, whatever its class."""
    device = training.pixels.device
    rows = as_rows(images.pixels[:MOST].to(device))
    best = torch.full((len(rows),), torch.inf, device=device)
    places = torch.zeros(len(rows), dtype=torch.long, device=device)
    chunks = range(0, len(training.labels), CHUNK)
    for first in tqdm(chunks, desc=label, leave=False, disable=not progress):
        found = torch.cdist(rows, as_rows(training.pixels[first : first + CHUNK])).min(1)
        closer = found.values < best
        best = torch.where(closer, found.values, best)
        places = torch.where(closer, found.indices + first, places)
    # Matrix products find the place; of near images, they lose the distance.
    exact = [
        torch.linalg.vector_norm(part - as_rows(training.pixels[at]), dim=1)
        for part, at in zip(torch.split(rows, CHUNK), torch.split(places, CHUNK), strict=True)
    ]
    return Nearest(torch.cat(exact).cpu(), places.cpu())


def variety(images: ImageSet) -> float | None:
    """Mean L2 distance between two images of a class, over the classes; in pixel units.

    ``None`` if no class has two images.
    """
    found = []
    for label in torch.unique(images.labels).tolist():
        rows = as_rows(images.pixels[images.labels == label][:MOST])
        if len(rows) > 1:
            found.append(torch.pdist(rows).mean())
    return float(torch.stack(found).mean()) if found else None


def classifier_accuracy(
    classifier: nn.Module | None, images: ImageSet, *, channels_last: bool
) -> float | None:
    """Accuracy of the classifier on the images; ``None`` without one."""
    if classifier is None:
        return None
    device = next(classifier.parameters()).device
    logits, _ = embed(classifier, images.pixels.to(device), channels_last=channels_last)
    return float((logits.argmax(1).cpu() == images.labels).float().mean())


def copy_rate(ours: Nearest, real: Nearest) -> float:
    """Share of images that are nearer to a training image than 99 of 100 held-out images are.

    0.01 for held-out images themselves.
    """
    return float((ours.distances < real.distances.quantile(0.01)).float().mean())
