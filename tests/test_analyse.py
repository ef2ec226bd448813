"""What is typed to analyse runs, and what comes back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from energy_at.core.extras import install
from tests.helpers.analyses import FAST, OUT, SETTING, TWO, samples
from tests.helpers.running import assert_refused


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr("energy_at.analysis.analyse.draw", lambda *_, **__: None)


def test_without_a_library_five_attacks_are_run(type_analyse, without_figures):
    code, out, _ = type_analyse("run=run", *FAST)
    assert code == 0
    for label in ("FGSM", "PGD-2", "TRADES-2", "targeted PGD-2", "CW-2"):
        assert f"| {label} " in out


def test_attacks_of_the_library_are_run_when_asked_for(type_analyse, without_figures):
    names = "attacks=[apgd_ce,apgd_dlr,fab,square]"
    code, out, _ = type_analyse("run=run", *FAST, names, "iterations=2", "queries=5")
    assert code == 0
    for label in ("APGD-CE", "APGD-DLR", "FAB", "Square"):
        assert f"| {label} " in out
    assert "FAB left" in out  # images that were wrong before, at least: the network is untrained


def test_norm_radius_split_and_sweep_are_chosen(type_analyse, without_figures):
    argv = ("norm=l2", "eps=0.5", "eps_list=[1,0.25]", "split=val", "subset=null")
    code, _, err = type_analyse("run=run", *FAST, "attacks=[pgd]", *argv)
    assert (code, err) == (0, "")
    (folder,) = Path("run/analysis").iterdir()
    assert folder.name.startswith("last-l2-0.5-")
    assert folder.name.endswith("images-val")
    found = samples(folder)
    assert found["radii/eps"].tolist() == [0.25, 1.0]
    assert 0.45 < found["pgd/size"].max() < 0.5 + 1e-6


def test_images_that_are_not_natural_are_scored_and_told_apart(type_analyse, without_figures):
    code, out, err = type_analyse("run=run", *FAST, *TWO, "ood=[digits]", "out=an")
    assert (code, err) == (0, "")
    assert Path("an/detection.md").read_text().strip() in out
    rows = json.loads(Path("an/detection.json").read_text())
    assert {row["images"] for row in rows} == {"digits", "FGSM", "PGD-2"}
    assert all(row["n"] == row["natural"] == 24 for row in rows)
    found = samples("an")
    for name in ("natural", "fgsm", "pgd"):  # energies that were measured another way
        np.testing.assert_allclose(
            found[f"detection/{name}/energy"], found[f"{name}/marginal"], rtol=1e-9
        )
    other = Path("an/detection.csv").read_bytes()
    type_analyse("run=run", *FAST, *TWO, "ood=[digits]", "out=again", "batch_size=5")
    assert Path("again/detection.csv").read_bytes() == other


@pytest.mark.slow
def test_a_file_of_weights_gives_the_numbers_of_its_run(type_analyse, without_figures):
    type_analyse("run=run", *FAST, *TWO)
    code, _, err = type_analyse(
        "checkpoint=run/checkpoints/last.ckpt", *SETTING, *FAST, *TWO, "out=weights"
    )
    assert (code, err) == (0, "")
    of_run, of_file = samples(OUT), samples("weights")
    assert of_run.keys() == of_file.keys()
    assert all(np.array_equal(of_run[name], of_file[name]) for name in of_run)


def test_help_shows_an_example(type_analyse):
    code, out, _ = type_analyse("--help")
    assert code == 0
    assert "python -m energy_at.analyse run=FOLDER" in out


def test_what_is_there_already_is_not_overwritten_by_anything_else(type_analyse, without_figures):
    type_analyse("run=run", *FAST, *TWO)
    said = "holds another analysis: choose another out=FOLDER"
    assert_refused(type_analyse, said, "run=run", *FAST, *TWO, "seed=1")


@pytest.mark.parametrize(
    ("typed_wrong", "said"),
    [
        ((), "name one of run=FOLDER, runs=[FOLDER,FOLDER], checkpoint=FILE with"),
        (("run=nowhere",), "nowhere is not a run folder"),
        (("run=run", "runs=[run,other]"), "name one of run=FOLDER, runs="),
        (("runs=[]",), "runs=[] names no run"),
        (("runs=[run,run]",), "runs=[...] names run twice: leave one out"),
        (("runs=[run,nowhere]",), "nowhere is not a run folder"),
        (("runs=[run,digits]",), "run is of synthetic and digits of digits: only runs of one"),
        (("runs=[run,wider]",), "different threat models (linf 16/255, linf 8/255): name one"),
        (("run=run", "which=best"), "run has no checkpoint best.ckpt"),
        (("run=run", "model=small"), "brings its own data set, model and threat"),
        (("checkpoint=none.pt",), "checkpoint none.pt not found"),
        (("run=run", "attacks=[fgms]"), "autoattack, or null (did you mean fgsm?)"),
        (("run=run", "attacks=[pgd,pgd]"), "must be a list of different names"),
        (("run=run", "attacks=[]"), "must be a list of different names"),
        (("run=run", "eps=8"), "did you mean 8/255?"),
        (("run=run", "eps=[4/255,8/255]"), "must be one radius; eps_list=[4/255,8/255] takes"),
        (("run=run", "eps_list=[9]"), "eps_list=9 is above 1"),
        (("run=run", "eps_list=[]"), "eps_list=[] names no radius"),
        (("run=run", "subset=2", "subset_seed=null"), "none of the 2 images is of class 2, 3"),
        (("run=run", "subset=0"), "subset=0 must be an integer >= 1, or null"),
        (("run=run", "ood=[svnh]"), "an .npz file (did you mean svhn?)"),
        (("run=run", "ood=[svhn]"), "ood=svhn must be in dataset.root="),
        (("run=run", "ood=[synthetic]"), "ood=synthetic must be another data set than that of"),
        (("run=run", "ood=[digits,digits]"), "sets of different names: digits is twice"),
        (("run=run", "ood=svhn"), "ood=svhn must be a list of data sets, folders and .npz files"),
        (("run=run", "ood=[1,2]"), "ood=1 must be a data set ("),
        (
            ("run=run", "logger=wandb", "logger.wandb._target_=os.system"),
            "logger.wandb._target_=os.system is not trusted",
        ),
        (("run=run", "norm=l1"), "norm=l1 must be linf or l2"),
        (("run=run", "split=dev"), "split=dev must be test, val or train"),
        (("run=run", "steps=0"), "steps=0 must be an integer >= 1"),
        (("run=run", "queries=0"), "queries=0 must be an integer >= 1"),
        (("run=run", "iterations=0"), "iterations=0 must be an integer >= 1"),
        (("run=run", "out=run"), "run holds other files: choose another out=FOLDER"),
        (("run=run", "out=run/config.yaml"), "out=run/config.yaml cannot be made (File exists)"),
        (("run=run", "out=run/config.yaml/x"), "Not a directory"),
        (("run=run", "no_such_key=1"), "no_such_key: unknown key"),
        (("run=run", "+no_such_key=1"), "+no_such_key=1: nothing reads no_such_key"),
        (("run=run", "norm=l2", "eps=128"), "eps=128 is above 13.86, but pixels lie in [0, 1]"),
        (("run=run", "norm=l2", "eps_list=[1,14]"), "eps_list=14 is above 13.86"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(type_analyse, typed_wrong, said):
    keys = {override.partition("=")[0] for override in typed_wrong}
    first = [override for override in FAST if override.partition("=")[0] not in keys]
    assert_refused(type_analyse, said, *first, *typed_wrong)


def test_a_missing_extra_gets_one_line(type_analyse, monkeypatch):
    monkeypatch.setattr("energy_at.attacks.autoattack.find_spec", lambda _: None)
    said = f"square needs the AutoAttack library: {install('autoattack')}"
    assert_refused(type_analyse, said, "run=run", *FAST, "attacks=[fgsm,square]")


def test_a_damaged_network_gets_one_line(type_analyse, here):
    path = here / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for value in checkpoint["state_dict"].values():
        value.fill_(float("nan"))
    torch.save(checkpoint, path)
    assert_refused(type_analyse, "logits that are not finite", "run=run", *FAST, *TWO)
