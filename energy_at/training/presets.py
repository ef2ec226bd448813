"""The three classic methods as LightningModules: base terms and batch-norm mode are fixed.

Each equals the ``experiment=`` of its name, and takes

- ``net``: classifier of images in [0, 1];
- ``ball``: threat model;
- ``regularizers``: terms added to the loss, such as ``{"der": Weighted(DER("abnormal"), 20)}``;
- ``options``: ``val_attacks`` (FGSM and PGD-10 in the ball if left out), ``optimizer``,
  ``schedule``, ``eps_warmup_epochs``, ``awp`` and ``seed`` of ``AdversarialTraining``.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from energy_at.attacks import Attack, fgsm, pgd, trades
from energy_at.attacks.base import AN_ATTACK
from energy_at.attacks.threat import Ball
from energy_at.core.rules import or_null, require
from energy_at.objectives import (
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    Objective,
    TradesKL,
    Weighted,
)
from energy_at.objectives.objective import TERMS
from energy_at.training.module import AdversarialTraining

Terms = Mapping[str, Weighted]
_AT: Terms = {"adversarial_ce": Weighted(AdversarialCrossEntropy())}


class StandardAT(AdversarialTraining):
    """Standard AT: ``CE(x*, y)`` on PGD examples (Madry et al., 2018).

    The step size ``alpha`` is ``eps / 4`` if left out.
    """

    def __init__(
        self,
        net: nn.Module,
        ball: Ball,
        regularizers: Terms | None = None,
        *,
        steps: int = 10,
        alpha: float | None = None,
        **options: Any,
    ) -> None:
        attack = pgd(ball, alpha=alpha, steps=steps)
        objective = _with_terms(_AT, regularizers)
        super().__init__(net, attack, objective, bn_mode="batch", **_with_defaults(options, ball))


class FastAT(AdversarialTraining):
    """Fast AT: ``CE(x*, y)`` on examples of a single-step attack (Wong et al., 2020).

    The attack is FGSM from the clean image if left out.

    Raises:
        ValueError: if ``attack`` takes more than one step.
    """

    def __init__(
        self,
        net: nn.Module,
        ball: Ball,
        regularizers: Terms | None = None,
        *,
        attack: Attack | None = None,
        **options: Any,
    ) -> None:
        require(or_null(AN_ATTACK), attack=attack)
        attack = fgsm(ball) if attack is None else attack
        if attack.steps != 1:
            raise ValueError(f"FastAT takes a single-step attack, got one of {attack.steps} steps")
        objective = _with_terms(_AT, regularizers)
        super().__init__(net, attack, objective, bn_mode="batch", **_with_defaults(options, ball))


class Trades(AdversarialTraining):
    """TRADES: ``CE(x, y) + beta KL(p(.|x) || p(.|x*))`` (Zhang et al., 2019).

    ``beta`` is not the weight of DER. The attack runs in evaluation mode; its step size ``alpha``
    is ``eps / 4`` if left out.
    """

    def __init__(
        self,
        net: nn.Module,
        ball: Ball,
        regularizers: Terms | None = None,
        *,
        beta: float = 6.0,
        steps: int = 10,
        alpha: float | None = None,
        **options: Any,
    ) -> None:
        attack = trades(ball, alpha=alpha, steps=steps)
        base = {"clean_ce": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), beta)}
        objective = _with_terms(base, regularizers)
        super().__init__(net, attack, objective, bn_mode="eval", **_with_defaults(options, ball))


def _with_terms(base: Terms, regularizers: Terms | None) -> Objective:
    require(or_null(TERMS), regularizers=regularizers)
    if both := base.keys() & (regularizers or {}):
        raise ValueError(f"the regularizer {min(both)} needs another name: the loss has this one")
    return Objective({**base, **(regularizers or {})})


def _with_defaults(options: dict[str, Any], ball: Ball) -> dict[str, Any]:
    return {"val_attacks": {"fgsm": fgsm(ball), "pgd10": pgd(ball)}, **options}
