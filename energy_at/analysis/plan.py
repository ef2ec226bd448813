"""What an analysis measures: images, a threat model, attacks, and radii of a sweep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig, OmegaConf

from energy_at.attacks import Attack, pgd
from energy_at.attacks.registry import FROM_LIBRARY, LABELS, named_attack
from energy_at.attacks.threat import Ball, Linf
from energy_at.data import ImageSet
from energy_at.evaluation import LOOPS, EvaluationTarget, TrainedModel

ATTACKS = ("fgsm", "pgd", "trades", "targeted", "cw")  # those that need no library
FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0)  # radii of the sweep, in units of eps


@dataclass(frozen=True, kw_only=True)
class AnalysisPlan(EvaluationTarget):
    """Images, threat model and attacks of an analysis; ``balls`` holds one ball."""

    names: Sequence[str]  # of the attacks
    radii: Sequence[Ball]  # of the PGD sweep
    subset: int | None = 1000  # at most this many images; None for all
    steps: int = 20  # of PGD, TRADES, CW and targeted PGD
    iterations: int = 100  # of APGD and FAB
    queries: int = 5000  # of Square

    @property
    def eps(self) -> str:
        return next(iter(self.balls))

    @property
    def ball(self) -> Ball:
        return self.balls[self.eps]

    @cached_property
    def attacks(self) -> dict[str, Attack]:
        """By name; raises ``ImportError`` if one needs a library that is not installed."""
        return {name: named_attack(name, self.ball, **self._settings(name)) for name in self.names}

    @cached_property
    def labels(self) -> dict[str, str]:
        """The attacks as they are printed: ``PGD-20``."""
        return {
            name: f"{LABELS[name]}-{self.steps}" if name in LOOPS else LABELS[name]
            for name in self.names
        }

    @property
    def sweep(self) -> dict[float, Attack]:
        """PGD at each radius of the sweep."""
        return {ball.eps: pgd(ball, steps=self.steps) for ball in self.radii}

    def images(self, model: TrainedModel) -> tuple[ImageSet, list[int]]:
        """The subset, or all images if there are no more; and their indices in the split."""
        every = len(getattr(model.data, self.split))
        n = min(self.subset or every, every)
        return model.select_images(self.split, n if n < every else None, self.subset_seed)

    def _settings(self, name: str) -> Mapping[str, int | str]:
        if name in LOOPS:
            return {"steps": self.steps}
        if name not in FROM_LIBRARY:
            return {}
        library = {"steps": self.iterations, "queries": self.queries}
        return library if name == "autoattack" else library | {"keeps": "worst"}


def plan_of(cfg: DictConfig, models: Iterable[TrainedModel]) -> AnalysisPlan:
    """The analysis that a configuration asks for.

    Raises:
        ValueError: if the networks were trained for different threat models and none is named, or
            a radius is not a length.
    """
    if OmegaConf.is_list(cfg.eps):
        raise ValueError(
            f"eps={list(cfg.eps)} must be one radius; eps_list=[4/255,8/255] takes several"
        )
    models = list(models)
    target = AnalysisPlan.fields_of(cfg, models)
    (ball,) = target["balls"].values()
    if cfg.eps_list is None:
        radii = radii_around(ball)
    else:
        balls = models[0].threat_models(target["norm"], cfg.eps_list, key="eps_list").values()
        radii = sorted(balls, key=lambda ball: ball.eps)
    return AnalysisPlan(
        **target,
        names=list(cfg.attacks or ATTACKS),
        radii=radii,
        steps=cfg.steps,
        iterations=cfg.iterations,
        queries=cfg.queries,
    )


def radii_around(ball: Ball) -> list[Ball]:
    """``FACTORS`` times the ball, up to the largest perturbation that exists."""
    most = 1 if isinstance(ball, Linf) else float("inf")
    return [ball.scaled(factor) for factor in FACTORS if factor * ball.eps <= most]
