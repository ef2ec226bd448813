"""Scores of a sampling: energies, controls, distances to training images, IS and FID."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energy_at.core.files import read_json, write_atomic
from energy_at.core.progress import Bar
from energy_at.core.types import Labels
from energy_at.data import ImageSet
from energy_at.sampling.langevin import ENERGIES
from energy_at.sampling.prepare import Material, cache_key, cached
from energy_at.sampling.quality import (
    MIN_IMAGES,
    compute_scores,
    extract_features,
    inception_score,
    most_confident,
)
from energy_at.sampling.samples import Samples, as_bytes
from energy_at.sampling.training_images import Embedding, TrainingImages, as_rows, embed

REFERENCE = "reference images"
SAMPLES, START, HELD_OUT, MEANS = "samples", "start alone", "held-out images", "class means"
MOST = 2000  # images whose nearest training image is looked for, and of a class whose pairs count
CHUNK = 2048


class Nearest(NamedTuple):
    """The nearest training image of each image: L2 distance in pixels, and index."""

    distances: Float[Tensor, " images"]
    places: Labels


class SampleScores(NamedTuple):
    """Energies, controls and scores of a sampling."""

    energies: Mapping[str, Tensor]  # of the written images, in nats: joint, marginal, descended
    near: Mapping[str, Nearest]  # nearest training images, of the samples and of the controls
    rows: Mapping[str, Mapping[str, Any]]  # scores of every set


def score(
    material: Material, samples: Samples, extractor: nn.Module | None, classifier: nn.Module | None
) -> SampleScores:
    """Energies of the samples, their controls, and a row of scores for each set.

    Without ``extractor`` there are no IS and FID, without ``classifier`` no accuracy. Features and
    scores of all sets but the samples are computed once and kept in files; features of the
    reference for all networks.
    """
    model, plan, training = material.model, material.plan, material.images
    channels_last = model.config.training.channels_last
    logits = embed(model.net, samples.pixels, channels_last=channels_last).logits.cpu()
    kinds = {"joint", "marginal", plan.sampler.energy}
    energies = {kind: ENERGIES[kind](logits, samples.label) for kind in kinds}
    held_out = material.of_classes(model.data.test)
    every = sets(samples, held_out, as_bytes(training.means()), plan.seed)
    near = {
        name: find_nearest(every[name], training, f"nearest of {name}", progress=material.progress)
        for name in (SAMPLES, START, HELD_OUT)
    }
    rows: dict[str, dict[str, Any]] = {
        name: {
            "images": len(images),
            "classifier_accuracy": classifier_accuracy(
                classifier, images, channels_last=channels_last
            ),
            "variety": variety(images),
        }
        for name, images in every.items()
    }
    for name, neighbours in near.items():
        rows[name]["nearest"] = float(neighbours.distances.median())
        rows[name]["copied"] = copy_rate(neighbours, near[HELD_OUT])
    if extractor is not None:
        real = material.of_classes(plan.reference_images(model.data))
        reference = _features(extractor, REFERENCE, real, material)
        for name, images in every.items():
            features = _features(extractor, name, images, material)
            if name == SAMPLES and plan.most_confident is not None:
                of_is, of_fid = (most_confident(logits, share) for share in plan.most_confident)
                kept = Embedding(*(values[of_fid] for values in features))
                rows[name] |= compute_scores(kept, reference)
                rows[name] |= inception_score(features.logits[of_is])
            elif name == SAMPLES:
                rows[name] |= compute_scores(features, reference)
            elif len(images) >= MIN_IMAGES:
                key = cache_key(*(_key(extractor, one, material) for one in (images, real)))
                rows[name] |= _known_scores(features, reference, material.cache, key)
    return SampleScores(energies, near, rows)


def _features(extractor: nn.Module, name: str, images: ImageSet, material: Material) -> Embedding:
    def extract() -> Embedding:
        device, progress = material.model.device, material.progress
        # class means, and stored images that several samples start from, are computed once
        unique, place = images.pixels.unique(dim=0, return_inverse=True)
        found = extract_features(extractor, unique, device, name, progress=progress)
        return Embedding(*(values[place] for values in found))

    if name == SAMPLES:
        return extract()
    key = _key(extractor, images, material)
    folder = material.shared if name == REFERENCE else material.cache
    kind = f"embedding-{material.plan.extractor.name}"
    return Embedding(**cached(folder, kind, key, lambda: extract()._asdict()))


def _key(extractor: nn.Module, images: ImageSet, material: Material) -> str:
    """Of features. Extractors with the same name may have other weights."""
    weights = [float(p.double().sum()) for p in extractor.parameters()]
    return cache_key(images.digests(), material.plan.extractor.name, weights)


def _known_scores(
    features: Embedding, reference: Embedding, folder: Path, key: str
) -> dict[str, float]:
    """Scores that are kept in a file, as they depend on no sampling: precision takes minutes."""
    path = folder / f"scores-{key[:12]}.json"
    with suppress(OSError, ValueError):  # of a file that is missing or damaged
        known = read_json(path)
        if all(type(value) in (int, float, bool) for value in known.values()):
            return known
    scores = compute_scores(features, reference)
    write_atomic(path, json.dumps(scores) + "\n")
    return scores


def sets(samples: Samples, held_out: ImageSet, means: Tensor, seed: int) -> dict[str, ImageSet]:
    """The samples, their starts, as many held-out images drawn by seed, and their class means.

    All held-out images are taken if there are fewer than samples; ``means`` are bytes, by class.
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
    for first in Bar(chunks, desc=label, visible=progress):
        found = torch.cdist(rows, as_rows(training.pixels[first : first + CHUNK])).min(1)
        closer = found.values < best
        best = torch.where(closer, found.values, best)
        places = torch.where(closer, found.indices + first, places)
    # Matrix products find the place; of near images, they lose the distance.
    exact = torch.linalg.vector_norm(rows - as_rows(training.pixels[places]), dim=1)
    return Nearest(exact.cpu(), places.cpu())


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
    logits = embed(classifier, images.pixels, channels_last=channels_last).logits
    return float((logits.argmax(1).cpu() == images.labels).float().mean())


def copy_rate(ours: Nearest, real: Nearest) -> float:
    """Share of images that are nearer to a training image than 99 of 100 held-out images are.

    0.01 for held-out images themselves.
    """
    return float((ours.distances < real.distances.quantile(0.01)).float().mean())
