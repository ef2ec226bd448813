"""A sampling from beginning to end: images, controls, scores, files."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from energy_at.data import ImageSet
from energy_at.energy import joint_energy, marginal_energy
from energy_at.generation.controls import (
    HELD_OUT,
    SAMPLES,
    START,
    copied,
    judged,
    nearest,
    sets,
    variety,
)
from energy_at.generation.judge import judge_of, require_judge
from energy_at.generation.keys import images_key, key_of, network_key
from energy_at.generation.material import Material, cached, prepared
from energy_at.generation.output import FILES, Found, finished_before, is_writable, write
from energy_at.generation.plan import Plan
from energy_at.generation.progress import SamplingBar
from energy_at.generation.samples import Parts, Samples, as_bytes
from energy_at.modes import eval_mode
from energy_at.quality import (
    FEWEST,
    ExtractorModule,
    Features,
    features_of,
    require_enough,
    scores,
)
from energy_at.runs import environment
from energy_at.sampling import ENERGIES, Stop, embedded, generate
from energy_at.subject import Subject
from energy_at.tiled import Tiled, tile_of

__all__ = ["FILES", "sample"]

REFERENCE = "reference images"


@dataclass(frozen=True)
class Options:
    """What changes nothing of the images.

    Attributes:
        batch_size: Samples that move at once.
        judge: ``auto``, ``none`` or the folder of a run.
        progress: Show bars.
    """

    batch_size: int
    judge: str
    progress: bool


def sample(subject: Subject, plan: Plan, out: Path | None, options: Options) -> tuple[Path, str]:
    """Samples, or goes on with sampling, measures, and writes what there is to see.

    Returns:
        The folder of the files, and the tables as Markdown.

    Raises:
        ValueError: if something cannot be had, before anything is written; if ``out`` holds other
            samples; if an energy is not finite.
    """
    key = key_of(network_key(subject), images_key(subject.data.train), plan.drawn)
    root = subject.folder / "samples"
    folder = out or root / f"{plan.settings['start']['name']}-{plan.n}-{key[:8]}"
    if not is_writable(folder):
        raise ValueError(f"{folder} is no folder that can be written to: choose another out=FOLDER")
    cache = (root if is_writable(root) else folder) / "cache"
    parts = Parts(folder / "parts", key)
    before = finished_before(folder, key)
    earlier = plan.n if before else len(parts.done)
    require_judge(subject, options.judge)
    extractor = _extractor(subject, plan, options)
    clock = time.monotonic()
    material = prepared(subject, plan, cache)
    judge = judge_of(subject, options.judge, cache, progress=options.progress)
    if extractor is None and plan.extractor.name == "classifier":
        extractor = plan.extractor.load(subject.device, judge)
    times = {"prepare": time.monotonic() - clock}
    clock = time.monotonic()
    samples = before or _generated(subject, plan, material, parts, options)
    times["sample"] = time.monotonic() - clock
    clock = time.monotonic()
    found = _measured(subject, plan, material, samples, extractor, judge, cache, options)
    times["measure"] = time.monotonic() - clock
    about = {
        "key": key,
        "network": {
            "source": subject.source,
            "which": subject.which,
            "sha256": subject.fingerprint,
        },
        "dataset": subject.config.dataset.name,
        "fitted_to": {"split": "train", "images": len(subject.data.train)},
        "settings": dict(plan.settings),
        "config": {
            name: OmegaConf.to_container(subject.config[name], resolve=True)
            for name in ("dataset", "model")
        },
        "n": plan.n,
        "seed": plan.seed,
        "batch_size": options.batch_size,
        "device": str(subject.device),
        "seconds": {name: round(value, 1) for name, value in times.items()},
        "of_earlier_attempts": earlier,
        "environment": environment(),
    }
    text = write(folder, about, found, plan)
    parts.remove()
    return folder, text


def _extractor(subject: Subject, plan: Plan, options: Options) -> ExtractorModule | None:
    """The extractor, before anything is sampled; a classifier has to wait for the judge."""
    if plan.extractor.name == "none":
        return None
    require_enough(plan.n, len(getattr(subject.data, plan.reference)))
    waits = plan.extractor.name == "classifier" and options.judge != "none"
    return None if waits else plan.extractor.load(subject.device)


def _generated(
    subject: Subject, plan: Plan, material: Material, parts: Parts, options: Options
) -> Samples:
    net = Tiled(subject.net, tile_of(subject.device))
    todo = material.portions(plan, parts.done)
    with (
        eval_mode(net),
        SamplingBar(plan.n, len(parts.done), shown=options.progress) as bar,
    ):
        try:
            for stopped in generate(
                net, plan.sampler, plan.guidance, todo, options.batch_size, bar.seen
            ):
                samples = Samples.of(stopped)
                parts.add(samples)
                bar.finished(samples)
        finally:
            parts.write()
    return Samples.joined(parts.finished)


def _measured(
    subject: Subject,
    plan: Plan,
    material: Material,
    samples: Samples,
    extractor: ExtractorModule | None,
    judge: nn.Module | None,
    cache: Path,
    options: Options,
) -> Found:
    channels_last = subject.config.training.channels_last
    logits, _ = embedded(
        subject.net, samples.pixels.to(subject.device), channels_last=channels_last
    )
    means = as_bytes(material.images.means())
    every = sets(samples, subject.data.test, means, plan.seed)
    near = {
        name: nearest(every[name], material.images, f"nearest of {name}", progress=options.progress)
        for name in (SAMPLES, START, HELD_OUT)
    }
    rows = {
        name: {
            "images": len(images),
            "judge": judged(judge, images, channels_last=channels_last),
            "variety": variety(images),
        }
        for name, images in every.items()
    }
    for name, found in near.items():
        rows[name]["nearest"] = float(found.distances.median())
        rows[name]["copied"] = copied(found, near[HELD_OUT])
    for name, scored in _scored(subject, plan, every, extractor, cache, options).items():
        rows[name] |= scored
    return Found(
        samples,
        {
            "joint": joint_energy(logits.cpu(), samples.label),
            "marginal": marginal_energy(logits.cpu()),
        },
        ENERGIES[plan.sampler.energy](logits.cpu(), samples.label),
        every,
        near,
        rows,
        {
            "stopped": {stop.name.lower(): int((samples.stop == stop).sum()) for stop in Stop},
            "mean_steps": float(samples.steps.float().mean()),
            "training_energy": float(material.energies.mean()),
            "reference": {
                "dataset": subject.config.dataset.name,
                "split": plan.reference,
                "images": len(getattr(subject.data, plan.reference)),
            },
            "extractor": plan.extractor.name,
        },
        subject.data.train,
        _class_names(subject),
        material.energies.cpu(),
    )


def _class_names(subject: Subject) -> list[str]:
    """As the data set's configuration has them; numbers without."""
    dataset = subject.config.dataset
    return [str(name) for name in dataset.get("names") or range(dataset.classes)]


