"""SGD, learning rates and weight perturbation, against the same steps written out."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from energy_at.attacks import fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import Linf
from energy_at.models import preactresnet18, small
from energy_at.objectives import (
    AAER,
    DER,
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    GradAlign,
    Objective,
    TradesKL,
    Trait,
    Weighted,
)
from energy_at.training import AdversarialTraining, WeightPerturbation
from energy_at.training.optim import (
    adamw,
    constant,
    cosine,
    onecycle,
    piecewise,
    sgd,
    triangular,
)
from tests.helpers.nets import TinyNet
from tests.helpers.running import TINY_BN, fitted, states_equal

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


@pytest.mark.parametrize(("warmup", "floor"), [(0.0, 0.0), (0.2, 0.1), (0.33, 0.5)])
def test_cosine_is_a_line_up_and_half_a_cosine_down(warmup, floor):
    (seen,) = rates(cosine, 50, warmup=warmup, floor=floor)
    top = warmup * 50
    for step in range(51):
        share = (step - top) / (50 - top)
        down = floor + (1 - floor) * math.cos(math.pi * share / 2) ** 2
        assert seen[step] == pytest.approx(PEAK * (step / top if step < top else down))
    assert seen[-1] == pytest.approx(floor * PEAK)


@pytest.mark.parametrize("option", ["warmup", "floor"])
def test_cosine_refuses_what_is_no_share(option):
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"^{option} must be a finite number >= 0 and < 1"):
            cosine(optimizer(), 100, **{option: value})


def test_adamw_is_that_of_pytorch_without_decay_of_vectors():
    for decays in (False, True):
        ours, theirs = net_with_norms(), net_with_norms()
        theirs.load_state_dict(ours.state_dict())
        groups = [
            {"params": [p], "weight_decay": 0.3 if decays or p.ndim > 1 else 0.0}
            for p in theirs.parameters()
        ]
        steppers = (
            adamw(ours, lr=0.01, beta1=0.8, beta2=0.9, weight_decay=0.3, decay_vectors=decays),
            torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9)),
        )
        for seed in range(3):
            for net, stepper in zip((ours, theirs), steppers, strict=True):
                torch.manual_seed(seed)
                for parameter in net.parameters():
                    parameter.grad = torch.randn_like(parameter)
                stepper.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "options", [{"lr": 0.0}, {"beta1": 1.0}, {"beta2": -0.1}, {"weight_decay": -1.0}]
)
def test_adamw_refuses_numbers_out_of_range(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be a finite number"):
        adamw(net_with_norms(), **options)


def test_constant_is_constant():
    assert set(rates(constant, 30, 3)[0]) == {PEAK}


@pytest.mark.parametrize("schedule", [triangular, piecewise, onecycle, cosine, constant])
def test_groups_keep_their_ratio(schedule):
    first, second = rates(schedule, 40, 4, peaks=(0.4, 0.1))
    assert first == pytest.approx(4 * second)
    assert first.max() == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize("schedule", [triangular, piecewise, onecycle, cosine, constant])
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
    with pytest.raises(ValueError, match=rf"^{name} must be a.* finite number > 0 and < 1, got"):
        schedule(optimizer(), 100, **{name: option(share)})


def test_a_training_too_short_for_one_cycle_is_refused():
    with pytest.raises(ValueError, match="4 steps"):
        onecycle(optimizer(), 4)


# Adversarial weight perturbation, against the same steps written out


BALL, GAMMA = Linf(0.1), 0.05
AT = {"ce": Weighted(AdversarialCrossEntropy())}
DER = {"der": Weighted(DER("all"), 2.0)}
TRADES = {"clean_ce": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 6.0)}
AAER_TERM = {"aaer": Weighted(AAER(), 2.0)}


def lower_some(model, x, y):
    """A goal that makes two thirds of the examples abnormal."""
    sign = torch.tensor([1.0, -1.0, -1.0]).repeat(len(y))[: len(y)]
    return lambda logits: sign * F.cross_entropy(logits, y, reduction="none")


@pytest.fixture
def net():
    return TinyNet().double()


@pytest.fixture
def batch():
    return torch.rand(12, 3, 8, 8, dtype=torch.double), torch.arange(12) % 4


def module(net, attack, terms, *, gamma=GAMMA, warmup=0.0, **options):
    return AdversarialTraining(
        net,
        attack,
        Objective(terms),
        val_attacks={"pgd": pgd(BALL)},
        awp=WeightPerturbation(gamma, warmup) if gamma else None,
        **options,
    )


def step(training, batch):
    """Loss and gradients of a whole step."""
    training.zero_grad()
    loss = training.training_step(batch, 0)["loss"]
    loss.backward()
    training.on_after_backward()
    return loss.detach(), [p.grad for p in training.net.parameters()]


def gradients(loss, net):
    return torch.autograd.grad(loss, list(net.parameters()))


def perturbed(net, loss, gamma=GAMMA):
    """A copy whose matrices have moved up the loss of ``net``, ``gamma`` of their length."""
    moved = deepcopy(net)
    for parameter, grad in zip(moved.parameters(), gradients(loss, net), strict=True):
        if parameter.ndim > 1:
            length, slope = (math.sqrt(t.square().sum().item()) for t in (parameter, grad))
            parameter.data += gamma * length / slope * grad
    return moved


def ce(net, x, y):
    return F.cross_entropy(net(x), y)


# The perturbation


def test_matrices_move_by_their_share_along_the_gradient_and_vectors_stay(net, batch):
    expected, before = perturbed(net, ce(net, *batch)), deepcopy(net)
    WeightPerturbation(GAMMA).ascend(net, ce(net, *batch))
    shapes = set()
    for old, new, theirs in zip(
        before.parameters(), net.parameters(), expected.parameters(), strict=True
    ):
        shapes.add(old.ndim)
        torch.testing.assert_close(new, theirs)
        moved = (new - old).norm().item()
        assert moved == pytest.approx(GAMMA * old.norm().item() if old.ndim > 1 else 0)
    assert shapes == {1, 2, 4}


def test_restored_weights_are_the_old_ones_bit_for_bit(net, batch):
    loss, awp = ce(net, *batch), WeightPerturbation(GAMMA)
    before = deepcopy(net)
    awp.ascend(net, loss)
    assert not states_equal(net, before)
    awp.restore()
    assert states_equal(net, before)


def test_weights_are_restored_once(net, batch):
    awp = WeightPerturbation(GAMMA)
    awp.ascend(net, ce(net, *batch))
    awp.restore()
    with torch.no_grad():
        net.layers[0].weight.zero_()
    awp.restore()
    assert not net.layers[0].weight.any()


def test_the_loss_rises_to_first_order_by_the_lengths_of_weights_and_gradients(net, batch):
    before = ce(net, *batch)
    slopes = gradients(ce(net, *batch), net)
    rise = sum(
        p.norm() * g.norm() for p, g in zip(net.parameters(), slopes, strict=True) if p.ndim > 1
    )
    WeightPerturbation(1e-6).ascend(net, ce(net, *batch))
    assert (ce(net, *batch) - before).item() == pytest.approx(1e-6 * rise.item(), rel=1e-3)


def test_weights_without_a_gradient_stay(net, batch):
    net.unused = nn.Linear(2, 2)
    net.layers[0].requires_grad_(False)
    before = deepcopy(net)
    WeightPerturbation(GAMMA).ascend(net, ce(net, *batch))
    for name in ("unused.weight", "layers.0.weight", "layers.3.weight"):
        same = torch.equal(net.get_parameter(name), before.get_parameter(name))
        assert same == (name != "layers.3.weight")


def test_a_loss_that_is_flat_moves_nothing(net, batch):
    loss = 0 * ce(net, *batch)
    before = deepcopy(net)
    WeightPerturbation(GAMMA).ascend(net, loss)
    assert states_equal(net, before)


@pytest.mark.parametrize("value", [-0.01, math.nan, math.inf])
@pytest.mark.parametrize("name", ["gamma", "warmup_epochs"])
def test_a_value_out_of_range_is_refused(name, value):
    settings = {"gamma": 0.01, "warmup_epochs": 0.0} | {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be .*, got {value:g}"):
        WeightPerturbation(**settings)


# Steps of the training


def at(net, x, found, y):
    return ce(net, found.x_adv, y)


def der(net, x, found, y):
    f, g = net(x), net(found.x_adv)
    marginal = g.exp().sum(1).log() - f.exp().sum(1).log()
    joint = (g - f)[range(len(y)), y]
    return 2 * (marginal**2 + joint**2).sqrt().mean()


def kl(net, x, found, y):
    p, q = net(x).softmax(1), net(found.x_adv).softmax(1)
    return ce(net, x, y) + 6 * (p * (p / q).log()).sum(1).mean()


def aaer(net, x, found, y):
    f, g = net(found.x_start), net(found.x_adv)
    drop = F.cross_entropy(f, y, reduction="none") - F.cross_entropy(g, y, reduction="none")
    abnormal = drop > 0
    variation = ((f - g) ** 2).sum(1)
    excess = variation[abnormal].mean() - variation[~abnormal].mean().detach()
    assert excess > 0
    return 2 * abnormal.double().mean() * (2.5 * drop[abnormal].mean() + 1.5 * excess)


STEPS = {
    "at": (pgd(BALL, steps=2), "batch", AT, (at,)),
    "fgsm+der": (fgsm(BALL), "batch", AT | DER, (at, der)),
    "trades": (trades(BALL, steps=2), "eval", TRADES, (kl,)),
    "trades+der": (trades(BALL, steps=2), "eval", TRADES | DER, (kl, der)),
    "rs+aaer": (replace(rs_fgsm(BALL), goal=lower_some), "batch", AT | AAER_TERM, (at, aaer)),
}
steps = pytest.mark.parametrize(
    ("attack", "bn_mode", "terms", "written"), STEPS.values(), ids=STEPS.keys()
)


def attacked(net, attack, bn_mode, training, batch):
    """The attack's result; it sees the weights as they are."""
    net.train(bn_mode == "batch")
    found = attack(net, *batch, generator=training._noise(torch.device("cpu"), 0, 0))
    net.train()
    return found


