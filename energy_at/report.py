"""A report of several runs, or of a sweep.

report.html (one file, opens without network), report.md, tables as CSV, figures as PNG and PDF.

    python -m energy_at.report runs=[runs/a,runs/b] out=report
    python -m energy_at.report runs=SWEEP out=report
"""

from pathlib import Path

from omegaconf import DictConfig

from energy_at.config.cli import command


@command("report")
def main(cfg: DictConfig) -> str:
    from energy_at.reporting.document import report
    from energy_at.reporting.finished_run import failed_jobs, finished_runs
    from energy_at.runs.selection import named_folders

    names = named_folders(cfg.runs)
    runs = [run for name in names for run in finished_runs(name)]
    failed = [line for name in names for line in failed_jobs(name, alone=len(names) == 1)]
    return report(runs, Path(str(cfg.out or "report")), failed)


if __name__ == "__main__":
    main()
