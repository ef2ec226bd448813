"""The networks that are analysed: one, or several runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from energy_at.analysis.plan import Plan, radii_around
from energy_at.attacks.threat import Ball
from energy_at.evaluation.trained_model import TrainedModel, open_model, open_run
from energy_at.reporting.comparison import grouped
from energy_at.reporting.document.runs import entries
from energy_at.runs.folder import RunFolder, require_distinct, runs_in

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
    balls = subject.threat_models(norm, radii, key="eps_list").values()
    return sorted(balls, key=lambda ball: ball.eps)


def named_subjects(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, TrainedModel]:
    """What ``run``, ``checkpoint`` or ``runs`` names, by the name of its method or file.

    Raises:
        ValueError: unless exactly one of the three is named, and all runs are of one data set.
    """
    if [cfg.run, cfg.checkpoint, cfg.runs].count(None) != 2:
        raise ValueError(
            "name one of run=FOLDER, runs=[FOLDER,FOLDER], and checkpoint=FILE with its model= and "
            "dataset="
        )
    if cfg.runs is None:
        subject = open_model(cfg, overrides)
        name = Path(cfg.checkpoint).name if cfg.run is None else _labels([subject.folder])[0]
        return {name: subject}
    names = list(cfg.runs) if isinstance(cfg.runs, ListConfig) else [cfg.runs]
    folders = [run.path for name in names for run in runs_in(str(name))]
    if not folders:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    require_distinct([RunFolder(folder) for folder in folders])
    subjects = [open_run(str(folder), cfg, overrides) for folder in folders]
    _require_one_data_set(subjects)
    return dict(zip(_labels(folders), subjects, strict=True))


def common_threat(
    subjects: Sequence[TrainedModel], norm: str | None, eps: Any
) -> tuple[str, str, Ball]:
    """Norm, radius as it was written, and ball that all networks are attacked in.

    Raises:
        ValueError: if they were trained in different ones and none is named, or several are.
    """
    if OmegaConf.is_list(eps):
        raise ValueError(
            f"eps={list(eps)} must be one radius; eps_list=[4/255,8/255] takes several"
        )
    found = {
        (norm or subject.norm, text, ball)
        for subject in subjects
        for text, ball in subject.threat_models(norm, eps).items()
    }
    if len({ball for _, _, ball in found}) > 1:
        radii = ", ".join(sorted({f"{norm} {text}" for norm, text, _ in found}))
        raise ValueError(
            f"the runs have different threat models ({radii}): name one for all, such as "
            "norm=linf eps=8/255"
        )
    return min(found, key=lambda one: one[1])


def _require_one_data_set(subjects: Sequence[TrainedModel]) -> None:
    first = subjects[0]
    for other in subjects[1:]:
        names = [str(subject.config.dataset.name) for subject in (first, other)]
        if names[0] != names[1]:
            raise ValueError(
                f"{first.source} is of {names[0]} and {other.source} of {names[1]}: only runs of "
                "one data set can be put side by side"
            )


def _labels(folders: Sequence[Path]) -> list[str]:
    """``FGSM-AT + DER, seed 0``: the names that a report gives these runs."""
    found = entries(grouped([RunFolder(folder) for folder in folders]))
    labels: Mapping[Path, str] = {entry.path: entry.label for entry in found}
    return [labels[folder] for folder in folders]
