"""The figure of all methods over epochs: what is drawn is what was logged."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import method_styles, save, training_curves
from tests.helpers.logs import log_of, run_of

MARGINAL, JOINT, ACCURACY = range(3)  # panels from left to right


def rows(scale, epochs=3):
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
        logged.append({"step": 2.0 * epoch + 2, "epoch": float(epoch), "val/acc/pgd": accuracy})
    return logged


def methods_figure(methods):
    return training_curves.methods_figure(
        {label: [run_of(log_of(seed)) for seed in seeds] for label, seeds in methods.items()}
    )


AT, DER = MethodLabel("FGSM-AT"), MethodLabel("FGSM-AT", ("DER",))
SEEDS = {AT: [rows(10), rows(20)], DER: [rows(1), rows(2), rows(6)]}


@pytest.fixture
def figure():
    return methods_figure(SEEDS)


def style(line):
    return to_hex(line.get_color()), line.get_linestyle()


def curves(axes, name, methods, *, thick):
    """The thick line of a method, or its thin ones."""
    wanted = method_styles(list(methods))[name]
    widest = max(line.get_linewidth() for line in axes.get_lines())
    return [
        np.asarray(line.get_xydata())
        for line in axes.get_lines()
        if style(line) == (to_hex(wanted["color"]), wanted["linestyle"])
        and (line.get_linewidth() == widest) == thick
    ]


@pytest.mark.parametrize(
    ("panel", "scale"), [(MARGINAL, 1), (JOINT, -2), (ACCURACY, 1)], ids=["dE(x)", "dE(x,y)", "PGD"]
)
@pytest.mark.parametrize(("name", "mean"), [(AT, 15), (DER, 3)])
def test_a_method_has_one_thick_line_at_the_mean_of_its_seeds(figure, panel, scale, name, mean):
    (line,) = curves(figure.axes[panel], name, SEEDS, thick=True)
    assert line == pytest.approx(np.array([[e, scale * mean * e] for e in (1, 2, 3)]))


@pytest.mark.parametrize(("panel", "scale"), [(MARGINAL, 1), (JOINT, -2), (ACCURACY, 1)])
def test_each_seed_has_a_thin_line(figure, panel, scale):
    thin = curves(figure.axes[panel], DER, SEEDS, thick=False)
    assert len(thin) == 3
    for line, seed in zip(thin, (1, 2, 6), strict=True):
        assert line == pytest.approx(np.array([[e, scale * seed * e] for e in (1, 2, 3)]))


def test_one_seed_has_one_line():
    alone = {AT: [rows(10)]}
    figure = methods_figure(alone)
    assert [len(curves(axes, AT, alone, thick=True)) for axes in figure.axes] == [1, 1, 1]
    assert [len(curves(axes, AT, alone, thick=False)) for axes in figure.axes] == [0, 0, 0]


def test_accuracy_is_in_percent(figure):
    (line,) = curves(figure.axes[ACCURACY], AT, SEEDS, thick=True)
    assert line[-1, 1] == pytest.approx(45)


def test_axes_are_labelled_with_units(figure):
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert [label.split(",", 2)[0] for label in labels] == ["dE(x)", "dE(x", "PGD accuracy"]
    assert [label[label.index("[") :] for label in labels] == ["[nats]", "[nats]", "[%]"]


def test_the_legend_names_every_method_in_its_style(figure):
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(map(str, SEEDS))
    styles = method_styles(list(SEEDS))
    for line, name in zip(legend.get_lines(), SEEDS, strict=True):
        assert style(line) == (to_hex(styles[name]["color"]), styles[name]["linestyle"])


def test_epochs_without_validation_have_no_point():
    sparse = [row for row in rows(10, 4) if "val/acc/pgd" not in row or row["epoch"] % 2]
    (line,) = curves(methods_figure({AT: [sparse]}).axes[ACCURACY], AT, {AT: 0}, thick=True)
    assert line[:, 0] == pytest.approx([2, 4])


def test_the_mean_ends_where_the_shortest_seed_ends():
    seeds = {AT: [rows(20, epochs=4), rows(10, epochs=2)]}
    axes = methods_figure(seeds).axes[ACCURACY]
    assert curves(axes, AT, seeds, thick=True)[0][:, 0] == pytest.approx([1, 2])
    assert [len(line) for line in curves(axes, AT, seeds, thick=False)] == [4, 2]


def test_a_single_epoch_can_be_seen():
    (line,) = [
        line
        for line in methods_figure({AT: [rows(10, epochs=1)]}).axes[ACCURACY].get_lines()
        if list(line.get_xdata()) == [1]
    ]
    assert line.get_marker() not in ("None", "", None)


def test_no_method_is_refused():
    with pytest.raises(ValueError, match="no run to draw"):
        methods_figure({})


def test_files_are_the_same_bytes_every_time(tmp_path):
    one, two = (save(methods_figure(SEEDS), tmp_path / name) for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_the_legend_of_a_study_fits_into_its_figure():
    names = [
        MethodLabel(f"{attack}-AT", regularizers, settings=(("threat.eps", f"{eps}/255"),))
        for attack, regularizers, eps in itertools.product(
            ("FGSM", "RS-FGSM", "N-FGSM"), ((), ("DER",), ("GradAlign",)), (8, 16)
        )
    ]
    figure = methods_figure({name: [rows(10)] for name in names})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    for axes in figure.axes:
        label = axes.yaxis.label.get_window_extent()
        assert label.y1 <= figure.bbox.y1
