"""What a run was made with."""

import json
import platform

import numpy as np
import torch
from omegaconf import OmegaConf

from energy_at.runs.environment import environment
from energy_at.runs.folder import RunFolder


def test_a_run_records_its_environment(tmp_path):
    run = RunFolder.create(tmp_path, OmegaConf.create())
    recorded = json.loads((run.path / "environment.json").read_text())
    assert recorded["python"] == platform.python_version()
    assert torch.__version__.startswith(recorded["packages"]["torch"])
    assert recorded["packages"]["numpy"] == np.__version__
    assert recorded.keys() == environment().keys() | {"overrides", "train_images"}
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "environment.json"]
