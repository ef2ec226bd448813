"""The wheel is complete: installed alone, it runs from an empty directory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the content of the wheel and nothing else."""
    pytest.importorskip("hatchling")
    wheel, folder = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-c", BUILD, str(wheel)], cwd=ROOT, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    (file,) = wheel.glob("*.whl")
    subprocess.run([*pip, "--target", str(folder), str(file)], check=True)
    return folder


def run(installed, *argv):
    env = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *argv], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_training_runs_from_an_empty_directory(installed, here):
    where = "import energy_at.core.files, hydra_plugins.energy_at.grid as g; "
    found = run(installed, "-c", where + "print(energy_at.core.files.CONF, g.__file__)").split()
    assert found[0] == str(installed / "energy_at" / "conf")
    assert Path(found[1]).is_relative_to(installed)
    assert (installed / "energy_at" / "py.typed").is_file()
    short = ("model=small", "model.width=2", "trainer.max_epochs=1",
             "trainer.limit_train_batches=2",
             "logger=csv", "hydra.run.dir=run", "evaluation.attacks.pgd.steps=1",
             "validation.attacks.pgd.steps=1")  # fmt: skip
    run(installed, "-m", "energy_at.train", *short)
    assert json.loads(Path("run/results.json").read_text())["last"]["step"] == 2
    assert [path.name for path in here.iterdir()] == ["run"]


def test_links_of_the_readme_are_absolute_where_an_index_shows_it(installed):
    (metadata,) = installed.glob("energy_at-*.dist-info/METADATA")
    links = re.findall(r"\]\(([^)]*)\)", metadata.read_text())
    local = re.findall(r"\]\((?!https://)([^)#]+)", (ROOT / "README.md").read_text())
    assert local
    assert all((ROOT / link).exists() for link in local)
    assert {link for link in links if not link.startswith(("https://", "#"))} == set()
    assert any(link.endswith("/main/docs/co_robust/comparison.png") for link in links)


@pytest.mark.slow
def test_the_doctor_runs_from_an_empty_directory(installed, here):
    findings = json.loads(run(installed, "-m", "energy_at.doctor", "dataset=digits", "json=true"))
    assert findings
    assert not list(here.iterdir())
