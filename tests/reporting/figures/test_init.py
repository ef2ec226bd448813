"""Colours and dashes of methods, and alarms in the figures of a training."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from energy_at.attacks.registry import FROM_LIBRARY, OWN
from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import (
    ATTACK_STYLES,
    LINE_STYLES,
    METHOD_COLORS,
    SWEPT,
    bins_of,
    entitle,
    method_styles,
    save,
    show_spikes,
    two_lines,
)
from energy_at.reporting.figures.training_curves import (
    PANELS,
    delta_energy_figure,
    methods_figure,
    steps_figure,
)
from tests.helpers.logs import WORKS, log_of, row, run_of, validation

AT, PGD_AT = MethodLabel("FGSM-AT"), MethodLabel("PGD-AT")


@pytest.fixture
def crowd():
    """Alarms close to each other: of one run, of a second seed, and of the other kind."""
    steps = [{**row(s, **WORKS), "epoch": (s - 1) // 40, "train/loss": 1.0} for s in range(1, 481)]
    checks = [{**validation(s, 0.3), "epoch": s // 40 - 1} for s in range(40, 481, 40)]
    alarms = [{"step": s, "epoch": 5, "alarm/co": 0.4} for s in (200, 236, 238, 300)]
    return log_of([*steps, *checks, *alarms, {"step": 205, "epoch": 5, "alarm/ro": 0.2}])


@pytest.mark.slow
def test_labels_of_alarms_do_not_overlap(crowd):
    style = method_styles([AT])[AT]
    run, collapsed = run_of(crowd), run_of(crowd, "collapsed", 210)
    overfitted = run_of(crowd, "overfitted", 220)
    lost = {AT: [collapsed, overfitted], PGD_AT: [collapsed, overfitted]}
    for figure in (delta_energy_figure({"one": crowd, "two": crowd}),
                   methods_figure({AT: [run, run], PGD_AT: [run]}),
                   steps_figure(run, style),
                   steps_figure(collapsed, style),
                   methods_figure(lost),
                   methods_figure(lost, "", PANELS)):  # fmt: skip
        figure.draw_without_rendering()
        labels = [
            t for axes in figure.axes for t in axes.texts if t.get_text().strip()[:2].isalpha()
        ]
        boxes = [text.get_window_extent() for text in labels]
        assert len(boxes) >= 3 * len([axes for axes in figure.axes if axes.texts])
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_every_alarm_has_a_triangle(crowd):
    axes = steps_figure(run_of(crowd), method_styles([AT])[AT]).axes[0]
    found = [(text.xy[0], text.get_text()[:-2]) for text in axes.texts]
    assert found == [(200, "CO"), (236, ""), (238, ""), (300, "CO"), (205, "RO")]


# Styles

REGULARIZERS = ((), ("DER",), ("GradAlign",), ("ELLE",), ("ELLE-A",), ("AAER",))
BASES = ("FGSM-AT", "RS-FGSM-AT", "N-FGSM-AT", "TRADES")


def der(*settings, **more):
    return MethodLabel("FGSM-AT", ("DER",), settings=settings, **more)


def test_regularizers_are_distinguished_by_colour():
    labels = [MethodLabel("FGSM-AT", reg) for reg in REGULARIZERS] + [
        MethodLabel("FGSM-AT", awp=True)
    ]
    styles = method_styles(labels)
    assert len({found["color"] for found in styles.values()}) == len(labels)
    assert {found["linestyle"] for found in styles.values()} == {"-"}


def test_a_regularizer_keeps_its_colour_in_any_order_and_on_any_base():
    labels = [MethodLabel(base, reg) for base in BASES for reg in REGULARIZERS]
    forwards, backwards = method_styles(labels), method_styles(labels[::-1])
    for reg in REGULARIZERS:
        colours = {
            s[MethodLabel(base, reg)]["color"] for s in (forwards, backwards) for base in BASES
        }
        assert colours == {METHOD_COLORS[reg[0] if reg else ""]}


def test_a_setting_in_the_name_changes_no_colour():
    for setting in (("threat.eps", "16/255"), ("trainer.limit_train_batches", "3")):
        assert method_styles([der(setting)])[der(setting)]["color"] == METHOD_COLORS["DER"]
        plain = MethodLabel("FGSM-AT", settings=(setting,))
        assert method_styles([plain])[plain]["color"] == METHOD_COLORS[""]


def test_base_methods_are_distinguished_by_dashes():
    styles = method_styles([MethodLabel(base, reg) for reg in ((), ("DER",)) for base in BASES])
    dashes = [styles[MethodLabel(base)]["linestyle"] for base in BASES]
    assert len(set(map(str, dashes))) == len(BASES) <= len(LINE_STYLES)
    assert [styles[MethodLabel(base, ("DER",))]["linestyle"] for base in BASES] == dashes


@pytest.mark.parametrize(
    "labels",
    [
        [MethodLabel("FGSM-AT", settings=(("threat.eps", f"{eps}/255"),)) for eps in (8, 16)],
        [der(("reg.weight", weight)) for weight in ("1", "20")],
        [der(), MethodLabel("FGSM-AT", ("DER", "GradAlign"))],
        [MethodLabel("PGD-AT", ("DER",), awp=awp) for awp in (False, True)],
        [MethodLabel(base) for base in ("PGD-AT", "TRADES", "MART (PGD)", "WEAT-adv", "WEAT-nat")],
        [der(run="seed 0"), der(run="seed 1"), der(status="collapsed")],
        [der(("reg.weight", str(w)), ("reg.gamma", str(w / 10))) for w in range(8)],
        [der(("reg.weight", str(w)), status=s) for w in range(8) for s in ("", "collapsed")],
    ],
)
def test_no_two_methods_are_drawn_alike(labels):
    styles = [tuple(map(str, found.values())) for found in method_styles(labels).values()]
    assert len(set(styles)) == len(labels)


# A swept number


def test_a_swept_number_has_a_sequential_colour_map_in_its_order():
    weights = ("5", "1", "20", "0.5")
    styles = method_styles([AT, *(der(("reg.weight", weight)) for weight in weights)])
    light = [
        sum(to_rgb(styles[der(("reg.weight", w))]["color"])) for w in sorted(weights, key=float)
    ]
    assert light == sorted(light)
    assert len(set(light)) == len(weights)
    assert {style["linestyle"] for style in styles.values()} == {"-"}
    assert styles[AT]["color"] == METHOD_COLORS[""]
    ends = [styles[der(("reg.weight", w))]["color"] for w in ("0.5", "20")]
    assert ends[0] == to_hex(mpl.colormaps["viridis"](0.15))
    assert sum(to_rgb(ends[1])) < 2  # readable on white


def test_a_fraction_is_a_number_and_families_are_distinguished_by_dashes():
    radii = [("threat.eps", f"{eps}/255") for eps in (16, 4, 8)]
    styles = method_styles(
        [f(r) for f in (der, lambda r: MethodLabel("FGSM-AT", settings=(r,))) for r in radii]
    )
    for radius in radii:
        a, b = styles[der(radius)], styles[MethodLabel("FGSM-AT", settings=(radius,))]
        assert a["color"] == b["color"]
        assert a["linestyle"] != b["linestyle"]


def test_fewer_values_than_a_sweep_keep_the_colour_of_their_method():
    labels = [der(("reg.weight", str(weight))) for weight in range(SWEPT - 1)]
    assert {s["color"] for s in method_styles(labels).values()} == {METHOD_COLORS["DER"]}


def test_a_weight_of_zero_counts_as_a_value_of_the_sweep():
    labels = [AT, der(("reg.weight", "1")), der(("reg.weight", "5"))]
    colors = [style["color"] for style in method_styles(labels).values()]
    ends = [to_hex(mpl.colormaps["viridis"](place)) for place in (0.15, 0.83)]
    assert colors == [METHOD_COLORS[""], *ends]


def test_a_stem_may_have_a_dot(tmp_path):
    paths = save(Figure(), tmp_path / "eps_0.3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eps_0.3.pdf", "eps_0.3.png"]
    assert {path.suffix for path in paths} == {".png", ".pdf"}


def test_every_attack_has_a_style_of_its_own():
    assert set(ATTACK_STYLES) == {*OWN, *FROM_LIBRARY}
    colors = {color for color, _ in ATTACK_STYLES.values()}
    assert len(set(ATTACK_STYLES.values())) == len(colors) == len(ATTACK_STYLES)


# Limits, titles, bins


def test_a_spike_is_shown_on_a_logarithmic_axis_and_leaves_the_rest_readable():
    figure = Figure()
    calm, spiking = figure.subplots(1, 2)
    usual = np.sin(np.arange(1000) / 10)
    for axes, values in ((calm, usual), (spiking, np.append(usual, [-300.0, 250.0]))):
        axes.plot(values)
        logarithmic = show_spikes(axes, [values])
        low, high = axes.get_ylim()
        assert low < values.min()
        assert high > values.max()
        assert (axes.get_yscale() == "symlog") == logarithmic == (axes is spiking)
    bottom, top = spiking.transData.transform([(0, -1), (0, 1)])[:, 1]
    assert (top - bottom) / spiking.bbox.height > 0.3


def test_values_without_size_have_a_linear_axis():
    axes = Figure().subplots()
    assert not show_spikes(axes, [np.zeros(5), np.array([]), np.array([np.nan])])


def test_a_title_has_two_lines_at_most_and_says_where_it_was_cut():
    assert two_lines("one two", 20) == "one two"
    long = two_lines(" ".join(["word"] * 50), 40)
    assert long.count("\n") == 1
    assert all(len(line) <= 40 for line in long.splitlines())
    assert long.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_a_longer_title_is_set_in_smaller_letters_before_it_is_cut():
    sizes = {}
    for words in (5, 30, 35, 100):
        figure = Figure(figsize=(5.2, 3))
        entitle(figure, " ".join(["word$"] * words))
        (title,) = figure.texts
        sizes[words] = title.get_fontsize()
        assert title.get_text().endswith("\N{HORIZONTAL ELLIPSIS}") == (words == 100)
        assert title.get_text().count("\n") <= 1
        figure.canvas.draw()  # in which a $ is no mathematics
        assert title.get_window_extent().width <= figure.bbox.width
    assert sizes == {5: 9, 30: 7, 35: 6, 100: 6}


@pytest.mark.parametrize(("n", "bins"), [(1, 8), (128, 10), (1000, 20), (10**6, 40)])
def test_bins_follow_the_number_of_values(n, bins):
    assert bins_of(n) == bins
