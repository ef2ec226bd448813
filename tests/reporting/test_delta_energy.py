"""The figure of two runs: what is drawn is what was logged."""

from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from energy_at.reporting.figures import save, svg, training_curves
from energy_at.runs.metrics_log import Curve, MetricsLog
from tests.helpers.logs import log_of

STEPS, EPOCHS = 4, 3  # steps of an epoch, epochs


def rows(sign):
    """Rows as a training logs them: its steps counted from 1, then the validation of the epoch."""
    logged = []
    for epoch in range(EPOCHS):
        for step in range(epoch * STEPS + 1, (epoch + 1) * STEPS + 1):
            energies = {"marginal": sign * step**2 / 10, "joint": -sign * step / 2}
            row = {"step": float(step), "epoch": float(epoch), "lr": 0.1, "train/loss": 1 / step}
            logged.append(row | {f"train/delta_energy/{k}": v for k, v in energies.items()})
        val = {"val/acc/clean": 0.9, "val/acc/pgd": 0.25 * (epoch + 1), "val/acc/fgsm": 0.8}
        logged.append({"step": float((epoch + 1) * STEPS), "epoch": float(epoch)} | val)
    return logged


def delta_energy_figure(runs, title=""):
    logs = {name: log_of(run) for name, run in runs.items()}
    return training_curves.delta_energy_figure(logs, title)


RUNS = {"fgsm": rows(1.0), "fgsm + DER": rows(-0.5)}
FIRST, SECOND = RUNS.values()


@pytest.fixture
def figure():
    return delta_energy_figure(RUNS)


