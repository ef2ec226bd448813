"""Keys and choices that do not exist, and the nearest ones that do."""

import pytest

from tests.helpers.running import ONE_EPOCH, assert_refused

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
        ("seed=1,2", "seed=1,2: add -m to run each of them, or write seed=[1,2] for a list"),
        ("model=wrn28_10", "(did you mean wideresnet28_10?)"),
        ("reg.weight=20", "reg=none has no weight: add reg=der (or aaer, elle, elle_a, gradalign)"),
        ("attack.k=2", "attack=fgsm has no k: add attack=n_fgsm"),
        ("reg.weigth=2", "reg.weigth: unknown key; did you mean reg.weight?"),
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean trainer.max_epochs?"),
        ("epochs=3", "epochs: unknown key; did you mean dataset.epochs or trainer.max_epochs"),
        ("datset=cifar10", "datset: unknown key; did you mean dataset?"),
        ("hydra.swep.dir=x", "hydra.swep.dir: unknown key; did you mean hydra.sweep.dir"),
        ("reg=[der,gradalign]", "or a combination that has a file: reg=der_gradalign, or each in"),
        ("loss=[at,trades]", "loss takes one choice, such as loss=at, or each in turn: -m loss=at"),
        ("no_such_key=1", "no_such_key: unknown key; --help lists all keys"),
        ("+trainer.foo=1", "+trainer.foo=1: nothing reads trainer.foo"),
        ("+foo=1", "+foo=1: nothing reads foo, leave it out; --help lists all keys"),
        ("+training.foo=1", "+training.foo=1: nothing reads training.foo"),
        (("reg=der", "+reg.foo=1"), "+reg.foo=1: nothing reads reg.foo, leave it out"),
        (("reg=none", "+reg.weight=1"), "+reg.weight=1: nothing reads reg.weight"),
        ("+evaluation.attacks.foo=1", "nothing reads evaluation.attacks.foo"),
    ],
)  # fmt: skip
def test_an_unknown_key_or_choice_is_named_with_the_nearest(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))
