"""What is typed to sample, and what it leaves behind."""

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from energy_at import sample, train
from energy_at.evaluation.trained_model import open_run
from energy_at.reporting import panels
from energy_at.runs.folder import RunFolder
from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling import classifier, output, pipeline
from energy_at.sampling.langevin import Stop
from energy_at.sampling.output import FILES
from energy_at.sampling.samples import Parts, SamplingBar
from tests.evaluation.conftest import TRAINING, trained_digits  # noqa: F401  a fixture
from tests.helpers.running import typed
from tests.helpers.wandb_files import Kept, without_key

QUICK = ("progress=false", "sampler.steps=4", "start.k=5")
BARE = (*QUICK, "judge=none", "quality=none")
FIGURES = [f"{name}.{kind}" for name in ("grid", "start", "nearest", "distributions")
           for kind in ("png", "pdf")]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier, "STEPS", 1)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setitem(classifier.WIDTH, "cpu", 2)


@pytest.fixture
def without_figures(monkeypatch):
    """They take longer than everything else, and are looked at in tests of their own."""
    monkeypatch.setattr(output, "_figures", lambda *_: {})


@pytest.fixture
def run(trained_digits):  # noqa: F811
    return Path(shutil.copytree(trained_digits, "run"))


@pytest.fixture
def type_sample(monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, sample.main, *argv)


@pytest.fixture(scope="module")
def done(trained_digits, tmp_path_factory):  # noqa: F811
    """A run that was sampled with everything, and what was said."""
    folder = tmp_path_factory.mktemp("sampled")
    shutil.copytree(trained_digits, folder / "run")
    argv = ["run=run", "n=70", "quality=classifier", "out=made", "logger=wandb", *QUICK]
    with pytest.MonkeyPatch.context() as patch:
        without_key(patch, folder / "home")
        patch.chdir(folder)
        patch.setattr(classifier, "STEPS", 1)
        patch.setattr(classifier, "EPOCHS", 1)
        patch.setitem(classifier.WIDTH, "cpu", 2)
        patch.setattr(sys, "argv", ["sample", *argv])
        sample.main()
    return folder


@pytest.fixture
def made(done, monkeypatch):
    monkeypatch.chdir(done)
    return done / "made"


def report(folder):
    """No NaN, no infinity: JSON has none."""
    return json.loads(Path(folder, "samples.json").read_text(), parse_constant=pytest.fail)


def columns(folder):
    with np.load(Path(folder, "samples.npz")) as found:
        return {name: found[name] for name in found.files}


