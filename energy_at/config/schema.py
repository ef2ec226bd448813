"""Types of values, and ranges of those that no class of ours takes.

The classes that take the other values check them by ``energy_at.core.rules``.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.config.nodes import nodes_in, with_key
from energy_at.core.names import ATTACKS, SPLITS
from energy_at.core.ranges import RANGES, or_left_out, ranges_of
from energy_at.core.rules import (
    TRAINER,
    TRUTH,
    ArgumentError,
    Rule,
    integer,
    is_integer,
    is_list,
    number,
    one_of,
    only,
    or_null,
    some_of,
)
from energy_at.core.trust import may_be_trusted, require_trusted, set_trusted


def check(cfg: DictConfig) -> None:
    """Raises ``ValueError`` for a key that breaks its rule; a key that is not there breaks none."""
    nodes = list(nodes_in(cfg))
    for node in nodes:
        for name in filter(_RULES_ANYWHERE.get, map(str, node)):
            _check(cfg, node._get_full_key(name), _RULES_ANYWHERE[name])
    for above, rule in _RULES_BELOW.items():
        node = OmegaConf.select(cfg, above)
        for name in map(str, node) if isinstance(node, DictConfig) else ():
            _check(cfg, f"{above}.{name}", rule)
    for key, rule in RULES.items():
        if key == "attacks" and (own := OmegaConf.select(cfg, "attack")):
            rule = or_null(_names_such_as("fgsm,pgd", *ATTACKS, *map(str, own)))
        _check(cfg, key, rule)
    for node in nodes:
        for name, rule in _rules_of(node).items():
            _check(cfg, node._get_full_key(name), rule)
    _check_relations(cfg)


def check_start(cfg: DictConfig) -> None:
    """Checks the sweeper and the launcher, too, which Hydra makes before any job begins."""
    _check(cfg, "trust", RULES["trust"])
    set_trusted(OmegaConf.select(cfg, "trust", default=[]))
    for part in ("sweeper", "launcher"):
        own = cfg.hydra.get(part) or OmegaConf.create()
        for _, below in own.items_ex(resolve=False):  # Hydra itself builds plugins only
            require_trusted(below)
    if str(OmegaConf.select(cfg, "hydra.sweeper._target_")).endswith("OptunaSweeper"):
        _check(cfg, "hydra.sweeper.n_trials", integer(1))  # an agent may be asked for no number
    check(cfg)


def _rules_of(node: DictConfig) -> dict[str, Rule]:
    """The rules for the arguments in a node, those of a term's coefficient among them."""
    if "_target_" not in node:
        return {}
    above = node._get_parent()
    is_term = above is not None and above._key() == "terms"
    of_term = RANGES["objectives.Weighted"] if is_term else {}
    return {**of_term, **ranges_of(str(node._get_node("_target_")))}


def _check(cfg: DictConfig, key: str, rule: Rule) -> None:
    value = OmegaConf.select(cfg, key, default=_MISSING, throw_on_resolution_failure=False)
    if value is not _MISSING and (must := rule.broken_by(value)) is not None:
        shown = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        raise with_key(cfg, key, ArgumentError(key, shown, must))


def _check_relations(cfg: DictConfig) -> None:
    for (key, other), (must, fits) in _RELATIONS.items():
        value, beside = (OmegaConf.select(cfg, name) for name in (key, other))
        if value is not None and not fits(value, beside):
            raise with_key(cfg, key, ArgumentError(key, value, must.format(f"{other}={beside}")))


def is_path(value: Any) -> bool:
    """Whether a value names one file or folder."""
    return type(value) in (str, int, float) and value != ""  # a job's folder may be called 0


def _are_words(value: Any) -> bool:
    return is_list(value) and all(type(v) is str and v for v in value)


def _are_paths(value: Any) -> bool:
    return all(map(is_path, value)) if is_list(value) else is_path(value)


def _names_such_as(example: str, *known: str) -> Rule:
    """A list of names, such as the example; if any are known, then of these."""

    def holds(value: Any) -> bool:
        if not is_list(value) or not value or len(set(value)) < len(value):
            return False
        return not known or set(value) <= set(known)

    of = f", of {', '.join(known)}" if known else ""
    return Rule(f"a list of different names, such as [{example}]{of}", holds, known)


