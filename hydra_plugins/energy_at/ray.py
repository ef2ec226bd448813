"""Jobs of a sweep as tasks of a Ray cluster.

``hydra-ray-launcher`` needs cloudpickle < 3, and joblib a later one.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from energy_at.config.versions import BASE
from energy_at.core.extras import install

WAIT = 5  # seconds for the address of a cluster to answer
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4
_SETTINGS = 4  # type of the frame that answers it


class RayLauncher(Launcher):
    """Runs every job in a worker process of its own.

    Args:
        address: Of a running cluster: ``HOST:PORT``, ``ray://HOST:PORT``, or ``auto`` for the one
            of this machine. ``None`` starts Ray here and ends it after the sweep.
        cpus_per_job: CPU cores that a job reserves, and the threads it computes with.
        gpus_per_job: GPUs that a job reserves; 0.5 lets two jobs share one.
        num_cpus: Cores of the Ray that is started here; ``None`` for all.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus_per_job: float = 1,
        gpus_per_job: float = 0,
        num_cpus: int | None = None,
    ) -> None:
        self.address = address
        self.cpus_per_job = cpus_per_job
        self.gpus_per_job = gpus_per_job
        self.num_cpus = num_cpus

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what the jobs need."""
        require_reachable(self.address)
        self.hydra_context, self.task, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs the jobs, as many at a time as there is room for.

        Raises:
            RayError: of the first job that was lost, when all others are done.
        """
        import ray

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        ray.init(**self._cluster())
        try:
            run = ray.remote(
                num_cpus=self.cpus_per_job, num_gpus=self.gpus_per_job, max_calls=1, max_retries=0
            )(run_one)
            shared = ray.put((self.hydra_context, self.task, self.config, Singleton.get_state()))
            jobs = [
                run.remote(initial_job_idx + place, list(overrides), shared)
                for place, overrides in enumerate(job_overrides)
            ]
            ray.wait(jobs, num_returns=len(jobs))
            found: list[JobReturn] = ray.get(jobs)
            return found
        finally:
            ray.shutdown()

    def _cluster(self) -> dict[str, Any]:
        quiet = {"logging_level": "error", "configure_logging": True}
        if self.address is not None:
            return {"address": self.address, **quiet}
        here = {"num_cpus": self.num_cpus, "include_dashboard": False}
        return {"address": "local", **here, **quiet}


def run_one(number: int, overrides: list[str], shared: tuple[Any, ...]) -> JobReturn:
    """One job, in a worker."""
    context, task, config, singletons = shared
    setup_globals()
    Singleton.set_state(singletons)
    for base in BASE.values():
        version.setbase(base)
    job = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    HydraConfig.instance().set_config(job)
    return run_job(
        hydra_context=context,
        config=job,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def require_reachable(address: str | None) -> None:
    """Refuses a cluster that does not answer; Ray itself would wait for minutes.

    Raises:
        ValueError: if nothing listens there, or Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ValueError(f"hydra/launcher=ray needs Ray: {install('ray')}") from error
    if address in (None, "auto", "local"):
        return
    place = urlsplit(str(address) if "://" in str(address) else f"//{address}")
    try:
        port = place.port
    except ValueError:
        port = None
    if not place.hostname or port is None:
        raise ValueError(f"hydra.launcher.address={address} is no address: write HOST:PORT")
    try:
        speaks = speaks_http2(place.hostname, port)
    except OSError as error:
        raise ValueError(
            f"no Ray cluster answers at hydra.launcher.address={address} ({error}): start one "
            "with 'ray start --head', or leave the address out to use this machine"
        ) from error
    if not speaks and os.environ.get("RAY_USE_TLS", "0") == "0":
        raise ValueError(
            f"something else than a Ray cluster answers at hydra.launcher.address={address}: name "
            "the port that 'ray start --head' has printed"
        )


def speaks_http2(host: str, port: int) -> bool:
    """Whether a server begins as those of Ray do; of another, Ray would wait minutes for more."""
    with socket.create_connection((host, port), timeout=WAIT) as link:
        link.sendall(_PREFACE)
        try:
            frame = link.recv(9)  # length, type, flags, stream
        except OSError:
            return False
    return len(frame) > 3 and frame[3] == _SETTINGS
