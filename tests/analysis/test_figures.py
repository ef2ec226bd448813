"""Figures of energies: what is drawn is what was measured, and nothing covers anything else."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from energy_at.analysis.figures import classes, delta_vs_eps, histograms, path
from energy_at.analysis.measure import TIMES
from energy_at.analysis.tables import ks_distance
from energy_at.attacks.registry import LABELS
from energy_at.reporting.figures import ATTACK_STYLES, METHOD_COLORS
from tests.helpers.landscapes import FOUR, only, require_described, require_readable, view_of

NINE = ("fgsm", "pgd", "trades", "targeted", "cw", "apgd_ce", "apgd_dlr", "fab", "square")
FIGURES = {
    "histograms": histograms,
    "path": path,
    "classes": classes,
    "delta_vs_eps": lambda view: delta_vs_eps(view, "PGD-20"),
}
OF_ALL = ("histograms", "path", "classes")  # figures of all attacks


# Nothing covers anything else


@pytest.mark.slow
@pytest.mark.parametrize("runs", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
@pytest.mark.parametrize(
    ("name", "attacks"),
    [(name, NINE[:n]) for name in FIGURES for n in ((1, 9) if name in OF_ALL else (1,))],
)
def test_words_are_readable_in_print(name, attacks, runs):
    require_readable(FIGURES[name](view_of(attacks, FOUR[:runs])))


@pytest.mark.parametrize("name", FIGURES)
def test_energies_are_in_nats_and_the_title_says_the_setting(name):
    require_described(FIGURES[name](view_of()))


# Colours


def test_runs_are_coloured_by_their_method():
    figure = delta_vs_eps(view_of(runs=FOUR[:3]), "PGD-20")
    colors = [line.get_color() for line in figure.axes[0].get_lines()[:3]]
    assert colors == [METHOD_COLORS[name] for name in ("", "DER", "GradAlign")]


# What is drawn is what was measured


def test_histograms_hold_all_images_and_say_their_distance():
    view = view_of(("fgsm", "pgd"))
    for joint, column in ((False, "marginal"), (True, "joint")):
        for axes, attack in zip(histograms(view, joint=joint).axes, view.labels, strict=True):
            heights = [patch.get_height() for patch in axes.patches if hasattr(patch, "get_height")]
            assert sum(heights) == pytest.approx(100)
            natural = getattr(only(view).natural, column)
            distance = ks_distance(natural, getattr(only(view).attacks[attack], column))
            assert axes.get_title() == f"{LABELS[attack]}, KS {distance:.2f}"


def test_radii_start_at_zero_and_are_drawn_in_their_unit():
    view = view_of()
    radii = only(view).radii
    for axes, deltas in zip(
        delta_vs_eps(view, "PGD-20").axes, (radii.delta_marginal, radii.delta_joint), strict=True
    ):
        line = axes.get_lines()[0]
        np.testing.assert_allclose(line.get_xdata(), [0, 4, 8, 16])
        np.testing.assert_allclose(line.get_ydata(), [0, *deltas.mean(axis=0)])
        assert axes.get_xlabel() == "eps, L-inf [1/255] (dotted: of the attacks)"


def test_paths_are_means_over_the_images():
    view = view_of()
    marginal, joint = path(view).axes[0].get_lines()[:2]
    found = only(view).paths["pgd"]
    np.testing.assert_allclose(marginal.get_xdata(), TIMES)
    np.testing.assert_allclose(marginal.get_ydata(), found.marginal.mean(axis=0))
    np.testing.assert_allclose(joint.get_ydata(), found.joint.mean(axis=0))
    assert to_hex(marginal.get_color()).upper() == ATTACK_STYLES["pgd"][0]


def test_classes_show_their_means_and_how_many_images_they_have():
    view = view_of()
    found = only(view)
    axes = classes(view).axes
    for panel, column in zip(axes, ("marginal", "delta_marginal", "delta_joint"), strict=True):
        marker = ATTACK_STYLES["pgd"][1]
        (line,) = [line for line in panel.get_lines() if line.get_marker() == marker]
        values = getattr(found.attacks["pgd"], column)
        means = [values[found.natural.label == label].mean() for label in range(10)]
        np.testing.assert_allclose(line.get_ydata(), means)
    assert axes[-1].get_xticklabels()[0].get_text() == "0\nn = 6"
