"""SGD by hand; learning rates of every step, against closed forms and PyTorch."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from energy_at.models import preactresnet18, small
from energy_at.training.optim import constant, onecycle, piecewise, sgd, triangular

PEAK = 0.2
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
    with pytest.raises(ValueError, match=r"^lr must be a finite number > 0"):
        sgd(nn.Linear(1, 1), lr=lr)


@pytest.mark.parametrize("options", [{"momentum": -1.0}, {"weight_decay": -1e-4}])
def test_other_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        sgd(nn.Linear(1, 1), **options)


# Schedules


def optimizer(*peaks):
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in peaks or (PEAK,)]
    return SGD(groups, momentum=0.9)


def rates(schedule, total, _per_epoch=1, *, peaks=(PEAK,), **options):
    """Learning rates of the steps in order, and that left after the last of them."""
    stepped = optimizer(*peaks)
    scheduler = schedule(stepped, total, **options)
    seen = []
    for _ in range(total):
        seen.append([group["lr"] for group in stepped.param_groups])
        stepped.step()
        scheduler.step()
    seen.append([group["lr"] for group in stepped.param_groups])
    return np.array(seen).T


def test_triangle_of_ten_steps_by_hand():
    expected = [0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.16, 0.12, 0.08, 0.04, 0]
    assert rates(triangular, 10)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("total", "peak"), [(40, 0.5), (40, 0.25), (50, 0.9), (33, 0.3)])
def test_triangle_is_two_straight_lines(total, peak):
    (seen,) = rates(triangular, total, 7, peak=peak)
    top = peak * total
    steps = np.arange(total + 1)
    up, down = PEAK * steps / top, PEAK * (total - steps) / (total - top)
    assert seen == pytest.approx(np.minimum(up, down))
    assert seen[0] == 0
    assert seen[-1] == pytest.approx(0, abs=1e-12)
    if top == int(top):
        assert seen.argmax() == top
        assert seen.max() == PEAK


def test_piecewise_drops_at_epochs_100_and_150_of_200():
    (seen,) = rates(piecewise, 200 * 3, 3)
    by_epoch = seen[:-1].reshape(200, 3)
    assert by_epoch[:100] == pytest.approx(PEAK)
    assert by_epoch[100:150] == pytest.approx(PEAK / 10)
    assert by_epoch[150:] == pytest.approx(PEAK / 100)


def test_piecewise_takes_other_milestones_and_factors():
    (seen,) = rates(piecewise, 40, 4, milestones=[0.3, 0.6, 0.8], factor=0.5)
    expected = np.repeat([PEAK, PEAK / 2, PEAK / 4, PEAK / 8], [12, 12, 8, 9])
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("pct_start", [0.25, 0.4])
def test_onecycle_is_that_of_pytorch(pct_start):
    reference = optimizer()
    scheduler = OneCycleLR(
        reference, PEAK, total_steps=60, pct_start=pct_start, cycle_momentum=False
    )
    expected = []
    for _ in range(60):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        scheduler.step()
    (seen,) = rates(onecycle, 60, 6, pct_start=pct_start)
    assert seen[:-1] == pytest.approx(expected)


def test_onecycle_is_half_a_cosine_up_and_half_a_cosine_down():
    """From 1/25 of the peak to the peak, then to 1/10,000 of the start (Smith, 2018)."""
    (seen,) = rates(onecycle, 101, pct_start=0.25)
    top = 0.25 * 101 - 1
    for step in range(101):
        if step <= top:
            low, share = PEAK / 25, step / top
        else:
            low, share = PEAK / 25 / 1e4, 1 - (step - top) / (100 - top)
        expected = low + (PEAK - low) * (1 - math.cos(math.pi * share)) / 2
        assert seen[step] == pytest.approx(expected)


@pytest.mark.parametrize("cycles", [False, True])
def test_onecycle_leaves_the_momentum_alone_unless_asked(cycles):
    stepped = optimizer()
    scheduler = onecycle(stepped, 20, cycle_momentum=cycles)
    momenta = set()
    for _ in range(20):
        momenta.add(stepped.param_groups[0]["momentum"])
        stepped.step()
        scheduler.step()
    assert (momenta != {0.9}) == cycles


def test_constant_is_constant():
    assert set(rates(constant, 30, 3)[0]) == {PEAK}


@pytest.mark.parametrize("schedule", [triangular, piecewise, onecycle, constant])
def test_groups_keep_their_ratio(schedule):
    first, second = rates(schedule, 40, 4, peaks=(0.4, 0.1))
    assert first == pytest.approx(4 * second)
    assert first.max() == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize("schedule", [triangular, piecewise, onecycle, constant])
def test_a_schedule_resumes_from_its_state(schedule):
    def remaining(scheduler, stepped, steps):
        seen = []
        for _ in range(steps):
            seen.append(stepped.param_groups[0]["lr"])
            stepped.step()
            scheduler.step()
        return seen

    whole_optimizer, resumed_optimizer = optimizer(), optimizer()
    whole = schedule(whole_optimizer, 40)
    remaining(whole, whole_optimizer, 23)
    states = whole.state_dict(), whole_optimizer.state_dict()
    resumed = schedule(resumed_optimizer, 40)
    resumed.load_state_dict(states[0])
    resumed_optimizer.load_state_dict(states[1])
    assert remaining(resumed, resumed_optimizer, 17) == remaining(whole, whole_optimizer, 17)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, 100.0, float("nan")])
@pytest.mark.parametrize(
    ("schedule", "name", "option"),
    [
        (triangular, "peak", lambda share: share),
        (piecewise, "milestones", lambda share: [0.5, share]),
        (onecycle, "pct_start", lambda share: share),
    ],
)
def test_what_is_no_share_of_the_training_is_refused(schedule, name, option, share):
    with pytest.raises(ValueError, match=rf"^{name} must be a finite number > 0 and < 1, got"):
        schedule(optimizer(), 100, **{name: option(share)})


def test_a_training_too_short_for_one_cycle_is_refused():
    with pytest.raises(ValueError, match="4 steps"):
        onecycle(optimizer(), 4)
