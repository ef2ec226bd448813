"""Versions, optional extras, processor and GPU."""

import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from energy_at.doctor.findings import Checks, Verdict, judged, passed

PROJECT = "energy_at"
MALWARE = {"lightning": ("2.6.2", "2.6.3")}
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a Linux container
SHOWN = (PROJECT, "torch", "torchvision", "lightning", "hydra-core", "numpy", "wandb")


def checks() -> Checks:
    """Checks of what is installed, and where."""
    return {
        "python": python_version,
        "packages": packages,
        "extras": extras,
        "cpu": cpu,
        "cuda": cuda,
    }


def python_version() -> Verdict:
    """Whether the project supports this Python."""
    needed, found = distribution(PROJECT).metadata["Requires-Python"], platform.python_version()
    supported = SpecifierSet(needed).contains(found, prereleases=True)
    return judged(
        {f"Python is {needed}, this is {found}": supported},
        f"{found} ({needed} needed), {platform.system()} {platform.machine()}",
        f"make a virtual environment with Python {needed}",
    )


def packages() -> Verdict:
    """Whether every required package is there in a version that serves, and fits the others."""
    needed = requirements(PROJECT)
    infected = [f"{name} {version(name)}" for name in MALWARE if _is_infected(name)]
    if infected:
        return Verdict(
            "fail",
            f"{', '.join(infected)} is malware",
            f"pip install -U {_quoted(r for r in needed if r.name in MALWARE)}; replace every key "
            "and password that this machine could read",
        )
    unmet = [requirement for requirement in needed if not _is_met(requirement)]
    if unmet:
        said = "; ".join(f"{r} is needed, {_installed(r.name)}" for r in unmet)
        return Verdict("fail", said, f"pip install -U {_quoted(unmet)}")
    quarrels = [
        (requirement.name, inner)
        for requirement in needed
        for inner in requirements(requirement.name)
        if not _is_met(inner)
    ]
    if quarrels:
        said = "; ".join(f"{name} needs {r}, {_installed(r.name)}" for name, r in quarrels)
        return Verdict("warn", said, f"pip install -U {_quoted(r for _, r in quarrels)}")
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return judged({"requirements are known": bool(needed)}, shown, f"pip install -U {PROJECT}")


def extras() -> Verdict:
    """Which optional extras are there: stated, for none is needed."""
    names = distribution(PROJECT).metadata.get_all("Provides-Extra") or []
    return passed("; ".join(_extra(name) for name in names) or "none is offered")


def cpu() -> Verdict:
    """Whether as many threads compute as there are cores to compute on."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    threads = max(torch.get_num_threads(), int(asked) if asked.isdigit() else 0)
    cores = cores_to_use()
    said = f"{_cpu_name()}; cores: {cores}, threads: {threads}"
    if threads > cores:
        return Verdict(
            "warn",
            f"{said}, so they wait for each other",
            f"export OMP_NUM_THREADS={cores} (and MKL_NUM_THREADS, where it is set)",
        )
    return passed(said)


def cuda() -> Verdict:
    """Whether the GPU, where there is one, computes what the CPU computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.cuda.is_available()
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    if not found:
        return passed(f"none: everything runs on the CPU (torch is built {built})")
    matrix = torch.randn((64, 64), generator=torch.Generator().manual_seed(0))
    off = float(((matrix.cuda() @ matrix.cuda()).cpu() - matrix @ matrix).abs().max())
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info())
    return judged(
        {f"a product of matrices on the GPU is that of the CPU (off by {off:.1e})": off < 0.1},
        f"{torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GiB free, "
        f"{torch.cuda.device_count()} of them, torch built {built}",
        "install a torch that is built for this GPU and its driver: https://pytorch.org",
    )


def requirements(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package requires on this machine; or what one of its extras adds."""
    parsed = [Requirement(line) for line in requires(package) or []]
    return [r for r in parsed if _applies(r, extra) and not (extra and _applies(r, ""))]


def cores_to_use() -> int:
    """Cores of the machine that this process may use: affinity, and the quota of a container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if QUOTA.is_file():
        share, period = QUOTA.read_text().split()
        cores = cores if share == "max" else min(cores, -(-int(share) // int(period)))
    return cores


def _extra(name: str) -> str:
    missing = [r.name for r in requirements(PROJECT, name) if not _is_met(r)]
    if missing:
        return f"{name} is not installed ({', '.join(missing)}): pip install '{PROJECT}[{name}]'"
    return f"{name} is installed"


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _is_infected(package: str) -> bool:
    return _version(package) in MALWARE[package]


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


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", info.read_text(), re.M) if info.is_file() else None
    return named[1] if named else platform.processor() or platform.machine() or sys.platform
