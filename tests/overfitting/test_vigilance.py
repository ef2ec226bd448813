"""The study of the sentinel on logs written by hand, and its marks in the figures."""

from itertools import combinations

import pytest

from energy_at.overfitting.vigilance import study, study_table, write_study
from energy_at.reporting.figures.style import delta_energy_figure, method_styles, methods_figure
from energy_at.reporting.figures.training_curves import Training, epochs_figure, steps_figure
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import Log
from energy_at.training.loggers.csv import csv_logger
from tests.helpers.running import TINY, config
from tests.overfitting.test_detector import FAILS, WORKS, row, validation

EPOCH = 25  # steps


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


def judged(folder, *args):
    return study({"": [logged(folder, *args)]})[0].row()[2:]


def test_a_collapse_is_told_with_its_latency(tmp_path):
    found = judged(tmp_path, [WORKS] * 2 + [FAILS] * 2, [0.3, 0.3, 0.3, 0.02])
    assert found == ("25", "CO from 100", "CO 65", "CO 65", "-35", "-1.40", "in time")


def test_a_collapse_that_only_held_out_images_show_is_told_by_them(tmp_path):
    found = judged(tmp_path, [WORKS] * 4, [0.3, 0.3, 0.3, 0.02])
    assert found == ("25", "CO from 100", "none", "CO 100", "+0", "+0.00", "in time")


def test_an_alarm_without_a_collapse_is_false(tmp_path):
    found = judged(tmp_path, [WORKS, FAILS], [0.3, 0.35])
    assert found[1:] == ("healthy", "CO 40", "CO 40", "", "", "false alarm")


def test_a_network_that_becomes_robust_later_has_not_collapsed_before(tmp_path):
    assert judged(tmp_path, [WORKS] * 3, [0.0, 0.0, 0.3])[1] == "healthy"


def test_what_a_multi_step_attack_loses_is_no_catastrophe(tmp_path):
    found = judged(tmp_path, [WORKS] * 3, [0.3, 0.1, 0.1], "attack=pgd")
    assert found[1] == "healthy"


def test_a_study_is_written(tmp_path):
    runs = {"set": [logged(tmp_path / "a", [WORKS, FAILS], [0.3, 0.05])],
            "report": [logged(tmp_path / "b", [WORKS, WORKS], [0.3, 0.3])]}  # fmt: skip
    table = study_table(write_study(runs, tmp_path / "out"))
    assert [line[0] for line in table.rows] == ["set", "report"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"table.md", "table.csv", "signals.png", "signals.pdf"}


# Figures


@pytest.fixture
def alarmed():
    rows = [{**row(s, **WORKS), "epoch": (s - 1) // 4, "train/loss": 1.0} for s in range(1, 13)]
    checks = [{**validation(s, 0.3), "epoch": s // 4 - 1} for s in (4, 8, 12)]
    return Log.of([*rows, *checks, {"step": 6, "epoch": 1, "alarm/co": 0.4}])


def marks(axes):
    return [text.xy[0] for text in axes.texts if text.get_text().startswith("CO\n")]


def test_alarms_are_read_in_their_order(alarmed):
    assert alarmed.alarms == [("CO", 6)]
    both = Log.of([{"step": 9.0, "alarm/co": 0.3}, {"step": 5.0, "alarm/ro": 0.2}])
    assert both.alarms == [("RO", 5), ("CO", 9)]


@pytest.fixture
def crowd():
    """Alarms close to each other: of one run, of a second seed, and of the other kind."""
    steps = [{**row(s, **WORKS), "epoch": (s - 1) // 40, "train/loss": 1.0} for s in range(1, 481)]
    checks = [{**validation(s, 0.3), "epoch": s // 40 - 1} for s in range(40, 481, 40)]
    alarms = [{"step": s, "epoch": 5, "alarm/co": 0.4} for s in (200, 236, 238, 300)]
    return Log.of([*steps, *checks, *alarms, {"step": 205, "epoch": 5, "alarm/ro": 0.2}])


def test_labels_of_alarms_do_not_overlap(crowd):
    style = method_styles(["FGSM-AT"])["FGSM-AT"]
    lost = Training(crowd, {"CO": 210, "RO": 220})
    for figure in (delta_energy_figure({"one": crowd, "two": crowd}),
                   methods_figure({"FGSM-AT": [crowd, crowd], "PGD-AT": [crowd]}),
                   steps_figure(Training(crowd), style),
                   epochs_figure({"FGSM-AT": [lost, lost], "PGD-AT": [lost]})):  # fmt: skip
        figure.draw_without_rendering()
        labels = [
            t for axes in figure.axes for t in axes.texts if t.get_text().strip()[:2].isalpha()
        ]
        boxes = [text.get_window_extent() for text in labels]
        assert len(boxes) >= 3 * len([axes for axes in figure.axes if axes.texts])
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_every_alarm_has_a_triangle(crowd):
    axes = steps_figure(Training(crowd), method_styles(["FGSM-AT"])["FGSM-AT"]).axes[0]
    found = [(text.xy[0], text.get_text()[:-2]) for text in axes.texts]
    assert found == [(200, "CO"), (236, ""), (238, ""), (300, "CO"), (205, "RO")]


def test_every_figure_of_a_training_marks_its_alarms(alarmed):
    assert 1.5 in marks(delta_energy_figure({"run": alarmed}).axes[0])
    for axes in methods_figure({"FGSM-AT": [alarmed]}).axes:
        assert marks(axes) == [1.5]
    style = method_styles(["FGSM-AT"])["FGSM-AT"]
    assert all(marks(axes) == [6] for axes in steps_figure(Training(alarmed), style).axes)
    by_epoch = epochs_figure({"FGSM-AT": [Training(alarmed)]})
    assert all(marks(axes) == [1.5] for axes in by_epoch.axes)
