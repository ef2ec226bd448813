"""Figures of a training: what is drawn is what was logged, and every onset is marked."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import method_styles, save, svg, training_curves
from energy_at.reporting.figures.training_curves import PANELS, methods_figure, steps_figure
from energy_at.runs.metrics_log import Curve, MetricsLog
from tests.helpers.logs import WORKS, log_of, row, run_of, validation

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


@pytest.mark.parametrize("key", ["val/acc/fgsm", "val/acc/pgd10"])
def test_validations_are_drawn_at_their_steps_in_percent(key):
    (line,) = panel(steps_figure(run_of(log()), STYLE), key).get_lines()
    assert list(line.get_xdata()) == [4, 8, 12]
    assert list(line.get_ydata()) == pytest.approx([1, 2, 3])


def test_clean_accuracy_shows_training_and_held_out_images():
    axes = panel(steps_figure(run_of(log()), STYLE), "train/acc/clean")
    assert list(axes.get_lines()[-1].get_xdata()) == [4, 8, 12]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["held-out"]


@pytest.mark.parametrize("per_epoch", [10, 5000])
def test_the_legend_names_bins_only_of_a_long_run(per_epoch):
    (legend,) = steps_figure(run_of(log(epochs=2, per_epoch=per_epoch)), STYLE).legends
    names = {text.get_text() for text in legend.get_texts()}
    assert ("range of steps" in names) == ("one step" not in names) == (per_epoch == 5000)


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
        assert marks(axes) == ([(2, "--", color), (3, "--", color)], ["", ""])  # the legend's


def test_the_legend_names_every_mark_that_was_drawn():
    def names(methods):
        return [text.get_text() for text in epochs_figure(methods).legends[0].get_texts()]

    curves = dict(log().curves) | {"alarm/co": Curve(*np.array([[5.0], [1.0], [1.0]]))}
    alarmed = {A: [run_of(MetricsLog(curves), "overfitted", 8)]}
    assert names(METHODS) == [*map(str, METHODS), "one seed", "onset of CO"]
    assert names(alarmed) == ["FGSM-AT", "onset of RO", "alarm of the sentinel"]
    alarmed = {A: [run_of(MetricsLog(curves)), *alarmed[A]]}
    assert names(alarmed)[-2:] == ["alarm of the sentinel", "alarm, no loss of robustness"]
    assert names({A: [run_of(log())]}) == ["FGSM-AT"]


def test_runs_that_collapsed_have_no_mean():
    axes = panel(epochs_figure(METHODS), "train/delta_energy/marginal")
    color = method_styles(list(METHODS))[LOST]["color"]
    lines = [line for line in axes.get_lines() if line.get_color() == color]
    seeds = [line for line in lines if len(line.get_xdata()) == 3]
    assert [line.get_linewidth() for line in seeds] == [0.7, 0.7]


def test_marks_that_are_close_share_a_label():
    runs = [run_of(log(epochs=100), "collapsed", step) for step in (200, 204, 300)]
    runs.append(run_of(log(epochs=100), "overfitted", 380))
    lines, labels = marks(epochs_figure({A: runs}).axes[0])
    assert [where for where, *_ in lines] == [50, 51, 75, 95]
    assert labels == ["CO", "", "CO", "RO"]


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


@pytest.mark.parametrize("runs", [1, 2])
def test_the_legend_of_a_run_fits_into_its_figure(runs):
    figure = delta_energy_figure({f"run {i}": log() for i in range(runs)})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y0 >= figure.bbox.y0


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


# The figure of two runs: what is drawn is what was logged


STEPS, EPOCHS = 4, 3  # steps of an epoch, epochs


def rows_of_sign(sign):
    """Rows as a training logs them: its steps counted from 1, then the validation of the epoch."""
    logged = []
    for epoch in range(EPOCHS):
        for step in range(epoch * STEPS + 1, (epoch + 1) * STEPS + 1):
            energies = {"marginal": sign * step**2 / 10, "joint": -sign * step / 2}
            row = {"step": float(step), "epoch": float(epoch), "lr": 0.1, "train/loss": 1 / step}
            logged.append(row | {f"train/delta_energy/{k}": v for k, v in energies.items()})
        val = {"val/acc/clean": 0.9, "val/acc/pgd10": 0.25 * (epoch + 1), "val/acc/fgsm": 0.8}
        logged.append({"step": float((epoch + 1) * STEPS), "epoch": float(epoch)} | val)
    return logged


def delta_energy_figure(runs, title=""):
    logs = {name: log_of(run) for name, run in runs.items()}
    return training_curves.delta_energy_figure(logs, title)


RUNS = {"fgsm": rows_of_sign(1.0), "fgsm + DER": rows_of_sign(-0.5)}
FIRST, SECOND = RUNS.values()


@pytest.fixture
def delta_figure():
    return delta_energy_figure(RUNS)


def left(delta_figure):
    return [axes for axes in delta_figure.axes if axes.get_title()]


def right(delta_figure):
    return [axes for axes in delta_figure.axes if not axes.get_title()]


def curve(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label().startswith(label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_there_is_a_panel_for_each_run_with_two_axes(delta_figure):
    assert isinstance(delta_figure, Figure)
    assert [axes.get_title() for axes in left(delta_figure)] == list(RUNS)
    assert len(right(delta_figure)) == 2
    for panel, twin in zip(left(delta_figure), right(delta_figure), strict=True):
        assert panel.get_position().bounds == twin.get_position().bounds


def test_pgd_error_is_drawn_after_each_epoch(delta_figure):
    for axes in left(delta_figure):
        epochs, error = curve(axes, "PGD error")
        assert epochs == pytest.approx([1, 2, 3])
        assert error == pytest.approx([75, 50, 25])


def test_delta_energies_are_averaged_over_each_epoch(delta_figure):
    # the means of n^2 / 10 over n = 1..4, 5..8, 9..12, and those of -n / 2
    marginal, joint = [0.75, 4.35, 11.15], [-1.25, -3.25, -5.25]
    for axes, sign in zip(right(delta_figure), (1.0, -0.5), strict=True):
        epochs, means = curve(axes, "dE(x): ")
        assert epochs == pytest.approx([1, 2, 3])
        assert means == pytest.approx([sign * mean for mean in marginal])
        epochs, means = curve(axes, "dE(x, y): ")
        assert epochs == pytest.approx([1, 2, 3])
        assert means == pytest.approx([sign * mean for mean in joint])


def test_every_step_is_drawn_under_its_epoch(delta_figure):
    for axes, logged in zip(right(delta_figure), RUNS.values(), strict=True):
        steps = [row for row in logged if "train/loss" in row]
        x = np.arange(1, 13) / 4
        drawn = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
        for name in ("train/delta_energy/marginal", "train/delta_energy/joint"):
            points = np.stack([x, [row[name] for row in steps]], axis=1)
            assert any(len(d) == 12 and np.allclose(d, points) for d in drawn)


def test_the_panels_share_their_scales(delta_figure):
    assert left(delta_figure)[0].get_ylim() == left(delta_figure)[1].get_ylim()
    low, high = left(delta_figure)[0].get_ylim()
    assert low < 0
    assert high > 100
    assert right(delta_figure)[0].get_ylim() == right(delta_figure)[1].get_ylim()
    low, high = right(delta_figure)[0].get_ylim()
    assert low < -0.5 * 12**2 / 10  # the lowest and the highest step of both runs
    assert high > 12**2 / 10


@pytest.mark.parametrize("order", [1, -1])
def test_every_step_of_every_run_is_within_its_axis(order):
    spike = [dict(row) for row in FIRST]
    spike[5]["train/delta_energy/joint"] = -400.0
    runs = dict([("calm", FIRST), ("spike", spike)][::order])
    for axes in right(delta_energy_figure(runs)):
        assert axes.get_ylim()[0] < -400
    steps = steps_figure(run_of(log_of(spike)), STYLE)
    assert panel(steps, "train/delta_energy/joint").get_ylim()[0] < -400


def test_titles_of_panels_do_not_overlap():
    name = "FGSM-AT + DER, reg.weight=20.0, dataset=mnist_texture, seed"
    figure = delta_energy_figure({f"{name} {i}": FIRST for i in range(3)})
    figure.draw_without_rendering()
    one, two, _ = (axes.title.get_window_extent() for axes in left(figure))
    assert one.x1 < two.x0
    assert two.x1 < figure.bbox.x1


def test_zero_is_in_sight_even_of_energies_far_from_it():
    far = [row | {"train/delta_energy/marginal": 50.0, "train/delta_energy/joint": 51.0}
           if "train/loss" in row else row for row in FIRST]  # fmt: skip
    (axes,) = right(delta_energy_figure({"far": far}))
    low, high = axes.get_ylim()
    assert low < 0
    assert high > 51


def test_labels_say_what_is_drawn_in_which_unit(delta_figure):
    assert "[%]" in left(delta_figure)[0].get_ylabel()
    assert "PGD error" in left(delta_figure)[0].get_ylabel()
    assert "[nats]" in right(delta_figure)[-1].get_ylabel()
    assert {axes.get_xlabel() for axes in left(delta_figure)} == {"epoch"}
    (legend,) = delta_figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "PGD error",
        "dE(x): steps (thin), epoch means (thick)",
        "dE(x, y): steps (thin), epoch means (thick)",
    ]
    colours = [line.get_color() for line in legend.get_lines()]
    assert len(set(colours)) == 3


def test_one_run_and_many_runs_have_as_many_panels():
    for n in (1, 3):
        assert len(left(delta_energy_figure({f"run {i}": FIRST for i in range(n)}))) == n


def test_panels_are_two_side_by_side_and_stay_wide_enough_to_read():
    for n, size in ((2, (8.4, 3.2)), (3, (8.4, 6.0)), (4, (8.4, 6.0))):
        delta_figure = delta_energy_figure({f"run {i}": FIRST for i in range(n)})
        assert tuple(delta_figure.get_size_inches()) == pytest.approx(size)
        assert len(delta_figure.axes) == 2 * n
        labelled = [bool(axes.get_ylabel()) for axes in left(delta_figure)]
        assert labelled == [i % 2 == 0 for i in range(n)]
        labelled = [bool(axes.get_ylabel()) for axes in right(delta_figure)]
        assert labelled == [i % 2 == 1 or i == n - 1 for i in range(n)]


def test_a_title_says_the_setting(delta_figure):
    assert delta_energy_figure(RUNS, "CIFAR-10, eps 8/255").get_suptitle() == "CIFAR-10, eps 8/255"
    assert delta_figure.get_suptitle() == ""


def test_a_long_training_is_drawn_in_bins_of_its_steps():
    steps = np.arange(1.0, 50_001)
    values = np.where(steps % 100 == 0, 5.0, 1.0)
    epochs = np.floor((steps - 1) / 10_000)
    names = ("train/loss", "train/delta_energy/marginal", "train/delta_energy/joint")
    log = MetricsLog({name: Curve(steps, epochs, values) for name in names})
    (axes,) = right(delta_energy_figure({"long": log}))
    thin, mean = axes.get_lines()[:2]
    assert len(thin.get_xdata()) == 2000
    assert list(mean.get_ydata()) == pytest.approx([1.04] * 5)
    (low, high), *_ = [(v[:, 1].min(), v[:, 1].max()) for c in axes.collections
                       for v in [c.get_paths()[0].vertices]]  # fmt: skip
    assert (low, high) == (1, 5)


def test_the_page_gets_a_vector_figure_without_a_date():
    one, two = svg(delta_energy_figure(RUNS)), svg(delta_energy_figure(RUNS))
    assert one == two
    assert ElementTree.fromstring(one).tag.endswith("svg")
    assert b"<dc:date>" not in one


def test_runs_of_different_length_each_end_at_their_own_last_epoch():
    short = [row for row in SECOND if row["epoch"] < 2]
    delta_figure = delta_energy_figure({"long": FIRST, "short": short})
    ends = [curve(axes, "PGD error")[0][-1] for axes in left(delta_figure)]
    assert ends == pytest.approx([3, 2])


def test_epochs_without_validation_have_no_point():
    sparse = [row for row in FIRST if "val/acc/pgd10" not in row or row["epoch"] == 1]
    epochs, error = curve(left(delta_energy_figure({"sparse": sparse}))[0], "PGD error")
    assert epochs == pytest.approx([2])
    assert error == pytest.approx([50])


def test_a_step_that_is_not_finite_spoils_no_scale():
    broken = [dict(row) for row in FIRST]
    broken[-2]["train/delta_energy/marginal"] = float("nan")
    (axes,) = right(delta_energy_figure({"broken": broken}))
    assert np.isfinite(axes.get_ylim()).all()


@pytest.mark.slow
def test_files_of_two_runs_are_the_same_bytes_every_time(tmp_path):
    delta_figure = delta_energy_figure(RUNS)
    written = [
        save(delta_figure, tmp_path / "one"),
        save(delta_figure, tmp_path / "two"),
        save(delta_energy_figure(RUNS), tmp_path / "three"),
    ]
    assert [path.name for path in written[0]] == ["one.png", "one.pdf"]
    for png, pdf in written:
        assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert pdf.read_bytes()[:5] == b"%PDF-"
    for paths in zip(*written, strict=True):
        assert len({path.read_bytes() for path in paths}) == 1


def test_another_run_gives_another_picture(tmp_path):
    one = save(delta_energy_figure({"run": FIRST}), tmp_path / "one")
    other = save(delta_energy_figure({"run": SECOND}), tmp_path / "other")
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(one, other, strict=True))


def test_a_run_that_stops_within_an_epoch_keeps_its_epochs():
    rows_of_sign = [
        {"step": s, "epoch": (s - 1) // 4, "train/loss": 1.0, "train/delta_energy/marginal": 0.0,
         "train/delta_energy/joint": 0.0}
        for s in range(1, 11)
    ]  # fmt: skip
    rows_of_sign += [
        {"step": 4, "epoch": 0, "val/acc/pgd10": 0.5},
        {"step": 8, "epoch": 1, "val/acc/pgd10": 0},
    ]
    panel = delta_energy_figure({"run": rows_of_sign}).axes[0]
    assert list(panel.get_lines()[0].get_xdata()) == [1.0, 2.0]


def test_nothing_to_draw_is_said_in_one_line():
    with pytest.raises(ValueError, match="no training step"):
        delta_energy_figure({"run": []})


# The figure of all methods over epochs


MARGINAL, JOINT, ACCURACY = range(3)  # panels from left to right


def rows_of_seed(scale, epochs=3):
    """Two steps and a validation for each epoch; the epoch's mean dE(x) is its number x scale."""
    logged = []
    for epoch in range(epochs):
        for step, share in enumerate((0.5, 1.5)):
            marginal = scale * share * (epoch + 1)
            logged.append(
                {
                    "step": 2.0 * epoch + step + 1,
                    "epoch": float(epoch),
                    "train/loss": 1.0,
                    "train/delta_energy/marginal": marginal,
                    "train/delta_energy/joint": -2 * marginal,
                }
            )
        accuracy = scale * (epoch + 1) / 100
        logged.append({"step": 2.0 * epoch + 2, "epoch": float(epoch), "val/acc/pgd10": accuracy})
    return logged


