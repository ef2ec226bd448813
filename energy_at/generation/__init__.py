"""Images out of a robust classifier, measured with their controls."""

from energy_at.generation.plan import Plan
from energy_at.generation.sampled import FILES, Options, sample

__all__ = ["FILES", "Options", "Plan", "sample"]
