"""What a value of the configuration may be, so that a slip of the hand is met by its name."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

Rule = tuple[str, Callable[[Any], bool]]


def check(cfg: DictConfig) -> None:
    """Refuses the first value that its key cannot have.

    Raises:
        ValueError: with the key, the value and what it must be.
    """
    require(cfg, _rules(cfg))


def require(cfg: DictConfig, rules: Mapping[str, Rule]) -> None:
    """Refuses the first value that breaks the rule of its key; a key that is not there breaks none.

    Raises:
        ValueError: with the key, the value and what it must be.
    """
    for key, (must, holds) in rules.items():
        value = OmegaConf.select(cfg, key, default=_MISSING)
        if value is not _MISSING and not holds(value):
            shown = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            raise ValueError(f"{key}={shown} must be {must}")


def require_single(overrides: Sequence[str]) -> None:
    """Refuses several choices of a group, which Hydra would lay over each other key by key.

    Raises:
        ValueError: with the override.
    """
    for override in overrides:
        group, _, chosen = override.lstrip("+").partition("=")
        if group in SINGLE and chosen.startswith("["):
            first, *others = chosen.strip("[]").split(",")
            sweep = f", or each in turn: -m {group}={','.join([first, *others])}" if others else ""
            combined = ", or a combination that has a file: reg=der_gradalign"
            raise ValueError(
                f"{override}: {group} takes one choice, such as {group}={first}"
                + (combined if group == "reg" else "")
                + sweep
            )


def integer(low: int, high: float = math.inf) -> Rule:
    """An integer within closed limits; ``True`` is none."""
    limits = f"from {low} to {high}" if high < math.inf else f">= {low}"
    return f"an integer {limits}", lambda v: type(v) is int and low <= v <= high


def number(low: float, high: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number within closed limits, or above the lower one."""
    sign = ">" if above else ">="
    limits = f"{sign} {low:g}" + (f" and <= {high:g}" if high < math.inf else "")

    def holds(value: Any) -> bool:
        if type(value) not in (int, float) or not math.isfinite(value):
            return False
        return bool((value > low if above else value >= low) and value <= high)

    return f"a finite number {limits}", holds


def or_null(rule: Rule) -> Rule:
    """What a rule allows, or nothing."""
    must, holds = rule
    return f"{must}, or null", lambda value: value is None or holds(value)


def one_of(*names: str) -> Rule:
    """One of several names."""
    return f"{', '.join(names[:-1])} or {names[-1]}", lambda value: value in names


def _some_of(*names: str) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, list | ListConfig) and len(value) > 0 and set(value) <= set(names)

    return f"a list of {' and '.join(names)}, such as [{names[0]}]", holds


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list | ListConfig) and bool(value) and len(set(value)) == len(value)


