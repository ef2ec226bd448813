"""Logs by column: the same as their rows, in bins and epochs, from files as they may be."""

import csv
import math
import time

import numpy as np
import pytest

from energy_at.runs.metrics_log import (
    AT_ONCE,
    Curve,
    LogReader,
    MetricsLog,
    columns_file,
    read_metrics_log,
    require_rows,
)
from energy_at.training.loggers import MetricsCSV
from tests.helpers.logs import log_of

ROWS = [
    {"step": 1.0, "epoch": 0.0, "train/loss": 2.0, "lr": 0.1},
    {"step": 2.0, "epoch": 0.0, "train/loss": 1.0, "lr": 0.2},
    {"step": 2.0, "epoch": 0.0, "val/acc/pgd10": 0.25},
    {"step": 3.0, "epoch": 1.0, "train/loss": 0.5, "lr": 0.3},
]
TEXT = """\
step,epoch,train/loss,lr,val/acc/pgd10
1,0,2.0,0.1,
2,0,1.0,0.2,
2,0,,,0.25
3,1,0.5,0.3,
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def written(path, text):
    path.write_text(text)
    return read_metrics_log(path)


def as_lists(curve):
    return list(curve.steps), list(curve.epochs), list(curve.values)


@pytest.mark.parametrize("source", ["rows", "file"])
def test_a_curve_is_the_rows_that_hold_its_metric(path, source):
    log = log_of(ROWS) if source == "rows" else written(path, TEXT)
    assert as_lists(log["train/loss"]) == ([1, 2, 3], [0, 0, 1], [2.0, 1.0, 0.5])
    assert as_lists(log["val/acc/pgd10"]) == ([2], [0], [0.25])
    assert as_lists(log["train/other"]) == ([], [], [])
    assert log.rows("val/acc/pgd10") == [{"step": 2, "val/acc/pgd10": 0.25}]
    assert log.steps_per_epoch == 2


def test_values_that_are_not_finite_are_there(path):
    values = written(path, "step,a\n1,nan\n2,inf\n3,-inf\n4,\n")["a"].values
    assert np.isnan(values[0])
    assert list(values[1:]) == [np.inf, -np.inf]


@pytest.mark.parametrize("rows", [1, 999, 1000, 1001, 2500])
def test_files_of_any_length_come_back(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "epoch", "a", "b"])
        writer.writerows([i, i // 10, i / 8, i if i % 3 == 0 else ""] for i in range(rows))
    log = read_metrics_log(path)
    assert list(log["a"].values) == [i / 8 for i in range(rows)]
    assert list(log["b"].steps) == list(log["b"].values) == list(range(0, rows, 3))


@pytest.mark.parametrize(
    ("text", "steps"),
    [("", []), ("step,epoch,a\n", []), ("step,epoch,a\n1,0,2.0\n2,0,3.5\n3,1", [1, 2]),
     ("step,epoch,a\n1,0,2.0\n\n2,0,3.5\n", [1, 2])],
    ids=["empty", "header", "cut off", "blank line"],
)  # fmt: skip
def test_a_file_that_is_being_written_is_read_as_far_as_it_goes(path, text, steps):
    assert list(written(path, text)["a"].steps) == steps


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step,a\n1,good\n", "line 2: column a holds 'good', which is no number"),
        ("step,a\n1,1.0\nx,1.0\n", "line 3: column step holds 'x', which is no number"),
        ("step,a\n1,1.0.0\n", "line 2: column a holds '1.0.0'"),
        ("step,a\n1,1_0\n", "line 2: column a holds '1_0'"),
        ("step,a\n1,\0\0\n", "line 2: column a holds"),
        ("step,a\n1,1.0\n2,1.0,7\n", "line 3: it has 3 cells for 2 columns"),
        ("step,a\n1,1.0\n2\n", "line 3: it has 1 cells for 2 columns"),
        ("step,a\n1,1.0\nstep,a\n", "line 3: column step holds 'step'"),
        ("step,a\ninf,1.0\n", "line 2: column step holds 'inf'"),
        ("step,a\n,1.0\n", "line 2: column step holds ''"),
        ("step,a,a\n1,1.0,1.0\n", "line 1: it names a column twice"),
        ("epoch,a\n0,1.0\n", "line 1: it names no column step"),
        ("1,1.0\n2,1.0\n", "line 1: it names no column step"),
        ("step,a\r\n1,1.0\r\n", "line 1: it ends as on another system"),
        ("step,a\n1,1.0\n2,1.0\r\n", "line 3: it ends as on another system"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(path, text, said):
    with pytest.raises(ValueError, match="is damaged") as caught:
        written(path, text)
    assert f"{path} is damaged: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("step,epoch,val/acc/pgd1", "it names a column val/acc/pgd1, not val/acc/pgd10"),
        ("step,epoc,val/acc/pgd10", "it names a column epoc, not epoch"),
        ("step,epoch,val/acc/fgsm", "it names a column val/acc/fgsm, not val/acc/pgd10"),
        ("step,val/acc/pgd10,epoch", "it names a column val/acc/pgd10, not epoch"),
        ("step,epoch,val/acc/pgd10,late", "it names a column late, which was never logged"),
    ],
)
def test_a_column_that_was_written_by_another_name_is_damage(path, cut, said):
    logger = MetricsCSV(path)
    logger.log_metrics({"epoch": 0, "val/acc/pgd10": 0.25}, step=1)
    logger.save()
    header, rows = path.read_text().split("\n", 1)
    assert header == "step,epoch,val/acc/pgd10"
    if cut.endswith("late"):
        rows = rows.replace("\n", ",0.5\n")
    path.write_text(f"{cut}\n{rows}")
    with pytest.raises(ValueError, match="is damaged") as caught:
        read_metrics_log(path)
    assert f"{path} is damaged: line 1: {said}" in str(caught.value)
    with pytest.raises(ValueError, match="is damaged") as resumed:
        require_rows(path, 1, 1)
    assert str(resumed.value) == str(caught.value)


def test_columns_that_are_noted_but_not_yet_written_are_no_damage(path):
    """The writer was killed between the two."""
    logger = MetricsCSV(path)
    logger.log_metrics({"epoch": 0}, step=1)
    logger.save()
    written = path.read_bytes()
    logger.log_metrics({"epoch": 0, "late": 1.0}, step=2)
    logger.save()
    path.write_bytes(written)
    assert list(read_metrics_log(path).curves) == ["step", "epoch"]
    columns_file(path).unlink()  # as of a log that another program wrote
    assert list(read_metrics_log(path).curves) == ["step", "epoch"]


def test_epoch_means_are_by_epoch_from_1():
    assert log_of(ROWS)["train/loss"].epoch_means() == {1: 1.5, 2: 0.5}


def test_rows_without_epoch_are_in_no_mean():
    assert log_of([{"step": 1.0, "a": 5.0}])["a"].epoch_means() == {}


def test_few_rows_are_each_their_own_bin():
    curve = log_of(ROWS)["train/loss"]
    bins = curve.binned(10)
    assert list(bins.steps) == [1, 2, 3]
    for values in (bins.low, bins.mean, bins.high):
        assert list(values) == [2.0, 1.0, 0.5]


def test_bins_hold_minimum_mean_and_maximum():
    steps = np.arange(1.0, 7)
    bins = Curve(steps, steps, np.array([3.0, 1.0, 2.0, 8.0, 4.0, 6.0])).binned(2)
    assert list(bins.steps) == [2, 5]
    assert list(bins.low) == [1, 4]
    assert list(bins.mean) == [2, 6]
    assert list(bins.high) == [3, 8]


def test_bins_leave_no_row_out_and_are_as_many_as_asked():
    steps = np.arange(1.0, 10_008)
    bins = Curve(steps, steps, steps).binned(500)
    assert len(bins.steps) == 500
    assert (bins.low[0], bins.high[-1]) == (1, 10_007)
    assert list(bins.low[1:]) == list(bins.high[:-1] + 1)


def test_no_row_makes_no_bin():
    assert len(MetricsLog({})["a"].binned(10).steps) == 0


def test_no_training_step_is_said():
    with pytest.raises(ValueError, match="no training step"):
        log_of(ROWS[2:3]).steps_per_epoch  # noqa: B018


def test_means_are_over_the_training_steps_of_the_last_epoch():
    rows = [
        {"step": 1.0, "epoch": 0.0, "train/loss": 100.0, "a": 100.0},
        {"step": 2.0, "epoch": 1.0, "train/loss": 1.0, "a": 1.0, "b": 7.0},
        {"step": 3.0, "epoch": 1.0, "train/loss": 2.0, "a": 6.0},
        {"step": 3.0, "epoch": 1.0, "val/acc/pgd10": 1000.0},
    ]
    log = log_of(rows)
    loss, a, b, c = map(log.last_epoch_mean, ["train/loss", "a", "b", "c"])
    assert (loss, a, b) == (1.5, 3.5, 7)
    assert math.isnan(c)


def test_means_of_no_training_step_are_nan():
    assert math.isnan(MetricsLog({}).last_epoch_mean("a"))
    validation = [{"step": 0.0, "epoch": 0.0, "val/acc/pgd10": 1.0}]
    assert math.isnan(log_of(validation).last_epoch_mean("a"))


@pytest.mark.slow
def test_a_million_steps_are_read_within_half_a_minute(path):
    names = ["step", "epoch", *(f"train/{i}" for i in range(16)), *(f"val/{i}" for i in range(13))]
    cells = ",".join(f"{i / 7:.7g}" for i in range(16)) + "," * 13
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        file.writelines(f"{step},{step // 1000},{cells}\n" for step in range(1_000_000))
    start = time.process_time()
    log = read_metrics_log(path)
    assert time.process_time() - start < 30
    assert len(log["train/15"]) == 1_000_000


def test_alarms_are_read_in_their_order():
    both = log_of([{"step": 9.0, "alarm/co": 0.3}, {"step": 5.0, "alarm/ro": 0.2}])
    assert both.alarms == [("RO", 5), ("CO", 9)]


# A log that grows: every row is read once, whatever its writer does to the file


@pytest.fixture
def growing(tmp_path):
    return MetricsCSV(tmp_path / "metrics.csv")


def write(log, *steps, **columns):
    for step in steps:
        log.log_metrics({"loss": step / 8, **columns}, step=step)
    log.save()


def steps(reader):
    return list(reader.log()["step"].values)


def test_rows_are_read_once_and_in_their_order(growing):
    reader = LogReader(growing.path)
    assert (reader.read(), steps(reader)) == (False, [])  # no file yet
    write(growing, 1, 2)
    assert (reader.read(), steps(reader)) == (True, [1, 2])
    assert (reader.read(), steps(reader)) == (False, [1, 2])
    write(growing, 3)
    assert (reader.read(), reader.restarted) == (True, False)
    assert steps(reader) == [1, 2, 3]
    assert list(reader.log()["loss"].values) == [0.125, 0.25, 0.375]


def test_what_was_read_is_not_read_again(growing):
    write(growing, *range(1000))
    reader = LogReader(growing.path)
    reader.read()
    place = reader._place
    write(growing, 1000)
    assert growing.path.stat().st_size > place > 5000
    with growing.path.open("r+b") as file:  # spoilt where nobody may look any more
        file.seek(20)
        file.write(b"x" * 1000)
    assert reader.read()
    assert steps(reader) == list(range(1001))


def test_a_line_that_is_not_whole_waits(growing):
    write(growing, 1)
    reader = LogReader(growing.path)
    with growing.path.open("a") as file:
        file.write("2,0.")
    reader.read()
    assert steps(reader) == [1]
    with growing.path.open("a") as file:
        file.write("25\n")
    reader.read()
    assert list(reader.log()["loss"].values) == [0.125, 0.25]


def test_a_new_column_or_a_resume_begins_restarts(growing):
    reader = LogReader(growing.path)
    write(growing, 1, 2)
    reader.read()
    write(growing, 3, gap=0.5)
    assert (reader.read(), reader.restarted) == (True, True)
    assert steps(reader) == [1, 2, 3]
    assert as_lists(reader.log()["gap"])[::2] == ([3], [0.5])  # the others are empty cells
    growing.truncate(1)
    write(growing, 2)
    assert (reader.read(), reader.restarted) == (True, True)
    assert steps(reader) == [1, 2]


def test_a_long_log_is_read_in_parts(growing):
    write(growing, *range(1000))
    reader, counts = LogReader(growing.path), [0]
    for _ in range(1000):
        reader.read(most=500)
        counts.append(len(steps(reader)))
        if not reader.behind:
            break
    assert np.diff(counts).max() < 100
    assert steps(reader) == list(range(1000))


@pytest.mark.parametrize("cells", [b"1,0.5\n2,abc\n", b"1,\xa2\xff\n", b"1,0.5\n\0\0"])
def test_a_cell_without_a_number_is_damage(growing, cells):
    growing.path.write_bytes(b"step,loss\n" + cells)
    with pytest.raises(ValueError, match=r"metrics.csv is damaged: line [23]: "):
        LogReader(growing.path).read()


def test_damage_behind_what_was_read_is_named_with_its_line(growing):
    write(growing, 1, 2, 3)
    reader = LogReader(growing.path)
    reader.read()
    with growing.path.open("ab") as file:
        file.write(b"junk\n")
    with pytest.raises(ValueError, match="line 5: it has 1 cells"):
        reader.read()


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda text: text[:-1], "of the 3 rows that were logged until the last checkpoint, 2 are"),
        (lambda text: text[: len(text) // 2], "of the 3 rows"),
        (lambda _: b"", "0 are left"),
        (lambda text: text.split(b"\n", 1)[1], "line 1: it names no column step"),
        (lambda text: text.replace(b"\n2,", b"\n\xff,"), "line 3: it is not text"),
        (lambda text: text.replace(b"\n", b"\r\n"), "line 1: it ends as on another system"),
    ],
)
def test_rows_that_a_checkpoint_knows_are_missed(growing, kept, said):
    write(growing, 1, 2, 3)
    require_rows(growing.path, 3, 3)
    growing.path.write_bytes(kept(growing.path.read_bytes()))
    with pytest.raises(ValueError, match="is damaged") as caught:
        require_rows(growing.path, 3, 3)
    assert said in str(caught.value)


def test_rows_behind_a_checkpoint_may_be_damaged(growing):
    write(growing, 1, 2, 3)
    with growing.path.open("ab") as file:
        file.write(b"4,0.\xff")
    require_rows(growing.path, 3, 3)
    growing.truncate(3)
    assert list(read_metrics_log(growing.path)["loss"].steps) == [1, 2, 3]


def test_a_row_that_was_lost_in_the_middle_is_missed(growing):
    write(growing, 1, 3, 4, 5)
    with pytest.raises(ValueError, match=r"row 3 is of step 4, but .* at step 3: rows are lost"):
        require_rows(growing.path, 3, 3)


def test_a_run_without_a_log_has_lost_no_row(tmp_path):
    require_rows(tmp_path / "metrics.csv", 0, 0)
    with pytest.raises(ValueError, match="of the 1 rows that were logged"):
        require_rows(tmp_path / "metrics.csv", 1, 1)


LINES = [
    "step,epoch,val/acc/clean,train/loss",
    "1,0,,3",
    "2,0,,2",
    "2,0,0.5,",
    "1,0,,",
    "3,1,,1",
    "4,1,,1",
]


@pytest.mark.parametrize(
    ("line", "row", "said"),
    [
        (3, "1,0,,2", "column step holds 1 after 1"),
        (6, "9,1,,1", "column step holds 9 after 2"),
        (6, "1,1,,1", "column step holds 1 after 2"),
        (4, "-2,0,0.5,", "column step holds -2 which is no step"),
        (3, "1.5,0,,2", "column step holds 1.5 which is no step"),
        (6, "3,2,,1", "column epoch holds 2 after 0"),
        (7, "4,0,,1", "column epoch holds 0 after 1"),
        (3, "2,-1,,2", "column epoch holds -1 which is no epoch"),
        (3, "2,inf,,2", "column epoch holds inf which is no epoch"),
        (4, "2,0.5,0.5,", "column epoch holds 0.5 which is no epoch"),
    ],
)
def test_rows_that_do_not_follow_each_other_are_refused(tmp_path, line, row, said):
    """Those of validations and of alarms are of any step."""
    path = tmp_path / "metrics.csv"
    path.write_text("\n".join(LINES) + "\n")
    assert len(read_metrics_log(path)["train/loss"]) == 4
    require_rows(path, 6, 4)
    rows = [*LINES[: line - 1], row, *LINES[line:]]
    path.write_text("\n".join(rows) + "\n")
    for at_once in (AT_ONCE, 60):
        reader = LogReader(path)
        with pytest.raises(ValueError, match=f"metrics.csv is damaged: line {line}: {said}"):
            list(iter(lambda reader=reader, n=at_once: reader.read(n), False))
    with pytest.raises(ValueError, match=f"metrics.csv is damaged: line {line}: {said}"):
        require_rows(path, 6, 4)
