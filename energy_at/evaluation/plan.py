"""What a network is judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig

from energy_at.attacks import Attack, restarted_pgd
from energy_at.attacks.autoattack import INSTALL, INSTALLED
from energy_at.attacks.catalogue import LABELS, named_attack
from energy_at.attacks.threat import Ball
from energy_at.evaluation.trained_model import TrainedModel


@dataclass(frozen=True)
class Plan:
    """What to judge a network by.

    Attributes:
        norm: ``linf`` or ``l2``.
        balls: Threat models, by their radius as it was written.
        names: Of the attacks.
        steps: Of PGD, TRADES, CW and targeted PGD.
        restarts: Of PGD.
        split: ``test``, ``val`` or ``train``.
        subset: Number of images; ``None`` for all.
        subset_seed: Draws them; ``None`` takes the first ones.
        seed: Of the noise of the attacks.
        left_out: Attacks that belong here but could not be run, and why.
    """

    norm: str
    balls: Mapping[str, Ball]
    names: Sequence[str]
    steps: int = 50
    restarts: int = 10
    split: str = "test"
    subset: int | None = None
    subset_seed: int | None = 0
    seed: int = 0
    left_out: Sequence[str] = ()

    @cached_property
    def attacks(self) -> dict[str, Attack]:
        """The attacks at every radius, as ``pgd@8/255``."""
        return {
            f"{name}@{eps}": self._attack(name, ball)
            for eps, ball in self.balls.items()
            for name in self.names
        }

    def label(self, name: str) -> str:
        """``PGD-50-10``: the attack as it is written in a table; one restart is not written."""
        settings = self._settings(name)
        shown = [str(v) for key, v in settings.items() if key != "restarts" or v > 1]
        return "-".join([LABELS[name], *shown])

    def _attack(self, name: str, ball: Ball) -> Attack:
        settings = self._settings(name)
        return (
            restarted_pgd(ball, **settings)
            if name == "pgd"
            else named_attack(name, ball, **settings)
        )

    def _settings(self, name: str) -> dict[str, int]:
        if name == "pgd":
            return {"steps": self.steps, "restarts": self.restarts}
        return {"steps": self.steps} if name in ("trades", "cw", "targeted") else {}


def plan_of(cfg: DictConfig, subject: TrainedModel) -> Plan:
    """What was asked for; AutoAttack is left out where nobody asked for it and it is missing."""
    names, left_out = list(cfg.attacks or ("fgsm", "pgd", "autoattack")), []
    if cfg.attacks is None and not INSTALLED:
        names.remove("autoattack")
        left_out = [f"AutoAttack is not installed: {INSTALL}"]
    return Plan(
        cfg.norm or subject.norm,
        subject.balls(cfg.norm, cfg.eps),
        names,
        steps=cfg.steps,
        restarts=cfg.restarts,
        split=cfg.split,
        subset=cfg.subset,
        subset_seed=cfg.subset_seed,
        seed=cfg.seed,
        left_out=left_out,
    )
