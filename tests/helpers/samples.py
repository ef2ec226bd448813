"""What is typed to sample in a moment, and what is left behind, read."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from energy_at.evaluation.trained_model import open_run
from energy_at.sampling import classifier

QUICK = ("progress=false", "sampler.steps=4", "start.k=5", "cache=classifiers")
BARE = (*QUICK, "judge=none", "quality=none")
FIGURES = [f"{name}.{kind}" for name in ("grid", "start", "nearest", "distributions")
           for kind in ("png", "pdf")]  # fmt: skip


def report(folder):
    """No NaN, no infinity: JSON has none."""
    return json.loads(Path(folder, "samples.json").read_text(), parse_constant=pytest.fail)


def columns(folder):
    with np.load(Path(folder, "samples.npz")) as found:
        return {name: found[name] for name in found.files}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def opened():
    return open_run("run", OmegaConf.create({"which": None, "device": "cpu"}))


def opened_net():
    return opened().net.eval()


def sampled_columns(type_sample, folder, *overrides):
    code, _, err = type_sample("run=run", f"out={folder}", *BARE, *overrides)
    assert (code, err) == (0, "")
    return columns(folder)


def quick_classifier(patch):
    """The independent classifier learns for one step."""
    patch.setattr(classifier, "STEPS", 1)
    patch.setattr(classifier, "EPOCHS", 1)
    patch.setitem(classifier.WIDTH, "cpu", 2)
