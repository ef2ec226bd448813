"""Figures of energy landscapes of one run or several runs, at print size.

Each function returns a matplotlib figure. An attack has the same colour in all of them; runs are
styled as in the figures of their training.
"""

from energy_at.analysis.figures.curves import classes, delta_vs_eps, histograms, path
from energy_at.analysis.figures.page import View
from energy_at.analysis.figures.plane import quiver, scatter

__all__ = ["View", "classes", "delta_vs_eps", "histograms", "path", "quiver", "scatter"]
