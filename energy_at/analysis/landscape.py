"""Energies of each image, natural and under attack, as columns; and what columns say together."""

from energy_at.analysis.columns import TIMES, Landscape, Natural, Paths, Radii, Shifts
from energy_at.analysis.measure import landscape
from energy_at.analysis.statistics import (
    QUANTILES,
    Summary,
    class_means,
    ks_distance,
    require_every_class,
    summary,
)

__all__ = [
    "QUANTILES",
    "TIMES",
    "Landscape",
    "Natural",
    "Paths",
    "Radii",
    "Shifts",
    "Summary",
    "class_means",
    "ks_distance",
    "landscape",
    "require_every_class",
    "summary",
]
