"""What a report says of its runs: their status, differences, environment and failed jobs."""

import pytest

from energy_at.reporting.comparison import compare
from energy_at.reporting.document.blocks import Code, Grid
from energy_at.reporting.document.results import accuracies, evaluations
from energy_at.reporting.document.runs import drawn_by_step, environment, overview, sweeps
from energy_at.reporting.finished_run import finished_runs
from tests.helpers.reports import FAILED, LOST, SOUND, evaluate, failing_sweep, write


def test_a_run_that_is_not_robust_is_marked_in_every_table(tmp_path):
    folder = write(tmp_path / "guess", pgd=(0.25,) * 12)
    evaluate(folder)
    found = compare([folder])
    runs = next(block for block in overview(found) if isinstance(block, Grid))
    assert (runs.table.rows[0][-2], runs.marked) == ("not robust", {0})
    strong = [(entry, one) for entry in found for one in evaluations(entry.path)]
    blocks = accuracies(found, strong, tmp_path)
    methods, checkpoints, strong = (block for block in blocks if isinstance(block, Grid))
    assert (methods.table.rows[0][3:6], methods.marked) == (("not robust",) * 3, {0})
    assert (checkpoints.table.rows[0][-1], checkpoints.marked) == ("not robust", {0})
    assert {row[2] for row in strong.table.rows} == {"not robust"}
    assert strong.marked == set(range(len(strong.table.rows)))


@pytest.mark.slow
def test_seeds_of_many_runs_share_a_column(tmp_path):
    folders = [write(tmp_path / f"{reg}{seed}", f"reg={reg}", f"seed={seed}")
               for reg in ("none", "der") for seed in range(4)]  # fmt: skip
    *_, grid = overview(compare(folders))
    assert grid.table.columns == ("key", "FGSM-AT", "FGSM-AT + DER")
    assert grid.table.rows[0] == ("seed", "0, 1, 2, 3", "0, 1, 2, 3")
    assert grid.table.rows[1] == ("reg.name", "none", "DER")


def test_runs_of_one_configuration_differ_in_nothing(tmp_path):
    *_, said = overview(compare([write(tmp_path / name) for name in "ab"]))
    assert said == "The runs share one configuration."


def test_runs_of_one_environment_have_one_column(tmp_path):
    said, grid, *_ = environment(compare([write(tmp_path / name) for name in "ab"]))
    assert said == "All runs have the same environment."
    assert grid.table.columns == ("", "all runs")
    assert ("torch", "2.6.0") in grid.table.rows


def test_a_run_without_record_says_so(tmp_path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    other.environment_file.unlink()
    (grid,) = [b for b in environment(compare([one, other])) if isinstance(b, Grid)]
    assert ("git_commit", "abc", "not recorded") in grid.table.rows


@pytest.mark.slow
def test_of_very_many_runs_one_of_each_method_is_drawn_by_step(tmp_path):
    folders = [write(tmp_path / f"{seed}", f"seed={seed}", pgd=LOST if seed == 5 else SOUND)
               for seed in range(13)]  # fmt: skip
    assert [entry.place for entry in drawn_by_step(compare(folders))] == ["0", "5"]
    assert len(drawn_by_step(compare(folders[:12]))) == 12


def test_jobs_that_failed_are_named_with_their_reason(tmp_path):
    runs = finished_runs(failing_sweep(tmp_path / "sweep"))
    blocks = list(overview(compare(runs), FAILED))
    assert blocks[blocks.index("2 jobs have no result:") + 1] == Code("\n".join(FAILED))


@pytest.mark.slow
def test_a_swept_number_has_a_section_with_table_and_figure(tmp_path):
    runs = [write(tmp_path / str(w), "reg=der", f"reg.weight={w}", pgd=(0.1 * w,) * 12)
            for w in (5, 6)]  # fmt: skip
    ((title, blocks),) = sweeps(compare(runs), tmp_path / "report").items()
    assert title == "Against reg.weight"
    assert blocks[0].startswith("Best on held-out images: reg.weight=6,")
    assert (tmp_path / "report" / "figures" / "against_reg_weight.png").is_file()
