"""Networks: sizes and names of the literature, and what they compute."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import normalize

from energy_at.models import Normalized, preactresnet18, resnet18, small, wideresnet
from energy_at.models.layers import conv1x1
from tests.helpers.running import CONF

RGB = {"channels": 3, "mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}
GREY = {"channels": 1, "mean": (0.13,), "std": (0.31,)}
FACTORIES = {
    "preactresnet18": partial(preactresnet18, width=4),
    "wideresnet": partial(wideresnet, depth=10, widen=2, width=2),
    "wideresnet_deep": partial(wideresnet, depth=16, widen=1, width=4),
    "small": partial(small, width=4),
}


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def macs(net, x):
    with FlopCounterMode(display=False) as counter:
        net.eval()(x)
    return counter.get_total_flops() / 2


def on_meta(factory, **options):
    """Shapes without numbers: a large network costs nothing."""
    with torch.device("meta"):
        return factory(**options), torch.empty(1, options["channels"], 32, 32)


def with_moved_statistics(net):
    """A network whose batch norm would show if one of its numbers was ignored."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


# Sizes


def test_preactresnet18_has_the_published_size():
    net, x = on_meta(preactresnet18, classes=10, **RGB)
    assert parameters(net) == 11_172_170
    # 3x3 convolutions at 32^2, 16^2, 8^2 and 4^2 pixels, 1x1 shortcuts, the linear layer
    stem, stage1 = 3 * 64 * 9 * 32**2, 4 * 64 * 64 * 9 * 32**2
    later = (64 * 128 * 9 + 3 * 128 * 128 * 9 + 64 * 128) * 16**2  # the same in stages 2, 3 and 4
    assert macs(net, x) == stem + stage1 + 3 * later + 512 * 10
    assert macs(net, x) / 1e9 == pytest.approx(0.555, abs=0.0005)


@pytest.mark.parametrize(("depth", "size"), [(28, 36_479_194), (34, 46_160_474)])
def test_wide_resnets_have_the_published_size(depth, size):
    net, x = on_meta(wideresnet, depth=depth, widen=10, classes=10, **RGB)
    assert parameters(net) == size
    assert net(x).shape == (1, 10)


def test_wide_resnet_28_10_has_the_published_cost():
    net, x = on_meta(wideresnet, depth=28, widen=10, classes=10, **RGB)
    assert macs(net, x) / 1e9 == pytest.approx(5.25, abs=0.01)


def test_classes_and_channels_change_the_ends_only():
    rgb, _ = on_meta(preactresnet18, classes=10, **RGB)
    other, x = on_meta(preactresnet18, classes=200, **GREY)
    assert parameters(other) - parameters(rgb) == 190 * (512 + 1) - 2 * 64 * 9
    assert other(x).shape == (1, 200)


@pytest.mark.parametrize("size", [8, 9, 28, 32, 64])
@pytest.mark.parametrize("images", [RGB, GREY], ids=["rgb", "grey"])
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_images_of_any_size_give_logits_that_depend_on_them(factory, images, size):
    net = with_moved_statistics(factory(classes=7, **images))
    x = torch.rand(2, images["channels"], size, size)
    logits = net(x)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert (logits[0] - logits[1]).abs().min() > 0
    torch.testing.assert_close(net(x[1:]), logits[1:])


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_any_width_trains_all_of_its_parameters(factory, width):
    net = factory(classes=5, width=width, **RGB)
    F.cross_entropy(net(torch.rand(8, 3, 8, 8)), torch.arange(8) % 5).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["channels", "classes", "width"])
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_sizes_below_one_are_refused(factory, name):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer >= 1, got 0$"):
        factory(**{"classes": 10, **RGB, name: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 27, "widen": 10}, "6 n . 4 .*got 27$"),
        ({"depth": 4, "widen": 10}, "6 n . 4 .*got 4$"),
        ({"depth": 28, "widen": 0}, r"^widen must be an integer >= 1, got 0$"),
    ],
)
def test_wide_resnets_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        wideresnet(classes=10, **RGB, **options)


