"""TensorBoard and MLflow, which may fail or hang without stopping or slowing a training.

Names and steps are those of ``metrics.csv``, as in W&B.
"""

import logging
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import Full, Queue
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from energy_at.core.extras import require_package
from energy_at.core.files import write_atomic
from energy_at.training.loggers import FINISH, TolerantWandb

WAITING = 100_000  # rows that may wait for a slow server


class Tracker(Logger):
    """Hands everything to a thread; the first failure disables it, with one line.

    Args:
        folder: Of the run.
        run_name: Such as ``FGSM-AT + DER w=20 s=0``.
        tags: Method, attack, eps, data set and seed.
        config: The resolved configuration.
    """

    label: ClassVar[str]

    def __init__(
        self,
        folder: str | Path,
        *,
        run_name: str = "",
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.run_name, self.tags = Path(folder), run_name, tags
        self.config = dict(config or {})
        self.step = 0  # the last one that was logged
        self._calls: Queue[Callable[[], None] | None] = Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._disabled = False

    @property
    def name(self) -> str:
        return self.label.lower()

    @property
    def version(self) -> None:
        """None: a run folder is one run."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the configuration is logged at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "step"}
        self.step = self.step if step is None else round(step)
        self._call(self.write, values, self.step)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float | str]) -> None:
        """Final accuracies, at the last step, and the status."""
        numbers = {name: float(v) for name, v in values.items() if not isinstance(v, str)}
        self._call(self.write, numbers, self.step)
        for name, text in values.items():
            if isinstance(text, str):
                self._call(self.write_text, name, text, self.step)

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        self._call(self.write_text, title, text, self.step)

    @rank_zero_only
    def log_figure(self, path: Path) -> None:
        """Shows a PNG file under its name."""
        self._call(self.write_figure, path, self.step)

    def log_artifact(self, files: Mapping[str, Path]) -> None:
        """Does nothing: the checkpoints are in the run folder."""

    @rank_zero_only
    def finish(self) -> None:
        """Ends the run; waits at most ``FINISH`` seconds for what was not written yet."""
        if self._thread is None:
            return
        self._call(self.close)
        with suppress(Full):
            self._calls.put_nowait(None)
        self._thread.join(FINISH)
        if self._thread.is_alive() and not self._disabled:
            self._disable(f"it did not answer for {FINISH:.0f} s")
        self._thread = None

    @abstractmethod
    def begin(self) -> None:
        """Starts or resumes a run; may raise anything, as may the following, in the thread."""

    @abstractmethod
    def write(self, values: Mapping[str, float], step: int) -> None:
        """Writes a row."""

    @abstractmethod
    def write_text(self, name: str, text: str, step: int) -> None:
        """Writes an alarm, or the status."""

    @abstractmethod
    def write_figure(self, path: Path, step: int) -> None:
        """Writes a PNG file."""

    @abstractmethod
    def close(self) -> None:
        """Ends the run."""

    def _call(self, write: Callable[..., None], *arguments: Any) -> None:
        if self._disabled:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        try:
            self._calls.put_nowait(lambda: write(*arguments))
        except Full:
            self._disable(f"{WAITING} rows wait for it")

    def _work(self) -> None:
        calls = self._calls
        call: Callable[[], None] | None = self.begin
        while call is not None and not self._disabled:
            try:
                call()
            except BaseException as error:  # also a library's SystemExit
                self._disable(" ".join(f"{type(error).__name__}: {error}".split())[:200])
            call = calls.get()

    def _disable(self, why: str) -> None:
        self._disabled = True
        sys.stderr.write(f"{self.label} has failed and is disabled from here on: {why}\n")


class TensorBoard(Tracker):
    """Event files in ``tensorboard`` of the run folder."""

    label = "TensorBoard"

    def begin(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if not isinstance(threading.excepthook, _AllButWriter):
            threading.excepthook = _AllButWriter(threading.excepthook)
        self._writer = SummaryWriter(str(self.folder / "tensorboard"))
        self.write_text("run", ", ".join([self.run_name, *self.tags]), 0)
        self.write_text("config", f"```\n{OmegaConf.to_yaml(self.config)}```", 0)

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def write_text(self, name: str, text: str, step: int) -> None:
        self._writer.add_text(name, text, step)

    def write_figure(self, path: Path, step: int) -> None:
        from matplotlib.image import imread

        pixels = imread(path)[:, :, :3]
        self._writer.add_image(f"figures/{path.stem}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


@dataclass(frozen=True)
class _AllButWriter:
    """Reports what threads raise, but for TensorBoard's: its next call raises the same."""

    report: Callable[[threading.ExceptHookArgs], Any]

    def __call__(self, failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            self.report(failed)


class MLflow(Tracker):
    """A run at MLflow's tracking server.

    Args:
        folder: Of the run, which keeps the identifier of the run at MLflow, for a resume.
        experiment: Of the server.
        tracking_uri: ``MLFLOW_TRACKING_URI``, or MLflow's default, if None.
        options: Of every tracker.
    """

    label = "MLflow"

    def __init__(
        self,
        folder: str | Path,
        *,
        experiment: str,
        tracking_uri: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(folder, **options)
        self.experiment_name, self.tracking_uri = experiment, tracking_uri
        with suppress(Exception):
            import_module("IPython")  # MLflow does, and matplotlib fails on a half-imported one
        self._run = ""

    def begin(self) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client = MlflowClient(self.tracking_uri)
        known = self.folder / ".mlflow_run"
        if known.is_file():
            self._run = known.read_text()
            self._client.update_run(self._run, "RUNNING")
            return
        found = self._client.get_experiment_by_name(self.experiment_name)
        number = (
            self._client.create_experiment(self.experiment_name)
            if found is None
            else found.experiment_id
        )
        run = self._client.create_run(number, run_name=self.run_name or None)
        self._run = run.info.run_id
        write_atomic(known, self._run)  # in place of a link, too
        self.write_text("tags", ", ".join(self.tags), 0)
        params = [Param(key, str(value)[:500]) for key, value in _leaves(self.config)]
        for first in range(0, len(params), 100):  # the most of one call
            self._client.log_batch(self._run, params=params[first : first + 100])

    def write(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def write_text(self, name: str, text: str, step: int) -> None:
        self._client.set_tag(self._run, name, text)

    def write_figure(self, path: Path, step: int) -> None:
        self._client.log_artifact(self._run, str(path), "figures")

    def close(self) -> None:
        self._client.set_terminated(self._run)


def tensorboard_logger(folder: str | Path, **about: Any) -> TensorBoard:
    """TensorBoard in the run folder.

    Raises:
        ImportError: if it is not installed.
    """
    _require("tensorboard")
    return TensorBoard(folder, **about)


def mlflow_logger(folder: str | Path, **about: Any) -> MLflow:
    """A run of MLflow.

    Raises:
        ImportError: if it is not installed.
    """
    _require("mlflow")
    return MLflow(folder, **about)


def trackers(loggers: Iterable[Logger]) -> list[TolerantWandb | Tracker]:
    """Those that take a status, alarms and figures too."""
    return [logger for logger in loggers if isinstance(logger, TolerantWandb | Tracker)]


def _require(package: str) -> None:
    require_package(package, package, f"logger={package}")


def _leaves(node: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
