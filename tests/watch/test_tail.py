"""A growing log: every row is seen once, whatever its writer does to the file."""

from itertools import pairwise

import numpy as np
import pytest

from energy_at.training.loggers.csv import MetricsCSV
from energy_at.watch.state import Tail, Trace


@pytest.fixture
def log(tmp_path):
    return MetricsCSV(tmp_path / "metrics.csv")


def write(log, *steps, **columns):
    for step in steps:
        log.log_metrics({"loss": step / 8, **columns}, step=step)
    log.save()


def steps(rows):
    return [row["step"] for row in rows]


def test_rows_come_once_and_in_their_order(log):
    tail = Tail(log.path)
    assert tail.read() == ([], False)  # no file yet
    write(log, 1, 2)
    assert steps(tail.read()[0]) == [1, 2]
    assert tail.read() == ([], False)
    write(log, 3)
    assert tail.read() == ([{"step": 3.0, "loss": 0.375}], False)


def test_what_was_read_is_not_read_again(log, monkeypatch):
    write(log, *range(1000))
    tail = Tail(log.path)
    tail.read()
    place = tail._place
    write(log, 1000)
    assert log.path.stat().st_size > place > 5000
    with log.path.open("r+b") as file:  # spoilt where nobody may look any more
        file.seek(20)
        file.write(b"x" * 1000)
    assert steps(tail.read()[0]) == [1000]


def test_a_line_that_is_not_whole_waits(log):
    write(log, 1)
    tail = Tail(log.path)
    with log.path.open("a") as file:
        file.write("2,0.")
    assert steps(tail.read()[0]) == [1]
    with log.path.open("a") as file:
        file.write("25\n")
    assert tail.read()[0] == [{"step": 2.0, "loss": 0.25}]


def test_a_new_column_or_a_resume_begins_restarts(log):
    tail = Tail(log.path)
    write(log, 1, 2)
    tail.read()
    write(log, 3, gap=0.5)
    rows, restarts = tail.read()
    assert restarts
    assert steps(rows) == [1, 2, 3]
    assert "gap" not in rows[0]  # an empty cell
    assert rows[2]["gap"] == 0.5
    log.truncate(1)
    write(log, 2)
    rows, restarts = tail.read()
    assert restarts
    assert steps(rows) == [1, 2]


def test_a_long_log_is_read_in_parts(log):
    write(log, *range(1000))
    tail, seen = Tail(log.path), []
    for _ in range(1000):
        rows, _ = tail.read(most=500)
        assert len(rows) < 100
        seen += rows
        if not tail.behind:
            break
    assert steps(seen) == list(range(1000))


@pytest.mark.parametrize("cells", [b"1,0.5\n2,abc\n", b"1,\xa2\xff\n"])
def test_a_cell_without_a_number_is_damage(log, cells):
    log.path.write_bytes(b"step,loss\n" + cells)
    with pytest.raises(ValueError, match=r"metrics.csv is damaged: a cell is not a number"):
        Tail(log.path).read()


def test_a_curve_of_any_length_stays_short_and_keeps_range_and_mean():
    values = np.random.default_rng(0).normal(size=12_345)
    trace = Trace()
    for step, value in enumerate(values):
        trace.add(step, value)
    points = np.array(trace.points())
    assert len(points) <= 400
    assert points[:, 1].min() == values.min()
    assert points[:, 3].max() == values.max()
    edges = np.linspace(0, len(values), 401).astype(int)
    parts = list(pairwise(edges))
    assert points[:, 2] == pytest.approx([values[a:b].mean() for a, b in parts])
    assert points[:, 0] == pytest.approx([np.arange(a, b).mean() for a, b in parts])
    assert trace.values[-1] == values[-1]


def test_a_short_curve_keeps_every_value_and_a_nan_leaves_a_gap():
    trace = Trace()
    for step, value in enumerate([1.0, float("nan"), 3.0, float("inf")]):
        trace.add(step, value)
    assert trace.points() == [[0, 1, 1, 1], [2, 3, 3, 3]]
