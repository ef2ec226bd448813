"""Rows, table and figure of the studies (docs/studies/collect.py)."""

import csv
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from energy_at.runs.folder import RunFolder

SCRIPT = Path(__file__).parents[2] / "docs" / "studies" / "collect.py"
STUDIES = sorted(path.parent for path in SCRIPT.parent.glob("**/runs.csv"))

spec = importlib.util.spec_from_file_location("collect", SCRIPT)
collect = sys.modules["collect"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(collect)


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """The rows of a study after runs were added to it."""
    monkeypatch.setattr(collect, "HERE", tmp_path / "studies")

    def rows_of(*runs):
        monkeypatch.setattr(sys, "argv", ["collect", "digits", *map(str, runs)])
        collect.main()
        with (tmp_path / "studies" / "digits" / "runs.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return rows_of


def test_a_run_is_one_row_however_often_it_is_collected(digits_run, collected):
    results = RunFolder(digits_run).results()
    (row,) = collected(digits_run)
    assert float(row["clean %"]) == pytest.approx(100 * results["last"]["test"]["clean"], abs=0.05)
    assert row["data"] == "digits"
    assert collected(digits_run) == collected() == [row]
    again = Path(shutil.copytree(digits_run, "again"))
    config = (again / "config.yaml").read_text()
    (again / "config.yaml").write_text(config.replace("\nseed: 0\n", "\nseed: 1\n"))
    rows = collected(again)
    assert [r["seed"] for r in rows] == ["0", "1"]
    assert rows[0] == row


def test_a_weaker_attack_is_not_called_pgd_50_10(digits_run, collected):
    run = Path(shutil.copytree(digits_run, "searched"))
    config = RunFolder(run).config()
    found = {}
    for steps, restarts in ((50, 10), (50, 1), (20, 10)):
        config.evaluation.attacks.pgd.update(steps=steps, restarts=restarts)
        OmegaConf.save(config, run / "config.yaml")
        found[steps, restarts] = collected(run)[0]["PGD-50-10 %"]
    accuracy = RunFolder(run).results()["last"]["test"]["pgd20"]
    assert float(found.pop((50, 10))) == pytest.approx(100 * accuracy, abs=0.05)
    assert set(found.values()) == {""}


def test_autoattack_is_that_of_the_images_and_the_radius_of_the_row(digits_run, collected):
    run = Path(shutil.copytree(digits_run, "attacked"))
    n = RunFolder(run).results()["last"]["test"]["n"]
    eps = str(RunFolder(run).config().threat.eps)

    def evaluate(accuracy, *, images=n, seed=None, radius=eps):
        found = {"attack": "autoattack", "eps_text": radius, "accuracy": accuracy}
        data = {"split": "test", "images": images, "of": 360, "seed": seed}
        folder = run / "evaluation" / f"last-{accuracy}"
        folder.mkdir(parents=True)
        text = json.dumps({"dataset": data, "accuracies": [found]})
        (folder / "evaluation.json").write_text(text)
        return collected(run)[0]["AutoAttack %"]

    assert collected(run)[0]["AutoAttack %"] == ""
    assert evaluate(0.11, images=n - 1) == ""
    assert evaluate(0.12, seed=0) == ""
    assert evaluate(0.13, radius="1/255") == ""
    assert evaluate(0.25) == "25"


def runs(method, *accuracies):
    blank = dict.fromkeys((*collect.KEY, *collect.ACCURACIES, *collect.TRAINED), "")
    return [
        blank
        | {"method": method, "seed": str(seed), "PGD-50-10 %": str(value), "AutoAttack %": ""}
        | {"status": "robust" if value > 10 else "collapsed at step 7", "forward passes": "5"}
        | dict.fromkeys(collect.HELD_OUT, "")
        | {"first alarm": "none" if value > 10 else "aae_share, step 5"}
        for seed, value in enumerate(accuracies)
    ]


def test_a_mean_is_of_the_runs_that_did_not_collapse():
    table = collect.table([*runs("FGSM-AT", 20, 0, 22), *runs("FGSM-AT + DER", 24)])
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert found[0]["runs"] == "robust 2 of 3, collapsed 1 of 3"
    assert found[0]["PGD-50-10 %"].startswith("21.0")
    assert found[0]["first alarm"] == "none 2, aae_share 1"
    assert found[1]["PGD-50-10 %"].startswith("24.0")
    assert not {"AutoAttack %", *collect.HELD_OUT} & {*table.columns}  # nobody measured them


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_published_table_is_of_the_published_rows(study):
    table = collect.table(collect.read(study / "runs.csv")).markdown()
    assert (study / "table.md").read_text() == table + "\n"
