"""Opening trained networks: what is named, what is refused, what identifies a result."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from energy_at.config.keys import compose_command
from energy_at.data import ImageData, ImageSet
from energy_at.evaluation import EvaluationTarget, open_model, result_key
from energy_at.evaluation.trained_model import network_text, require_wandb_only
from tests.helpers.digits_net import digits_net
from tests.helpers.running import assert_refused

SMALL = ("model=small", "model.width=8")


def brightened(subject):
    data = ImageData(subject.data.reader, "", batch_size=4, val_size=100)
    train, test = data.reader(Path())
    pixels = test.pixels.clone()
    pixels[:, :, 0, 0] += 1
    data.reader = lambda _: (train, ImageSet(pixels, test.labels))
    return replace(subject, data=data)


def retrained(subject):
    net, _ = digits_net()
    with torch.no_grad():
        net.net.classifier[2].bias[0] += 0.01
    return replace(subject, net=net)


def remodelled(subject):
    config = subject.config.copy()
    config.model.padding = "same"  # an option that no weight shows
    return replace(subject, config=config)


@pytest.mark.parametrize("change", [retrained, remodelled], ids=["weights", "model"])
def test_a_key_depends_on_weights_and_model(subject, change):
    images = subject.data.test
    key = result_key(subject, images, {"steps": 1})
    assert key == result_key(replace(subject), images, {"steps": 1})
    assert key != result_key(change(subject), images, {"steps": 1})


def test_a_key_depends_on_images_and_settings(subject):
    images = subject.data.test
    keys = {
        result_key(subject, images, {"steps": 1, "seed": 0}),
        result_key(subject, images, {"steps": 1, "seed": 1}),
        result_key(subject, images.first(10), {"steps": 1, "seed": 0}),
        result_key(subject, brightened(subject).data.test, {"steps": 1, "seed": 0}),
    }
    assert len(keys) == 4


def test_a_subset_is_drawn_in_order_and_by_its_seed(subject):
    def chosen(seed):
        plan = EvaluationTarget(
            norm="linf", balls={}, names=[], steps=1, subset=9, subset_seed=seed
        )
        return plan.images(subject)

    images, indices = chosen(1)
    assert indices == sorted(set(indices))
    assert torch.equal(images.pixels, subject.data.test.take(torch.tensor(indices)).pixels)
    assert chosen(1)[1] == indices
    assert chosen(2)[1] != indices
    assert chosen(None)[1] == list(range(9))


@pytest.mark.usefixtures("digits_run")
def test_the_seed_of_the_attacks_does_not_choose_the_held_out_images():
    named = ("checkpoint=run/checkpoints/last.ckpt", *SMALL, "device=cpu")
    models = [open_model(compose_command("evaluate", [*named, f"seed={seed}"])) for seed in (0, 1)]
    assert torch.equal(*(model.data.val.pixels for model in models))


@pytest.mark.parametrize(("last", "mark"), [(0.5, ""), (0.0, "collapsed")])
def test_a_network_that_lost_its_robustness_is_marked(digits_run, last, mark):
    accuracies = (0.4, 0.5, 0.5, last)
    rows = [f"{step},{step - 1},{accuracy}" for step, accuracy in enumerate(accuracies, 1)]
    text = "\n".join(["step,epoch,val/acc/pgd10", *rows])
    (digits_run / "metrics.csv").write_text(f"{text}\n")
    model = open_model(compose_command("evaluate", ["run=run", "device=cpu"]))
    assert model.identity["mark"] == mark
    where = f" ({mark})" if mark else ""
    assert network_text(model.identity) == f"run, last checkpoint{where}"


def test_threat_models_are_those_of_the_training_or_of_the_data_set(subject):
    assert {text: ball.eps for text, ball in subject.threat_models(None, None).items()} == {
        "0.1": 0.1
    }
    assert list(subject.threat_models("l2", None)) == ["0.5"]
    assert list(subject.threat_models("linf", ["8/255", "1 / 10"])) == ["8/255", "1/10"]


@pytest.fixture
def mistakes(digits_run):
    """Files and folders that cannot be opened."""
    for name, text in (("empty", None), ("no_yaml", "{a: ["), ("other", "a: 1\n")):
        Path(name).mkdir()
        if text is not None:
            Path(name, "config.yaml").write_text(text)
    Path("file").write_text("text")
    whole = Path("run/checkpoints/last.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name in ("0", "10", "2"):
        shutil.copytree("run", Path("sweep", name))
    Path("taken").mkdir()
    Path("taken/journal.jsonl").write_text("of somebody else\n")


@pytest.mark.usefixtures("mistakes")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((), "name one of run=FOLDER, checkpoint=FILE with its model= and dataset="),
        (("run=run", "checkpoint=file"), "name one of run=FOLDER, checkpoint=FILE"),
        (("run=nowhere",), "nowhere is not a run folder"),
        (("run=empty",), "empty is not a run folder"),
        (("run=file",), "file is not a run folder"),
        (("run=no_yaml",), "no_yaml/config.yaml is damaged: line "),
        (("run=other",), "other/config.yaml is damaged: it has no group dataset"),
        (("run=run", "which=best"), "run has no checkpoint best.ckpt"),
        (("run=run", "which=healthy"), "run has no checkpoint healthy.ckpt: no epoch of it was"),
        (("checkpoint=nowhere",), "checkpoint nowhere not found"),
        (("checkpoint=empty",), "checkpoint=empty is a folder: name a file in it, or write run"),
        (("checkpoint=file",), "file is not a checkpoint"),
        (("checkpoint=cut.ckpt", *SMALL), "checkpoint cut.ckpt is damaged or truncated"),
        (("checkpoint=run/checkpoints/last.ckpt",), "is of another network"),
        (("checkpoint=run/checkpoints/last.ckpt", *SMALL, "dataset=synthetic"), "for 1 channels"),
        (("checkpoint=run/checkpoints/last.ckpt", *SMALL, "which=best"), "holds no entry best"),
        (("run=run", "dataset=cifar10"), "run brings its own data set, model and threat: leave"),
        (("run=run", "++dataset.subset=5"), "brings its own data set, model and threat: leave"),
        (("run=run", "model.width=4"), "leave out model.width=4"),
        (("run=run", "threat=l2"), "leave out threat=l2"),
        (("run=run", "eps=8"), "eps=8 is above 1, but pixels lie in [0, 1]: did you mean 8/255?"),
        (("run=run", "eps=[8/255,8]"), "eps=8 is above 1"),
        (("run=run", "eps=0"), "eps=0 must be a finite number > 0 and <= 1"),
        (("run=run", "eps=-1/255"), "eps=-1/255 must be a finite number > 0"),
        (("run=run", "eps=many"), "eps=many must be a number, or a fraction such as 8/255"),
        (("run=run", "eps=inf", "norm=l2"), "eps=inf must be a number"),
        (("run=run", "eps=[]"), "eps=[] names no radius"),
        (("run=run", "norm=l2", "eps=128"), "eps=128 is above 8, but pixels lie in [0, 1]"),
        (("run=sweep",), "sweep holds several runs: name one, such as sweep/0"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_gets_one_line_and_writes_nothing(type_evaluate, wrong, said):
    assert_refused(type_evaluate, said, *wrong)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("logger=csv", "logger=csv: only trainings write it; choose wandb or none"),
        (
            "logger=wandb logger.wandb._target_=os.system",
            r"logger\.wandb\._target_=os\.system is not trusted",
        ),
        (
            "logger=wandb logger.wandb._target_=0.5",
            r"logger\.wandb\._target_=0\.5 must be the name of",
        ),
    ],
)
def test_a_logger_is_refused_before_what_it_would_log_is_computed(typed, said):
    cfg = compose_command("analyse", ["run=run", *typed.split()])
    with pytest.raises(ValueError, match=said):
        require_wandb_only(cfg)
