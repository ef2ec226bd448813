from copy import deepcopy

import pytest
import torch
from torch import nn

from energy_at.models.modes import Tiled, eval_mode, frozen_running_stats, full_precision, no_graph
from tests.helpers.nets import TinyNet


def snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def assert_unchanged(net, before):
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def mixed(net):
    """The network with its last normalization in evaluation mode, as in fine-tuning."""
    norms(net)[-1].eval()
    return net


def test_eval_mode_restores_each_submodule(net):
    modes = [module.training for module in mixed(net).modules()]
    with eval_mode(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == modes
    assert len(set(modes)) == 2


def test_eval_mode_restores_after_an_error(net):
    with pytest.raises(KeyError), eval_mode(net):
        raise KeyError
    assert all(module.training for module in net.modules())


def test_forward_with_frozen_statistics_leaves_no_trace(net, batch):
    before = snapshot(net)
    with frozen_running_stats(net):
        net(batch[0])
    assert_unchanged(net, before)
    net(batch[0])
    assert norms(net)[0].num_batches_tracked == 1
    assert not torch.equal(norms(net)[0].running_mean, before["layers.1.running_mean"])


def test_frozen_statistics_still_normalize_with_the_batch(net, batch):
    expected = deepcopy(net)(batch[0])
    with frozen_running_stats(net):
        assert torch.equal(net(batch[0]), expected)


def test_frozen_statistics_are_used_in_evaluation_mode(net, batch):
    net(batch[0])
    net.eval()
    expected = net(batch[0])
    with frozen_running_stats(net):
        assert torch.equal(net(batch[0]), expected)


def test_frozen_statistics_thaw_after_an_error(net, batch):
    with pytest.raises(KeyError), frozen_running_stats(net):
        raise KeyError
    net(batch[0])
    assert norms(net)[0].num_batches_tracked == 1


def test_frozen_statistics_nest(net, batch):
    before = snapshot(net)
    with frozen_running_stats(net):
        with frozen_running_stats(net):
            net(batch[0])
        net(batch[0])
    assert_unchanged(net, before)
    assert all(norm.track_running_stats for norm in norms(net))


def test_layers_without_running_statistics_stay_without():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    with frozen_running_stats(net):
        net(torch.rand(2, 3, 4, 4))
    assert not net[0].track_running_stats
    assert net[0].running_mean is None


def test_a_function_has_no_statistics_to_freeze(batch):
    def flatten(x):
        return x.flatten(1)

    with frozen_running_stats(flatten):
        assert torch.equal(flatten(batch[0]), batch[0].reshape(6, -1))


def test_no_graph_records_none_and_gradients_come_back_after(net, batch):
    with no_graph():
        assert not net(batch[0]).requires_grad
    assert net(batch[0]).requires_grad


def test_no_graph_under_autocast_leaves_the_weights_their_gradients(batch):
    net = TinyNet().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with no_graph():
            net(batch[0])
        net(batch[0]).float().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_full_precision_inside_autocast(net, batch):
    net.eval()
    expected = net(batch[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision("cpu"):
            inside = net(batch[0])
        assert net(batch[0]).dtype == torch.bfloat16
    assert torch.equal(inside, expected)


def precisions():
    """What torch says about the products of fp32, and whether its old way of asking still works."""
    backends = torch.backends
    settings = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul,
                backends.mkldnn.conv]  # fmt: skip
    found = [setting.fp32_precision for setting in settings]
    for ask in (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32):
        try:
            found.append(ask())
        except RuntimeError:  # a user who mixes both ways cannot ask the old way
            found.append(None)
    return found


@pytest.fixture
def _precision_put_back():
    backends = torch.backends
    settings = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn,
                backends.mkldnn.matmul, backends.mkldnn.conv]  # fmt: skip
    before = [setting.fp32_precision for setting in settings]
    matmul = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(matmul)
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


by_product = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch < 2.9 has one switch for all"
)


@by_product
@pytest.mark.usefixtures("_precision_put_back")
@pytest.mark.parametrize(
    "set_it",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    ],
    ids=["default", "high", "medium", "allow_tf32", "tf32", "bf16"],
)
def test_full_precision_whatever_a_user_allows_and_as_it_was_after(set_it):
    set_it()
    before = precisions()
    with full_precision("cpu"):
        assert precisions()[:4] == ["ieee"] * 4
    assert precisions() == before


@by_product
def test_full_precision_comes_back_after_an_error():
    before = precisions()
    with pytest.raises(KeyError), full_precision("cpu"):
        raise KeyError
    assert precisions() == before


class Seen(nn.Module):
    """Remembers the sizes of the batches that it sees."""

    def __init__(self, net):
        super().__init__()
        self.net, self.sizes = net, []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net(x)


class Viewing(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_a_tiled_network_sees_batches_of_one_size_and_says_the_same(n):
    net, x = TinyNet().double().eval(), torch.rand(n, 3, 8, 8, dtype=torch.double)
    seen = Seen(net)
    torch.testing.assert_close(Tiled(seen, 4)(x), net(x))
    assert set(seen.sizes) == {4}


@pytest.mark.parametrize("n", [4, 3])
def test_a_tiled_network_gets_images_in_the_memory_format_that_it_needs(n):
    x = torch.rand(n, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    flat = Viewing()
    assert torch.equal(Tiled(flat, 4, channels_last=False)(x), x.flatten(1))
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        Tiled(flat, 4)(x)


def test_gradients_go_through_the_tiles():
    net = TinyNet().double().eval()
    x = torch.rand(5, 3, 8, 8, dtype=torch.double, requires_grad=True)
    (expected,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    (found,) = torch.autograd.grad(Tiled(net, 4)(x)[:, 0].sum(), x)
    torch.testing.assert_close(found, expected)
