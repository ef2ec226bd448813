"""The attacks of the literature as settings of the one loop, and all attacks by name.

Constants are those of the papers at every radius; a step size left out follows from ``ball.eps``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from energy_at.attacks.autoattack import LibraryAttack, autoattack, require_installed
from energy_at.attacks.base import Attack
from energy_at.attacks.compose import Restarts, WorstCase
from energy_at.attacks.gradient import (
    Gaussian,
    Goal,
    GradientAttack,
    ReachTarget,
    Target,
    Uniform,
    leave_clean_prediction,
    misclassify,
    widen_margin,
)
from energy_at.attacks.threat import A_BALL, Ball
from energy_at.core.names import ATTACKS
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import one_of, require


@dataclass(frozen=True)
class AttackKey:
    """An attack at a radius: the key of masks, columns and rows; ``pgd@8/255`` as text."""

    name: str  # as in attacks=[pgd]; clean for none
    eps: str = ""  # the radius as it was written; empty where there is one only

    def __str__(self) -> str:
        return f"{self.name}@{self.eps}" if self.eps else self.name


CLEAN = AttackKey("clean")
ITERATED = ("pgd", "trades", "targeted", "cw")  # attacks that the key ``steps`` belongs to


def column_of(name: str, attack: Attack) -> str:
    """``pgd10``, ``pgd50x10``: in a column's name an iterated attack has its steps and restarts."""
    if name not in ITERATED:
        return name
    restarts = getattr(attack, "restarts", len(getattr(attack, "attacks", "1")))
    return f"{name}{attack.steps}" + (f"x{restarts}" if restarts > 1 else "")


def fgsm(ball: Ball, *, alpha: float | None = None, steps: int = 1) -> GradientAttack:
    """``delta = eps sign grad CE(x)``, from zero (Goodfellow et al., 2015)."""
    return GradientAttack(ball, alpha=_step(ball, alpha), steps=steps)


def rs_fgsm(ball: Ball, *, alpha: float | None = None, steps: int = 1) -> GradientAttack:
    """``clip_eps(eta + 1.25 eps sign grad CE(x + eta))``, eta uniform (Wong et al., 2020)."""
    return GradientAttack(ball, alpha=_step(ball, alpha, 1.25), steps=steps, start=Uniform())


def n_fgsm(
    ball: Ball, *, alpha: float | None = None, steps: int = 1, k: float = 2.0
) -> GradientAttack:
    """``eta + eps sign grad CE(x + eta)``, eta in ``k`` balls, unclipped (de Jorge et al., 2022).

    The perturbation may be as large as ``k eps + alpha``: that is the method.
    """
    require_ranges("attacks.n_fgsm", k=k)
    alpha = _step(ball, alpha)
    return GradientAttack(ball, alpha=alpha, steps=steps, start=Uniform(k), project=False)


def pgd(
    ball: Ball,
    *,
    alpha: float | None = None,
    steps: int = 10,
    restarts: int = 1,
    eot: int = 1,
    std: float | None = None,
    track_every: bool = False,
) -> Attack:
    """PGD-n from a random point of the ball, steps of ``eps / 4`` (Madry et al., 2018).

    ``eot`` passes average each gradient: for networks that draw random numbers. With ``std`` it
    starts from ``x + std N(0, 1)``, as MART's code does (Wang et al., 2020).
    """
    require_ranges("attacks.pgd", restarts=restarts)
    attack = replace(
        _from_random_point(ball, alpha, steps, misclassify, eot),
        start=Uniform() if std is None else Gaussian(std),
        track_every=track_every,
    )
    return attack if restarts == 1 else Restarts(attack, restarts)


def restarted_pgd(
    ball: Ball,
    *,
    alpha: float | None = None,
    steps: int = 50,
    restarts: int = 10,
    eot: int = 1,
) -> WorstCase:
    """PGD-50-10: restarts only attack the images that are still classified correctly."""
    require_ranges("attacks.restarted_pgd", restarts=restarts)
    return WorstCase([pgd(ball, alpha=alpha, steps=steps, eot=eot)] * restarts)


def trades(
    ball: Ball,
    *,
    alpha: float | None = None,
    steps: int = 10,
    std: float = 0.001,
    eot: int = 1,
) -> GradientAttack:
    """TRADES: ascend the KL to ``p(.|x)`` from ``x + 0.001 N(0, 1)`` (Zhang et al., 2019)."""
    return GradientAttack(
        ball,
        alpha=_step(ball, alpha, 0.25),
        steps=steps,
        start=Gaussian(std),
        goal=leave_clean_prediction,
        eot=eot,
    )


def targeted(
    ball: Ball,
    *,
    alpha: float | None = None,
    steps: int = 20,
    target: Target = "least_likely",
    eot: int = 1,
) -> GradientAttack:
    """PGD towards one wrong class (Kurakin et al., 2017)."""
    return _from_random_point(ball, alpha, steps, ReachTarget(target), eot)


def cw(ball: Ball, *, alpha: float | None = None, steps: int = 20, eot: int = 1) -> GradientAttack:
    """PGD on the margin of the logits (Carlini & Wagner, 2017, as Madry et al., 2018 bound it)."""
    return _from_random_point(ball, alpha, steps, widen_margin, eot)


def _from_random_point(
    ball: Ball, alpha: float | None, steps: int, goal: Goal, eot: int
) -> GradientAttack:
    alpha = _step(ball, alpha, 0.25)
    return GradientAttack(ball, alpha, steps, start=Uniform(), goal=goal, eot=eot)


def _step(ball: Ball, alpha: float | None, share: float = 1) -> float:
    require(A_BALL, ball=ball)
    return share * ball.eps if alpha is None else alpha


OWN: dict[str, Callable[..., Attack]] = {
    "fgsm": fgsm,
    "rs_fgsm": rs_fgsm,
    "pgd": pgd,
    "trades": trades,
    "targeted": targeted,
    "cw": cw,
}
FROM_LIBRARY: dict[str, Callable[..., Attack]] = {
    "apgd_ce": partial(LibraryAttack, name="apgd-ce"),
    "apgd_dlr": partial(LibraryAttack, name="apgd-dlr"),
    "apgd_t": partial(LibraryAttack, name="apgd-t"),
    "fab": partial(LibraryAttack, name="fab"),
    "fab_t": partial(LibraryAttack, name="fab-t"),
    "square": partial(LibraryAttack, name="square"),
    "autoattack": autoattack,
}
LABELS = {"clean": "clean"} | ATTACKS


def named_attack(name: str, ball: Ball, **settings: Any) -> Attack:
    """The attack of this name, with its published constants where ``settings`` says nothing.

    Raises:
        ValueError: if the name is unknown.
        ImportError: if its library is not installed.
    """
    require(one_of(*ATTACKS), name=name)
    if name in FROM_LIBRARY:
        require_installed(name)
    return (OWN | FROM_LIBRARY)[name](ball, **settings)
