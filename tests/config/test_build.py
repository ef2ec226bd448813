import inspect
import itertools
from contextlib import suppress
from fractions import Fraction

import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from torch import nn

from energy_at.attacks.threat import L2, Linf
from energy_at.config.build import build_loggers, build_module, reopen
from energy_at.data import ImageData
from energy_at.objectives import DER
from energy_at.runs.folder import RunFolder
from tests.helpers.running import (
    CONF,
    ONE_EPOCH,
    OWN,
    TINY,
    TINY_BN,
    assert_refused,
    choices,
    config,
    fitted,
    named_datasets,
    prepared,
)

GROUPS = ["attack", "callbacks", "dataset", "logger", "loss", "model", "optimizer", "reg",
          "schedule", "threat", "trainer"]  # fmt: skip
AXES = ("attack", "loss", "reg", "threat")
ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"


@pytest.fixture(scope="module")
def composed():
    """Two configurations, and the part of one that each choice brings: composing takes its time."""
    shorter = {"pgd": ("attack.steps=2",), "trades": ("attack.steps=2",)}
    parts = {
        (g, c): config(*TINY_BN, f"{g}={c}", *shorter.get(c, ()) * (g == "attack"))[g]
        for g in AXES
        for c in choices(g)
    }
    return {"small": config(*TINY), "preactresnet18": config(*TINY_BN)}, parts


LINF_ONLY = ("liet", "fgsm_pgi", "nuat", "sora")


def sensible(chosen):
    """Not without an attack, where there is nothing to compare, nor an L2 attack of L-inf only."""
    if chosen[3] == "l2" and chosen[0] in LINF_ONLY:
        return False
    return chosen[0] != "none" or chosen[1:3] == ("at", "none")


def pairs(chosen):
    """The choices of each two axes."""
    return set(itertools.combinations(zip(AXES, chosen, strict=True), 2))


def combinations():
    """All that are sensible; those that add no new pair of choices are slow tests."""
    rest = list(filter(sensible, itertools.product(*(choices(axis) for axis in AXES))))
    left = set().union(*map(pairs, rest))
    while left:
        chosen = max(rest, key=lambda one: len(pairs(one) & left))
        rest.remove(chosen)
        left -= pairs(chosen)
        yield chosen
    yield from (pytest.param(chosen, marks=pytest.mark.slow) for chosen in rest)


