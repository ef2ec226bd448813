"""What evaluation, analysis and sampling have left in a run folder."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energy_at.core.files import read_json
from energy_at.reporting.tables import Table

_PNG = b"\x89PNG\r\n\x1a\n"
WARNING = "warning"
_VERDICTS = {True: "pass", False: WARNING, None: "not run"}


@dataclass(frozen=True)
class Accuracy:
    """A share of images that stay right, with its 95 % interval."""

    attack: str
    eps: float
    eps_text: str
    text: str


@dataclass(frozen=True)
class Check:
    """What a check for gradient masking has found, and what it means unless it passed."""

    name: str
    verdict: str
    finding: str
    meaning: str


@dataclass(frozen=True)
class Evaluation:
    """One strong evaluation of a run."""

    name: str
    network: str
    images: str
    norm: str
    accuracies: tuple[Accuracy, ...]
    checks: tuple[Check, ...]
    pictures: tuple[Path, ...]

    def by_radius(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Accuracies by attack, for each radius in turn; clean ones in all."""
        clean = {a.attack: a.text for a in self.accuracies if a.eps == 0}
        radii = {a.eps: a.eps_text for a in self.accuracies if a.eps > 0} or {0.0: "0"}
        for eps, text in sorted(radii.items()):
            yield text, clean | {a.attack: a.text for a in self.accuracies if a.eps == eps}


@dataclass(frozen=True)
class Analysis:
    """Tables and figures of the energies of a run."""

    name: str
    table: Table | None
    pictures: tuple[Path, ...]


def evaluations(run: Path) -> list[Evaluation]:
    """Those of a run, by name.

    Raises:
        ValueError: if one is damaged.
    """
    return [_evaluation(file) for file in sorted(run.glob("evaluation/*/evaluation.json"))]


def analyses(run: Path) -> list[Analysis]:
    """Those of a run, by name."""
    # a hidden folder is an analysis that is still being written
    folders = sorted(p for p in run.glob("analysis/[!.]*") if p.is_dir())
    found = [Analysis(folder.name, _table(folder / "table.csv"), _pictures(folder, "*.png"))
             for folder in folders]  # fmt: skip
    return [analysis for analysis in found if analysis.table or analysis.pictures]


def samples(run: Path) -> tuple[Path, ...]:
    """Figures of generated images, by path; those of single classes are too many for a report."""
    found = _pictures(run / "samples", "**/*.png")
    # W&B keeps copies of what was sent to it.
    left_out = {"classes", "wandb"}
    return tuple(path for path in found if left_out.isdisjoint(path.relative_to(run).parts))


def picture(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        ValueError: if it is no PNG.
    """
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise ValueError(f"{path} is damaged: it is no PNG image")
    return content


def _evaluation(file: Path) -> Evaluation:
    content = read_json(file)
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        return Evaluation(
            file.parent.name,
            str(content["network"]["which"] or "weights"),
            _images(content["dataset"]),
            str(content["norm"]),
            tuple(map(_accuracy, content["accuracies"])),
            (*map(_check, content.get("checks", [])), *map(_left_out, content.get("left_out", []))),
            _pictures(file.parent, "*.png"),
        )
    raise ValueError(f"{file} is damaged: it holds no evaluation")


def _images(dataset: dict[str, Any]) -> str:
    """``cifar10 test, 1,000 of 10,000``."""
    count, of = int(dataset["images"]), int(dataset["of"])
    some = f"{count:,}" if count == of else f"{count:,} of {of:,}"
    return f"{dataset['name']} {dataset['split']}, {some}"


def _accuracy(entry: dict[str, Any]) -> Accuracy:
    shares = [100 * float(entry[key]) for key in ("accuracy", "low", "high")]
    text = "{:.1f} [{:.1f}, {:.1f}]".format(*shares)
    attack = str(entry.get("label", entry["attack"]))
    return Accuracy(attack, float(entry["eps"]), str(entry["eps_text"]), text)


def _check(entry: dict[str, Any]) -> Check:
    passed, meaning = entry["passed"], str(entry["meaning"])
    return Check(
        str(entry["name"]), _VERDICTS[passed], str(entry["finding"]), "" if passed else meaning
    )


def _left_out(line: str) -> Check:
    return Check("left out", _VERDICTS[None], str(line), "")


def _table(file: Path) -> Table | None:
    """Rows as wide as their header."""
    if not file.is_file():
        return None
    with file.open(newline="") as lines:
        header, *rows = list(csv.reader(lines)) or [[]]
    width = len(header)
    cells = [tuple([*row, *[""] * width][:width]) for row in rows if row]
    return Table(tuple(header), cells) if header else None


def _pictures(folder: Path, pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob(pattern)))
