"""Accuracy of a trained network under attack: ``python -m energy_at.evaluate run=FOLDER``."""

import hydra
from omegaconf import DictConfig

from energy_at.attacks import fgsm, pgd
from energy_at.config import make, register_resolvers, reopened
from energy_at.mistakes import CONF, command_line, one_line_errors
from energy_at.robustness import robust_accuracy
from energy_at.runs import RunFolder

register_resolvers()


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Accuracies on the test set of the run."""
    folder = RunFolder.open(cfg.run)
    module, data = reopened(folder, cfg.which)
    ball = make(folder.config().threat.ball)
    attacks = {"fgsm": fgsm(ball), "pgd": pgd(ball, steps=cfg.steps)}
    batches = data.eval_loader(data.test.first(cfg.subset))
    return robust_accuracy(module.net, batches, attacks, seed=module.seed)


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors():
        for name, share in evaluate(cfg).items():
            print(f"{name:6} {share:g}" if name == "n" else f"{name:6} {100 * share:.1f} %")


if __name__ == "__main__":
    command_line(main)
