"""Versions, optional extras, processor, GPU and W&B."""

import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from energy_at.core.device import processor_name
from energy_at.core.extras import install
from energy_at.doctor import Checks, Verdict, require

PROJECT = "energy_at"
MALWARE = {"lightning": ("2.6.2", "2.6.3")}
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a Linux container
SHOWN = (PROJECT, "torch", "torchvision", "lightning", "hydra-core", "numpy", "wandb")


def checks(*_: object) -> Checks:
    return {
        "python": python_version,
        "packages": packages,
        "extras": extras,
        "cpu": cpu,
        "cuda": cuda,
        "wandb": wandb_mode,
    }


def python_version() -> Verdict:
    needed, found = distribution(PROJECT).metadata["Requires-Python"], platform.python_version()
    supported = SpecifierSet(needed).contains(found, prereleases=True)
    return require(
        {f"Python is {needed}, this is {found}": supported},
        f"{found} ({needed} needed), {platform.system()} {platform.machine()}",
        f"make a virtual environment with Python {needed}",
    )


def packages() -> Verdict:
    """Whether every required package is installed in a supported version that fits the others."""
    needed = requirements(PROJECT)
    infected = [f"{name} {_version(name)}" for name in MALWARE if _version(name) in MALWARE[name]]
    if infected:
        install = f"pip install -U {_quoted(r for r in needed if r.name in MALWARE)}"
        remedy = f"{install}; replace every key and password that this machine could read"
        return Verdict("fail", f"{', '.join(infected)} is malware", remedy)
    unmet = [requirement for requirement in needed if not _is_met(requirement)]
    if unmet:
        message = "; ".join(f"{r} is needed, {_installed(r.name)}" for r in unmet)
        return Verdict("fail", message, f"pip install -U {_quoted(unmet)}")
    conflicts = [
        (requirement.name, inner)
        for requirement in needed
        for inner in requirements(requirement.name)
        if not _is_met(inner)
    ]
    if conflicts:
        message = "; ".join(f"{name} needs {r}, {_installed(r.name)}" for name, r in conflicts)
        return Verdict("warn", message, f"pip install -U {_quoted(r for _, r in conflicts)}")
    versions = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return require({"requirements are listed": bool(needed)}, versions, f"pip install -U {PROJECT}")


def extras() -> Verdict:
    names = distribution(PROJECT).metadata.get_all("Provides-Extra") or []
    found = []
    for name in names:
        missing = [r.name for r in requirements(PROJECT, name) if not _is_met(r)]
        how = f" ({', '.join(missing)}): {install(name)}"
        found.append(f"{name} is not installed{how}" if missing else f"{name} is installed")
    return Verdict("pass", "; ".join(found) or "no extras")


def cpu() -> Verdict:
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    threads = max(torch.get_num_threads(), int(asked) if asked.isdigit() else 0)
    cores = cores_to_use()
    message = f"{processor_name()}; cores: {cores}, threads: {threads}"
    if threads <= cores:
        return Verdict("pass", message)
    remedy = f"export OMP_NUM_THREADS={cores} (and MKL_NUM_THREADS, where it is set)"
    return Verdict("warn", f"{message}, so they wait for each other", remedy)


def cuda() -> Verdict:
    """Whether the GPU, if any, computes what the CPU computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.cuda.is_available()
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    if not found:
        return Verdict("pass", f"no GPU: everything runs on the CPU (torch is built {built})")
    matrix = torch.randn((64, 64), generator=torch.Generator().manual_seed(0))
    off = float(((matrix.cuda() @ matrix.cuda()).cpu() - matrix @ matrix).abs().max())
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info())
    return require(
        {f"a product of matrices on the GPU is that of the CPU (off by {off:.1e})": off < 0.1},
        f"{torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GiB free, "
        f"{torch.cuda.device_count()} of them, torch built {built}",
        "install a torch that is built for this GPU and its driver: https://pytorch.org",
    )


def wandb_mode() -> Verdict:
    """The mode of W&B with ``logger=csv_wandb``, the default."""
    from energy_at.reporting.wandb_workspace import has_wandb_key

    mode, has_key = os.environ.get("WANDB_MODE") or None, has_wandb_key()
    if mode is None:
        online = "online: an API key is configured"
        return Verdict("pass", online if has_key else "offline: no API key ('wandb login' sets it)")
    import wandb  # takes a second, only needed where the mode is set

    settings: dict[str, Any] = {"mode": mode}
    try:
        wandb.Settings(**settings)
    except ValueError:
        message = f"WANDB_MODE={mode} is invalid: a training would run without W&B"
        remedy = "unset WANDB_MODE, or set it to online, offline or disabled"
        return Verdict("fail", message, remedy)
    if mode in ("online", "run", "shared") and not has_key:
        message = f"WANDB_MODE={mode}, but no API key is configured: a training would run offline"
        return Verdict("warn", message, "wandb login, or unset WANDB_MODE to run offline")
    return Verdict("pass", f"{mode}: set by WANDB_MODE")


def requirements(package: str, extra: str = "") -> list[Requirement]:
    """Requirements of an installed package on this machine, or those that an extra adds."""
    parsed = [Requirement(line) for line in requires(package) or []]
    return [r for r in parsed if _applies(r, extra) and not (extra and _applies(r, ""))]


def cores_to_use() -> int:
    """Cores that this process may use, by CPU affinity and the quota of a container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if QUOTA.is_file():
        share, period = QUOTA.read_text().split()
        cores = cores if share == "max" else min(cores, -(-int(share) // int(period)))
    return cores


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _is_met(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _installed(package: str) -> str:
    found = _version(package)
    return "not installed" if found is None else f"{found} is installed"


def _quoted(needed: Iterator[Requirement] | Sequence[Requirement]) -> str:
    return " ".join(f"'{r.name}{r.specifier}'" for r in needed)
