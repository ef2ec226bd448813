"""Figures of energies: what is drawn is what was measured, and nothing covers anything else."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.quiver import Quiver
from matplotlib.text import Text

from energy_at.analysis.energy_plane import quiver, scatter
from energy_at.analysis.figures import classes, delta_vs_eps, histograms, path
from energy_at.analysis.measure import TIMES, Landscape, Natural, Paths, Radii, Shifts
from energy_at.analysis.tables import View, ks_distance
from energy_at.attacks.registry import FROM_LIBRARY, LABELS, OWN
from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import ATTACK_STYLES, METHOD_COLORS, method_styles
from energy_at.reporting.figures.results import accuracy_figure

NINE = ("fgsm", "pgd", "trades", "targeted", "cw", "apgd_ce", "apgd_dlr", "fab", "square")
EPS = 8 / 255


def shifts_of(natural, rng, abnormal):
    """Random shifts, of which some lower the loss."""
    n = len(natural.label)
    delta_marginal, rise = rng.normal(1, 1, n), rng.exponential(1, n)
    loss = natural.joint - natural.marginal
    rise[abnormal] = -0.5 * loss[abnormal]
    delta_joint = delta_marginal - rise
    return Shifts(
        natural.prediction,
        natural.marginal - delta_marginal,
        natural.joint - delta_joint,
        delta_marginal,
        delta_joint,
        np.hypot(delta_marginal, delta_joint),
        delta_joint > delta_marginal,
        np.full(n, EPS),
    )


def landscape_of(attacks, n=60, seed=0, abnormal=slice(0, 10)):
    rng = np.random.default_rng(seed)
    labels, marginal = np.arange(n) % 10, rng.normal(-5, 1, n)
    natural = Natural(np.arange(n), labels, labels, marginal, marginal + rng.exponential(1, n))
    positions = np.arange(0, n, 2)
    lines = rng.normal(size=(2, len(positions), len(TIMES)))
    radii = EPS * np.array([0.5, 1.0, 2.0])
    return Landscape(
        natural,
        {name: shifts_of(natural, rng, abnormal) for name in attacks},
        {name: Paths(positions, *lines) for name in attacks},
        Radii(positions, radii, *rng.normal(size=(2, len(positions), 3))),
    )


FOUR = (
    MethodLabel("FGSM-AT", run="seed 0"),
    MethodLabel("FGSM-AT", ("DER",), run="seed 0"),
    MethodLabel("FGSM-AT", ("GradAlign",), run="seed 0"),
    MethodLabel("MART (PGD)", ("DER",), awp=True, run="seed 0"),
)


def view_of(attacks=("pgd",), runs=FOUR[1:2], **settings):
    found = {str(run): landscape_of(attacks, seed=i, **settings) for i, run in enumerate(runs)}
    styles = {str(run): style for run, style in method_styles(runs).items()}
    title = "CIFAR-10, PreActResNet18 of width 16, L-inf, eps 8/255; 60 test images, eps 8/255"
    return View(found, {name: LABELS[name] for name in attacks}, title, "linf", EPS, styles)


FIGURES = {
    "histograms": histograms,
    "path": path,
    "classes": classes,
    "delta_vs_eps": lambda view: delta_vs_eps(view, "PGD-20"),
    "scatter": lambda view: scatter(view, next(iter(view.labels))),
    "quiver": lambda view: quiver(view, next(iter(view.labels))),
}
OF_ALL = ("histograms", "path", "classes")  # figures of all attacks


def words(figure):
    """Every text that is drawn: matplotlib keeps labels of ticks beyond the limits, too."""
    beyond = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    found = [text for text in figure.findobj(Text) if text not in beyond]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def only(view):
    (found,) = view.runs.values()
    return found


# Nothing covers anything else


@pytest.mark.parametrize("runs", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
@pytest.mark.parametrize(
    ("name", "attacks"),
    [(name, NINE[:n]) for name in FIGURES for n in ((1, 9) if name in OF_ALL else (1,))],
)
def test_words_are_readable_in_print(name, attacks, runs):
    figure = FIGURES[name](view_of(attacks, FOUR[:runs]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches()
    assert width <= 7  # the text of a page: what is drawn is what is printed
    assert height <= 11
    shown = words(figure)
    assert all(text.get_fontsize() >= 8 for text in shown)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in shown]
    page = figure.bbox.padded(1)
    for text, box in zip(shown, boxes, strict=True):
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
    for (one, a), (other, b) in combinations(zip(shown, boxes, strict=True), 2):
        assert not a.padded(-2).overlaps(b.padded(-2)), f"{one} covers {other}"


@pytest.mark.parametrize("name", FIGURES)
def test_energies_are_in_nats_and_the_title_says_the_setting(name):
    figure = FIGURES[name](view_of())
    labels = [axes.get_ylabel() + axes.get_xlabel() for axes in figure.axes]
    assert any("[nats]" in label for label in labels)
    assert "PreActResNet18 of width 16" in " ".join(figure.get_suptitle().split())


# Colours


def test_every_attack_has_a_style_of_its_own():
    assert set(ATTACK_STYLES) == {*OWN, *FROM_LIBRARY}
    colors = {color for color, _ in ATTACK_STYLES.values()}
    assert len(set(ATTACK_STYLES.values())) == len(colors) == len(ATTACK_STYLES)


def test_attacks_are_coloured_as_in_the_curve_of_the_accuracy():
    rows = [
        {"attack": name, "label": name, "eps": eps, "accuracy": 0.5, "low": 0.4, "high": 0.6}
        for name, eps in (("clean", 0.0), *((n, 0.1) for n in ATTACK_STYLES))
    ]
    (axes,) = accuracy_figure({"accuracies": rows, "norm": "L-inf"}).axes
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.get_lines()}
    assert drawn == ATTACK_STYLES


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


def test_radii_start_at_zero_and_are_drawn_in_their_unit():
    view = view_of()
    radii = only(view).radii
    for axes, deltas in zip(
        delta_vs_eps(view, "PGD-20").axes, (radii.delta_marginal, radii.delta_joint), strict=True
    ):
        line = axes.get_lines()[0]
        np.testing.assert_allclose(line.get_xdata(), [0, 4, 8, 16])
        np.testing.assert_allclose(line.get_ydata(), [0, *deltas.mean(axis=0)])
        assert axes.get_xlabel() == "eps, L-inf [1/255]"


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
