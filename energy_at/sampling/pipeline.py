"""A sampling: prepares, draws the images, scores them, writes the files."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from energy_at.evaluation import TrainedModel, open_model, result_key
from energy_at.evaluation.publish import require_wandb_only
from energy_at.models.modes import Tiled, eval_mode, tile_of
from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling.classifier import load_classifier, require_classifier
from energy_at.sampling.langevin import generate
from energy_at.sampling.output import FILES, Attempt, publish_samples, write_files
from energy_at.sampling.prepare import Material, SamplingPlan, plan_of, prepare
from energy_at.sampling.quality import ExtractorModule, require_enough
from energy_at.sampling.samples import Parts, Samples, SamplingBar
from energy_at.sampling.score import Scorers, score_samples


@dataclass(frozen=True)
class Options:
    """Settings that do not change the images.

    Attributes:
        batch_size: Samples that move at once.
        classifier: ``auto``, ``none`` or the folder of a run.
        progress: Show bars.
    """

    batch_size: int = 256
    classifier: str = "auto"
    progress: bool = True


def sample_command(cfg: DictConfig, overrides: Sequence[str] = (), job: Path | None = None) -> str:
    """Samples from the network that the configuration names.

    Args:
        cfg: The configuration of the command ``sample``.
        overrides: From the command line.
        job: The folder of a job of a sweep.

    Returns:
        The tables, and where the files are.
    """
    require_wandb_only(cfg)
    plan, asked = plan_of(cfg), cfg.copy()
    cfg.seed = 0  # of the data: the held-out images must not depend on the seed of the samples
    model = open_model(cfg, overrides)
    out = job if cfg.out is None else Path(str(cfg.out))
    options = Options(cfg.batch_size, str(cfg.judge), cfg.progress)
    folder, text = sample(model, plan, out, options)
    publish_samples(asked, model, folder)
    return f"{text}\n\nwritten to {folder}/: {', '.join(FILES)} and figures"


def sample(
    model: TrainedModel,
    plan: SamplingPlan,
    out: Path | None = None,
    options: Options = Options(),
) -> tuple[Path, str]:
    """Samples, or resumes sampling, scores the images and writes the files.

    Returns:
        The folder of the files, and the tables as Markdown.

    Raises:
        ValueError: if something is not available, before anything is written; if ``out`` holds
            another result; if an energy is not finite.
    """
    key = result_key(model, model.data.train, plan.image_settings)
    path, cache = _places(model, plan, out, key)
    folder = ResultFolder(path, "sampling", key)
    finished = _read_finished(path / FILES[0])
    parts = Parts(folder)
    earlier = plan.n if finished else len(parts.done)
    require_classifier(model, options.classifier)
    extractor = _extractor(model, plan, options)
    seconds: dict[str, float] = {}
    with _timed(seconds, "prepare"):
        material = prepare(model, plan, cache)
        classifier = load_classifier(model, options.classifier, cache, progress=options.progress)
        if extractor is None and plan.extractor.name == "classifier":
            extractor = plan.extractor.load(model.device, classifier)
    with _timed(seconds, "sample"):
        samples = finished or _generate(model, plan, material, parts, options)
    with _timed(seconds, "measure"):
        scorers = Scorers(extractor, classifier, cache, options.progress)
        scores = score_samples(model, plan, material, samples, scorers)
    attempt = Attempt(key, options.batch_size, seconds, earlier)
    with folder.staged() as part:
        text = write_files(part, model, plan, scores, attempt)
    parts.remove()
    return path, text


def _places(
    model: TrainedModel, plan: SamplingPlan, out: Path | None, key: str
) -> tuple[Path, Path]:
    """The folder of the files, and the folder of files that other samplings reuse."""
    root = model.folder / "samples"
    folder = out or root / f"{plan.settings['start']['name']}-{plan.n}-{key[:8]}"
    if not _is_writable(folder):
        raise ValueError(f"{folder} is not a writable folder: choose another out=FOLDER")
    return folder, root / "cache" if _is_writable(root) else folder / ".cache"


def _is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which may not exist yet."""
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def _read_finished(file: Path) -> Samples | None:
    """All samples, if an earlier call has finished them."""
    if not file.is_file():
        return None
    samples = Samples.read(file)
    if samples is None:
        raise ValueError(f"{file} is damaged: remove it, or choose another out=FOLDER")
    return samples


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start


def _extractor(model: TrainedModel, plan: SamplingPlan, options: Options) -> ExtractorModule | None:
    """The extractor, before anything is sampled; or ``None`` while its classifier is missing."""
    if plan.extractor.name == "none":
        return None
    require_enough(plan.n, len(getattr(model.data, plan.reference)))
    waits = plan.extractor.name == "classifier" and options.classifier != "none"
    return None if waits else plan.extractor.load(model.device)


def _generate(
    model: TrainedModel, plan: SamplingPlan, material: Material, parts: Parts, options: Options
) -> Samples:
    net = Tiled(model.net, tile_of(model.device))
    todo = material.portions(plan, parts.done)
    with (
        eval_mode(net),
        SamplingBar(plan.n, len(parts.done), disable=not options.progress) as bar,
    ):
        try:
            for stopped in generate(
                net, plan.sampler, plan.guidance, todo, options.batch_size, bar.show_energies
            ):
                samples = Samples.of(stopped)
                parts.add(samples)
                bar.count(samples)
        finally:
            parts.write()
    return Samples.concat(parts.finished)
