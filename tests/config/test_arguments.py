"""Words on the command line that are no ``key=value``, and what was probably meant."""

import re
from pathlib import Path

import pytest

from energy_at.config.arguments import options_first, require_overrides
from energy_at.config.versions import unchecked_help
from energy_at.core.trust import set_trusted

DASHES = "--gpu: unknown option; write key=value, without dashes"


@pytest.fixture(autouse=True)
def as_in_a_command():
    with unchecked_help():
        yield


@pytest.mark.parametrize(
    ("command", "typed", "line"),
    [
        ("train", "--reg der", "--reg der: write reg=der"),
        ("train", "-reg der", "-reg der: write reg=der"),
        ("train", "attack=pgd --seed=3", "--seed=3: write seed=3"),
        ("train", "--max-epochs 3", "--max-epochs 3: write trainer.max_epochs=3"),
        ("train", "--reg -m", "--reg: write reg=VALUE"),
        ("train", "--gpu", DASHES),
        ("train", "--config x", "--config x: unknown option"),
        ("train", "reg der", "reg der: write reg=der"),
        ("train", "reg = der", "reg = der: write reg=der, without spaces"),
        ("train", "reg= der", "reg= der: leave out the space, or put quotes around it"),
        ("train", "epochs 3", "epochs 3: write trainer.max_epochs=3"),
        ("train", "-m seed=1, 2", "seed=1, 2: leave out the space, or put quotes around it"),
        ("train", "reg.weight:2", "reg.weight:2: write reg.weight=2"),
        ("train", "reg:der", "reg:der: write reg=der"),
        ("train", "cifar10", "cifar10: write dataset=cifar10"),
        ("train", "seed", "seed: write key=value; --help lists all keys"),
        ("train", "nowhere", "nowhere: write key=value; --help lists all keys"),
        ("train", "runs", "runs: write resume=runs"),
        ("evaluate", "r", "r: write run=r"),
        ("evaluate", "--run r", "r: write run=r"),
        ("evaluate", "run=r attacks=[fgsm, pgd]", "attacks=[fgsm, pgd]: leave out the space"),
        ("report", "r", "r: write runs=r"),
        ("export", "r", "r: write run=r"),
    ],
)
def test_what_was_meant_is_ready_to_type(command, typed, line, here):
    Path("runs").mkdir()
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        require_overrides(command, typed.split())


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("reg=der --config-dir conf seed=1", "--config-dir conf reg=der seed=1"),
        ("reg=der -cd conf -m seed=1,2", "-cd conf -m reg=der seed=1,2"),
        ("a=1 --config-dir=conf seed=1", "--config-dir=conf a=1 seed=1"),
        ("a=1 --reg der -m seed=1", "-m a=1 --reg der seed=1"),
        ("a=1 --cfg job", "--cfg job a=1"),
    ],
)
def test_options_may_stand_between_overrides(typed, read):
    assert options_first(typed.split()) == read.split()
    if "--reg" not in typed:
        require_overrides("train", read.split())


@pytest.mark.parametrize(
    "typed", ["", "-m seed=1,2", "-cn train ~logger +a.b=1", "--cfg job a=b=c"]
)
def test_what_hydra_reads_passes(typed):
    require_overrides("train", typed.split())


@pytest.mark.parametrize(
    "typed",
    [
        "+hydra.callbacks.x._target_=joblib.load +hydra.callbacks.x.filename=p",
        "-m +hydra.callbacks.x={_target_:joblib.load,filename:p} seed=0,1",
        "+hydra.callbacks={x:{y:{_target_:joblib.load}}} trust=[other]",
    ],
)
def test_a_callback_of_hydra_must_be_trusted_before_hydra_builds_it(typed):
    with pytest.raises(ValueError, match=r"^hydra\.callbacks\.x.*=joblib\.load is not trusted"):
        require_overrides("train", typed.split())
    trusting = typed.replace(" trust=[other]", "")
    require_overrides("train", [*trusting.split(), "trust=[joblib]"])
    set_trusted([])
