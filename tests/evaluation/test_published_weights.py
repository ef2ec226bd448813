"""Files of weights of other code bases: their open questions are named, detected or measured."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from energy_at.config.build import build_data
from energy_at.config.keys import compose_command
from energy_at.evaluation import gradient_masking
from energy_at.evaluation.hub import export
from energy_at.evaluation.normalization import NONE
from energy_at.evaluation.published_weights import open_weights
from energy_at.runs.folder import RunFolder
from tests.helpers.evaluations import report
from tests.helpers.running import assert_refused, fitted, train_in
from tests.models.test_weights import (
    BasicBlock,
    EighteenLayers,
    GowalPreActResNet,
    GowalWideResNet,
    PreActBlock,
    TradesWideResNet,
    moved,
)

SMALL = ("dataset=synthetic", "dataset.size=8", "model=preactresnet18", "model.width=4")
FEW = (
    *SMALL,
    *("checkpoint=w.safetensors", "attacks=[fgsm]", "progress=false", "device=cpu"),
)


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory):
    """A trained network whose shortcuts begin at the blocks' inputs, of normalized images."""
    folder = tmp_path_factory.mktemp("plain")
    options = (*SMALL, "model.shortcut=plain", "attack=none", "trainer.max_epochs=2", "logger=csv",
               "callbacks.progress=null", "optimizer.lr=0.05")  # fmt: skip
    run = fitted(folder / "run", *options)
    return {
        key: value.clone().contiguous() for key, value in run.module.net.net.state_dict().items()
    }


@pytest.fixture
def file(plain_weights, here, monkeypatch):
    monkeypatch.setattr(gradient_masking, "BLACK_BOX_QUERIES", 1)
    save_file(plain_weights, "w.safetensors")
    return plain_weights


def evaluated(type_evaluate, out, *options):
    code, _, err = type_evaluate(*FEW, *options, f"out={out}")
    assert code == 0, err
    found = report(out)
    return found["network"], [row["accuracy"] for row in found["accuracies"]], err


@pytest.mark.slow
def test_the_shortcut_is_measured_named_or_typed(type_evaluate, file):
    network, measured, err = evaluated(type_evaluate, "measured")
    assert network["shortcut"]["chosen"] == "plain"
    assert "the file does not say where its shortcuts begin: chosen plain, by" in err
    assert measured[0] > 0.5
    network, named, err = evaluated(type_evaluate, "named", "source=n_fgsm")
    assert network["code_base"]["name"] == "n_fgsm"
    assert (named, err) == (measured, "")
    _, typed, _ = evaluated(type_evaluate, "typed", "model.shortcut=plain", "normalize=dataset")
    assert typed == measured
    _, wrong, _ = evaluated(type_evaluate, "wrong", "source=robust_overfitting")
    assert wrong[0] < measured[0]
    network, raw, err = evaluated(type_evaluate, "raw", "source=gradalign")  # no normalization
    assert (raw == measured, "normalization" in network, err) == (False, False, "")


def test_an_unknown_source_is_refused(type_evaluate, here):
    save_file({"conv1.weight": torch.zeros(4, 3, 3, 3)}, "w.safetensors")
    said = "source=trade must be fast_adversarial, n_fgsm, "
    assert_refused(type_evaluate, said, *FEW, "source=trade", "out=out")


# The published networks of each code base, and the constants that its evaluation subtracts

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
SVHN = ((0.4380, 0.4440, 0.4730), (0.1751, 0.1771, 0.1744))
RAW = ((0.0,) * 3, (1.0,) * 3)
PREACT, RESNET = (), ("model=resnet18",)
WIDE = ("model=wideresnet28_10", "model.depth=16", "model.widen=2")
PLAIN = partial(EighteenLayers, partial(PreActBlock, False))
ACTIVATED = partial(EighteenLayers, partial(PreActBlock, True))


def rowed(source, dataset, network, theirs, constants):
    return pytest.param(source, dataset, network, theirs, constants, id=f"{source}-{dataset}")


ROWS = [
    *(rowed(s, "cifar10", PREACT, partial(PLAIN, norm), CIFAR10)
      for s in ("fast_adversarial", "n_fgsm", "aaer") for norm in ("bn", None)),
    *(rowed(s, "svhn", PREACT, partial(PLAIN, "bn"), SVHN) for s in ("n_fgsm", "aaer")),
    rowed("gradalign", "cifar10", PREACT, partial(PLAIN, None), RAW),
    rowed("gradalign", "svhn", PREACT, partial(PLAIN, None), RAW),
    rowed("robust_overfitting", "cifar10", PREACT, partial(ACTIVATED, "bn"), CIFAR10),
    rowed("robust_overfitting", "cifar10", WIDE, TradesWideResNet, CIFAR10),
    rowed("trades", "cifar10", WIDE, TradesWideResNet, RAW),
    rowed("trades", "cifar10", RESNET, partial(EighteenLayers, BasicBlock, "bn1"), RAW),
    rowed("deepmind", "cifar10", PREACT, partial(GowalPreActResNet, F.silu), CIFAR10),
    rowed("deepmind", "cifar10", WIDE, partial(GowalWideResNet, F.silu), CIFAR10),
    rowed(None, "cifar10", PREACT, partial(GowalPreActResNet, F.silu), CIFAR10),
    rowed("robustbench", "cifar10", PREACT, partial(PLAIN, None), None),
    rowed("robustbench", "cifar10", PREACT, partial(ACTIVATED, "bn"), None),
    rowed("robustbench", "cifar10", WIDE, TradesWideResNet, None),
    rowed("robustbench", "cifar10", PREACT, partial(GowalPreActResNet, F.silu), None),
    rowed("robustbench", "cifar10", WIDE, partial(GowalWideResNet, F.silu), None),
]  # fmt: skip


