"""An analysis: its tables, samples and figures, of one run and of several."""

import json
from pathlib import Path

import numpy as np
import pytest

from energy_at.analysis import analyse
from energy_at.analysis.tables import QUANTILES, ks_distance
from energy_at.reporting.describe import MethodLabel
from tests.helpers.analyses import FAST, FIGURES, FILES, OUT, TWO, rows, samples, trained
from tests.helpers.landscapes import view_of
from tests.helpers.running import everything
from tests.helpers.wandb_files import Kept, without_key


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(analyse, "draw", lambda *_, **__: None)


# One run


@pytest.mark.slow
def test_a_run_gives_tables_samples_and_figures_and_the_same_again(type_analyse):
    run = everything("run")
    code, out, err = type_analyse("run=run", *FAST, "attacks=[fgsm]")
    assert (code, err) == (0, "")
    drawn = FIGURES | {"scatter_fgsm", "quiver_fgsm"}
    pictures = {f"{name}{suffix}" for name in drawn for suffix in (".png", ".pdf")}
    assert {path.name for path in Path(OUT).iterdir()} == FILES | pictures
    assert [path.name for path in Path("run/analysis").iterdir()] == [Path(OUT).name]
    assert f"written to {OUT}/" in out
    assert Path(OUT, "table.md").read_text().strip() in out
    first = everything(OUT)
    assert run.items() <= everything("run").items()
    code, _, err = type_analyse("run=run", *FAST, "attacks=[fgsm]")
    assert (code, err) == (0, "")
    assert everything(OUT) == first


def test_a_run_gives_tables_and_samples_and_the_same_again(type_analyse, without_figures):
    run = everything("run")
    written = []
    for _ in range(2):
        code, _, err = type_analyse("run=run", *FAST, "attacks=[fgsm]")
        assert (code, err) == (0, "")
        assert {path.name for path in Path(OUT).iterdir()} == FILES
        written.append(everything(OUT))
    assert written[0] == written[1]
    assert run.items() <= everything("run").items()


def test_the_table_says_what_the_samples_hold(type_analyse, without_figures):
    type_analyse("run=run", *FAST, *TWO)
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
        mean = float(table[name, attack, "correct"]["mean"])
        assert mean == pytest.approx(right.mean(), abs=1e-6)
        share = found[f"{attack}/is_abnormal"].mean()
        assert float(table[name, attack, "AAE"]["mean"]) == pytest.approx(share, abs=1e-6)
    images = set(found["natural/image"].tolist())
    assert len(images) == 24
    assert images <= set(range(128))


def test_the_settings_tell_what_was_done(type_analyse, without_figures):
    type_analyse("run=run", *FAST, *TWO, "seed=5")
    settings = json.loads(Path(OUT, "settings.json").read_text())
    assert settings["networks"][0]["source"] == "run"
    assert (settings["eps_text"], settings["norm"], settings["seed"]) == ("8/255", "linf", 5)
    assert settings["attacks"] == {"fgsm": "FGSM", "pgd": "PGD-2"}
    assert settings["radii"] == pytest.approx([x * 8 / 255 for x in (0.25, 0.5, 1, 1.5, 2)])
    groups = {name.split("/")[0] for name in samples(OUT)}
    assert groups == {"natural", "fgsm", "pgd", "path", "radii"}


# Several runs


def test_runs_are_put_side_by_side_and_each_has_its_own_files(type_analyse, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        analyse,
        "draw",
        lambda folder, view, *_, **__: drawn.update({folder.name: list(view.runs)}),
    )
    code, out, err = type_analyse("runs=[run,other]", *FAST, *TWO, "out=both")
    assert (code, err) == (0, "")
    names = ["FGSM-AT, seed 0", "FGSM-AT + DER, seed 1"]
    assert drawn == {"run": names[:1], "other": names[1:], ".both.part": names}
    assert {path.name for path in Path("both").iterdir()} == (
        FILES - {"samples.npz"} | {"run", "other"}
    )
    assert out.count("| FGSM-AT, seed 0 ") == out.count("| FGSM-AT + DER, seed 1 ") == 2
    type_analyse("run=other", *FAST, *TWO, "out=alone")
    assert everything("both/other") == {
        Path("both/other", path.name): content
        for path, content in everything("alone").items()
        if path.name != ".result.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "all_of_them"), [(1, True), (4, True), (5, False)])
def test_more_runs_than_have_room_share_one_figure(runs, all_of_them):
    labels = [MethodLabel("FGSM-AT", run=f"seed {seed}") for seed in range(runs)]
    view = view_of(("fgsm",), labels)
    names = {name for name, _ in analyse.figures(view, "PGD-20")}
    assert names == (FIGURES | {"scatter_fgsm", "quiver_fgsm"} if all_of_them else {"delta_vs_eps"})


@pytest.mark.slow
def test_another_activation_is_another_analysis(type_analyse, here, without_figures):
    """The same weights fit another activation: the key holds the configuration of the model."""
    model = ("dataset=synthetic", "model=preactresnet18", "model.width=2", "threat.eps=8/255")
    trained(here / "deep", *model)
    argv = ("checkpoint=deep/checkpoints/last.ckpt", *model, *FAST, "attacks=[fgsm]", "out=there")
    assert type_analyse(*argv, "model.activation=relu")[0] == 0
    before = everything("there")
    code, _, err = type_analyse(*argv, "model.activation=silu")
    assert (code, err.count("\n")) == (1, 1)
    assert "there holds another analysis: choose another out=FOLDER" in err
    assert everything("there") == before
    assert type_analyse(*argv, "model.activation=relu")[0] == 0
    assert everything("there") == before


def test_a_failure_leaves_nothing_behind(type_analyse, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "samples.npz")

    before = everything(), sorted(Path().rglob("*"))
    monkeypatch.setattr(analyse.np, "savez_compressed", full)
    code, _, err = type_analyse("run=run", *FAST, *TWO)
    assert (code, err) == (1, "error: samples.npz: No space left on device\n")
    assert (everything(), sorted(Path().rglob("*"))) == before


# At W&B


@pytest.mark.slow
def test_wandb_keeps_a_table_of_every_image(type_analyse, here, without_figures, monkeypatch):
    without_key(monkeypatch, here / "home")
    code, _, err = type_analyse("run=run", *FAST, *TWO, "logger=wandb")
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


def test_a_class_without_image_is_named():
    analyse.require_every_class([0, 1, 2], 3)
    with pytest.raises(ValueError, match=r"none of the 3 images is of class 1, 4: .*larger subset"):
        analyse.require_every_class([0, 2, 3], 5)
