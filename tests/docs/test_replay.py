"""The study of the sentinel (docs/sentinel/replay.py) on logs written by hand."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from energy_at.runs.folder import RunFolder
from energy_at.training.loggers import csv_logger
from tests.helpers.logs import FAILS, WORKS, row, validation
from tests.helpers.running import TINY, config

EPOCH = 25  # steps
SCRIPT = Path(__file__).parents[2] / "docs" / "sentinel" / "replay.py"

spec = importlib.util.spec_from_file_location("replay", SCRIPT)
replay = sys.modules["replay"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(replay)


def logged(folder, phases, accuracies, *overrides):
    """A run of as many epochs; CO in the steps of some, PGD accuracies on held-out images."""
    RunFolder.create(folder, config(*TINY, "dataset.classes=10", *overrides))
    logger = csv_logger(folder)
    for epoch, (phase, pgd) in enumerate(zip(phases, accuracies, strict=True)):
        for step in range(EPOCH * epoch + 1, EPOCH * (epoch + 1) + 1):
            logger.log_metrics({**row(step, **phase), "epoch": epoch, "train/loss": 1.0}, step)
        logger.log_metrics({**validation(step, pgd, 0.4), "epoch": epoch}, step)
    logger.save()
    return folder


def replayed(folder, *args):
    return replay.study({"": [logged(folder, *args)]})[0].row()[2:]


def test_a_collapse_is_detected_with_its_latency(tmp_path):
    found = replayed(tmp_path, [WORKS] * 2 + [FAILS] * 2, [0.3, 0.3, 0.3, 0.02])
    assert found == ("25", "CO from 100", "CO 65", "CO 65", "-35", "-1.40", "in time")


def test_a_collapse_that_only_held_out_images_show_is_detected_by_them(tmp_path):
    found = replayed(tmp_path, [WORKS] * 4, [0.3, 0.3, 0.3, 0.02])
    assert found == ("25", "CO from 100", "none", "CO 100", "+0", "+0.00", "in time")


def test_an_alarm_without_a_collapse_is_false(tmp_path):
    found = replayed(tmp_path, [WORKS, FAILS], [0.3, 0.35])
    assert found[1:] == ("healthy", "CO 40", "CO 40", "", "", "false alarm")


def test_a_network_that_becomes_robust_later_has_not_collapsed_before(tmp_path):
    assert replayed(tmp_path, [WORKS] * 3, [0.0, 0.0, 0.3])[1] == "healthy"


def test_what_a_multi_step_attack_loses_is_no_catastrophe(tmp_path):
    found = replayed(tmp_path, [WORKS] * 3, [0.3, 0.1, 0.1], "attack=pgd")
    assert re.fullmatch(r"RO, 3 points lost at \d+", found[1])


@pytest.mark.slow
def test_a_study_is_written(tmp_path, monkeypatch):
    runs = {"set": [logged(tmp_path / "a", [WORKS, FAILS], [0.3, 0.05])],
            "report": [logged(tmp_path / "b", [WORKS, WORKS], [0.3, 0.3])]}  # fmt: skip
    table = replay.study_table(replay.write_study(runs, tmp_path / "out"))
    assert [line[0] for line in table.rows] == ["set", "report"]
    (tmp_path / "out").rename(tmp_path / "before")
    parts = [f"{part}={run}" for part, (run,) in runs.items()]
    monkeypatch.setattr(sys, "argv", ["replay.py", "--out", str(tmp_path / "out"), *parts])
    replay.main()
    before, after = ((tmp_path / o / "table.md").read_text() for o in ("before", "out"))
    assert before == after
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"table.md", "table.csv", "signals.png", "signals.pdf"}
