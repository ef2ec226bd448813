"""Robust accuracy of trained networks, with confidence intervals and checks."""

from energy_at.evaluation.evaluate import FILES, EvaluationPlan, evaluate, evaluate_command
from energy_at.evaluation.robustness import Evaluator
from energy_at.evaluation.trained_model import (
    EvaluationTarget,
    TrainedModel,
    open_model,
    open_models,
    open_run,
    result_key,
)

__all__ = [
    "FILES",
    "EvaluationPlan",
    "EvaluationTarget",
    "Evaluator",
    "TrainedModel",
    "evaluate",
    "evaluate_command",
    "open_model",
    "open_models",
    "open_run",
    "result_key",
]
