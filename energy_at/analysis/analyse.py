"""Analyses the energies of trained networks: measures them, writes tables and figures."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig

from energy_at import __version__
from energy_at.analysis.detection import SCORES, write_rates
from energy_at.analysis.energy_plane import quiver, scatter
from energy_at.analysis.figures import classes, delta_vs_eps, histograms, path
from energy_at.analysis.measure import (
    TIMES,
    AnalysisPlan,
    Landscape,
    Natural,
    Shifts,
    measure_landscape,
    plan_of,
)
from energy_at.analysis.ood import ood_evaluators
from energy_at.analysis.roc import roc
from energy_at.analysis.tables import View, attack_table, quantity_table, unchanged_images
from energy_at.attacks.autoattack import require_classes
from energy_at.config.build import keys_of
from energy_at.core.files import digest
from energy_at.core.progress import Bar
from energy_at.evaluation import Evaluator, TrainedModel, open_models, result_key
from energy_at.evaluation.trained_model import network_text, publish, require_wandb_only
from energy_at.reporting.describe import NORM_LABELS, method_labels, setting
from energy_at.reporting.figures import method_styles, save
from energy_at.runs.folder import RunFolder, folder_names
from energy_at.runs.result_folder import ResultFolder

PANELS = 4  # runs that fit side by side
ARRAYS = {
    "natural/{column}": "the images: " + ", ".join(field.name for field in fields(Natural)),
    "ATTACK/{column}": "under an attack: " + ", ".join(field.name for field in fields(Shifts)),
    "path/t": "t of x_t = x + t (x* - x), clamped to pixels",
    "path/positions": "images of the paths, as entries of natural/",
    "path/ATTACK/marginal, joint": "E(x_t), E(x_t, y); a row for each image, a column for each t",
    "detection/SET/{column}": "of each set, if ood is set: " + ", ".join(SCORES.values()),
    "radii/eps": "radii of the PGD sweep, in units of the pixel range",
    "radii/positions": "images of the sweep, as entries of natural/",
    "radii/delta_marginal, delta_joint": "dE(x), dE(x, y); a column for each radius",
}


@dataclass(frozen=True)
class Subject:
    """A network and the images that it is analysed on."""

    model: TrainedModel
    plan: AnalysisPlan
    evaluator: Evaluator
    ood: Mapping[str, Evaluator]

    @cached_property
    def landscape(self) -> Landscape:
        """The energies, measured once."""
        plan = self.plan
        return measure_landscape(
            self.model.net,
            self.evaluator,
            plan.attacks,
            plan.sweep,
            ball=plan.ball,
            probe=plan.probe,
            ood=self.ood,
        )


Subjects = Mapping[str, Subject]  # by the name of the network


def analyse_command(cfg: DictConfig, overrides: Sequence[str] = ()) -> str:
    """Measures the energies of the networks that the configuration names and writes the files.

    Returns the table, and where the files are.

    Raises:
        ImportError: if an attack needs a library that is not installed.
        ValueError: if a class has no image, an attack needs more classes, or ``out`` holds
            anything else.
    """
    require_wandb_only(cfg)
    models = open_models(cfg, overrides)
    with keys_of(cfg, name="attacks"):
        plan = plan_of(cfg, models.values())
        attacks = plan.attacks
    subjects = {}
    for name, model in models.items():
        evaluator = plan.evaluator(model, batch_size=cfg.batch_size, progress=cfg.progress)
        require_every_class(evaluator.images.labels.tolist(), model.config.dataset.classes)
        require_classes(attacks, partial(evaluator.classes, model.net))
        with keys_of(cfg):
            ood = ood_evaluators(plan.ood or (), plan, model, evaluator)
        subjects[name] = Subject(model, plan, evaluator, ood)
    out = _default_path(subjects, plan) if cfg.out is None else Path(str(cfg.out))
    folder = ResultFolder(out, "analysis", describe(subjects, plan)["key"])
    with folder.staged() as part:
        text = _write(part, subjects, plan, progress=cfg.progress)
    if cfg.logger:
        _publish(cfg, subjects, out)
    return f"{text}\n\nwritten to {out}/: tables, samples and figures"


def require_every_class(labels: Sequence[int], classes: int) -> None:
    """Raises ``ValueError`` if a class has no image, and so no mean."""
    empty = sorted(set(range(classes)) - set(labels))
    if empty:
        names = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise ValueError(
            f"none of the {len(labels)} images is of class {names}: take more of them with a "
            "larger subset=, or all with subset=null"
        )


def describe(subjects: Subjects, plan: AnalysisPlan) -> dict[str, Any]:
    """The settings of an analysis, and the key of its result."""
    settings: dict[str, Any] = {
        "split": plan.split,
        "subset": plan.subset,
        "subset_seed": plan.subset_seed,
        "norm": plan.norm,
        "eps": plan.ball.eps,
        "eps_text": plan.eps,
        "attacks": plan.labels,
        "steps": plan.steps,
        "iterations": plan.iterations,
        "queries": plan.queries,
        "radii": [ball.eps for ball in plan.radii],
        "seed": plan.seed,
    }
    if plan.ood is not None:
        (one, *_) = subjects.values()  # all are of one data set
        settings["ood"] = {name: other.images.digests() for name, other in one.ood.items()}
    networks, keys = [], []
    for name, subject in subjects.items():
        model, images = subject.model, subject.evaluator.images
        indices = list(subject.evaluator.numbers)
        keys.append(result_key(model, images, {**settings, "indices": indices}))
        networks.append(
            {
                "name": name,
                **model.identity,
                "device": model.device.type,
                "dataset": model.config.dataset.name,
                "images": len(images),
                "of": len(getattr(model.data, plan.split)),
                "places_sha256": digest(indices),
            }
        )
    return {
        "key": digest(keys),
        "networks": networks,
        **settings,
        "precision": "fp32, energies fp64",
        "versions": {"energy_at": __version__, "torch": torch.__version__},
        "samples.npz": ARRAYS,
    }


def _default_path(subjects: Subjects, plan: AnalysisPlan) -> Path:
    if len(subjects) > 1:
        return Path("analysis")
    (subject,) = subjects.values()
    eps, images = plan.eps.replace("/", "of"), f"{len(subject.evaluator.images)}images"
    words = [subject.model.which or "weights", plan.norm, eps, images]
    words += [] if plan.split == "test" else [plan.split]
    return subject.model.folder / "analysis" / "-".join(words)


def _write(part: Path, subjects: Subjects, plan: AnalysisPlan, *, progress: bool) -> str:
    """Writes the files of one network; of several, those of each and of all together."""
    if len(subjects) > 1:
        for name, folder in _subfolders(subjects).items():
            (part / folder).mkdir()
            _write(part / folder, {name: subjects[name]}, plan, progress=progress)
    else:
        (subject,) = subjects.values()
        _write_samples(part / "samples.npz", subject.landscape)
    record, view = describe(subjects, plan), _view(subjects, plan)
    text = _markdown(view, subjects, plan)
    found = {name: one.detection for name, one in view.runs.items() if one.detection is not None}
    if found:
        text += f"\n\n{write_rates(part, found, view.labels)}"
    (part / "table.md").write_text(text + "\n", encoding="utf-8")
    (part / "table.tex").write_text(attack_table(view).latex() + "\n", encoding="utf-8")
    (part / "table.csv").write_text(quantity_table(view.runs).csv(), encoding="utf-8")
    (part / "settings.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draw(part, view, plan.label("pgd"), progress=progress)
    return text


def _subfolders(subjects: Subjects) -> dict[str, str]:
    """A folder name for each of several runs."""
    places = folder_names([RunFolder(subject.model.folder) for subject in subjects.values()])
    names = [re.sub(r"[^\w.+=-]+", "_", place).strip("._") or "run" for place in places]
    unique = [n if names.count(n) == 1 else f"{i}_{n}" for i, n in enumerate(names, 1)]
    return dict(zip(subjects, unique, strict=True))


def _view(subjects: Subjects, plan: AnalysisPlan) -> View:
    """Energies of all networks; of several runs, styled as in the figures of their training."""
    configs = [subject.model.config for subject in subjects.values()]
    who, styles = f"{next(iter(subjects))}: ", {}
    if len(subjects) > 1:
        labels = zip(method_labels(configs), subjects, strict=True)
        found = method_styles([replace(label, run=name) for label, name in labels])
        who, styles = "", dict(zip(subjects, found.values(), strict=True))
    threat, shared = f"{NORM_LABELS[plan.norm]}, eps {plan.eps}", setting(configs)
    under = "" if f"{threat}," in f"{shared}," else f" under {threat}"
    title = f"{who}{shared}; {_image_count(subjects)} {plan.split} images{under}"
    landscapes = {name: subject.landscape for name, subject in subjects.items()}
    return View(landscapes, plan.labels, title, plan.norm, plan.ball.eps, styles)


def _image_count(subjects: Subjects) -> str:
    counts = sorted({len(subject.evaluator.images) for subject in subjects.values()})
    return " to ".join(f"{count:,}" for count in counts)


def _markdown(view: View, subjects: Subjects, plan: AnalysisPlan) -> str:
    lines = []
    for name, subject in subjects.items():
        model, natural = subject.model, subject.landscape.natural
        accuracy = 100 * (natural.prediction == natural.label).mean()
        lines.append(f"- {name} ({network_text(model.identity)}), clean accuracy {accuracy:.1f} %")
    every = len(getattr(model.data, plan.split))
    drawn = "the first" if plan.subset_seed is None else f"drawn with seed {plan.subset_seed}"
    some = "all" if plan.subset is None or plan.subset >= every else f"of {every:,}, {drawn}"
    lines += [
        f"- {_image_count(subjects)} {plan.split} images of {model.config.dataset.name} ({some}), "
        f"{NORM_LABELS[plan.norm]}, eps {plan.eps}, fp32",
        "",
        attack_table(view).markdown(),
        "",
        "Energies in nats, mean ± standard deviation over the images; dE = E of the image - E of "
        "the adversarial image; AAE: the attack lowered the cross-entropy, which only FGSM, PGD "
        "and APGD-CE are designed to raise.",
        *unchanged_images(view),
    ]
    return "\n".join(lines)


def draw(folder: Path, view: View, sweep: str, *, progress: bool = False) -> None:
    every = figures(view, sweep)
    for name, figure in Bar(every, desc="figures", visible=progress):
        save(figure, folder / name)


def figures(view: View, sweep: str) -> Iterator[tuple[str, Figure]]:
    """Figures by name, drawn one after the other; of more runs than ``PANELS`` only the sweep."""
    yield "delta_vs_eps", delta_vs_eps(view, sweep)
    if len(view.runs) > PANELS:
        return
    if all(landscape.detection is not None for landscape in view.runs.values()):
        yield "roc", roc(view)
    yield "histograms", histograms(view)
    yield "histograms_joint", histograms(view, joint=True)
    yield "path", path(view)
    yield "classes", classes(view)
    for attack in view.labels:
        yield f"scatter_{attack}", scatter(view, attack)
        yield f"quiver_{attack}", quiver(view, attack)


def _write_samples(file: Path, landscape: Landscape) -> None:
    """Every number of every image, in the arrays that ``ARRAYS`` describes."""
    arrays = _image_columns(landscape) | {"path/t": np.array(TIMES)}
    for attack, paths in landscape.paths.items():
        arrays["path/positions"] = paths.positions
        arrays[f"path/{attack}/marginal"] = paths.marginal
        arrays[f"path/{attack}/joint"] = paths.joint
    if landscape.detection is not None:
        sets = {"natural": landscape.detection.natural}
        sets |= {name: scores for _, name, scores in landscape.detection.sets()}
        for name, scores in sets.items():
            arrays |= {f"detection/{name}/{key}": value for key, value in vars(scores).items()}
    arrays |= {f"radii/{name}": column for name, column in vars(landscape.radii).items()}
    np.savez_compressed(file, **arrays)


def _publish(cfg: DictConfig, subjects: Subjects, folder: Path) -> None:
    """Sends a table with a row for each image of each network."""
    import wandb

    tables = {}
    for name, below in _subfolders(subjects).items():
        columns = _image_columns(subjects[name].landscape)
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        names: list[str | int] = [name.removeprefix("natural/") for name in columns]
        table = wandb.Table(columns=names, data=[list(row) for row in rows])
        tables["energies" if len(subjects) == 1 else f"energies/{below}"] = table
    # next to the folder, which holds one result and nothing else
    publish(cfg, next(iter(subjects.values())).model, folder.parent, "analyse", tables)


def _image_columns(landscape: Landscape) -> dict[str, Any]:
    """Columns with an entry for each image: natural, then under each attack (``pgd/joint``)."""
    groups = {"natural": landscape.natural, **landscape.attacks}
    return {
        f"{group}/{name}": column
        for group, columns in groups.items()
        for name, column in vars(columns).items()
    }
