"""Energies of every image, natural and under attack: ``python -m energy_at.analyse run=FOLDER``."""

from omegaconf import DictConfig

from energy_at.config.cli import command, overrides


@command("analyse", on_interrupt="nothing is written")
def main(cfg: DictConfig) -> str:
    from energy_at.analysis import analyse_command

    return analyse_command(cfg, overrides())


if __name__ == "__main__":
    main()
