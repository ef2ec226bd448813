"""Energies of every image, natural and under attack: ``python -m energy_at.analyse run=FOLDER``."""

from pathlib import Path

from omegaconf import DictConfig

from energy_at.config.cli import command, overrides


@command("analyse", on_interrupt="nothing is written")
def main(cfg: DictConfig) -> str:
    from energy_at.analysis import analyse, named_subjects
    from energy_at.analysis.output import publish_energies
    from energy_at.analysis.subjects import plan_of
    from energy_at.evaluation.publish import require_wandb_only

    require_wandb_only(cfg)
    subjects = named_subjects(cfg, overrides())
    folder, text = analyse(
        subjects,
        plan_of(cfg, list(subjects.values())),
        None if cfg.out is None else Path(str(cfg.out)),
        batch_size=cfg.batch_size,
        progress=cfg.progress,
    )
    publish_energies(cfg, next(iter(subjects.values())), folder)
    return f"{text}\n\nwritten to {folder}/: tables, samples and figures"


if __name__ == "__main__":
    main()
