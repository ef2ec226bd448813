"""Values that a key cannot have, as they are typed; each entry refuses one in a test of its own."""

import functools
import os
import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from energy_at.config.build import build_data, build_module, build_trainer, make_attacks
from energy_at.config.keys import keys_in
from energy_at.config.schema import check, check_start
from energy_at.core.rules import as_typed
from energy_at.runs.folder import RunFolder
from energy_at.sampling.plan import plan_of
from tests.helpers.running import CONF, ONE_EPOCH, assert_refused


@functools.cache
def composed(entry):
    name, *chosen = entry.split()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*chosen, *([] if name == "train" else ["run=run"])])


def with_typed(entry, override):
    """The configuration of an entry with one value as the command line would read it."""
    cfg = composed(entry).copy()
    typed = OverridesParser.create().parse_override(override)
    OmegaConf.update(cfg, typed.key_or_group, typed.value(), force_add=False)
    return cfg


def build(entry, cfg, folder):
    """Whatever checks a value: the schema, or the class that takes it."""
    check(cfg)
    if entry.startswith("train"):
        build_module(cfg)
        build_data(cfg)
        build_trainer(cfg, RunFolder(folder))
        make_attacks(cfg.evaluation)
    elif entry == "sample":
        plan_of(cfg)


NUMBERS_LEFT = {  # to what is not known before torch is imported, or read by something else
    "dataset.cpu.val_size",  # of scale=cpu alone
    "dataset.peak",  # of schedule=triangular alone
    "dataset.lr",  # of optimizer=sgd alone
    "threat.eps",  # a resolver refuses them, at once too
    "attack.alpha",
}


