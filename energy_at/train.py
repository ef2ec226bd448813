"""Trains a robust classifier.

``python -m energy_at.train model=preactresnet18 reg=der attack=fgsm``
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import seed_everything
from omegaconf import DictConfig

from energy_at.config import CONF
from energy_at.config.build import Run, build, register_resolvers
from energy_at.config.cli import command_line, forget, one_line_errors, quieten, require_read
from energy_at.config.contention import hint_at_contention
from energy_at.config.preflight import require_sound
from energy_at.config.schema import check, require_single
from energy_at.core.memory import keep_freed_memory
from energy_at.core.ranks import is_first
from energy_at.evaluation.final_results import alarms, cost, evaluated, held_out
from energy_at.reporting.figures.style import delta_energy_figure, save
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.tables import results_table
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder, accuracies_in
from energy_at.runs.resume import job_folder, resumed
from energy_at.training.launch import require_startable, started_with
from energy_at.training.loggers import wandb as loggers

register_resolvers()


def train(
    cfg: DictConfig,
    folder: RunFolder,
    checkpoint: Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Fits, evaluates the last and the best checkpoint, and writes results, table and figure.

    Of several processes that fit together, the first one does all the writing.
    """
    check(cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    wandb_id = read_checkpoint(checkpoint).get("wandb_id") if checkpoint else None
    run = build(cfg, folder, wandb_id=wandb_id)
    require_sound(cfg, run)
    require_startable(run.trainer, run.data)
    if run.trainer.is_global_zero:
        hint_at_contention()
    place = "hydra.run.dir" if checkpoint is None else "resume"
    others = [*overrides, f'{place}="{folder.path}"', "hydra.mode=RUN"]
    first = run.trainer.is_global_zero
    if first and checkpoint is None:
        RunFolder.create(folder.path, cfg, overrides, train_images=len(run.data.train))
    elif first:
        folder.note_resume(cfg, overrides)
    try:
        with started_with(run.trainer, others):
            fit(run, folder, checkpoint)
        if first:
            results = finish(cfg, run, folder)
            loggers.conclude(run.trainer.loggers, accuracies_in(results), folder.saved())
    finally:
        loggers.finish(run.trainer.loggers)


def fit(run: Run, folder: RunFolder, checkpoint: Path | None) -> None:
    """Trains to the end, or ends the process with a line that says how to go on."""
    first = run.trainer.is_global_zero
    with suppress(SystemExit):  # how Lightning ends on a signal, with code 0 for SIGTERM
        run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
    terminated = run.trainer.received_sigterm
    if terminated or not run.trainer.state.finished:
        step = run.trainer.global_step
        if first:
            sys.stderr.write(f"stopped at step {step}: resume={folder.path} continues it\n")
        sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))


def finish(cfg: DictConfig, run: Run, folder: RunFolder) -> dict[str, Any]:
    """Writes what the run has found, and returns its accuracies."""
    results = evaluated(cfg, run, folder) | {"held_out": held_out(run.data.val)} | alarms(run)
    folder.write_results(results)  # it may have taken hours: kept whatever comes
    folder.write_results(results | {"training": cost(cfg, run)})
    if folder.metrics_file.is_file() and "train/loss" in (log := folder.log()):
        save(delta_energy_figure({folder.path.name: log}), folder.path / "delta_energy")
    print(results_table([folder]).markdown())
    print(f"run folder: {folder.path}")
    return results


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> Any:
    """Command-line entry."""
    quieten()
    job = HydraConfig.get()
    output, overrides = Path(job.runtime.output_dir), job.overrides.task
    swept = job.mode == RunMode.MULTIRUN
    folder = job_folder(output, Path(job.sweep.dir), overrides) if swept else RunFolder(output)
    if folder.path != output:
        forget(output)
    stopped = f"resume={folder.path} continues it from its last checkpoint"
    with one_line_errors(folder.path, go_on=swept, stopped=stopped):
        require_single(overrides)
        require_read(cfg)
        if cfg.training.keep_memory:
            keep_freed_memory()
        if cfg.resume is not None:
            changes = [o for o in overrides if not o.lstrip("+").startswith("resume=")]
            train(*resumed(cfg.resume, overrides), overrides=changes)
        elif not (swept and gone_on(folder)):
            train(cfg, folder, overrides=overrides)
    return score(folder) if swept else None


def score(folder: RunFolder) -> float | None:
    """What a search raises: PGD accuracy of the final network on held-out images.

    A run that collapsed or has not learned is worth nothing, lucky as a constant prediction may be.
    ``None`` where nothing was measured, or another process writes the results.
    """
    if not folder.results_file.is_file():
        return None
    run = FinishedRun(folder)
    held_out = run.held_out_percent()
    if held_out is None:
        return None
    return 0.0 if run.mark() else held_out / 100


def gone_on(folder: RunFolder) -> bool:
    """Goes on with a job of a sweep that was typed again; ``False`` if it had not begun."""
    if folder.results_file.is_file():
        print(f"{folder.path} has finished before: kept")
        return True
    if not folder.has_checkpoint():
        if is_first():
            folder.forget_start()
        return False
    train(*resumed(str(folder.path), []))
    return True


if __name__ == "__main__":
    command_line(main)
