"""Trains a robust classifier and logs the energies of every step.

python -m energy_at.train model=preactresnet18 reg=der attack=fgsm
python -m energy_at.train dataset=cifar10 dataset.root=data reg=der reg.weight=20 threat.eps=8/255
python -m energy_at.train -m experiment=co scale=cpu reg=none,der,gradalign seed=0,1
python -m energy_at.train resume=FOLDER
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from energy_at.config.cli import Job, command, overrides
from energy_at.core.files import is_first

if TYPE_CHECKING:
    from energy_at.runs.folder import RunFolder


@command("train", jobs=True, on_interrupt="resume={folder} continues it from its last checkpoint")
def main(cfg: DictConfig, job: Job) -> float | None:
    from energy_at.reporting.finished_run import FinishedRun
    from energy_at.runs.folder import RunFolder
    from energy_at.runs.resume import open_job
    from energy_at.runs.selection import require_resumable

    folder = RunFolder(job.folder)
    if cfg.resume is not None:
        folder = require_resumable(str(cfg.resume), overrides())
    with folder.in_use():  # before it is read, which another process may be changing
        opened = open_job(cfg, folder, overrides(), in_sweep=job.in_sweep)
        if opened is not None:
            train(*opened)
        elif is_first():
            print(f"{folder.path} has finished before: kept")
    has_results = job.in_sweep and folder.results_file.is_file()  # or another process writes them
    return FinishedRun(folder).score() if has_results else None


def train(
    cfg: DictConfig, folder: "RunFolder", checkpoint: Path | None = None, typed: Sequence[str] = ()
) -> None:
    """Fits, evaluates the last and the best checkpoint, and writes results, table and figure.

    The folder is in use by this process.
    """
    from energy_at.config.preflight import announce, prepare
    from energy_at.evaluation.final_results import finish
    from energy_at.training.launch import fit
    from energy_at.training.trackers import trackers

    run = prepare(cfg, folder, checkpoint, typed)
    announce(cfg, run, folder)
    try:
        fit(run.trainer, run.module, run.data, folder.path, checkpoint, typed)
        if run.trainer.is_global_zero:  # of several processes, the first one does all writing
            finish(cfg, run, folder)
    finally:
        for logger in trackers(run.trainer.loggers):
            logger.finish()  # so that the next training of the process begins its own


if __name__ == "__main__":
    main()
