"""What a sampling is measured by: its controls, and the scores of every set."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from energy_at.data import ImageSet
from energy_at.energy.energies import joint_energy, marginal_energy
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.sampling import ENERGIES, embed
from energy_at.sampling.controls import (
    HELD_OUT,
    SAMPLES,
    START,
    Nearest,
    copied,
    judged,
    nearest,
    sets,
    variety,
)
from energy_at.sampling.keys import key_of
from energy_at.sampling.plan import Plan
from energy_at.sampling.prepare import Material, cached
from energy_at.sampling.quality import (
    MIN_IMAGES,
    ExtractorModule,
    Features,
    compute_scores,
    extract_features,
)
from energy_at.sampling.samples import Samples, as_bytes
from energy_at.sampling.summary import Found

REFERENCE = "reference images"


@dataclass(frozen=True)
class Eyes:
    """Who looks at the samples.

    Attributes:
        extractor: Finds the features that scores are made of; ``None`` for no scores.
        judge: An independent classifier; ``None`` for none.
        cache: Folder of the features of everything but the samples.
        progress: Show bars.
    """

    extractor: ExtractorModule | None
    judge: nn.Module | None
    cache: Path
    progress: bool


def measured(
    subject: TrainedModel, plan: Plan, material: Material, samples: Samples, eyes: Eyes
) -> Found:
    """Energies of the samples, their controls, and a row of scores for each set."""
    logits, _ = embed(
        subject.net,
        samples.pixels.to(subject.device),
        channels_last=subject.config.training.channels_last,
    )
    logits = logits.cpu()
    means = as_bytes(material.images.means())
    every = sets(samples, subject.data.test, means, plan.seed)
    near = {
        name: nearest(every[name], material.images, f"nearest of {name}", progress=eyes.progress)
        for name in (SAMPLES, START, HELD_OUT)
    }
    energies = {
        "joint": joint_energy(logits, samples.label),
        "marginal": marginal_energy(logits),
    }
    return Found(
        samples=samples,
        energies=energies,
        descended=ENERGIES[plan.sampler.energy](logits, samples.label),
        sets=every,
        near=near,
        rows=_rows(subject, plan, every, near, eyes),
        training=subject.data.train,
        classes=_class_names(subject),
        training_energies=material.energies.cpu(),
    )


def _rows(
    subject: TrainedModel,
    plan: Plan,
    every: Mapping[str, ImageSet],
    near: Mapping[str, Nearest],
    eyes: Eyes,
) -> dict[str, dict[str, Any]]:
    channels_last = subject.config.training.channels_last
    rows: dict[str, dict[str, Any]] = {
        name: {
            "images": len(images),
            "judge": judged(eyes.judge, images, channels_last=channels_last),
            "variety": variety(images),
        }
        for name, images in every.items()
    }
    for name, found in near.items():
        rows[name]["nearest"] = float(found.distances.median())
        rows[name]["copied"] = copied(found, near[HELD_OUT])
    for name, scored in _scored(subject, plan, every, eyes).items():
        rows[name] |= scored
    return rows


def _class_names(subject: TrainedModel) -> list[str]:
    """As the data set's configuration has them; numbers without."""
    dataset = subject.config.dataset
    return [str(name) for name in dataset.get("names") or range(dataset.classes)]


def _scored(
    subject: TrainedModel, plan: Plan, every: Mapping[str, ImageSet], eyes: Eyes
) -> dict[str, dict[str, Any]]:
    """Scores of every set against the reference."""
    if eyes.extractor is None:
        return {}
    real: ImageSet = getattr(subject.data, plan.reference)
    seen = {
        name: _seen(images, eyes.extractor, subject, name, eyes)
        for name, images in {**every, REFERENCE: real}.items()
    }
    enough = [name for name, images in every.items() if len(images) >= MIN_IMAGES]
    return {name: asdict(compute_scores(seen[name], seen[REFERENCE])) for name in enough}


def _seen(
    images: ImageSet, extractor: ExtractorModule, subject: TrainedModel, name: str, eyes: Eyes
) -> Features:
    """What the extractor sees; of everything but the samples, looked at once and kept."""

    def look() -> Features:
        return extract_features(
            extractor, images.pixels, subject.device, label=name, progress=eyes.progress
        )

    if name == SAMPLES:
        return look()
    key = key_of(images.digests(), extractor.name, _weights(extractor))
    path = eyes.cache / f"features-{extractor.name}-{key[:12]}.safetensors"
    kept = cached(path, lambda: vars(look()))
    return Features(kept["logits"], kept["values"])


def _weights(extractor: ExtractorModule) -> list[float]:
    """Tells the weights of extractors of one name apart."""
    return [float(p.double().sum()) for p in extractor.module.parameters()]
