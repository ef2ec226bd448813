"""Energies of every image, natural and under attack: measured, summarised, drawn."""

from energy_at.analysis.analyse import analyse_command

__all__ = ["analyse_command"]
