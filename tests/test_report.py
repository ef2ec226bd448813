"""What is typed to report runs, and what comes back."""

import shutil
from pathlib import Path

import pytest

from energy_at import report
from energy_at.reporting.comparison import FILES
from energy_at.runs.result_folder import RECORD
from tests.helpers.reports import FAILED, OVERFITTED, failing_sweep, sections, write
from tests.helpers.running import assert_refused, typed


@pytest.fixture
def type_report(here, monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, report.main, *argv)


# What is in it


def test_one_run_shows_what_was_typed_under_the_path_that_was_typed(here, type_report):
    write(here / "deep" / "run", "reg=der", "reg.weight=7", pgd=OVERFITTED)
    code, out, err = type_report("runs=deep/run")
    assert code == 0, err
    assert out.splitlines()[-1].endswith("report.md, report.html")
    told = sections(here)
    assert "    reg.weight=7" in told["Runs"].splitlines()
    assert "deep/run" in told["Runs"]
    assert "Samples" not in told
    assert "overfitted at step 9" in told["Training"]
    assert str(here) not in (here / "report" / "report.html").read_text()


def test_runs_without_a_log_are_reported_by_their_accuracies(here, type_report):
    write(here / "quiet", pgd=None)
    code, out, err = type_report("runs=quiet")
    assert code == 0, err
    assert "delta_energy" not in out
    assert "No training step was logged in quiet: use `logger=csv`." in sections(here)["Training"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ("{", "line 1, column 2: it is not JSON"),
        ('{"kind": "report", "key": null, "files": 3}', "it names no files"),
    ],
)
def test_a_damaged_record_of_a_report_is_named_in_one_line(here, type_report, record, why):
    write(here / "run")
    (here / "report").mkdir()
    (here / "report" / RECORD).write_text(record)
    code, _, err = type_report("runs=run")
    assert (code, err) == (1, f"error: report/.result.json is damaged: {why}\n")


@pytest.mark.slow
def test_report_writes_table_and_figure(here, type_report):
    for name in ("one", "other"):
        write(here / name)
    code, out, _ = type_report("runs=[one,other]", "out=both")
    assert code == 0
    assert out.count("| one ") == out.count("| other ") == 1
    assert {p.name for p in Path("both").iterdir()} == {
        "table.md", "table.csv", "delta_energy.png", "delta_energy.pdf", "report.md",
        "report.html", "figures", RECORD, *FILES
    }  # fmt: skip


# Bad input


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "metrics.csv").write_text("step,a\n1,x\n"), "metrics.csv is damaged"),
        (lambda run: (run / "results.json").write_text("{"), "results.json is damaged"),
        (lambda run: (run / "environment.json").write_text("{"), "environment.json is damaged"),
        (lambda run: (run / "config.yaml").write_text("{"), "config.yaml is damaged"),
        (lambda run: (run / "results.json").unlink(), "run has not finished"),
        (lambda run: shutil.rmtree(run), "run is not a run folder"),
        (lambda run: ((run / "evaluation/a").mkdir(parents=True),
                      (run / "evaluation/a/evaluation.json").write_text("{}")),
         "evaluation.json is damaged"),
        (lambda run: ((run / "analysis/a").mkdir(parents=True),
                      (run / "analysis/a/b.png").write_text("none")), "b.png is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_in_one_line(here, type_report, spoil, said):
    spoil(write(here / "run").path)
    assert_refused(type_report, said, "runs=run")


def test_an_output_that_is_a_file_is_named_in_one_line(here, type_report):
    write(here / "run")
    (here / "file").write_text("mine")
    assert_refused(type_report, "out=file cannot be made (File exists)", "runs=run", "out=file")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((), "runs= is missing: type it; --help shows how"),
        (("runs=[nowhere]",), "nowhere is not a run folder"),
        (("runs=[]",), "runs=[] names no run"),
        (("runs=[run,run]",), "runs=[...] names run twice: leave one out"),
        (("runs=[run,.]",), "runs=[...] names run twice: leave one out"),
        (("runs=[null]",), "runs=[null] must be the path of a folder, or a list of them"),
        (("runs=[1,2]",), "1 is not a run folder"),
        (("runs=run", "out=[a]"), "out=[a] must be the path of one folder"),
        (("runs=run", "+foo=1"), "+foo=1: nothing reads foo"),
    ],
)
def test_a_mistake_gets_one_line_and_writes_nothing(here, type_report, wrong, said):
    write(here / "run")
    assert_refused(type_report, said, *wrong)


@pytest.fixture
def failing(here):
    return failing_sweep(Path("sweep"))


def test_a_sweep_of_which_every_job_failed_has_no_report(failing, type_report):
    for job in "02":
        shutil.rmtree(f"sweep/{job}")
    code, out, err = type_report("runs=sweep", "out=nothing")
    assert (code, out, err) == (1, "", f"error: no run has finished: {FAILED[0]}\n")
    assert not Path("nothing").exists()


@pytest.mark.slow
def test_a_report_ends_with_the_jobs_that_failed(failing, type_report):
    code, out, err = type_report("runs=sweep", "out=told")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == FAILED
    assert FAILED[1] in Path("told/report.md").read_text()
    assert FAILED[1] in Path("told/report.html").read_text()


@pytest.mark.slow
def test_a_folder_may_have_a_number_for_a_name_and_keeps_what_it_holds(here, type_report):
    write(here / "1")
    (here / "2").mkdir()
    (here / "2" / "mine").write_text("mine")
    assert type_report("runs=1", "out=2")[0] == 0
    assert (here / "2" / "mine").read_text() == "mine"
    assert (here / "2" / "report.html").is_file()
    assert not list(here.glob(".*"))
