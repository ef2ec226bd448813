"""ROC curves, as they are drawn."""

from dataclasses import replace

import numpy as np
import pytest

from energy_at.analysis.detection import SCORES, Detection, Scores
from energy_at.analysis.roc import roc
from tests.helpers.landscapes import FOUR, require_readable, view_of


def scores(seed):
    return Scores(*np.random.default_rng(seed).normal(seed, 1, (3, 40)))


@pytest.mark.parametrize("runs", [FOUR[1:2], FOUR[:3]], ids=["one", "three"])
def test_every_set_has_a_curve_in_the_panel_of_each_score_and_run(runs):
    view = view_of(("fgsm", "pgd"), runs)
    found = Detection(scores(0), {"svhn": scores(1)}, {"fgsm": scores(2), "pgd": scores(0)})
    view = replace(
        view, runs={name: replace(one, detection=found) for name, one in view.runs.items()}
    )
    figure = roc(view)
    require_readable(figure)
    assert len(figure.axes) == len(SCORES) * len(runs)
    for axes in figure.axes:
        lines = {line.get_label(): line.get_xydata() for line in axes.lines[1:]}
        assert list(lines) == ["svhn", "FGSM", "PGD"]
        for points in lines.values():
            assert points[0].tolist() == [0, 0]
            assert points[-1].tolist() == [1, 1]
            assert (np.diff(points, axis=0) >= 0).all()
