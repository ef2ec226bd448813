"""What may be typed: keys that exist, and values of the right type.

The classes that take the values check their ranges (``energy_at.core.rules``). The rules of keys
that no class of ours takes stand here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from energy_at.config import CONF
from energy_at.core.rules import TRUTH, Rule, integer, is_list, number, one_of, or_null, some_of


def check(cfg: DictConfig) -> None:
    """Checks the values of all keys that have a rule here.

    Raises:
        ValueError: with the key, the value and what it must be.
    """
    require_rules(cfg, RULES)


def require_rules(cfg: DictConfig, rules: Mapping[str, Rule]) -> None:
    """Checks values by the rules of their keys; a key that is not there breaks none.

    Raises:
        ValueError: with the key, the value and what it must be.
    """
    for key, (must, holds) in rules.items():
        value = OmegaConf.select(cfg, key, default=_MISSING)
        if value is not _MISSING and not holds(value):
            shown = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            raise ValueError(f"{key}={shown} must be {must}")


# Keys and choices


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


def require_read(cfg: DictConfig, name: str, overrides: Sequence[str]) -> None:
    """Refuses a key that was added with ``+`` and that nobody reads: it would change nothing.

    Legal are arguments of everything that has a ``_target_``, which refuses those that it does not
    know, and further things with a ``_target_``: callbacks, attacks, terms.

    Raises:
        ValueError: with the override.
    """
    added = [o for o in overrides if o.startswith("+") and not _is_argument(cfg, key_of(o))]
    if not added:
        return
    known = composed(name, overrides)
    for override in added:
        key = key_of(override)
        if OmegaConf.select(known, key, default=_MISSING) is _MISSING:
            hint = _suggest(key, keys_in(known))
            raise ValueError(f"{override}: nothing reads {key}, leave it out{hint}")


def unknown_key(key: str, name: str, overrides: Sequence[str]) -> str:
    """One line about a key that is not in the configuration, with the nearest ones."""
    group, _, rest = key.partition(".")
    cfg = composed(name, [o for o in overrides if key_of(o) != key], all_of_it=True)
    choices = {
        choice: {f"{group}.{own}" for own in keys_in(OmegaConf.load(file))}
        for choice, file in choices_of(group).items()
        if group in cfg.hydra.runtime.choices
    }
    if having := [choice for choice, keys in choices.items() if key in keys]:
        chosen = cfg.hydra.runtime.choices.get(group)
        first, *others = sorted(having, key=lambda choice: choice != "der")
        more = f" (or {', '.join(others)})" if others else ""
        return f"{group}={chosen} has no {rest}: add {group}={first}{more}"
    known = {*keys_in(cfg), *(k for keys in choices.values() for k in keys)}
    if not key.startswith("hydra."):
        known = {k for k in known if not k.startswith("hydra.")}
    return f"{key}: unknown key{_suggest(key, known)}"


def unknown_choice(group: str, choice: str, options: Iterable[str]) -> str:
    """One line about a choice that a group does not have, with the nearest one."""
    near = [f"{group}={option}" for option in nearest(choice, options, 1)]
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{group}={choice}: unknown choice; {hint}choose from {', '.join(options)}"


def choices_of(group: str) -> dict[str, Path]:
    """Files of a configuration group by choice."""
    return {file.stem: file for file in sorted(Path(CONF, group).glob("*.yaml"))}


def composed(name: str, overrides: Sequence[str], *, all_of_it: bool = False) -> DictConfig:
    """The configuration of a command with the groups that were chosen, as far as they exist."""
    chosen = [o for o in overrides if o.partition("=")[2] in choices_of(o.partition("=")[0])]
    with ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(CONF, version_base="1.3"))
        return compose(name, chosen, return_hydra_config=all_of_it)


def keys_in(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key that people type, full and dotted; not those that only say how objects are made."""
    if not isinstance(node, DictConfig):
        return
    for name in map(str, node):
        if name.startswith("_") or name in ("ball", "published", "search", "terms"):
            continue
        yield f"{prefix}{name}"
        if not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
            yield from keys_in(node[name], f"{prefix}{name}.")


