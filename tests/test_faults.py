"""Commands that get a signal, or meet a full disk, at any change of a file: nothing is lost.

Re-run, each ends with the files of a command that nothing has happened to. FAULTS_TABLE=FILE writes
the counts into the table of a Markdown file; FAULTS_MOST=N takes N places of each command, drawn.
"""

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from energy_at import analyse, evaluate, export, report, sample, train
from energy_at.overfitting import detector
from energy_at.runs.checkpoints import read_checkpoint, state_digest
from tests.helpers.faults import Faults, places, run, write_row
from tests.helpers.running import TINY, TINY_BN
from tests.helpers.samples import quick_classifier
from tests.helpers.wandb_files import without_key
from tests.helpers.wandb_server import serving

pytestmark = pytest.mark.slow

SHORT = (*TINY, "trainer.enable_progress_bar=false", "dataset.subset=200", "trainer.max_epochs=2",
         "trainer.accelerator=cpu", "callbacks.energy.every=3")  # fmt: skip
JUMPY = (*TINY_BN, "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
         "dataset.batch_size=32", "dataset.subset=96", "trainer.max_epochs=3",
         "callbacks.energy.every=2", "validation.attacks.pgd.steps=1", "optimizer.lr=0.05",
         "callbacks.sentinel.thresholds.aae_share=1e-6",
         "callbacks.sentinel.thresholds.alignment=0.999",
         "callbacks.sentinel.thresholds.window=4", "callbacks.sentinel.action=rollback",
         "callbacks.sentinel.rollbacks=2")  # fmt: skip
TIMES = {"perf/images_per_s"}
SECONDS = re.compile(
    rb'"(seconds|of_earlier_attempts)": (\{[^}]*\}|[\d.]+),?|- seconds: .*'
    rb"|, \S+ image steps/s, \S+ TFLOP/s"
)

LAST_CELL = {  # of minutes, in tables
    ".md": re.compile(rb"\|[^|\n]*\|$", re.MULTILINE),
    ".tex": re.compile(rb"&[^&\n]*$", re.MULTILINE),
    ".csv": re.compile(rb",[^,\n]*$", re.MULTILINE),
}


class Command(NamedTuple):
    """What is typed; with ``most`` only at some of the places, which are drawn."""

    main: Any
    argv: tuple[str, ...]
    most: int | None = None
    root: str = "run"


RESULTS = "results/out"
CODES = {"kill": (-9,), "interrupt": (130,), "terminate": (143, -15)}  # -15: a shell shows 143
COMMANDS = {
    "train": Command(train.main, (*SHORT, "reg=der", "hydra.run.dir=run")),
    "train, EMA": Command(train.main, (*SHORT, "callbacks=ema", "hydra.run.dir=run"), 10),
    "train, checkpoints within epochs": Command(
        train.main, (*SHORT, "callbacks.last.every_n_steps=2", "hydra.run.dir=run"), 10
    ),
    "train, AWP": Command(train.main, (*SHORT, "training.awp.gamma=0.01", "hydra.run.dir=run"), 10),
    "train, ELLE-A": Command(train.main, (*SHORT, "reg=elle_a", "hydra.run.dir=run"), 10),
    "train, TRADES": Command(
        train.main, (*SHORT, "attack=trades", "loss=trades", "hydra.run.dir=run"), 10
    ),
    "train, FGSM-PGI": Command(
        train.main, (*SHORT, "attack=fgsm_pgi", "loss=fgsm_pgi", "hydra.run.dir=run"), 10
    ),
    "train, rollback": Command(train.main, (*JUMPY, "hydra.run.dir=run"), 10),
    "train, sweep": Command(
        train.main,
        ("-m", *SHORT, "trainer.max_epochs=1", "seed=0,1", "hydra.sweep.dir=all"),
        30,
        "all",
    ),
    "evaluate": Command(
        evaluate.main,
        (
            "run=run",
            "attacks=[fgsm,pgd]",
            "steps=2",
            "restarts=1",
            "subset=16",
            "batch_size=4",
            "progress=false",
            f"out={RESULTS}",
        ),
        root="results",
    ),
    "analyse": Command(
        analyse.main,
        ("run=run", "attacks=[fgsm]", "subset=16", "progress=false", f"out={RESULTS}"),
        root="results",
    ),
    "sample": Command(
        sample.main,
        (
            "run=run",
            "n=20",
            "batch_size=10",
            "sampler.steps=3",
            "start.k=5",
            "progress=false",
            "quality=none",
            f"out={RESULTS}",
        ),
        root="results",
    ),
    "report": Command(report.main, ("runs=run", f"out={RESULTS}"), root="results"),
    "export": Command(export.main, ("run=run", f"out={RESULTS}.safetensors"), root="results"),
}

SIGNALLED = ("train", "train, sweep", "evaluate", "analyse", "sample", "report", "export")


def content(root):
    """Every file that is shown, without what depends on the clock."""
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
    if path.name == ".result.json":  # digests of all files, of those with seconds too
        record = json.loads(path.read_text())
        return record | {"files": sorted(record["files"])}
    data = SECONDS.sub(b"", path.read_bytes())
    if path.suffix in LAST_CELL and b"minutes with validation" in data:
        return LAST_CELL[path.suffix].sub(b"", data)
    return data


def type_again(main, argv, root, log):
    """The same command until it ends well."""
    assert run(main, argv, Faults(root), log) == 0, log.read_text()


