"""A run that is watched: where it is, in the terminal and in the browser."""

import functools
import io
import itertools
import json
import shutil
import socket
import subprocess
import threading
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from energy_at.runs.folder import RunFolder
from energy_at.training.loggers import MetricsCSV
from energy_at.watch import __main__ as entry
from energy_at.watch.state import Watch
from energy_at.watch.terminal import clock, follow, sparkline
from tests.helpers.pages import BROWSER, Page
from tests.helpers.running import TINY, config, typed

PER_EPOCH = 4
RUN = (*TINY, "trainer.max_epochs=3", "dataset.batch_size=16", "reg=der")


@pytest.fixture(scope="module")
def composed():
    return config(*RUN)


@pytest.fixture
def begun(here, composed):
    return begin(here / "run", composed)


def begin(path, composed, weight=1.0):
    composed = composed.copy()
    composed.reg.weight = weight
    return RunFolder.create(path, composed, [f"reg.weight={weight:g}"], train_images=60)


def train(run, epochs, pgd=(0.4, 0.4, 0.0), alarm=None):
    """Writes epochs as a training does."""
    log = MetricsCSV(run.metrics_file)
    for epoch in epochs:
        for batch in range(PER_EPOCH):
            step = epoch * PER_EPOCH + batch + 1
            row = {"epoch": epoch, "train/delta_energy/marginal": step / 4, "train/aae_share": 0.5}
            if batch == PER_EPOCH - 1:
                row["perf/images_per_s"] = 32.0
            if step == alarm:
                row["alarm/co"] = 1.0
            log.log_metrics(row, step=step)
        accuracies = {"val/acc/fgsm": 0.5, "val/acc/pgd": pgd[epoch], "epoch": epoch}
        log.log_metrics(accuracies, step=(epoch + 1) * PER_EPOCH)
    log.save()


def state(watch):
    watch.update()
    (found,) = watch.states()
    return found


