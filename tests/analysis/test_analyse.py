"""What is typed to see the energies of a run, and what comes back."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from energy_at import analyse
from energy_at.analysis.tables import QUANTILES, ks_distance
from energy_at.reporting.describe import MethodLabel
from tests.helpers.landscapes import view_of
from tests.helpers.running import config, everything, typed
from tests.helpers.wandb_files import Kept, without_key

FAST = ("subset=24", "steps=2", "progress=false", "device=cpu", "batch_size=16")
analysed = sys.modules["energy_at.analysis.analyse"]
TWO = ("attacks=[fgsm,pgd]",)
OUT = "run/analysis/last-linf-8of255-24images"
FIGURES = {"histograms", "histograms_joint", "path", "classes", "delta_vs_eps"}
FILES = {"table.md", "table.csv", "samples.npz", "settings.json", ".result.json"}
SETTING = ("dataset=synthetic", "model=small", "model.width=4", "threat.eps=8/255")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs that were trained for no step: networks, and what describes them."""
    place = tmp_path_factory.mktemp("runs")
    for i, (name, overrides) in enumerate(
        {
            "run": (),
            "other": ("reg=der", "seed=1"),
            "wider": ("threat.eps=16/255", "seed=2"),
            "digits": ("dataset=digits", "seed=3"),
        }.items()
    ):
        torch.manual_seed(i)
        trained(place / name, *SETTING, *overrides)
    return place


def trained(path, *overrides):
    from energy_at.config.build import build_module  # after the hook that checks types
    from energy_at.runs.folder import RunFolder

    cfg = config("logger=csv", *overrides)
    folder = RunFolder.create(path, cfg, overrides)
    module = build_module(cfg)
    folder.checkpoints.mkdir()
    torch.save({"state_dict": module.state_dict()}, folder.checkpoints / "last.ckpt")
    return module


