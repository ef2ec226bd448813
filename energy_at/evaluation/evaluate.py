"""Evaluates a network: runs the attacks, checks for gradient masking, writes the files."""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from energy_at.attacks import Attack, CustomAttack, restarted_pgd
from energy_at.attacks.autoattack import EXTRA, is_installed, require_classes
from energy_at.attacks.custom import Search
from energy_at.attacks.registry import CLEAN, ITERATED, AttackKey, named_attack
from energy_at.attacks.threat import Ball
from energy_at.config.build import keys_of
from energy_at.core.extras import install
from energy_at.core.files import sha256
from energy_at.core.ranges import require_ranges
from energy_at.core.trust import own_attacks
from energy_at.evaluation.gradient_masking import attack_checks, black_box_passes, network_checks
from energy_at.evaluation.robustbench import leaderboard_entry
from energy_at.evaluation.robustness import Evaluator, Journal, Mask
from energy_at.evaluation.statistics import accuracy, class_rows
from energy_at.evaluation.trained_model import (
    EvaluationTarget,
    TrainedModel,
    network_text,
    open_model,
    result_key,
)
from energy_at.reporting.describe import NORM_LABELS, setting
from energy_at.reporting.document.results import RESULTS
from energy_at.reporting.figures import save
from energy_at.reporting.figures.results import accuracy_figure
from energy_at.reporting.tables import Table
from energy_at.runs.environment import environment
from energy_at.runs.result_folder import ResultFolder

FILES = (
    *("evaluation.json", "evaluation.csv", "evaluation.md", "evaluation.tex"),
    *("images.csv", "classes.csv"),
)


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan(EvaluationTarget):
    """Images, threat models and attacks of an evaluation."""

    steps: int = 50
    restarts: int = 10
    eot: int = 1  # passes that average each gradient of PGD, TRADES, CW and targeted PGD
    own: Mapping[str, Search] = field(default_factory=dict)  # other attacks that ``names`` has
    left_out: Sequence[str] = ()  # a line for each attack that belongs here but is not available

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges("evaluation.EvaluationPlan", self)

    @cached_property
    def attacks(self) -> dict[AttackKey, Attack]:
        return {
            AttackKey(name, eps): self._attack(name, ball)
            for eps, ball in self.balls.items()
            for name in self.names
        }

    def _attack(self, name: str, ball: Ball) -> Attack:
        if name in self.own:
            return CustomAttack(ball, self.own[name], name)
        if name == "pgd":
            return restarted_pgd(ball, restarts=self.restarts, **self._settings(name))
        return named_attack(name, ball, **self._settings(name))

    def _settings(self, name: str) -> dict[str, Any]:
        return super()._settings(name) | ({"eot": self.eot} if name in ITERATED else {})

    def label(self, name: str) -> str:
        averaged = f" (EOT-{self.eot})" if self.eot > 1 and name in ITERATED else ""
        return super().label(name) + averaged


def evaluate_command(cfg: DictConfig, overrides: Sequence[str] = ()) -> str:
    """Evaluates the network that the configuration names; returns the text to print."""
    model = open_model(cfg, overrides)
    plan = plan_of(cfg, model)
    for line in plan.left_out:
        sys.stderr.write(f"left out: {line}\n")
    out = None if cfg.out is None else Path(str(cfg.out))
    with keys_of(cfg, name="attacks"):
        folder, text = evaluate(model, plan, out, batch_size=cfg.batch_size, progress=cfg.progress)
    more = sorted(
        file.name for name in ("accuracy.*", "robustbench.json") for file in folder.glob(name)
    )
    return f"{text}\nwritten to {folder}/: {', '.join([*FILES, *more])}"


def plan_of(cfg: DictConfig, model: TrainedModel) -> EvaluationPlan:
    """The evaluation that a configuration asks for.

    AutoAttack is left out where it is not installed and the user has not named it.
    """
    own = own_attacks(cfg.attack)
    names, left_out = list(cfg.attacks or ("fgsm", "pgd", "autoattack", *own)), []
    if cfg.attacks is None and not is_installed():
        names.remove("autoattack")
        left_out = [f"AutoAttack is not installed: {install(EXTRA)}"]
    if unused := sorted(own.keys() - set(names)):
        raise ValueError(f"attack.{unused[0]}: add {unused[0]} to attacks=[{','.join(names)}]")
    return EvaluationPlan(
        **EvaluationPlan.fields_of(cfg, [model]),
        names=names,
        restarts=cfg.restarts,
        eot=cfg.eot,
        own=own,
        left_out=left_out,
    )


def evaluate(
    model: TrainedModel,
    plan: EvaluationPlan,
    out: Path | None = None,
    *,
    batch_size: int | None = None,
    progress: bool = True,
) -> tuple[Path, str]:
    """Evaluates a network, or resumes its evaluation, and writes the files.

    They go to ``out``, by default a folder below ``model.folder``; ``batch_size`` images are
    attacked at once, which changes no result. Returns the folder, and the table with the checks as
    Markdown.

    Raises:
        ValueError: if ``out`` holds another evaluation.
    """
    _ = plan.attacks  # refused here, or never
    evaluator = plan.evaluator(model, batch_size=batch_size, progress=progress)
    record = describe(model, plan, evaluator)
    if out is None:
        radii = list(plan.balls)
        eps = radii[0] if len(radii) == 1 else f"{radii[0]}-to-{radii[-1]}"
        n = str(len(evaluator.images))
        words = (model.which or "weights", plan.norm, eps, n, plan.split, record["key"][:6])
        out = model.folder / "evaluation" / "-".join(words).replace("/", "of")
    folder = ResultFolder(out, "evaluation", record["key"])
    with folder.in_use():
        return folder.path, _evaluate(model, plan, evaluator, folder, record)


