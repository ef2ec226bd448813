"""Tables, figures and one page about several runs, or about a sweep.

``python -m energy_at.report runs=[A,B] out=FOLDER``
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig

from energy_at import comparison, reporting
from energy_at.files import together
from energy_at.mistakes import CONF, command_line, one_line_errors, require_read
from energy_at.reporting.earlier import note_written, remove_left, written
from energy_at.runs import RunFolder, require_distinct, runs_in
from energy_at.schema import check
from energy_at.tables import results_table


def report(folders: Sequence[RunFolder], out: Path) -> str:
    """Writes the runs' table and comparison, and the report that shows them with all figures.

    Files that only an earlier report into the same folder has written are removed.

    Returns:
        The table of a few runs, the comparison of many; and where the files are.
    """
    if not folders:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    require_distinct(folders)
    table, groups = results_table(folders), comparison.grouped(folders)
    earlier = written(out)
    with together(out) as part:
        compared = comparison.write_groups(groups, part)
        (part / "table.md").write_text(table.markdown() + "\n")
        (part / "table.csv").write_text(table.csv())
        files = ["table.md", "table.csv", *comparison.FILES, *reporting.write_report(groups, part)]
        note_written(part)
    remove_left(out, earlier)
    shown = table.markdown() if len(folders) <= reporting.PANELS else compared
    return f"{shown}\nwritten to {out}/: {', '.join(files)}"


def finished_in(name: str) -> list[RunFolder]:
    """The run of this name, or those of a sweep that have finished; others are named and left."""
    runs = runs_in(name)
    unfinished = [run for run in runs if not run.results_file.is_file()]
    if len(runs) > 1 and unfinished:
        left = ", ".join(str(run.path) for run in unfinished)
        sys.stderr.write(f"not finished, left out: {left}\n")
        return [run for run in runs if run not in unfinished]
    return runs


@hydra.main(version_base="1.3", config_path=CONF, config_name="report")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors():
        require_read(cfg)
        check(cfg)
        names = list(cfg.runs) if isinstance(cfg.runs, ListConfig) else [cfg.runs]
        runs = [run for name in names for run in finished_in(str(name))]
        print(report(runs, Path(str(cfg.out or "report"))))


if __name__ == "__main__":
    command_line(main)