def _name_at_wandb(what: str, without: str) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, str) and 0 < len(value) <= 128 and not set(value) & set(without)

    return Rule(f"{what}, of at most 128 characters but {without.strip()}", holds)


def _or_auto(rule: Rule) -> Rule:
    return Rule(f"{rule.must}, or auto", lambda value: value == "auto" or rule.holds(value))


def _is_fraction(value: Any) -> bool:
    try:
        return math.isfinite(float(Fraction(str(value))))
    except (ValueError, ZeroDivisionError, OverflowError):
        return False


def _is_duration(value: Any) -> bool:
    """Days, hours, minutes and seconds, as Lightning's timer reads them; not none at all."""
    parts = value.split(":") if isinstance(value, str) else []
    return len(parts) == 4 and all(map(str.isdecimal, parts)) and any(map(int, parts))


_MISSING = object()
_RESERVED = "/\\#?%:"  # in no name at W&B
GROUP = Rule("a group of keys: set the keys in it", lambda v: isinstance(v, DictConfig))
_WORD = Rule("a word", lambda value: isinstance(value, str) and value != "")
_FOLDER = Rule("the path of one folder", is_path)
_FILE = Rule("the path of one file", is_path)
_ACCOUNT = _name_at_wandb("the name of an account or team, without spaces", _RESERVED + " ")
_PROJECT = _name_at_wandb("the name of a project", _RESERVED)
_PROCESSES = 2**16
_SEED = integer(0, 2**32 - 1)

