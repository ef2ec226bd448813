"""An analysis of energies: what is asked, of which networks, and the files that hold the answer."""

from energy_at.analysis.analyse import analyse
from energy_at.analysis.plan import Plan, radii_around
from energy_at.analysis.subjects import common_threat, named_subjects

__all__ = ["Plan", "analyse", "common_threat", "named_subjects", "radii_around"]
