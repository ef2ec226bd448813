"""Attacks made of attacks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from energy_at.attacks.base import AN_ATTACK, Attack, AttackOptions, AttackResult
from energy_at.attacks.fast import SingleStep
from energy_at.attacks.gradient import GradientAttack
from energy_at.attacks.threat import Ball
from energy_at.core.rng import part_of
from energy_at.core.rules import POSITIVE, an, integer, is_list, require
from energy_at.core.types import Classifier, Images, Labels
from energy_at.models.modes import frozen_running_stats, no_graph


@dataclass(frozen=True)
class Restarts(Attack):
    """Runs a randomly started attack ``restarts`` times and keeps each image's highest goal value.

    Logits of the start are those of the first run.
    """

    attack: GradientAttack
    restarts: int

    def __post_init__(self) -> None:
        require(an(GradientAttack, "a GradientAttack, such as fgsm(...)"), attack=self.attack)
        require(integer(1), restarts=self.restarts)

    @property
    def bounds(self) -> Ball | None:
        return self.attack.bounds

    @property
    def steps(self) -> int:  # type: ignore[override]  # a frozen field elsewhere
        return self.attack.steps

    @property
    def passes(self) -> float:
        return self.restarts * self.attack.passes

    @property
    def starts_clean(self) -> bool:
        return self.attack.starts_clean

    @property
    def climbs_loss(self) -> bool:
        return self.attack.climbs_loss

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        first = self.attack.run(model, x, y, options)
        x_adv = first.x_adv
        with frozen_running_stats(model), no_graph():
            gain = self.attack.gain(model, x, y, options.targets)
            best = gain(model(x_adv))
        more = AttackOptions(generator=options.generator, targets=options.targets)
        for _ in range(self.restarts - 1):
            again = self.attack.run(model, x, y, more).x_adv
            with frozen_running_stats(model), no_graph():
                value = gain(model(again))
            better = value > best
            x_adv = torch.where(better[:, None, None, None], again, x_adv)
            best = torch.where(better, value, best)
        return replace(first, x_adv=x_adv)

    def scaled(self, factor: float) -> "Restarts":
        return replace(self, attack=self.attack.scaled(factor))


@dataclass(frozen=True)
class WorstCase(Attack):
    """Runs attacks in turn, each on the images that the ones before left correct.

    For networks in evaluation mode, which treat each image on its own. ``WorstCase([attack] * n)``
    is an attack with ``n`` restarts that stops at success. It reports no start, so it keeps and
    tracks nothing.
    """

    attacks: Sequence[Attack]

    def __post_init__(self) -> None:
        if not is_list(self.attacks) or not self.attacks:
            raise ValueError("WorstCase needs a list of at least one attack")
        for attack in self.attacks:
            require(AN_ATTACK, attacks=attack)

    @property
    def steps(self) -> int:  # type: ignore[override]  # a frozen field elsewhere
        return max(attack.steps for attack in self.attacks)

    @property
    def passes(self) -> float:
        return sum(attack.passes for attack in self.attacks)

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        x_adv = x.clone()
        for attack in self.attacks:
            with frozen_running_stats(model), no_graph():
                correct = model(x_adv).argmax(1) == y
            if correct.any():
                own = AttackOptions(generator=part_of(options.generator, correct))
                found = attack.run(model, x[correct], y[correct], own)
                x_adv[correct] = found.x_adv
        return AttackResult(x_adv)

    def scaled(self, factor: float) -> "WorstCase":
        return WorstCase([attack.scaled(factor) for attack in self.attacks])


def with_alpha(attack: Attack, factor: float) -> Attack:
    """The same search in the same ball with ``factor`` times the step size.

    Raises:
        ValueError: if it takes no steps of its own.
    """
    require(AN_ATTACK, attack=attack)
    require(POSITIVE, factor=factor)
    if isinstance(attack, Restarts):
        return replace(attack, attack=replace(attack.attack, alpha=factor * attack.attack.alpha))
    if isinstance(attack, GradientAttack):
        return replace(attack, alpha=factor * attack.alpha)
    if isinstance(attack, SingleStep):
        return replace(attack, alpha=factor * attack.step)
    raise ValueError(f"{type(attack).__name__} has no step size alpha")
