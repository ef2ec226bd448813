"""A run that has finished, read once: what tables and figures need of it."""

import json
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig, OmegaConf

from energy_at.overfitting.onset import collapse_step, is_chance, overfitting_step
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import MetricsLog

APART = (  # what runs of one row may differ in: the seed, and what changes no result
    "seed",
    "resume",
    "logger",
    "hydra",
    "callbacks.progress",
    "dataset.root",
    "dataset.download",
    "trainer.enable_progress_bar",
)


@dataclass(frozen=True)
class FinishedRun:
    """What a comparison needs of a run that has finished."""

    folder: RunFolder

    @cached_property
    def config(self) -> DictConfig:
        """Its resolved configuration."""
        return self.folder.config()

    @cached_property
    def log(self) -> MetricsLog:
        """Its log; empty if it wrote none."""
        return self.folder.log()

    @cached_property
    def validations(self) -> list[dict[str, float]]:
        """PGD accuracies on held-out images, with their steps."""
        return self.log.rows("val/acc/pgd")

    @cached_property
    def collapsed(self) -> int | None:
        """Step from which it is collapsed; ``None`` if it is not."""
        return collapse_step(self.validations, self.config.dataset.classes)

    @cached_property
    def overfitted(self) -> int | None:
        """Step from which it overfits robustly; ``None`` if it does not, or is no result at all."""
        if self.mark():
            return None
        return overfitting_step(self.validations, self.config.dataset.classes)

    @property
    def onsets(self) -> dict[str, int]:
        """Steps from which its robustness is lost, by ``CO`` or ``RO``."""
        steps = {"CO": self.collapsed, "RO": self.overfitted}
        return {name: step for name, step in steps.items() if step is not None}

    def learned(self, checkpoint: str = "last") -> bool:
        """Whether held-out images said so when the checkpoint was made, clean or under PGD.

        Where no validation was logged, by what its evaluation measured, on held-out or else on test
        images; a run that has neither counts as one that has learned.
        """
        results = self.folder.results()
        held_out = results.get("held_out", {})
        images = held_out.get("images", self.config.dataset.val_size)
        chance = held_out.get("chance", 1 / self.config.dataset.classes)
        of_checkpoint = results.get(checkpoint, {})
        step = of_checkpoint.get("step", float("inf"))
        found = {name: self._validated(f"val/acc/{name}", step) for name in ("clean", "pgd")}
        if found["clean"] is None:
            measured = of_checkpoint.get("val") or of_checkpoint.get("test") or {}
            found = {name: measured.get(name) for name in found}
            images = measured.get("n", images)
        known = [accuracy for accuracy in found.values() if accuracy is not None]
        return found["clean"] is None or not all(is_chance(a, images, chance) for a in known)

    def mark(self, checkpoint: str = "last") -> str:
        """Why the accuracies of a checkpoint are no result, in a word or two; nothing if they are.

        A checkpoint from before a collapse is sound.
        """
        if checkpoint == "last" and self.collapsed is not None:
            return "collapsed"
        return "" if self.learned(checkpoint) else "not learned"

    def _validated(self, name: str, step: float) -> float | None:
        """The last value of a validation up to a step."""
        curve = self.log[name]
        values = curve.values[curve.steps <= step]
        return float(values[-1]) if len(values) else None

    @property
    def settings(self) -> str:
        """Everything that its results depend on, but for the seed."""
        config = self.config.copy()
        for key in APART:
            if OmegaConf.select(config, key) is not None:
                OmegaConf.update(config, key, None)
        return json.dumps(OmegaConf.to_container(config), sort_keys=True)

    def percent(self, checkpoint: str, name: str) -> float | None:
        """A test accuracy in percent; ``None`` if it was not measured."""
        shares = self.folder.results().get(checkpoint, {}).get("test", {})
        return 100 * shares[name] if name in shares else None

    @property
    def final(self) -> str:
        """The last checkpoint if it was evaluated, else the best one."""
        return "best" if "last" not in self.folder.results() else "last"

    def held_out_percent(self) -> float | None:
        """PGD accuracy of the final network on held-out images; ``None`` if it was not measured.

        As its evaluation measured it, or else the last validation.
        """
        of_final = self.folder.results().get(self.final, {})
        share = of_final.get("val", {}).get("pgd")
        if share is None:
            share = self._validated("val/acc/pgd", of_final.get("step", float("inf")))
        return None if share is None else 100 * float(share)

    def score(self) -> float | None:
        """What a search maximizes: PGD accuracy of the final network on held-out images.

        A run that collapsed or has not learned scores 0, lucky as a constant prediction may be;
        ``None`` where nothing was measured.
        """
        held_out = self.held_out_percent()
        if held_out is None:
            return None
        return 0.0 if self.mark() else held_out / 100

    def cost(self, name: str) -> float | None:
        """``"forward_equivalents"`` of an image, or ``"seconds"`` of training."""
        value = self.folder.results().get("training", {}).get(name)
        return None if value is None else float(value)

    @property
    def alarms(self) -> dict[str, int]:
        """Step of the first alarm of each kind that the sentinel raised, in the order of steps."""
        first: dict[str, int] = {}
        for kind, step in self.log.alarms:
            first.setdefault(kind, step)
        return first

    @property
    def watched(self) -> bool:
        """Whether there was a sentinel."""
        return OmegaConf.select(self.config, "callbacks.sentinel") is not None

    @property
    def fate(self) -> str:
        """Step from which it is collapsed, ``not learned``, ``none``, or that no log can tell."""
        if self.collapsed is not None:
            return str(self.collapsed)
        return self.mark() or ("none" if self.validations else "not logged")

    def trained_percent(self, name: str) -> float | None:
        """Mean of a share in training over the last epoch; ``None`` if it was not logged."""
        key = f"train/{name}"
        return 100 * self.log.last_epoch_mean(key) if key in self.log else None
