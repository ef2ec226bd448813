"""The eight panels: what is drawn is what was logged, and every onset is marked."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import method_styles, save, svg
from energy_at.reporting.figures.training_curves import PANELS, methods_figure, steps_figure
from energy_at.runs.metrics_log import Curve, MetricsLog
from tests.helpers.logs import run_of

STYLE = {"color": "#D55E00"}
KEYS = [metric.key for metric in PANELS]
A = MethodLabel("FGSM-AT")
DER = MethodLabel("FGSM-AT", ("DER",))
LOST = MethodLabel("FGSM-AT", status="collapsed")


def log(epochs=3, per_epoch=4, scale=1.0):
    """Every training metric counts the steps, every validation the epochs; shares in hundredths."""
    steps = np.arange(1.0, epochs * per_epoch + 1)
    of = np.floor((steps - 1) / per_epoch)
    ends = np.arange(1.0, epochs + 1)
    curves = {"train/loss": Curve(steps, of, steps)}
    for key in (*KEYS, "val/acc/clean"):
        where, number, count = (
            (ends * per_epoch, ends - 1, ends) if key.startswith("val/") else (steps, of, steps)
        )
        shares = "/acc/" in key or key.endswith("share")
        curves[key] = Curve(where, number, scale * count / (100 if shares else 1))
    return MetricsLog(curves)


def epochs_figure(methods, title=""):
    return methods_figure(methods, title, PANELS)


def panel(figure, key):
    return figure.axes[KEYS.index(key)]


def marks(axes):
    """Onsets: where, in which style, with which label."""
    lines = [line for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]
    labels = [text.get_text() for text in axes.texts]
    return [(line.get_xdata()[0], line.get_linestyle(), line.get_color()) for line in lines], labels


@pytest.mark.parametrize("key", [key for key in KEYS if key.startswith("train/")])
def test_steps_and_epoch_means_are_drawn(key):
    axes = panel(steps_figure(run_of(log()), STYLE), key)
    thin, thick = axes.get_lines()[:2]
    assert list(thin.get_xdata()) == list(range(1, 13))
    assert list(thin.get_ydata()) == pytest.approx(range(1, 13))
    assert list(thick.get_xdata()) == [2, 6, 10]  # middles of the epochs
    assert list(thick.get_ydata()) == pytest.approx([2.5, 6.5, 10.5])
    assert thick.get_linewidth() > thin.get_linewidth()


@pytest.mark.parametrize("key", ["val/acc/fgsm", "val/acc/pgd"])
def test_validations_are_drawn_at_their_steps_in_percent(key):
    (line,) = panel(steps_figure(run_of(log()), STYLE), key).get_lines()
    assert list(line.get_xdata()) == [4, 8, 12]
    assert list(line.get_ydata()) == pytest.approx([1, 2, 3])


def test_clean_accuracy_shows_training_and_held_out_images():
    axes = panel(steps_figure(run_of(log()), STYLE), "train/acc/clean")
    assert list(axes.get_lines()[-1].get_xdata()) == [4, 8, 12]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["held-out"]


def test_a_long_training_is_drawn_as_a_band_of_few_bins():
    axes = panel(
        steps_figure(run_of(log(epochs=10, per_epoch=5000)), STYLE), "train/delta_energy/joint"
    )
    assert len(axes.get_lines()[0].get_xdata()) == 400
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1, 50_000)


def test_the_colour_is_that_of_the_method():
    style = method_styles([DER])[DER]
    for axes in steps_figure(run_of(log()), style).axes:
        assert {to_hex(line.get_color()) for line in axes.get_lines()} >= {to_hex(style["color"])}


@pytest.mark.parametrize(
    ("status", "kind", "style"), [("collapsed", "CO", "--"), ("overfitted", "RO", ":")]
)
def test_an_onset_is_marked_on_every_panel_of_a_run(status, kind, style):
    figure = steps_figure(run_of(log(), status, 8), STYLE)
    for axes in figure.axes:
        lines, labels = marks(axes)
        assert [(where, drawn) for where, drawn, _ in lines] == [(8, style)]
        assert labels == [f"{kind}, step 8"]


def test_a_healthy_run_has_no_mark():
    assert all(marks(axes) == ([], []) for axes in steps_figure(run_of(log()), STYLE).axes)


METHODS = {
    LOST: [run_of(log(), "collapsed", 8), run_of(log(), "collapsed", 12)],
    DER: [run_of(log(scale=2.0))],
}


def test_every_onset_is_marked_at_its_epoch_in_the_colour_of_its_method():
    color = method_styles(list(METHODS))[LOST]["color"]
    for axes in epochs_figure(METHODS).axes:
        assert marks(axes) == ([(2, "--", color), (3, "--", color)], ["CO", "CO"])


def test_marks_that_are_close_share_a_label():
    runs = {A: [run_of(log(epochs=100), "collapsed", step) for step in (200, 204, 300)]}
    lines, labels = marks(epochs_figure(runs).axes[0])
    assert [where for where, *_ in lines] == [50, 51, 75]
    assert labels == ["CO", "", "CO"]


def test_methods_show_the_mean_of_their_seeds_by_epoch():
    seeds = {A: [run_of(log(scale=1.0)), run_of(log(scale=3.0))]}
    axes = panel(epochs_figure(seeds), "train/delta_energy/marginal")
    thick = max(axes.get_lines(), key=lambda line: line.get_linewidth())
    assert list(thick.get_xdata()) == [1, 2, 3]
    assert list(thick.get_ydata()) == pytest.approx([5, 13, 21])


@pytest.mark.parametrize("figure", [steps_figure(run_of(log()), STYLE), epochs_figure(METHODS)])
def test_axes_have_units_and_shares_their_whole_range(figure):
    assert len(figure.axes) == 8
    for key, axes in zip(KEYS, figure.axes, strict=True):
        unit = "[%]" if "/acc/" in key or key.endswith("share") else "[nats]"
        assert axes.get_ylabel().endswith(unit)
        low, high = axes.get_ylim()
        assert low < 0 < 12 < high
        assert (unit == "[%]") == (high > 100)


def test_labels_and_title_fit_into_their_figure():
    title = "FGSM-AT + DER, seed 0: " + ", ".join(["CIFAR-10 (10,000 training images)"] * 6)
    for figure in (steps_figure(run_of(log()), STYLE, title), epochs_figure(METHODS, title)):
        figure.draw_without_rendering()
        texts = [axes.yaxis.label for axes in figure.axes] + [figure._suptitle]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= figure.bbox.x0
            assert box.x1 <= figure.bbox.x1
            assert box.y0 >= figure.bbox.y0
            assert box.y1 <= figure.bbox.y1


def test_what_was_not_logged_leaves_its_panel_empty():
    bare = MetricsLog({"train/loss": log()["train/loss"]})
    for figure in (steps_figure(run_of(bare), STYLE), epochs_figure({A: [run_of(bare)]})):
        assert len(figure.axes) == 8
        figure.draw_without_rendering()


def test_a_value_that_is_not_finite_spoils_no_scale():
    curves = dict(log().curves)
    broken = curves["train/delta_energy/marginal"]
    broken.values[5] = np.inf
    broken.values[6] = np.nan
    for figure in (steps_figure(run_of(MetricsLog(curves)), STYLE), epochs_figure(METHODS)):
        assert all(np.isfinite(axes.get_ylim()).all() for axes in figure.axes)


def test_one_epoch_can_be_seen():
    axes = steps_figure(run_of(log(epochs=1)), STYLE).axes[0]
    assert axes.get_lines()[1].get_marker() == "o"


def test_no_training_step_is_said():
    with pytest.raises(ValueError, match="no training step"):
        steps_figure(run_of(MetricsLog({})), STYLE)


def test_files_are_the_same_bytes_every_time(tmp_path):
    for name in "ab":
        save(epochs_figure(METHODS, "setting"), tmp_path / name)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert svg(epochs_figure(METHODS)) == svg(epochs_figure(METHODS))
