"""A sampling from beginning to end: images, controls, scores, files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from energy_at.evaluation.trained_model import TrainedModel
from energy_at.models.modes import eval_mode
from energy_at.models.tiled import Tiled, tile_of
from energy_at.sampling import generate
from energy_at.sampling.judge import judge_of, require_judge
from energy_at.sampling.keys import key_of, network_key
from energy_at.sampling.output import FILES, Attempt, finished_before, is_writable, write
from energy_at.sampling.plan import Plan
from energy_at.sampling.prepare import Material, prepared
from energy_at.sampling.progress import SamplingBar
from energy_at.sampling.quality import ExtractorModule, require_enough
from energy_at.sampling.samples import Parts, Samples
from energy_at.sampling.score import Eyes, measured

__all__ = ["FILES", "sample"]


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


def sample(
    subject: TrainedModel, plan: Plan, out: Path | None, options: Options
) -> tuple[Path, str]:
    """Samples, or goes on with sampling, measures, and writes what there is to see.

    Returns:
        The folder of the files, and the tables as Markdown.

    Raises:
        ValueError: if something cannot be had, before anything is written; if ``out`` holds other
            samples; if an energy is not finite.
    """
    key = key_of(network_key(subject), subject.data.train.digests(), plan.drawn)
    folder, cache = _places(subject, plan, out, key)
    parts = Parts(folder / "parts", key)
    before = finished_before(folder, key)
    earlier = plan.n if before else len(parts.done)
    require_judge(subject, options.judge)
    extractor = _extractor(subject, plan, options)
    seconds: dict[str, float] = {}
    with _timed(seconds, "prepare"):
        material = prepared(subject, plan, cache)
        judge = judge_of(subject, options.judge, cache, progress=options.progress)
        if extractor is None and plan.extractor.name == "classifier":
            extractor = plan.extractor.load(subject.device, judge)
    with _timed(seconds, "sample"):
        samples = before or _generated(subject, plan, material, parts, options)
    eyes = Eyes(extractor, judge, cache, options.progress)
    with _timed(seconds, "measure"):
        found = measured(subject, plan, material, samples, eyes)
    attempt = Attempt(key, options.batch_size, seconds, earlier)
    text = write(folder, subject, plan, found, attempt)
    parts.remove()
    return folder, text


def _places(subject: TrainedModel, plan: Plan, out: Path | None, key: str) -> tuple[Path, Path]:
    """The folder of the files, and that of what other samplings can use again."""
    root = subject.folder / "samples"
    folder = out or root / f"{plan.settings['start']['name']}-{plan.n}-{key[:8]}"
    if not is_writable(folder):
        raise ValueError(f"{folder} is no folder that can be written to: choose another out=FOLDER")
    return folder, (root if is_writable(root) else folder) / "cache"


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begun


def _extractor(subject: TrainedModel, plan: Plan, options: Options) -> ExtractorModule | None:
    """The extractor, before anything is sampled; a classifier has to wait for the judge."""
    if plan.extractor.name == "none":
        return None
    require_enough(plan.n, len(getattr(subject.data, plan.reference)))
    waits = plan.extractor.name == "classifier" and options.judge != "none"
    return None if waits else plan.extractor.load(subject.device)


def _generated(
    subject: TrainedModel, plan: Plan, material: Material, parts: Parts, options: Options
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
