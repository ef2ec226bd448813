"""Robust accuracy of trained networks, with confidence intervals and checks."""

from energy_at.evaluation.evaluate import evaluate, evaluate_command
from energy_at.evaluation.output import FILES
from energy_at.evaluation.robustness import Evaluator
from energy_at.evaluation.target import EvaluationPlan, EvaluationTarget
from energy_at.evaluation.trained_model import (
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
