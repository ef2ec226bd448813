"""Energies of every image, natural and under attack: measured, summarised, drawn."""

from energy_at.analysis.analyse import analyse, analyse_command
from energy_at.analysis.measure import Landscape, measure_landscape
from energy_at.analysis.plan import AnalysisPlan, radii_around

__all__ = [
    "AnalysisPlan",
    "Landscape",
    "analyse",
    "analyse_command",
    "measure_landscape",
    "radii_around",
]
