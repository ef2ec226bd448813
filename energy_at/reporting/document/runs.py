"""Runs as a report names them, and the pictures that it draws of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from energy_at.reporting.document.artifacts import picture
from energy_at.reporting.document.html import Picture
from energy_at.reporting.figures.style import save, svg
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import folder_names


@dataclass(frozen=True)
class Entry:
    """A run with the names of its folder and its method."""

    run: FinishedRun
    place: str
    method: str
    label: str

    @property
    def path(self) -> Path:
        """Its folder, as typed."""
        return self.run.folder.path


@dataclass(frozen=True)
class Gallery:
    """The folder that the report is written to."""

    out: Path

    def draw(self, figure: Figure, file: str, caption: str) -> Picture:
        """Writes a figure as PNG and PDF; the page shows it as SVG."""
        target = self.out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        save(figure, target)
        return Picture(f"{file}.png", svg(figure), caption)

    def copy(self, source: Path, file: str, caption: str) -> Picture:
        """Takes an image along that lies in a run folder."""
        content = picture(source)
        target = self.out / f"{file}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return Picture(f"{file}.png", content, caption)


def entries(groups: Mapping[str, Sequence[FinishedRun]]) -> list[Entry]:
    """All runs, method by method, each under a label of its own."""
    runs = [(method, run) for method, found in groups.items() for run in found]
    places = folder_names([run.folder for _, run in runs])
    named = [
        Entry(run, place, method, f"{method}, seed {run.config.seed}")
        for (method, run), place in zip(runs, places, strict=True)
    ]
    count = Counter(entry.label for entry in named)
    return [
        entry if count[entry.label] == 1 else replace(entry, label=f"{entry.label}, {entry.place}")
        for entry in named
    ]
