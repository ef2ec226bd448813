"""Count what README and docs say of our runs, from the committed files: ``python docs/claims.py``.

The two tables stand in ``methods.md``. A row of ``demo/delta_energies.csv`` is one validation of a
run of ``demo/runs.csv``: accuracy and delta energies of the 300 held-out images under PGD-10, and
means of the training images over that epoch.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ENERGIES = ("training dE(x)", "training dE(x, y)", "held-out dE(x)", "held-out dE(x, y)")
LOST = 10.0  # PGD accuracy in percent: chance
METHODS = {"none": "FGSM-AT", "der": "FGSM-AT + DER"}
DATA = {"cifar10": "CIFAR-10", "mnist5k": "MNIST", "digits": "digits"}
STATUS = ("robust", "collapsed", "in passing", "never robust", "not learned")
Row = Mapping[str, str]


def rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def share(found: Sequence[Row], condition: Callable[[Row], bool]) -> str:
    """``16 of 22``."""
    return f"{sum(map(condition, found))} of {len(found)}"


def positive(column: str) -> Callable[[Row], bool]:
    return lambda row: float(row[column]) > 0


def last_validations(logged: Iterable[Row]) -> list[Row]:
    """The last row of each run."""
    keys = ("reg", "seed", "instruction set", "threads")
    return list({tuple(row[key] for key in keys): row for row in logged}.values())


def delta_energies() -> str:
    """In how many runs of the demo each delta energy is positive."""
    logged = rows("demo/delta_energies.csv")
    groups = {
        f"{name}, at the end": last_validations(row for row in logged if row["reg"] == reg)
        for reg, name in METHODS.items()
    }
    plain = [row for row in logged if row["reg"] == "none"]
    for word, below in (("at least", False), ("below", True)):
        groups[f"FGSM-AT, validations {word} {LOST:g} % PGD-10 accuracy"] = [
            row for row in plain if (float(row["PGD-10 %"]) < LOST) == below
        ]
    return table(
        ("runs or validations in which it is positive", *ENERGIES),
        [(name, *(share(own, positive(key)) for key in ENERGIES)) for name, own in groups.items()],
    )


def collapses() -> str:
    """The result of every single-step training of the demo and of the study of the sentinel."""
    found: dict[tuple[str, str], Counter[str]] = {}
    names = {"none": "none", "der": "DER"}
    for row in rows("demo/runs.csv"):
        kind = "robust" if float(row["PGD-20 %"]) >= LOST else "collapsed"
        found.setdefault(("textured MNIST (demo)", row["reg"]), Counter())[kind] += 1
    for row in rows("sentinel/table.csv"):
        if row["single-step"] == "yes" and row["regularizer"] in names:
            key = (DATA[row["data"]], row["regularizer"])
            found.setdefault(key, Counter())[row["status"]] += 1
    places = {reg: i for i, reg in enumerate(names)}
    in_order = sorted(found.items(), key=lambda item: (item[0][0], places[item[0][1]]))
    return table(
        ("data", "regularizer", "runs", *STATUS),
        [
            (data, names[reg], str(kinds.total()), *(str(kinds[kind]) for kind in STATUS))
            for (data, reg), kinds in in_order
        ],
    )


def main() -> None:
    print(delta_energies(), collapses(), sep="\n\n")


if __name__ == "__main__":
    main()
