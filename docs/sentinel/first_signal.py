"""Which training signal shows catastrophic overfitting first, and at which rate of false alarms.

``python docs/sentinel/first_signal.py --out docs/sentinel RUN...`` reads finished runs that log
``train/pert_align`` and writes ``first_signal.csv`` (every run), ``first_signal.md`` (the table)
and the figure ``first_signal``. A run counts as collapsed by its held-out PGD accuracy alone
(``energy_at.overfitting.onset``); its onset is the validation that shows it. Runs whose accuracy
falls below half its best and recovers are left out.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from energy_at.overfitting.onset import status_of
from energy_at.overfitting.signals import has_learned
from energy_at.reporting.figures import WIDTH, save
from energy_at.reporting.tables import Table
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import Numbers

STEPS = 20  # of the running mean, as in the sentinel
SIGNALS = {  # name: colour, whether it rises at a collapse
    "AAE share": ("#D55E00", True),
    "alignment": ("#009E73", False),
    "dE(x)": ("#0072B2", True),
    "dE(x, y)": ("#CC79A7", True),
    "PertAlign": ("#000000", False),
}
RATES = (0.0, 0.05, 0.1)  # of false alarms, in the table


@dataclass(frozen=True)
class Run:
    """A finished training without a regularizer."""

    folder: RunFolder

    @property
    def data(self) -> str:
        return str(self.folder.config().dataset.name)

    @property
    def name(self) -> str:
        cfg = self.folder.config()
        return f"{self.data}, {cfg.attack.name}, eps {cfg.threat.eps}, seed {cfg.seed}"

    @cached_property
    def onset(self) -> int | None:
        """Step of the validation that shows the collapse."""
        cfg = self.folder.config()
        validations = self.folder.log().rows("val/acc/pgd10")
        status = status_of(validations, int(cfg.dataset.val_size), 1 / int(cfg.dataset.classes))
        return status.step if status.kind == "collapsed" else None

    @cached_property
    def healthy(self) -> bool:
        """Whether its accuracy never was below half its best so far."""
        pgd = self.folder.log()["val/acc/pgd10"].values
        learned = has_learned(float(pgd.max()), int(self.folder.config().dataset.classes))
        return learned and bool((pgd >= np.maximum.accumulate(pgd) / 2).all())

    @cached_property
    def signals(self) -> tuple[Numbers, dict[str, Numbers]]:
        """Steps from which on the network has learned, and each signal, larger is worse."""
        log = self.folder.log()
        marginal, joint, shift, share, align, accuracy = (
            _smooth(log[f"train/{key}"].values)
            for key in ("delta_energy/marginal", "delta_energy/joint", "delta_energy/shift_norm",
                        "aae_share", "pert_align", "acc/adv")
        )  # fmt: skip
        classes = int(self.folder.config().dataset.classes)
        first = int(np.argmax([has_learned(float(a), classes) for a in accuracy]))
        values = (share, (marginal - joint) / (2**0.5 * shift), marginal, joint, align)
        signals = {
            name: (value if rises else -value)[first:]
            for (name, (_, rises)), value in zip(SIGNALS.items(), values, strict=True)
        }
        return log["train/pert_align"].steps[STEPS - 1 :][first:], signals

    def alarm(self, signal: str, threshold: float) -> float:
        """First step at which the signal exceeds the threshold; infinite if it never does."""
        steps, signals = self.signals
        crossed = np.flatnonzero(signals[signal] > threshold)
        return float(steps[crossed[0]]) if len(crossed) else inf

    def latency(self, signal: str, threshold: float) -> float:
        """Epochs from the onset to the alarm; negative if the alarm comes first."""
        assert self.onset is not None
        per_epoch = self.folder.log().steps_per_epoch
        return (self.alarm(signal, threshold) - self.onset) / per_epoch


def frontier(runs: Sequence[Run], signal: str) -> list[tuple[float, float, list[float]]]:
    """Rate of false alarms, threshold, and latency of every collapse, for rising rates.

    Each threshold is the most sensitive one at its rate of false alarms.
    """
    peaks = sorted((float(r.signals[1][signal].max()) for r in runs if r.healthy), reverse=True)
    collapsed = [run for run in runs if run.onset is not None]
    return [
        (i / len(peaks), peak, [run.latency(signal, peak) for run in collapsed])
        for i, peak in enumerate(peaks)
    ]


def summary(runs: Sequence[Run]) -> Table:
    """One row for each signal and rate of false alarms."""
    rows = []
    for signal, (_, rises) in SIGNALS.items():
        points = frontier(runs, signal)
        for rate in RATES:
            real, threshold, latencies = [p for p in points if p[0] <= rate][-1]
            if rate and (real, threshold) == points[0][:2]:
                continue  # too few healthy runs for this rate
            found = sorted(value for value in latencies if value < inf)
            in_time = sum(value < 0 for value in found)
            healthy = f"{round(real * len(points))} of {len(points)}"
            span = f"{median(latencies):+.1f} [{found[0]:+.1f}, {found[-1]:+.1f}]" if found else ""
            late = [r.alarm(signal, threshold) - r.onset for r in runs if r.onset is not None]
            rows.append((signal, f"{threshold if rises else -threshold:.3f}", healthy,
                         f"{len(found)} of {len(latencies)}", str(in_time),
                         span.replace("+inf", "none"),
                         f"{median(late):+.0f}".replace("+inf", "none")))  # fmt: skip
    columns = ("signal", "threshold", "false alarms", "collapses detected", "before the validation",
               "latency, epochs: median [range of the detected]", "steps: median")  # fmt: skip
    return Table(columns, rows)


def figure(groups: dict[str, list[Run]]) -> Figure:
    """Median latency against the rate of false alarms, one panel for each data set and for all."""
    drawn = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = drawn.subplots(1, len(groups), sharey=True, squeeze=False).ravel()
    for axes, (name, runs) in zip(panels, groups.items(), strict=True):
        collapsed = sum(run.onset is not None for run in runs)
        for signal, (color, _) in SIGNALS.items():
            points = [(rate, median(late)) for rate, _, late in frontier(runs, signal)]
            known = [(100 * rate, late) for rate, late in points if late < inf]
            axes.step(*zip(*known, strict=True), where="post", color=color, label=signal,
                      marker="o", markersize=3) if known else None  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=0.8)
        healthy = sum(run.healthy for run in runs)
        axes.set_title(f"{name}: {collapsed} collapses, {healthy} healthy", fontsize="medium")
        axes.set_xlabel("healthy runs with a false alarm [%]")
        axes.set_xlim(-3, 100)
    panels[0].set_ylabel("median latency after the validation\nthat shows the collapse [epochs]")
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines()[:-1]}
    drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    every = [Run(RunFolder.open(run)) for run in options.runs]
    runs = [run for run in every if run.healthy or run.onset is not None]
    groups = {"all": runs}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    groups = {  # a data set needs both kinds
        name: own
        for name, own in groups.items()
        if any(run.healthy for run in own) and any(run.onset is not None for run in own)
    }
    rows = [
        (run.name, "" if run.onset is None else str(run.onset),
         *(f"{run.signals[1][s].max() * (1 if rises else -1):.4f}"
           for s, (_, rises) in SIGNALS.items()))
        for run in sorted(runs, key=lambda run: run.name)
    ]  # fmt: skip
    columns = ("run", "collapsed at step", *(f"worst {signal}" for signal in SIGNALS))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "first_signal.csv").write_text(Table(columns, rows).csv())
    tables = [f"{name}\n\n{summary(own).markdown()}\n" for name, own in groups.items()]
    (options.out / "first_signal.md").write_text("\n".join(tables))
    save(figure(groups), options.out / "first_signal")
    print(f"{len(every) - len(runs)} of {len(every)} runs recovered or never learned: left out")


def _smooth(values: Numbers) -> Numbers:
    return np.convolve(values, np.full(STEPS, 1 / STEPS), "valid")


if __name__ == "__main__":
    main()