def said(watch, width=120, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    follow(watch, console=console)
    return console.file.getvalue()


# Where a run is


def test_an_empty_folder_waits_then_trains_then_ends(here, composed):
    folder = here / "run"
    folder.mkdir()
    watch = Watch(["run"])
    assert state(watch)["status"] == "waiting"
    run = begin(folder, composed)
    assert state(watch)["status"] == "waiting"
    train(run, [0])
    found = state(watch)
    assert (found["status"], found["step"], found["steps"]) == ("training", 4, 12)
    assert (found["epoch"], found["epochs"]) == (1, 3)
    assert found["seconds_left"] == 8 * 16 / 32
    assert not watch.has_ended
    train(run, [1, 2])
    assert state(watch)["status"] == "evaluating"
    run.write_results({"last": {"step": 12, "test": {"pgd": 0.25, "n": 100}}})
    found = state(watch)
    assert (found["status"], found["detail"], found["step"]) == (
        "finished",
        "collapsed at step 12",
        12,
    )
    assert found["results"]["last/test/acc/pgd"] == 25
    assert watch.has_ended


def test_a_run_that_was_killed_falls_silent(begun, monkeypatch):
    train(begun, [0])
    watch = Watch(["run"])
    assert state(watch)["status"] == "training"
    written = begun.metrics_file.stat().st_mtime
    monkeypatch.setattr("energy_at.watch.state.time.time", lambda: written + 600)
    found = state(watch)
    assert (found["status"], found["detail"]) == ("silent", "stopped, or stuck")
    assert found["age"] == pytest.approx(600)


def test_a_job_that_failed_says_why(begun):
    (begun.path / "error.txt").write_text("the loss is nan at step 3\n")
    watch = Watch(["run"])
    found = state(watch)
    assert (found["status"], found["detail"]) == ("failed", "the loss is nan at step 3")
    assert watch.has_ended


def test_values_are_in_percent_and_the_gap_is_a_difference(begun):
    train(begun, [0, 1])
    found = state(Watch(["run"]))
    assert found["last"]["train/aae_share"] == 50
    assert found["last"]["train/delta_energy/marginal"] == 2
    assert found["last"]["val/acc/fgsm - val/acc/pgd"] == pytest.approx(10)


def test_alarms_and_lost_robustness_are_marked(begun):
    train(begun, [0, 1, 2], alarm=7)
    assert state(Watch(["run"]))["marks"] == [
        {"name": "CO", "step": 7, "kind": "alarm"},
        {"name": "CO", "step": 12, "kind": "onset"},
    ]


def test_a_rollback_that_repeats_epochs_makes_the_training_longer(begun, composed):
    train(begun, [0, 1])
    watch = Watch(["run"])
    planned = state(watch)
    log = MetricsCSV(begun.metrics_file)
    log.log_metrics({"epoch": 1, "alarm/rollback": 4.0, "alarm/repeated": 2.0}, step=2 * PER_EPOCH)
    log.save()
    longer = state(watch)
    assert longer["epochs"] == planned["epochs"] + 2 == composed.trainer.max_epochs + 2
    assert longer["steps"] == planned["steps"] + 2 * PER_EPOCH


def test_a_resumed_run_is_not_counted_twice(begun):
    train(begun, [0, 1])
    watch = Watch(["run"])
    before = state(watch)
    MetricsCSV(begun.metrics_file).truncate(PER_EPOCH + 1)
    train(begun, [1])
    after = state(watch)
    assert after["version"] > before["version"]
    assert (after["step"], after["steps"]) == (before["step"], before["steps"])
    (watched,) = watch.runs.values()
    assert len(watched.curves()["train/delta_energy/marginal"]) == 2 * PER_EPOCH


def logged(folder, values):
    """Points of a metric with these values at the steps from 0 on."""
    rows = [f"{step},0,{value}" for step, value in enumerate(values)]
    folder.metrics_file.write_text("\n".join(["step,epoch,train/loss", *rows]) + "\n")
    watch = Watch([str(folder.path)])
    watch.update()
    (run,) = watch.runs.values()
    return np.array(run.curves()["train/loss"]), watch.states()[0]["last"]["train/loss"]


def test_a_curve_of_any_length_stays_short_and_keeps_range_and_mean(begun):
    values = np.random.default_rng(0).normal(size=12_345)
    points, last = logged(begun, values)
    rounded = functools.partial(pytest.approx, rel=1e-4, abs=1e-8)
    assert len(points) <= 400
    assert points[:, 1].min() == rounded(values.min())
    assert points[:, 3].max() == rounded(values.max())
    parts = list(itertools.pairwise(np.linspace(0, len(values), 401).astype(int)))
    assert points[:, 2] == rounded([values[a:b].mean() for a, b in parts])
    assert points[:, 0] == rounded([np.arange(a, b).mean() for a, b in parts])
    assert last == values[-1]


def test_a_short_curve_keeps_every_value_and_a_nan_leaves_a_gap(begun):
    points, last = logged(begun, [1.0, float("nan"), 3.0, float("inf")])
    assert points.tolist() == [[0, 1, 1, 1], [2, 3, 3, 3]]
    assert last == 3


def test_jobs_join_a_sweep_as_they_begin(here, composed):
    (here / "sweep").mkdir()
    watch = Watch(["sweep"])
    assert len(watch.states()) == 1  # the folder itself may become a run
    for job, weight in enumerate((0, 2)):
        train(begin(here / "sweep" / str(job), composed, weight), [0])
        watch.update()
    assert [s["name"] for s in watch.states()] == ["0", "1"]
    assert [s["overrides"] for s in watch.states()] == ["reg.weight=0", "reg.weight=2"]


# In the terminal


def test_the_terminal_shows_values_and_curves(begun):
    train(begun, [0, 1, 2], alarm=7)
    text = said(Watch(["run"]))
    for wanted in (
        "run  evaluating",
        "epoch 3/3",
        "step 12/12",
        "32 images/s",
        "alarm: CO at step 7",
        "CO by held-out PGD accuracy since step 12",
        "FGSM - PGD accuracy, held-out",
        "0.25 to 3",
        "3 nats",
        "50 %",
    ):
        assert wanted in text, wanted
    assert "…" not in said(Watch(["run"]), width=80)


def test_many_runs_get_a_line_each(here, composed):
    for name in "abc":
        train(begin(here / name, composed), [0])
    text = said(Watch(["a", "b", "c"]), width=140)
    assert [line.split()[0] for line in text.splitlines()] == ["run", "a", "b", "c"]


@pytest.mark.parametrize(("width", "failed"), [(80, "failed"), (140, "failed: the loss is nan")])
def test_a_line_has_room_for_what_was_swept(here, composed, width, failed):
    for name, beta in {"a": 0.5, "b": 12.25, "c": 20}.items():
        train(begin(here / name, composed, beta), [0])
    (here / "c" / "error.txt").write_text("the loss is nan: lower optimizer.lr\n")
    lines = said(Watch(["a", "b", "c"]), width=width).splitlines()
    swept = [line.partition("reg.weight=")[2].split()[0] for line in lines[1:]]
    assert swept == ["0.5", "12.25", "20"]
    assert failed in lines[3]
    assert "lower" not in lines[3]
    assert len(lines) == 4


def test_a_terminal_follows_until_the_end(begun):
    train(begun, [0])
    todo = [lambda: train(begun, [1, 2]), lambda: begun.write_results({})]
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    follow(Watch(["run"]), console=console, wait=lambda _: todo.pop(0)())
    assert not todo
    text = console.file.getvalue()
    assert text.index("training") < text.index("evaluating") < text.index("finished")


def test_sparklines_and_clocks():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(range(400), 40)) == 40
    assert [clock(s) for s in (None, 5, 65, 3661)] == ["-", "00:05", "01:05", "1:01:01"]


