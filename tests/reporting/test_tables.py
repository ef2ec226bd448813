"""Tables as Markdown, LaTeX and CSV, and their cells."""

import csv
import io

import pytest

from energy_at.reporting.tables import (
    Table,
    each_cell,
    mean_and_error_cell,
    mean_cell,
    spread,
    steps_cell,
    steps_of_runs_cell,
)


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


def test_a_small_table_in_latex_by_hand():
    table = Table(("run_1", "PGD %"), [("a & b", "34.2 [32.7, 35.6]"), ("[c]", "")])
    assert table.latex().splitlines() == [
        r"\begin{tabular}{lr}",
        r"  \toprule",
        r"  run\_1 & PGD \% \\",
        r"  \midrule",
        r"  a \& b & 34.2 [32.7, 35.6] \\",
        r"  {[c]} &  \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]


def test_a_table_is_written_in_three_forms_its_csv_of_numbers_if_there_are_any(tmp_path):
    table = Table(("run", "n"), [("a", "34.2 [32.7, 35.6]")])
    table.write(tmp_path / "a.b", above="setting\n\n", numbers=Table(("mean",), [(34.2,)]))
    assert (tmp_path / "a.b.md").read_text() == f"setting\n\n{table.markdown()}\n"
    assert (tmp_path / "a.b.tex").read_text() == f"{table.latex()}\n"
    assert (tmp_path / "a.b.csv").read_text() == "mean\n34.2\n"


WIDE = Table(
    ("method", "n", "PGD %", "status"),
    [("FGSM-AT + DER, reg.weight=0.5, seed 0", "1000", "34.2 [32.7, 35.6]", "robust" * 4)],
)


@pytest.mark.parametrize(
    ("width", "columns", "cell"),
    [
        (200, 4, "34.2 [32.7, 35.6]"),
        (93, 3, "34.2 [32.7, 35.6]"),
        (80, 3, "34.2"),
        (60, 3, "34.2"),
    ],
)
def test_a_terminal_leaves_out_columns_then_ranges_then_ends_of_cells(width, columns, cell):
    head, _, row = WIDE.fitted(("n",), width).splitlines()
    assert max(map(len, (head, row))) <= width
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (len(cells), cells[-2]) == (columns, cell)
    assert (cells[0] == WIDE.rows[0][0]) == (width > 60)


def test_statistics_are_those_of_the_known_values():
    assert spread([1.0, None, 3.0, float("nan")]) == {
        "n": 2, "mean": 2.0, "std": pytest.approx(2**0.5), "min": 1.0, "max": 3.0
    }  # fmt: skip
    assert spread([]) == {"n": 0, "mean": None, "std": None, "min": None, "max": None}
    assert spread([5.0])["std"] is None


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


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([], ""),
        ([None], ""),
        ([34.21], "34.2"),
        ([34.21, None], "34.2"),
        ([32.0, 34.0, 36.0], "34.0 ± 1.2"),  # 2 / sqrt(3)
        ([1.0, 1.0], "1.0 ± 0.0"),
    ],
)
def test_a_mean_has_its_standard_error(values, cell):
    assert mean_and_error_cell(values) == cell


def test_a_terminal_leaves_out_errors_too():
    table = Table(("FID",), [("34.0 ± 1.2",)])
    assert table.fitted(width=14).splitlines()[-1] == "| 34.0 ± 1.2 |"
    assert table.fitted(width=13).splitlines()[-1] == "| 34.0 |"


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


def test_names_from_a_strangers_files_are_text_in_every_form(tmp_path):
    table = Table(("=run", "dE"), [("=cmd()", "-0.1"), ("<script>\x1b[2J", "+1.5"), ("@a", "")])
    table.write(tmp_path / "table")
    text = (tmp_path / "table.csv").read_text()
    assert text == "'=run,dE\n'=cmd(),-0.1\n<script>\\x1b[2J,+1.5\n'@a,\n"
    for end in ("md", "tex", "csv"):
        assert "\x1b" not in (tmp_path / f"table.{end}").read_text()
    assert "&lt;script>\\x1b[2J" in (tmp_path / "table.md").read_text()
