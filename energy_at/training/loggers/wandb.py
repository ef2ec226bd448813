"""W&B that may be out of reach, or fail at any time, and never stops or slows a training."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import _DummyExperiment as DummyExperiment
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from energy_at.reporting.wandb_workspace import STEP, has_wandb_key, is_reachable, server

SUMMARIES = {  # besides the last value, which is the summary of all others
    "train/delta_energy/marginal": "min,max,last",
    "train/delta_energy/joint": "min,max,last",
    "train/delta_energy/shift_norm": "max,last",
    "train/aae_share": "max,last",
    "train/loss": "min,last",
    "val/acc/clean": "max,last",
    "val/acc/fgsm": "max,last",
    "val/acc/pgd": "max,last",
}
INIT = 30.0  # seconds that it has to begin a run
FINISH = 60.0  # seconds for what is not uploaded at the end of a training


class TolerantWandb(WandbLogger):
    """W&B whose first failure is told in one line, and after which the training goes on without.

    Args:
        mode: ``online``, ``offline``, or another that wandb knows.
        log_checkpoints: Keep the last and the best checkpoint as an artifact, after training.
        options: What Lightning's logger, or ``wandb.init``, takes. With the ``id`` of an earlier
            run that run is continued.
    """

    def __init__(self, *, mode: str, log_checkpoints: bool = False, **options: Any) -> None:
        settings = {"init_timeout": INIT, "finish_timeout": FINISH, "silent": mode == "offline"}
        super().__init__(mode=mode, settings=settings | options.pop("settings", {}), **options)
        self._wandb_init.pop("anonymous")  # wandb warns of it, whatever it is
        self.log_checkpoints = log_checkpoints
        self._left: Any = None  # a run that has failed

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run at W&B, begun when it is first needed; one that does nothing after a failure."""
        if self._experiment is None:
            self._experiment = self._begun()
            if not isinstance(self._experiment, DummyExperiment):
                self._id = self._experiment.id
        return self._experiment

    @property
    def version(self) -> str | None:
        """Id of the run at W&B, whatever has become of it; ``None`` if it never began."""
        return self._id

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Gives W&B up if anything is raised."""
        try:
            yield
        except Exception as error:
            self._give_up(error)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Sends a row."""
        with self.tolerated():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Sends what Lightning knows of the module. The configuration went with the beginning."""
        with self.tolerated():
            super().log_hyperparams(params)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float]) -> None:
        """Sends what belongs to no step."""
        with self.tolerated():
            self.experiment.summary.update(dict(values))

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        """Sends a message to whoever wants to be told."""
        with self.tolerated():
            self.experiment.alert(title=title, text=text)

    @rank_zero_only
    def log_artifact(self, files: Mapping[str, Path]) -> None:
        """Sends the checkpoints, if it was told to."""
        if not self.log_checkpoints or not files:
            return
        import wandb

        with self.tolerated():
            artifact = wandb.Artifact(f"checkpoints-{self.experiment.id}", type="model")
            for name, path in files.items():
                artifact.add_file(str(path), name=name)
            self.experiment.log_artifact(artifact)

    @rank_zero_only
    def finish(self) -> None:
        """Ends the run, and waits no longer than ``FINISH`` for what is not uploaded."""
        if self._experiment is not None:
            with self.tolerated():
                self._experiment.finish()
        if self._left is not None:  # or the next run of the process would go on with it
            with suppress(Exception):
                self._left.finish()

    def _begun(self) -> Any:
        """A run, offline where the server refuses it."""
        import wandb

        try:
            return _with_axes(wandb.init(**self._wandb_init))
        except Exception as error:
            if self._wandb_init["mode"] == "offline":
                tell(f"W&B has failed and is left out: {_why(error)}")
                return DummyExperiment()
            tell_offline(_why(error), self.save_dir or ".")
        self._wandb_init["mode"] = "offline"
        self._wandb_init["settings"]["silent"] = True
        return self._begun()

    def _give_up(self, error: Exception) -> None:
        if not isinstance(self._experiment, DummyExperiment):
            tell(f"W&B has failed and is left out from here on: {_why(error)}")
            nothing: Any = DummyExperiment()
            self._left, self._experiment = self._experiment, nothing


def wandb_logger(
    folder: str | Path,
    *,
    project: str,
    mode: str | None = None,
    **options: Any,
) -> TolerantWandb:
    """W&B, online where an API key is configured and its server answers, and offline otherwise.

    Args:
        folder: Of the run.
        project: At W&B.
        mode: ``online``, ``offline`` or ``disabled``, as ``WANDB_MODE`` would say it.
        options: What ``TolerantWandb``, or ``wandb.init``, takes.
    """
    place = str(Path(folder).absolute())  # wandb's own process may work elsewhere
    mode = _mode(mode or os.environ.get("WANDB_MODE") or None, folder)  # set to nothing is not set
    return TolerantWandb(save_dir=place, project=project, mode=mode, **options)


def _mode(asked: str | None, folder: str | Path) -> str:
    if asked is not None and asked != "online":
        return asked
    if not has_wandb_key():
        tell_offline("no API key is configured", folder)
        return "offline"
    if not is_reachable(server()):
        tell_offline(f"{server()} does not answer", folder)
        return "offline"
    return "online"


def conclude(
    loggers: Iterable[Logger], accuracies: Mapping[str, float], checkpoints: Mapping[str, Path]
) -> None:
    """Gives what a training has come to, where there is W&B, to its summary and artifacts.

    Args:
        loggers: Of the training.
        accuracies: Shares by name.
        checkpoints: Files by name.
    """
    for logger in loggers:
        if isinstance(logger, TolerantWandb):
            logger.log_summary(accuracies)
            logger.log_artifact(checkpoints)


def alert(loggers: Iterable[Logger], title: str, text: str) -> None:
    """Tells whoever wants to be told by W&B, where there is W&B."""
    for logger in loggers:
        if isinstance(logger, TolerantWandb):
            logger.alert(title, text)


def finish(loggers: Iterable[Logger]) -> None:
    """Ends what a run has begun at W&B: the next run of the process must begin its own."""
    for logger in loggers:
        if isinstance(logger, TolerantWandb):
            logger.finish()


def _with_axes(run: Any) -> Any:
    """The run, told what to draw its metrics against and what of them to sum up."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for name, summary in SUMMARIES.items():
        run.define_metric(name, step_metric=STEP, step_sync=True, summary=summary)
    return run


def _why(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def tell_offline(why: str, folder: str | Path) -> None:
    """Says why W&B runs offline, and the command that makes up for it."""
    place = Path(os.path.relpath(folder)) / "wandb" / "offline-run-*"
    tell(f"W&B runs offline: {why}; 'wandb sync {place}' uploads it later")


@rank_zero_only
def tell(line: str) -> None:
    """A line for the user."""
    sys.stderr.write(line + "\n")
