"""Accuracy of a trained network under attack: ``python -m energy_at.evaluate run=FOLDER``."""

from collections.abc import Sequence

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from energy_at.attacks import fgsm, pgd
from energy_at.config import build_data, make, register_resolvers, reopened
from energy_at.data import ImageData
from energy_at.files import read_tensors
from energy_at.mistakes import CONF, command_line, one_line_errors
from energy_at.models.load import load_weights
from energy_at.robustness import robust_accuracy
from energy_at.runs import RunFolder
from energy_at.schema import check
from energy_at.threat import Ball

register_resolvers()


def evaluate(cfg: DictConfig, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Accuracies on the test set, of a run or of anybody's weights.

    Args:
        cfg: What to evaluate.
        overrides: What was typed; of a run, only where its data lies can be another.

    Raises:
        ValueError: unless exactly one of ``run`` and ``checkpoint`` is named.
    """
    if (cfg.run is None) == (cfg.checkpoint is None):
        raise ValueError(
            "name what to evaluate: run=FOLDER, or checkpoint=FILE with its model= and dataset="
        )
    net, data, ball = opened(cfg) if cfg.run is None else of_run(cfg, overrides)
    attacks = {"fgsm": fgsm(ball), "pgd": pgd(ball, steps=cfg.steps)}
    batches = data.eval_loader(data.test.first(cfg.subset))
    return robust_accuracy(net, batches, attacks, seed=data.seed)


def of_run(cfg: DictConfig, overrides: Sequence[str]) -> tuple[nn.Module, ImageData, Ball]:
    """Network, data and threat of a run.

    Raises:
        ValueError: if an override would make them another run's.
    """
    moved = [o for o in overrides if o.startswith("dataset.root=")]
    for override in set(overrides) - set(moved):
        if override.startswith(("dataset", "model", "threat", "training", "seed")):
            raise ValueError(
                f"run={cfg.run} brings its own data set, model and threat: leave out {override}"
            )
    folder = RunFolder.open(cfg.run)
    config = OmegaConf.merge(folder.config(), OmegaConf.from_dotlist(moved))
    assert isinstance(config, DictConfig)
    module, data = reopened(folder, cfg.which or "last", config)
    return module.net, data, make(config.threat.ball)


def opened(cfg: DictConfig) -> tuple[nn.Module, ImageData, Ball]:
    """A network with anybody's weights, and the data and the threat that were named."""
    net, ball = make(cfg.model), make(cfg.threat.ball)
    load_weights(net, read_tensors(cfg.checkpoint), cfg.which)
    return net.to(memory_format=torch.channels_last), build_data(cfg), ball


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors():
        check(cfg)
        overrides = HydraConfig.get().overrides.task
        for name, share in evaluate(cfg, overrides).items():
            print(f"{name:6} {share:g}" if name == "n" else f"{name:6} {100 * share:.1f} %")


if __name__ == "__main__":
    command_line(main)