def nearest(word: str, words: Iterable[str], n: int = 3) -> list[str]:
    """The most similar of some names, of which those with another path may share the last part."""

    def likeness(other: str) -> float:
        last = SequenceMatcher(None, word.rpartition(".")[2], other.rpartition(".")[2]).ratio()
        part = 0.8 if len(word) > 2 and word in other else 0.0
        return max(SequenceMatcher(None, word, other).ratio(), 0.9 * last, part)

    found = sorted(((likeness(other), other) for other in words), key=lambda one: (-one[0], one[1]))
    best = found[0][0] if found else 0
    return [other for ratio, other in found[:n] if ratio >= max(0.6, best - 0.1)]


def key_of(override: str) -> str:
    """Where ``+key=value``, or ``+group@package=choice``, puts something."""
    return override.lstrip("+~").partition("=")[0].rpartition("@")[2]


def _suggest(key: str, known: Iterable[str]) -> str:
    near = nearest(key, (other for other in known if not key.startswith(f"{other}.")))
    return f"; did you mean {' or '.join(near)}?" if near else "; --help lists all keys"


def _is_argument(cfg: DictConfig, key: str) -> bool:
    parts = key.split(".")
    nodes = [OmegaConf.select(cfg, ".".join(parts[: i + 1])) for i in range(len(parts))]
    return any(isinstance(node, DictConfig) and "_target_" in node for node in nodes)


# Rules


def _names_such_as(example: str) -> Rule:
    def holds(value: Any) -> bool:
        return is_list(value) and bool(value) and len(set(value)) == len(value)

    return f"a list of different names, such as [{example}]", holds


def is_path(value: Any) -> bool:
    """Whether a value names one file or folder."""
    return type(value) in (str, int, float) and value != ""  # a job's folder may be called 0


