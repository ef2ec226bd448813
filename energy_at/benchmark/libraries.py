"""Attacks of torchattacks and foolbox, where they are installed, for the published loop."""

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from energy_at.attacks import GradientAttack
from energy_at.attacks.goals import misclassify
from energy_at.attacks.starts import Uniform
from energy_at.benchmark.reference import PublishedAttack
from energy_at.core.types import Images, Labels

LIBRARIES = ("torchattacks", "foolbox")


def is_installed(library: str) -> bool:
    """Whether it can be imported."""
    return find_spec(library) is not None


def library_attack(library: str, net: nn.Module, search: GradientAttack) -> PublishedAttack | None:
    """The attack of a library with these constants; ``None`` if it has none.

    Both attack the network in evaluation mode, as they insist on.
    """
    if search.goal is not misclassify or not search.project:
        return None
    return {"torchattacks": _torchattacks, "foolbox": _foolbox}[library](net, search)


def _torchattacks(net: nn.Module, search: GradientAttack) -> PublishedAttack:
    library = import_module("torchattacks")
    settings = {"eps": search.ball.eps, "alpha": search.alpha, "steps": search.steps}
    random = isinstance(search.start, Uniform)
    attack = library.PGD(net, **settings, random_start=random)

    def found(_: nn.Module, x: Images, y: Labels, *__: Any) -> Images:
        return attack(x, y)  # type: ignore[no-any-return]

    return found


def _foolbox(net: nn.Module, search: GradientAttack) -> PublishedAttack:
    library = import_module("foolbox")
    attack = library.attacks.LinfPGD(
        abs_stepsize=search.alpha,
        steps=search.steps,
        random_start=isinstance(search.start, Uniform),
    )

    def found(_: nn.Module, x: Images, y: Labels, *__: Any) -> Images:
        net.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = library.PyTorchModel(net, bounds=(0, 1))
        return attack.run(model, x, y, epsilon=search.ball.eps)  # type: ignore[no-any-return]

    return found
