"""A report of several runs, as Markdown and as one HTML page that loads nothing."""

from collections.abc import Sequence
from pathlib import Path

from energy_at.reporting.comparison import configs
from energy_at.reporting.describe import setting
from energy_at.reporting.document.accuracy import accuracies, checks, strong_evaluations
from energy_at.reporting.document.against import against
from energy_at.reporting.document.curves import DELTA_ENERGY, PANELS, curves, energies, grids
from energy_at.reporting.document.html import Document
from energy_at.reporting.document.overview import compared, environment
from energy_at.reporting.document.runs import Gallery, entries
from energy_at.reporting.finished_run import FinishedRun

__all__ = ["PANELS", "write_report"]


def write_report(
    groups: dict[str, list[FinishedRun]], out: Path, failed: Sequence[str] = ()
) -> list[str]:
    """Writes the report, and the figures that it shows, to ``out``.

    The same runs, typed alike, give the same bytes.

    Args:
        groups: Finished runs by method.
        out: The folder; made if it is not there.
        failed: A line for each job that left no result.

    Returns:
        Names of the files, but for those below ``figures``.
    """
    found, gallery = entries(groups), Gallery(out)
    strong = strong_evaluations(found)
    measured = (checks(found, strong), energies(found, gallery), *grids(found, gallery))
    sections = (
        compared(found, failed),
        accuracies(groups, found, strong, gallery),
        *against(found, gallery),
        curves(groups, found, gallery),
        *measured,
        environment(found),
    )
    document = Document("Report on adversarial training", setting(configs(groups)), sections)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(document.markdown(), encoding="utf-8")
    (out / "report.html").write_text(document.html(), encoding="utf-8")
    drawn = [f"{DELTA_ENERGY}.png", f"{DELTA_ENERGY}.pdf"] if _shows(document) else []
    return [*drawn, "report.md", "report.html"]


def _shows(document: Document) -> bool:
    """Whether the delta-energy figure is among its pictures."""
    blocks = [block for section in document.sections for block in section.blocks]
    return any(getattr(block, "file", None) == f"{DELTA_ENERGY}.png" for block in blocks)