# Precision


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_logits_come_back_in_fp32_under_bf16_autocast(factory):
    net = with_moved_statistics(factory(classes=10, **RGB))
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        full = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert net.net(x).dtype == torch.bfloat16  # autocast is at work inside
            mixed = net(x)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, full)
    torch.testing.assert_close(mixed, full, rtol=0.1, atol=0.1 * float(full.std()))


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_double_precision_goes_all_the_way_through(factory):
    net = with_moved_statistics(factory(classes=10, **RGB))
    x = torch.rand(4, 3, 16, 16)
    single = net(x)
    double = net.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    assert not torch.equal(double, double.float().double())


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_normalization_is_inside(factory):
    net = with_moved_statistics(factory(classes=10, **RGB))
    x = torch.rand(3, 3, 16, 16)
    assert isinstance(net, Normalized)
    torch.testing.assert_close(net(x), net.net(normalize(x, RGB["mean"], RGB["std"])))


def test_normalization_is_saved_with_the_network():
    saved = small(classes=3, **RGB)
    other = small(classes=3, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    other.load_state_dict(saved.state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(other(x), saved(x))


# Names, and what is computed under them


def norm_keys(prefix, width):
    sizes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{prefix}.{k}": s for k, s in sizes.items()} | {f"{prefix}.num_batches_tracked": ()}


def block_keys(prefix, before, after):
    return (
        norm_keys(f"{prefix}.bn1", before)
        | norm_keys(f"{prefix}.bn2", after)
        | {f"{prefix}.conv1.weight": (after, before, 3, 3)}
        | {f"{prefix}.conv2.weight": (after, after, 3, 3)}
    )


def shapes(net):
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def test_preactresnet18_names_its_layers_as_in_the_literature():
    expected = {"conv1.weight": (64, 3, 3, 3), "linear.weight": (10, 512), "linear.bias": (10,)}
    expected |= norm_keys("bn", 512)
    for stage, before, after in [(1, 64, 64), (2, 64, 128), (3, 128, 256), (4, 256, 512)]:
        expected |= block_keys(f"layer{stage}.0", before, after)
        expected |= block_keys(f"layer{stage}.1", after, after)
        if stage > 1:
            expected[f"layer{stage}.0.shortcut.0.weight"] = (after, before, 1, 1)
    net, _ = on_meta(preactresnet18, classes=10, **RGB)
    assert shapes(net.net) == expected


def test_wide_resnet_names_its_layers_as_trades():
    expected = {"conv1.weight": (16, 3, 3, 3), "fc.weight": (10, 640), "fc.bias": (10,)}
    expected |= norm_keys("bn1", 640)
    for stage, before, after in [(1, 16, 160), (2, 160, 320), (3, 320, 640)]:
        expected |= block_keys(f"block{stage}.layer.0", before, after)
        expected[f"block{stage}.layer.0.convShortcut.weight"] = (after, before, 1, 1)
        for i in range(1, 5):
            expected |= block_keys(f"block{stage}.layer.{i}", after, after)
    net, _ = on_meta(wideresnet, depth=34, widen=10, classes=10, **RGB)
    assert shapes(net.net) == expected


def norm_relu(state, prefix, x):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.relu(F.batch_norm(x, *(state[f"{prefix}.{name}"] for name in names)))


def block(state, prefix, x, *, shortcut, stride):
    """He et al. (2016), figure 4 (e), with the projection of the activated input."""
    active = norm_relu(state, f"{prefix}.bn1", x)
    out = F.conv2d(active, state[f"{prefix}.conv1.weight"], stride=stride, padding=1)
    out = norm_relu(state, f"{prefix}.bn2", out)
    out = F.conv2d(out, state[f"{prefix}.conv2.weight"], padding=1)
    projection = state.get(f"{prefix}.{shortcut}.weight")
    return out + (x if projection is None else F.conv2d(active, projection, stride=stride))


def residual_network(state, x, stages, *, shortcut, last_norm, classifier):
    """Any of the two families, from nothing but its state dict."""
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage, (blocks, stride) in stages.items():
        for i in range(blocks):
            step = stride if i == 0 else 1
            x = block(state, f"{stage}.{i}", x, shortcut=shortcut, stride=step)
    x = norm_relu(state, last_norm, x)
    x = F.avg_pool2d(x, x.shape[2:]).flatten(1)
    return F.linear(x, state[f"{classifier}.weight"], state[f"{classifier}.bias"])


@pytest.mark.parametrize("size", [8, 17, 32])
def test_preactresnet18_from_its_state_dict(size):
    net = with_moved_statistics(preactresnet18(classes=10, width=4, **RGB).double())
    x = torch.rand(3, 3, size, size, dtype=torch.float64)
    expected = residual_network(
        net.net.state_dict(),
        net.normalize(x),
        {"layer1": (2, 1), "layer2": (2, 2), "layer3": (2, 2), "layer4": (2, 2)},
        shortcut="shortcut.0",
        last_norm="bn",
        classifier="linear",
    )
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(("depth", "widen"), [(10, 2), (16, 1), (22, 3)])
def test_wide_resnet_from_its_state_dict(depth, widen):
    net = wideresnet(classes=10, depth=depth, widen=widen, width=4, **RGB)
    net = with_moved_statistics(net.double())
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    n = (depth - 4) // 6
    expected = residual_network(
        net.net.state_dict(),
        net.normalize(x),
        {"block1.layer": (n, 1), "block2.layer": (n, 2), "block3.layer": (n, 2)},
        shortcut="convShortcut",
        last_norm="bn1",
        classifier="fc",
    )
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("factory", "name", "shortcut"),
    [
        (FACTORIES["preactresnet18"], "layer1.1", "shortcut.0"),
        (FACTORIES["preactresnet18"], "layer3.0", "shortcut.0"),
        (FACTORIES["wideresnet"], "block1.layer.0", "convShortcut"),
        (FACTORIES["wideresnet"], "block2.layer.0", "convShortcut"),
        (FACTORIES["wideresnet_deep"], "block3.layer.1", "convShortcut"),
    ],
)
def test_a_block_from_its_state_dict(factory, name, shortcut):
    part = with_moved_statistics(factory(classes=10, **RGB)).net.get_submodule(name)
    state = {f"b.{key}": value for key, value in part.state_dict().items()}
    x = torch.randn(3, part.bn1.num_features, 8, 8)
    expected = block(state, "b", x, shortcut=shortcut, stride=part.conv1.stride)
    torch.testing.assert_close(part(x), expected)


def test_the_small_network_has_no_batch_norm_so_images_do_not_mix():
    net = small(classes=10, width=4, **RGB).train()
    assert not [module for module in net.modules() if isinstance(module, _BatchNorm)]
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(net(x), torch.cat([net(image[None]) for image in x]))
    assert list(net.buffers()) == [net.normalize.mean, net.normalize.std]


OTHER = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}


