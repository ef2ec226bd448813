"""The files of a report: table, comparison, figures and the document that shows them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from energy_at.core.files import staged
from energy_at.reporting import comparison
from energy_at.reporting import document as reporting
from energy_at.reporting.document.manifest import note_written, remove_left, written
from energy_at.reporting.tables import results_table
from energy_at.runs.folder import RunFolder, failures, require_distinct, runs_below, runs_in


def report(folders: Sequence[RunFolder], out: Path, failed: Sequence[str] = ()) -> str:
    """Writes the runs' table and comparison, and the report that shows them with all figures.

    Files that only an earlier report into the same folder has written are removed.

    Args:
        folders: Finished runs.
        out: Where to write.
        failed: A line for each job of their sweeps that failed.

    Returns:
        The table of a few runs, the comparison of many; where the files are; and what failed.
    """
    if not folders and failed:
        raise ValueError(f"no run has finished: {'; '.join(failed)}")
    if not folders:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    require_distinct(folders)
    table, groups = results_table(folders), comparison.grouped(folders)
    earlier = written(out)
    with staged(out) as part:
        compared = comparison.write_groups(groups, part)
        (part / "table.md").write_text(table.markdown() + "\n")
        (part / "table.csv").write_text(table.csv())
        files = [
            "table.md",
            "table.csv",
            *comparison.FILES,
            *reporting.write_report(groups, part, failed),
        ]
        note_written(part)
    remove_left(out, earlier)
    shown = table.markdown() if len(folders) <= reporting.PANELS else compared
    return "\n".join([shown, f"written to {out}/: {', '.join(files)}", *failed])


def finished_in(name: str) -> list[RunFolder]:
    """The run of this name, or those of a sweep that have finished; others are named and left."""
    if not runs_below(name) and not RunFolder(Path(name)).config_file.is_file() and failures(name):
        return []
    runs = runs_in(name)
    unfinished = [run for run in runs if not run.results_file.is_file()]
    going = [str(run.path) for run in unfinished if not run.error_file.is_file()]
    if len(runs) > 1 and going:
        sys.stderr.write(f"not finished, left out: {', '.join(going)}\n")
    if len(runs) > 1 or len(going) < len(unfinished):
        return [run for run in runs if run not in unfinished]
    return runs


def failed_in(name: str, *, alone: bool) -> list[str]:
    """A line for each job of a sweep that failed; by its number, if the sweep stands alone."""
    return [
        f"job {path.relative_to(name) if alone and path != Path(name) else path} failed: {why}"
        for path, why in failures(name)
    ]