# In the browser


@pytest.fixture
def served(begun):
    """A run that trains, its server, and what asks it."""
    train(begun, [0, 1], alarm=7)
    with entry.PageServer(Watch(["run"]), 0, 0.2) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path, host="127.0.0.1"):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(served):
    status, content = ask(served, "/")
    html = content.decode()
    page = Page(html)
    assert status == 200
    assert page.mistakes == []
    assert page.loaded == []
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html


def test_the_curves_of_a_run_are_sent_once(served, begun):
    status, content = ask(served, "/data")
    assert status == 200
    (found,) = json.loads(content)["runs"]
    assert [p[0] for p in found["curves"]["train/aae_share"]] == list(range(1, 9))
    known = json.dumps({found["folder"]: found["version"]}).replace('"', "%22").replace(" ", "")
    assert "curves" not in json.loads(ask(served, f"/data?known={known}")[1])["runs"][0]
    train(begun, [2])
    (found,) = json.loads(ask(served, f"/data?known={known}")[1])["runs"]
    assert len(found["curves"]["train/aae_share"]) == 12


def test_nobody_else_is_answered(served):
    assert served.server_address[0] == "127.0.0.1"
    assert ask(served, "/data", host="evil.example:8000")[0] == 403
    assert ask(served, "/data", host="localhost:9000")[0] == 200
    assert ask(served, "/../config.yaml")[0] == 404


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the page is not looked at")
def test_a_browser_draws_every_curve_of_a_run(served, here):
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
        f"--user-data-dir={here / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        f"http://127.0.0.1:{served.server_port}/",
    ]  # fmt: skip
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    page = Page(dom)
    drawn = [a["aria-label"] for a in page.all("svg") if "aria-label" in a]
    assert drawn == [
        "dE(x), training",
        "abnormal adversarial examples",
        "FGSM - PGD accuracy, held-out",
        "PGD accuracy, held-out",
        "FGSM accuracy, held-out",
        "alarms",
    ]
    assert all("NaN" not in a.get("d", "") for a in page.all("path"))
    assert page.text.count("CO alarm") >= len(drawn)
    assert "step 8/12" in page.text


# What is typed


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name one of run=FOLDER, runs=[FOLDER,FOLDER]"),
        (["run=a", "runs=[b]"], "name one of run=FOLDER, runs=[FOLDER,FOLDER]"),
        (["runs=[]"], "names no run"),
        (["run=nowhere"], "nowhere is not a run folder"),
        (["run=other"], "other is not a run folder"),
        (["run=run", "port=70000"], "port=70000 must be"),
        (["run=run", "interval=0"], "interval=0 must be"),
        (["run=run", "+colour=red"], "nothing reads colour"),
    ],
)
def test_a_mistake_gets_one_line(begun, here, monkeypatch, capsys, argv, said):
    (here / "other").mkdir()
    (here / "other" / "mine.txt").touch()
    code, out, err = typed(monkeypatch, capsys, entry.main, *argv)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_a_port_in_use_gets_one_line(begun, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = typed(
            monkeypatch, capsys, entry.main, "run=run", "browser=true", f"port={port}"
        )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: port={port} is in use")


def test_a_number_may_name_a_run_and_nothing_is_written(begun, here, monkeypatch, capsys):
    train(begun, [0])
    shutil.move("run", "7")
    before = sorted(Path.cwd().rglob("*"))
    code, out, err = typed(monkeypatch, capsys, entry.main, "run=7", "once=true")
    assert (code, err) == (0, "")
    assert "step 4/12" in out
    assert sorted(Path.cwd().rglob("*")) == before


def test_ctrl_c_ends_the_server_in_one_line(begun, monkeypatch, capsys):
    def pressed(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", pressed)
    code, out, err = typed(monkeypatch, capsys, entry.main, "run=run", "browser=true", "port=0")
    assert (code, err) == (130, "\nstopped\n")
    assert out.startswith("http://127.0.0.1:")
