"""A training from its start to ``results.json``: accuracies and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from energy_at.config.build import Run, build_module, make_attacks
from energy_at.config.preflight import announce, prepare
from energy_at.core.files import digest
from energy_at.core.progress import printable, titled
from energy_at.core.types import Images, Labels
from energy_at.data import ImageSet, as_floats
from energy_at.evaluation.robustness import Evaluator
from energy_at.models.modes import eval_mode
from energy_at.overfitting.alarms import ALARMS
from energy_at.reporting.comparison import OPTIONAL, results_table
from energy_at.reporting.describe import display_name, setting
from energy_at.reporting.figures import save
from energy_at.reporting.figures.training_curves import delta_energy_figure
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.checkpoints import read_checkpoint, state_digest
from energy_at.runs.folder import RunFolder, accuracies_in
from energy_at.training import LastCheckpoint
from energy_at.training.callbacks import callbacks_of
from energy_at.training.launch import fit
from energy_at.training.module import AdversarialTraining
from energy_at.training.rollback import Remedies
from energy_at.training.sentinel import Sentinel
from energy_at.training.trackers import trackers


def train(
    cfg: DictConfig, folder: RunFolder, checkpoint: Path | None = None, typed: Sequence[str] = ()
) -> None:
    """Fits, evaluates the last and the best checkpoint, and writes results, table and figure.

    The folder is in use by this process.
    """
    run = prepare(cfg, folder, checkpoint, typed)
    announce(cfg, run, folder)
    try:
        fit(run.trainer, run.module, run.data, folder.path, checkpoint, typed)
        if run.trainer.is_global_zero:  # of several processes, the first one does all writing
            finish(cfg, run, folder)
    finally:
        for logger in trackers(run.trainer.loggers):
            logger.finish()  # so that the next training of the process begins its own


def finish(cfg: DictConfig, run: Run, folder: RunFolder) -> None:
    """Evaluates a trained network; writes its results, table and figure, and logs them.

    ``results.json`` comes last: a run that was killed before is resumed, and completed. So is one
    that has lost some of its results, or its figure: what is left is kept.
    """
    left = folder.results() if folder.results_file.is_file() else {}
    results = evaluate_checkpoints(cfg, run, folder, left)
    results |= {"held_out": held_out(run.data.val)} | alarms(run)
    finished = FinishedRun(folder)
    vars(finished)["results"] = results  # which the folder does not hold yet
    verdict = asdict(finished.status) | {"use": finished.usable}
    results |= {"status": verdict, "training": left.get("training") or cost(cfg, run)}
    log = folder.log()
    results["rows"] = len(log["step"])  # a log that loses one is damaged
    if len(log["train/loss"]):
        figure = delta_energy_figure({display_name(cfg): log}, setting([cfg]))
        save(figure, folder.path / "delta_energy")
    for logger in trackers(run.trainer.loggers):
        raised = {name: float(bool(len(log[name]))) for name in ALARMS.values()}
        logger.log_summary(accuracies_in(results) | raised | {"status": str(finished.status)})
        if (drawn := folder.path / "delta_energy.png").is_file():
            logger.log_figure(drawn)
        logger.log_artifact(folder.saved())
    folder.write_results(results)
    lines = [
        results_table([finished]).fitted(("run", *OPTIONAL)),
        finished.advice(),
        f"run folder: {folder.path}",
    ]
    print(printable(titled("\n".join(filter(None, lines)))), flush=True)


def evaluate_checkpoints(
    cfg: DictConfig, run: Run, folder: RunFolder, left: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Accuracies of the last and the best checkpoint on held-out and on test images.

    They may take hours: those that were evaluated before a kill are not evaluated again, nor those
    that are ``left`` of results.
    """
    attacks = make_attacks(cfg.evaluation)
    data = run.data
    images = {"val": data.val, "test": data.test.first(cfg.evaluation.subset)}
    evaluators = {
        name: Evaluator(
            images[name].to(data.device),
            batch_size=data.eval_batch_size,
            channels_last=data.channels_last,
            seed=cfg.seed,
            progress=cfg.trainer.enable_progress_bar is not False,
        )
        for name in cfg.evaluation.images
    }
    net = run.module.to(data.device).net
    results: dict[str, Any] = {}
    last = {name: value.clone() for name, value in run.module.state_dict().items()}
    states = {"last": (run.trainer.global_step, last)}
    if cfg.callbacks.get("best") is not None and folder.has_checkpoint("best"):
        best = read_checkpoint(folder.checkpoint("best"))
        states["best"] = (best["global_step"], best["state_dict"])
    known = folder.evaluated()
    evaluation = OmegaConf.to_container(cfg.evaluation, resolve=True)
    asked = [evaluation, cfg.seed, [images[name].digests() for name in evaluators]]
    for which in [name for name in cfg.evaluation.checkpoints if name in states]:
        step, state = states[which]
        key = digest([which, step, state_digest(state), *asked])
        if (
            key not in known
            and {"step", *evaluators} <= (found := (left or {}).get(which, {})).keys()
        ):
            known[key] = found
        if key not in known:
            run.module.load_state_dict(state)
            known[key] = {"step": step} | {
                name: evaluator.accuracies(net, attacks) for name, evaluator in evaluators.items()
            }
            folder.write_evaluated(known)
        results[which] = known[key]
    return results


