"""An evaluation: accuracies under attack with their confidence, checks of itself, and its files."""

from energy_at.evaluation.evaluate import evaluate
from energy_at.evaluation.output import FILES
from energy_at.evaluation.plan import Plan

__all__ = ["FILES", "Plan", "evaluate"]