def _scored(
    subject: Subject,
    plan: Plan,
    every: Mapping[str, ImageSet],
    extractor: ExtractorModule | None,
    cache: Path,
    options: Options,
) -> dict[str, dict[str, Any]]:
    """Scores of every set against the reference."""
    if extractor is None:
        return {}
    real: ImageSet = getattr(subject.data, plan.reference)
    seen = {
        name: _seen(images, extractor, subject, cache, name, options)
        for name, images in {**every, REFERENCE: real}.items()
    }
    enough = [name for name, images in every.items() if len(images) >= FEWEST]
    return {name: asdict(scores(seen[name], seen[REFERENCE])) for name in enough}


def _seen(
    images: ImageSet,
    extractor: ExtractorModule,
    subject: Subject,
    cache: Path,
    name: str,
    options: Options,
) -> Features:
    """What the extractor sees; of everything but the samples, looked at once and kept."""

    def look() -> Features:
        return features_of(
            extractor, images.pixels, subject.device, label=name, progress=options.progress
        )

    if name == SAMPLES:
        return look()
    key = key_of(images_key(images), extractor.name, _weights(extractor))
    path = cache / f"features-{extractor.name}-{key[:12]}.safetensors"
    kept = cached(path, lambda: vars(look()))
    return Features(kept["logits"], kept["values"])


def _weights(extractor: ExtractorModule) -> list[float]:
    """Tells the weights of extractors of one name apart."""
    return [float(p.double().sum()) for p in extractor.module.parameters()]