def _is_project(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and not set(value) & set(_RESERVED)


def _is_account(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not set(value) & {*_RESERVED, " "}


def _are_words(value: Any) -> bool:
    return is_list(value) and all(type(v) is str and v for v in value)


def _are_paths(value: Any) -> bool:
    return all(map(is_path, value)) if is_list(value) else is_path(value)


SINGLE = (  # groups whose choices exclude each other; those of callbacks and logger add up
    *("dataset", "model", "threat", "attack", "loss", "reg", "optimizer", "schedule", "trainer"),
    *("experiment", "scale", "sweep"),
)
_MISSING = object()
_RESERVED = "/\\#?%:"  # W&B has them in no name
_GROUP: Rule = ("a group of keys: set the keys in it", lambda v: isinstance(v, DictConfig))
_FOLDER: Rule = ("the path of one folder", is_path)
_FILE: Rule = ("the path of one file", is_path)
_ACCOUNT: Rule = (f"the name of an account or team, without spaces or {_RESERVED}", _is_account)
_PROJECT: Rule = (f"the name of a project, of at most 128 characters but {_RESERVED}", _is_project)
_SEED = integer(0, 2**32 - 1)

_BY_RULE: tuple[tuple[Rule, str], ...] = (
    (
        _GROUP,
        "training training.awp loss.terms reg.terms attack.search threat.ball validation "
        "validation.attacks evaluation evaluation.attacks callbacks.sentinel.thresholds "
        "callbacks.sentinel.der callbacks.sentinel.der.term",
    ),
    (
        TRUTH,
        "dataset.download training.channels_last training.reuse training.keep_memory "
        "logger.wandb.log_checkpoints progress json dry_run browser once",
    ),
    (
        integer(1),
        "trainer.max_epochs trainer.num_nodes trainer.check_val_every_n_epoch steps restarts "
        "iterations queries n shown attack_steps sampler_steps repeats",
    ),
    (integer(0), "warmup"),
    (_SEED, "seed"),
    (or_null(_SEED), "subset_seed"),
    (or_null(integer(1)), "evaluation.subset subset batch_size threads"),
    (integer(0, 65535), "port"),
    (number(0, above=True), "interval"),
    (some_of("last", "best"), "evaluation.checkpoints"),
    (some_of("val", "test"), "evaluation.images"),
    (some_of("fp32", "bf16"), "precisions"),
    (one_of("test", "val", "train"), "split"),
    (one_of("train", "val", "test"), "quality.reference"),
    (one_of("auto", "cpu", "cuda"), "device"),
    (one_of("wall", "cpu"), "clock"),
    (or_null(one_of("linf", "l2")), "norm"),
    (or_null(one_of("last", "best", "healthy")), "which"),
    (or_null(one_of("online", "offline", "disabled")), "logger.wandb.mode"),
    (("the path of a folder", lambda value: isinstance(value, str)), "dataset.root"),
    (("auto, none or the folder of a run", is_path), "judge"),
    (or_null(_FOLDER), "run out"),
    (or_null(_FILE), "checkpoint quality.weights"),
    (or_null(("the path of a folder, or a list of them", _are_paths)), "runs"),
    (or_null(_ACCOUNT), "entity logger.wandb.entity"),
    (_PROJECT, "project logger.wandb.project"),
    (("a name", lambda value: isinstance(value, str) and value.strip() != ""), "name"),
    (or_null(("a list of words, such as [co,cifar10]", _are_words)), "logger.wandb.tags"),
    (or_null(_names_such_as("fgsm,pgd")), "attacks"),
    (or_null(_names_such_as("fgsm,trades")), "scenarios"),
    (or_null(_names_such_as("reference,full")), "rows"),
    (("auto, true or false", lambda v: v == "auto" or type(v) is bool), "training.skip_inactive"),
    (
        ("a number of processes >= 1, or auto", lambda v: v == "auto" or integer(1)[1](v)),
        "trainer.devices",
    ),
    (("auto or an integer >= 0", lambda v: v == "auto" or integer(0)[1](v)), "workers"),
    (
        (
            "auto or ddp, the one way that several processes train here",
            lambda v: v in ("auto", "ddp"),
        ),
        "trainer.strategy",
    ),
    # what a training here cannot honour
    (
        ("1, as every step is one batch: raise dataset.batch_size", lambda v: v == 1),
        "trainer.accumulate_grad_batches",
    ),
    (
        (
            "false, as it would write results of a few batches: a short training is "
            "trainer.max_epochs=1 trainer.limit_train_batches=2",
            lambda v: v is False,
        ),
        "trainer.fast_dev_run",
    ),
    (
        ("0, as it would validate on training images: choose dataset.subset", lambda v: v == 0),
        "trainer.overfit_batches",
    ),
    (("false, as attacks need gradients", lambda v: v is False), "trainer.inference_mode"),
    (("false, as batch norm is shared already", lambda v: v is False), "trainer.sync_batchnorm"),
    (
        ("null, as no training uses it: evaluation.subset limits test images", lambda v: v is None),
        "trainer.limit_test_batches trainer.limit_predict_batches",
    ),
)
RULES = {key: rule for rule, keys in _BY_RULE for key in keys.split()}


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
            "seed": _SEED,
        },
        "AgentSweeper": {
            "n_trials": or_null(integer(1)),
            "file": _FILE,
            "project": _PROJECT,
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
        require_rules(cfg, {f"hydra.{part}.{key}": rule for key, rule in rules.items()})


def required(key: str) -> str | None:
    """What a key of a sweeper or a launcher must be; ``None`` for any other."""
    _, _, name = key.partition("hydra.")
    part, _, last = name.partition(".")
    rules = [own[last] for own in STARTS.get(part, {}).values() if last in own]
    return rules[0][0] if rules else None
