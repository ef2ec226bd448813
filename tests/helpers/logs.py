"""Rows of ``metrics.csv`` by hand: steps whose attack works or fails, and validations."""

from pathlib import Path

import numpy as np

from energy_at.overfitting.onset import RunStatus
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import Curve, MetricsLog

WORKS = {"marginal": 0.0, "joint": -0.3, "shift": 0.3, "aae": 0.0, "adv": 0.4}
FAILS = {"marginal": 0.1, "joint": 0.1, "shift": 0.6, "aae": 0.5, "adv": 0.4}


def row(step, *, marginal, joint, shift, aae, adv, scale=1.0):
    return {
        "step": float(step),
        "train/delta_energy/marginal": scale * marginal,
        "train/delta_energy/joint": scale * joint,
        "train/delta_energy/shift_norm": scale * shift,
        "train/aae_share": aae,
        "train/acc/adv": adv,
    }


def validation(step, pgd, fgsm=None, marginal=0.0, shift=0.3):
    return {
        "step": float(step),
        "val/acc/pgd10": pgd,
        "val/acc/fgsm": pgd if fgsm is None else fgsm,
        "val/ce/pgd10": 2.0,
        "val/delta_energy/marginal": marginal,
        "val/delta_energy/shift_norm": shift,
    }


def log_of(rows):
    """The log of rows, as if they had been read from a file; a log as it is."""
    if isinstance(rows, MetricsLog):
        return rows

    def curve(name):
        keys = ("step", "epoch", name)
        return Curve(
            *(np.array([r.get(k, np.nan) for r in rows if name in r], float) for k in keys)
        )

    return MetricsLog({name: curve(name) for name in dict.fromkeys(n for r in rows for n in r)})


def run_of(log, kind="robust", step=None):
    """A finished run of this log and status."""
    run = FinishedRun(RunFolder(Path("run")))
    vars(run).update(log=log, status=RunStatus(kind, step))
    return run
