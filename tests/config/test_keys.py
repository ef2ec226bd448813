"""Keys and choices that do not exist, and the nearest ones that do."""

import ast
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import energy_at
from energy_at import evaluate
from energy_at.config.keys import keys_in
from energy_at.core.files import CONF
from tests.helpers.running import ONE_EPOCH, assert_refused, typed

pytestmark = pytest.mark.usefixtures("here")


def test_a_misspelt_key_is_not_advised_with_a_plus(type_train):
    _, _, err = type_train(*ONE_EPOCH, "reg=der", "reg.wieght=1")
    assert "did you mean reg.weight" in err
    assert "+" not in err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("attack=fgms", "attack=fgms must be fgsm, "),
        ("dataset=cifar11", "dataset=cifar11 must be cifar10, cifar100, digits"),
        ("reg=derr", "(did you mean der?)"),
        ("regularizer=der", "regularizer: unknown key; did you mean reg=der?"),
        ("regularizer.beta=2", "regularizer.beta: unknown key; did you mean reg.weight or "),
        ("seed=1,2", "seed=1,2: add -m to run each of them, or write seed=[1,2] for a list"),
        ("model=wrn28_10", "(did you mean wideresnet28_10?)"),
        ("reg.weight=20", "reg=none has no weight: add reg=der (or aaer, elle, elle_a, gradalign)"),
        ("attack.k=2", "attack=fgsm has no k: add attack=n_fgsm"),
        ("reg.weigth=2", "reg.weigth: unknown key; did you mean reg.weight?"),
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean trainer.max_epochs?"),
        ("epochs=3", "epochs: unknown key; did you mean trainer.max_epochs"),
        ("dataset.epoch=3", "dataset.epoch: unknown key; did you mean dataset.epochs"),
        ("lr=0.1", "lr: unknown key; did you mean optimizer.lr?"),
        ("model=WRN-28-10", "(did you mean wideresnet28_10?)"),
        ("attack=PGD", "(did you mean pgd?)"),
        (("resume=run", "reg.weight=3"), "run as it was, so reg.weight=3 cannot change: start"),
        (("resume=run", "trainer.max_epoch=3"), "did you mean trainer.max_epochs?"),
        ("datset=cifar10", "datset: unknown key; did you mean dataset?"),
        ("hydra.swep.dir=x", "hydra.swep.dir: unknown key; did you mean hydra.sweep.dir"),
        ("reg=[der,gradalign]", "or a combination that has a file: reg=der_gradalign, or each in"),
        ("loss=[at,trades]", "loss takes one choice, such as loss=at, or each in turn: -m loss=at"),
        ("no_such_key=1", "no_such_key: unknown key; --help lists all keys"),
        ("+trainer.foo=1", "+trainer.foo=1: nothing reads trainer.foo"),
        ("+foo=1", "+foo=1: nothing reads foo, leave it out; --help lists all keys"),
        ("+training.foo=1", "+training.foo=1: nothing reads training.foo"),
        (("reg=der", "+reg.foo=1"), "+reg.foo=1: nothing reads reg.foo, leave it out"),
        (("reg=none", "+reg.weight=1"), "reg=none has no weight: add reg=der"),
        ("weight=2", "did you mean attack.weight or loss.weight or reg.weight?"),
        ("run=run", "run: unknown key; did you mean resume=run?"),
        ("checkpoint=run", "checkpoint: unknown key; did you mean resume=run?"),
        ("ckpt_path=run", "ckpt_path: unknown key; did you mean resume=run?"),
        ("resume_from_checkpoint=run", "did you mean resume=run?"),
        ("threat.norm=L2", "threat.norm: unknown key; did you mean threat=l2?"),
        ("norm=l2", "norm: unknown key; did you mean threat=l2?"),
        ("model.arch=ResNet18", "model.arch: unknown key; did you mean model=resnet18?"),
        ("model_name=resnet18", "did you mean model=resnet18?"),
        ("output_dir=x", "output_dir: unknown key; did you mean hydra.run.dir=x?"),
        ("data_dir=x", "data_dir: unknown key; did you mean dataset.root?"),
        ("lr_scheduler=cosine", "did you mean schedule=cosine?"),
        ("schedule=multi_step", "(did you mean piecewise?)"),
        ("schedule=cyclic", "(did you mean triangular?)"),
        ("num_epochs=3", "did you mean trainer.max_epochs?"),
        ("random_seed=3", "did you mean seed"),
        ("attack.num_steps=3", "did you mean attack.steps"),
        ("attack=pgd10", "(did you mean pgd?)"),
        ("attack=ffgsm", "(did you mean rs_fgsm?)"),
        ("--config-name=x", "--config-name and --config-path find no configuration there"),
        ("--config-path=x", "--config-name and --config-path find no configuration there"),
        ("~dataset.root", "~dataset.root: the command reads this key, which cannot be deleted"),
        ("+reg=der", "+reg: the group has a choice already, leave out the +"),
        ("+model.foo=3", "energy_at.models.small takes no argument foo: leave it out"),
        ("+evaluation.attacks.foo=1", "nothing reads evaluation.attacks.foo"),
    ],
)  # fmt: skip
def test_an_unknown_key_or_choice_is_named_with_the_nearest(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("attack=pgd", "attack: unknown key; did you mean attacks=[pgd]?"),
        ("attack=[pgd]", "attack: unknown key; did you mean attacks?"),
        ("+attack=pgd", "attack: unknown key; did you mean attacks=[pgd]?"),
        ("resume=run", "resume: unknown key; did you mean run=run?"),
        ("step=5", "step: unknown key; did you mean steps?"),
        ("attacks=[pdg]", "such as [fgsm,pgd], of fgsm, "),
        ("attacks=[PGD]", "(did you mean pgd?)"),
        ("attacks=[pgd-20]", "(did you mean pgd?)"),
        ("attacks=[pgd20]", "(did you mean pgd?)"),
        ("attacks=[fgsm,AA]", "(did you mean autoattack?)"),
        ("ckpt=x.ckpt", "ckpt: unknown key; did you mean checkpoint=x.ckpt?"),
        ("ckpt_path=x.ckpt", "ckpt_path: unknown key; did you mean checkpoint=x.ckpt?"),
        ("n_examples=9", "n_examples: unknown key; did you mean subset"),
        ("output_dir=x", "output_dir: unknown key; did you mean out?"),
        ("n_restarts=3", "n_restarts: unknown key; did you mean restarts?"),
        ("norm=Linf", "(did you mean linf?)"),
        ("norm=L2", "norm=L2 must be linf or l2, or null (did you mean l2?)"),
        ("split=tset", "(did you mean test?)"),
    ],
)
def test_a_list_is_advised_with_its_brackets(monkeypatch, capsys, wrong, said):
    def type_evaluate(*argv):
        return typed(monkeypatch, capsys, evaluate.main, *argv)

    assert_refused(type_evaluate, said, "run=run", wrong)


NO_KEYS = {
    "key",  # stands for any
    *("download", "inference_mode", "lr", "weights"),  # arguments in Python
    "charset",  # of a page
    *("s", "w"),  # of the labels of methods
}


def texts(file):
    """The words of a module but for its docstrings."""
    tree = ast.parse(file.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_every_key_that_a_message_names_can_be_typed():
    known = {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
    known.update(key for file in Path(CONF).glob("*.yaml") for key in keys_in(OmegaConf.load(file)))
    for file in Path(CONF).glob("*/*.yaml"):
        group = file.parent.name
        known |= {group, *(f"{group}.{key}" for key in keys_in(OmegaConf.load(file)))}
    named = {
        key
        for file in Path(energy_at.__file__).parent.rglob("*.py")
        for text in texts(file)
        if " " in text and file.name != "__main__.py"  # which holds a script for the shell
        for key in re.findall(r"(?<![\w.{+~/-])([a-z_]+(?:\.[a-z_]+)*)=", text)
    }
    assert len(named & known) > 30
    assert named - known == NO_KEYS