def drawn_methods(methods):
    return training_curves.methods_figure(
        {label: [run_of(log_of(seed)) for seed in seeds] for label, seeds in methods.items()}
    )


AT, WITH_DER = MethodLabel("FGSM-AT"), MethodLabel("FGSM-AT", ("DER",))
SEEDS = {
    AT: [rows_of_seed(10), rows_of_seed(20)],
    WITH_DER: [rows_of_seed(1), rows_of_seed(2), rows_of_seed(6)],
}


@pytest.fixture
def figure_of_seeds():
    return drawn_methods(SEEDS)


def style_of(line):
    return to_hex(line.get_color()), line.get_linestyle()


def curves(axes, name, methods, *, thick):
    """The thick line of a method, or its thin ones."""
    wanted = method_styles(list(methods))[name]
    widest = max(line.get_linewidth() for line in axes.get_lines())
    return [
        np.asarray(line.get_xydata())
        for line in axes.get_lines()
        if style_of(line) == (to_hex(wanted["color"]), wanted["linestyle"])
        and (line.get_linewidth() == widest) == thick
    ]


@pytest.mark.parametrize(
    ("panel", "scale"), [(MARGINAL, 1), (JOINT, -2), (ACCURACY, 1)], ids=["dE(x)", "dE(x,y)", "PGD"]
)
@pytest.mark.parametrize(("name", "mean"), [(AT, 15), (WITH_DER, 3)])
def test_a_method_has_one_thick_line_at_the_mean_of_its_seeds(
    figure_of_seeds, panel, scale, name, mean
):
    (line,) = curves(figure_of_seeds.axes[panel], name, SEEDS, thick=True)
    assert line == pytest.approx(np.array([[e, scale * mean * e] for e in (1, 2, 3)]))


