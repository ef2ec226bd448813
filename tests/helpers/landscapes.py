"""Landscapes of random energies, and what can be read of a figure of them."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from energy_at.analysis.measure import TIMES, Landscape, Natural, Paths, Radii, Shifts
from energy_at.analysis.tables import View
from energy_at.attacks.registry import LABELS
from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import method_styles

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


def only(view):
    (found,) = view.runs.values()
    return found


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


def require_readable(figure):
    """Every word is large enough, inside the page and free of others, as it is printed."""
    canvas = FigureCanvasAgg(figure)
    for _ in range(2):  # as a figure is saved: the first gives panels of equal axes their place
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
    renderer = canvas.get_renderer()
    titles = [axes.title for axes in figure.axes if axes.title.get_text()]
    title = figure._suptitle.get_window_extent(renderer)
    for below in (text.get_window_extent(renderer).y1 for text in titles):
        assert title.y0 - below > 0.15 * figure.dpi  # inches: not a line of theirs
    for (one, a), (other, b) in combinations(zip(shown, boxes, strict=True), 2):
        assert not a.padded(-2).overlaps(b.padded(-2)), f"{one} covers {other}"


def require_described(figure):
    """The energies of a figure have a unit, and its title says the setting."""
    labels = [axes.get_ylabel() + axes.get_xlabel() for axes in figure.axes]
    assert any("[nats]" in label for label in labels)
    assert "PreActResNet18 of width 16" in " ".join(figure.get_suptitle().split())
