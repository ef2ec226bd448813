"""Accuracy of a trained network under attack: ``python -m energy_at.evaluate run=FOLDER``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from energy_at.attacks.autoattack import INSTALL, INSTALLED
from energy_at.config import CONF
from energy_at.config.build import register_resolvers
from energy_at.config.cli import command_line, one_line_errors, require_read
from energy_at.config.contention import hint_at_contention
from energy_at.config.schema import check
from energy_at.evaluation import FILES, Plan, evaluate
from energy_at.evaluation.trained_model import TrainedModel, opened

register_resolvers()


def plan_of(cfg: DictConfig, subject: TrainedModel) -> Plan:
    """What was asked for; AutoAttack is left out where nobody asked for it and it is missing."""
    names, left_out = list(cfg.attacks or ("fgsm", "pgd", "autoattack")), []
    if cfg.attacks is None and not INSTALLED:
        names.remove("autoattack")
        left_out = [f"AutoAttack is not installed: {INSTALL}"]
    return Plan(
        cfg.norm or subject.norm,
        subject.balls(cfg.norm, cfg.eps),
        names,
        steps=cfg.steps,
        restarts=cfg.restarts,
        split=cfg.split,
        subset=cfg.subset,
        subset_seed=cfg.subset_seed,
        seed=cfg.seed,
        left_out=left_out,
    )


def judge(cfg: DictConfig, overrides: Sequence[str] = ()) -> str:
    """Evaluates what the configuration names, and says where the files are."""
    subject = opened(cfg, overrides)
    plan = plan_of(cfg, subject)
    for line in plan.left_out:
        sys.stderr.write(f"left out: {line}\n")
    out = None if cfg.out is None else Path(str(cfg.out))
    batch_size = cfg.batch_size or subject.config.dataset.eval_batch_size
    folder, text = evaluate(subject, plan, out, batch_size=batch_size, progress=cfg.progress)
    return f"{text}\nwritten to {folder}/: {', '.join(FILES)}"


@hydra.main(version_base="1.3", config_path=CONF, config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors(stopped="the same command goes on where it was"):
        require_read(cfg)
        check(cfg)
        hint_at_contention()
        print(judge(cfg, HydraConfig.get().overrides.task))


if __name__ == "__main__":
    command_line(main)
