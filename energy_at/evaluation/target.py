"""What a network is evaluated on: images of a split, threat models, attacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from energy_at.attacks import Attack, restarted_pgd
from energy_at.attacks.registry import LABELS, AttackKey, named_attack
from energy_at.attacks.threat import NORM_LABELS, Ball
from energy_at.data import ImageSet
from energy_at.evaluation.robustness import Evaluator, Journal
from energy_at.evaluation.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class EvaluationTarget:
    """Images and threat models that a network is evaluated on.

    Attributes:
        norm: ``linf`` or ``l2``.
        balls: Threat models by their radius as it was written.
        split: ``test``, ``val`` or ``train``.
        subset: Number of images; ``None`` for all.
        subset_seed: Draws them; ``None`` takes the first ones.
        seed: Of the noise of the attacks.
    """

    norm: str
    balls: Mapping[str, Ball]
    split: str = "test"
    subset: int | None = None
    subset_seed: int | None = 0
    seed: int = 0

    @staticmethod
    def fields_of(cfg: DictConfig, models: Sequence[TrainedModel]) -> dict[str, Any]:
        """The fields that the keys of a command set, with one threat model for all networks.

        Raises:
            ValueError: if a radius is not a length, or the networks were trained for different
                threat models and the keys name none.
        """
        found = {}
        for model in models:
            norm, balls = cfg.norm or model.norm, model.threat_models(cfg.norm, cfg.eps)
            found[norm, tuple(balls.values())] = balls
        if len(found) > 1:
            each = sorted(f"{norm} {', '.join(balls)}" for (norm, _), balls in found.items())
            raise ValueError(
                f"the runs have different threat models ({', '.join(each)}): name one for all, "
                "such as norm=linf eps=8/255"
            )
        (((norm, _), balls),) = found.items()
        keys = ("split", "subset", "subset_seed", "seed")
        return {"norm": norm, "balls": balls} | {key: cfg[key] for key in keys}

    @property
    def norm_label(self) -> str:
        """``L-inf`` or ``L2``."""
        return NORM_LABELS[self.norm]

    def images(self, model: TrainedModel) -> tuple[ImageSet, list[int]]:
        """The images on the device of a network, and their indices in the split.

        Raises:
            ValueError: if the split has fewer.
        """
        return model.select_images(self.split, self.subset, self.subset_seed)

    def evaluator(
        self,
        model: TrainedModel,
        *,
        batch_size: int | None = None,
        journal: Journal | None = None,
        progress: bool = False,
    ) -> Evaluator:
        """Attacks these images.

        Args:
            model: The network that they belong to.
            batch_size: Images that are attacked at once; that of the data set by default. It
                changes no result.
            journal: Keeps finished batches.
            progress: Show a bar.
        """
        images, indices = self.images(model)
        return Evaluator(
            images,
            indices,
            batch_size or model.config.dataset.eval_batch_size,
            channels_last=model.config.training.channels_last,
            seed=self.seed,
            journal=journal,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan(EvaluationTarget):
    """Images, threat models and attacks of an evaluation.

    Attributes:
        names: Of the attacks.
        steps: Of PGD, TRADES, CW and targeted PGD.
        restarts: Of PGD.
        left_out: A line for each attack that belongs here but is not available.
    """

    names: Sequence[str]
    steps: int = 50
    restarts: int = 10
    left_out: Sequence[str] = ()

    @cached_property
    def attacks(self) -> dict[AttackKey, Attack]:
        """Every attack at every radius."""
        return {
            AttackKey(name, eps): self._attack(name, ball)
            for eps, ball in self.balls.items()
            for name in self.names
        }

    def label(self, name: str) -> str:
        """``PGD-50-10``: steps and restarts of an attack; a single restart is not written."""
        settings = self._settings(name)
        shown = [str(v) for key, v in settings.items() if key != "restarts" or v > 1]
        return "-".join([LABELS[name], *shown])

    def _attack(self, name: str, ball: Ball) -> Attack:
        settings = self._settings(name)
        if name == "pgd":
            return restarted_pgd(ball, **settings)
        return named_attack(name, ball, **settings)

    def _settings(self, name: str) -> dict[str, int]:
        if name == "pgd":
            return {"steps": self.steps, "restarts": self.restarts}
        return {"steps": self.steps} if name in ("trades", "cw", "targeted") else {}
