"""Tables as Markdown and CSV, and their cells."""

import csv
import io

import pytest

from energy_at.reporting.tables import Table, each_cell, mean_cell, steps_cell, steps_of_runs_cell


def test_csv_parses_back():
    table = Table(("run", "n"), [('odd, "name"', "100"), ("plain", "")])
    header, *rows = csv.reader(io.StringIO(table.csv()))
    assert tuple(header) == table.columns
    assert [tuple(row) for row in rows] == table.rows


def test_markdown_holds_the_same_cells_in_columns_that_line_up():
    table = Table(("run", "images"), [("a_long_name_of_a_run", "100"), ("b", "")])
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
