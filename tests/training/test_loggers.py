"""metrics.csv: what is logged comes back, row for row, over new columns, restarts and cuts."""

import csv
import math
import time

import jaxtyping
import pytest

from energy_at.training.loggers import MetricsCSV, csv_logger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def rows(path):
    """The rows with what is in them, as numbers."""
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(logger, *steps, **metrics):
    for step in steps:
        logger.log_metrics({"epoch": float(step // 10), "value": step / 8} | metrics, step=step)


def logged(*steps, **metrics):
    return [{"step": s, "epoch": s // 10, "value": s / 8} | metrics for s in steps]


def test_rows_come_back_as_written(path):
    logger = MetricsCSV(path)
    log(logger, *range(25))
    logger.save()
    assert rows(path) == logged(*range(25))
    assert path.read_text().splitlines()[:3] == ["step,epoch,value", "0,0,0.0", "1,0,0.125"]


@pytest.mark.parametrize("value", [0.0, -1e-9, 1 / 3, 2.5e12, 1.17549435e-38, -123456.789])
def test_values_keep_seven_digits(path, value):
    logger = MetricsCSV(path)
    logger.log_metrics({"x": value}, step=1)
    logger.save()
    (row,) = rows(path)
    assert row["x"] == pytest.approx(value, rel=5e-7, abs=0)


def test_what_is_not_finite_comes_back_too(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"a": float("nan"), "b": float("inf"), "c": float("-inf")}, step=1)
    logger.save()
    (row,) = rows(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_the_step_is_that_of_the_call(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"step": 3.0, "x": 1.0}, step=7)
    logger.save()
    assert rows(path) == [{"step": 7, "x": 1}]


def test_steps_and_epochs_are_whole_numbers_in_the_file(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"epoch": 12_345_678.0}, step=123_456_789)
    logger.save()
    assert path.read_text() == "step,epoch\n123456789,12345678\n"


def test_nothing_is_written_before_there_is_something(tmp_path):
    logger = csv_logger(tmp_path / "run")
    logger.save()
    assert logger.count() == 0
    assert not (tmp_path / "run").exists()
    log(logger, 1)
    logger.finalize("success")
    assert rows(tmp_path / "run" / "metrics.csv") == logged(1)


def test_columns_that_appear_later_are_empty_before(path):
    logger = MetricsCSV(path)
    log(logger, 1, 2)
    logger.save()
    log(logger, 3, late=0.5)
    log(logger, 4)
    logger.save()
    log(logger, 5, latest=0.25)
    log(logger, 6, late=0.125)
    logger.save()
    expected = logged(1, 2) + logged(3, late=0.5) + logged(4)
    assert rows(path) == expected + logged(5, latest=0.25) + logged(6, late=0.125)
    lines = path.read_text().splitlines()
    assert lines[0] == "step,epoch,value,late,latest"
    assert {line.count(",") for line in lines} == {4}


def test_columns_keep_their_order_whatever_the_order_of_a_row(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"a": 1.0, "b": 2.0}, step=1)
    logger.log_metrics({"b": 4.0, "a": 3.0}, step=2)
    logger.save()
    assert path.read_text().splitlines() == ["step,a,b", "1,1.0,2.0", "2,3.0,4.0"]


def test_an_existing_file_resumes(path):
    first = MetricsCSV(path)
    log(first, 1, 2)
    first.save()
    second = MetricsCSV(path)
    assert second.count() == 2
    log(second, 3)
    log(second, 4, late=1.5)
    second.finalize("success")
    assert second.count() == 4
    assert rows(path) == logged(1, 2, 3) + logged(4, late=1.5)


def test_count_is_what_a_reader_finds(path):
    logger = MetricsCSV(path)
    assert logger.count() == 0
    log(logger, *range(13))
    assert logger.count() == 13 == len(rows(path))
    log(logger, 13)
    assert logger.count() == 14 == len(rows(path))
    assert MetricsCSV(path).count() == 14


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("reopened", [False, True])
def test_truncate_keeps_exactly_the_first_rows(path, kept, reopened):
    logger = MetricsCSV(path)
    log(logger, *range(3))
    log(logger, 3, 4, late=2.0)
    logger.save()
    if reopened:
        logger = MetricsCSV(path)
    before = rows(path)
    logger.truncate(kept)
    assert logger.count() == kept
    assert rows(path) == before[:kept]
    log(logger, 77)
    logger.save()
    assert rows(path) == before[:kept] + logged(77)
    assert MetricsCSV(path).count() == kept + 1


def test_truncate_counts_rows_that_are_not_in_the_file_yet(path):
    logger = MetricsCSV(path)
    log(logger, 1)
    logger.save()
    log(logger, 2, 3)
    logger.truncate(2)
    assert rows(path) == logged(1, 2)


def test_truncate_to_more_than_there_is_changes_nothing(path):
    logger = MetricsCSV(path)
    log(logger, 1, 2)
    logger.truncate(5)
    assert rows(path) == logged(1, 2)
    assert logger.count() == 2


def test_a_cut_and_rewritten_file_is_that_of_the_uninterrupted_run(tmp_path):
    whole, cut = MetricsCSV(tmp_path / "a" / "metrics.csv"), MetricsCSV(tmp_path / "b/metrics.csv")
    for logger in (whole, cut):
        log(logger, *range(20))
        log(logger, 20, late=1.0)
        logger.save()
    log(cut, *range(21, 30))
    cut.save()
    cut = MetricsCSV(cut.path)
    cut.truncate(21)
    for logger in (whole, cut):
        log(logger, *range(21, 40))
        logger.finalize("success")
    assert cut.path.read_bytes() == whole.path.read_bytes()
    assert [p.name for p in cut.path.parent.iterdir()] == ["metrics.csv"]


def test_20000_rows_take_no_time(path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would take half of it
    start = time.process_time()
    logger = MetricsCSV(path)
    names = [f"train/metric_{i}" for i in range(12)]
    for step in range(20_000):
        logger.log_metrics(
            dict.fromkeys(names, step / 7) | {"epoch": float(step // 400)}, step=step
        )
        if step % 50 == 49:
            logger.save()
        if step % 400 == 399:
            logger.log_metrics({"val/acc/pgd": 0.5, "epoch": float(step // 400)}, step=step)
    assert logger.count() == 20_050
    assert MetricsCSV(path).count() == 20_050
    logger.truncate(20_000)
    assert logger.count() == 20_000
    assert time.process_time() - start < 6
