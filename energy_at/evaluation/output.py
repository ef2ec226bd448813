"""The files of an evaluation, and the record that they are made from."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from energy_at.attacks.registry import CLEAN, AttackKey
from energy_at.data import ImageSet
from energy_at.evaluation.robustness import Mask
from energy_at.evaluation.target import EvaluationPlan
from energy_at.evaluation.trained_model import TrainedModel, result_key
from energy_at.reporting.tables import Table

FILES = ("evaluation.json", "evaluation.csv", "evaluation.md", "images.csv")


def describe(
    model: TrainedModel, plan: EvaluationPlan, images: ImageSet, indices: Sequence[int]
) -> dict[str, Any]:
    """The settings of an evaluation, and the key of its result."""
    every = len(getattr(model.data, plan.split))
    settings: dict[str, Any] = {
        "dataset": {
            "name": model.config.dataset.name,
            "split": plan.split,
            "images": len(indices),
            "of": every,
            "seed": plan.subset_seed if len(indices) < every else None,
        },
        "norm": plan.norm_label,
        "eps": list(plan.balls),
        "attacks": [plan.label(name) for name in plan.names],
        "seed": plan.seed,
        "precision": "fp32",
    }
    network = {"source": model.source, "which": model.which, "sha256": model.weights_digest}
    key = result_key(model, images, {**settings, "indices": list(indices)})
    return {"network": network, **settings, "key": key}


def accuracy(plan: EvaluationPlan, key: AttackKey, correct: Mask) -> dict[str, Any]:
    """Accuracy under an attack, with its Wilson interval of 95 %."""
    count, n = int(correct.sum()), len(correct)
    low, high = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return {
        "attack": key.name,
        "label": key.name if key == CLEAN else plan.label(key.name),
        "eps": 0.0 if key == CLEAN else plan.balls[key.eps].eps,
        "eps_text": key.eps,
        "right": count,
        "images": n,
        "accuracy": count / n,
        "low": float(low),
        "high": float(high),
    }


def write_files(
    folder: Path,
    record: Mapping[str, Any],
    correct: Mapping[AttackKey, Mask],
    labels: Sequence[int],
    indices: Sequence[int],
) -> str:
    """Writes ``FILES``.

    Args:
        folder: An existing folder.
        record: Settings, accuracies and checks.
        correct: Which images are classified correctly, by attack.
        labels: Of the images.
        indices: Of the images in their split.

    Returns:
        The table and the checks, as Markdown.
    """
    text = markdown(record)
    rows = record["accuracies"]
    columns = [mask.int().tolist() for mask in correct.values()]
    contents = (
        json.dumps(record, indent=2) + "\n",
        _csv([list(rows[0]), *(row.values() for row in rows)]),
        text + "\n",
        _csv([["image", "label", *correct], *zip(indices, labels, *columns, strict=True)]),
    )
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_text(content, encoding="utf-8")
    return text


def markdown(record: Mapping[str, Any]) -> str:
    """Settings, table and checks."""
    lines = [setting_line(record), "", _table(record).markdown(), ""]
    for check in record["checks"]:
        verdict = {True: "pass", False: "warning", None: "not run"}[check["passed"]]
        meaning = "" if check["passed"] else f"; {check['meaning']}"
        lines.append(f"- {verdict}: {check['name']}: {check['finding']}{meaning}")
    lines += [f"- left out: {line}" for line in record["left_out"]]
    return "\n".join(lines)


def setting_line(record: Mapping[str, Any]) -> str:
    """Network, images and norm in one line."""
    data, network = record["dataset"], record["network"]
    images = f"all {data['of']}" if data["images"] == data["of"] else f"{data['images']}"
    if data["images"] < data["of"]:
        drawn = "the first" if data["seed"] is None else f"drawn with seed {data['seed']}"
        images += f" of {data['of']} ({drawn})"
    which = f", {network['which']} checkpoint" if network["which"] else ""
    return (
        f"{network['source']}{which}: {images} {data['split']} images of {data['name']}, "
        f"{record['norm']}, fp32, Wilson intervals."
    )


def _table(record: Mapping[str, Any]) -> Table:
    """One row for each attack and radius."""
    rows: list[tuple[str, ...]] = [
        (
            str(row["label"]),
            row["eps_text"],
            f"{row['right']} of {row['images']}",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
        )
        for row in record["accuracies"]
    ]
    return Table(("attack", "eps", "right", "accuracy %", "95 % interval"), rows)


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
