"""The report of several runs: Markdown, one HTML page that loads nothing, tables and figures."""

from collections.abc import Sequence
from pathlib import Path

from energy_at.reporting import comparison
from energy_at.reporting.comparison import Entry, compare, configs, results_table, write_comparison
from energy_at.reporting.describe import setting
from energy_at.reporting.document.blocks import Block, render
from energy_at.reporting.document.results import accuracies, checks, energies, evaluations, grids
from energy_at.reporting.document.runs import (
    DELTA_ENERGY,
    TOGETHER,
    environment,
    overview,
    sweeps,
    training,
)
from energy_at.runs.folder import RunFolder
from energy_at.runs.result_folder import ResultFolder
from energy_at.runs.selection import require_distinct

TITLE = "Report on adversarial training"
FILES = (
    *("table.md", "table.csv", "table.tex", *comparison.FILES),
    *(f"{DELTA_ENERGY}.png", f"{DELTA_ENERGY}.pdf", "report.md", "report.html"),
)


def report(folders: Sequence[RunFolder], out: Path, failed: Sequence[str] = ()) -> str:
    """Writes tables, comparison, figures and the document that shows them.

    The same runs under the same paths give the same bytes. Files that only an earlier report into
    the same folder has written are removed.

    Args:
        folders: Finished runs.
        out: Where to write.
        failed: A line for each failed job of their sweeps.

    Returns:
        The table of a few runs, the comparison of many; where the files are; and what failed.

    Raises:
        ValueError: if there is no run, one is named twice, or ``out`` holds another result.
    """
    if not folders:
        raise ValueError(": ".join(filter(None, ["no run has finished", "; ".join(failed)])))
    require_distinct(folders)
    found = compare(folders)
    runs = {entry.run.folder: entry.run for entry in found}
    table = results_table([runs[folder] for folder in folders])
    with ResultFolder(out, "report").staged() as part:
        compared = write_comparison(found, part)
        table.write(part / "table")
        sections = _sections(found, part, failed)
        for name in ("report.md", "report.html"):
            text = render(name, TITLE, setting(configs(found)), sections)
            (part / name).write_text(text, encoding="utf-8")
        files = [name for name in FILES if (part / name).is_file()]
    printed = table.fitted(comparison.OPTIONAL) if len(folders) <= TOGETHER else compared
    return "\n".join([printed, f"written to {out}/: {', '.join(files)}", *failed])


def _sections(
    found: Sequence[Entry], out: Path, failed: Sequence[str]
) -> dict[str, tuple[Block, ...]]:
    strong = [(entry, one) for entry in found for one in evaluations(entry.path)]
    sections = {
        "Runs": overview(found, failed),
        "Robust accuracy": accuracies(found, strong, out),
        **sweeps(found, out),
        "Training": training(found, out),
        "Checks": checks(found, strong),
        "Energy analysis": energies(found, out),
        "Samples": grids(found, out),
        "Environment": environment(found),
    }
    return {title: tuple(blocks) for title, blocks in sections.items()}