def left(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def right(figure):
    return [axes for axes in figure.axes if not axes.get_title()]


def curve(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label().startswith(label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_there_is_a_panel_for_each_run_with_two_axes(figure):
    assert isinstance(figure, Figure)
    assert [axes.get_title() for axes in left(figure)] == list(RUNS)
    assert len(right(figure)) == 2
    for panel, twin in zip(left(figure), right(figure), strict=True):
        assert panel.get_position().bounds == twin.get_position().bounds


def test_pgd_error_is_drawn_after_each_epoch(figure):
    for axes in left(figure):
        epochs, error = curve(axes, "PGD error")
        assert epochs == pytest.approx([1, 2, 3])
        assert error == pytest.approx([75, 50, 25])


def test_delta_energies_are_averaged_over_each_epoch(figure):
    # the means of n^2 / 10 over n = 1..4, 5..8, 9..12, and those of -n / 2
    marginal, joint = [0.75, 4.35, 11.15], [-1.25, -3.25, -5.25]
    for axes, sign in zip(right(figure), (1.0, -0.5), strict=True):
        epochs, means = curve(axes, "dE(x) ")
        assert epochs == pytest.approx([1, 2, 3])
        assert means == pytest.approx([sign * mean for mean in marginal])
        epochs, means = curve(axes, "dE(x, y) ")
        assert epochs == pytest.approx([1, 2, 3])
        assert means == pytest.approx([sign * mean for mean in joint])


def test_every_step_is_drawn_under_its_epoch(figure):
    for axes, logged in zip(right(figure), RUNS.values(), strict=True):
        steps = [row for row in logged if "train/loss" in row]
        x = np.arange(1, 13) / 4
        drawn = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
        for name in ("train/delta_energy/marginal", "train/delta_energy/joint"):
            points = np.stack([x, [row[name] for row in steps]], axis=1)
            assert any(len(d) == 12 and np.allclose(d, points) for d in drawn)


def test_the_panels_share_their_scales(figure):
    assert left(figure)[0].get_ylim() == left(figure)[1].get_ylim()
    low, high = left(figure)[0].get_ylim()
    assert low < 0
    assert high > 100
    assert right(figure)[0].get_ylim() == right(figure)[1].get_ylim()
    low, high = right(figure)[0].get_ylim()
    assert low < -5.575  # the lowest and the highest mean of both runs
    assert high > 11.15


def test_zero_is_in_sight_even_of_energies_far_from_it():
    far = [row | {"train/delta_energy/marginal": 50.0, "train/delta_energy/joint": 51.0}
           if "train/loss" in row else row for row in FIRST]  # fmt: skip
    (axes,) = right(delta_energy_figure({"far": far}))
    low, high = axes.get_ylim()
    assert low < 0
    assert high > 51


def test_labels_say_what_is_drawn_in_which_unit(figure):
    assert "[%]" in left(figure)[0].get_ylabel()
    assert "PGD error" in left(figure)[0].get_ylabel()
    assert "[nats]" in right(figure)[-1].get_ylabel()
    assert {axes.get_xlabel() for axes in left(figure)} == {"epoch"}
    (legend,) = figure.legends
    assert [text.get_text().split(" (t")[0].split(" (h")[0] for text in legend.get_texts()] == [
        "PGD error",
        "dE(x)",
        "dE(x, y)",
    ]
    colours = [line.get_color() for line in legend.get_lines()]
    assert len(set(colours)) == 3


def test_one_run_and_many_runs_have_as_many_panels():
    for n in (1, 3):
        assert len(left(delta_energy_figure({f"run {i}": FIRST for i in range(n)}))) == n


def test_panels_are_two_side_by_side_and_stay_wide_enough_to_read():
    for n, size in ((2, (8.4, 3.2)), (3, (8.4, 6.0)), (4, (8.4, 6.0))):
        figure = delta_energy_figure({f"run {i}": FIRST for i in range(n)})
        assert tuple(figure.get_size_inches()) == pytest.approx(size)
        assert len(figure.axes) == 2 * n
        labelled = [bool(axes.get_ylabel()) for axes in left(figure)]
        assert labelled == [i % 2 == 0 for i in range(n)]
        labelled = [bool(axes.get_ylabel()) for axes in right(figure)]
        assert labelled == [i % 2 == 1 or i == n - 1 for i in range(n)]


def test_a_title_says_the_setting(figure):
    assert delta_energy_figure(RUNS, "CIFAR-10, eps 8/255").get_suptitle() == "CIFAR-10, eps 8/255"
    assert figure.get_suptitle() == ""


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
    figure = delta_energy_figure({"long": FIRST, "short": short})
    ends = [curve(axes, "PGD error")[0][-1] for axes in left(figure)]
    assert ends == pytest.approx([3, 2])


def test_epochs_without_validation_have_no_point():
    sparse = [row for row in FIRST if "val/acc/pgd" not in row or row["epoch"] == 1]
    epochs, error = curve(left(delta_energy_figure({"sparse": sparse}))[0], "PGD error")
    assert epochs == pytest.approx([2])
    assert error == pytest.approx([50])


def test_a_step_that_is_not_finite_spoils_no_scale():
    broken = [dict(row) for row in FIRST]
    broken[-2]["train/delta_energy/marginal"] = float("nan")
    (axes,) = right(delta_energy_figure({"broken": broken}))
    assert np.isfinite(axes.get_ylim()).all()


def test_files_are_the_same_bytes_every_time(tmp_path):
    figure = delta_energy_figure(RUNS)
    written = [
        save(figure, tmp_path / "one"),
        save(figure, tmp_path / "two"),
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


def test_a_stem_may_have_a_dot(tmp_path):
    paths = save(delta_energy_figure({"run": FIRST}), tmp_path / "eps_0.3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eps_0.3.pdf", "eps_0.3.png"]
    assert {path.suffix for path in paths} == {".png", ".pdf"}


def test_a_run_that_stops_within_an_epoch_keeps_its_epochs():
    rows = [
        {"step": s, "epoch": (s - 1) // 4, "train/loss": 1.0, "train/delta_energy/marginal": 0.0,
         "train/delta_energy/joint": 0.0}
        for s in range(1, 11)
    ]  # fmt: skip
    rows += [{"step": 4, "epoch": 0, "val/acc/pgd": 0.5}, {"step": 8, "epoch": 1, "val/acc/pgd": 0}]
    panel = delta_energy_figure({"run": rows}).axes[0]
    assert list(panel.get_lines()[0].get_xdata()) == [1.0, 2.0]


def test_nothing_to_draw_is_said_in_one_line():
    with pytest.raises(ValueError, match="no training step"):
        delta_energy_figure({"run": []})
