"""Commands that are killed, or meet a full disk, at any change of a file: nothing is lost.

Re-run, each ends with the files of a command that nothing has happened to.
"""

import csv
import io
import json
import random
import shutil
from pathlib import Path

import pytest

from energy_at import evaluate, report, train
from energy_at.evaluation.trained_model import state_digest
from energy_at.runs.checkpoints import read_checkpoint
from tests.helpers.faults import Faults, run
from tests.helpers.running import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("here")]

SAMPLE = 12  # places of a fault, of each command
SHORT = (*TINY, "trainer.enable_progress_bar=false", "dataset.subset=200", "trainer.max_epochs=2",
         "trainer.accelerator=cpu", "callbacks.energy.every=3", "reg=der")  # fmt: skip
TIMES = {"perf/images_per_s"}


def content(root):
    """Every file, without what depends on the clock."""
    return {
        path.relative_to(root).as_posix(): _content(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "environment.json"
    }


def _content(path):
    if path.suffix == ".ckpt":
        return state_digest(read_checkpoint(path)["state_dict"])
    if path.name == "metrics.csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    if path.name == "results.json":
        results = json.loads(path.read_text())
        results["training"].pop("seconds")
        return results
    return path.read_bytes()


def type_again(main, argv, root, log):
    """The same command until it ends well; a run that exists says how it is resumed."""
    for _ in range(2):
        code = run(main, argv, Faults(root), log)
        if code == 0:
            return
        said = log.read_text()
        assert "already holds a run: resume=" in said, said
        argv = [f"resume={root}"]
    raise AssertionError(log.read_text())


def places(total, fault):
    """Some of all places, other ones for each fault."""
    return sorted(random.Random(fault).sample(range(1, total + 1), min(total, SAMPLE)))


def check(fault, main, argv, root, prepare=lambda: None):
    log = Path("log.txt")
    prepare()
    assert run(main, argv, Faults(root.absolute()), log) == 0, log.read_text()
    total, whole = int(log.with_suffix(".count").read_text()), content(root)
    assert total > 10
    for at in places(total, fault):
        shutil.rmtree(root)
        prepare()
        code = run(main, argv, Faults(root.absolute(), at, fault), log)
        said = log.read_text()
        if fault == "kill":
            assert code == -9, said
        else:
            assert code == 1, said
            assert said.count("error: ") == 1, said
            assert f"{root.name}" in said, said
            assert "No space left on device" in said, said
            assert "Traceback" not in said, said
        type_again(main, argv, root.absolute(), log)
        again = content(root)
        assert again.keys() == whole.keys(), (at, again.keys() ^ whole.keys())
        assert [name for name in whole if again[name] != whole[name]] == [], at


@pytest.mark.parametrize("fault", ["kill", "full"])
@pytest.mark.parametrize("options", [(), ("callbacks=ema",), ("callbacks.last.every_n_steps=2",)])
def test_a_training(fault, options):
    check(fault, train.main, (*SHORT, *options, "hydra.run.dir=run"), Path("run"))


def test_a_sweep():
    argv = ("-m", *SHORT, "trainer.max_epochs=1", "seed=0,1", "hydra.sweep.dir=all")
    check("kill", train.main, argv, Path("all"))


@pytest.fixture
def trained(here):
    log = Path("log.txt")
    assert run(train.main, (*SHORT, "hydra.run.dir=run"), Faults(here / "out"), log) == 0
    return Path("run")


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_an_evaluation(fault, trained):
    argv = (f"run={trained}", "attacks=[fgsm,pgd]", "steps=2", "restarts=1", "subset=64",
            "batch_size=16", "progress=false", "out=results/out")  # fmt: skip
    check(fault, evaluate.main, argv, Path("results"), lambda: Path("results").mkdir())


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_report(fault, trained):
    argv = (f"runs={trained}", "out=results/out")
    check(fault, report.main, argv, Path("results"), lambda: Path("results").mkdir())
