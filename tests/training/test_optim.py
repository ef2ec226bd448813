"""SGD: what it decays, and one step by hand."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from energy_at.models import preactresnet18, small
from energy_at.training.optim import sgd

IMAGES = {"channels": 3, "classes": 4, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def net_with_norms():
    net = preactresnet18(width=2, **IMAGES)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 1, 2)
    return net


def norm_names(net):
    return {
        f"{name}.{kind}"
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm)
        for kind in ("weight", "bias")
    }


def shrunk(net, **options):
    """By what each parameter is multiplied in a step without gradient."""
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = sgd(net, lr=0.5, weight_decay=0.1, **options)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name: (p.detach() / before[name]).mean().item() for name, p in net.named_parameters()}


def test_all_parameters_decay_as_in_the_published_recipes():
    factors = list(shrunk(net_with_norms()).values())
    assert factors == pytest.approx([1 - 0.5 * 0.1] * len(factors))


def test_batch_norm_alone_is_spared_if_so_wished():
    net = net_with_norms()
    factors = shrunk(net, decay_norm=False)
    names = norm_names(net)
    assert len(names) == 2 * 17
    assert {name for name, factor in factors.items() if factor == 1} == names
    assert all(factors[name] == pytest.approx(0.95) for name in set(factors) - names)


@pytest.mark.parametrize("decay_norm", [True, False])
@pytest.mark.parametrize("factory", [preactresnet18, small])
def test_every_parameter_is_in_exactly_one_group(factory, decay_norm):
    net = factory(width=2, **IMAGES)
    groups = sgd(net, decay_norm=decay_norm).param_groups
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(map(id, net.parameters()))
    assert all(group["params"] for group in groups)


def test_a_shared_layer_is_in_one_group_too():
    norm = nn.BatchNorm1d(3)
    net = nn.Sequential(nn.Linear(3, 3), norm, nn.Linear(3, 3), norm)
    groups = sgd(net, decay_norm=False).param_groups
    assert [len(group["params"]) for group in groups] == [4, 2]


@pytest.mark.parametrize(("nesterov", "second"), [(False, 0.71), (True, 0.539)])
def test_two_steps_by_hand(nesterov, second):
    """Gradient 1 twice, lr 0.1, momentum 0.9: velocities 1 and 1.9; Nesterov looks ahead."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = sgd(net, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=nesterov)
    for _ in range(2):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
    # 1 - 0.1 - 0.19, and with Nesterov 1 - 0.1 (1 + 0.9) - 0.1 (1 + 0.9 * 1.9)
    assert net.weight.item() == pytest.approx(second)


@pytest.mark.parametrize("lr", [0.0, -0.1, float("inf"), float("nan")])
def test_impossible_learning_rates_are_refused(lr):
    with pytest.raises(ValueError, match=r"^optimizer\.lr must be positive"):
        sgd(nn.Linear(1, 1), lr=lr)


@pytest.mark.parametrize("options", [{"momentum": -1.0}, {"weight_decay": -1e-4}])
def test_other_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        sgd(nn.Linear(1, 1), **options)
