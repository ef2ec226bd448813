"""The files of an evaluation."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from energy_at.core.files import write_atomic
from energy_at.evaluation.robustness import Mask
from energy_at.reporting.tables import Table

FILES = ("evaluation.json", "evaluation.csv", "evaluation.md", "images.csv")


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


def write(
    folder: Path,
    found: dict[str, Any],
    outcomes: Mapping[str, Mask],
    labels: Sequence[int],
    places: Sequence[int],
) -> str:
    """Writes every file, each whole or not at all.

    Args:
        folder: Made if it is not there.
        found: Setting, accuracies and checks.
        outcomes: Whether each image stays right, by attack.
        labels: Of the images.
        places: Of the images in their split.

    Returns:
        The table with the checks, as Markdown.
    """
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
        write_atomic(folder / name, content.rstrip("\n") + "\n")
    return text


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