def _is_below_one(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1


def is_path(value: Any) -> bool:
    """Whether a value names one file or folder."""
    return type(value) in (str, int, float) and value != ""  # a job's folder may be called 0


def _is_project(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and not set(value) & set(_RESERVED)


def _is_account(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not set(value) & {*_RESERVED, " "}


def _are_words(value: Any) -> bool:
    return isinstance(value, list | ListConfig) and all(type(v) is str and v for v in value)


def _are_paths(value: Any) -> bool:
    return all(map(is_path, value)) if isinstance(value, list | ListConfig) else is_path(value)


TRUTH: Rule = ("true or false", lambda value: isinstance(value, bool))
STEPS, EPOCHS, SHARE = integer(1), number(0), number(0, 1, above=True)
WEIGHT = number(0)
GROUP: Rule = ("a group of keys: set the keys in it", lambda v: isinstance(v, DictConfig))
SINGLE = (  # groups whose choices exclude each other; those of callbacks and logger add up
    "dataset",
    "model",
    "threat",
    "attack",
    "loss",
    "reg",
    "optimizer",
    "schedule",
    "trainer",
    "experiment",
    "scale",
    "sweep",
)
_MISSING = object()
_RESERVED = "/\\#?%:"  # W&B has them in no name
_ACCOUNT: Rule = (f"the name of an account or team, without spaces or {_RESERVED}", _is_account)
_PROJECT: Rule = (f"the name of a project, of at most 128 characters but {_RESERVED}", _is_project)

RULES: dict[str, Rule] = {
    "training": GROUP,
    "training.awp": GROUP,
    "loss.terms": GROUP,
    "reg.terms": GROUP,
    "attack.search": GROUP,
    "threat.ball": GROUP,
    "validation": GROUP,
    "validation.attacks": GROUP,
    "evaluation": GROUP,
    "callbacks.sentinel.thresholds": GROUP,
    "callbacks.sentinel.der": GROUP,
    "callbacks.sentinel.der.term": GROUP,
    "evaluation.attacks": GROUP,
    "seed": integer(0, 2**32 - 1),
    "dataset.subset": or_null(integer(1)),
    "dataset.val_size": integer(1),
    "dataset.batch_size": integer(1),
    "dataset.eval_batch_size": integer(1),
    "dataset.pad": integer(0),
    "dataset.flip": TRUTH,
    "dataset.download": TRUTH,
    "dataset.root": ("the path of a folder", lambda value: isinstance(value, str)),
    "model.width": integer(1),
    "model.widen": integer(1),
    "model.final_norm": TRUTH,
    "attack.steps": STEPS,
    "attack.restarts": STEPS,
    "attack.k": number(0, above=True),
    "loss.beta": WEIGHT,
    "optimizer.lr": number(0, above=True),
    "optimizer.momentum": number(0, 1),
    "optimizer.weight_decay": WEIGHT,
    "optimizer.nesterov": TRUTH,
    "optimizer.decay_norm": TRUTH,
    "schedule.peak": number(0, 1),
    "schedule.pct_start": number(0, 1),
    "schedule.factor": SHARE,
    "trainer.max_epochs": integer(1),
    "trainer.devices": (
        "a number of processes >= 1, or auto",
        lambda v: v == "auto" or (type(v) is int and v >= 1),
    ),
    "trainer.num_nodes": STEPS,
    "trainer.strategy": (
        "auto or ddp, the one way that several processes train here",
        lambda v: v in ("auto", "ddp"),
    ),
    "trainer.check_val_every_n_epoch": STEPS,
    "training.eps_warmup": EPOCHS,
    "training.awp.gamma": WEIGHT,
    "training.awp.warmup": EPOCHS,
    "training.channels_last": TRUTH,
    "training.reuse": TRUTH,
    "training.keep_memory": TRUTH,
    "training.skip_inactive": ("auto, true or false", lambda v: v == "auto" or type(v) is bool),
    "evaluation.subset": or_null(integer(1)),
    "evaluation.checkpoints": _some_of("last", "best"),
    "evaluation.images": _some_of("val", "test"),
    "callbacks.energy.every": STEPS,
    "callbacks.guard.every": STEPS,
    "callbacks.sentinel.action": one_of("warn", "checkpoint", "stop", "rollback"),
    "callbacks.sentinel.remedy": one_of("auto", "der", "beta", "alpha"),
    "callbacks.sentinel.factor": number(1, above=True),
    "callbacks.sentinel.rollbacks": STEPS,
    "callbacks.sentinel.rewind": TRUTH,
    "callbacks.sentinel.classes": integer(2),
    "callbacks.sentinel.der.weight": number(0, above=True),
    "callbacks.sentinel.thresholds.window": integer(4),
    "callbacks.sentinel.thresholds.patience": integer(1),
    "callbacks.sentinel.thresholds.recovery": integer(1),
    **{
        f"callbacks.sentinel.thresholds.{name}": ("a number > 0 and < 1", _is_share)
        for name in ("aae_share", "alignment", "ratio", "divergence", "drop", "rise")
    },
    "callbacks.last.every_n_steps": or_null(STEPS),
    "subset": or_null(integer(1)),  # of evaluate and analyse
    "subset_seed": or_null(integer(0, 2**32 - 1)),
    "steps": STEPS,
    "restarts": STEPS,
    "iterations": STEPS,
    "queries": STEPS,
    "batch_size": or_null(STEPS),
    "norm": or_null(("linf or l2", lambda value: value in ("linf", "l2"))),
    "split": ("test, val or train", lambda value: value in ("test", "val", "train")),
    "n": STEPS,
    "shown": STEPS,
    "judge": ("auto, none or the folder of a run", is_path),
    "start.k": STEPS,
    "start.variance": SHARE,
    "start.scale": number(0),
    "start.by": ("features or pixels", lambda value: value in ("features", "pixels")),
    "guidance.draw": ("empirical or mean", lambda value: value in ("empirical", "mean")),
    "guidance.tolerance": number(0),
    "guidance.width": number(0),
    "guidance.pulls": TRUTH,
    "sampler.energy": (
        "joint, marginal, conditional or cross_entropy",
        lambda value: value in ("joint", "marginal", "conditional", "cross_entropy"),
    ),
    "sampler.steps": integer(0),
    "sampler.step_size": number(0, above=True),
    "sampler.momentum": ("a number >= 0 and < 1", _is_below_one),
    "sampler.noise": number(0),
    "sampler.normalize": TRUTH,
    "sampler.radius": or_null(number(0, above=True)),
    "sampler.precision": ("fp32 or bf16", lambda value: value in ("fp32", "bf16")),
    "quality.reference": (
        "train, val or test",
        lambda value: value in ("train", "val", "test"),
    ),
    "quality.weights": or_null(("the path of one file", is_path)),
    "device": ("auto, cpu or cuda", lambda value: value in ("auto", "cpu", "cuda")),
    "progress": TRUTH,
    "json": TRUTH,  # of doctor
    "dry_run": TRUTH,  # of dashboard
    "entity": or_null(_ACCOUNT),
    "project": _PROJECT,
    "name": ("a name", lambda value: isinstance(value, str) and value.strip() != ""),
    "logger.wandb.entity": or_null(_ACCOUNT),
    "logger.wandb.project": _PROJECT,
    "logger.wandb.mode": or_null(one_of("online", "offline", "disabled")),
    "logger.wandb.tags": or_null(("a list of words, such as [co,cifar10]", _are_words)),
    "logger.wandb.log_checkpoints": TRUTH,
    "browser": TRUTH,  # of watch
    "once": TRUTH,
    "port": integer(0, 65535),
    "interval": number(0, above=True),
    "scenarios": or_null(("a list of different names, such as [fgsm,trades]", _is_list_of_names)),
    "rows": or_null(("a list of different names, such as [reference,full]", _is_list_of_names)),
    "precisions": _some_of("fp32", "bf16"),
    "attack_steps": STEPS,
    "sampler_steps": STEPS,
    "repeats": STEPS,
    "warmup": integer(0),
    "clock": ("wall or cpu", lambda value: value in ("wall", "cpu")),
    "threads": or_null(STEPS),
    "workers": ("auto or an integer >= 0", lambda v: v == "auto" or (type(v) is int and v >= 0)),
    "attacks": or_null(("a list of different names, such as [fgsm,pgd]", _is_list_of_names)),
    "runs": or_null(("the path of a folder, or a list of them", _are_paths)),
    "run": or_null(("the path of one folder", is_path)),
    "checkpoint": or_null(("the path of one file", is_path)),
    "out": or_null(("the path of one folder", is_path)),
    "which": or_null(one_of("last", "best", "healthy")),
}
REG_RULES: dict[str, Rule] = {
    "weight": WEIGHT,
    "gamma": WEIGHT,
    "ramp": EPOCHS,
    "ce": WEIGHT,
    "logits": WEIGHT,
    "sensitivity": number(0, above=True),
    "decay": number(0, 1),
    "detach_clean": TRUTH,
    "detach_start": TRUTH,
}


def _rules(cfg: DictConfig) -> dict[str, Rule]:
    """The rules of this configuration: regularizers may be combined, attacks are named freely."""
    rules = dict(RULES)
    reg = cfg.get("reg") or {}
    combined = [f"reg.{name}" for name, part in reg.items() if "terms" in _keys(part)]
    for prefix in ("reg", *combined):
        rules |= {f"{prefix}.{key}": rule for key, rule in REG_RULES.items()}
    for stage in ("validation", "evaluation"):
        for name in _keys(OmegaConf.select(cfg, f"{stage}.attacks")):
            rules |= {f"{stage}.attacks.{name}.{key}": STEPS for key in ("steps", "restarts")}
    return rules


def _keys(part: Any) -> list[str]:
    return [str(key) for key in part] if isinstance(part, DictConfig) else []


# Sweepers and launchers, which Hydra makes before any job begins

_SUBMITIT: dict[str, Rule] = {
    "timeout_min": integer(1),
    "nodes": integer(1),
    "tasks_per_node": integer(1),
    "gpus_per_node": or_null(integer(0)),
    "cpus_per_task": or_null(integer(1)),
    "mem_gb": or_null(number(0, above=True)),
    "max_num_timeout": integer(0),
    "signal_delay_s": integer(0),
    "array_parallelism": integer(1),
    "stderr_to_stdout": TRUTH,
}
STARTS: dict[str, dict[str, dict[str, Rule]]] = {  # keys of sweepers and launchers, by class
    "sweeper": {
        "GridSweeper": {"max_batch_size": or_null(integer(1))},
        "BasicSweeper": {"max_batch_size": or_null(integer(1))},
        "OptunaSweeper": {
            "n_trials": integer(1),
            "n_jobs": integer(1),
            "seed": integer(0, 2**32 - 1),
        },
        "AgentSweeper": {
            "n_trials": or_null(integer(1)),
            "file": ("the path of one file", is_path),
            "project": RULES["project"],
        },
    },
    "launcher": {
        "JoblibLauncher": {
            "n_jobs": (
                "an integer >= 1, or -1 for all cores",
                lambda v: type(v) is int and (v >= 1 or v == -1),
            )
        },
        "RayLauncher": {
            "cpus_per_job": number(0, above=True),
            "gpus_per_job": number(0),
            "num_cpus": or_null(integer(1)),
        },
        "LocalLauncher": _SUBMITIT,
        "SlurmLauncher": _SUBMITIT,
    },
}


def check_start(cfg: DictConfig) -> None:
    """Refuses the first value that the chosen sweeper or launcher cannot have.

    Args:
        cfg: With the part that is Hydra's.

    Raises:
        ValueError: with the key, the value and what it must be.
    """
    for part, choices in STARTS.items():
        target = OmegaConf.select(cfg, f"hydra.{part}._target_", default="")
        rules = choices.get(str(target).rpartition(".")[2], {})
        require(cfg, {f"hydra.{part}.{key}": rule for key, rule in rules.items()})


def required(key: str) -> str | None:
    """What a key of a sweeper or a launcher must be; ``None`` for any other."""
    _, _, name = key.partition("hydra.")
    part, _, last = name.partition(".")
    rules = [own[last] for own in STARTS.get(part, {}).values() if last in own]
    return rules[0][0] if rules else None
