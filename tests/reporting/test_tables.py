"""Tables and their cells, and the table of runs, from rows and results written by hand."""

import csv
import functools
import io

import pytest

from energy_at.reporting.comparison import results_table
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.tables import Table, each_cell, mean_cell, steps_cell, steps_of_runs_cell
from energy_at.runs.folder import RunFolder
from tests.helpers.running import TINY, config

composed = functools.cache(config)

METRICS = """\
step,epoch,train/loss,train/acc/adv,train/aae_share,train/delta_energy/marginal,train/delta_energy/joint,val/acc/pgd
1,0,2.0,0.9,0.9,9.0,9.0,
2,0,1.5,0.8,0.8,8.0,8.0,
2,0,,,,,,0.3
3,1,1.0,0.5,0.25,0.5,-1.0,
4,1,0.5,0.7,0.75,1.0,-3.5,
4,1,,,,,,0.4
"""
RESULTS = {
    "last": {
        "step": 4,
        "val": {"clean": 0.9, "fgsm": 0.7777, "pgd": 0.004, "n": 237},
        "test": {"clean": 1.0, "fgsm": 0.5, "pgd": 0.0, "n": 360},
    },
    "best": {"step": 2, "test": {"clean": 0.8, "fgsm": 0.6, "pgd": 0.45, "n": 360}},
}


def run(path, *, metrics=METRICS, results=RESULTS):
    folder = RunFolder.create(path, composed(*TINY))
    if metrics is not None:
        folder.metrics_file.write_text(metrics)
    if results is not None:
        folder.write_results(results)
    return FinishedRun(folder)


def as_dicts(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_numbers_of_a_run_are_those_of_its_files(tmp_path):
    val, test, best = as_dicts(results_table([run(tmp_path / "fgsm_at")]))
    trained = {
        "status": "robust",
        "train adv %": "60.0",
        "AAE share %": "50.0",
        "dE(x)": "+0.750",
        "dE(x, y)": "-2.250",
    }
    assert val == trained | {
        "run": "fgsm_at",
        "checkpoint": "last",
        "images": "val",
        "n": "237",
        "clean %": "90.0",
        "FGSM %": "77.8",
        "PGD %": "0.4",
    }
    assert test == trained | {
        "run": "fgsm_at",
        "checkpoint": "last",
        "images": "test",
        "n": "360",
        "clean %": "100.0",
        "FGSM %": "50.0",
        "PGD %": "0.0",
    }
    assert best == dict.fromkeys(trained, "") | {
        "status": "robust",
        "run": "fgsm_at",
        "checkpoint": "best",
        "images": "test",
        "n": "360",
        "clean %": "80.0",
        "FGSM %": "60.0",
        "PGD %": "45.0",
    }


def test_runs_of_one_name_are_distinguished_by_their_paths(tmp_path):
    table = results_table([run(tmp_path / sweep / "0") for sweep in "ab"])
    assert {row["run"] for row in as_dicts(table)} == {str(tmp_path / s / "0") for s in "ab"}


def test_runs_follow_each_other(tmp_path):
    table = results_table([run(tmp_path / name) for name in ("b", "a", "c")])
    assert [row["run"] for row in as_dicts(table)] == ["b"] * 3 + ["a"] * 3 + ["c"] * 3


def test_what_was_not_measured_is_empty(tmp_path):
    bare = run(
        tmp_path / "bare",
        metrics="step,epoch,train/loss,train/acc/adv\n1,0,1.0,0.5\n",
        results={"last": {"step": 1, "test": {"clean": 0.5, "n": 2}}},
    )
    (row,) = as_dicts(results_table([bare]))
    assert row["train adv %"] == "50.0"
    empty = {name for name, cell in row.items() if cell == ""}
    assert empty == {"FGSM %", "PGD %", "AAE share %", "dE(x)", "dE(x, y)"}


def test_a_run_without_log_has_its_accuracies(tmp_path):
    rows = as_dicts(results_table([run(tmp_path / "quiet", metrics=None)]))
    assert [row["clean %"] for row in rows] == ["90.0", "100.0", "80.0"]
    assert {row["dE(x)"] for row in rows} == {""}


def test_a_run_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has not finished"):
        results_table([run(tmp_path / "half", results=None)])


def test_csv_parses_back(tmp_path):
    table = results_table([run(tmp_path / 'odd, "name"'), run(tmp_path / "plain")])
    header, *rows = csv.reader(io.StringIO(table.csv()))
    assert tuple(header) == table.columns
    assert [tuple(row) for row in rows] == table.rows
    assert table.rows[0][0] == 'odd, "name"'


def test_markdown_holds_the_same_cells_in_columns_that_line_up(tmp_path):
    table = results_table([run(tmp_path / "a_long_name_of_a_run"), run(tmp_path / "b")])
    lines = table.markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert cells[0] == table.columns
    assert all(set(cell) == {"-"} for cell in cells[1])
    assert cells[2:] == table.rows


def test_a_small_table_by_hand():
    table = Table(("run", "n"), [("a", "100"), ("bcde", "")])
    assert table.markdown() == "| run  | n   |\n| ---- | --- |\n| a    | 100 |\n| bcde |     |"
    assert table.csv() == "run,n\na,100\nbcde,\n"


def test_a_bar_in_a_cell_ends_no_cell():
    lines = Table(("run", "n"), [("a|b", "1")]).markdown().splitlines()
    assert lines == ["| run  | n |", "| ---- | - |", r"| a\|b | 1 |"]


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([], ""),
        ([None, float("nan")], ""),
        ([34.21], "34.2"),
        ([34.21, None], "34.2"),
        ([32.7, 34.3, 35.6], "34.2 [32.7, 35.6]"),
        ([34.21, 34.19], "34.2"),
    ],
)
def test_a_mean_has_its_range_where_values_differ(values, cell):
    assert mean_cell(values) == cell


def test_a_format_holds_for_mean_and_range():
    assert mean_cell([0.5, 1.0], "+.3f") == "+0.750 [+0.500, +1.000]"


def test_values_that_no_mean_may_join_stand_side_by_side():
    assert each_cell([0.41, 69.1]) == "0.4, 69.1"
    assert each_cell([None]) == ""


def test_steps_are_named_by_kind():
    assert steps_cell([("CO", 52), ("RO", 240)]) == "CO 52, RO 240"
    assert steps_cell([]) == ""


def test_steps_of_several_runs_are_counted_by_kind():
    steps = [("CO", 331), ("CO", 305), ("not robust", None)]
    assert steps_of_runs_cell(steps, 3) == "CO 331, 305 (2 of 3 runs); not robust (1 of 3 runs)"
    assert steps_of_runs_cell([("CO", 331)], 1) == "CO 331"
