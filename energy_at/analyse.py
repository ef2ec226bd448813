"""Energies of every image, natural and under attack: ``python -m energy_at.analyse run=FOLDER``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from energy_at.analysis import Plan, analyse, common_threat, named_subjects, radii_around
from energy_at.analysis.publishing import publish_energies, require_publishable
from energy_at.attacks.threat import Ball
from energy_at.config import CONF
from energy_at.config.build import register_resolvers
from energy_at.config.cli import command_line, one_line_errors, require_read
from energy_at.config.contention import hint_at_contention
from energy_at.config.schema import check
from energy_at.evaluation.trained_model import TrainedModel

register_resolvers()

ATTACKS = ("fgsm", "pgd", "trades", "targeted", "cw")  # those that need no library


def plan_of(cfg: DictConfig, subjects: Sequence[TrainedModel]) -> Plan:
    """What was asked for.

    Raises:
        ValueError: if the networks have no threat model in common, or a radius is no length.
    """
    norm, eps, ball = common_threat(subjects, cfg.norm, cfg.eps)
    return Plan(
        norm,
        eps,
        ball,
        _sweep(subjects[0], norm, ball, cfg.eps_list),
        list(cfg.attacks or ATTACKS),
        steps=cfg.steps,
        iterations=cfg.iterations,
        queries=cfg.queries,
        split=cfg.split,
        subset=cfg.subset,
        subset_seed=cfg.subset_seed,
        seed=cfg.seed,
    )


def _sweep(subject: TrainedModel, norm: str, ball: Ball, radii: Any) -> list[Ball]:
    if radii is None:
        return radii_around(ball)
    balls = subject.balls(norm, radii, key="eps_list").values()
    return sorted(balls, key=lambda ball: ball.eps)


@hydra.main(version_base="1.3", config_path=CONF, config_name="analyse")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors(stopped="nothing is written"):
        require_read(cfg)
        check(cfg)
        require_publishable(cfg)
        hint_at_contention()
        subjects = named_subjects(cfg, HydraConfig.get().overrides.task)
        folder, text = analyse(
            subjects,
            plan_of(cfg, list(subjects.values())),
            None if cfg.out is None else Path(str(cfg.out)),
            batch_size=cfg.batch_size,
            progress=cfg.progress,
        )
        publish_energies(cfg, next(iter(subjects.values())), folder)
        print(f"{text}\n\nwritten to {folder}/: tables, samples and figures")


if __name__ == "__main__":
    command_line(main)
