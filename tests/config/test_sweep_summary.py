"""What a multirun leaves behind, as typed in a shell: one table, one figure, a line per failure."""

import csv
import io
import itertools
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from energy_at import train
from energy_at.config.sweep_summary import SweepSummary
from tests.helpers.running import ONE_EPOCH
from tests.helpers.tables import markdown_rows

SHORT = (
    *ONE_EPOCH,
    "evaluation.checkpoints=[last]",
    "evaluation.images=[test]",
)


def typed(folder, *overrides):
    command = [sys.executable, "-m", "energy_at.train", "-m", *SHORT, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def typed_here(folder, *overrides):
    """Exit code, standard output and standard error of the same in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train", "-m", *SHORT, *overrides])
        try:
            train.main()
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Two methods, two seeds


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    here = tmp_path_factory.mktemp("healthy")
    result = typed_here(here, "reg=none,der", "seed=0,1")
    (sweep,) = (here / "runs" / "sweep").iterdir()
    return result, sweep


def test_a_sweep_ends_with_one_table_of_its_methods(healthy):
    (code, out, err), sweep = healthy
    assert code == 0, err[-2000:]
    last = out[out.rindex("| method") :].splitlines()
    header, _, *rows = [cells(line) for line in last if line.startswith("|")]
    printed = [dict(zip(header, row, strict=True)) for row in rows]
    whole = markdown_rows(sweep / "comparison.md")
    assert [(row["method"], row["runs"]) for row in whole] == [
        ("FGSM-AT", "2"),
        ("FGSM-AT + DER", "2"),
    ]
    assert [row["method"] for row in printed] == [row["method"] for row in whole]
    assert max(len(line) for line in last if line.startswith("|")) <= 80
    assert sweep.name in last[-1]


def test_jobs_are_numbered_and_their_tables_are_titled(healthy):
    (_, out, err), _ = healthy
    titles = [f"[{i}/4] reg={reg} seed={seed}" for i, (reg, seed) in enumerate(
        itertools.product(("none", "der"), (0, 1)), 1)]  # fmt: skip
    assert [line for line in out.splitlines() if line.startswith("[")] == titles
    announced = [line for line in err.splitlines() if re.match(r"\[\d/4\]", line)]
    assert [line.partition(",")[0] for line in announced] == titles
    assert all(re.search(r", about \d+:\d\d left$", line) for line in announced[1:])
    assert "left" not in announced[0]


def test_the_comparison_is_there_as_numbers(healthy):
    rows = table(healthy[1] / "comparison.csv")
    clean = [row for row in rows if row["quantity"] == "clean accuracy [%]"]
    assert [(row["method"], row["runs"]) for row in clean] == [
        ("FGSM-AT", "2"),
        ("FGSM-AT + DER", "2"),
    ]
    for row in rows:
        assert int(row["n"]) <= int(row["runs"])
        numbers = [float(row[name]) for name in ("min", "mean", "max") if row[name]]
        assert numbers == sorted(numbers)


def test_a_sweep_leaves_each_run_its_row(healthy):
    runs = table(healthy[1] / "runs.csv")
    assert [(row["run"], row["method"], row["seed"]) for row in runs] == [
        ("0", "FGSM-AT", "0"),
        ("1", "FGSM-AT", "1"),
        ("2", "FGSM-AT + DER", "0"),
        ("3", "FGSM-AT + DER", "1"),
    ]
    assert all(row["clean %"] and row["PGD-2 %"] and row["forward passes"] for row in runs)


def test_a_sweep_leaves_one_figure(healthy):
    assert (healthy[1] / "comparison.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (healthy[1] / "comparison.pdf").read_bytes()[:5] == b"%PDF-"


def test_a_run_of_a_sweep_is_whole(healthy):
    for job in "0123":
        names = {path.name for path in (healthy[1] / job).iterdir()}
        assert {"config.yaml", "environment.json", "metrics.csv", "results.json"} <= names
        assert "error.txt" not in names


# A job that fails, and a sweep that cannot start


@pytest.fixture(scope="module")
def torn(tmp_path_factory):
    """Exit code and output of a sweep of three jobs, and its folder."""
    here = tmp_path_factory.mktemp("torn")
    overrides = ("reg=der", "reg.weight=1,-1,2", "hydra.sweep.dir=torn")
    return typed_here(here, *overrides), here / "torn"


def test_a_job_that_fails_does_not_end_the_sweep(torn):
    rows = markdown_rows(torn[1] / "comparison.md")
    assert [row["method"] for row in rows] == [
        "FGSM-AT + DER, reg.weight=1",
        "FGSM-AT + DER, reg.weight=2",
    ]
    assert (torn[1] / "2" / "results.json").is_file()


def test_a_job_that_fails_leaves_its_line(torn):
    (_, out, err), sweep = torn
    assert [path.name for path in (sweep / "1").iterdir()] == ["error.txt"]
    line = (sweep / "1" / "error.txt").read_text()
    assert "reg.weight=-1 must be a finite number >= 0" in line
    assert line.count("\n") == 1
    assert f"job 1 failed: {line}" in out + err
    assert not (sweep / "0" / "error.txt").exists()
    assert "Traceback" not in out + err


def test_a_sweep_with_a_failed_job_exits_with_1(torn):
    assert torn[0][0] == 1


@pytest.mark.slow
def test_a_sweep_that_cannot_be_composed_gets_one_line_and_leaves_nothing(tmp_path):
    result = typed(tmp_path, "reg=der,foo")  # its folder goes when the process ends
    assert result.returncode == 1
    assert result.stderr.startswith("error: reg=foo must be aaer, der")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


# Folders as they may be


@pytest.mark.parametrize("swept", ["seed=0,1", "sweep=der_weight"])
def test_a_sweep_refuses_the_folder_of_a_single_run(tmp_path, swept):
    code, out, err = typed_here(tmp_path, swept, "hydra.run.dir=a_b")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith("a sweep takes hydra.sweep.dir=a_b\n")
    assert not list(tmp_path.rglob("config.yaml"))


def start(kind, resume=None, **folders):
    """Has the callback see a sweep or a single run with these folders."""
    places = {"run": {"dir": "run"}, "sweep": {"dir": "sweep", "subdir": "${hydra.job.num}"}}
    for key, value in folders.items():
        part, _, name = key.partition("_")
        places[part][name] = value
    hydra = {"overrides": {"hydra": []}, "job": {"num": "???"}, **places}
    config = OmegaConf.create({"hydra": hydra, "resume": resume})
    getattr(SweepSummary(), f"on_{kind}_start")(config)


@pytest.mark.parametrize(
    ("kind", "folders", "said"),
    [
        ("run", {"run_dir": ""}, "hydra.run.dir= must be the path of a folder, such as runs/mine"),
        ("run", {"run_dir": None}, "hydra.run.dir= must be the path of a folder"),
        ("multirun", {"sweep_dir": ""}, "hydra.sweep.dir= must be the path of a folder"),
        ("multirun", {"sweep_subdir": ""}, "hydra.sweep.subdir= must name a folder for each job"),
        ("multirun", {"sweep_dir": "a"}, "hydra.sweep.dir=a is the folder of a run: choose anoth"),
        (
            "multirun",
            {"sweep_dir": "f/b"},
            "hydra.sweep.dir=f/b cannot be made (Not a directory): c",
        ),
        ("run", {"run_dir": "f/b"}, "hydra.run.dir=f/b cannot be made (Not a directory): choos"),
        ("run", {"run_dir": "f/b", "resume": "f/b"}, "resume=f/b cannot be made (Not a directory)"),
        ("run", {"run_dir": "f"}, "hydra.run.dir=f cannot be made (File exists): choose anothe"),
    ],
)
def test_a_folder_that_cannot_be_is_met_by_its_key(here, capsys, kind, folders, said):
    Path("f").touch()
    Path("a").mkdir()
    Path("a/config.yaml").touch()
    before = sorted(here.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        start(kind, **folders)
    assert stop.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_the_folder_of_a_sweep_is_left_to_its_jobs(here):
    start("multirun", sweep_dir="new/sweep")
    assert list(here.iterdir()) == []


def test_looking_whether_a_folder_can_be_made_leaves_all_folders_as_they_were(here, monkeypatch):
    (here / "empty").mkdir()
    (here / "work").mkdir()
    monkeypatch.chdir("work")
    (here / "work" / "mine").mkdir()
    for sweep in ("mine/a", "mine", str(here / "empty" / "a"), str(here / "b" / "c")):
        start("multirun", sweep_dir=sweep)
        names = sorted(path.relative_to(here).as_posix() for path in here.rglob("*"))
        assert names == ["empty", "work", "work/mine"]
