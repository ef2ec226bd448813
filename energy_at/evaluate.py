"""Accuracy of a trained network under attack: ``python -m energy_at.evaluate run=FOLDER``."""

from omegaconf import DictConfig

from energy_at.config.cli import RERUN, command, overrides


@command("evaluate", on_interrupt=RERUN)
def main(cfg: DictConfig) -> str:
    from energy_at.evaluation import evaluate_command

    return evaluate_command(cfg, overrides())


if __name__ == "__main__":
    main()