def held_out(images: ImageSet) -> dict[str, float]:
    """Number of held-out images, and chance: the accuracy of the best constant prediction."""
    largest_class = int(images.labels.bincount().max())
    return {"images": len(images), "chance": largest_class / len(images)}


def cost(cfg: DictConfig, run: Run) -> dict[str, float]:
    """Cost of the training: seconds until its last checkpoint, and forward passes of a step.

    The passes are a mean over all steps: the first rollback may change the cost of a step, later
    ones do not. Regularizers count as active.
    """
    passes, sentinel, steps = _passes(cfg, run), _sentinel(run), run.trainer.global_step
    if sentinel is not None and sentinel.rollback.steps and steps:
        before = sentinel.rollback.steps[0] / steps
        passes = before * passes + (1 - before) * _passes(cfg, run, sentinel.rollback.remedies)
    costs = {"forward_equivalents": round(passes, 2)}
    for timer in callbacks_of(run.trainer, Timer):
        elapsed = timer.time_elapsed("train")
        for last in callbacks_of(run.trainer, LastCheckpoint):
            if (path := Path(last.dirpath or ".") / "last.ckpt").is_file():
                saved = read_checkpoint(path)["callbacks"].get(timer.state_key, {})
                elapsed = saved.get("time_elapsed", {}).get("train", elapsed)
        costs["seconds"] = round(elapsed, 1)
    return costs


def alarms(run: Run) -> dict[str, Any]:
    found = _sentinel(run)
    return {} if found is None else {"alarms": [asdict(alarm) for alarm in found.alarms]}


def _sentinel(run: Run) -> Sentinel | None:
    return next(iter(callbacks_of(run.trainer, Sentinel)), None)


def _passes(cfg: DictConfig, run: Run, remedies: Remedies | None = None) -> float:
    """Forward passes per image of a training step, with the remedies of a rollback applied."""
    module = build_module(cfg)
    if remedies is not None:
        module.objective, module.attack, _ = remedies.apply(module.objective, module.attack, 1)
    module.objective.skip_flat = False
    if module.awp is not None:
        module.awp.warmup_epochs = 0
    module.load_state_dict({k: v.cpu() for k, v in run.module.state_dict().items()})
    images = run.data.train.first(min(16, len(run.data.train))).to(torch.device("cpu"))
    x = as_floats(images.pixels, cfg.training.channels_last)
    return forward_equivalents(module, x, images.labels, run.data.batch_size)


def forward_equivalents(
    module: AdversarialTraining, x: Images, y: Labels, batch_size: int | None = None
) -> float:
    """Cost of an optimizer step, in forward passes of its batch.

    In floating point operations: a backward pass for weights and inputs is about 2. Where the work
    of the attack differs from batch to batch it is the mean over its period. Modifies the module.

    Args:
        module: The training.
        x: Images to count with.
        y: Their labels.
        batch_size: Images of a batch, if not those of ``x``.
    """

    def counted(batch: int) -> float:
        with FlopCounterMode(display=False) as step:
            module.training_step((x, y), batch)["loss"].backward()
            module.on_after_backward()
        return float(step.get_total_flops())

    with FlopCounterMode(display=False) as forward, torch.no_grad(), eval_mode(module.net):
        module.net(x)
    unit, first, period = float(forward.get_total_flops()), counted(0), module.attack.period
    if period == 1:
        return first / unit
    other = counted(1)
    # images of the attack's own do not grow with the batch
    per_batch = len(x) / (batch_size or len(x)) if module.attack.extra_images else 1.0
    return (other + per_batch * (first - other) / period) / unit
