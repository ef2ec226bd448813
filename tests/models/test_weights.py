"""Weights of others: networks as they were published, written down here, load into ours."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from energy_at.models import preactresnet18, resnet18, small, wideresnet
from energy_at.models.weights import exported, load_weights
from energy_at.runs.checkpoints import read_tensors

CLASSES, WIDTH = 5, 4
SIZES = {"channels": 3, "classes": CLASSES, "width": WIDTH}
AS_IS = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
OTHER = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}


# The published networks: their names, and what they compute


def conv(before, after, size, stride, padding):
    return nn.Conv2d(before, after, size, stride, padding, bias=False)


def chain(block, before, after, stride):
    """Two blocks of one stage."""
    return nn.Sequential(block(before, after, stride), block(after, after, 1))


def pooled(x):
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class TradesBlock(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = conv(before, after, 3, stride, 1)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = conv(after, after, 3, 1, 1)
        self.convShortcut = None if before == after else conv(before, after, 1, stride, 0)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class TradesWideResNet(nn.Module):
    """TRADES, AWP, Rice et al.: WRN-16-2 with a stem of 4 channels."""

    def __init__(self):
        super().__init__()
        self.conv1 = conv(3, 4, 3, 1, 1)
        self.block1 = nn.Sequential(OrderedDict(layer=chain(TradesBlock, 4, 8, 1)))
        self.block2 = nn.Sequential(OrderedDict(layer=chain(TradesBlock, 8, 16, 2)))
        self.block3 = nn.Sequential(OrderedDict(layer=chain(TradesBlock, 16, 32, 2)))
        self.bn1 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, x):
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(pooled(F.relu(self.bn1(out))))


def same(x, stride):
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


class GowalBlock(nn.Module):
    def __init__(self, activation, before, after, stride):
        super().__init__()
        self.activation, self.stride = activation, stride
        self.batchnorm_0 = nn.BatchNorm2d(before)
        self.conv_0 = conv(before, after, 3, stride, 0)
        self.batchnorm_1 = nn.BatchNorm2d(after)
        self.conv_1 = conv(after, after, 3, 1, 1)
        self.shortcut = None if before == after else conv(before, after, 1, stride, 0)

    def forward(self, x):
        active = self.activation(self.batchnorm_0(x))
        out = self.activation(self.batchnorm_1(self.conv_0(same(active, self.stride))))
        return self.conv_1(out) + (x if self.shortcut is None else self.shortcut(active))


class GowalWideResNet(nn.Module):
    """Gowal et al. (2020, 2021), Rebuffi et al. (2021), Wang et al. (2023)."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.register_buffer("mean", torch.rand(3, 1, 1))
        self.register_buffer("std", torch.rand(3, 1, 1) + 0.2)
        self.init_conv = conv(3, 4, 3, 1, 1)
        block = partial(GowalBlock, activation)
        stages = [(4, 8, 1), (8, 16, 2), (16, 32, 2)]
        groups = [nn.Sequential(OrderedDict(block=chain(block, *stage))) for stage in stages]
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(32)
        self.logits = nn.Linear(32, CLASSES)

    def forward(self, x):
        out = self.layer(self.init_conv((x - self.mean) / self.std))
        return self.logits(pooled(self.activation(self.batchnorm(out))))


class GowalPreActBlock(nn.Module):
    def __init__(self, activation, before, after, stride):
        super().__init__()
        self.activation, self.stride = activation, stride
        self.batchnorm_0 = nn.BatchNorm2d(before)
        self.conv_2d_1 = conv(before, after, 3, stride, 0)
        self.batchnorm_1 = nn.BatchNorm2d(after)
        self.conv_2d_2 = conv(after, after, 3, 1, 1)
        if stride != 1 or before != after:
            self.shortcut = conv(before, after, 3, stride, 0)

    def forward(self, x):
        out = self.conv_2d_1(same(self.activation(self.batchnorm_0(x)), self.stride))
        out = self.conv_2d_2(self.activation(self.batchnorm_1(out)))
        return out + (self.shortcut(same(x, self.stride)) if hasattr(self, "shortcut") else x)


