"""Scatter and arrows in the plane of E(x) and E(x, y)."""

import numpy as np
import pytest
from matplotlib.quiver import Quiver

from energy_at.analysis.energy_plane import quiver, scatter
from tests.helpers.landscapes import FOUR, only, require_described, require_readable, view_of


@pytest.mark.parametrize("runs", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
@pytest.mark.parametrize("draw", [scatter, quiver])
def test_words_are_readable_in_print(draw, runs):
    require_readable(draw(view_of(runs=FOUR[:runs], attacks=("fgsm",)), "fgsm"))


@pytest.mark.parametrize("draw", [scatter, quiver])
def test_energies_are_in_nats_and_the_title_says_the_setting(draw):
    require_described(draw(view_of(), "pgd"))


def test_arrows_lead_from_natural_to_adversarial_and_abnormal_ones_are_separated():
    view = view_of()
    natural, shifts = only(view).natural, only(view).attacks["pgd"]
    normal, abnormal = quiver(view, "pgd").axes[:2]
    assert (normal.get_title(), abnormal.get_title()) == ("normal: 50", "AAE: 10")
    for axes, members in ((normal, ~shifts.is_abnormal), (abnormal, shifts.is_abnormal)):
        (arrows,) = axes.findobj(Quiver)
        np.testing.assert_allclose(arrows.X, natural.marginal[members])
        np.testing.assert_allclose(arrows.Y, natural.joint[members])
        np.testing.assert_allclose(arrows.X + arrows.U, shifts.marginal[members])
        np.testing.assert_allclose(arrows.Y + arrows.V, shifts.joint[members])
        np.testing.assert_allclose(arrows.get_array(), shifts.shift_norm[members])


def test_of_many_arrows_a_seeded_part_is_drawn_and_said():
    view = view_of(n=1200, abnormal=slice(0, 40))
    first, again = (quiver(view, "pgd").axes for _ in range(2))
    (arrows,), (same,) = (axes[0].findobj(Quiver) for axes in (first, again))
    assert len(arrows.X) == 500
    assert np.array_equal(arrows.X, same.X)
    assert first[0].get_title() == "normal: 500 of 1,160 (drawn, seed 0)"
    assert first[1].get_title() == "AAE: 40"


def test_without_abnormal_images_there_is_no_empty_panel():
    figure = quiver(view_of(abnormal=slice(0, 0)), "pgd")
    assert figure.axes[0].get_title() == "normal: 60 (no AAE)"
    assert len(figure.axes) == 2  # and the colour bar


@pytest.mark.parametrize("draw", [scatter, quiver])
def test_the_diagonal_of_zero_loss_is_in_every_panel(draw):
    for axes in draw(view_of(runs=FOUR[:3]), "pgd").axes[:-1]:
        (line,) = axes.get_lines()
        assert (line.get_slope(), line.get_xy1()) == (1, (0, 0))
        assert axes.get_xlim()[1] > axes.get_ylim()[0]  # it crosses the panel
        assert line.get_linestyle() == "--"


def test_points_of_a_scatter_are_pixels_in_the_pdf():
    figure = scatter(view_of(), "pgd")
    natural, adversarial = figure.axes[0].collections
    assert natural.get_rasterized()
    assert adversarial.get_rasterized()
    found = only(view_of())
    members = ~found.attacks["pgd"].is_abnormal
    drawn = {tuple(point) for point in np.round(adversarial.get_offsets(), 9).tolist()}
    shifts = found.attacks["pgd"]
    points = np.stack([shifts.marginal[members], shifts.joint[members]], axis=1)
    assert drawn == {tuple(point) for point in np.round(points, 9).tolist()}