@pytest.mark.parametrize(("panel", "scale"), [(MARGINAL, 1), (JOINT, -2), (ACCURACY, 1)])
def test_each_seed_has_a_thin_line(figure_of_seeds, panel, scale):
    thin = curves(figure_of_seeds.axes[panel], WITH_DER, SEEDS, thick=False)
    assert len(thin) == 3
    for line, seed in zip(thin, (1, 2, 6), strict=True):
        assert line == pytest.approx(np.array([[e, scale * seed * e] for e in (1, 2, 3)]))


def test_one_seed_has_one_line():
    alone = {AT: [rows_of_seed(10)]}
    figure_of_seeds = drawn_methods(alone)
    assert [len(curves(axes, AT, alone, thick=True)) for axes in figure_of_seeds.axes] == [1, 1, 1]
    assert [len(curves(axes, AT, alone, thick=False)) for axes in figure_of_seeds.axes] == [0, 0, 0]


def test_accuracy_is_in_percent(figure_of_seeds):
    (line,) = curves(figure_of_seeds.axes[ACCURACY], AT, SEEDS, thick=True)
    assert line[-1, 1] == pytest.approx(45)


def test_axes_are_labelled_with_units(figure_of_seeds):
    assert {axes.get_xlabel() for axes in figure_of_seeds.axes} == {"epoch"}
    labels = [axes.get_ylabel() for axes in figure_of_seeds.axes]
    assert [label.split(",", 2)[0] for label in labels] == ["dE(x)", "dE(x", "PGD accuracy"]
    assert [label[label.index("[") :] for label in labels] == ["[nats]", "[nats]", "[%]"]


