"""Say in one sentence what the demo has shown: ``python scripts/demo_verdict.py PLAIN DER``.

Without the two folders, what it should show.

The sentence is computed from the two runs. How often plain FGSM-AT does not collapse in the setting
of the demo is counted in docs/demo/runs.csv.
"""

import csv
import sys
from math import ceil
from pathlib import Path

from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import RunFolder

RUNS = Path(__file__).parents[1] / "docs" / "demo" / "runs.csv"
COLLAPSED = 10.0  # percent of PGD accuracy, below which a run of RUNS has collapsed


def verdict(plain: FinishedRun, der: FinishedRun, escaped: int, runs: int) -> str:
    """The sentence, ``FGSM-AT collapsed at epoch 5 (PGD 0.4 %); with DER it ended at 83.8 %.``.

    Args:
        plain: The run without DER.
        der: The same with DER.
        escaped: Earlier runs without DER that did not collapse.
        runs: Number of these earlier runs.
    """
    with_der = f"with DER it {_ending(der)}."
    if plain.status.kind != "robust":
        return f"FGSM-AT {_ending(plain)}; {with_der}"
    return (
        f"In this run FGSM-AT did not collapse ({escaped} of {runs} do not): it {_ending(plain)}, "
        f"{with_der} Run `make demo SEED={plain.config.seed + 1}`."
    )


def _ending(run: FinishedRun) -> str:
    pgd = f"{run.percent('last', 'pgd'):.1f} %"
    if run.status.kind == "robust":
        return f"ended at {pgd}"
    if run.status.step is None:
        return f"never became robust (PGD {pgd})"
    return (
        f"{run.status.kind} at epoch {ceil(run.status.step / run.log.steps_per_epoch)} (PGD {pgd})"
    )


def claim(file: Path = RUNS) -> str:
    """What the demo should show, by the runs of its setting."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    ends = {reg: [float(r["PGD-20 %"]) for r in rows if r["reg"] == reg] for reg in ("none", "der")}
    places = len({(row["instruction set"], row["threads"]) for row in rows})
    plain, der = ends["none"], ends["der"]
    return (
        f"In docs/demo FGSM-AT ends below {COLLAPSED:g} % PGD accuracy in "
        f"{sum(end < COLLAPSED for end in plain)} of {len(plain)} runs over {places} instruction "
        f"sets and numbers of threads; with DER it ends at {min(der):.0f} to {max(der):.0f} % "
        f"({len(der)} runs)."
    )


def earlier_runs(file: Path = RUNS) -> tuple[int, int]:
    """Runs without DER that did not collapse, and all runs without DER."""
    with file.open(newline="") as opened:
        ends = [float(row["PGD-20 %"]) for row in csv.DictReader(opened) if row["reg"] == "none"]
    return sum(end >= COLLAPSED for end in ends), len(ends)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(claim())
    else:
        plain, der = (FinishedRun(RunFolder.open(name)) for name in sys.argv[1:])
        print(verdict(plain, der, *earlier_runs()))