def everything(folder="."):
    return {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# What there is afterwards


def test_the_images_and_what_is_known_of_each(made):
    found = columns(made)
    assert found["pixels"].shape == (70, 8, 8, 1)
    assert found["pixels"].dtype == found["start"].dtype == np.uint8
    assert found["label"].tolist() == [i % 10 for i in range(70)]
    assert found["number"].tolist() == list(range(70))
    assert found["steps"].max() <= 4
    assert set(found["stop"]) <= set(Stop)
    assert bool((found["steps"][found["stop"] == Stop.CAP] == 4).all())
    assert np.isfinite(found["target"]).all()


def opened_net():
    return open_run("run", OmegaConf.create({"which": None, "device": "cpu"})).net.eval()


def test_energies_are_those_of_the_bytes_that_are_written(made):
    found = columns(made)
    pixels = torch.from_numpy(found["pixels"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = opened_net()(pixels)
    joint = -logits[torch.arange(70), torch.from_numpy(found["label"])]
    torch.testing.assert_close(torch.from_numpy(found["joint"]), joint, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.from_numpy(found["marginal"]), -logits.logsumexp(1), atol=1e-5, rtol=1e-5
    )


def test_the_report_holds_the_configuration_and_all_numbers(made):
    found = report(made)
    assert found["n"] == 70
    assert found["seed"] == 0
    assert found["dataset"] == "digits"
    assert found["extractor"] == "classifier"
    assert found["reference"] == {"dataset": "digits", "split": "train", "images": 1200}
    assert found["fitted_to"]["split"] == "train"
    assert found["settings"]["start"] == {
        "name": "local_pca", "k": 5, "by": "features", "variance": 0.99, "scale": 1.0
    }  # fmt: skip
    assert found["settings"]["sampler"]["steps"] == 4
    assert found["settings"]["guidance"]["name"] == "class_energy"
    assert len(found["network"]["sha256"]) == 64
    assert found["stopped"]["cap"] + found["stopped"]["reached"] == 70
    assert found["mean_steps"] == pytest.approx(columns(made)["steps"].mean())
    assert found["of_earlier_attempts"] == 0
    assert set(found["seconds"]) == {"prepare", "sample", "measure"}
    assert list(found["sets"]) == ["samples", "start alone", "held-out images", "class means"]
    for row in found["sets"].values():
        assert {
            "fid",
            "kid",
            "inception_score",
            "precision",
            "recall",
            "classifier_accuracy",
            "variety",
        } <= (row.keys())
        assert row["images"] == 70
    assert found["sets"]["class means"]["variety"] == 0
    for name in ("samples", "start alone", "held-out images"):
        assert {"nearest", "copied"} <= found["sets"][name].keys()


def test_every_class_has_a_picture_of_its_own(made):
    found = columns(made)
    names = sorted(path.name for path in Path(made, "classes").iterdir())
    assert names == [f"{label:03d}-{label}.png" for label in range(10)]
    with Image.open(Path(made, "classes", "003-3.png")) as picture:
        shown = np.asarray(picture)[::8, ::8]  # each pixel is eight pixels wide
    first, second = found["pixels"][found["label"] == 3][:2, :, :, 0]
    assert (shown[:8, :8] == first).all()
    assert (shown[:8, 9:17] == second).all()


def test_the_table_is_that_of_the_report(made):
    with Path(made, "samples.csv").open() as file:
        rows = {row["set"]: row for row in csv.DictReader(file)}
    for name, expected in report(made)["sets"].items():
        assert float(rows[name]["fid"]) == pytest.approx(expected["fid"])
        assert int(rows[name]["images"]) == expected["images"]


def test_the_text_says_whose_features_and_what_the_numbers_are_not(made):
    text = Path(made, "samples.md").read_text()
    assert "70 samples of digits" in text
    assert "scores by classifier against 1200 train images of digits" in text
    assert "not comparable with published IS and FID" in text
    assert "at their target energy" in text
    assert "nearest training image" in text
    assert "nan" not in text.lower()


def test_the_figures_show_something(made):
    for name in FIGURES:
        path = made / name
        assert path.stat().st_size > 1000
        if path.suffix == ".png":
            assert matplotlib.image.imread(path)[:, :, :3].std() > 0.03


def test_wandb_keeps_pictures_scores_and_everything_that_a_panel_shows(made):
    kept = Kept(made)
    (row,) = kept.rows
    assert (kept.run.job_type, list(kept.run.tags)) == ("sample", ["digits"])
    assert kept.config["seed"] == 0
    assert kept.config["trained"]["attack"]["steps"] == 1
    for name, value in report(made)["sets"]["samples"].items():
        assert value is None or row[f"sample/{name}"] == value
    (section,) = [one for one in panels.specification() if one["title"] == "Samples"]
    shown = [key for one in section["panels"] for key in one.get("keys") or [one["key"]]]
    assert all(key.startswith("sample") for key in shown)
    assert len(shown) > 7
    assert set(shown) <= {key.partition(".")[0] for key in row}
    files = sorted(path.name for path in kept.media.rglob("*.png"))
    assert [name.split("_")[0] for name in files] == ["distributions", "grid", "nearest", "start"]
    (table,) = kept.media.rglob("*.table.json")
    rows = json.loads(table.read_text())["data"]
    assert [row[0] for row in rows] == list(report(made)["sets"])


def test_a_logger_that_trainings_alone_write_is_refused(type_sample):
    code, out, err = type_sample("run=run", "logger=csv_wandb", *BARE)
    assert (code, out) == (1, "")
    assert err == "error: logger=csv: only trainings write it; choose wandb or none\n"


def test_nothing_else_is_left(made):
    assert sorted(path.name for path in made.iterdir()) == sorted(
        [*FILES, *FIGURES, ".result.json", "classes", "wandb"]
    )
    assert {path.name for path in Path("run/samples").iterdir()} == {"cache"}


def test_the_classifier_is_trained_once_and_a_second_call_draws_nothing(
    made, tmp_path, type_sample, monkeypatch, without_figures
):
    again = shutil.copytree(made, tmp_path / "again")
    folders = list(Path("run/samples/cache").glob("classifier-*"))
    assert len(folders) == 1
    before = columns(made)

    def never(*_, **__):
        raise AssertionError("not again")

    monkeypatch.setattr(classifier, "_train", never)
    monkeypatch.setattr(pipeline, "generate", never)
    code, out, err = type_sample("run=run", "n=70", "quality=none", f"out={again}", *QUICK)
    assert (code, err) == (0, "")
    assert same(columns(again), before)
    assert report(again)["of_earlier_attempts"] == 70
    assert "without the time of 70 samples from an earlier attempt" in out


# The same images


def sampled_columns(type_sample, folder, *overrides):
    code, _, err = type_sample("run=run", f"out={folder}", *BARE, *overrides)
    assert (code, err) == (0, "")
    return columns(folder)


def test_the_images_depend_on_no_batch_size_and_no_number_of_images(
    run, type_sample, without_figures
):
    wide = sampled_columns(type_sample, "wide", "n=23")
    narrow = sampled_columns(type_sample, "narrow", "n=23", "batch_size=1")
    assert same(wide, narrow)
    more = sampled_columns(type_sample, "more", "n=29", "batch_size=7")
    first = {name: column[:23] for name, column in more.items() if name != "key"}
    assert same(first, {name: column for name, column in wide.items() if name != "key"})
    other = sampled_columns(type_sample, "other", "n=23", "seed=1")
    assert bool((other["pixels"] != wide["pixels"]).any(axis=(1, 2, 3)).all())


class Tired(SamplingBar):
    """Ctrl-C after the second group of samples."""

    finishes = 0

    def count(self, samples):
        super().count(samples)
        type(self).finishes += 1
        if self.finishes == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["parts", "the last moment"])
def test_what_was_cut_off_resumes(run, type_sample, monkeypatch, without_figures, every):
    overrides = ("n=23", "batch_size=6", "guidance.tolerance=1")
    expected = sampled_columns(type_sample, "whole", *overrides)
    monkeypatch.setattr(Parts, "EVERY", every)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "SamplingBar", Tired)
        patch.setattr(Tired, "finishes", 0)
        code, _, err = type_sample("run=run", "out=again", *BARE, *overrides)
    assert (code, "re-run the same command to resume" in err) == (130, True)
    kept = Parts(ResultFolder(Path("again"), "sampling", str(expected["key"]))).done
    assert 0 < len(kept) < 23
    numbers = []
    of = pipeline.Samples.of
    monkeypatch.setattr(
        pipeline.Samples, "of", lambda chains: numbers.extend(chains.number.tolist()) or of(chains)
    )
    assert same(sampled_columns(type_sample, "again", *overrides), expected)
    assert sorted(numbers) == sorted(set(range(23)) - kept)
    assert report("again")["of_earlier_attempts"] == len(kept)
    assert not Path("again/parts").exists()


def test_a_folder_of_other_samples_is_refused_and_kept(run, type_sample, without_figures):
    sampled_columns(type_sample, "made", "n=3")
    before = everything("made")
    for change in ("n=4", "seed=1", "start.scale=2", "sampler.noise=0", "guidance=none"):
        code, _, err = type_sample("run=run", "out=made", *BARE, "n=3", change)
        assert code == 1
        assert err == "error: made holds another sampling: choose another out=FOLDER\n"
    assert everything("made") == before


def test_damaged_samples_are_refused(run, type_sample, without_figures):
    sampled_columns(type_sample, "made", "n=3")
    Path("made/samples.npz").write_bytes(b"PK")
    code, _, err = type_sample("run=run", "out=made", "n=3", *BARE)
    assert code == 1
    assert err.startswith("error: made/samples.npz is damaged: remove it")


# Choices


@pytest.mark.parametrize(
    "overrides",
    [
        ("start=noise", "guidance=none", "n=3"),
        ("start=class_gaussian", "guidance=class_stop", "sampler.energy=marginal", "n=1"),
        ("start=class_pca", "sampler.radius=0.5", "sampler.normalize=true", "n=13"),
        ("start=local_pca", "start.k=3", "start.by=pixels", "sampler.precision=bf16", "n=12"),
        ("start=noise", "sampler.energy=conditional", "sampler.steps=0", "n=11"),
        ("start=class_pca", "sampler.energy=cross_entropy", "guidance.draw=mean", "n=10"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_choice_is_sampled(run, type_sample, overrides, without_figures):
    some = ("progress=false", "sampler.steps=3", "judge=none", "quality=none", "out=made")
    code, out, err = type_sample("run=run", *some, *overrides)
    assert (code, err) == (0, "")
    assert "written to made/" in out
    found, expected = columns("made"), int(overrides[-1].removeprefix("n="))
    assert len(found["pixels"]) == expected
    if "sampler.radius=0.5" in overrides:
        moved = (found["pixels"] / 255.0 - found["start"] / 255.0).reshape(expected, -1)
        assert np.linalg.norm(moved, axis=1).max() < 0.5 + 8 / 255
    if "sampler.steps=0" in overrides:
        assert np.array_equal(found["pixels"], found["start"])
    report("made")


def test_the_figures_of_a_handful_are_drawn(run, type_sample):
    code, _, err = type_sample("run=run", "n=3", "out=made", *BARE, "guidance=none")
    assert (code, err) == (0, "")
    assert all(Path("made", name).is_file() for name in FIGURES)


def test_anybodys_weights_are_sampled(run, type_sample, without_figures):
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    net = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    save_file(net, "theirs.safetensors")
    typed_model = ("dataset=digits", "model=small", "model.width=8")
    code, out, err = type_sample("checkpoint=theirs.safetensors", *typed_model, "n=11", *BARE)
    assert (code, err) == (0, "")
    folder = re.search(r"^written to (.*)/: ", out, re.MULTILINE)[1]
    assert folder.startswith("theirs/samples/local_pca-11-")
    theirs = columns(folder)
    ours = sampled_columns(type_sample, "ours", "n=11")
    assert np.array_equal(theirs["label"], ours["label"])
    apart = np.abs(theirs["pixels"].astype(int) - ours["pixels"].astype(int))
    assert (apart <= 1).mean() > 0.99  # of the same network in another memory format


def test_a_run_that_cannot_be_written_to_is_sampled_elsewhere(
    run, type_sample, monkeypatch, without_figures
):
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "run" not in Path(path).parts and access(path, mode)
    )
    before = everything("run")
    code, _, err = type_sample("run=run", "n=3", *BARE)
    assert code == 1
    assert re.fullmatch(r"error: run/samples/\S+ is not a writable folder: .*out=FOLDER\n", err)
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: Path(path).absolute() not in (run.absolute(),) and access(path, mode),
    )
    sampled_columns(type_sample, "elsewhere", "n=3")
    assert everything("run") == before
    assert Path("elsewhere/.cache").is_dir()


# A sweep


def test_a_sweep_ends_in_a_table_and_a_figure(run, type_sample, without_figures):
    code, out, err = type_sample(
        "-m", "run=run", "start=noise,local_pca", "guidance=none,class_energy", "n=50",
        "hydra.sweep.dir=swept", "quality=classifier", "progress=false", "sampler.steps=2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for name in ("tradeoff.md", "tradeoff.csv", "tradeoff.png", "tradeoff.pdf"):
        assert Path("swept", name).stat().st_size > 100
        assert name in out
    with Path("swept/tradeoff.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = [row["images"] for row in rows]
    assert kinds == ["samples"] * 4 + ["start alone"] * 2 + ["held-out images"]
    assert [(row["start"], row["guidance"]) for row in rows[:4]] == [
        ("noise", "none"), ("noise", "class_energy"),
        ("local_pca", "none"), ("local_pca", "class_energy"),
    ]  # fmt: skip
    for job, row in enumerate(rows[:4]):
        expected = report(f"swept/{job}")["sets"]["samples"]
        assert float(row["FID"]) == pytest.approx(expected["fid"], abs=0.0051)
        assert float(row["variety"]) == pytest.approx(expected["variety"], abs=0.00051)
    assert matplotlib.image.imread("swept/tradeoff.png")[:, :, :3].std() > 0.03


def test_a_job_that_fails_is_listed_and_the_others_are_compared(run, type_sample, without_figures):
    code, out, err = type_sample(
        "-m", "run=run", "start.k=5,500", "n=3", "hydra.sweep.dir=swept", "judge=none",
        "quality=none", "progress=false", "sampler.steps=2",
    )  # fmt: skip
    assert code == 1
    assert err.count("\n") == 1
    assert re.search(r"^job 1 failed: start.k=500 is more than the \d+ other", out, re.MULTILINE)
    assert Path("swept/tradeoff.csv").is_file()
    assert [path.name for path in Path("swept/1").iterdir()] == ["error.txt"]


# Mistakes

MISTAKES = [
    ("start.k=200", "start.k=200 is more than the"),
    ("start.k=0", "start.k=0 must be an integer >= 1"),
    ("start=nowhere", "choose from class_gaussian, class_pca, local_pca, noise"),
    ("guidance=away", "choose from class_energy, class_stop, none"),
    ("sampler.stride=3", "sampler.stride: unknown key; did you mean sampler.steps"),
    ("judge=nowhere", "nowhere is not a run folder"),
    ("out=file", "file is not a writable folder: choose another out=FOLDER"),
    ("out=file/below", "file/below is not a writable folder"),
    ("quality=classifier judge=none n=60", "quality=classifier needs the standard"),
    ("quality=classifier n=49", "49 images are too few for FID"),
    ("quality=inception n=60 quality.weights=no.pth", "quality.weights=no.pth is not there"),
    ("quality=inception n=60 quality.weights=file", "file is not a checkpoint"),
    ("run=nowhere", "nowhere is not a run folder"),
    ("run=null", "name one of run=FOLDER, checkpoint=FILE"),
    ("checkpoint=x.pt", "name one of run=FOLDER"),
    ("model.width=3", "brings its own data set, model and threat"),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES, ids=[m for m, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(run, type_sample, mistake, said):
    Path("file").write_text("a letter")
    before = everything()
    typed_again = {part.split("=")[0] for part in mistake.split()}
    rest = [o for o in ("run=run", "n=3", *BARE) if o.split("=")[0] not in typed_again]
    code, out, err = type_sample(*rest, *mistake.split())
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert everything() == before


def test_a_classifier_of_another_data_set_is_refused(run, type_sample):
    shutil.copytree(run, "other")
    path = Path("other/config.yaml")
    path.write_text(path.read_text().replace("name: digits", "name: letters"))
    before = everything()
    code, _, err = type_sample("run=run", "judge=other", "n=3", "quality=none", *QUICK)
    assert code == 1
    assert err == (
        "error: judge=other is a classifier of letters, 10 classes, but samples are of digits, "
        "10 classes\n"
    )
    assert everything() == before


def test_any_run_of_the_data_set_may_be_the_classifier(run, type_sample, without_figures):
    code, _, err = type_sample("run=run", "judge=run", "n=20", "quality=none", "out=made", *QUICK)
    assert (code, err) == (0, "")
    found = columns("made")
    pixels = torch.from_numpy(found["pixels"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        right = (opened_net()(pixels).argmax(1).numpy() == found["label"]).mean()
    assert report("made")["sets"]["samples"]["classifier_accuracy"] == pytest.approx(right)


def test_an_interrupted_classifier_is_trained_again(run, type_sample, monkeypatch, without_figures):
    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.fit", cut)
        assert type_sample("run=run", "n=3", "quality=none", "out=made", *QUICK)[0] == 130
    assert not list(Path("run/samples/cache").glob("classifier-*[!t]"))
    code, _, err = type_sample("run=run", "n=3", "quality=none", "out=made", *QUICK)
    assert (code, err) == (0, "")
    (folder,) = Path("run/samples/cache").glob("classifier-*")
    assert RunFolder.open(folder).has_checkpoint()


def test_a_network_that_is_damaged_is_one_line(run, type_sample):
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    name = next(k for k in checkpoint["state_dict"] if k.endswith("weight"))
    checkpoint["state_dict"][name].fill_(torch.nan)
    torch.save(checkpoint, path)
    code, _, err = type_sample("run=run", "n=3", "out=made", *BARE)
    assert code == 1
    assert err == "error: the network's energies of its training images are not finite\n"
    assert not Path("made").exists()


# Standard training, which the classifier uses


def test_no_attack_has_no_regularizer_and_no_trades(type_sample, monkeypatch, capsys):
    for change in ("reg=der", "loss=trades"):
        code, _, err = typed(
            monkeypatch, capsys, train.main, *TRAINING, "attack=none", change, "hydra.run.dir=new"
        )
        assert code == 1, change
        assert err.count("\n") == 1
        assert not Path("new").exists()