def test_the_legend_names_every_method_in_its_style(figure_of_seeds):
    (legend,) = figure_of_seeds.legends
    assert [text.get_text() for text in legend.get_texts()] == [*map(str, SEEDS), "one seed"]
    styles = method_styles(list(SEEDS))
    for line, name in zip(legend.get_lines(), SEEDS, strict=False):
        assert style_of(line) == (to_hex(styles[name]["color"]), styles[name]["linestyle"])


def test_epochs_without_validation_have_no_point_of_a_method():
    sparse = [row for row in rows_of_seed(10, 4) if "val/acc/pgd10" not in row or row["epoch"] % 2]
    (line,) = curves(drawn_methods({AT: [sparse]}).axes[ACCURACY], AT, {AT: 0}, thick=True)
    assert line[:, 0] == pytest.approx([2, 4])


def test_the_mean_ends_where_the_shortest_seed_ends():
    seeds = {AT: [rows_of_seed(20, epochs=4), rows_of_seed(10, epochs=2)]}
    axes = drawn_methods(seeds).axes[ACCURACY]
    assert curves(axes, AT, seeds, thick=True)[0][:, 0] == pytest.approx([1, 2])
    assert [len(line) for line in curves(axes, AT, seeds, thick=False)] == [4, 2]


def test_a_single_epoch_can_be_seen():
    (line,) = [
        line
        for line in drawn_methods({AT: [rows_of_seed(10, epochs=1)]}).axes[ACCURACY].get_lines()
        if list(line.get_xdata()) == [1]
    ]
    assert line.get_marker() not in ("None", "", None)


