from copy import deepcopy
from functools import lru_cache, partial

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from energy_at.attacks import FGSMPGI, LIET, SORA, NuAT, fgsm, n_fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import Linf
from energy_at.benchmark.rows import bare_step
from energy_at.config.build import build_module
from energy_at.energy.energies import delta_joint, delta_marginal
from energy_at.energy.pair import LogitPair
from energy_at.models import preactresnet18
from energy_at.models.modes import frozen_running_stats
from energy_at.objectives import (
    DER,
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    GradAlign,
    JensenShannon,
    LabelSmoothing,
    LogitDistance,
    NuclearNorm,
    Objective,
    TradesKL,
    Weighted,
    pert_align,
)
from energy_at.objectives.linearity import input_gradient
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import AdversarialTraining, FastAT
from tests.helpers.nets import TinyNet
from tests.helpers.running import TINY_BN, config, fitted, prepared, states_equal

BALL = Linf(8 / 255)
AT = {"adversarial_ce": Weighted(AdversarialCrossEntropy())}
TRADES = {"clean_ce": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 6.0)}


def der(samples="all", weight=2.0, **options):
    return {"der": Weighted(DER(samples, **options), weight)}


def module(net, attack, terms, *, skip_flat=False, **options):
    objective = Objective(terms, skip_flat=skip_flat)
    return AdversarialTraining(net, attack, objective, val_attacks={"pgd": pgd(BALL)}, **options)


def attacked_pair(training, batch):
    found, _ = training._run_attack(*batch, 0, torch.Generator().manual_seed(0))
    return training._pair(*batch, found)


def gradients(training, batch):
    training.zero_grad()
    training.training_step(batch, 0)["loss"].backward()
    return [p.grad.clone() for p in training.net.parameters()]


def der_by_hand(clean, adv, y, samples):
    """The penalty written out, one image at a time."""
    total = 0.0
    for f, g, label in zip(clean, adv, y, strict=True):
        marginal = -torch.log(torch.exp(f).sum()) + torch.log(torch.exp(g).sum())
        joint = -f[label] + g[label]
        abnormal = F.cross_entropy(g, label) < F.cross_entropy(f, label)
        if samples == "all" or abnormal:
            total = total + torch.sqrt(marginal**2 + joint**2)
    return total / len(y)


