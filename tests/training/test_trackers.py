"""TensorBoard and MLflow: what they are handed, and what a training notices when they fail."""

import csv
import importlib
import sys
import threading
import time
from threading import Event
from unittest.mock import Mock

import pytest

from energy_at.core.extras import install
from energy_at.training import trackers
from energy_at.training.loggers import csv_logger
from energy_at.training.trackers import Tracker, mlflow_logger, tensorboard_logger
from tests.helpers.running import ONE_EPOCH, assert_refused, train_in


class Recorder(Tracker):
    """A tracker that keeps what it is handed, and fails or hangs where it is asked to."""

    label = "Recorder"

    def __init__(self, folder, *, failing="", hanging=""):
        super().__init__(folder, run_name="FGSM-AT s=0", tags=["digits"])
        self.failing, self.hanging, self.got = failing, hanging, []
        self.open = Event()

    def _take(self, what, *values):
        if what == self.failing:
            raise OSError("no route to host")
        if what == self.hanging:
            self.open.wait(30)
        self.got.append((what, *values))

    def begin(self):
        self._take("begin")

    def write(self, values, step):
        self._take("write", values, step)

    def write_text(self, name, text, step):
        self._take("text", name, text, step)

    def write_figure(self, path, step):
        self._take("figure", path.name, step)

    def close(self):
        self._take("close")


def log(tracker, folder):
    for step in (1, 2):
        tracker.log_metrics({"step": 9.0, "train/loss": step / 2}, step=step)
    tracker.alert("CO alarm", "at step 2")
    tracker.log_figure(folder / "delta_energy.png")
    tracker.log_summary({"last/test/acc/clean": 0.5, "status": "robust"})


def test_a_tracker_is_handed_names_and_steps_of_the_log(tmp_path, capsys):
    tracker = Recorder(tmp_path)
    log(tracker, tmp_path)
    tracker.finish()
    assert tracker.got == [
        ("begin",),
        ("write", {"train/loss": 0.5}, 1),
        ("write", {"train/loss": 1.0}, 2),
        ("text", "CO alarm", "at step 2", 2),
        ("figure", "delta_energy.png", 2),
        ("write", {"last/test/acc/clean": 0.5}, 2),
        ("text", "status", "robust", 2),
        ("close",),
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("failing", ["begin", "write", "text", "close"])
def test_the_first_failure_disables_a_tracker_with_one_line(tmp_path, capsys, failing):
    tracker = Recorder(tmp_path, failing=failing)
    log(tracker, tmp_path)
    tracker.finish()
    line = "Recorder has failed and is disabled from here on: OSError: no route to host\n"
    assert capsys.readouterr().err == line
    assert failing not in {what for what, *_ in tracker.got}
    log(tracker, tmp_path)  # takes what it is handed, and does nothing
    tracker.finish()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("waiting", "why"), [(100, "it did not answer for 0 s"), (2, "2 rows wait for it")]
)
def test_a_tracker_that_hangs_holds_nobody(tmp_path, capsys, monkeypatch, waiting, why):
    monkeypatch.setattr(trackers, "FINISH", 0.1)
    monkeypatch.setattr(trackers, "WAITING", waiting)
    tracker = Recorder(tmp_path, hanging="begin")
    start = time.monotonic()
    log(tracker, tmp_path)
    tracker.finish()
    assert time.monotonic() - start < 10
    line = f"Recorder has failed and is disabled from here on: {why}\n"
    assert capsys.readouterr().err == line
    tracker.open.set()


def test_what_is_not_installed_is_one_line(type_train, monkeypatch, here):
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: None)
    for name in ("tensorboard", "mlflow"):
        said = f"logger={name} needs {name}: {install(name)}"
        assert_refused(type_train, said, *ONE_EPOCH, f"logger=[csv,{name}]")


def test_those_with_a_status_are_told_it(tmp_path):
    tracker = Recorder(tmp_path)
    assert trackers.trackers([csv_logger(tmp_path), tracker]) == [tracker]


def columns(run):
    """Values of metrics.csv by column and step."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "step"]
    return {n: {int(row["step"]): float(row[n]) for row in rows if row[n]} for n in names}


def test_tensorboard_has_the_names_steps_and_values_of_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    trained = train_in(tmp_path / "run", *ONE_EPOCH, "logger=[csv,tensorboard]")
    reader = "tensorboard.backend.event_processing.event_accumulator"
    events = importlib.import_module(reader).EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    assert {*columns(trained)} <= {*events.Tags()["scalars"]}
    for name, values in columns(trained).items():
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(values, rel=1e-5, abs=1e-9, nan_ok=True)
    assert "last/test/acc/clean" in events.Tags()["scalars"]
    assert events.Tags()["images"] == ["figures/delta_energy"]


def test_a_full_disk_is_one_line_of_tensorboard(tmp_path, monkeypatch, capsys):
    """Also where the library's own thread is the one that writes and fails."""
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer").RecordWriter
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(writer, "write", Mock(side_effect=full))
    monkeypatch.setattr(threading, "excepthook", hook := Mock())
    tracker = tensorboard_logger(tmp_path)
    for step in range(100):
        tracker.log_metrics({"train/loss": 0.5}, step)
    tracker.finish()
    line = f"TensorBoard has failed and is disabled from here on: OSError: {full}\n"
    assert capsys.readouterr().err == line
    other = threading.Thread(target=lambda: 1 / 0)
    other.start()
    other.join()
    assert [call.args[0].exc_type for call in hook.mock_calls] == [ZeroDivisionError]


def test_mlflow_finds_ipython_whole(tmp_path, monkeypatch):
    """MLflow imports it in the thread; matplotlib reads the version of what it finds."""
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.delitem(sys.modules, "IPython")
    (tmp_path / "IPython.py").write_text("version_info = (9, 0)")
    monkeypatch.syspath_prepend(tmp_path)
    trackers.MLflow(tmp_path, experiment="mine")
    assert sys.modules["IPython"].version_info == (9, 0)


@pytest.mark.slow
def test_mlflow_resumes_the_run_that_its_folder_names(tmp_path):
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for step in (1, 2):
        logger = mlflow_logger(
            tmp_path, experiment="mine", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            run_name="FGSM-AT s=0", tags=["digits"], config={"reg": {"weight": 20.0}},
        )  # fmt: skip
        logger.log_metrics({"train/loss": 0.5}, step=step)
        logger.finish()
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (run.info.run_name, run.info.status) == ("FGSM-AT s=0", "FINISHED")
    assert run.data.params == {"reg.weight": "20.0"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.5)]


def test_the_loggers_are_made_where_they_are_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: True)
    assert tensorboard_logger(tmp_path, run_name="a").name == "tensorboard"
    assert mlflow_logger(tmp_path, experiment="mine").name == "mlflow"
