"""Evaluates a network: runs the attacks, checks for gradient masking, writes the files."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from energy_at.attacks.autoattack import INSTALL, INSTALLED, require_classes
from energy_at.evaluation.gradient_masking import attack_checks, network_checks
from energy_at.evaluation.output import FILES, accuracy, describe, setting_line, write_files
from energy_at.evaluation.robustness import Journal
from energy_at.evaluation.target import EvaluationPlan
from energy_at.evaluation.trained_model import TrainedModel, open_model
from energy_at.reporting.describe import setting
from energy_at.reporting.figures import save
from energy_at.reporting.figures.results import accuracy_figure
from energy_at.runs.environment import environment
from energy_at.runs.result_folder import ResultFolder


def evaluate_command(cfg: DictConfig, overrides: Sequence[str] = ()) -> str:
    """Evaluates the network that the configuration names.

    Args:
        cfg: The configuration of the command ``evaluate``.
        overrides: From the command line.

    Returns:
        The table, the checks, and where the files are.
    """
    model = open_model(cfg, overrides)
    plan = plan_of(cfg, model)
    for line in plan.left_out:
        sys.stderr.write(f"left out: {line}\n")
    out = None if cfg.out is None else Path(str(cfg.out))
    folder, text = evaluate(model, plan, out, batch_size=cfg.batch_size, progress=cfg.progress)
    return f"{text}\nwritten to {folder}/: {', '.join(FILES)}"


def plan_of(cfg: DictConfig, model: TrainedModel) -> EvaluationPlan:
    """The evaluation that a configuration asks for.

    AutoAttack is left out where it is not installed and the user has not named it.
    """
    names, left_out = list(cfg.attacks or ("fgsm", "pgd", "autoattack")), []
    if cfg.attacks is None and not INSTALLED:
        names.remove("autoattack")
        left_out = [f"AutoAttack is not installed: {INSTALL}"]
    return EvaluationPlan(
        **EvaluationPlan.fields_of(cfg, [model]),
        names=names,
        steps=cfg.steps,
        restarts=cfg.restarts,
        left_out=left_out,
    )


def evaluate(
    model: TrainedModel,
    plan: EvaluationPlan,
    out: Path | None = None,
    *,
    batch_size: int | None = None,
    progress: bool = True,
) -> tuple[Path, str]:
    """Evaluates a network, or resumes its evaluation, and writes the files.

    Args:
        model: The network.
        plan: Images, threat models and attacks.
        out: The folder of the files; one below ``model.folder`` by default.
        batch_size: Images that are attacked at once; it changes no result.
        progress: Show bars.

    Returns:
        The folder, and the table with the checks as Markdown.

    Raises:
        ValueError: if ``out`` holds another evaluation.
    """
    attacks = plan.attacks
    images, indices = plan.images(model)
    record = describe(model, plan, images, indices)
    path = out or _default_path(model, plan, len(images), record["key"])
    folder = ResultFolder(path, "evaluation", record["key"])
    evaluator = plan.evaluator(
        model, batch_size=batch_size, journal=Journal(folder), progress=progress
    )
    named = {key.name: attack for key, attack in attacks.items()}
    require_classes(named, lambda: evaluator.classes(model.net))
    correct = evaluator.correct(model.net, attacks)
    checks = network_checks(model.net, evaluator)
    checks += attack_checks(model.net, evaluator, plan, correct)
    record |= {
        "accuracies": [accuracy(plan, key, mask) for key, mask in correct.items()],
        "checks": [asdict(check) for check in checks],
        "left_out": list(plan.left_out),
        "environment": environment(),
    }
    with folder.staged() as part:
        text = write_files(part, record, correct, images.labels.tolist(), indices)
        _draw(part, model, record)
    return folder.path, text


def _default_path(model: TrainedModel, plan: EvaluationPlan, n: int, key: str) -> Path:
    radii = list(plan.balls)
    eps = radii[0] if len(radii) == 1 else f"{radii[0]}-to-{radii[-1]}"
    words = (model.which or "weights", plan.norm, eps, str(n), plan.split)
    return ResultFolder.default_path(model.folder / "evaluation", *words, key=key)


def _draw(folder: Path, model: TrainedModel, record: dict[str, Any]) -> None:
    if len(record["eps"]) > 1:
        title = f"{setting([model.config])}; {setting_line(record)}"
        save(accuracy_figure(record, title), folder / "accuracy")
