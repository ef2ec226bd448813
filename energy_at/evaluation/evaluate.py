"""Judges a network: runs the attacks, checks them, writes what they find."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from energy_at.attacks import LibraryAttack
from energy_at.attacks.autoattack import INSTALL, INSTALLED, require_classes
from energy_at.attacks.threat import Ball
from energy_at.evaluation.gradient_masking import Check, black_box, network_checks, stronger
from energy_at.evaluation.journal import JournalFile
from energy_at.evaluation.output import setting_line, write
from energy_at.evaluation.plan import Plan
from energy_at.evaluation.record import about, accuracy, folder_name
from energy_at.evaluation.robustness import Exam, Mask
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.reporting.describe import setting
from energy_at.reporting.figures.accuracy_vs_eps import accuracy_figure
from energy_at.reporting.figures.style import save
from energy_at.runs.environment import environment

BLACK_BOX_IMAGES, BLACK_BOX_QUERIES = 200, 1000
WITH_BLACK_BOX = ("square", "autoattack")  # what these break says nothing about white boxes


def evaluate(
    subject: TrainedModel, plan: Plan, out: Path | None, *, batch_size: int, progress: bool = True
) -> tuple[Path, str]:
    """Judges a network, or goes on with judging it, and writes what it finds.

    Returns:
        The folder of the files, and the table with the checks as Markdown.

    Raises:
        ValueError: if ``out`` holds another evaluation.
    """
    attacks = plan.attacks
    images, places = subject.chosen(plan.split, plan.subset, plan.subset_seed)
    said = about(subject, plan, images, places)
    folder = out or subject.folder / "evaluation" / folder_name(said)
    if folder.is_file():
        raise ValueError(f"out={folder} is a file: name a folder")
    exam = Exam(
        images,
        places,
        batch_size,
        channels_last=subject.config.training.channels_last,
        seed=plan.seed,
        journal=JournalFile(folder / "journal.jsonl", said["key"]),
        progress=progress,
    )
    named = {name.partition("@")[0]: attack for name, attack in attacks.items()}
    require_classes(named, lambda: exam.classes(subject.net))
    outcomes = exam.outcomes(subject.net, attacks)
    checks = network_checks(subject.net, exam) + _attack_checks(subject, plan, exam, outcomes)
    found = said | {
        "accuracies": [accuracy(plan, name, right) for name, right in outcomes.items()],
        "checks": [asdict(check) for check in checks],
        "left_out": list(plan.left_out),
        "environment": environment(),
    }
    text = write(folder, found, outcomes, images.labels.tolist(), places)
    if len(found["eps"]) > 1:
        trained = setting([subject.config])
        save(accuracy_figure(found, f"{trained}; {setting_line(found)}"), folder / "accuracy")
    return folder, text


def _attack_checks(
    subject: TrainedModel, plan: Plan, exam: Exam, outcomes: Mapping[str, Mask]
) -> list[Check]:
    checks = []
    for eps, ball in plan.balls.items():
        if {"fgsm", "pgd"} <= set(plan.names):
            checks.append(stronger(outcomes, f"fgsm@{eps}", f"pgd@{eps}", eps))
        white = [outcomes[f"{name}@{eps}"] for name in plan.names if name not in WITH_BLACK_BOX]
        checks.append(_against_square(subject, exam, ball, eps, white))
    return checks


def _against_square(
    subject: TrainedModel, exam: Exam, ball: Ball, eps: str, found: Sequence[Mask]
) -> Check:
    name = f"white box stronger than black box at {eps}"
    if not found:
        return Check(name, None, "not run", "needs a white-box attack, such as attacks=[pgd]")
    if not INSTALLED:
        return Check(name, None, "not run", f"needs the AutoAttack library: {INSTALL}")
    white = torch.stack(list(found)).all(0)
    n = min(BLACK_BOX_IMAGES, len(exam.images))
    sample = exam.first(n)
    square = LibraryAttack(ball, "square", queries=BLACK_BOX_QUERIES)
    black = sample.outcomes(subject.net, {f"black box@{eps}": square})[f"black box@{eps}"]
    return black_box(white[:n], black, eps)
