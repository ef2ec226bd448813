"""From networks and a plan to landscapes, tables and figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from energy_at.analysis.figures import View
from energy_at.analysis.landscape import Landscape, landscape, require_every_class
from energy_at.analysis.output import draw, staged, write, write_samples
from energy_at.analysis.plan import Plan
from energy_at.analysis.record import Chosen, key_of, network, record
from energy_at.analysis.tables import by_attack, clean_accuracy, unmoved
from energy_at.attacks import Attack
from energy_at.attacks.autoattack import require_classes
from energy_at.evaluation.robustness import Evaluator
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.reporting.describe import setting
from energy_at.runs.folder import RunFolder, folder_names


@dataclass(frozen=True)
class Analysed:
    """A network, the images it was shown, and what was found."""

    subject: TrainedModel
    chosen: Chosen
    found: Landscape


def analyse(
    subjects: Mapping[str, TrainedModel],
    plan: Plan,
    out: Path | None,
    *,
    batch_size: int | None = None,
    progress: bool = True,
) -> tuple[Path, str]:
    """Measures the energies of all networks, and writes what it finds.

    Args:
        subjects: One network, or several of one data set, by name.
        plan: What to measure.
        out: The folder to write to; a folder of the run, or ``analysis``, if left out.
        batch_size: Images that are searched at once; it changes no number.
        progress: Show bars.

    Returns:
        The folder, and the table as Markdown.

    Raises:
        ValueError: if a class has no image, or ``out`` holds anything else.
    """
    attacks = plan.attacks
    images = {name: _chosen(subject, plan) for name, subject in subjects.items()}
    for name, (chosen, _) in images.items():
        require_every_class(chosen.labels.tolist(), subjects[name].config.dataset.classes)
    networks = [network(name, subjects[name], images[name][1], plan) for name in subjects]
    folder = out or _default(list(subjects.values()), plan, len(images[next(iter(images))][1]))
    with staged(folder, key_of(plan, networks)) as part:
        done = {}
        for name, subject in subjects.items():
            exam = _exam(subject, images[name], plan, batch_size, progress=progress)
            _require_classes(subject, exam, {attack: attacks[attack] for attack in plan.names})
            found = landscape(subject.net, exam, attacks, plan.sweep, ball=plan.ball)
            done[name] = Analysed(subject, images[name], found)
        text = _write(part, done, plan, progress=progress)
    return folder, text


def _require_classes(subject: TrainedModel, exam: Evaluator, attacks: Mapping[str, Attack]) -> None:
    require_classes(attacks, lambda: exam.classes(subject.net))


def _chosen(subject: TrainedModel, plan: Plan) -> Chosen:
    """The subset, or all images where there are no more than it asks for."""
    every = len(getattr(subject.data, plan.split))
    n = None if plan.subset is None or plan.subset >= every else plan.subset
    return subject.select_images(plan.split, n, plan.subset_seed)


def _default(subjects: Sequence[TrainedModel], plan: Plan, n: int) -> Path:
    if len(subjects) > 1:
        return Path("analysis")
    eps = plan.eps.replace("/", "of")
    name = f"{subjects[0].which or 'weights'}-{plan.norm}-{eps}-{n}images"
    split = "" if plan.split == "test" else f"-{plan.split}"
    return subjects[0].folder / "analysis" / f"{name}{split}"


def _exam(
    subject: TrainedModel, chosen: Chosen, plan: Plan, batch_size: int | None, *, progress: bool
) -> Evaluator:
    return Evaluator(
        *chosen,
        batch_size or subject.config.dataset.eval_batch_size,
        channels_last=subject.config.training.channels_last,
        seed=plan.seed,
        progress=progress,
    )


def _write(part: Path, done: Mapping[str, Analysed], plan: Plan, *, progress: bool) -> str:
    """The files of each network, and of several those of all of them."""
    if len(done) > 1:
        for folder, (name, one) in zip(_folders(done), done.items(), strict=True):
            _write(part / folder, {name: one}, plan, progress=progress)
    else:
        part.mkdir(exist_ok=True)
        write_samples(part / "samples.npz", next(iter(done.values())).found)
    view = _view(done, plan)
    networks = [network(name, one.subject, one.chosen[1], plan) for name, one in done.items()]
    text = _markdown(view, done, plan)
    write(part, text, view, record(plan, networks))
    draw(part, view, plan.sweep_label, progress=progress)
    return text


def _folders(done: Mapping[str, Analysed]) -> list[str]:
    """A name for the folder of each run, whatever its path is."""
    places = folder_names([RunFolder(one.subject.folder) for one in done.values()])
    names = [re.sub(r"[^\w.+=-]+", "_", place).strip("._") or "run" for place in places]
    return [n if names.count(n) == 1 else f"{i}_{n}" for i, n in enumerate(names, 1)]


def _view(done: Mapping[str, Analysed], plan: Plan) -> View:
    shared = setting([one.subject.config for one in done.values()])
    who = f"{next(iter(done))}: {shared}" if len(done) == 1 else shared
    where = f"{_images(done)} {plan.split} images under {plan.norm_text}, eps {plan.eps}"
    runs = {name: one.found for name, one in done.items()}
    return View(runs, plan.labels, f"{who}; {where}", plan.norm_text, plan.ball.eps)


def _images(done: Mapping[str, Analysed]) -> str:
    counts = sorted({len(one.chosen[1]) for one in done.values()})
    return " to ".join(f"{count:,}" for count in counts)


def _markdown(view: View, done: Mapping[str, Analysed], plan: Plan) -> str:
    clean = [f"{name}{_source(one)}, clean accuracy {100 * clean_accuracy(one.found):.1f} %"
             for name, one in done.items()]  # fmt: skip
    first = next(iter(done.values())).subject
    drawn = "the first" if plan.subset_seed is None else f"drawn with seed {plan.subset_seed}"
    every = len(getattr(first.data, plan.split))
    some = "all" if plan.subset is None or plan.subset >= every else f"of {every:,}, {drawn}"
    lines = [
        *(f"- {line}" for line in clean),
        f"- {_images(done)} {plan.split} images of {first.config.dataset.name} ({some}), "
        f"{plan.norm_text}, eps {plan.eps}, fp32",
        "",
        by_attack(view).markdown(),
        "",
        "Energies in nats, mean ± standard deviation over the images; dE = E of the image - E of "
        "the adversarial image; AAE: the attack lowered the cross-entropy, which only FGSM, PGD "
        "and APGD-CE set out to raise.",
        *unmoved(view),
    ]
    return "\n".join(lines)


def _source(one: Analysed) -> str:
    which = f", {one.subject.which} checkpoint" if one.subject.which else ""
    return f" ({one.subject.source}{which})"