def test_no_method_is_refused():
    with pytest.raises(ValueError, match="no run to draw"):
        drawn_methods({})


@pytest.mark.slow
def test_files_of_methods_are_the_same_bytes_every_time(tmp_path):
    one, two = (save(drawn_methods(SEEDS), tmp_path / name) for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_the_legend_of_a_study_fits_into_its_figure():
    names = [
        MethodLabel(f"{attack}-AT", regularizers, settings=(("threat.eps", f"{eps}/255"),))
        for attack, regularizers, eps in itertools.product(
            ("FGSM", "RS-FGSM", "N-FGSM"), ((), ("DER",), ("GradAlign",)), (8, 16)
        )
    ]
    figure_of_seeds = drawn_methods({name: [rows_of_seed(10)] for name in names})
    figure_of_seeds.draw_without_rendering()
    (legend,) = figure_of_seeds.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure_of_seeds.bbox.x1
    for axes in figure_of_seeds.axes:
        label = axes.yaxis.label.get_window_extent()
        assert label.y1 <= figure_of_seeds.bbox.y1


OPEN, FILLED = "\n\N{WHITE DOWN-POINTING TRIANGLE}", "\n\N{BLACK DOWN-POINTING TRIANGLE}"


@pytest.fixture
def alarmed():
    rows = [{**row(s, **WORKS), "epoch": (s - 1) // 4, "train/loss": 1.0} for s in range(1, 13)]
    checks = [{**validation(s, 0.3), "epoch": s // 4 - 1} for s in (4, 8, 12)]
    return log_of([*rows, *checks, {"step": 6, "epoch": 1, "alarm/co": 0.4}])


def alarm_places(axes, sign="CO\n"):
    return [text.xy[0] for text in axes.texts if text.get_text().startswith(sign)]


def test_every_figure_of_a_training_marks_its_alarms(alarmed):
    assert 1.5 in alarm_places(delta_energy_figure({"run": alarmed}).axes[0])
    run, style = run_of(alarmed), method_styles([AT])[AT]
    for figure in (methods_figure({AT: [run]}), methods_figure({AT: [run]}, "", PANELS)):
        assert all(alarm_places(axes, OPEN) == [1.5] for axes in figure.axes)
    lost = run_of(alarmed, "collapsed", 8)
    assert alarm_places(methods_figure({AT: [lost]}).axes[0], FILLED) == [1.5]
    assert all(alarm_places(axes) == [6] for axes in steps_figure(run, style).axes)