@steps
def test_a_step_has_the_gradient_of_the_loss_at_perturbed_weights(
    attack, bn_mode, terms, written, net, batch
):
    (x, y), slow, before = batch, deepcopy(net), deepcopy(net)
    training = module(net, attack, terms, bn_mode=bn_mode)
    loss, ours = step(training, batch)

    found = attacked(slow, attack, bn_mode, training, batch)
    moved = perturbed(slow, sum(part(slow, x, found, y) for part in written))
    expected = sum(part(moved, x, found, y) for part in written)
    torch.testing.assert_close(loss, expected)
    for a, b in zip(ours, gradients(expected, moved), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_probe_sees_the_perturbed_weights_that_the_other_terms_have_made(net, batch):
    (x, y), slow = batch, deepcopy(net)
    terms = AT | {"gradalign": Weighted(GradAlign(BALL), 3.0)}
    training = module(net, fgsm(BALL), terms)
    _, ours = step(training, batch)

    found = attacked(slow, fgsm(BALL), "batch", training, batch)
    moved = perturbed(slow, ce(slow, found.x_adv, y))
    noise = BALL.sample(x, training._noise(x.device, 0, 0))
    images = [x.clone().requires_grad_(), (x + noise).requires_grad_()]
    clean, noisy = (
        torch.autograd.grad(ce(moved, image, y), image, create_graph=True)[0].flatten(1)
        for image in images
    )
    cosine = F.cosine_similarity(clean.detach(), noisy)
    expected = ce(moved, found.x_adv, y) + 3 * (1 - cosine).mean()
    for a, b in zip(ours, gradients(expected, moved), strict=True):
        torch.testing.assert_close(a, b)


def counts(net):
    return {int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}


@steps
@pytest.mark.parametrize("observed", [False, True])
def test_running_statistics_move_as_often_as_without_it(
    attack, bn_mode, terms, written, observed, net, batch
):
    plain = deepcopy(net)
    for network, gamma in ((net, GAMMA), (plain, 0)):
        training = module(network, attack, terms, gamma=gamma, bn_mode=bn_mode)
        training.observes_clean = observed
        step(training, batch)
    assert counts(net) == counts(plain) == {2}


def test_watching_clean_images_changes_no_bit(net, batch):
    watched = deepcopy(net)
    step(module(net, rs_fgsm(BALL), AT), batch)
    training = module(watched, rs_fgsm(BALL), AT)
    training.observes_clean = True
    step(training, batch)
    assert states_equal(net, watched)
    for a, b in zip(net.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_autocast_uses_the_perturbed_weights():
    net, batch = TinyNet(), (torch.rand(12, 3, 8, 8), torch.arange(12) % 4)
    before = deepcopy(net)
    training = module(net, fgsm(BALL), AT, gamma=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = training.training_step(batch, 0)["loss"]
    moved = deepcopy(net)
    loss.backward()
    training.on_after_backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_adv = fgsm(BALL)(before, *batch).x_adv
        expected = F.cross_entropy(moved(x_adv).float(), batch[1])
        old = F.cross_entropy(before(x_adv).float(), batch[1])
    torch.testing.assert_close(loss, expected)  # the last bit is that of the processor
    assert loss > 1.5 * old
    assert all(p.grad.any() for p in net.parameters())


# Whole trainings


def fit(net, batches, **options):
    images, labels = map(torch.cat, zip(*batches, strict=True))
    training = module(net, fgsm(BALL), AT, **options)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(training, DataLoader(TensorDataset(images, labels), batch_size=len(batches[0][1])))


def fit_by_hand(net, batches, warmup):
    """FGSM-AT with AWP after `warmup` epochs, for two epochs."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for epoch in range(2):
        for x, y in batches:
            image = x.clone().requires_grad_()
            (grad,) = torch.autograd.grad(ce(net, image, y), image)
            x_adv = (x + BALL.eps * grad.sign()).clamp(0, 1)
            aside = deepcopy(net)
            gamma = GAMMA if epoch >= warmup else 0.0
            moved = perturbed(aside, ce(aside, x_adv, y), gamma)
            copy_buffers(net, moved)
            for parameter, grad in zip(
                net.parameters(), gradients(ce(moved, x_adv, y), moved), strict=True
            ):
                parameter.grad = grad
            copy_buffers(moved, net)
            optimizer.step()


def copy_buffers(source, target):
    for a, b in zip(source.buffers(), target.buffers(), strict=True):
        b.copy_(a)


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_a_fit_is_the_training_loop_written_out(warmup, net):
    by_hand = deepcopy(net)
    batches = [(torch.rand(6, 3, 8, 8, dtype=torch.double), torch.arange(6) % 4) for _ in range(3)]
    fit(net, batches, warmup=float(warmup))
    fit_by_hand(by_hand, batches, warmup)
    for (name, ours), theirs in zip(
        net.state_dict().items(), by_hand.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.slow
def test_the_configuration_perturbs_after_the_warm_up(tmp_path):
    overrides = (*TINY_BN, "attack=rs_fgsm", "reg=aaer", "trainer.max_epochs=1")
    runs = [
        fitted(tmp_path / str(i), *overrides, *more)
        for i, more in enumerate(
            [
                (),
                ("training.awp.gamma=0.01", "training.awp.warmup=1"),
                ("training.awp.gamma=0.01",),
            ]
        )
    ]
    plain, waiting, perturbing = (run.module for run in runs)
    assert states_equal(plain, waiting)
    assert not states_equal(plain, perturbing)


# Failures


class FailsOnce:
    """Cross-entropy whose calls count down to a failure."""

    traits = Trait.NONE

    def __init__(self, call, images):
        self.left, self.images = call, images

    def __call__(self, pair):
        self.left -= len(pair.y) == self.images  # not of the probe of its traits
        if self.left == 0:
            self.left = -1
            raise MemoryError
        return F.cross_entropy(pair.adv, pair.y, reduction="none")


@pytest.mark.parametrize("call", [1, 2], ids=["before", "after"])
def test_a_step_that_fails_leaves_nothing_behind_once_another_is_finished(call, net, batch):
    before = deepcopy(net)
    training = module(net, fgsm(BALL), {"ce": Weighted(FailsOnce(call, len(batch[1])))})
    with pytest.raises(MemoryError):
        training.training_step(batch, 0)
    step(training, batch)
    for a, b in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_without_a_backward_pass_leaves_nothing_behind_once_another_is_finished(net, batch):
    before = deepcopy(net)
    training = module(net, fgsm(BALL), AT)
    training.training_step(batch, 0)
    step(training, batch)
    for a, b in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_after_one_that_failed_is_the_step_of_a_fresh_module(net, batch):
    fresh = deepcopy(net)
    training = module(net, fgsm(BALL), AT)
    training.training_step(batch, 0)
    ours, theirs = step(training, batch)[1], step(module(fresh, fgsm(BALL), AT), batch)[1]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_a_tiny_gradient_moves_the_weights_as_far():
    net = torch.nn.Linear(4, 3)
    before = net.weight.detach().clone()
    WeightPerturbation(0.1).ascend(net, 1e-25 * net(torch.ones(1, 4)).sum())
    torch.testing.assert_close((net.weight - before).norm(), 0.1 * before.norm())