_BY_KEYS: dict[str, Rule] = {
    "dataset model threat attack loss reg optimizer schedule trainer validation evaluation "
    "callbacks logger start guidance sampler quality protocol": GROUP,
    "training training.awp loss.terms reg.terms attack.search threat.ball "
    "validation.attacks evaluation.attacks callbacks.sentinel.thresholds "
    "callbacks.sentinel.der callbacks.sentinel.der.term": GROUP,
    "dataset.reader callbacks.continuation": GROUP,
    "dataset.download dataset.reader.download training.channels_last training.reuse "
    "training.keep_memory logger.wandb.log_checkpoints progress json dry_run browser once "
    "trainer.detect_anomaly trainer.enable_progress_bar trainer.enable_model_summary "
    "trainer.enable_autolog_hparams trainer.use_distributed_sampler": TRUTH,
    "trainer.max_epochs trainer.check_val_every_n_epoch": integer(1),
    "trainer.num_nodes": integer(1, _PROCESSES),
    "seed": _SEED,
    "dataset.root": Rule("the path of a folder", lambda value: isinstance(value, str)),
    "dataset.file dataset.extra dataset.cache": or_null(
        Rule("the path of one file or folder", lambda value: isinstance(value, str) and value != "")
    ),
    "dataset.config dataset.revision": or_null(
        Rule("a text, digits in quotes", lambda value: isinstance(value, str))
    ),
    "dataset.names": or_null(
        Rule("a list of names of classes, such as [cat,dog]", lambda v: is_list(v) and len(v) > 0)
    ),
    "normalize": one_of("auto", "dataset", "none"),
    "dataset.name": _WORD,
    "dataset.channels dataset.size": or_null(integer(1, 2**14)),
    "dataset.classes": or_null(integer(2, 2**20)),
    "threat.most": number(0, above=True),
    "dataset.eps.linf dataset.eps.l2": Rule("a number, or a fraction such as 8/255", _is_fraction),
    "attack.steps": Rule("an integer", is_integer),
    "resume": or_null(_FOLDER),
    "subset_seed": or_null(_SEED),
    "port": integer(0, 65535),
    "interval": number(0, above=True),
    "evaluation.checkpoints": some_of("last", "best"),
    "evaluation.images": some_of("val", "test"),
    "reg.samples reg.der.samples": one_of("auto", "abnormal", "all"),
    "device": one_of("auto", "cpu", "cuda"),
    "clock": one_of("wall", "cpu"),
    "which": or_null(one_of("last", "best", "healthy")),
    "logger.wandb.mode": or_null(one_of("online", "offline", "disabled")),
    "judge": Rule("auto, none or the folder of a run", is_path),
    "run out cache": or_null(_FOLDER),
    "checkpoint quality.weights": or_null(_FILE),
    "logger.mlflow.tracking_uri": or_null(Rule("an address or a folder", is_path)),
    "init": or_null(Rule("the path of a file of weights or of the folder of a run", is_path)),
    "init_sha256": or_null(Rule("a SHA-256 of 64 digits", lambda v: len(str(v)) == 64)),
    "runs": or_null(Rule("the path of a folder, or a list of them", _are_paths)),
    "entity logger.wandb.entity": or_null(_ACCOUNT),
    "project logger.wandb.project": _PROJECT,
    "name dataset.name attack.name loss.name reg.name start.name guidance.name sampler.name "
    "quality.name protocol.name logger.mlflow.experiment": Rule(
        "a name", lambda value: isinstance(value, str) and value.strip() != ""
    ),
    "logger.wandb.name logger.wandb.group logger.wandb.job_type logger.wandb.notes": or_null(
        Rule("a text, digits in quotes", lambda value: isinstance(value, str))
    ),
    "logger.wandb.tags": or_null(Rule("a list of words, such as [co,cifar10]", _are_words)),
    "trust": Rule(
        "a list of packages of yours, such as [my_package]",
        lambda value: _are_words(value) and all(map(may_be_trusted, value)),
    ),
    "attacks": or_null(_names_such_as("fgsm,pgd", *ATTACKS)),
    "ood": or_null(
        Rule(
            "a list of data sets, folders and .npz files, such as [svhn,my_images]",
            lambda value: is_list(value) and all(map(is_path, value)),
        )
    ),
    "quality.reference": one_of(*SPLITS, "train_test"),
    "quality.subset": or_null(integer(1)),
    "quality.most_confident": or_null(
        Rule(
            "two shares of the samples in (0, 1], that IS and that FID count, such as [0.1,0.9]",
            lambda v: is_list(v) and len(v) == 2 and all(map(number(0, 1, above=True).holds, v)),
        )
    ),
    "scenarios": or_null(_names_such_as("fgsm,trades")),
    "precisions": _names_such_as("fp32,bf16"),
    "rows": or_null(_names_such_as("reference,full")),
    "training.skip_inactive": _or_auto(TRUTH),
    "trainer.devices": _or_auto(
        Rule(f"a number of processes from 1 to {_PROCESSES}", integer(1, _PROCESSES).holds)
    ),
    "workers": _or_auto(integer(0)),
    "trainer.strategy": one_of("auto", "ddp"),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.max_time callbacks.timer.duration": or_null(
        Rule("days:hours:minutes:seconds, such as 00:12:00:00", _is_duration)
    ),
    "trainer.log_every_n_steps": integer(1),
    "trainer.num_sanity_val_steps": integer(-1),
    "trainer.reload_dataloaders_every_n_epochs": integer(0),
    "trainer.val_check_interval": or_null(number(0, above=True)),
    "trainer.limit_val_batches": or_null(number(0)),
    "trainer.gradient_clip_algorithm": or_null(one_of("norm", "value")),
    "trainer.deterministic": or_null(
        Rule("true, false or warn", lambda v: v == "warn" or TRUTH.holds(v))
    ),
    "trainer.benchmark": or_null(TRUTH),
    "trainer.profiler": or_null(
        Rule(
            "simple, advanced or pytorch",
            lambda v: isinstance(v, DictConfig) or v in ("simple", "advanced", "pytorch"),
        )
    ),
    "trainer.enable_checkpointing": or_null(TRUTH),
    "trainer.barebones": only(False, "it logs nothing"),
    "trainer.default_root_dir trainer.model_registry": or_null(_WORD),
    **{f"trainer.{name}": rule for name, rule in TRAINER.items()},
    "trainer.limit_train_batches trainer.gradient_clip_val": or_null(number(0, above=True)),
    "threads trainer.min_epochs trainer.min_steps": or_null(integer(1)),
    "trainer.inference_mode": only(False, "attacks need gradients"),
    "trainer.sync_batchnorm": only(False, "batch norm is shared already"),
    "trainer.limit_test_batches trainer.limit_predict_batches": only(
        None, "no training uses it: evaluation.subset limits test images"
    ),
    # sweepers and launchers
    "hydra.sweeper.n_jobs hydra.launcher.timeout_min hydra.launcher.nodes "
    "hydra.launcher.tasks_per_node hydra.launcher.array_parallelism": integer(1),
    "hydra.sweeper.max_batch_size hydra.sweeper.n_trials hydra.launcher.cpus_per_task "
    "hydra.launcher.num_cpus": or_null(integer(1)),
    "hydra.launcher.n_jobs": Rule(
        "an integer >= 1, or -1 for all cores",
        lambda v: v == -1 or integer(1).holds(v),
    ),
    "hydra.launcher.max_num_timeout hydra.launcher.signal_delay_s": integer(0),
    "hydra.launcher.gpus_per_node": or_null(integer(0)),
    "hydra.sweeper.seed": _SEED,
    "hydra.launcher.gpus_per_job": number(0),
    "hydra.launcher.cpus_per_job": number(0, above=True),
    "hydra.launcher.mem_gb": or_null(number(0, above=True)),
    "hydra.launcher.stderr_to_stdout": TRUTH,
    "hydra.sweeper.file": _FILE,
    "hydra.sweeper.project": _PROJECT,
}
_RELATIONS: dict[tuple[str, str], tuple[str, Callable[[Any, Any], bool]]] = {
    ("trainer.min_epochs", "trainer.max_epochs"): ("at most {}", lambda least, most: least <= most),
    ("trainer.min_steps", "trainer.max_steps"): (
        "at most {}",
        lambda least, most: most == -1 or least <= most,
    ),
    ("init_source", "init"): ("left out without init=FILE", lambda _, file: file is not None),
}
_BALL = Rule(GROUP.must, lambda value: isinstance(value, DictConfig) and bool(value))
_RULES_ANYWHERE = {  # what Hydra reads next to a _target_
    "ball": _BALL,
    "_partial_": TRUTH,
    "_recursive_": TRUTH,
    "_convert_": one_of("none", "partial", "object", "all"),
    "_args_": Rule("a list of arguments", is_list),
}
_RULES_BELOW = {  # of every key below these
    "loss.terms": GROUP,
    "reg.terms": GROUP,
    "validation.attacks": or_null(GROUP),
    "evaluation.attacks": or_null(GROUP),
    "callbacks": or_null(GROUP),
    "logger": or_null(GROUP),
}
_ARGUMENTS = {  # of what has no _target_: by their keys
    "data.ImageData": {f"dataset.{name}": name for name in RANGES["data.ImageData"]},
    "models.Normalize": {"dataset.mean": "mean", "dataset.std": "std"},
    "objectives.LabelSmoothing": {"loss.label_smoothing": "share", "loss.smoothing": "spread"},
    "training.AdversarialTraining": {
        "training.bn_mode": "bn_mode",
        "training.eps_warmup": "eps_warmup_epochs",
    },
    "training.WeightPerturbation": {
        "training.awp.gamma": "gamma",
        "training.awp.warmup": "warmup_epochs",
    },
    "training.CompiledNet": {"training.compile": "mode"},
    **{
        of: {name: name for name in RANGES[of]}
        for of in (
            "evaluation.EvaluationTarget",
            "evaluation.EvaluationPlan",
            "evaluation.Evaluator",
            "analysis.AnalysisPlan",
            "sampling.SamplingPlan",
        )
    },
}
_LEFT_OUT = (  # null: by others
    *("dataset.pad", "dataset.val_size", "dataset.mean", "dataset.std"),
    *("batch_size", "training.compile"),
)
RULES = {key: rule for keys, rule in _BY_KEYS.items() for key in keys.split()}
for _of, _keys in _ARGUMENTS.items():
    for _key, _name in _keys.items():
        RULES[_key] = RANGES[_of][_name]
RULES |= {key: or_left_out(RULES[key]) for key in _LEFT_OUT}
RULES |= {"evaluation.subset": RULES["subset"], "norm": or_null(RULES["norm"])}
