"""What the doctor finds in an installation, and that each of its checks is able to fail."""

from importlib.metadata import requires

import pytest
import torch
from packaging.requirements import Requirement

from energy_at.core import extras
from energy_at.doctor import installation, run_check
from tests.helpers.doctor import fails


def install(folder, name, version, *needed, extras=()):
    """A package that is installed, by its metadata."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {n}" for n in needed]))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs packages in front of all others."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    return lambda name, version, *needed, **options: install(
        tmp_path / "site", name, version, *needed, **options
    )


# Installation


def test_an_old_python_fails(monkeypatch):
    assert installation.python_version().status == "pass"
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    assert fails(installation.python_version(), "3.9.18", ">=3.1")


@pytest.mark.parametrize(
    "requirement", [line for line in requires("energy_at") if "extra" not in line]
)
def test_a_version_too_old_fails(requirement, installed):
    needed = Requirement(requirement)
    installed(needed.name, "0.0.1")
    found = installation.packages()
    assert fails(found, needed.name, "0.0.1 is installed")
    assert found.remedy == f"pip install -U '{needed.name}{needed.specifier}'"


def test_packages_that_fit_pass_and_are_named():
    found = installation.packages()
    assert found.status in ("pass", "warn")
    if found.status == "pass":
        assert f"torch {torch.__version__.split('+')[0]}" in found.message


def test_a_missing_package_fails(installed):
    installed("energy_at", "1.0", "no_such_package>=2")
    assert fails(installation.packages(), "no_such_package>=2 is needed, not installed")
    assert installation.packages().remedy == "pip install -U 'no_such_package>=2'"


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malware_is_called_by_its_name(version, installed):
    installed("lightning", version)
    found = installation.packages()
    assert fails(found, f"lightning {version} is malware")
    assert "pip install -U 'lightning" in found.remedy
    assert "replace every key" in found.remedy


def test_packages_that_do_not_fit_each_other_warn(installed):
    installed("energy_at", "1.0", "torchvision>=0.21", "torch>=2.6")
    installed("torchvision", "0.22.0", "torch==2.7.0")
    found = installation.packages()
    assert found.status == "warn"
    assert "torchvision needs torch==2.7.0, " in found.message
    assert found.remedy == "pip install -U 'torch==2.7.0'"


def test_extras_are_stated_and_never_missed(installed):
    installed(
        "energy_at",
        "1.0",
        'no_such_package>=2; extra == "rare"',
        'torch>=2.6; extra == "common"',
        extras=("rare", "common"),
    )
    found = installation.extras()
    assert found.status == "pass"
    assert f"rare is not installed (no_such_package): {extras.install('rare')}" in found.message
    assert "common is installed" in found.message


def test_more_threads_than_cores_warn(monkeypatch):
    assert installation.cpu().status == "pass"
    cores = installation.cores_to_use()
    for threads in (str(cores + 1), f"{cores + 1},1"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found = installation.cpu()
        assert (found.status, f"threads: {cores + 1}" in found.message) == ("warn", True)
        assert f"OMP_NUM_THREADS={cores}" in found.remedy
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert installation.cpu().status == "pass"


def test_the_quota_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "QUOTA", tmp_path / "cpu.max")
    cores = installation.cores_to_use()
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert installation.cores_to_use() == cores
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert installation.cores_to_use() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_does_not_compute_fails(monkeypatch):
    assert run_check("cuda", installation.cuda).status == "pass"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert fails(run_check("cuda", installation.cuda))


@pytest.mark.parametrize(
    ("mode", "key", "status", "said"),
    [
        (None, None, "pass", "offline: no API key"),
        (None, "x" * 40, "pass", "online: an API key is configured"),
        ("offline", "x" * 40, "pass", "offline: set by WANDB_MODE"),
        ("disabled", None, "pass", "disabled: set by WANDB_MODE"),
        ("online", "x" * 40, "pass", "online: set by WANDB_MODE"),
        ("online", None, "warn", "no API key"),
        ("of", None, "fail", "WANDB_MODE=of is invalid"),
        ("", None, "pass", "offline: no API key"),  # set to nothing is not set
    ],
)
def test_the_mode_of_wandb(mode, key, status, said, monkeypatch):
    for name, value in {"WANDB_MODE": mode, "WANDB_API_KEY": key}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    found = installation.wandb_mode()
    assert (found.status, said in found.message) == (status, True)
    assert key is None or key not in found.message
