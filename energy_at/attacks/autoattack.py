"""Attacks of the AutoAttack library (Croce & Hein, 2020) as an ``Attack``; an optional extra.

They draw from torch's global generator, which is seeded inside and restored afterwards, for a whole
batch at once: equal results need equal batches.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, get_args

import torch

from energy_at.attacks.base import Attack, AttackOptions, AttackResult
from energy_at.attacks.compose import WorstCase
from energy_at.attacks.threat import L2, Ball, Linf, clip_to_pixels
from energy_at.core.extras import install
from energy_at.core.rng import Noise
from energy_at.core.rules import an, integer, one_of, require
from energy_at.core.types import Classifier, Images, Labels
from energy_at.models.modes import frozen_parameters, frozen_running_stats, no_graph

Name = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
Keeps = Literal["broken", "worst"]

_LEAST_CLASSES = {"square": 1, "apgd-dlr": 3, "apgd-t": 4}  # 2 for the others

MOST_TARGETS = 9  # wrong classes that a targeted attack aims at
EXTRA = "autoattack"


@dataclass(frozen=True)
class LibraryAttack(Attack):
    """One attack of the ensemble, with the constants of its standard version.

    It reports no start, so it keeps and tracks nothing. A call raises a ``ValueError`` if the
    network has too few classes for the loss.

    Args:
        ball: Threat model, Linf or L2.
        name: APGD on the cross-entropy, on the DLR loss or on the targeted DLR loss (9 targets);
            FAB or targeted FAB (9 targets); the black-box Square (5,000 queries).
        steps: Iterations of the white-box attacks.
        queries: Of Square.
        keeps: The point that an image gets: ``"broken"``, the ensemble's rule, leaves images that
            resist unchanged; ``"worst"`` takes the point of the highest loss. The targeted attacks
            and FAB always leave them unchanged.

    Raises:
        ImportError: if the library is not installed.
    """

    ball: Ball
    name: Name
    steps: int = 100
    queries: int = 5000
    keeps: Keeps = "broken"
    searches_together: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_installed(self.name)
        require(an((Linf, L2), "a ball of Linf or L2"), ball=self.ball)
        require(one_of(*get_args(Name)), name=self.name)
        require(one_of(*get_args(Keeps)), keeps=self.keeps)
        require(integer(1), steps=self.steps, queries=self.queries)

    @property
    def passes(self) -> float:
        if self.name == "square":
            return self.queries / 3  # forward passes only
        return (MOST_TARGETS if self.name in ("apgd-t", "fab-t") else 1) * self.steps

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        generators = torch.random.fork_rng([x.device] if x.device.type == "cuda" else [])
        # FAB calls ``backward``, which would leave gradients in the parameters.
        with (
            frozen_running_stats(model),
            frozen_parameters(model),
            generators,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of gradients of zero, which the checks report
            search = self._make_search(model, x, _seed(options.generator))
            x_adv = self._perturb(search, x.contiguous(), y)
        # The library is off by a rounding, and its images may have a graph.
        delta = self.ball.project(x_adv.detach().to(x) - x)
        return AttackResult((x + clip_to_pixels(x, delta)).clamp(0, 1))

    def scaled(self, factor: float) -> "LibraryAttack":
        return replace(self, ball=self.ball.scaled(factor))

    def _perturb(self, search: Any, x: Images, y: Labels) -> torch.Tensor:
        if self.keeps == "worst" and self.name in ("apgd-ce", "apgd-dlr"):
            torch.manual_seed(search.seed)  # this branch of the library forgets to
            found = search.perturb(x, y, best_loss=True)
        elif self.keeps == "worst" and self.name == "square":
            search.init_hyperparam(x)
            torch.manual_seed(search.seed)
            found = search.attack_single_run(x, y)[1]
        else:
            found = search.perturb(x, y)
        assert isinstance(found, torch.Tensor)
        return found

    def _make_search(self, model: Classifier, x: Images, seed: int) -> Any:
        # Imported here: the extra may be absent, and the library is slow to import.
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from pyautoattack.fab_pt import FABAttack_PT
        from pyautoattack.square import SquareAttack

        with no_graph():
            classes = model(x[:1]).shape[1]
        shared = {
            "norm": type(self.ball).__name__,
            "eps": self.ball.eps,
            "seed": seed,
            "device": x.device,
        }
        if self.name == "square":
            return SquareAttack(
                model, p_init=0.8, n_queries=self.queries, resc_schedule=False, **shared
            )
        require_classes({self.name: self}, lambda: classes)
        targets = {"n_target_classes": min(MOST_TARGETS, classes - 1)}
        if self.name.startswith("fab"):
            targeted = self.name == "fab-t"
            return FABAttack_PT(model, n_iter=self.steps, targeted=targeted, **targets, **shared)
        if self.name == "apgd-t":
            return APGDAttack_targeted(model, n_iter=self.steps, **targets, **shared)
        return APGDAttack(model, n_iter=self.steps, loss=self.name.removeprefix("apgd-"), **shared)


def autoattack(ball: Ball, *, steps: int = 100, queries: int = 5000) -> WorstCase:
    """AutoAttack, standard version: APGD-CE, targeted APGD, targeted FAB, Square, in this order.

    Fewer than its 100 ``steps`` and 5,000 ``queries`` make another, weaker attack.
    """
    names: tuple[Name, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
    return WorstCase([LibraryAttack(ball, name, steps=steps, queries=queries) for name in names])


def is_installed() -> bool:
    return find_spec("pyautoattack") is not None


def require_installed(name: str) -> None:
    """Raises ``ImportError``, with the way to install it, if the library is not there."""
    if not is_installed():
        raise ImportError(f"{name} needs the AutoAttack library: {install(EXTRA)}")


def require_classes(attacks: Mapping[str, Attack], classes: Callable[[], int]) -> None:
    """Raises ``ValueError`` if the loss of an attack, or of a part of it, needs more classes.

    ``classes`` counts those of the network; it is not called if no attack depends on it.
    """
    for name, attack in attacks.items():
        parts = attack.attacks if isinstance(attack, WorstCase) else [attack]
        library = [part for part in parts if isinstance(part, LibraryAttack)]
        needed = max((_LEAST_CLASSES.get(part.name, 2) for part in library), default=0)
        if needed and (count := classes()) < needed:
            raise ValueError(f"{name} needs at least {needed} classes, not {count}: leave it out")


def _seed(generator: Noise | None) -> int:
    return 0 if generator is None else generator.initial_seed() % 2**32
