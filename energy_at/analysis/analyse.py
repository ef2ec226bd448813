"""Analyses the energies of trained networks: measures them, writes tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from energy_at.analysis.figures import View
from energy_at.analysis.measure import Landscape, measure_landscape
from energy_at.analysis.output import (
    describe,
    draw,
    publish_energies,
    subfolders,
    write_samples,
    write_tables,
)
from energy_at.analysis.plan import AnalysisPlan, plan_of
from energy_at.analysis.statistics import require_every_class
from energy_at.analysis.tables import attack_table, clean_accuracy, unchanged_images
from energy_at.attacks.autoattack import require_classes
from energy_at.evaluation import Evaluator, TrainedModel, open_models
from energy_at.evaluation.publish import require_wandb_only
from energy_at.reporting.describe import method_labels, setting
from energy_at.reporting.figures import Style, method_styles
from energy_at.runs.result_folder import ResultFolder


@dataclass(frozen=True)
class Subject:
    """A network, the images that it is analysed on, and its energies."""

    model: TrainedModel
    evaluator: Evaluator
    landscape: Landscape


@dataclass(frozen=True)
class Analysis:
    """The result of an analysis.

    Attributes:
        folder: Of the files.
        text: The table as Markdown.
        landscapes: Energies by the name of the network.
    """

    folder: Path
    text: str
    landscapes: Mapping[str, Landscape]


def analyse_command(cfg: DictConfig, overrides: Sequence[str] = ()) -> str:
    """Analyses the networks that the configuration names.

    Args:
        cfg: The configuration of the command ``analyse``.
        overrides: From the command line.

    Returns:
        The table, and where the files are.
    """
    require_wandb_only(cfg)
    models = open_models(cfg, overrides)
    plan = plan_of(cfg, models.values())
    out = None if cfg.out is None else Path(str(cfg.out))
    found = analyse(models, plan, out, batch_size=cfg.batch_size, progress=cfg.progress)
    publish_energies(cfg, models, found.landscapes, found.folder)
    return f"{found.text}\n\nwritten to {found.folder}/: tables, samples and figures"


def analyse(
    models: Mapping[str, TrainedModel],
    plan: AnalysisPlan,
    out: Path | None = None,
    *,
    batch_size: int | None = None,
    progress: bool = True,
) -> Analysis:
    """Measures the energies of all networks and writes the files.

    Args:
        models: One network, or several with one data set, by name.
        plan: What to measure.
        out: The folder of the files; one below ``model.folder``, or ``analysis``, by default.
        batch_size: Images that are attacked at once; it changes no result.
        progress: Show bars.

    Raises:
        ValueError: if a class has no image, or ``out`` holds anything else.
    """
    attacks = plan.attacks
    evaluators = {
        name: plan.evaluator(model, batch_size=batch_size, progress=progress)
        for name, model in models.items()
    }
    for name, evaluator in evaluators.items():
        classes = models[name].config.dataset.classes
        require_every_class(evaluator.images.labels.tolist(), classes)
    record = describe(plan, models, evaluators)
    path = out or _default_path(models, plan, record["networks"][0]["images"])
    folder = ResultFolder(path, "analysis", record["key"])
    with folder.staged() as part:
        subjects = {}
        for name, model in models.items():
            evaluator = evaluators[name]
            require_classes(attacks, partial(evaluator.classes, model.net))
            found = measure_landscape(model.net, evaluator, attacks, plan.sweep, ball=plan.ball)
            subjects[name] = Subject(model, evaluator, found)
        text = _write(part, subjects, plan, progress=progress)
    landscapes = {name: subject.landscape for name, subject in subjects.items()}
    return Analysis(path, text, landscapes)


def _default_path(models: Mapping[str, TrainedModel], plan: AnalysisPlan, n: int) -> Path:
    if len(models) > 1:
        return Path("analysis")
    (model,) = models.values()
    words = [model.which or "weights", plan.norm, plan.eps.replace("/", "of"), f"{n}images"]
    words += [] if plan.split == "test" else [plan.split]
    return model.folder / "analysis" / "-".join(words)


def _write(
    part: Path, subjects: Mapping[str, Subject], plan: AnalysisPlan, *, progress: bool
) -> str:
    """The files of one network; of several, those of each and of all together."""
    models = {name: subject.model for name, subject in subjects.items()}
    if len(subjects) > 1:
        for name, folder in subfolders(models).items():
            (part / folder).mkdir()
            _write(part / folder, {name: subjects[name]}, plan, progress=progress)
    else:
        (subject,) = subjects.values()
        write_samples(part / "samples.npz", subject.landscape)
    view = _view(subjects, plan)
    text = _markdown(view, subjects, plan)
    evaluators = {name: subject.evaluator for name, subject in subjects.items()}
    write_tables(part, text, view, describe(plan, models, evaluators))
    draw(part, view, plan.sweep_label, progress=progress)
    return text


def _view(subjects: Mapping[str, Subject], plan: AnalysisPlan) -> View:
    shared = setting([subject.model.config for subject in subjects.values()])
    who = f"{next(iter(subjects))}: {shared}" if len(subjects) == 1 else shared
    where = f"{_image_count(subjects)} {plan.split} images under {plan.norm_label}, eps {plan.eps}"
    landscapes = {name: subject.landscape for name, subject in subjects.items()}
    return View(
        landscapes, plan.labels, f"{who}; {where}", plan.norm, plan.ball.eps, _styles(subjects)
    )


def _styles(subjects: Mapping[str, Subject]) -> dict[str, Style]:
    """Of several runs, as in the figures of their training."""
    if len(subjects) == 1:
        return {}
    methods = method_labels([subject.model.config for subject in subjects.values()])
    labels = [replace(label, run=name) for label, name in zip(methods, subjects, strict=True)]
    return dict(zip(subjects, method_styles(labels).values(), strict=True))


def _image_count(subjects: Mapping[str, Subject]) -> str:
    counts = sorted({len(subject.evaluator.images) for subject in subjects.values()})
    return " to ".join(f"{count:,}" for count in counts)


def _markdown(view: View, subjects: Mapping[str, Subject], plan: AnalysisPlan) -> str:
    lines = []
    for name, subject in subjects.items():
        which = f", {subject.model.which} checkpoint" if subject.model.which else ""
        accuracy = 100 * clean_accuracy(subject.landscape)
        source = f"{subject.model.source}{which}"
        lines.append(f"- {name} ({source}), clean accuracy {accuracy:.1f} %")
    model = next(iter(subjects.values())).model
    every = len(getattr(model.data, plan.split))
    drawn = "the first" if plan.subset_seed is None else f"drawn with seed {plan.subset_seed}"
    some = "all" if plan.subset is None or plan.subset >= every else f"of {every:,}, {drawn}"
    lines += [
        f"- {_image_count(subjects)} {plan.split} images of {model.config.dataset.name} ({some}), "
        f"{plan.norm_label}, eps {plan.eps}, fp32",
        "",
        attack_table(view).markdown(),
        "",
        "Energies in nats, mean ± standard deviation over the images; dE = E of the image - E of "
        "the adversarial image; AAE: the attack lowered the cross-entropy, which only FGSM, PGD "
        "and APGD-CE are designed to raise.",
        *unchanged_images(view),
    ]
    return "\n".join(lines)
