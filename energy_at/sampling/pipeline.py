"""A sampling: prepares, draws the images, scores them, writes the files."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from energy_at.evaluation import TrainedModel, open_model, result_key
from energy_at.evaluation.trained_model import require_wandb_only
from energy_at.models.modes import Tiled, eval_mode, tile_of
from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling.classifier import load_classifier, require_classifier
from energy_at.sampling.langevin import generate
from energy_at.sampling.output import FILES, describe, publish_samples, write_files
from energy_at.sampling.prepare import Material, SamplingPlan, plan_of, prepare
from energy_at.sampling.quality import require_enough
from energy_at.sampling.samples import Parts, Samples, SamplingBar
from energy_at.sampling.score import Scorer


def sample_command(cfg: DictConfig, overrides: Sequence[str] = (), job: Path | None = None) -> str:
    """Samples from the network that the configuration of the command names.

    ``job`` is the folder of a job of a sweep. Returns the tables, and where the files are.
    """
    require_wandb_only(cfg)
    plan, asked = plan_of(cfg), cfg.copy()
    cfg.seed = 0  # of the data: the held-out images must not depend on the seed of the samples
    model = open_model(cfg, overrides)
    folder, text = sample(
        model,
        plan,
        job if cfg.out is None else Path(str(cfg.out)),
        batch_size=cfg.batch_size,
        classifier=str(cfg.judge),
        progress=cfg.progress,
    )
    publish_samples(asked, model, folder)
    return f"{text}\n\nwritten to {folder}/: {', '.join(FILES)} and figures"


def sample(
    model: TrainedModel,
    plan: SamplingPlan,
    out: Path | None = None,
    *,
    batch_size: int = 256,
    classifier: str = "auto",
    progress: bool = True,
) -> tuple[Path, str]:
    """Samples, or resumes sampling, scores the images and writes the files.

    Args:
        model: The network.
        plan: What to sample.
        out: The folder of the files; one below ``model.folder`` by default.
        batch_size: Samples that move at once; it changes no image.
        classifier: ``auto``, ``none`` or the folder of a run.
        progress: Show bars.

    Returns:
        The folder of the files, and the tables as Markdown.

    Raises:
        ValueError: if something is not available, before anything is written; if ``out`` holds
            another result; if an energy is not finite.
    """
    key = result_key(model, model.data.train, plan.image_settings)
    path, cache = _places(model, plan, out, key)
    folder = ResultFolder(path, "sampling", key)
    parts = Parts(folder)
    earlier = len(parts.done)
    require_classifier(model, classifier)
    extractor, waits = None, plan.extractor.name == "classifier" and classifier != "none"
    if plan.extractor.name != "none":
        require_enough(plan.n, len(getattr(model.data, plan.reference)))
        extractor = None if waits else plan.extractor.load(model.device)
    seconds: dict[str, float] = {}
    with _timed(seconds, "prepare"):
        material = prepare(model, plan, cache)
        classifier_net = load_classifier(model, classifier, cache, progress=progress)
        if waits:
            extractor = plan.extractor.load(model.device, classifier_net)
    with _timed(seconds, "sample"):
        if earlier < plan.n:
            _generate(model, plan, material, parts, batch_size, progress)
        samples = Samples.concat(parts.finished)
    with _timed(seconds, "measure"):
        scorer = Scorer(model, plan, material, extractor, classifier_net, cache, progress)
        scores = scorer.score(samples)
    report = {
        "key": key,
        **describe(model, plan, material, scores),
        "batch_size": batch_size,
        "seconds": seconds,
        "of_earlier_attempts": earlier,
    }
    with folder.staged() as part:
        text = write_files(part, report, plan, material, scores)
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


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)


def _generate(
    model: TrainedModel,
    plan: SamplingPlan,
    material: Material,
    parts: Parts,
    batch_size: int,
    progress: bool,
) -> None:
    """Adds the missing samples to the finished ones."""
    net = Tiled(model.net, tile_of(model.device))
    todo, done = material.portions(plan, parts.done), len(parts.done)
    bar = SamplingBar(total=plan.n, initial=done, desc="sampling", unit="img", disable=not progress)
    with eval_mode(net), bar:
        try:
            for stopped in generate(
                net, plan.sampler, plan.guidance, todo, batch_size, bar.show_energies
            ):
                samples = Samples.of(stopped)
                parts.add(samples)
                bar.count(samples)
        finally:
            parts.write()
