"""Alarms in the figures of a training."""

from itertools import combinations

import pytest

from energy_at.reporting.figures.style import delta_energy_figure, method_styles, methods_figure
from energy_at.reporting.figures.training_curves import Training, epochs_figure, steps_figure
from energy_at.runs.metrics_log import MetricsLog
from tests.helpers.logs import WORKS, row, validation


@pytest.fixture
def alarmed():
    rows = [{**row(s, **WORKS), "epoch": (s - 1) // 4, "train/loss": 1.0} for s in range(1, 13)]
    checks = [{**validation(s, 0.3), "epoch": s // 4 - 1} for s in (4, 8, 12)]
    return MetricsLog.of([*rows, *checks, {"step": 6, "epoch": 1, "alarm/co": 0.4}])


def marks(axes):
    return [text.xy[0] for text in axes.texts if text.get_text().startswith("CO\n")]


@pytest.fixture
def crowd():
    """Alarms close to each other: of one run, of a second seed, and of the other kind."""
    steps = [{**row(s, **WORKS), "epoch": (s - 1) // 40, "train/loss": 1.0} for s in range(1, 481)]
    checks = [{**validation(s, 0.3), "epoch": s // 40 - 1} for s in range(40, 481, 40)]
    alarms = [{"step": s, "epoch": 5, "alarm/co": 0.4} for s in (200, 236, 238, 300)]
    return MetricsLog.of([*steps, *checks, *alarms, {"step": 205, "epoch": 5, "alarm/ro": 0.2}])


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