@pytest.mark.parametrize("net", ["small", pytest.param("preactresnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize("chosen", list(combinations()))
def test_every_combination_takes_a_step(composed, chosen, net):
    cfg, parts = composed[0][net].copy(), composed[1]
    for axis, choice in zip(AXES, chosen, strict=True):
        cfg[axis] = parts[axis, choice]
    module = build_module(cfg)
    loss = module.training_step((torch.rand(6, 3, 8, 8), torch.arange(6) % 4), 0)["loss"]
    loss.backward()
    for parameter in module.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


WIDE = ["model.width=2", "model.widen=1"]
SMALL_MODELS = {"wideresnet28_10": WIDE, "wideresnet34_10": WIDE,
                "timm": ["model.name=test_resnet"],
                "torchvision": ["model.name=squeezenet1_1"],
                "custom": ["model.target=torch.nn.Flatten"]}  # fmt: skip


def every_choice():
    """Each choice of each group at least once, with what its place in the lists brings together."""
    lists = {group: [c for c in choices(group) if c not in OWN] for group in GROUPS}
    for i in range(max(map(len, lists.values()))):
        chosen = {group: names[i % len(names)] for group, names in lists.items()}
        if chosen["attack"] == "none":
            chosen["attack"] = "fgsm"
        if chosen["attack"] in LINF_ONLY:
            chosen["threat"] = "linf"
        yield tuple(f"{group}={choice}" for group, choice in chosen.items())
    yield "attack=none", "loss=at", "reg=none"


def test_the_choices_that_are_built_are_all():
    built = {choice for chosen in every_choice() for choice in chosen}
    every = {f"{group}={choice}" for group in GROUPS for choice in choices(group)}
    assert built == every - {f"dataset={name}" for name in OWN}


@pytest.mark.parametrize("chosen", list(every_choice()), ids=",".join)
def test_every_choice_builds(tmp_path, monkeypatch, chosen):
    monkeypatch.setenv("WANDB_MODE", "offline")
    # trackers begin with their first row
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: True)
    model = dict(choice.split("=") for choice in chosen).get("model", "small")
    if model == "timm":
        pytest.importorskip("timm")
    small = SMALL_MODELS.get(model, ["model.width=2"])
    run = prepared(tmp_path, *chosen, *small, "callbacks.progress=null")
    assert isinstance(run.module, LightningModule)
    assert isinstance(run.data, ImageData)


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_is_short_and_trains(tmp_path, experiment):
    fast = ("dataset=synthetic", "model.width=2", "logger=csv", "callbacks.progress=null")
    run = fitted(tmp_path, f"experiment={experiment}", *fast, "trainer.max_epochs=1",
                 "dataset.subset=null", "dataset.val_size=64", "dataset.batch_size=64",
                 "threat.eps=8/255", "callbacks.best=null",
                 "trainer.precision=32-true")  # fmt: skip
    assert run.trainer.global_step == 7


def test_every_argument_of_lightnings_trainer_is_a_key_with_its_default():
    arguments = inspect.signature(Trainer.__init__).parameters
    ours = {"self", "callbacks", "logger", "plugins"}  # groups and callbacks of their own
    keys = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    assert set(keys) == set(arguments) - ours
    changed = {"max_epochs", "devices", "precision", "inference_mode", "log_every_n_steps",
               "num_sanity_val_steps", "enable_progress_bar", "enable_model_summary"}  # fmt: skip
    for name, value in keys.items():
        assert name in changed or value == arguments[name].default, name


def test_lightnings_limits_need_no_plus(tmp_path):
    limits = ("trainer.limit_train_batches=2", "trainer.accumulate_grad_batches=1",
              "trainer.gradient_clip_val=1", "trainer.max_epochs=1")  # fmt: skip
    run = fitted(tmp_path, *TINY, *limits)
    assert run.trainer.global_step == 2
    assert run.trainer.gradient_clip_val == 1


def test_a_time_limit_ends_a_training(tmp_path):
    run = fitted(tmp_path, *TINY, "trainer.max_time=00:00:00:01", "trainer.max_epochs=100000")
    assert 0 < run.trainer.current_epoch < 100000


class Losses(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["loss"]))


def test_a_training_in_doubles_is_the_one_in_floats_within_their_error(tmp_path):
    def losses(precision):
        run = prepared(tmp_path, *TINY, "reg=der", "reg.samples=all", "trainer.max_epochs=1",
                       f"trainer.precision={precision}")  # fmt: skip
        found = Losses()
        run.trainer.callbacks.append(found)
        run.trainer.fit(run.module, run.data)
        return found.seen, next(run.module.net.parameters()).dtype

    (doubles, double), (floats, float_) = losses("64-true"), losses("32-true")
    assert (double, float_) == (torch.float64, torch.float32)
    assert doubles[0] != floats[0]
    assert doubles[0] == pytest.approx(floats[0], rel=1e-6)


@pytest.mark.parametrize("eps", ["128/255", "3.0", "13.8"])
def test_an_l2_radius_may_be_as_long_as_two_images_can_be_distant(eps):
    cfg = config(*TINY, "threat=l2", f"threat.eps={eps}")
    assert cfg.threat.ball.eps == pytest.approx(float(Fraction(eps)))
    assert cfg.threat.most == pytest.approx((3 * 8 * 8) ** 0.5)  # [0, 1]^d from corner to corner


@pytest.mark.parametrize("choice", named_datasets())
def test_every_dataset_brings_the_settings_that_it_needs(choice):
    cfg = config(f"dataset={choice}")
    assert len(cfg.dataset.mean) == len(cfg.dataset.std) == cfg.dataset.channels
    assert cfg.dataset.name == choice
    assert 0 < cfg.threat.ball.eps <= 1
    assert cfg.trainer.max_epochs == cfg.dataset.epochs
    assert cfg.optimizer.lr == cfg.dataset.lr
    assert config(f"dataset={choice}", "threat=l2").threat.ball.eps > 0


@pytest.mark.parametrize(
    ("dataset", "eps", "epochs", "lr"),
    [
        ("cifar10", 8 / 255, 30, 0.2),
        ("cifar100", 8 / 255, 30, 0.2),
        ("svhn", 8 / 255, 15, 0.05),
        ("tiny_imagenet", 8 / 255, 30, 0.2),
    ],
)
def test_the_recipe_of_fast_at_is_the_default(dataset, eps, epochs, lr):
    cfg = config(f"dataset={dataset}")
    assert cfg.threat.ball.eps == pytest.approx(eps)
    assert (cfg.trainer.max_epochs, cfg.optimizer.lr) == (epochs, lr)
    assert (cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (0.9, 5e-4)


@pytest.mark.parametrize(
    ("attack", "alpha", "steps"),
    [("fgsm", 8, 1), ("rs_fgsm", 10, 1), ("n_fgsm", 8, 1), ("pgd", 2, 10), ("trades", 2, 10)],
)
def test_attack_constants_are_those_of_the_papers(tmp_path, attack, alpha, steps):
    search = prepared(tmp_path, *TINY, f"attack={attack}", "threat.eps=8/255").module.attack
    assert search.alpha == pytest.approx(alpha / 255)
    assert search.steps == steps
    assert search.ball == Linf(8 / 255)


def test_an_attack_is_adjusted_from_the_command_line(tmp_path):
    search = prepared(
        tmp_path, *TINY, "attack=pgd", "attack.steps=3", "attack.alpha=3/255", "attack.restarts=2",
        "threat=l2", "threat.eps=128/255", "attack.eot=5",
    ).module.attack  # fmt: skip
    assert (search.restarts, search.attack.steps, search.attack.eot) == (2, 3, 5)
    assert search.attack.alpha == pytest.approx(3 / 255)
    assert search.attack.ball == L2(128 / 255)


@pytest.mark.parametrize(
    ("attack", "samples"),
    [("fgsm", "abnormal"), ("n_fgsm", "abnormal"), ("pgd", "all"), ("trades", "all")],
)
def test_der_chooses_its_samples_by_the_steps_of_the_attack(tmp_path, attack, samples):
    def term(*overrides):
        run = prepared(tmp_path, *TINY, f"attack={attack}", "reg=der", *overrides)
        return run.module.objective.terms["der"].term

    assert term() == DER(samples)
    assert term("reg.samples=all").samples == "all"
    assert term("reg.samples=abnormal", "reg.gamma=0.5") == DER("abnormal", gamma=0.5)


def test_trades_attacks_in_evaluation_mode_and_others_on_the_batch():
    modes = {attack: config(f"attack={attack}").training.bn_mode for attack in choices("attack")}
    assert {name for name, mode in modes.items() if mode == "eval"} == {"none", "trades"}


def test_interpolations_are_resolved_in_the_saved_configuration():
    text = OmegaConf.to_yaml(config("experiment=trades_der"), resolve=True)
    assert "${" not in text.split("hydra:")[0]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("attack", LINF_ONLY)
def test_an_attack_of_the_l_inf_ball_refuses_another(type_train, attack):
    said = "must be an L-inf ball (threat=linf): the method is defined in no other"
    assert_refused(type_train, said, *ONE_EPOCH, f"attack={attack}", "threat=l2")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("attack=liet", "attack.steps=2"), "attack.steps=2 must be 1: the attack takes a single"),
        (("attack=fgsm_pgi", "attack.reset=0"), "attack.reset=0 must be an integer >= 1"),
        ("loss.label_smoothing=1", "loss.label_smoothing=1 must be a finite number >= 0 and < 1"),
        ("loss.smoothing=none", "loss.smoothing=none must be uniform or random"),
        (("loss=mart", "loss.label_smoothing=0.1"), "loss=mart has no label_smoothing: add"),
        (("loss.label_smoothing=0.1", "model.classes=7"), "the model has 7 logits but smoothed"),
        (("reg=der", "reg.weight=-1"), "reg.weight=-1 must be a finite number >= 0"),
        ("trainer.precision=foo", "trainer.precision=foo must be 32-true, bf16-mixed or 64-true"),
        ("trainer.enable_checkpointing=false", "false contradicts callbacks.last: leave it out"),
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu must be auto, cpu, gpu, cuda or mps"),
        (f"trainer.accelerator={ABSENT}", "Lightning refuses the trainer's settings: "),
    ],
)  # fmt: skip
def test_what_an_object_refuses_is_met_by_its_key(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))