def test_a_file_of_gradalign_is_detected_by_its_alias_of_the_first_layers(here, capsys):
    net = moved(PLAIN(None)).float()
    alias = {
        f"model_preact_hl1.{number}.{key}": value.clone()
        for number, layer in {"1": net.conv1, "2": net.layer1[0].bn1}.items()
        for key, value in layer.state_dict().items()
    }
    save_file({**net.state_dict(), **alias}, "w.safetensors")
    x = torch.rand(3, 3, 16, 16)
    found, record = opened("dataset=cifar10", "dataset.classes=5")
    torch.testing.assert_close(found.eval()(x), net(x), rtol=1e-4, atol=1e-4)
    assert list(record) == ["code_base"]
    said = capsys.readouterr().err
    assert said.startswith("w.safetensors: layers named as in source=gradalign: shortcut=plain, ")


def opened(*options):
    """The network of a file, measured on synthetic images if at all."""
    config = compose_command(
        "evaluate", ["checkpoint=w.safetensors", "device=cpu", "model.width=4", *options]
    )
    images = build_data(compose_command("evaluate", ["dataset=synthetic", "dataset.size=8"]))
    return open_weights(config, images, options)


@pytest.mark.parametrize(("source", "dataset", "network", "theirs", "constants"), ROWS)
def test_a_named_code_base_gives_its_logits(here, source, dataset, network, theirs, constants):
    """Of the networks and the pixels that its published evaluation builds."""
    net = moved(theirs()).float()
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    x = torch.rand(3, 3, 16, 16)
    if constants is None:  # RobustBench keeps them in the file
        constants = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)
    else:
        state.pop("mean", None), state.pop("std", None)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in constants)
    if hasattr(net, "mean"):  # it normalizes images itself
        net.mean, net.std = mean, std
        expected = net(x)
    else:
        expected = net((x - mean) / std)
    if source == "robustbench":
        names = ("mean", "std") if hasattr(net, "mean") else ("mu", "sigma")
        state |= {name: v.clone() for name, v in zip(names, (mean, std), strict=True)}
    save_file(state, "w.safetensors")
    named = () if source is None else (f"source={source}",)
    found, record = opened(*named, *network, f"dataset={dataset}", "dataset.classes=5")
    torch.testing.assert_close(found.eval()(x), expected, rtol=1e-4, atol=1e-4)
    assert record["code_base"]["name"] == (source or "deepmind")
    assert list(record) == ["code_base"]  # nothing was measured


# What a file of ours says of itself


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    options = (*SMALL, "model.shortcut=plain", "model.activation=silu", "trainer.max_epochs=1",
               "trainer.limit_train_batches=2", "logger=csv", "callbacks.progress=null",
               "validation.attacks.pgd.steps=1", "evaluation.images=[val]")  # fmt: skip
    return train_in(tmp_path_factory.mktemp("run") / "run", *options, "trainer.accelerator=cpu")


@pytest.mark.parametrize("kind", ["export", "checkpoint"])
def test_a_file_of_ours_needs_no_name_though_its_network_has_other_options(
    plain_run, here, capsys, kind
):
    """An export records its network, and a checkpoint lies in a run that does."""
    file = plain_run / "checkpoints" / "last.ckpt"
    if kind == "export":
        file = export(RunFolder.open(plain_run), "last", here / "w.safetensors")
    net, record = opened(f"checkpoint={file}", *SMALL)
    assert capsys.readouterr().err == f"{file}: its network has shortcut=plain, activation=silu\n"
    assert record == {}
    expected, _ = opened(f"checkpoint={file}", *SMALL, "model.shortcut=plain",
                         "model.activation=silu")  # fmt: skip
    other, _ = opened(f"checkpoint={file}", *SMALL, "model.shortcut=activated")
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(net.eval()(x), expected.eval()(x), rtol=0, atol=0)
    assert not torch.allclose(net(x), other.eval()(x))
    assert capsys.readouterr().err == f"{file}: its network has activation=silu\n"


