"""Trains a robust classifier.

``python -m energy_at.train model=preactresnet18 reg=der attack=fgsm``
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import seed_everything
from omegaconf import DictConfig

from energy_at.config import Run, build, cost, evaluated, register_resolvers
from energy_at.figures import delta_energy_figure, save
from energy_at.mistakes import CONF, command_line, one_line_errors, remove_empty
from energy_at.resume import resumed
from energy_at.runs import RunFolder, read_checkpoint
from energy_at.tables import results_table
from energy_at.training import loggers
from energy_at.training.module import require_batches

register_resolvers()


def train(
    cfg: DictConfig,
    folder: RunFolder,
    checkpoint: Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Fits, evaluates the last and the best checkpoint, and writes results, table and figure."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    wandb_id = read_checkpoint(checkpoint).get("wandb_id") if checkpoint else None
    run = build(cfg, folder, wandb_id=wandb_id)
    require_sound(cfg, run)
    if checkpoint is None:
        RunFolder.create(folder.path, cfg, overrides)
    try:
        run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
    finally:
        loggers.finish(run.trainer.loggers)
    if run.trainer.state.finished:
        finish(cfg, run, folder)


def require_sound(cfg: DictConfig, run: Run) -> None:
    """Finds the mistakes that training would only meet after it has begun to write.

    Raises:
        ValueError: if there is one.
    """
    images, batch_size = len(run.data.train), run.data.batch_size
    require_batches(run.module.net, images, batch_size)
    run.data.test.first(cfg.evaluation.subset)
    unknown = set(cfg.evaluation.checkpoints) - {"last", "best"}
    if unknown:
        raise ValueError(f"evaluation.checkpoints are last and best, got {', '.join(unknown)}")
    unknown = set(cfg.evaluation.images) - {"val", "test"}
    if unknown:
        raise ValueError(f"evaluation.images are val and test, got {', '.join(unknown)}")
    optimizer = run.module.optimizer(run.module.net)
    if run.module.schedule is not None:
        run.module.schedule(optimizer, max(1, cfg.trainer.max_epochs) * -(-images // batch_size))


def finish(cfg: DictConfig, run: Run, folder: RunFolder) -> None:
    """Writes what the run has found."""
    results = evaluated(cfg, run, folder)
    folder.write_results(results)  # it may have taken hours: kept whatever comes
    folder.write_results(results | {"training": cost(cfg, run)})
    rows = folder.metrics() if folder.metrics_file.is_file() else []
    if any("train/loss" in row for row in rows):
        save(delta_energy_figure({folder.path.name: rows}), folder.path / "delta_energy")
    print(results_table([folder]).markdown())
    print(f"run folder: {folder.path}")


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> Any:
    """Command-line entry."""
    job = HydraConfig.get()
    output, overrides = Path(job.runtime.output_dir), job.overrides.task
    swept = job.mode == RunMode.MULTIRUN
    with one_line_errors(output, go_on=swept):
        if cfg.resume:
            train(*resumed(cfg.resume, overrides))
            remove_empty(output)
        elif not (swept and gone_on(RunFolder(output), overrides)):
            train(cfg, RunFolder(output), overrides=overrides)


def gone_on(folder: RunFolder, overrides: Sequence[str]) -> bool:
    """Goes on with a job of a sweep that was typed again; ``False`` if it had not begun."""
    if not folder.config_file.is_file() or folder.overrides() != list(overrides):
        return False
    if folder.results_file.is_file():
        print(f"{folder.path} has finished before: kept")
        return True
    if not folder.has_checkpoint():
        return False
    train(*resumed(str(folder.path), []))
    return True


if __name__ == "__main__":
    command_line(main)