@pytest.fixture
def here(folders, tmp_path, monkeypatch):
    """A working directory with the runs in it."""
    shutil.copytree(folders, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def type_in(here, monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, analyse.main, *argv)


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(analysed, "draw", lambda *_, **__: None)


def rows(folder):
    with (Path(folder) / "table.csv").open(newline="") as file:
        return {(r["run"], r["attack"], r["quantity"]): r for r in csv.DictReader(file)}


def samples(folder):
    with np.load(Path(folder) / "samples.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


# One run


def test_a_run_gives_tables_samples_and_figures_and_the_same_again(type_in):
    run = everything("run")
    code, out, err = type_in("run=run", *FAST, "attacks=[fgsm]")
    assert (code, err) == (0, "")
    drawn = FIGURES | {"scatter_fgsm", "quiver_fgsm"}
    pictures = {f"{name}{suffix}" for name in drawn for suffix in (".png", ".pdf")}
    assert {path.name for path in Path(OUT).iterdir()} == FILES | pictures
    assert [path.name for path in Path("run/analysis").iterdir()] == [Path(OUT).name]
    assert f"written to {OUT}/" in out
    assert Path(OUT, "table.md").read_text().strip() in out
    first = everything(OUT)
    assert run.items() <= everything("run").items()
    code, _, err = type_in("run=run", *FAST, "attacks=[fgsm]")
    assert (code, err) == (0, "")
    assert everything(OUT) == first


def test_the_table_says_what_the_samples_hold(type_in, without_figures):
    type_in("run=run", *FAST, *TWO)
    found, table = samples(OUT), rows(OUT)
    name = "FGSM-AT, seed 0"
    for attack in ("fgsm", "pgd"):
        for quantity, column in {"E(x*)": "marginal", "dE(x, y)": "delta_joint"}.items():
            row, values = table[name, attack, quantity], found[f"{attack}/{column}"]
            assert int(row["images"]) == len(values) == 24
            assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-5)
            assert float(row["std"]) == pytest.approx(values.std(), rel=1e-5)
            for q in QUANTILES:
                value = float(row[f"q{100 * q:g}"])
                assert value == pytest.approx(np.quantile(values, q), rel=1e-5)
            assert float(row["share > 0"]) == pytest.approx((values > 0).mean(), abs=1e-6)
        distance = ks_distance(found["natural/marginal"], found[f"{attack}/marginal"])
        assert float(table[name, attack, "E(x*)"]["KS to natural"]) == pytest.approx(distance)
        right = found[f"{attack}/prediction"] == found["natural/label"]
        assert float(table[name, attack, "right"]["mean"]) == pytest.approx(right.mean(), abs=1e-6)
        share = found[f"{attack}/is_abnormal"].mean()
        assert float(table[name, attack, "AAE"]["mean"]) == pytest.approx(share, abs=1e-6)
    images = set(found["natural/image"].tolist())
    assert len(images) == 24
    assert images <= set(range(128))


def test_the_settings_tell_what_was_done(type_in, without_figures):
    type_in("run=run", *FAST, *TWO, "seed=5")
    settings = json.loads(Path(OUT, "settings.json").read_text())
    assert settings["networks"][0]["source"] == "run"
    assert (settings["eps_text"], settings["norm"], settings["seed"]) == ("8/255", "linf", 5)
    assert settings["attacks"] == {"fgsm": "FGSM", "pgd": "PGD-2"}
    assert settings["radii"] == pytest.approx([x * 8 / 255 for x in (0.25, 0.5, 1, 1.5, 2)])
    groups = {name.split("/")[0] for name in samples(OUT)}
    assert groups == {"natural", "fgsm", "pgd", "path", "radii"}


def test_without_a_library_five_attacks_are_run(type_in, without_figures):
    code, out, _ = type_in("run=run", *FAST)
    assert code == 0
    for label in ("FGSM", "PGD-2", "TRADES-2", "targeted PGD-2", "CW-2"):
        assert f"| {label} " in out


def test_attacks_of_the_library_are_run_when_asked_for(type_in, without_figures):
    names = "attacks=[apgd_ce,apgd_dlr,fab,square]"
    code, out, _ = type_in("run=run", *FAST, names, "iterations=2", "queries=5")
    assert code == 0
    for label in ("APGD-CE", "APGD-DLR", "FAB", "Square"):
        assert f"| {label} " in out
    assert "FAB left" in out  # images that were wrong before, at least: the network is untrained


def test_norm_radius_split_and_sweep_are_chosen(type_in, without_figures):
    argv = ("norm=l2", "eps=0.5", "eps_list=[1,0.25]", "split=val", "subset=null")
    code, _, err = type_in("run=run", *FAST, "attacks=[pgd]", *argv)
    assert (code, err) == (0, "")
    (folder,) = Path("run/analysis").iterdir()
    assert folder.name.startswith("last-l2-0.5-")
    assert folder.name.endswith("images-val")
    found = samples(folder)
    assert found["radii/eps"].tolist() == [0.25, 1.0]
    assert 0.45 < found["pgd/size"].max() < 0.5 + 1e-6


def test_a_file_of_weights_gives_the_numbers_of_its_run(type_in, without_figures):
    type_in("run=run", *FAST, *TWO)
    code, _, err = type_in(
        "checkpoint=run/checkpoints/last.ckpt", *SETTING, *FAST, *TWO, "out=weights"
    )
    assert (code, err) == (0, "")
    of_run, of_file = samples(OUT), samples("weights")
    assert of_run.keys() == of_file.keys()
    assert all(np.array_equal(of_run[name], of_file[name]) for name in of_run)


def test_help_shows_an_example(type_in):
    code, out, _ = type_in("--help")
    assert code == 0
    assert "python -m energy_at.analyse run=FOLDER" in out


# Several runs


def test_runs_are_put_side_by_side_and_each_has_its_own_files(type_in, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        analysed,
        "draw",
        lambda folder, view, *_, **__: drawn.update({folder.name: list(view.runs)}),
    )
    code, out, err = type_in("runs=[run,other]", *FAST, *TWO, "out=both")
    assert (code, err) == (0, "")
    names = ["FGSM-AT, seed 0", "FGSM-AT + DER, seed 1"]
    assert drawn == {"run": names[:1], "other": names[1:], ".both.part": names}
    assert {path.name for path in Path("both").iterdir()} == (
        FILES - {"samples.npz"} | {"run", "other"}
    )
    assert out.count("| FGSM-AT, seed 0 ") == out.count("| FGSM-AT + DER, seed 1 ") == 2
    type_in("run=other", *FAST, *TWO, "out=alone")
    assert everything("both/other") == {
        Path("both/other", path.name): content
        for path, content in everything("alone").items()
        if path.name != ".result.json"
    }


@pytest.mark.parametrize(("runs", "all_of_them"), [(1, True), (4, True), (5, False)])
def test_more_runs_than_have_room_share_one_figure(runs, all_of_them):
    labels = [MethodLabel("FGSM-AT", run=f"seed {seed}") for seed in range(runs)]
    view = view_of(("fgsm",), labels)
    names = {name for name, _ in analysed.figures(view, "PGD-20")}
    assert names == (FIGURES | {"scatter_fgsm", "quiver_fgsm"} if all_of_them else {"delta_vs_eps"})


# What cannot be done


def test_what_is_there_already_is_not_overwritten_by_anything_else(type_in, without_figures):
    type_in("run=run", *FAST, *TWO)
    before = everything()
    code, _, err = type_in("run=run", *FAST, *TWO, "seed=1")
    assert (code, err.count("\n")) == (1, 1)
    assert "holds another analysis: choose another out=FOLDER" in err
    assert everything() == before


def test_another_activation_is_another_analysis(type_in, here, without_figures):
    """The same weights fit another activation: the key holds the configuration of the model."""
    model = ("dataset=synthetic", "model=preactresnet18", "model.width=2", "threat.eps=8/255")
    trained(here / "deep", *model)
    argv = ("checkpoint=deep/checkpoints/last.ckpt", *model, *FAST, "attacks=[fgsm]", "out=there")
    assert type_in(*argv, "model.activation=relu")[0] == 0
    before = everything("there")
    code, _, err = type_in(*argv, "model.activation=silu")
    assert (code, err.count("\n")) == (1, 1)
    assert "there holds another analysis: choose another out=FOLDER" in err
    assert everything("there") == before
    assert type_in(*argv, "model.activation=relu")[0] == 0
    assert everything("there") == before


def test_a_failure_leaves_nothing_behind(type_in, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "samples.npz")

    before = everything(), sorted(Path().rglob("*"))
    monkeypatch.setattr(analysed.np, "savez_compressed", full)
    code, _, err = type_in("run=run", *FAST, *TWO)
    assert (code, err) == (1, "error: samples.npz: No space left on device\n")
    assert (everything(), sorted(Path().rglob("*"))) == before


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
        (("run=run", "attacks=[fgms]"), "unknown attack 'fgms': choose from fgsm"),
        (("run=run", "attacks=[pgd,pgd]"), "must be a list of different names"),
        (("run=run", "attacks=[]"), "must be a list of different names"),
        (("run=run", "eps=8"), "did you mean 8/255?"),
        (("run=run", "eps=[4/255,8/255]"), "must be one radius; eps_list=[4/255,8/255] takes"),
        (("run=run", "eps_list=[9]"), "eps_list=9 is above 1"),
        (("run=run", "eps_list=[]"), "eps_list=[] names no radius"),
        (("run=run", "subset=2", "subset_seed=null"), "none of the 2 images is of class 2, 3"),
        (("run=run", "steps=0"), "steps=0 must be an integer >= 1"),
        (("run=run", "out=run"), "run holds other files: choose another out=FOLDER"),
        (("run=run", "out=run/config.yaml"), "is a file: name a folder"),
        (("run=run", "out=run/config.yaml/x"), "Not a directory"),
        (("run=run", "no_such_key=1"), "no_such_key: unknown key"),
        (("run=run", "+no_such_key=1"), "+no_such_key=1: nothing reads no_such_key"),
        (("run=run", "norm=l2", "eps=128"), "eps=128 is above 13.86, but pixels lie in [0, 1]"),
        (("run=run", "norm=l2", "eps_list=[1,14]"), "eps_list=14 is above 13.86"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(type_in, typed_wrong, said):
    before = everything(), sorted(Path().rglob("*"))
    first = tuple(
        o for o in FAST if not any(o.split("=")[0] == w.split("=")[0] for w in typed_wrong)
    )
    code, out, err = type_in(*first, *typed_wrong)
    assert code == 1
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert (everything(), sorted(Path().rglob("*"))) == before


def test_a_missing_extra_gets_one_line(type_in, monkeypatch):
    monkeypatch.setattr("energy_at.attacks.autoattack.find_spec", lambda _: None)
    before = everything()
    code, _, err = type_in("run=run", *FAST, "attacks=[fgsm,square]")
    assert (code, err.count("\n")) == (1, 1)
    assert "square needs the AutoAttack library: pip install 'energy_at[autoattack]'" in err
    assert everything() == before


def test_a_damaged_network_gets_one_line(type_in, here):
    path = here / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for value in checkpoint["state_dict"].values():
        value.fill_(float("nan"))
    torch.save(checkpoint, path)
    before = everything()
    code, _, err = type_in("run=run", *FAST, *TWO)
    assert (code, err.count("\n")) == (1, 1)
    assert "logits that are not finite" in err
    assert everything() == before


# At W&B


def test_wandb_keeps_a_table_of_every_image(type_in, here, without_figures, monkeypatch):
    without_key(monkeypatch, here / "home")
    code, _, err = type_in("run=run", *FAST, *TWO, "logger=wandb")
    assert code == 0, err
    kept = Kept(here / "run" / "analysis")
    assert (kept.run.job_type, list(kept.run.tags)) == ("analyse", ["synthetic"])
    (file,) = kept.media.rglob("*.table.json")
    table = json.loads(file.read_text())
    with np.load(f"{OUT}/samples.npz") as arrays:
        for name in ("natural/label", "natural/marginal", "pgd/delta_joint", "fgsm/is_abnormal"):
            place = table["columns"].index(name.removeprefix("natural/"))
            assert [row[place] for row in table["data"]] == arrays[name].tolist()
    assert len(table["data"]) == 24
    assert not any(column.startswith(("path", "radii")) for column in table["columns"])
