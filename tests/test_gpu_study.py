"""The script of the GPU study: its commands compose, results are kept, failures do not stop it."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from tests.helpers.running import CONF

SCRIPT = CONF.parent / "scripts" / "gpu_study.sh"
STUB = f"""#!/usr/bin/env bash
if [[ $1 == - ]]; then exec {sys.executable} "$@"; fi
echo "$*" >> "$LOG"
for argument in "$@"; do
  case $argument in hydra.run.dir=*|resume=*|out=*) folder=${{argument#*=}} ;; esac
done
case $2 in *.train) name=results ;; *.evaluate) name=evaluation ;; *.sample) name=samples ;; *) name=benchmark ;; esac
[[ $2 != "$FAIL" ]] && mkdir -p "$folder" && echo "{{\\"kind\\": \\"$name\\"$ROWS}}" > "$folder/$name.json"
"""  # noqa: E501
PACE = ', "rows": [{"row": "bare"}, {"row": "full", "images": 640, "seconds": [0.6, 0.5]}]'


def run(folder, *argv, **environment):
    fixed = {"LOG": str(folder / "log"), "FAIL": "", "SMALL": "", "OUT": "study", "ROWS": PACE}
    environment = {**os.environ, **fixed, **environment}
    return subprocess.run(
        ["bash", str(SCRIPT), *argv], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def study(tmp_path):
    """Runs the small study with a stub of Python; returns the exit code and what it ran."""
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def run_study(**environment):
        (tmp_path / "log").write_text("")
        done = run(tmp_path, PYTHON=str(stub), SMALL="1", **environment)
        lines = (tmp_path / "log").read_text().splitlines()
        return done.returncode, [line.removeprefix("-m energy_at.") for line in lines]

    return run_study


@pytest.mark.slow
@pytest.mark.parametrize("small", ["", "1"])
def test_every_command_of_the_study_composes(tmp_path, small):
    listed = run(tmp_path, "--list", PYTHON="python", SMALL=small)
    assert (listed.returncode, listed.stderr, list(tmp_path.iterdir())) == (0, "", [])
    runs, composed = set(), set()
    for line in listed.stdout.splitlines():
        _python, _flag, module, *argv = shlex.split(line)
        name = module.removeprefix("energy_at.")
        varying = ("run=", "out=", "hydra.", "scenarios=")
        constant = tuple(part for part in argv if not part.startswith(varying))
        if (name, constant) in composed:
            continue
        composed.add((name, constant))
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(name, [part for part in argv if not part.startswith("hydra.")])
        if name == "train":
            runs.add(argv[-1].removeprefix("hydra.run.dir=study/"))
            assert f"_{255 * cfg.threat.ball.eps:.0f}_" in argv[-1]
            if not small:
                settings = cfg.dataset.name, cfg.model.width, cfg.trainer.max_epochs
                assert settings == ("cifar10", 64, 30)
        elif name in ("evaluate", "sample"):
            assert cfg.run.removeprefix("study/") in runs
    names = {name for name, _ in composed}
    assert names == {"benchmark", "train", "evaluate", "sample"}
    if not small:
        methods = {f"{m}_{e}" for m in ("fgsm", "rs_fgsm", "n_fgsm") for e in (8, 16)}
        pairs = {f"{m}_{reg}" for m in (*methods, "pgd_8", "trades_8") for reg in ("none", "der")}
        assert runs == pairs | {"fgsm_8_gradalign", "fgsm_16_gradalign"}


def test_results_are_kept_and_collected(study, tmp_path):
    code, commands = study()
    assert (code, [line.split()[0] for line in commands]) == (
        0, ["benchmark", "benchmark", "train", "evaluate", "sample"],
    )  # fmt: skip
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    assert {name: result["kind"] for name, result in found.items()} == {
        "benchmark/fgsm_der": "benchmark",
        "fgsm_8_der": "results",
        "fgsm_8_der/study": "evaluation",
        "samples": "samples",
    }
    assert study() == (0, [])


def test_a_training_that_was_cut_off_is_resumed(study, tmp_path):
    checkpoints = tmp_path / "study" / "fgsm_8_der" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").touch()
    _, commands = study()
    assert "train resume=study/fgsm_8_der" in commands


def test_a_failed_training_is_not_evaluated_and_does_not_stop_the_study(study):
    code, commands = study(FAIL="energy_at.train")
    assert (code, [line.split()[0] for line in commands]) == (
        1, ["benchmark", "benchmark", "train", "sample"],
    )  # fmt: skip
    code, commands = study()
    assert (code, [line.split()[0] for line in commands]) == (0, ["train", "evaluate"])


def test_the_study_shows_its_jobs_and_their_time_before_it_starts(tmp_path):
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    lines = run(tmp_path, "--small", PYTHON=str(stub)).stderr.splitlines()
    jobs = ", ".join(
        f"1 {kind} (about 1 min)" for kind in ("benchmark", "train", "evaluate", "sample")
    )
    assert lines[:2] == [
        "measuring the pace of this machine",
        f"4 jobs in study; missing: {jobs}; about 1 min in all",
    ]
    assert lines[2].startswith("[1/4] $ ")
    assert lines[-1] == "[4/4] 0 s; missing: none"


def test_the_time_of_the_full_study_is_that_of_its_passes_at_the_measured_pace(tmp_path):
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    lines = run(tmp_path, PYTHON=str(stub)).stderr.splitlines()
    pace, images = 3 * 640 / 0.5, 30 * 49_000  # passes a second; a training's images
    regularizers = 8 * 1 + 2 * 3  # passes of an image: DER of 8 methods, GradAlign of 2
    attacks = (2 * 3 * 2 * 2 + 2 * 2) + 2 * 11 + 2 * 12
    seconds = {
        "benchmark": 12 * 600_000 / pace + 120,
        "train": images * (attacks + regularizers) / pace + 180,
        "evaluate": 18 * 2_700_000 / pace + 180,
        "sample": 1_000_000 / pace + 10,
    }
    text = lines[1].partition("missing: ")[2]
    for kind, expected in seconds.items():
        found = int(re.search(rf"{kind} \(about (\d+) min", text)[1])
        assert abs(found - expected / 60) <= 1
    assert (
        abs(int(re.search(r"; about (\d+) min in all", text)[1]) - sum(seconds.values()) / 60) <= 1
    )


def test_a_pace_that_cannot_be_measured_ends_the_study(tmp_path):
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    done = run(tmp_path, "--small", PYTHON=str(stub), FAIL="energy_at.benchmark")
    assert (done.returncode, done.stderr) == (1, "measuring the pace of this machine\n")


def test_a_misspelt_option_starts_nothing(tmp_path):
    done = run(tmp_path, "--lst")
    assert (done.returncode, done.stderr) == (1, "error: --lst must be --list, --small or --help\n")
    assert list(tmp_path.iterdir()) == []