@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_normalization_in_the_file_does_not_say_where_its_shortcuts_begin(
    file, here, capsys, prefix
):
    """As of a stranger's network behind a layer that is called as ours, or of a copied export."""
    constants = {"mean": [0.5] * 3, "std": [0.25] * 3}
    layer = {f"normalize.{key}": torch.tensor(v).view(1, 3, 1, 1) for key, v in constants.items()}
    save_file(layer | {f"{prefix}{key}": value for key, value in file.items()}, "w.safetensors")
    net, record = opened(*SMALL)
    assert record["shortcut"]["chosen"] == "plain"
    assert set(record) == {"shortcut"}  # not the normalization: the file has it
    assert net.normalize.mean.flatten().tolist() == constants["mean"]
    assert "does not say where its shortcuts begin: chosen plain" in capsys.readouterr().err


def test_a_normalization_of_pixels_up_to_255_is_refused(type_evaluate, file):
    layer = {"normalize.mean": torch.full((3,), 125.0), "normalize.std": torch.full((3,), 63.0)}
    save_file(layer | file, "w.safetensors")
    said = "the checkpoint's normalize.mean must be of pixels in [0, 1], got 125"
    assert_refused(type_evaluate, said, *FEW, "source=n_fgsm", "out=out")


@pytest.mark.parametrize(
    "typed", ["normalize=none", "dataset.mean=[0.1,0.2,0.3]", "model.std=[0.25,0.25,0.26]"]
)
def test_a_wish_for_another_normalization_than_that_of_the_file_is_refused(
    type_evaluate, file, typed
):
    layer = {"normalize.mean": torch.full((3,), 0.1), "normalize.std": torch.full((3,), 0.25)}
    save_file(layer | file, "w.safetensors")
    said = f"{typed} must be left out: w.safetensors holds a normalization"
    assert_refused(type_evaluate, said, *FEW, "source=n_fgsm", typed, "out=out")


def test_the_normalization_of_the_file_may_be_typed(file):
    constants = {"mean": [0.1, 0.2, 0.3], "std": [0.25, 0.25, 0.26]}
    layer = {f"normalize.{k}": torch.tensor(v).view(1, 3, 1, 1) for k, v in constants.items()}
    save_file(layer | file, "w.safetensors")
    typed = [f"dataset.{key}={value}".replace(" ", "") for key, value in constants.items()]
    assert opened(*SMALL, "source=n_fgsm", *typed)[0].normalize.mean.flatten().tolist() == (
        torch.tensor(constants["mean"]).tolist()
    )


def test_images_of_more_classes_than_the_network_knows_are_refused(type_evaluate, here):
    net = moved(ACTIVATED("bn")).float()
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, "w.safetensors")
    typed = ("source=n_fgsm", "dataset=digits", "dataset.classes=5", "dataset.channels=3",
             "dataset.mean=[0.3,0.3,0.3]", "dataset.std=[0.4,0.4,0.4]")  # fmt: skip
    said = "the network has 5 logits but labels go up to 9: choose the data set"
    assert_refused(type_evaluate, said, *FEW[3:], *typed, "out=out")


# Files that measuring does not decide


@pytest.fixture
def untrained(here):
    net = moved(ACTIVATED("bn")).float()
    with torch.no_grad():
        net.linear.weight.zero_()
        net.linear.bias.copy_(torch.arange(5.0))
        net.linear.weight[0] = 1e-2  # the logits move, the class does not
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, "w.safetensors")


NOWHERE = ("dataset=synthetic", "dataset.size=8", "dataset.classes=5")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ((), "does not say where its shortcuts begin, and the correct ones of 128 images ("),
        (("normalize=dataset",), "write source=NAME of its code base, or model.shortcut=activated"),
        (("source=robustbench",), "holds no normalization, and the correct ones of 128 images ("),
        (("model.shortcut=plain",), "write source=NAME of its code base, normalize=dataset or "),
    ],
)
def test_what_measuring_does_not_decide_is_refused_in_one_line(
    untrained, type_evaluate, typed, said
):
    assert_refused(type_evaluate, said, *FEW, *NOWHERE, *typed, "out=out")


@pytest.mark.parametrize(
    "typed",
    [("source=n_fgsm",), ("source=trades", "model.shortcut=plain"),
     ("model.shortcut=plain", "normalize=none"), ("model.shortcut=plain", "dataset.mean=[0,0,0]")],
)  # fmt: skip
def test_what_is_named_is_not_refused(untrained, typed):
    opened(*NOWHERE, *typed)


def test_readings_with_the_same_logits_are_not_refused(untrained, capsys):
    """Without weights in its last layer a network gives the same logits in every reading."""
    net = moved(ACTIVATED("bn")).float()
    torch.nn.init.zeros_(net.linear.weight)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, "w.safetensors")
    _, record = opened(*NOWHERE)
    assert record["shortcut"]["chosen"] == "activated"
    assert record["normalization"]["chosen"] != NONE