def attempt(command, fault, at, root, whole):
    """What is wrong after a fault and typing the command again; nothing if all is well."""
    log = Path("log.txt")
    code, said = run(command.main, command.argv, Faults(root, at, fault), log), log.read_text()
    if fault in CODES and (code not in CODES[fault] or "Traceback" in said):
        return f"it ended with {code}: {said}"
    if fault == "full" and code == 0 and content(root) == whole:  # only a removal came after it
        return None
    if fault == "full":
        errors = [line for line in said.splitlines() if "error: " in line]
        most = 3 if command.root == "all" else 1  # one a job, and one of the sweep
        clear = all("No space left" in line and root.name in line for line in errors)
        if code != 1 or not 1 <= len(errors) <= most or not clear or "Traceback" in said:
            return f"a full disk ends with {code}: {errors or said}"
    try:
        type_again(command.main, command.argv, root, log)
    except AssertionError as error:
        return str(error)
    again = content(root)
    differ = [_difference(name, again[name], whole[name]) for name in whole if name in again]
    lines = [line for line in differ if line]
    return f"differ: {lines}; {again.keys() ^ whole.keys()}" if again != whole else None


def _difference(name, again, whole):
    """A file and, of text, its first line that is another."""
    if again == whole:
        return None
    lines = [text.splitlines() if isinstance(text, bytes) else [text] for text in (again, whole)]
    both = next((pair for pair in zip(*lines, strict=False) if pair[0] != pair[1]), ())
    return f"{name}: {' for '.join(str(line)[:300] for line in both)}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished run, after whose making nothing is imported any more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        command = COMMANDS["train"]
        assert run(command.main, command.argv, Faults(Path("run").absolute()), Path("log")) == 0
        return Path.cwd() / "run"


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in COMMANDS for fault in ("kill", "full")]
    + [(name, fault) for name in SIGNALLED for fault in ("interrupt", "terminate")],
)
def test_nothing_is_lost(name, fault, trained, here, monkeypatch):
    quick_classifier(monkeypatch)
    # an alarm needs a network that has learned, which takes longer than these trainings
    monkeypatch.setattr(detector, "has_learned", lambda accuracy, _: accuracy > 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))  # of the classifier
    command, root, log = COMMANDS[name], here / COMMANDS[name].root, Path("log.txt")

    def prepare():
        for made in (root, here / "cache"):
            shutil.rmtree(made, ignore_errors=True)
        if command.root == "results":
            shutil.copytree(trained, "run", dirs_exist_ok=True)
            root.mkdir()

    prepare()
    assert run(command.main, command.argv, Faults(root), log) == 0, log.read_text()
    seen, whole = json.loads(log.with_suffix(".json").read_text()), content(root)
    if name == "train, rollback":
        assert any(row["alarm/rollback"] for row in whole["metrics.csv"])
    chosen = places(seen)
    most = int(os.environ.get("FAULTS_MOST") or command.most or len(chosen))
    if most < len(chosen):
        chosen = sorted(random.Random(name + fault).sample(chosen, most))
    failed = {}
    for at in chosen:
        prepare()
        if why := attempt(command, fault, at, root, whole):
            failed[f"{at} {seen[at - 1]}"] = why
        print(f"{name}, {fault} at {at} of {len(seen)}, {seen[at - 1]}: {why or 'exact'}"[:500])
    if table := os.environ.get("FAULTS_TABLE"):
        good = len(chosen) - len(failed)
        write_row(Path(table), [name, fault, str(len(seen)), f"{good} of {len(chosen)}"])
    assert not failed, "\n".join(f"{place}: {why[:600]}" for place, why in failed.items())


@contextmanager
def refusing():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def hanging():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def dying():
    """A server that ends as soon as rows of the training are on the disk."""
    with serving() as server:

        def die():
            wait_for_rows(Path("online/metrics.csv"), 3)
            server.shutdown()
            server.server_close()

        threading.Thread(target=die, daemon=True).start()
        yield server.url


def wait_for_rows(file, n, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (file.is_file() and file.read_text().count("\n") > n):
        time.sleep(0.05)


@pytest.mark.parametrize("server", [refusing, hanging, dying])
def test_a_wandb_that_fails_changes_no_training(server, trained, here, monkeypatch):
    without_key(monkeypatch, here / "home")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    command, log = COMMANDS["train"], Path("log.txt")
    argv = (*command.argv[:-1], "logger=csv_wandb", "hydra.run.dir=online")
    with server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert run(command.main, argv, Faults(here / "online"), log) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    whole, found = content(trained), content(here / "online")
    same = [name for name in whole if name != "config.yaml" and found[name] == whole[name]]
    if table := os.environ.get("FAULTS_TABLE"):
        row = [
            "train, W&B",
            f"{server.__name__} server",
            "",
            f"{len(same)} of {len(whole) - 1} files",
        ]
        write_row(Path(table), row)
    assert len(same) == len(whole) - 1, same


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("starting", [True, False])
def test_a_killed_rank_ends_the_others_with_one_line(rank, starting, here):
    argv = (*SHORT, "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=9999")
    command = [sys.executable, "-m", "energy_at.train", *argv, "hydra.run.dir=run"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    second = started_by(first.pid)
    if not starting:
        wait_for_rows(Path("run/metrics.csv"), 20)
    os.kill([first.pid, second][rank], signal.SIGKILL)
    said = first.communicate(timeout=120)[1]  # when both have closed it
    lines = [line for line in said.splitlines() if not line.startswith("warning: trainer.devices")]
    line = f"error: another process of this training has ended: resume={here / 'run'} continues it"
    assert lines == [line], said
    assert first.returncode == (1 if rank else -signal.SIGKILL)
    if table := os.environ.get("FAULTS_TABLE"):
        fault = f"kill of rank {rank}" + ", at the start" * starting
        write_row(Path(table), ["train, two processes", fault, "", "one line"])


def started_by(process, seconds=300):
    """The process that a training starts to train with it; it starts git, too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            with suppress(FileNotFoundError):
                if b"hydra.mode=RUN" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        time.sleep(0.05)
    raise AssertionError("it has started no process")