# The networks that came with it


def test_resnet18_has_the_published_size():
    with torch.device("meta"):
        net = resnet18(channels=3, classes=10, **OTHER)
    assert sum(p.numel() for p in net.parameters()) == 11_173_962


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("width", [1, 4])
def test_resnet18_trains_all_of_its_parameters(width, activation):
    net = resnet18(channels=3, classes=5, width=width, activation=activation, **OTHER)
    F.cross_entropy(net(torch.rand(10, 3, 16, 16)), torch.arange(10) % 5).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    if activation == "silu":
        assert all(p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_every_second_pixel_is_torchs(channels, stride):
    x = torch.randn(5, channels, 7, 7, dtype=torch.double, requires_grad=True)
    ours = conv1x1(channels, 6, stride).double()
    found, expected = ours(x), F.conv2d(x, ours.weight, stride=stride)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.square().sum(), [x, ours.weight]),
        torch.autograd.grad(expected.square().sum(), [x, ours.weight]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


STEPS = """
import torch
from energy_at.models import preactresnet18
net = preactresnet18(channels=3, classes=4, mean=[0.5] * 3, std=[0.5] * 3, width=2)
net.to(memory_format=torch.channels_last)
x = torch.rand(64, 3, 16, 16).to(memory_format=torch.channels_last)
for _ in range(10):
    net(x).square().sum().backward()
"""


def test_narrow_networks_stay_within_their_memory_under_avx2():
    """oneDNN does not: see conv1x1."""
    checked = {"MALLOC_CHECK_": "3", "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(CONF.parent)}
    subprocess.run([sys.executable, "-c", STEPS], check=True, env={**os.environ, **checked})
