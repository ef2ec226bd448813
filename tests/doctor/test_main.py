"""The doctor as a command: what it says here, and how it answers bad input."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import energy_at
from energy_at.doctor import __main__ as doctor
from energy_at.doctor import run_check
from energy_at.doctor.__main__ import collect_checks
from tests.helpers.doctor import fails
from tests.helpers.running import CONF, named_datasets, typed

LAST = re.compile(r"(\d+) pass, (\d+) warn, (\d+) fail in [\d.]+ s")
ONE = ("dataset=digits",)  # else mnist5k reads for seconds
ROW = re.compile(r"(pass|warn|fail)  (\S.*?)  +(\S.*)")


@pytest.fixture
def type_in(monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, doctor.main, *argv)


# The whole command


@pytest.mark.slow
def test_the_command_passes_here_in_less_than_a_minute_and_writes_nothing(tmp_path):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "energy_at.doctor"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONF.parent)},
        timeout=300,
    )
    seconds = time.monotonic() - start
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    *table, last = done.stdout.splitlines()
    passes, warnings, failures = map(int, LAST.fullmatch(last).groups())
    rows = [line for line in table if not line.lstrip().startswith("remedy: ")]
    found = [ROW.fullmatch(row) for row in rows]
    assert len({match.start(3) for match in found}) == 1  # aligned
    assert (len(rows), len(table) - len(rows)) == (passes + warnings, warnings)
    assert failures == 0
    names = {match[2] for match in found}
    assert {f"data {name}" for name in named_datasets()} < names
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    assert {"python", "packages", "extras", "cpu", "cuda", "wandb"} < names
    assert {f"training on {d}" for d in devices} < names
    assert list(tmp_path.iterdir()) == []
    assert seconds < 60


def test_programs_get_the_same_as_json_printed_and_in_a_file(type_in):
    code, out, err = type_in(*ONE, "json=true", "out=deep/doctor.json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert json.loads(Path("deep/doctor.json").read_text()) == said
    assert list(Path("deep").iterdir()) == [Path("deep/doctor.json")]
    counts = [sum(c["status"] == s for c in said["checks"]) for s in ("pass", "warn", "fail")]
    assert [said["pass"], said["warn"], said["fail"]] == counts
    assert {"name", "status", "message", "remedy", "seconds"} == said["checks"][0].keys()
    assert sum(check["seconds"] for check in said["checks"]) <= said["seconds"] + 0.1


@pytest.mark.slow
def test_one_failure_is_reported_and_ends_no_other_check(type_in, monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda _, closure: closure())
    code, out, err = type_in(*ONE)
    assert (code, err) == (1, "")
    assert int(LAST.fullmatch(out.splitlines()[-1])[3]) >= 1
    rows = {match[2]: match[1] for match in map(ROW.fullmatch, out.splitlines()) if match}
    assert rows["training on cpu"] == "fail"
    assert rows["cpu"] == rows["data digits"] == rows["wandb"] == "pass"


def test_warnings_are_no_failure(type_in, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    code, out, _ = type_in("dataset=cifar10")
    assert code == 0
    assert int(LAST.fullmatch(out.splitlines()[-1])[2]) >= 2


def test_help_shows_an_example(type_in):
    code, out, _ = type_in("--help")
    assert code == 0
    assert "python -m energy_at.doctor dataset.root=FOLDER" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("dataset=cifar",), "(did you mean cifar10?)"),
        (("dataset.rot=x",), "dataset.rot: unknown key; did you mean dataset.root"),
        (("dataset.root=3",), "dataset.root=3 must be the path of a folder"),
        (("json=5",), "json=5 must be true or false"),
    ],
)
def test_a_mistake_gets_one_line_and_no_checks(argv, said, type_in):
    code, out, err = type_in(*argv)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_a_file_that_cannot_be_written_gets_one_line(type_in, tmp_path):
    Path("folder").mkdir()
    code, _, err = type_in(*ONE, "json=true", "out=folder")
    assert (code, err.count("\n")) == (1, 1)
    assert "out=folder is a folder: name a file in it" in err
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


@pytest.mark.parametrize("subject", ["installation", "smoke"])
def test_a_broken_import_fails_its_own_subject_only(subject, monkeypatch):
    monkeypatch.delattr(energy_at.doctor, subject, raising=False)
    monkeypatch.setitem(sys.modules, f"energy_at.doctor.{subject}", None)
    every = collect_checks(["digits"], Path("data"))
    assert fails(run_check(subject, every[subject]), f"energy_at.doctor.{subject}")
    names = {"installation": {"python"}, "smoke": {"training on cpu", "data digits"}}
    assert not names.pop(subject) & set(every)
    (others,) = names.values()
    assert others < set(every)


def test_no_data_set_to_look_for_is_a_failure():
    every = collect_checks([], Path())
    assert fails(run_check("data", every["data"]), "names no data set")
