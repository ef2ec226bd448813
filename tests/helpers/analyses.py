"""Runs to analyse, what is typed to be quick, and what is left behind, read."""

import csv
from pathlib import Path

import numpy as np
import torch

from energy_at.config.build import build_module
from energy_at.runs.folder import RunFolder
from tests.helpers.running import config

FAST = ("subset=24", "steps=2", "progress=false", "device=cpu", "batch_size=16")
TWO = ("attacks=[fgsm,pgd]",)
OUT = "run/analysis/last-linf-8of255-24images"
FIGURES = {"histograms", "histograms_joint", "path", "classes", "delta_vs_eps"}
FILES = {"table.md", "table.csv", "table.tex", "samples.npz", "settings.json", ".result.json"}
SETTING = ("dataset=synthetic", "model=small", "model.width=4", "threat.eps=8/255")


def trained(path, *overrides):
    """A run of no step."""
    cfg = config("logger=csv", *overrides)
    folder = RunFolder.create(path, cfg, overrides)
    module = build_module(cfg)
    folder.checkpoints.mkdir()
    torch.save({"state_dict": module.state_dict()}, folder.checkpoints / "last.ckpt")
    return module


def rows(folder):
    with (Path(folder) / "table.csv").open(newline="") as file:
        return {(r["run"], r["attack"], r["quantity"]): r for r in csv.DictReader(file)}


def samples(folder):
    with np.load(Path(folder) / "samples.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def untrained_runs(place):
    """Networks of four seeds, three settings and two data sets, and what describes them."""
    runs = {
        "run": (),
        "other": ("reg=der", "seed=1"),
        "wider": ("threat.eps=16/255", "seed=2"),
        "digits": ("dataset=digits", "seed=3"),
    }
    for i, (name, overrides) in enumerate(runs.items()):
        torch.manual_seed(i)
        trained(place / name, *SETTING, *overrides)
    return place
