"""Trains a robust classifier.

``python -m energy_at.train model=preactresnet18 reg=der attack=fgsm``
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from energy_at.config.cli import Job, command, overrides
from energy_at.config.schema import check
from energy_at.core.ranks import is_first

if TYPE_CHECKING:
    from energy_at.runs.folder import RunFolder


@command("train", jobs=True, on_interrupt="resume={folder} continues it from its last checkpoint")
def main(cfg: DictConfig, job: Job) -> float | None:
    from energy_at.core.device import keep_freed_memory
    from energy_at.reporting.finished_run import FinishedRun
    from energy_at.runs.folder import RunFolder
    from energy_at.runs.resume import open_resumed

    if cfg.training.keep_memory:
        keep_freed_memory()
    folder, typed = RunFolder(job.folder), overrides()
    if cfg.resume is not None:
        changes = [o for o in typed if not o.lstrip("+").startswith("resume=")]
        train(*open_resumed(cfg.resume, typed), overrides=changes)
    elif job.in_sweep and folder.results_file.is_file():
        print(f"{folder.path} has finished before: kept")
    elif job.in_sweep and folder.has_checkpoint():
        train(*open_resumed(str(folder.path), []))
    else:
        if job.in_sweep and is_first():
            folder.forget_start()
        train(cfg, folder, overrides=typed)
    if not (job.in_sweep and folder.results_file.is_file()):  # or another process writes them
        return None
    return FinishedRun(folder).score()


def train(
    cfg: DictConfig,
    folder: "RunFolder",
    checkpoint: Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Fits, evaluates the last and the best checkpoint, and writes results, table and figure.

    Of several processes that fit together, the first one does all the writing.
    """
    from lightning import seed_everything

    from energy_at.config.build import build
    from energy_at.config.preflight import require_sound
    from energy_at.evaluation.final_results import finish
    from energy_at.runs.checkpoints import read_checkpoint
    from energy_at.runs.folder import RunFolder, accuracies_in
    from energy_at.training.launch import fit, require_startable, worker_command
    from energy_at.training.loggers import wandb as loggers

    check(cfg)
    seed_everything(cfg.seed, workers=True, verbose=False)
    wandb_id = read_checkpoint(checkpoint).get("wandb_id") if checkpoint else None
    run = build(cfg, folder, wandb_id=wandb_id)
    require_sound(cfg, run)
    require_startable(run.trainer, run.data)
    first = run.trainer.is_global_zero
    if first and checkpoint is None:
        RunFolder.create(folder.path, cfg, overrides, train_images=len(run.data.train))
    elif first:
        folder.note_resume(cfg, overrides)
    place = "hydra.run.dir" if checkpoint is None else "resume"
    others = [*overrides, f'{place}="{folder.path}"', "hydra.mode=RUN"]
    try:
        with worker_command(run.trainer, others):
            fit(run.trainer, run.module, run.data, folder.path, checkpoint)
        if first:
            results = finish(cfg, run, folder)
            loggers.conclude(run.trainer.loggers, accuracies_in(results), folder.saved())
    finally:
        loggers.finish(run.trainer.loggers)


if __name__ == "__main__":
    main()
