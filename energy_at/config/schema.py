"""Types of values, and ranges of those that no class of ours takes.

The classes that take the other values check them by ``energy_at.core.rules``.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.config.trust import require_trusted, set_trusted
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
    (("a list of packages, such as [my_package]", _are_words), "trust"),
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
    set_trusted(OmegaConf.select(cfg, "trust", default=[]))
    for part, choices in STARTS.items():
        target = OmegaConf.select(cfg, f"hydra.{part}._target_", default="")
        rules = choices.get(str(target).rpartition(".")[2], {})
        for key, below in cfg.hydra[part].items():  # Hydra itself builds plugins only
            require_trusted(below, f"hydra.{part}.{key}")
        require_rules(cfg, {f"hydra.{part}.{key}": rule for key, rule in rules.items()})


def rule_of(key: str) -> str | None:
    """What a key of a sweeper or a launcher must be; ``None`` for any other."""
    _, _, name = key.partition("hydra.")
    part, _, last = name.partition(".")
    rules = [own[last] for own in STARTS.get(part, {}).values() if last in own]
    return rules[0][0] if rules else None
