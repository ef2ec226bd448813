"""Images out of a robust classifier, measured with their controls."""

from energy_at.sampling.pipeline import FILES, Options, sample
from energy_at.sampling.plan import Plan

__all__ = ["FILES", "Options", "Plan", "sample"]
