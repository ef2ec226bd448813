"""Trains a robust classifier and logs the energies of every step.

python -m energy_at.train model=preactresnet18 reg=der attack=fgsm
python -m energy_at.train dataset=cifar10 dataset.root=data reg=der reg.weight=20 threat.eps=8/255
python -m energy_at.train -m experiment=co scale=cpu reg=none,der,gradalign seed=0,1
python -m energy_at.train resume=FOLDER
"""

from omegaconf import DictConfig

from energy_at.config.cli import Job, command, overrides
from energy_at.core.files import is_first


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
            from energy_at.evaluation.final_results import train

            train(*opened)
        elif is_first():
            print(f"{folder.path} has finished before: kept")
    has_results = job.in_sweep and folder.results_file.is_file()  # or another process writes them
    return FinishedRun(folder).score() if has_results else None


if __name__ == "__main__":
    main()
