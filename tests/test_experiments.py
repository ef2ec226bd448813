"""The presets of the two studies: recipes, published constants, and the CPU scale."""

import functools
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from energy_at.config.build import build_module, make
from energy_at.objectives import LabelSmoothing
from tests.helpers.running import CONF, choices, config

SMALL = ("model=small", "model.width=2")
SINGLE_STEP = ("fgsm", "rs_fgsm", "n_fgsm")
IMAGES = ("cifar10", "cifar100", "tiny_imagenet")

composed = functools.cache(config)


def module(*overrides):
    return build_module(composed(*overrides, *SMALL))


def terms(*overrides):
    return module(*overrides).objective.terms


def learning_rates(*overrides):
    """At the start of each epoch."""
    cfg = composed(*overrides)
    optimizer = make(cfg.optimizer, factory=True)(torch.nn.Linear(1, 1))
    schedule = make(cfg.schedule, factory=True)(optimizer, cfg.trainer.max_epochs)
    rates = []
    for _ in range(cfg.trainer.max_epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_a_preset_is_short(experiment):
    assert len((CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()) < 15


# Catastrophic overfitting


@pytest.mark.parametrize("reg", ["none", "der", "gradalign", "elle", "aaer"])
@pytest.mark.parametrize(
    "attack", [SINGLE_STEP[0], *(pytest.param(a, marks=pytest.mark.slow) for a in SINGLE_STEP[1:])]
)
def test_every_method_of_the_co_study_composes(attack, reg):
    chosen = module("experiment=co", f"attack={attack}", f"reg={reg}")
    assert chosen.attack == module("dataset=cifar10", f"attack={attack}").attack
    added = {} if reg == "none" else {reg}
    assert set(chosen.objective.terms) == {"adversarial_ce", *added}


@pytest.mark.parametrize("dataset", IMAGES)
def test_co_trains_30_epochs_on_a_triangle_up_to_0_2(dataset):
    rates = learning_rates("experiment=co", f"dataset={dataset}")
    up = [0.2 * epoch / 15 for epoch in range(15)]
    assert rates == pytest.approx([*up, 0.2, *up[:0:-1]])
    assert module("experiment=co", f"dataset={dataset}").eps_warmup_epochs == 0


def test_co_trains_15_epochs_on_svhn_with_a_peak_at_two_fifths_and_a_warm_up_of_eps():
    rates = learning_rates("experiment=co", "dataset=svhn")
    up, down = [0.05 * i / 6 for i in range(6)], [0.05 * i / 9 for i in range(9, 0, -1)]
    assert rates == pytest.approx([*up, *down])
    assert module("experiment=co", "dataset=svhn").eps_warmup_epochs == 5


def test_co_is_on_cifar10_at_8_255_by_default():
    cfg = composed("experiment=co")
    assert (cfg.dataset.name, cfg.attack.name, cfg.reg.name) == ("cifar10", "FGSM", "none")
    assert cfg.threat.ball.eps == pytest.approx(8 / 255)
    assert composed("experiment=co", "threat.eps=12/255").threat.ball.eps == pytest.approx(12 / 255)


@pytest.mark.parametrize("dataset", [*IMAGES, "svhn"])
def test_co_evaluates_the_final_checkpoint_by_pgd_50_10_on_all_test_images(dataset):
    evaluation = composed("experiment=co", f"dataset={dataset}").evaluation
    assert list(evaluation.checkpoints) == ["last"]
    assert list(evaluation.images) == ["test"]
    assert evaluation.subset is None
    pgd = make(evaluation.attacks.pgd)
    assert (pgd.steps, len(pgd.attacks)) == (50, 10)


# Robust overfitting


@pytest.mark.parametrize("dataset", [*IMAGES, "svhn"])
def test_ro_trains_200_epochs_with_two_drops(dataset):
    rates = learning_rates("experiment=ro", f"dataset={dataset}")
    assert rates == pytest.approx([0.1] * 100 + [0.01] * 50 + [0.001] * 50)
    assert module("experiment=ro", f"dataset={dataset}").eps_warmup_epochs == 0


def test_ro_onecycle_trains_100_epochs_with_its_peak_after_a_quarter():
    rates = learning_rates("experiment=ro_onecycle")
    reference = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        reference, 0.1, total_steps=100, pct_start=0.25, cycle_momentum=False
    )
    expected = []
    for _ in range(100):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()
    assert rates == pytest.approx(expected)
    assert max(rates) == rates[24] == pytest.approx(0.1)


@pytest.mark.parametrize("experiment", ["ro", "ro_onecycle"])
def test_robust_overfitting_is_read_from_best_and_last(experiment):
    cfg = composed(f"experiment={experiment}")
    assert set(cfg.evaluation.checkpoints) == {"best", "last"}
    assert cfg.callbacks.best.monitor == "val/acc/pgd10"
    assert (cfg.dataset.name, cfg.attack.name, cfg.attack.steps) == ("cifar10", "PGD", 10)


def test_awp_is_switched_on_by_its_size():
    assert module("experiment=ro").awp is None
    assert module("experiment=ro", "training.awp.gamma=0.01").awp.gamma == 0.01


# Published constants


@pytest.mark.parametrize(
    ("eps", "weight"), [(8, 0.2), (16, 2.0), (4, (0.02 * 0.2) ** 0.5), (12, (0.2 * 2.0) ** 0.5)]
)
def test_gradalign_is_log_linear_in_eps(eps, weight):
    chosen = terms("reg=gradalign", "dataset=cifar10", f"threat.eps={eps}/255")
    assert chosen["gradalign"].weight == pytest.approx(weight)


@pytest.mark.parametrize(("eps", "weight"), [(4, 1000), (8, 1000), (12, 5000), (16, 5000)])
def test_elle_is_stronger_above_8_255(eps, weight):
    assert terms("reg=elle", "dataset=cifar10", f"threat.eps={eps}/255")["elle"].weight == weight


@pytest.mark.parametrize(
    ("data", "attack", "ce", "logits"),  # of the authors' README, at 8, 12, 16 and 32/255
    [
        ("cifar10", "rs_fgsm", (2.5, 5, 7, 5.75), (1.5, 2.75, 3.25, 1.5)),
        ("cifar10", "n_fgsm", (1.5, 5, 8.5, 2.75), (0.15, 0.55, 1.5, 0.75)),
        ("cifar100", "rs_fgsm", (3.5, 3.5, 6, 5), (1.5, 2.75, 2.25, 0.75)),
        ("cifar100", "n_fgsm", (1.5, 3.5, 6, 3.5), (0.15, 0.3, 0.5, 0.5)),
    ],
)
def test_aaer_has_its_three_weights(data, attack, ce, logits):
    for eps, *expected in zip((8, 12, 16, 32), ce, logits, strict=True):
        chosen = terms("reg=aaer", f"attack={attack}", f"dataset={data}", f"threat.eps={eps}/255")
        aaer = chosen["aaer"]
        assert (aaer.weight, aaer.term.ce, aaer.term.logits) == pytest.approx((1, *expected))


def test_aaer_takes_the_weights_of_rs_fgsm_on_cifar10_where_none_are_published():
    published = terms("reg=aaer", "attack=rs_fgsm", "dataset=cifar10", "threat.eps=12/255")
    other = terms("reg=aaer", "attack=fgsm", "dataset=svhn", "threat.eps=12/255")
    assert other["aaer"] == published["aaer"]


@pytest.mark.parametrize(
    ("loss", "beta"), [("trades", 6), ("mart", 5), ("weat_adv", 6), ("weat_nat", 6)]
)
def test_losses_have_their_beta(loss, beta):
    chosen = terms(f"loss={loss}")
    assert chosen.pop("kl").weight == beta
    assert [weighted.weight for weighted in chosen.values()] == [1]


@pytest.mark.parametrize(
    ("attack", "weight"),
    [*((attack, 20) for attack in SINGLE_STEP), ("pgd", 1), ("trades", 1)],
)
def test_der_weighs_20_under_one_step_and_1_under_more(attack, weight):
    assert terms("reg=der", f"attack={attack}")["der"].weight == weight


@pytest.mark.parametrize("reg", ["aaer", "der", "elle", "gradalign"])
def test_a_weight_that_is_typed_wins(reg):
    assert terms(f"reg={reg}", "reg.weight=3")[reg].weight == 3


def test_der_and_gradalign_are_weighed_separately():
    both = terms("reg=der_gradalign", "attack=fgsm")
    assert both["der"] == terms("reg=der", "attack=fgsm")["der"]
    assert both["gradalign"] == terms("reg=gradalign", "attack=fgsm")["gradalign"]
    heavier = terms("reg=der_gradalign", "attack=fgsm", "reg.der.weight=3")
    assert heavier["der"] == replace(both["der"], weight=3)
    assert heavier["gradalign"] == both["gradalign"]
    aligned = terms("reg=der_gradalign", "attack=fgsm", "reg.gradalign.weight=3")
    assert aligned["gradalign"] == replace(both["gradalign"], weight=3)
    assert aligned["der"] == both["der"]


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("loss", ["trades", "mart", "weat_adv", "weat_nat"])
def test_losses_with_a_clean_branch_attack_in_evaluation_mode(loss, attack):
    assert module(f"loss={loss}", f"attack={attack}").bn_mode == "eval"


@pytest.mark.parametrize("attack", [*SINGLE_STEP, "pgd"])
def test_adversarial_training_attacks_on_the_batch(attack):
    assert module("loss=at", f"attack={attack}").bn_mode == "batch"


# Rivals


@pytest.mark.parametrize(
    ("method", "share", "spread"),
    [(("attack=n_fgsm",), 0.4, "uniform"), (("attack=fgsm_pgi", "loss=fgsm_pgi"), 0.4, "uniform"),
     (("attack=liet", "loss=liet"), 0.6, "random"), (("attack=nuat", "loss=nuat"), 0.4, "uniform")],
)  # fmt: skip
def test_the_protocol_of_the_fastat_benchmark(method, share, spread):
    cfg = composed("experiment=fastat", *method)
    assert cfg.model._target_ == "energy_at.models.resnet18"
    recipe = (cfg.trainer.max_epochs, cfg.optimizer.lr, cfg.optimizer.weight_decay)
    assert recipe == (100, 0.1, 5e-4)
    assert (cfg.dataset.batch_size, cfg.dataset.val_size, cfg.threat.eps) == (128, 1000, "8/255")
    assert (cfg.callbacks.ema.decay, cfg.schedule.pct_start) == (0.9995, 0.3)
    assert module("experiment=fastat", *method).smoothing == LabelSmoothing(share, 10, spread)
    assert max(learning_rates("experiment=fastat", *method)) == pytest.approx(0.1, rel=0.01)


@pytest.mark.slow
def test_labels_are_smoothed_where_it_is_typed_only():
    for loss in ("at", "trades", "weat_adv", "weat_nat", "liet", "fgsm_pgi", "nuat"):
        assert module(f"loss={loss}").smoothing is None
        share = module(f"loss={loss}", "loss.label_smoothing=0.2").smoothing.share
        assert share == pytest.approx(0.2)


RIVALS = {
    "fgsm": {"adversarial_ce"}, "rs_fgsm": {"adversarial_ce"}, "n_fgsm": {"adversarial_ce"},
    "sora": {"adversarial_ce"}, "liet": {"adversarial_ce", "consistency"},
    "fgsm_pgi": {"adversarial_ce", "consistency"}, "nuat": {"clean_ce", "nuclear_norm"},
    "aaer": {"adversarial_ce", "aaer"}, "elle": {"adversarial_ce", "elle"},
    "gradalign": {"adversarial_ce", "gradalign"},
}  # fmt: skip


@pytest.mark.parametrize("method", choices("experiment/rivals"))
def test_every_rival_is_an_attack_with_its_loss_and_perhaps_der(method):
    cfg = composed("sweep=rivals", f"experiment=rivals/{method}")
    base, der = method.removesuffix("_der"), method.endswith("_der")
    assert set(cfg.loss.terms) | set(cfg.reg.terms) == RIVALS[base] | ({"der"} if der else set())
    assert (cfg.threat.eps, cfg.trainer.max_epochs, cfg.model.width) == ("16/255", 12, 16)
    full = composed("sweep=rivals", f"experiment=rivals/{method}", "scale=full")
    assert (full.model.width, full.dataset.subset) == (64, None)


def test_the_sweep_names_every_rival():
    swept = (CONF / "sweep" / "rivals.yaml").read_text()
    assert all(f"rivals/{name}" in swept for name in choices("experiment/rivals"))
    assert set(RIVALS) <= set(choices("experiment/rivals"))


# Architectures and data sets


@pytest.mark.parametrize("group", ["architectures", "datasets"])
def test_a_sweep_is_without_and_with_der_over_every_experiment_of_its_folder(group):
    params = OmegaConf.load(CONF / "sweep" / f"{group}.yaml").hydra.sweeper.params
    files = [f"{group}/{name}" for name in choices(f"experiment/{group}")]
    assert sorted(params.pop("experiment").split(",")) == files
    assert params == {"reg": "none,der", "seed": "0,1,2"}


SIZES = {  # millions of parameters: of a subset of CIFAR-10, and of all of it
    "preactresnet18": (0.70, 11.17), "cnn": (0.0998, 1.566), "wideresnet": (0.69, 36.5),
    "convnext": (0.59, 27.8), "vit": (0.68, 5.4), "mlp_mixer": (0.491, 17.11),
}  # fmt: skip


@pytest.mark.parametrize("name", choices("experiment/architectures"))
def test_an_architecture_is_small_for_a_subset_and_whole_for_all_images(name):
    if name in ("convnext", "vit", "mlp_mixer"):
        pytest.importorskip("timm")
    for scale, millions in zip(((), ("scale=full",)), SIZES[name], strict=True):
        cfg = composed("sweep=architectures", f"experiment=architectures/{name}", *scale)
        assert cfg.threat.eps == "16/255"
        net = make(cfg.model)
        size = sum(parameter.numel() for parameter in net.parameters())
        assert size / 1e6 == pytest.approx(millions, rel=0.01)


# The CPU scale


@pytest.mark.parametrize("dataset", choices("dataset"))
def test_the_cpu_scale_is_a_width_and_a_subset(dataset):
    cfg = composed("scale=cpu", f"dataset={dataset}")
    # fewer than 10,000 images, or a number that is not known
    small = dataset in ("digits", "mnist5k", "mnist_texture", "synthetic", "folder", "npz",
                        "huggingface")  # fmt: skip
    assert (cfg.model.width, cfg.dataset.subset) == (16, None if small else 10_000)
    full = composed(f"dataset={dataset}")
    assert (full.model.width, full.dataset.subset) == (64, None)


@pytest.mark.parametrize("experiment", ["co", "ro", "ro_onecycle"])
def test_the_cpu_scale_changes_nothing_else_of_a_preset(experiment):
    full = composed(f"experiment={experiment}")
    small = composed(f"experiment={experiment}", "scale=cpu")
    assert (small.model.width, small.dataset.subset) == (16, 10_000)
    for part in ("attack", "loss", "reg", "optimizer", "schedule", "threat", "training"):
        assert small[part] == full[part]
    assert small.trainer.max_epochs == full.trainer.max_epochs
    assert small.evaluation.attacks == full.evaluation.attacks


def test_what_is_typed_wins_over_the_cpu_scale():
    typed = ("model.width=8", "dataset.subset=500", "trainer.precision=32-true")
    cfg = composed(*typed, "scale=cpu", "experiment=co")
    assert (cfg.model.width, cfg.dataset.subset, cfg.trainer.precision) == (8, 500, "32-true")
