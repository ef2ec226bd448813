"""A sampling: prepares, draws the images, scores them, writes the files."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from energy_at.config.build import keys_of
from energy_at.core.device import keep_freed_memory
from energy_at.core.files import user_cache, write_error
from energy_at.evaluation import open_model, result_key
from energy_at.evaluation.trained_model import TrainedModel, require_wandb_only
from energy_at.models.modes import Tiled, eval_mode, tile_of
from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling.classifier import cache_folder, find_classifier, load_classifier
from energy_at.sampling.interpolation import ends_of, interpolate
from energy_at.sampling.langevin import generate
from energy_at.sampling.output import FILES, describe, publish_samples, write_files
from energy_at.sampling.plan import SamplingPlan, chosen_classes, load_extractor, plan_of
from energy_at.sampling.prepare import Material, is_of, prepare
from energy_at.sampling.quality import require_enough
from energy_at.sampling.samples import Parts, Samples, SamplingBar
from energy_at.sampling.score import score
from energy_at.sampling.trajectories import trajectories


class Caches(NamedTuple):
    """Folders of files that other samplings reuse."""

    own: Path  # of this network
    shared: Path  # of all networks


def sample_command(cfg: DictConfig, overrides: Sequence[str] = (), job: Path | None = None) -> str:
    """Samples, or resumes sampling, from the network that the configuration names.

    ``job`` is the folder of a job of a sweep. Returns the tables, and where the files are.

    Raises:
        ValueError: if something is not available, before anything is written; if ``out`` holds
            another result; if an energy is not finite.
    """
    require_wandb_only(cfg)
    keep_freed_memory()
    plan = plan_of(cfg)
    model = open_model(cfg, overrides)
    classes = chosen_classes(cfg.classes, model.config.dataset)
    between = ends_of(cfg.interpolate, model.config.dataset, plan)
    of_images = {group: chosen for group, chosen in plan.settings.items() if group != "quality"}
    of_images |= {"n": plan.n, "seed": plan.seed, "classes": list(classes)}
    key = result_key(model, model.data.train, of_images)
    root = model.folder / "samples"
    out = job if cfg.out is None else Path(str(cfg.out))
    out = out or root / f"{plan.settings['start']['name']}-{plan.n}-{key[:8]}"
    folder = ResultFolder(out, "sampling", key)
    elsewhere = (cfg.out is not None and cfg.checkpoint is not None) or bool(write_error(root))
    own = out / ".cache" if elsewhere else root / "cache"
    if (cache := _typed_cache(cfg)) is not None:
        caches = Caches(cache_folder(cache), cache_folder(cache))
    else:
        apart = not (elsewhere or write_error(user_cache()))
        caches = Caches(own, cache_folder(None) if apart else own)
    with folder.in_use():
        text, rows = _sample(cfg, model, plan, classes, between, folder, caches)
    publish_samples(cfg, model, out, rows, plan.protocol)
    files = [*FILES, *["images/"] * (plan.format == "png")]
    return f"{text}\n\nwritten to {out}/: {', '.join(files)} and figures"


def _sample(
    cfg: DictConfig,
    model: TrainedModel,
    plan: SamplingPlan,
    classes: tuple[int, ...],
    between: tuple[int, int] | None,
    folder: ResultFolder,
    caches: Caches,
) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    with keys_of(cfg.quality, n="subset"):
        labels = plan.reference_images(model.data).labels
        if plan.extractor.name != "none":
            require_enough(plan.n, int(is_of(classes, labels).sum()))
            plan.require_confident(int(model.config.dataset.classes))
    parts = Parts(folder)
    earlier = len(parts.done)
    judge = find_classifier(model, str(cfg.judge), _typed_cache(cfg))
    classifier = None
    if judge is not None and judge.has_checkpoint():  # or refused, before anything is written
        classifier = load_classifier(model, judge, progress=cfg.progress)
    waits = plan.extractor.name == "classifier" and judge is not None
    with keys_of(cfg.quality, classifier="judge"):
        extractor = None if waits else load_extractor(plan.extractor, model.device)
    seconds: dict[str, float] = {}
    with _timed(seconds, "prepare"):
        with keys_of(cfg.start):
            material = prepare(
                model, plan, caches.own, classes, shared=caches.shared, progress=cfg.progress
            )
        if judge is not None and classifier is None:
            classifier = load_classifier(model, judge, progress=cfg.progress)
        if waits:
            extractor = load_extractor(plan.extractor, model.device, classifier)
    with _timed(seconds, "sample"), keys_of(cfg.sampler):
        if earlier < plan.n:
            _generate(material, parts)
        samples = Samples.concat(parts.finished)
    with _timed(seconds, "measure"):
        scores = score(material, samples, extractor, classifier)
        chains = trajectories(material, samples, plan.frames)
        bridge = None if between is None else interpolate(material, between, plan.frames or 8)
    report = {
        "key": folder.key,
        **describe(material, samples, scores.rows),
        **({} if bridge is None else {"interpolation": bridge.report()}),
        "batch_size": plan.batch_size,
        "seconds": seconds,
        "of_earlier_attempts": earlier,
    }
    with folder.staged() as part:
        text = write_files(part, report, material, samples, scores, chains, bridge)
    parts.remove()
    return text, scores.rows


def _typed_cache(cfg: DictConfig) -> str | None:
    return None if cfg.cache is None else str(cfg.cache)  # a folder may be called 7


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)


def _generate(material: Material, parts: Parts) -> None:
    """Adds the missing samples to the finished ones."""
    model, plan, done = material.model, material.plan, parts.done
    last = model.config.training.channels_last
    net = Tiled(model.net, tile_of(model.device), channels_last=last)
    bar = SamplingBar(
        total=plan.n, initial=len(done), desc="sampling", unit="img", visible=material.progress
    )
    starts = material.portions(done)
    chains = generate(net, plan.sampler, plan.guidance, starts, plan.batch_size, bar.show_energies)
    with eval_mode(net), bar:
        try:
            for stopped in chains:
                samples = Samples.of(stopped)
                parts.add(samples)
                bar.count(samples)
        finally:
            parts.write()
