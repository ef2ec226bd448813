"""The configuration of each scenario, and the images that all of them are measured on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from energy_at.benchmark.scenarios import Scenario
from energy_at.data import ImageSet

SHARED = ("dataset", "model", "threat", "optimizer", "seed")
_LIGHTNING = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Setting:
    """What the rows of a benchmark have in common.

    Attributes:
        config: Of the benchmark: data set (for its sizes), network, threat model, optimizer.
        device: Where it runs.
        steps: Batches that a row takes in one turn.
        turns: That a row takes, warm-up included.
        attack_steps: Of PGD and TRADES, in training and in evaluation.
        sampler_steps: Of a sample.
        workers: Processes that read the images of the reference.
    """

    config: DictConfig
    device: torch.device
    steps: int
    turns: int
    attack_steps: int
    sampler_steps: int
    workers: int

    @property
    def batch_size(self) -> int:
        """Images of a batch."""
        return int(self.config.dataset.batch_size)

    def training(self, scenario: Scenario, precision: str) -> DictConfig:
        """The configuration of a training as ``energy_at.train`` composes it."""
        overrides = [*scenario.overrides, "logger=csv", *_QUIET]
        if "attack=pgd" in overrides or "attack=trades" in overrides:
            overrides.append(f"attack.steps={self.attack_steps}")
        cfg = compose("train", overrides)
        with open_dict(cfg):
            for name in SHARED:
                cfg[name] = self.config[name]
            cfg.dataset.reader = OmegaConf.create(self._reader())
        cfg.training = OmegaConf.merge(cfg.training, self.config.training)
        cfg.dataset.val_size = cfg.dataset.classes
        cfg.dataset.subset = None
        cfg.trainer.precision = _LIGHTNING[precision]
        cfg.trainer.accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        cfg.callbacks.energy.every = self.steps  # at least one transfer to the host in every turn
        return cfg

    def _reader(self) -> dict[str, object]:
        data = self.config.dataset
        return {
            "_target_": "energy_at.benchmark.setting.random_images",
            "_partial_": True,
            "channels": data.channels,
            "size": data.size,
            "classes": data.classes,
            "n": self.batch_size * (self.steps * self.turns + 2) + data.classes,
        }


def random_images(
    _: Path = Path(), *, channels: int, size: int, classes: int, n: int
) -> tuple[ImageSet, ImageSet]:
    """Random bytes of the shape of a data set: what they show costs no time."""
    generator = torch.Generator().manual_seed(0)
    n = max(n, 2 * classes)

    def drawn(count: int) -> ImageSet:
        shape = (count, channels, size, size)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return ImageSet(pixels, torch.arange(count) % classes)

    return drawn(n), drawn(classes)


_QUIET = (
    "callbacks.progress=null",  # the benchmark has its own bar
    "callbacks.best=null",  # and neither validates nor ends an epoch
    "callbacks.last=null",
    "trainer.enable_progress_bar=false",
    "+trainer.limit_val_batches=0",
    "+trainer.enable_checkpointing=false",
    "trainer.max_epochs=1000",
    "schedule=constant",
)
