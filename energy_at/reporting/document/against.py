"""Accuracy and delta energy against every number that was swept."""

from collections.abc import Sequence

from energy_at.reporting.document.html import Grid, Paragraph, Section
from energy_at.reporting.document.runs import Entry, Gallery
from energy_at.reporting.figures.sweep_curves import dependence_figure
from energy_at.reporting.sweep_curves import dependences

READING = (
    "Mean and range over seeds of the runs that are results; a cross is a run that collapsed or "
    "has not learned. Accuracies of the last network, delta energies of the last epoch."
)


def against(found: Sequence[Entry], gallery: Gallery) -> list[Section]:
    """A section for each number of which several values were typed, such as ``reg.weight``."""
    return [
        Section(
            f"Against {one.key}",
            (
                Paragraph((one.best(),)),
                Grid(f"against {one.key}", one.table()),
                gallery.draw(
                    dependence_figure(one.key, one.points()), f"figures/{one.stem}", READING
                ),
            ),
        )
        for one in dependences([entry.run for entry in found])
    ]