@pytest.mark.parametrize(
    ("attack", "terms", "samples", "reference"),
    [
        (fgsm(BALL), AT, "abnormal", "clean"),
        (fgsm(BALL), AT, "all", "clean"),
        (rs_fgsm(BALL), AT, "all", "clean"),
        (rs_fgsm(BALL), AT, "all", "start"),
        (n_fgsm(BALL), AT, "all", "start"),
        (pgd(BALL, steps=3), AT, "all", "clean"),
        (trades(BALL, steps=3), TRADES, "all", "clean"),
    ],
    ids=["fgsm-abnormal", "fgsm-all", "rs", "rs-start", "n-start", "pgd", "trades"],
)
def test_a_step_has_the_gradient_of_the_method_written_out(
    net, batch, attack, terms, samples, reference
):
    x, y = batch
    slow = deepcopy(net)
    bn_mode = "eval" if terms is TRADES else "batch"
    training = module(net, attack, terms | der(samples, reference=reference), bn_mode=bn_mode)
    ours = gradients(training, batch)

    generator = training._noise(x.device, 0, 0)
    slow.train(bn_mode == "batch")
    x_adv = attack(slow, x, y, generator=generator).x_adv
    eta = attack.start(x, BALL, training._noise(x.device, 0, 0))
    slow.train()
    seen = slow((x + eta).clamp(0, 1)) if reference == "start" else slow(x)
    adv = slow(x_adv)
    loss = 2.0 * der_by_hand(seen, adv, y, samples)
    if terms is TRADES:
        p, q = seen.softmax(1), adv.softmax(1)
        loss = loss + F.cross_entropy(seen, y) + 6 * (p * (p / q).log()).sum(1).mean()
    else:
        loss = loss + F.cross_entropy(adv, y)
    theirs = torch.autograd.grad(loss, list(slow.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reg", [pytest.param("reg=none", marks=pytest.mark.slow), "reg=der"])
@pytest.mark.parametrize(
    "attack",
    ["fgsm", "trades", *(pytest.param(a, marks=pytest.mark.slow) for a in ("rs_fgsm", "pgd"))],
)
def test_training_is_the_same_bit_for_bit_without_the_monitor(tmp_path, attack, reg):
    overrides = (*TINY_BN, f"attack={attack}", "attack.steps=1", reg, "trainer.max_epochs=1")
    watched = fitted(tmp_path / "a", *overrides)
    alone = fitted(tmp_path / "b", *overrides, "callbacks.energy=null")
    assert states_equal(watched.module, alone.module)


@pytest.mark.parametrize(
    "attack", ["fgsm", *(pytest.param(a, marks=pytest.mark.slow) for a in ("rs_fgsm", "pgd"))]
)
def test_der_of_weight_zero_is_the_base_method_bit_for_bit(tmp_path, attack):
    overrides = (*TINY_BN, f"attack={attack}", "trainer.max_epochs=1")
    base = fitted(tmp_path / "a", *overrides, "reg=none")
    zero = fitted(tmp_path / "b", *overrides, "reg=der", "reg.weight=0")
    some = fitted(tmp_path / "c", *overrides, "reg=der", "reg.weight=1", "reg.samples=all")
    assert states_equal(base.module, zero.module)
    assert not states_equal(base.module, some.module)


@pytest.mark.parametrize(
    ("attack", "terms", "bn_mode"),
    [
        (fgsm(BALL), AT, "batch"),
        (fgsm(BALL), AT | der(), "batch"),
        (rs_fgsm(BALL), AT | der(), "batch"),
        (pgd(BALL), AT, "batch"),
        (trades(BALL), TRADES | der(), "eval"),
    ],
    ids=["fgsm", "fgsm+der", "rs+der", "pgd", "trades+der"],
)
def test_running_statistics_move_twice_a_step(net, batch, attack, terms, bn_mode):
    training = module(net, attack, terms, bn_mode=bn_mode)
    training.observes_clean = True
    training.training_step(batch, 0)
    counts = {int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {2}


def test_eval_mode_attack_leaves_all_but_the_adversarial_pass_to_the_base_loss(net, batch):
    training = module(net, pgd(BALL), AT, bn_mode="eval")
    training.training_step(batch, 0)
    counts = {int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {1}
    assert net.training


class HostReads(TorchDispatchMode):
    """Counts the times that a number is read from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def host_reads(folder, *overrides):
    run = prepared(folder, *TINY_BN, "trainer.max_epochs=1", *overrides)
    folder.mkdir()
    with HostReads() as reads:
        run.trainer.fit(run.module, run.data)
    return reads.count


@pytest.mark.parametrize("reg", ["reg=none", "reg=der"])
def test_no_optimizer_step_waits_for_the_device(tmp_path, reg):
    common = (reg, "training.skip_inactive=false", "callbacks.guard.every=999", "attack=rs_fgsm")
    counts = [
        host_reads(tmp_path / str(n), *common, f"trainer.limit_train_batches={n}") for n in (4, 12)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "attack",
    ["fgsm", "trades", *(pytest.param(a, marks=pytest.mark.slow) for a in ("rs_fgsm", "pgd"))],
)
@pytest.mark.parametrize("reg", [{}, der("all")], ids=["none", "der"])
def test_bf16_trains_every_weight_as_much_as_fp32(attack, reg):
    search = {"fgsm": fgsm, "rs_fgsm": rs_fgsm, "pgd": pgd, "trades": trades}[attack](BALL)
    terms = (TRADES if attack == "trades" else AT) | reg
    net = preactresnet18(channels=3, classes=4, mean=[0.5] * 3, std=[0.25] * 3, width=8)
    bn_mode = "eval" if attack == "trades" else "batch"
    training = module(net, search, terms, bn_mode=bn_mode)
    training.observes_clean = True
    batch = torch.rand(16, 3, 16, 16), torch.arange(16) % 4
    exact = [g.norm().item() for g in gradients(training, batch)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = [g.norm().item() for g in gradients(training, batch)]
    # The sign in the attack turns roundings into other images, so directions may differ.
    for a, b in zip(exact, rounded, strict=True):
        assert a / 4 < b < a * 4


def test_bf16_keeps_pixels_and_energies_in_fp32(net, batch):
    training = module(net, fgsm(BALL), AT | der())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pair = attacked_pair(training, batch)
    assert {pair.clean.dtype, pair.adv.dtype} == {torch.float32}


def test_logits_that_nobody_asked_for_are_nan_and_not_invented(net, batch):
    pair = attacked_pair(module(net, rs_fgsm(BALL), AT), batch)
    assert pair.clean.isnan().all()
    assert not pair.adv.isnan().any()


def test_detached_clean_branch_needs_no_graph_of_it(net, batch):
    training = module(net, rs_fgsm(BALL), AT | der(detach_clean=True))
    pair = attacked_pair(training, batch)
    assert not pair.clean.requires_grad
    assert not pair.clean.isnan().any()


# Attacks with a start of their own, and what they remember


def js_by_hand(f, g):
    p, q = f.softmax(1), g.softmax(1)
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)).mean() / 2


def nuclear(f, g):
    return torch.linalg.svdvals(f - g).sum() / len(f)


CONSISTENT = {"liet": js_by_hand, "fgsm_pgi": F.mse_loss}  # of start and x*
FAST_METHODS = {
    "liet": (LIET(BALL, classes=4), AT | {"js": Weighted(JensenShannon(), 3.0)}),
    "fgsm_pgi": (FGSMPGI(BALL), AT | {"distance": Weighted(LogitDistance(), 3.0)}),
    "nuat": (
        NuAT(BALL),
        {"ce": Weighted(CleanCrossEntropy()), "norm": Weighted(NuclearNorm(), 3.0)},
    ),
    "sora": (SORA(BALL), AT),
}
fast_methods = pytest.mark.parametrize("method", FAST_METHODS)


@fast_methods
@pytest.mark.parametrize("with_der", [False, True], ids=["alone", "der"])
def test_a_step_of_a_fast_method_has_the_gradient_written_out(net, batch, method, with_der):
    attack, terms = FAST_METHODS[method]
    x, y = batch
    slow = deepcopy(net)
    training = module(net, attack, terms | (der() if with_der else {}))
    ours = gradients(training, batch)
    found = attack(slow, x, y, generator=training._noise(x.device, 0, 0))
    clean, start, adv = slow(x), slow(found.x_start), slow(found.x_adv)
    value = F.cross_entropy(clean if method == "nuat" else adv, y)
    if method == "nuat":
        value = value + 3 * nuclear(clean, adv)
    elif method in CONSISTENT:
        value = value + 3 * CONSISTENT[method](start, adv)
    if with_der:
        value = value + 2.0 * der_by_hand(clean, adv, y, "all")
    theirs = torch.autograd.grad(value, list(slow.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("terms", [AT, AT | der()], ids=["free", "der"])
@pytest.mark.parametrize("bn_mode", ["batch", "eval"])
def test_sora_reads_the_pert_align_of_the_batch_before(net, batch, terms, bn_mode):
    x, y = batch
    training = module(net, SORA(BALL), terms, bn_mode=bn_mode)
    slow = deepcopy(net).train(bn_mode == "batch")
    output = training.training_step(batch, 0)
    output["loss"].backward()
    training.on_after_backward()
    found = SORA(BALL)(slow, x, y, generator=training._noise(x.device, 0, 0))
    ends = (input_gradient(slow, z, y, create_graph=False) for z in (found.x_start, found.x_adv))
    expected = pert_align(*ends).mean()
    torch.testing.assert_close(training.memory["pert_align"], expected, rtol=1e-4, atol=1e-5)


def test_smoothed_labels_are_drawn_for_attack_and_loss_apart_from_all_other_noise(net, batch):
    smoothing = LabelSmoothing(0.6, 4, "random")
    training = module(net, rs_fgsm(BALL), AT, smoothing=smoothing)
    slow = deepcopy(net)
    ours = gradients(training, batch)
    x, y = batch
    noise = training._noise(x.device, 0, 0, of=1)
    of_attack, of_loss = smoothing(y, noise), smoothing(y, noise)
    assert not torch.equal(of_attack, of_loss)
    generator = training._noise(x.device, 0, 0)
    x_adv = rs_fgsm(BALL)(slow, x, y, targets=of_attack, generator=generator).x_adv
    loss = -(of_loss * slow(x_adv).log_softmax(1)).sum(1).mean()
    theirs = torch.autograd.grad(loss, list(slow.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


RESUMED = (*TINY_BN, "trainer.max_epochs=2", "dataset.batch_size=64", "dataset.pad=1",
           "dataset.flip=true", "callbacks.last.every_n_steps=1", "reg=der")  # fmt: skip
REMEMBER = {
    "fgsm_pgi": ("attack=fgsm_pgi", "loss=fgsm_pgi", "attack.reset=1"),
    "liet": ("attack=liet", "loss=liet", "attack.every=3", "loss.label_smoothing=0.6"),
    "nuat": ("attack=nuat", "loss=nuat"),
    "sora": ("attack=sora", "loss.label_smoothing=0.4"),
}


class Unplugged(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("unplugged")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return lru_cache(lambda method: fitted(tmp_path_factory.mktemp("a"), *RESUMED, *method))


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("fgsm_pgi", 4),
        *(pytest.param(m, s, marks=pytest.mark.slow)
          for m, s in [("fgsm_pgi", 9), ("fgsm_pgi", 7), ("liet", 4), ("liet", 9),
                       ("nuat", 9), ("sora", 9)]),
    ],
)  # fmt: skip
def test_what_an_attack_remembers_is_resumed_bit_for_bit(tmp_path, unbroken, method, step):
    setting = REMEMBER[method]
    whole = unbroken(setting)
    broken = prepared(tmp_path, *RESUMED, *setting)
    broken.trainer.callbacks.insert(0, Unplugged(step))
    with pytest.raises(KeyError, match="unplugged"):
        broken.trainer.fit(broken.module, broken.data)
    again = fitted(tmp_path, *RESUMED, *setting, checkpoint=RunFolder(tmp_path).checkpoint())
    assert states_equal(again.module, whole.module)
    ours, theirs = again.module.memory, whole.module.memory
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    stored = read_checkpoint(RunFolder(tmp_path).checkpoint())["attack"]
    assert all(torch.equal(stored[name], theirs[name]) for name in theirs)


def test_perturbations_are_kept_for_the_images_of_the_training_set(tmp_path):
    run = prepared(tmp_path, *TINY_BN, "attack=fgsm_pgi", "trainer.max_epochs=1",
                   "trainer.limit_train_batches=2", "dataset.batch_size=64")  # fmt: skip
    run.trainer.fit(run.module, run.data)
    moved = run.module.memory["momentum"].flatten(1).any(1).nonzero().flatten()
    loader = run.trainer.train_dataloader
    seen = torch.cat([loader.images_of(batch) for batch in range(2)])
    assert torch.equal(moved, seen.sort().values)
    size = sum(kept.numel() * kept.element_size() for kept in run.module.memory.values())
    assert size == 2 * 4 * run.data.train.pixels.numel()


def test_an_attack_that_keeps_perturbations_refuses_a_loader_without_positions(tmp_path):
    run = prepared(tmp_path, *TINY_BN, "attack=fgsm_pgi", "trainer.max_epochs=1")
    batches = DataLoader(TensorDataset(torch.rand(6, 3, 8, 8), torch.arange(6) % 4), 6)
    with pytest.raises(ValueError, match=r"FGSMPGI keeps .* must come from energy_at\.data\.Train"):
        run.trainer.fit(run.module, train_dataloaders=batches, val_dataloaders=batches)


def test_noise_belongs_to_seed_epoch_and_batch(net):
    def drawn(seed, epoch, batch_idx):
        training = module(net, pgd(BALL), AT, seed=seed)
        return torch.rand(3, generator=training._noise(torch.device("cpu"), epoch, batch_idx))

    first = drawn(0, 1, 2)
    assert torch.equal(first, drawn(0, 1, 2))
    for other in [(1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1)]:
        assert not torch.equal(first, drawn(*other))


class WithDropout(TinyNet):
    def forward(self, x):
        return super().forward(F.dropout2d(x, 0.4, self.training))


def test_dropout_belongs_to_seed_epoch_and_batch_alone(batch):
    def logits(batch_idx, *, watched=False, draws=0, seed=0):
        torch.manual_seed(0)
        training = module(WithDropout(), rs_fgsm(BALL), AT, seed=seed)
        training.observes_clean = watched
        torch.rand(draws)
        before = torch.get_rng_state()
        adv = training.training_step(batch, batch_idx)["pair"].adv
        assert torch.equal(torch.get_rng_state(), before)
        return adv

    first = logits(3)
    assert torch.equal(first, logits(3, draws=5))
    assert torch.equal(first, logits(3, watched=True))
    assert not torch.equal(first, logits(4))


def test_eps_warm_up_reaches_the_radius_and_not_before(tmp_path):
    run = fitted(
        tmp_path, *TINY_BN, "trainer.max_epochs=2", "training.eps_warmup=1", "callbacks.energy=null"
    )
    assert run.module._attack_at(0) is run.module.attack  # epoch 2: past the warm-up
    fresh = prepared(tmp_path, *TINY_BN, "training.eps_warmup=1")
    by_step, attack_at = {}, fresh.module._attack_at

    def recorded(batch_idx):
        attack = attack_at(batch_idx)
        by_step.setdefault(fresh.trainer.global_step, set()).add(attack.ball.eps)
        return attack

    fresh.module._attack_at = recorded
    fresh.trainer.fit(fresh.module, fresh.data)
    radii = [radius for (radius,) in by_step.values()]
    per_epoch = len(radii) // 2
    assert per_epoch > 1
    expected = [8 / 255 * min(1, (k + 1) / per_epoch) for k in range(len(radii))]
    assert radii == pytest.approx(expected)


def test_start_as_reference_has_logits_of_the_training_mode(net, batch):
    """The attack of an evaluation mode says nothing of the logits that the training compares."""
    training = module(net, rs_fgsm(BALL), AT | der(reference="start"), bn_mode="eval")
    found, _ = training._run_attack(*batch, 0, torch.Generator().manual_seed(0))
    pair = training._pair(*batch, found)
    assert not torch.equal(pair.start, found.start_logits)
    with frozen_running_stats(net):
        torch.testing.assert_close(pair.start, net(found.x_start))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"eps_warmup_epochs": -1.0}, "eps_warmup_epochs must be a finite number >= 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(net, options, rule):
    with pytest.raises(ValueError, match=f"^{rule}$"):
        module(net, fgsm(BALL), AT, **options)


def test_validation_leaves_the_network_as_it_was(net, batch):
    training = module(net, fgsm(BALL), AT)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    training.log_dict = partial(lambda *_, **__: None)
    training.validation_step(batch, 0)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# Work of a step in floating point operations, on 8x8 pixels: a sixteenth of those of 32x32


PLAIN_CE = {"ce": Weighted(AdversarialCrossEntropy())}
GRADALIGN = {"gradalign": Weighted(GradAlign(BALL))}


def der_term(samples="all", **options):
    return {"der": Weighted(DER(samples, **options), 2.0)}


@pytest.fixture(scope="module")
def wide_resnet():
    return preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3)


def gflop(work, size):
    """Of one of two images, if they were of 32x32."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2e9 * (32 / size) ** 2


def work_of_step(wide_resnet, attack, terms, *, bn_mode="batch", skip_flat=True, size=8):
    """Work of a step for one image, and the terms of its loss."""
    objective = Objective(terms, skip_flat=skip_flat)
    training = AdversarialTraining(
        wide_resnet, attack, objective, val_attacks={"pgd": pgd(BALL)}, bn_mode=bn_mode
    )
    batch, parts = (torch.rand(2, 3, size, size), torch.tensor([0, 1])), {}

    def taken():
        output = training.training_step(batch, 0)
        parts.update(output["parts"])
        output["loss"].backward()

    done = gflop(taken, size)
    wide_resnet.zero_grad()
    return done, parts


@pytest.mark.parametrize("size", [32, 8])
def test_a_forward_pass_is_the_unit(wide_resnet, size):
    with torch.no_grad():
        done = gflop(lambda: wide_resnet(torch.rand(2, 3, size, size)), size)
    assert done == pytest.approx(1.11, abs=0.005)


@pytest.mark.parametrize(
    ("attack", "terms", "bn_mode", "most"),
    [
        (fgsm(BALL), PLAIN_CE, "batch", 5.6),
        (fgsm(BALL), PLAIN_CE | der_term(), "batch", 7.8),
        (rs_fgsm(BALL), PLAIN_CE | der_term(), "batch", 8.9),
        (rs_fgsm(BALL), PLAIN_CE | der_term(reference="start"), "batch", 7.8),
        (pgd(BALL), PLAIN_CE, "batch", 25.7),
        (trades(BALL), TRADES, "eval", 30.5),
        (fgsm(BALL), PLAIN_CE | GRADALIGN, "batch", 12.4),
        (FGSMPGI(BALL), PLAIN_CE | {"mse": Weighted(LogitDistance())}, "batch", 7.8),
        (FGSMPGI(BALL), PLAIN_CE | {"mse": Weighted(LogitDistance())} | der_term(), "batch", 11.2),
        (SORA(BALL), PLAIN_CE, "batch", 5.6),
        (SORA(BALL), PLAIN_CE | der_term(), "batch", 11.2),
    ],
    ids=[
        "fgsm",
        "der",
        "rs+der",
        "rs+der-start",
        "pgd10",
        "trades10",
        "gradalign",
        "pgi",
        "pgi+der",
        "sora",
        "sora+der",
    ],
)
def test_work_of_a_step_in_gflop_per_image(wide_resnet, attack, terms, bn_mode, most):
    done, parts = work_of_step(wide_resnet, attack, terms, bn_mode=bn_mode)
    assert 0.95 * most < done <= most
    assert parts.get("der", 1) > 0


@pytest.mark.parametrize(
    ("idle", "size"),
    [(der_term(gamma=1e3), 8), (der_term("abnormal"), 32)],
    ids=["gamma", "abnormal"],
)
def test_der_costs_nothing_where_it_is_not_active(wide_resnet, idle, size):
    done, parts = work_of_step(wide_resnet, fgsm(BALL), PLAIN_CE | idle, size=size)
    assert parts["der"] == 0
    assert 5.5 < done <= 5.6


def test_der_that_waits_for_no_device_costs_no_more(wide_resnet):
    waits, hurries = (
        work_of_step(wide_resnet, fgsm(BALL), PLAIN_CE | der_term(), skip_flat=flat)
        for flat in (True, False)
    )
    assert hurries[0] == waits[0]


def test_der_costs_nothing_beside_trades(wide_resnet):
    attack = trades(BALL, steps=1)
    alone, both = (
        work_of_step(wide_resnet, attack, TRADES | terms, bn_mode="eval")
        for terms in ({}, der_term())
    )
    assert both[1]["der"] > 0
    assert both[0] == alone[0]


# What makes a step fast changes none of its numbers, and bf16 changes them within bounds


METHODS = {
    "fgsm": ("attack=fgsm",),
    "fgsm der": ("attack=fgsm", "reg=der", "reg.samples=all", "reg.weight=1"),
    "fgsm der inactive": ("attack=fgsm", "reg=der", "reg.gamma=1000"),
    "rs-fgsm der": ("attack=rs_fgsm", "reg=der"),
    "rs-fgsm der from start": ("attack=rs_fgsm", "reg=der", "reg.reference=start"),
    "n-fgsm der": ("attack=n_fgsm", "reg=der"),
    "gradalign": ("attack=fgsm", "reg=gradalign"),
    "elle": ("attack=fgsm", "reg=elle", "reg.weight=1"),
    "aaer": ("attack=rs_fgsm", "reg=aaer"),
    "pgd der": ("attack=pgd", "attack.steps=3", "reg=der"),
    "trades der": ("attack=trades", "attack.steps=3", "loss=trades", "reg=der"),
    "mart": ("attack=pgd", "attack.steps=3", "loss=mart"),
    "weat": ("attack=trades", "attack.steps=3", "loss=weat_adv"),
    "awp": ("attack=fgsm", "reg=der", "training.awp.gamma=0.01"),
}
FAST = ("training.channels_last=true", "training.reuse=true", "training.skip_inactive=true")
SLOW = ("training.channels_last=false", "training.reuse=false", "training.skip_inactive=false")


def trained(switches, method, dtype, steps=20):
    """The state of the network after `steps` steps on random batches."""
    torch.manual_seed(0)
    cfg = config("dataset=synthetic", "model=small", "optimizer.lr=0.01", *METHODS[method])
    cfg.merge_with_dotlist(list(switches))
    module = build_module(cfg)
    kind = torch.channels_last if cfg.training.channels_last else torch.contiguous_format
    module.net = TinyNet().to(dtype=dtype, memory_format=kind)
    step = bare_step(module.train(), module.optimizer(module.net), "fp32")
    for x in torch.rand(steps, 8, 3, 8, 8, dtype=torch.float64).to(dtype):
        step(x.contiguous(memory_format=kind), torch.arange(8) % 4)
        module.on_after_backward()
    return module.net.state_dict()


EVERY_SUITE = ("fgsm der", "rs-fgsm der from start", "gradalign", "trades der")


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in EVERY_SUITE else pytest.mark.slow) for m in METHODS]
)
def test_20_fast_steps_end_where_20_slow_ones_do(method):
    fast, slow = (trained(s, method, torch.float64) for s in (FAST, SLOW))
    for name, value in fast.items():
        assert (value - slow[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize("method", ["fgsm", "fgsm der"])
def test_20_fast_steps_in_fp32_stay_with_the_slow_ones(method):
    # A gradient at zero has the sign of a rounding: now and then a pixel goes the other way. The
    # divergence of TRADES is flat where its attack starts, so there only fp64 can decide.
    start = trained(FAST, method, torch.float32, steps=0)
    fast, slow = (trained(s, method, torch.float32) for s in (FAST, SLOW))
    for name, value in fast.items():
        if value.is_floating_point():
            moved = (value - start[name]).norm()
            assert (value - slow[name]).norm() <= 1e-2 * moved + 1e-6, name


@pytest.fixture(scope="module")
def narrow_resnet():
    torch.manual_seed(0)
    return preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3, width=8)


@pytest.mark.parametrize("attack", [fgsm(BALL), rs_fgsm(BALL), pgd(BALL), trades(BALL)])
def test_bf16_perturbations_stay_in_the_ball_in_fp32(narrow_resnet, attack):
    x, y = torch.rand(16, 3, 16, 16), torch.arange(16) % 10
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_adv = attack(deepcopy(narrow_resnet), x, y).x_adv
    assert x_adv.dtype == torch.float32
    # x + delta and the difference are rounded once each, at pixels of up to 1
    assert (x_adv.double() - x.double()).abs().max() <= BALL.eps + 2**-23
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bf16_moves_delta_energies_by_less_than_two_hundredths_of_a_nat(narrow_resnet, training):
    narrow_resnet = deepcopy(narrow_resnet).train(training)
    x, y = torch.rand(32, 3, 16, 16), torch.arange(32) % 10
    x_adv = fgsm(BALL)(narrow_resnet, x, y).x_adv

    def shifts():
        with torch.no_grad():
            pair = LogitPair(narrow_resnet(x), narrow_resnet(x_adv), y)
        return torch.stack([delta_marginal(pair), delta_joint(pair)])

    exact = shifts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = shifts()
    assert exact.abs().max() > 0.02
    assert (rounded - exact).abs().mean() < 0.02
    assert (rounded - exact).abs().max() > 0


def test_a_network_with_lazy_layers_is_refused_until_it_has_weights():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"lazy layers without weights \(1\.weight, 1\.bias\)"):
        FastAT(net, Linf(0.1))
    net(torch.rand(2, 3, 4, 4))
    FastAT(net, Linf(0.1))