@pytest.mark.parametrize(("key", "value"), [("seed", "abc"), ("dataset.reader", None)])
def test_a_value_of_a_saved_run_that_breaks_its_rule_is_named(tmp_path, key, value):
    cfg = config(*ONE_EPOCH)
    OmegaConf.update(cfg, key, value, merge=False)
    with pytest.raises(ValueError, match=f"^{key}=.* must be"):
        reopen(RunFolder.create(tmp_path, cfg))


def test_a_logger_that_names_no_class_is_named(tmp_path):
    cfg = config(*ONE_EPOCH, "+logger.mine.a=1")
    with pytest.raises(ValueError, match=r"^logger\.mine must have a _target_"):
        build_loggers(cfg, tmp_path, "train")


def test_the_folder_of_checkpoints_is_the_run_s_own(tmp_path):
    with pytest.raises(ValueError, match=r"^callbacks\.best\.dirpath: checkpoints lie in the run"):
        prepared(tmp_path, *TINY, "+callbacks.best.dirpath=elsewhere")


PUBLISHED = {
    "weights": {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"},
    "pretrained": {"_target_": "torchvision.models.resnet18", "pretrained": True},
    "a place": {"_target_": "torchvision.models.resnet18", "_args_": ["DEFAULT"]},
    "inside": {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torchvision.models.squeezenet1_1", "weights": "DEFAULT"}],
    },
    "timm": {"_target_": "timm.create_model", "model_name": "resnet10t", "pretrained": True},
    "ours": {"_target_": "energy_at.models.timm", "name": "resnet10t", "pretrained": True},
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_network_of_a_run_requests_no_published_weights(model, monkeypatch):
    """They are in its checkpoint. A new training does request them."""
    cfg = config("dataset=synthetic", "training.channels_last=false")
    OmegaConf.set_struct(cfg, False)
    sizes = {key: cfg.model[key] for key in ("mean", "std", "channels", "classes")} | {"size": 8}
    cfg.model = PUBLISHED[model] | (sizes if model == "ours" else {})

    asked = []

    def ask(*what, **options):
        asked.append(what)
        raise ConnectionError("no network here")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", ask)
    if model in ("timm", "ours"):
        pytest.importorskip("timm")
        monkeypatch.setattr("timm.models._builder.load_pretrained", ask)
    assert isinstance(build_module(cfg).net, nn.Module)
    assert not asked
    with suppress(Exception):
        build_module(cfg, fresh=True)
    assert asked


def test_the_network_of_a_run_is_as_its_published_weights_have_it():
    """They decide how this one reads its images."""
    cfg = config("dataset=synthetic", "training.channels_last=false")
    OmegaConf.set_struct(cfg, False)
    cfg.model = {"_target_": "torchvision.models.inception_v3", "weights": "DEFAULT"}
    assert build_module(cfg).net.transform_input
