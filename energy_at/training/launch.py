"""Start of the processes that train one network together, and the checks before it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator

import __main__
from energy_at.core.device import available_cores
from energy_at.core.files import is_first
from energy_at.core.progress import write_line
from energy_at.core.rules import ArgumentError
from energy_at.core.trust import VARIABLE as TRUST
from energy_at.core.trust import trusted_packages
from energy_at.data import ImageData

_ENTRY = "energy_at.train"
_RESTORING = "checkpoint_connector"
_OF_A_CHECKPOINT = (LookupError, TypeError, AttributeError, RuntimeError, ValueError)
_LOST = re.compile("Connection (closed|reset|refused)|Broken pipe|remote process exited", re.I)
_PARENT = "ENERGY_AT_PARENT"  # the process that has started this one to train with it
_VARIABLES = (
    *("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"),
    *(TRUST, _PARENT),
)
_POLL = 0.5  # seconds


def require_startable(trainer: Trainer, data: ImageData) -> None:
    """Raises ``ValueError`` for what several processes would only fail at after their start.

    A batch with fewer images than processes, no way to start the others, or a port in use. Warns
    of more processes than cores.
    """
    if trainer.world_size == 1:
        return
    for name, images in {"batch_size": len(data.train), "eval_batch_size": len(data.val)}.items():
        size = getattr(data, name)
        last = images % size or min(images, size)
        if last < trainer.world_size:
            few = f"leaves {last} of {images} images to the last batch"
            must = f"another: it {few}, fewer than the {trainer.world_size} processes"
            raise ArgumentError(name, size, must)
    port = os.environ.get("MASTER_PORT")
    has_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if trainer.is_global_zero and port is not None and not has_store:
        _require_port(port)
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or not environment.creates_processes_externally:
        if trainer.num_nodes > 1 and not {"NODE_RANK", "GROUP_RANK"} & os.environ.keys():
            raise ValueError(
                f"trainer.num_nodes={trainer.num_nodes} needs a process on every node: start them "
                "with torchrun or srun"
            )
        spec = getattr(__main__, "__spec__", None)
        if spec is None or spec.name != _ENTRY:
            raise ValueError(
                f"trainer.devices={trainer.num_devices} starts the command once for each process, "
                f"which only python -m {_ENTRY} and hydra/launcher=basic can: use them, or torchrun"
            )
    if trainer.is_global_zero and isinstance(trainer.accelerator, CPUAccelerator):
        warn_of_cores(trainer.num_devices)


def warn_of_cores(processes: int) -> None:
    """Prints a warning if more processes are to be started than there are cores for."""
    cores = available_cores()
    if processes > cores:
        write_line(
            f"warning: trainer.devices={processes} starts {processes} processes, but "
            f"{cores} CPU core{'s'[: cores > 1]} and no GPU are there: they slow each other down"
        )


def fit(
    trainer: Trainer,
    module: LightningModule,
    data: ImageData,
    folder: Path,
    checkpoint: Path | None,
    overrides: Sequence[str],
) -> None:
    """Trains to the end, or ends the process with a line that says how to resume.

    Other processes are started with the ``overrides`` of the command line.
    """
    place = "hydra.run.dir" if checkpoint is None else "resume"
    command = [*overrides, f'{place}="{folder}"', "hydra.mode=RUN"]
    lost = f"another process of this training has ended: resume={folder} continues it"
    with _worker_command(trainer, command), suppress(SystemExit):  # with 0 for SIGTERM
        try:
            with _ending_with_others(trainer, lost), _naming_callback():
                trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        except _OF_A_CHECKPOINT as error:
            if checkpoint is not None and _was_restoring(error):
                why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise ValueError(f"checkpoint {checkpoint} is damaged ({why})") from error
            if trainer.world_size > 1 and _LOST.search(str(error)):
                raise RuntimeError(lost) from error
            raise
    terminated = trainer.received_sigterm
    if terminated or not trainer.state.finished:
        if trainer.is_global_zero:
            step = trainer.global_step
            sys.stderr.write(f"stopped at step {step}: resume={folder} continues it\n")
        sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))


@contextmanager
def _naming_callback() -> Iterator[None]:
    """Names a callback of Lightning that does not fit, if it is the one that has failed."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        found = [one for frame in frames if isinstance(one := frame.f_locals.get("self"), Callback)]
        theirs = [one for one in found if type(one).__module__.startswith("lightning.")]
        ours = str(frames[-1].f_globals.get("__name__")).startswith("energy_at.")
        if not theirs or ours:
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        name = type(theirs[-1]).__name__
        raise ValueError(
            f"callbacks: {name} fails in this training ({why}): leave it out"
        ) from error


def _was_restoring(error: BaseException) -> bool:
    """Whether Lightning raised it while it read the state of a training."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [code.co_name for code in codes if Path(code.co_filename).stem == _RESTORING]
    return any("restore" in name or "resume" in name for name in found)


@contextmanager
def _worker_command(trainer: Trainer, command: Sequence[str]) -> Iterator[None]:
    """Sets the command line of the other processes: Lightning's is that of this one, of a sweep.

    They trust what this one does, also where a run is resumed, whose overrides never say it.
    Afterwards the process group and its variables are removed: the next training starts its own.
    """
    if trainer.world_size == 1:
        yield
        return
    argv, config = sys.argv, HydraConfig.instance().cfg
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ[TRUST] = ",".join(trusted_packages())
    if is_first():
        os.environ[_PARENT] = str(os.getpid())
    sys.argv = [argv[0], *command]
    HydraConfig.instance().cfg = None
    try:
        yield
    finally:
        sys.argv, HydraConfig.instance().cfg = argv, config
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _ending_with_others(trainer: Trainer, line: str) -> Iterator[None]:
    """Ends this process with a line if one that it started, or that started it, is killed.

    One that waits for the others, to start or for a batch, would wait for minutes. Lightning looks
    after processes that it has started, and kills this one without a word, even in a later job.
    """
    over = threading.Event()
    if trainer.world_size > 1:
        threading.Thread(target=_watch, args=(trainer, over, line), daemon=True).start()
    try:
        yield
    except Exception:
        for one in _started(trainer):
            one.kill()
        raise
    finally:
        over.set()
        _started(trainer).clear()


def _started(trainer: Trainer) -> list["subprocess.Popen[bytes]"]:
    return getattr(trainer.strategy.launcher, "procs", [])


def _watch(trainer: Trainer, over: threading.Event, line: str) -> None:
    parent = os.environ.get(_PARENT)
    while not over.wait(_POLL):
        killed = [one for one in _started(trainer) if (one.poll() or 0) < 0]
        for one in killed:
            _started(trainer).remove(one)  # before Lightning sees it
        orphaned = not is_first() and parent not in (None, str(os.getppid()))
        if (killed or orphaned) and not over.wait(2 * _POLL):  # for an error of its own
            for one in _started(trainer):
                one.kill()
            if killed or os.environ.get("LOCAL_RANK") == "1":  # one line from all
                sys.stderr.write(f"error: {line}\n")
            os._exit(1)


def _require_port(port: str) -> None:
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"MASTER_PORT={port} must be a port from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            raise ValueError(
                f"MASTER_PORT={port} is not available ({error.strerror}): choose another, or unset "
                "it to use a free one"
            ) from error