@pytest.mark.parametrize(
    "chosen",
    [
        "reg=der callbacks=ema schedule=cosine optimizer=adamw attack=n_fgsm",
        "reg=aaer attack=liet loss=liet schedule=onecycle model=small",
        "reg=elle_a attack=fgsm_pgi loss=fgsm_pgi schedule=piecewise model=wideresnet28_10",
        "reg=gradalign attack=nuat loss=nuat threat=l2",
        "reg=der_gradalign attack=pgd loss=trades callbacks=sentinel",
        "attack=sora reg=none",
    ],
)
def test_no_number_has_to_wait_for_torch(chosen):
    """NaN, at every number that can be typed, is refused by the schema, with its key."""
    cfg, tried = composed(f"train logger=csv {chosen}"), 0
    for key in keys_in(cfg):
        value = OmegaConf.select(cfg, key)
        if key in NUMBERS_LEFT or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        above, _, name = key.rpartition(".")
        node = (OmegaConf.select(cfg, above) if above else cfg)._get_node(name)
        kept = node._value()
        node._set_value(float("nan"))
        with pytest.raises(ValueError, match=re.escape(f"{key}=nan must be ")):
            check(cfg)
        node._set_value(kept)
        tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("dataset.mean=2", "dataset.mean=2 must be a list of finite numbers, one a channel"),
        ("dataset.mean=[nan]", "dataset.mean=[nan] must be a list of finite numbers, one a"),
        ("dataset.std=[0]", "dataset.std=[0] must be a list of finite numbers > 0, one a channel"),
        ("model=resnet18 model.mean=[]", "model.mean=[] must be a list of finite numbers, one a"),
        ("model=small model.std=[-1]", "model.std=[-1] must be a list of finite numbers > 0"),
        ("optimizer.lr=null", "optimizer.lr=null must be a finite number > 0"),
        ("reg=der reg.gamma=null", "reg.gamma=null must be a finite number >= 0"),
        ("training.compile=fast", "training.compile=fast must be default, reduce-overhead or max"),
        (
            "trainer.min_epochs=9 trainer.max_epochs=2",
            "trainer.min_epochs=9 must be at most trainer.max_epochs=2",
        ),
        ("trainer.min_epochs=31", "trainer.min_epochs=31 must be at most trainer.max_epochs=30"),
        (
            "trainer.min_steps=9 trainer.max_steps=8",
            "trainer.min_steps=9 must be at most trainer.max_steps=8",
        ),
        ("init_source=trades", "init_source=trades must be left out without init=FILE"),
    ],
)
def test_what_else_does_not_wait_for_torch(chosen, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check(composed(f"train logger=csv {chosen}"))


@pytest.mark.parametrize(
    "chosen",
    [
        "attack.alpha=null", "attack=pgd", "dataset=folder", "dataset.mean=null", "model.mean=null",
        "training.compile=null", "trainer.min_epochs=30", "trainer.min_steps=9",
        "trainer.min_steps=9 trainer.max_steps=9", "init_source=trades init=net.pt",
    ],
)  # fmt: skip
def test_what_is_left_out_and_limits_that_are_equal_break_no_rule(chosen):
    check(composed(f"train logger=csv {chosen}"))


@pytest.mark.parametrize(
    ("entry", "override", "must"),
    [
    ("train", "attack.steps=0", "an integer >= 1"),
    ("train reg=der", "reg.weight=-1", "a finite number >= 0"),
    ("train reg=der", "reg.gamma=-0.1", "a finite number >= 0"),
    ("train reg=der", "reg.ramp=-1", "a finite number >= 0"),
    ("train", "dataset.batch_size=0", "an integer >= 1"),
    ("train", "model.width=0", "an integer >= 1"),
    ("train", "seed=-1", "an integer"),
    ("train", "trainer.max_epochs=0", "an integer >= 1"),
    ("train", "evaluation.attacks.pgd.steps=0", "an integer"),
    ("train reg=der_gradalign", "reg.der.weight=-1", "a finite number"),
    ("train", "training.awp.gamma=-1", "a finite number >= 0"),
        ("train", "training.eps_warmup=-1", "a finite number >= 0"),
    ("train", "callbacks.energy.every=0", "an integer >= 1"),
    ("train", "callbacks.sentinel.thresholds=null", "a group of keys"),
    ("train", "callbacks.sentinel.der=null", "a group of keys"),
    ("train", "logger.wandb.mode=maybe", "online, offline or disabled, or null"),
    ("train", "logger.wandb.project=a/b", "the name of a project, of at most 128 characters"),
    ("train", "logger.wandb.entity=''", "the name of an account or team"),
    ("train", "logger.wandb.tags=3", "a list of words"),
    ("train", "logger.wandb.log_checkpoints=perhaps", "true or false"),
    ("train", "dataset.extra=[a.npz,b.npz]", "the path of one file or folder, or null"),
    ("train", "dataset.extra=5", "the path of one file or folder, or null"),
    ("train dataset=npz", "dataset.file=[a.npz]", "the path of one file or folder, or null"),
    ("train dataset=folder", "dataset.root=[a,b]", "the path of a folder"),
    ("train dataset=folder", "dataset.cache=[a]", "the path of one file or folder, or null"),
    ("train dataset=npz", "dataset.names=cat", "a list of names of classes, such as [cat,dog], or"),
    ("train dataset=huggingface", "dataset.config=[a]", "a text, digits in quotes, or null"),
    ("train dataset=huggingface", "dataset.revision=5", "a text, digits in quotes, or null"),
    ("evaluate", "normalize=sometimes", "auto, dataset or none"),
    ("evaluate", "run=[run]", "the path of one folder"),
    ("evaluate", "which=first", "last, best or healthy"),
    ("evaluate", "attacks=pgd", "a list of different names"),
    ("evaluate", "attacks=[]", "a list of different names"),
    ("evaluate", "subset_seed=-1", "an integer from 0 to 4294967295"),
    ("evaluate", "seed=a", "an integer"),
    ("evaluate", "device=tpu", "auto, cpu or cuda"),
    ("evaluate", "progress=2", "true or false"),
    ("analyse", "which=first", "last, best or healthy"),
    ("analyse", "seed=-1", "an integer"),
    ("sample", "start.variance=0", "a finite number > 0 and <= 1"),
    ("sample", "start.variance=1.5", ""),
    ("sample", "start.by=hue", "features, pixels or low_frequencies"),
    ("sample", "guidance.tolerance=-1", ""),
    ("sample", "guidance.draw=max", "empirical, mean or quantile"),
    ("sample", "sampler.energy=free", "joint, marginal"),
    ("sample", "sampler.steps=-1", "an integer >= 0"),
    ("sample", "sampler.step_size=0", "a finite number > 0"),
    ("sample", "sampler.step_size=nan", ""),
    ("sample", "sampler.momentum=1", "a finite number >= 0 and < 1"),
    ("sample", "sampler.radius=0", ""),
    ("sample", "sampler.precision=fp8", "fp32 or bf16"),
    ("sample", "seed=-1", ""),
    ("sample", "which=third", "last, best or healthy"),
    ("sample", "device=tpu", ""),
    ],
)  # fmt: skip
def test_a_value_that_its_key_cannot_have_is_refused(tmp_path, entry, override, must):
    if entry.startswith("train"):
        entry += " model.width=2 callbacks.progress=null"
        entry += " logger=csv" * ("wandb" not in override)
    cfg = with_typed(entry, override)
    with pytest.raises(ValueError, match=" must be ") as refused:
        build(entry, cfg, tmp_path)
    assert not list(tmp_path.iterdir())
    said = str(refused.value)
    assert said.startswith(f"{override.partition('=')[0]}=")
    assert f"must be {must}" in said
    assert "\n" not in said


TYPES = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from energy_at.config.build import build
from energy_at.config.keys import keys_in
from energy_at.config.schema import check
from energy_at.runs.folder import RunFolder
from tests.helpers import compositions

compositions.install()
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    for override in sys.argv[2:]:
        cfg = compose("train", ["model=small", "logger=csv", "reg=der", override])
        try:
            check(cfg)
            build(cfg, RunFolder(Path()))
        except ValueError as error:
            print(error)
"""


@pytest.mark.slow
def test_a_value_of_another_type_is_refused_by_its_class(here):
    """In a process of its own: the type checker of the tests would be faster."""
    musts = {
        "dataset.subset=1.5": "an integer >= 1, or null",
        "dataset.flip=foo": "true or false",
        "dataset.batch_size=x": "an integer >= 1",
        "model.width=1.5": "an integer >= 1",
        "training.eps_warmup=x": "a finite number >= 0",
        "callbacks.energy.every=1.5": "an integer >= 1",
        "callbacks.sentinel.rewind=x": "true or false",
        "callbacks.sentinel.action=panic": "warn, stop, checkpoint or rollback",
        "callbacks.sentinel.remedy=prayer": "auto, der, beta or alpha",
        "reg.weight=x": "a finite number >= 0",
    }
    env = os.environ | {"PYTHONPATH": str(CONF.parent)}
    command = [sys.executable, "-c", TYPES, str(CONF), *musts]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    refused = done.stdout.splitlines()
    assert refused == [f"{override} must be {must}" for override, must in musts.items()]
    assert not list(here.iterdir())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("training.awp=0.01", "training.awp=0.01 must be a group of keys"),
        ("evaluation.attacks=null", "evaluation.attacks=null must be a group of keys"),
        ("seed=abc", "seed=abc must be an integer from 0 to 4294967295"),
        ("trainer.devices=0", "trainer.devices=0 must be a number of processes from 1 to 65536"),
        ("trainer.accumulate_grad_batches=2", "accumulate_grad_batches=2 must be 1, as every step"),
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run=true must be false, as it would write"),
        ("trainer.overfit_batches=2", "trainer.overfit_batches=2 must be 0"),
        ("trainer.limit_test_batches=2", "must be null, as no training uses it"),
        ("trainer.inference_mode=true", "must be false, as attacks need gradients"),
        ("trainer.limit_train_batches=0", "limit_train_batches=0 must be a finite number > 0"),
        ("trainer.gradient_clip_val=-1", "gradient_clip_val=-1 must be a finite number > 0"),
        ("trainer.min_epochs=abc", "trainer.min_epochs=abc must be an integer >= 1, or null"),
        ("trainer.max_steps=0", "trainer.max_steps=0 must be an integer >= 1, or -1 for no limit"),
        ("trainer.max_time=abc", "trainer.max_time=abc must be days:hours:minutes:seconds"),
        ("trainer.max_time=00:00:00:00", "must be days:hours:minutes:seconds, such as"),
        ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0 must be an integer >= 1"),
        ("trainer.enable_progress_bar=abc", "enable_progress_bar=abc must be true or false"),
        ("trainer.precision=transformer-engine", "must be 32-true, bf16-mixed or 64-true"),
        ("trainer.devices=99999999999999999999", "must be a number of processes from 1 to 65536"),
        ("trainer.barebones=true", "trainer.barebones=true must be false, as it logs nothing"),
        ("threat.most=inf", "threat.most=inf must be a finite number > 0"),
        ("threat.most=[]", "threat.most=[] must be a finite number > 0"),
        ("dataset.reader=null", "dataset.reader=null must be a group of keys"),
        ("loss.terms.adversarial_ce=nan", "loss.terms.adversarial_ce=nan must be a group of keys"),
        ("logger.csv=1", "logger.csv=1 must be a group of keys: set the keys in it, or null"),
        ("callbacks.energy=1", "callbacks.energy=1 must be a group of keys"),
        ("evaluation.checkpoints=last", "must be a list of last and best, such as [last]"),
        ("evaluation.images=[tset]", "must be a list of val and test, such as [val] (did you mean"),
        (("reg=der", "reg.samples=abnormall"), "reg.samples=abnormall must be auto, abnor"),
        ("trainer.precision=bf16-true", "must be 32-true, bf16-mixed or 64-true: in others an eps"),
    ],
)  # fmt: skip
def test_a_value_that_is_typed_is_refused_before_anything_is_made(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))


@pytest.mark.parametrize(
    ("part", "name", "key", "wrong", "must"),
    [
        ("sweeper", "search.OptunaSweeper", "n_trials", 1.5, "an integer >= 1"),
        ("sweeper", "search.OptunaSweeper", "n_trials", "abc", "an integer >= 1"),
        ("sweeper", "search.OptunaSweeper", "n_trials", None, "an integer >= 1"),
        ("sweeper", "search.OptunaSweeper", "seed", "abc", "an integer from 0 to 4294967295"),
        ("sweeper", "search.OptunaSweeper", "seed", -1, "an integer from 0 to 4294967295"),
        ("sweeper", "agents.AgentSweeper", "n_trials", 0, "an integer >= 1, or null"),
        ("sweeper", "grid.GridSweeper", "max_batch_size", 0, "an integer >= 1, or null"),
        ("launcher", "joblib.JoblibLauncher", "n_jobs", 0, "an integer >= 1, or -1 for all cores"),
        ("launcher", "ray.RayLauncher", "cpus_per_job", 0, "a finite number > 0"),
        ("launcher", "submitit.LocalLauncher", "timeout_min", "abc", "an integer >= 1"),
        ("launcher", "submitit.SlurmLauncher", "timeout_min", -5, "an integer >= 1"),
    ],
)
def test_a_value_of_a_sweeper_or_a_launcher_is_met_by_its_name(part, name, key, wrong, must):
    config = OmegaConf.create({"hydra": {part: {"_target_": name, key: wrong}}})
    with pytest.raises(ValueError) as met:  # noqa: PT011
        check_start(config)
    assert str(met.value) == f"hydra.{part}.{key}={as_typed(wrong)} must be {must}"