def _evaluate(
    model: TrainedModel,
    plan: EvaluationPlan,
    evaluator: Evaluator,
    folder: ResultFolder,
    record: dict[str, Any],
) -> str:
    attacks, names = plan.attacks, model.config.dataset.get("names")
    evaluator = replace(evaluator, journal=Journal(folder))
    named = {key.name: attack for key, attack in attacks.items()}
    require_classes(named, lambda: evaluator.classes(model.net))
    later = len(plan.balls) * black_box_passes(len(evaluator.images))
    outcomes = evaluator.outcomes(model.net, attacks, later=later)
    correct = {key: found.correct for key, found in outcomes.items()}
    checks = network_checks(model.net, evaluator)
    checks += attack_checks(model.net, evaluator, plan.balls, correct)
    record |= {
        "accuracies": [
            {
                "attack": key.name,
                "label": key.name if key == CLEAN else plan.label(key.name),
                "eps": 0.0 if key == CLEAN else plan.balls[key.eps].eps,
                "eps_text": key.eps,
                **accuracy(found, evaluator.images.labels.cpu(), names),
                "forward_passes": found.cost.passes,
                "calls": found.cost.calls if _is_whole(attacks.get(key)) else None,
            }
            for key, found in outcomes.items()
        ],
        "checks": [asdict(check) for check in checks],
        "left_out": list(plan.left_out),
        "environment": environment(),
    }
    with folder.staged() as part:
        text = _write_files(part, record, evaluator, correct, names)
        if entry := leaderboard_entry(record, model.config, attacks):
            content = json.dumps(entry, indent=2) + "\n"
            (part / "robustbench.json").write_text(content, encoding="utf-8")
        if len(plan.balls) > 1:
            title = f"{setting([model.config])}; {setting_line(record)}"
            save(accuracy_figure(record, title), part / "accuracy")
    return text


def _is_whole(attack: Attack | None) -> bool:
    """Whether an attack calls the network as often whatever the batch size is."""
    return attack is not None and attack.searches_together


def describe(model: TrainedModel, plan: EvaluationPlan, evaluator: Evaluator) -> dict[str, Any]:
    """The settings of an evaluation, and the key of its result."""
    indices, every = list(evaluator.numbers), len(getattr(model.data, plan.split))
    settings: dict[str, Any] = {
        "dataset": {
            "name": model.config.dataset.name,
            "split": plan.split,
            "images": len(indices),
            "of": every,
            "seed": plan.subset_seed if len(indices) < every else None,
        },
        "norm": plan.norm,
        "eps": list(plan.balls),
        "attacks": list(map(plan.label, plan.names)),
        "own": {name: _code(search) for name, search in plan.own.items()},
        "seed": plan.seed,
        "precision": "fp32",
    }
    key = result_key(model, evaluator.images, {**settings, "indices": indices})
    return {"network": model.identity, **settings, "key": key}


def _code(search: Search) -> str:
    """Name and digest of the source of an attack, as far as Python has it."""
    name = f"{getattr(search, '__module__', '')}.{getattr(search, '__qualname__', repr(search))}"
    with suppress(OSError, TypeError):
        name += f" ({sha256(inspect.getsource(search).encode())[:12]})"
    return name


def setting_line(record: Mapping[str, Any]) -> str:
    data, network = record["dataset"], record["network"]
    images = f"all {data['of']}"
    if data["images"] < data["of"]:
        drawn = "the first" if data["seed"] is None else f"drawn with seed {data['seed']}"
        images = f"{data['images']} of {data['of']} ({drawn})"
    return (
        f"{network_text(network)}: {images} {data['split']} images of {data['name']}, "
        f"{NORM_LABELS[record['norm']]}, fp32, Wilson intervals."
    )


def _write_files(
    folder: Path,
    record: Mapping[str, Any],
    evaluator: Evaluator,
    correct: Mapping[AttackKey, Mask],
    names: Sequence[str] | None,
) -> str:
    """Writes ``FILES``; returns settings, table and checks as Markdown."""
    text = _markdown(record)
    labels = evaluator.images.labels.cpu()
    masks = (mask.int().tolist() for mask in correct.values())
    images = zip(evaluator.numbers, labels.tolist(), *masks, strict=True)
    contents = (
        json.dumps(record, indent=2) + "\n",
        Table.of(record["accuracies"]).csv(),
        text + "\n",
        _table(record).latex() + "\n",
        Table(("image", "label", *correct), list(images)).csv(),
        Table.of(class_rows(correct, labels, names)).csv(),
    )
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_text(content, encoding="utf-8")
    return text


def _table(record: Mapping[str, Any]) -> Table:
    rows = [
        (
            row["label"],
            row["eps_text"],
            f"{row['correct']} of {row['images']}",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            f"{100 * row['ece']:.1f}",
            f"{100 * row['worst_class_accuracy']:.1f} ({row['worst_class_name']})",
        )
        for row in record["accuracies"]
    ]
    return Table(
        ("attack", "eps", "correct", "accuracy %", "95 % interval", "ECE %", "worst class %"), rows
    )


def _markdown(record: Mapping[str, Any]) -> str:
    lines = [setting_line(record), "", _table(record).markdown(), ""]
    for check in record["checks"]:
        verdict = RESULTS[check["passed"]]
        meaning = "" if check["passed"] else f"; {check['meaning']}"
        lines.append(f"- {verdict}: {check['name']}: {check['finding']}{meaning}")
    lines += [f"- left out: {line}" for line in record["left_out"]]
    return "\n".join(lines)
