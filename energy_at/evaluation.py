"""An evaluation: accuracies under attack with their confidence, checks of itself, and its files."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from scipy.stats import binomtest

from energy_at import __version__
from energy_at.accuracy_curve import accuracy_figure
from energy_at.attacks import Attack, LibraryAttack, restarted_pgd
from energy_at.attacks.catalogue import LABELS, named_attack
from energy_at.attacks.ensemble import INSTALL, INSTALLED, require_classes
from energy_at.checks import Check, black_box, network_checks, stronger
from energy_at.data import ImageSet
from energy_at.figures import save
from energy_at.journal import JournalFile
from energy_at.robustness import Exam, Mask
from energy_at.runs import environment
from energy_at.settings import setting
from energy_at.subject import Subject
from energy_at.tables import Table
from energy_at.threat import Ball

FILES = ("evaluation.json", "evaluation.csv", "evaluation.md", "images.csv")
NORMS = {"linf": "L-inf", "l2": "L2"}
BLACK_BOX_IMAGES, BLACK_BOX_QUERIES = 200, 1000
WITH_BLACK_BOX = ("square", "autoattack")  # what these break says nothing about white boxes


@dataclass(frozen=True)
class Plan:
    """What to judge a network by.

    Attributes:
        norm: ``linf`` or ``l2``.
        balls: Threat models, by their radius as it was written.
        names: Of the attacks.
        steps: Of PGD, TRADES, CW and targeted PGD.
        restarts: Of PGD.
        split: ``test``, ``val`` or ``train``.
        subset: Number of images; ``None`` for all.
        subset_seed: Draws them; ``None`` takes the first ones.
        seed: Of the noise of the attacks.
        left_out: Attacks that belong here but could not be run, and why.
    """

    norm: str
    balls: Mapping[str, Ball]
    names: Sequence[str]
    steps: int = 50
    restarts: int = 10
    split: str = "test"
    subset: int | None = None
    subset_seed: int | None = 0
    seed: int = 0
    left_out: Sequence[str] = ()

    @cached_property
    def attacks(self) -> dict[str, Attack]:
        """The attacks at every radius, as ``pgd@8/255``."""
        return {
            f"{name}@{eps}": self._attack(name, ball)
            for eps, ball in self.balls.items()
            for name in self.names
        }

    def label(self, name: str) -> str:
        """``PGD-50-10``: the attack as it is written in a table; one restart is not written."""
        settings = self._settings(name)
        shown = [str(v) for key, v in settings.items() if key != "restarts" or v > 1]
        return "-".join([LABELS[name], *shown])

    def _attack(self, name: str, ball: Ball) -> Attack:
        settings = self._settings(name)
        return (
            restarted_pgd(ball, **settings)
            if name == "pgd"
            else named_attack(name, ball, **settings)
        )

    def _settings(self, name: str) -> dict[str, int]:
        if name == "pgd":
            return {"steps": self.steps, "restarts": self.restarts}
        return {"steps": self.steps} if name in ("trades", "cw", "targeted") else {}


def evaluate(
    subject: Subject, plan: Plan, out: Path | None, *, batch_size: int, progress: bool = True
) -> tuple[Path, str]:
    """Judges a network, or goes on with judging it, and writes what it finds.

    Returns:
        The folder of the files, and the table with the checks as Markdown.

    Raises:
        ValueError: if ``out`` holds another evaluation.
    """
    attacks = plan.attacks
    images, places = subject.chosen(plan.split, plan.subset, plan.subset_seed)
    about = _about(subject, plan, images, places)
    folder = out or subject.folder / "evaluation" / _folder_name(about)
    if folder.is_file():
        raise ValueError(f"out={folder} is a file: name a folder")
    exam = Exam(
        images,
        places,
        batch_size,
        channels_last=subject.config.training.channels_last,
        seed=plan.seed,
        journal=JournalFile(folder / "journal.jsonl", about["key"]),
        progress=progress,
    )
    named = {name.partition("@")[0]: attack for name, attack in attacks.items()}
    require_classes(named, lambda: exam.classes(subject.net))
    outcomes = exam.outcomes(subject.net, attacks)
    checks = network_checks(subject.net, exam) + _attack_checks(subject, plan, exam, outcomes)
    found = about | {
        "accuracies": [_accuracy(plan, name, right) for name, right in outcomes.items()],
        "checks": [asdict(check) for check in checks],
        "left_out": list(plan.left_out),
        "environment": environment(),
    }
    text = _write(folder, found, outcomes, images.labels.tolist(), places)
    if len(found["eps"]) > 1:
        trained = setting([subject.config])
        save(accuracy_figure(found, f"{trained}; {setting_line(found)}"), folder / "accuracy")
    return folder, text


def _about(subject: Subject, plan: Plan, images: ImageSet, places: Sequence[int]) -> dict[str, Any]:
    """The setting, and a key that tells it from all others.

    Weights alone do not make a network: the same fit another activation, or another padding.
    """
    every = len(getattr(subject.data, plan.split))
    seeded = plan.subset_seed if len(places) < every else None
    about: dict[str, Any] = {
        "network": {
            "source": subject.source,
            "which": subject.which,
            "sha256": subject.fingerprint,
        },
        "dataset": {
            "name": subject.config.dataset.name,
            "split": plan.split,
            "images": len(places),
            "of": every,
            "seed": seeded,
        },
        "norm": NORMS[plan.norm],
        "eps": list(plan.balls),
        "attacks": [plan.label(name) for name in plan.names],
        "seed": plan.seed,
        "precision": "fp32",
    }
    setting = {k: v for k, v in about.items() if k != "network"}
    setting |= {
        "weights": about["network"]["sha256"],
        "model": OmegaConf.to_container(subject.config.model, resolve=True),
        "images": images.digests(),
        "places": list(places),
        "version": __version__,
    }
    digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()
    return about | {"key": digest}


def _folder_name(about: dict[str, Any]) -> str:
    radii = [eps.replace("/", "of") for eps in about["eps"]]
    eps = radii[0] if len(radii) == 1 else f"{radii[0]}-to-{radii[-1]}"
    which = about["network"]["which"] or "weights"
    norm = about["norm"].replace("-", "").lower()
    data = about["dataset"]
    return f"{which}-{norm}-{eps}-{data['images']}-{data['split']}-{about['key'][:6]}"


def _accuracy(plan: Plan, name: str, right: Mask) -> dict[str, Any]:
    attack, _, eps = name.partition("@")
    count, n = int(right.sum()), len(right)
    low, high = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return {
        "attack": attack,
        "label": "clean" if attack == "clean" else plan.label(attack),
        "eps": plan.balls[eps].eps if eps else 0.0,
        "eps_text": eps,
        "right": count,
        "images": n,
        "accuracy": count / n,
        "low": float(low),
        "high": float(high),
    }


def _attack_checks(
    subject: Subject, plan: Plan, exam: Exam, outcomes: Mapping[str, Mask]
) -> list[Check]:
    checks = []
    for eps, ball in plan.balls.items():
        if {"fgsm", "pgd"} <= set(plan.names):
            checks.append(stronger(outcomes, f"fgsm@{eps}", f"pgd@{eps}", eps))
        white = [outcomes[f"{name}@{eps}"] for name in plan.names if name not in WITH_BLACK_BOX]
        checks.append(_against_square(subject, exam, ball, eps, white))
    return checks


def _against_square(
    subject: Subject, exam: Exam, ball: Ball, eps: str, found: Sequence[Mask]
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


def table_of(found: Mapping[str, Any]) -> Table:
    """One row for each attack and radius."""
    rows: list[tuple[str, ...]] = [
        (
            str(row["label"]),
            row["eps_text"],
            f"{row['right']} of {row['images']}",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
        )
        for row in found["accuracies"]
    ]
    return Table(("attack", "eps", "right", "accuracy %", "95 % interval"), rows)


def markdown(found: Mapping[str, Any]) -> str:
    """Setting, table and checks, for people."""
    lines = [setting_line(found), "", table_of(found).markdown(), ""]
    for check in found["checks"]:
        lines.append(f"- {verdict(check)}: {check['name']}: {check['finding']}{_why(check)}")
    lines += [f"- left out: {line}" for line in found["left_out"]]
    return "\n".join(lines)


def setting_line(found: Mapping[str, Any]) -> str:
    """One line that says what was judged, on which images, and how."""
    data, network = found["dataset"], found["network"]
    images = f"all {data['of']}" if data["images"] == data["of"] else f"{data['images']}"
    if data["images"] < data["of"]:
        drawn = "the first" if data["seed"] is None else f"drawn with seed {data['seed']}"
        images += f" of {data['of']} ({drawn})"
    which = f", {network['which']} checkpoint" if network["which"] else ""
    return (
        f"{network['source']}{which}: {images} {data['split']} images of {data['name']}, "
        f"{found['norm']}, fp32, Wilson intervals."
    )


def verdict(check: Mapping[str, Any]) -> str:
    """``pass``, ``warning``, or ``not run``."""
    return {True: "pass", False: "warning", None: "not run"}[check["passed"]]


def _why(check: Mapping[str, Any]) -> str:
    return "" if check["passed"] else f"; {check['meaning']}"


def _write(
    folder: Path,
    found: dict[str, Any],
    outcomes: Mapping[str, Mask],
    labels: Sequence[int],
    places: Sequence[int],
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(found)
    rows = found["accuracies"]
    columns = [right.int().tolist() for right in outcomes.values()]
    contents = (
        json.dumps(found, indent=2),
        _csv([list(rows[0]), *(row.values() for row in rows)]),
        text,
        _csv([["image", "label", *outcomes], *zip(places, labels, *columns, strict=True)]),
    )
    for name, content in zip(FILES, contents, strict=True):
        part = folder / f"{name}.part"
        part.write_text(content.rstrip("\n") + "\n")
        os.replace(part, folder / name)
    return text


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