class GowalPreActResNet(nn.Module):
    """The ResNet-18 of Rebuffi et al. (2021), Gowal et al. (2021) and Rade et al. (2021)."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.register_buffer("mean", torch.rand(3, 1, 1))
        self.register_buffer("std", torch.rand(3, 1, 1) + 0.2)
        self.conv_2d = conv(3, 4, 3, 1, 1)
        block = partial(GowalPreActBlock, activation)
        self.layer_0 = chain(block, 4, 4, 1)
        self.layer_1 = chain(block, 4, 8, 2)
        self.layer_2 = chain(block, 8, 16, 2)
        self.layer_3 = chain(block, 16, 32, 2)
        self.batchnorm = nn.BatchNorm2d(32)
        self.logits = nn.Linear(32, CLASSES)

    def forward(self, x):
        out = self.layer_1(self.layer_0(self.conv_2d((x - self.mean) / self.std)))
        out = self.layer_3(self.layer_2(out))
        return self.logits(pooled(self.activation(self.batchnorm(out))))


class PreActBlock(nn.Module):
    def __init__(self, from_activation, before, after, stride):
        super().__init__()
        self.from_activation = from_activation
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = conv(before, after, 3, stride, 1)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = conv(after, after, 3, 1, 1)
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride, 0))

    def forward(self, x):
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        if not hasattr(self, "shortcut"):
            return out + x
        return out + self.shortcut(active if self.from_activation else x)


class BasicBlock(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = conv(before, after, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = conv(after, after, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride, 0), nn.BatchNorm2d(after))

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class EighteenLayers(nn.Module):
    """RobustBench's ``ResNet`` with a first ``bn1``, its ``PreActResNet`` with a last ``bn``."""

    def __init__(self, block, norm):
        super().__init__()
        self.norm = norm
        self.conv1 = conv(3, 4, 3, 1, 1)
        if norm == "bn1":
            self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = chain(block, 4, 4, 1)
        self.layer2 = chain(block, 4, 8, 2)
        self.layer3 = chain(block, 8, 16, 2)
        self.layer4 = chain(block, 16, 32, 2)
        if norm == "bn":
            self.bn = nn.BatchNorm2d(32)
        self.linear = nn.Linear(32, CLASSES)

    def forward(self, x):
        out = self.conv1(x)
        if self.norm == "bn1":
            out = F.relu(self.bn1(out))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        if self.norm == "bn":
            out = F.relu(self.bn(out))
        return self.linear(pooled(out))


def of_gowal(activation, **options):
    return partial(wideresnet, depth=16, widen=2, activation=activation, padding="same")


preact_of_gowal = partial(preactresnet18, padding="same", shortcut="plain3x3")
NAMED_AS_OURS = {
    "trades_wrn": (TradesWideResNet, partial(wideresnet, depth=16, widen=2)),
    "rice_preact": (partial(EighteenLayers, partial(PreActBlock, True), "bn"), preactresnet18),
    "wong_preact": (
        partial(EighteenLayers, partial(PreActBlock, False), None),
        partial(preactresnet18, shortcut="plain", final_norm=False),
    ),
    "resnet": (partial(EighteenLayers, BasicBlock, "bn1"), resnet18),
}
PUBLISHED = NAMED_AS_OURS | {
    "gowal_wrn_silu": (partial(GowalWideResNet, F.silu), of_gowal("silu")),
    "gowal_wrn_relu": (partial(GowalWideResNet, F.relu), of_gowal("relu")),
    "gowal_preact_silu": (
        partial(GowalPreActResNet, F.silu),
        partial(preact_of_gowal, activation="silu"),
    ),
    "gowal_preact_relu": (partial(GowalPreActResNet, F.relu), preact_of_gowal),
}


def moved(net):
    """Random weights and statistics, of which none is 0 or 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(7)
    return net.double().eval()


def pair(name, normalization=AS_IS):
    theirs, ours = PUBLISHED[name]
    return moved(theirs()), ours(**SIZES, **normalization).double().eval()


def images(n=3):
    return torch.rand(n, 3, 16, 16, dtype=torch.float64)


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s},
    "model": lambda s: {"model": s},
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 3},
    "optimizer": lambda s: {
        "epoch": 3,
        "state_dict": s,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{}]},
    },
    "parallel": lambda s: prefixed("module.", s),
    "parallel_state_dict": lambda s: {"state_dict": prefixed("module.", s), "best_acc": 51.2},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "parallel_compiled": lambda s: {"model": prefixed("module._orig_mod.", s)},
    "attribute": lambda s: prefixed("model.", s),
    "attribute_parallel": lambda s: {"state_dict": prefixed("model.module.", s)},
    "lightning": lambda s: {"state_dict": prefixed("net.", s), "epoch": 3, "callbacks": {}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_the_published_logits(name, wrapping, tmp_path):
    theirs, ours = pair(name)
    torch.save(wrapping(theirs.state_dict()), tmp_path / "file.pt")
    load_weights(ours, read_tensors(tmp_path / "file.pt"))
    x = images()
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", NAMED_AS_OURS)
def test_our_layers_have_the_published_names_in_the_published_order(name):
    theirs, ours = pair(name)
    assert list(ours.net.state_dict()) == list(theirs.state_dict())
    assert [k for k, _ in ours.net.named_parameters()] == [k for k, _ in theirs.named_parameters()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_old_files_that_count_no_batches_load(name):
    theirs, ours = pair(name)
    state = theirs.state_dict()
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    assert len(old) < len(state)
    load_weights(ours, old)
    x = images()
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_files_of_old_and_new_pytorch_load(options, tmp_path):
    theirs, ours = pair("trades_wrn")
    torch.save(theirs.state_dict(), tmp_path / "file.pt", **options)
    load_weights(ours, read_tensors(tmp_path / "file.pt"))
    x = images()
    torch.testing.assert_close(ours(x), theirs(x))


def test_weights_in_half_precision_load_in_the_precision_of_the_network():
    theirs, ours = pair("resnet")
    half = {k: v.half() if v.is_floating_point() else v for k, v in theirs.state_dict().items()}
    load_weights(ours, half)
    theirs.load_state_dict(half)
    assert {p.dtype for p in ours.parameters()} == {torch.float64}
    x = images()
    torch.testing.assert_close(ours(x), theirs(x))


def test_which_chooses_among_the_checkpoints_of_a_file():
    theirs, ours = pair("wong_preact")
    better, _ = pair("wong_preact")
    content = {"last": theirs.state_dict(), "best": better.state_dict()}
    x = images()
    for which, net in [("last", theirs), ("best", better)]:
        load_weights(ours, content, which=which)
        torch.testing.assert_close(ours(x), net(x))


def test_the_choice_may_lie_inside_a_wrapping():
    theirs, ours = pair("wong_preact")
    better, _ = pair("wong_preact")
    content = {"last": {"state_dict": theirs.state_dict()}, "best": {"net": better.state_dict()}}
    load_weights(ours, {"model": content}, which="best")
    x = images()
    torch.testing.assert_close(ours(x), better(x))


def test_a_choice_that_the_file_does_not_hold_is_refused_with_what_it_holds():
    theirs, ours = pair("wong_preact")
    with pytest.raises(ValueError, match=r"no weights to take: it holds last, best$"):
        load_weights(ours, dict.fromkeys(("last", "best"), theirs.state_dict()), which="final")


# Normalization


class Normalization(nn.Module):
    def __init__(self, shape=(1, 3, 1, 1)):
        super().__init__()
        self.register_buffer("mean", torch.rand(shape))
        self.register_buffer("std", torch.rand(shape) + 0.2)

    def forward(self, x):
        return (x - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)


def beside(name_of_mean, name_of_std):
    """Buffers of the network itself, as RobustBench registers them."""

    def state(normalization, net):
        statistics = {name_of_mean: normalization.mean, name_of_std: normalization.std}
        return statistics | net.state_dict()

    return state


def named(normalization, net):
    return nn.Sequential(OrderedDict(normalize=normalization, model=net))


NORMALIZED = {
    "mu_sigma": beside("mu", "sigma"),
    "mean_std": beside("mean", "std"),
    "named": lambda n, net: named(n, net).state_dict(),
    "named_parallel": lambda n, net: nn.DataParallel(named(n, net)).state_dict(),
    "named_state_dict": lambda n, net: {"state_dict": named(n, net).state_dict()},
    "numbered": lambda n, net: nn.Sequential(n, net).state_dict(),
    "numbered_parallel": lambda n, net: nn.DataParallel(nn.Sequential(n, net)).state_dict(),
}


@pytest.mark.parametrize("wrapping", NORMALIZED.values(), ids=NORMALIZED)
@pytest.mark.parametrize("name", NAMED_AS_OURS)
def test_normalization_in_the_file_replaces_our_own(name, wrapping):
    theirs, ours = pair(name, OTHER)
    normalization = Normalization().double()
    load_weights(ours, wrapping(normalization, theirs))
    x = images()
    torch.testing.assert_close(ours(x), theirs(normalization(x)))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)], ids=str)
def test_normalization_may_have_any_shape(shape):
    theirs, ours = pair("resnet", OTHER)
    normalization = Normalization(shape).double()
    load_weights(ours, named(normalization, theirs).state_dict())
    x = images()
    torch.testing.assert_close(ours(x), theirs(normalization(x)))


@pytest.mark.parametrize("name", NAMED_AS_OURS)
def test_without_normalization_in_the_file_ours_stays(name):
    theirs, ours = pair(name, OTHER)
    load_weights(ours, theirs.state_dict())
    mean, std = (torch.tensor(OTHER[k]).double().view(3, 1, 1) for k in ("mean", "std"))
    x = images()
    torch.testing.assert_close(ours(x), theirs((x - mean) / std))


# Refusals


def without(*names):
    return lambda state: {k: v for k, v in state.items() if k not in names}


def with_shape(name, shape):
    return lambda state: state | {name: torch.zeros(shape)}


MISFITS = {
    "one_missing": (
        without("layer2.0.conv1.weight"),
        "first missing layer2.0.conv1.weight, first unexpected none; choose model",
    ),
    "two_missing": (
        without("linear.bias", "bn.running_var"),
        "first missing bn.running_var, first unexpected none; choose model",
    ),
    "two_unexpected": (
        lambda state: state | {"head.weight": torch.ones(1), "head.bias": torch.ones(1)},
        "first missing none, first unexpected head.weight; choose model",
    ),
    "shape": (with_shape("linear.bias", 7), "linear.bias is (7,), the model needs (5,); choose"),
    "two_shapes": (
        lambda state: with_shape("linear.bias", 7)(with_shape("conv1.weight", (8, 3, 3, 3))(state)),
        "conv1.weight is (8, 3, 3, 3), the model needs (4, 3, 3, 3); choose model.width",
    ),
    "grey": (
        with_shape("normalize.mean", (1, 1, 1, 1)),
        "the checkpoint's normalize.mean is for 1 channels, the images have 3",
    ),
    "another_network": (
        lambda _: pair("resnet")[0].state_dict(),
        "first missing bn.weight, first unexpected bn1.weight",
    ),
    "translated": (
        lambda _: pair("gowal_wrn_silu")[0].state_dict(),
        "first missing layer1.0.bn1.weight, first unexpected block1.layer.0.bn1.weight",
    ),
    "empty": (lambda _: {}, "no weights to take: it holds nothing"),
    "no_tensors": (lambda _: {"epoch": 3, "lr": 0.1}, "no weights to take: it holds epoch, lr"),
    "normalization_alone": (
        lambda state: {k: state[k] for k in ("normalize.mean", "normalize.std")},
        "first missing conv1.weight, first unexpected none",
    ),
}


@pytest.mark.parametrize(("change", "said"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_named_in_one_line_and_changes_nothing(change, said):
    theirs, ours = pair("rice_preact", OTHER)
    state = named(Normalization().double(), nn.Identity()).state_dict() | theirs.state_dict()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match="checkpoint") as refusal:
        load_weights(ours, change(state))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    after = ours.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    load_weights(ours, state)
    assert not any(torch.equal(after[key], value) for key, value in before.items())


# There and back

OURS = {
    "preactresnet18": preactresnet18,
    "resnet18": resnet18,
    "wideresnet": partial(wideresnet, depth=10, widen=1),
    "small": small,
}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("factory", OURS.values(), ids=OURS)
def test_exported_weights_come_back_bit_for_bit(factory, memory, tmp_path):
    net = moved(factory(**SIZES, **OTHER)).float().to(memory_format=memory)
    other = factory(**SIZES, **AS_IS).to(memory_format=memory).eval()
    x = images().float()
    assert not torch.equal(other(x), net(x))
    save_file(exported(net), tmp_path / "file.safetensors")
    load_weights(other, read_tensors(tmp_path / "file.safetensors"))
    assert torch.equal(other(x), net(x))
    state = other.state_dict()
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


def test_exported_weights_are_copies():
    net = moved(resnet18(**SIZES, **OTHER))
    x = images()
    before = net(x)
    for value in exported(net).values():
        value.zero_()
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("factory", OURS.values(), ids=OURS)
def test_the_state_of_a_whole_network_of_ours_loads(factory):
    net, other = moved(factory(**SIZES, **OTHER)), factory(**SIZES, **AS_IS).double().eval()
    load_weights(other, {"state_dict": prefixed("net.", net.state_dict())})  # as Lightning saves it
    x = images()
    assert torch.equal(other(x), net(x))


RESIDUAL = {name: factory for name, factory in OURS.items() if name != "small"}


@pytest.mark.parametrize("factory", RESIDUAL.values(), ids=RESIDUAL)
def test_the_activation_is_part_of_the_function_not_of_the_weights(factory):
    relu = moved(factory(**SIZES, **OTHER))
    silu = factory(activation="silu", **SIZES, **OTHER).double().eval()
    silu.load_state_dict(relu.state_dict())
    x = images()
    assert (silu(x) - relu(x)).abs().min() > 0


@pytest.mark.parametrize(
    ("factory", "option", "choices"),
    [
        ("preactresnet18", "activation", "be relu or silu"),
        ("resnet18", "activation", "be relu or silu"),
        ("wideresnet", "activation", "be relu or silu"),
        ("preactresnet18", "padding", "be symmetric or same"),
        ("wideresnet", "padding", "be symmetric or same"),
        ("preactresnet18", "shortcut", "be activated, plain or plain3x3"),
    ],
)
def test_an_unknown_option_is_refused_with_the_choices(factory, option, choices):
    with pytest.raises(ValueError, match=rf"^{option} must {choices}.*, got 'gelu'$"):
        OURS[factory](**SIZES, **OTHER, **{option: "gelu"})


def alias(state, old, new):
    return {key.replace(old, new, 1): v for key, v in state.items() if key.startswith(old)}


LEFTOVERS = {
    "sub_block1": ("trades_wrn", lambda s: {"state_dict": s | alias(s, "block1.", "sub_block1.")}),
    "gradalign": (
        "wong_preact",
        lambda s: {
            "last": s
            | alias(s, "conv1.", "model_preact_hl1.1.")
            | alias(s, "layer1.0.bn1.", "model_preact_hl1.2.")
        },
    ),
    "averaged": ("rice_preact", lambda s: {"n_averaged": torch.tensor(5)} | prefixed("module.", s)),
    "numbered": ("resnet", lambda s: prefixed("1.", s)),
    "one_count": (
        "resnet",
        lambda s: {k: v.reshape(1) if "tracked" in k else v for k, v in s.items()},
    ),
}


@pytest.mark.parametrize(("name", "wrapping"), LEFTOVERS.values(), ids=LEFTOVERS)
def test_published_leftovers_are_no_layers(name, wrapping):
    theirs, ours = pair(name)
    load_weights(ours, wrapping(theirs.state_dict()))
    x = images()
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    "wrapping",
    [
        lambda n, net: named(n, nn.DataParallel(net)).state_dict(),
        lambda n, net: nn.Sequential(n, nn.DataParallel(net)).state_dict(),
        lambda n, net: (
            alias(nn.Sequential(n, net).state_dict(), "0.", "normalize.")
            | alias(nn.Sequential(n, net).state_dict(), "1.", "model._orig_mod.")
        ),
        lambda n, net: (
            {"normalize.mu": n.mean, "normalize.sigma": n.std}
            | prefixed("model.", net.state_dict())
        ),
        lambda n, net: (
            {"normalizer.mean": n.mean, "normalizer.std": n.std}
            | prefixed("model.", net.state_dict())
        ),
    ],
    ids=["named_DP", "numbered_DP", "named_compiled", "normalize.mu", "normalizer"],
)
def test_normalization_next_to_a_wrapped_network_is_found(wrapping):
    theirs, ours = pair("resnet", OTHER)
    normalization = Normalization().double()
    load_weights(ours, wrapping(normalization, theirs))
    x = images()
    torch.testing.assert_close(ours(x), theirs(normalization(x)))


def test_two_normalizations_are_refused():
    theirs, ours = pair("gowal_wrn_silu", OTHER)
    with pytest.raises(ValueError, match="normaliz"):
        load_weights(ours, nn.Sequential(Normalization().double(), theirs).state_dict())


def test_half_a_normalization_is_refused():
    theirs, ours = pair("resnet", OTHER)
    with pytest.raises(ValueError, match="std"):
        load_weights(ours, theirs.state_dict() | {"mean": torch.rand(3)})


def test_best_of_a_file_with_one_checkpoint_is_refused():
    theirs, ours = pair("resnet", OTHER)
    with pytest.raises(ValueError, match="best"):
        load_weights(ours, {"state_dict": theirs.state_dict()}, which="best")


def test_a_complex_weight_is_refused_and_not_cut_to_its_real_part():
    net = small(**SIZES, **AS_IS)
    state = exported(net)
    name = list(state)[-1]
    with pytest.raises(ValueError, match=f"{name} is complex"):
        load_weights(net, state | {name: state[name].to(torch.complex64)})
