"""From a config to objects: ``make`` to instantiate, ``build`` to wire."""

import copy
import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from energy_at.attacks import Attack
from energy_at.attacks.registry import column_of
from energy_at.config.cli import quieten
from energy_at.config.initial_weights import describe_initial, load_initial
from energy_at.config.nodes import nodes_in, with_key
from energy_at.config.schema import check
from energy_at.config.versions import allow, instantiate
from energy_at.core.rules import ArgumentError
from energy_at.core.trust import OURS, TIMM, require_trusted
from energy_at.data import ImageData, Splits
from energy_at.data.images import as_splits
from energy_at.data.own_images import facts
from energy_at.models.libraries import without_published
from energy_at.objectives import LabelSmoothing, Objective, Weighted
from energy_at.reporting.describe import display_name, tags
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import (
    AdversarialTraining,
    CheckpointFiles,
    CompiledNet,
    SharedBatchNorm,
    WeightPerturbation,
)
from energy_at.training.requirements import require_initialized


@dataclass(frozen=True)
class Run:
    """Everything that a config describes, ready to fit."""

    module: AdversarialTraining
    data: ImageData
    trainer: Trainer


def make(cfg: Any, *, without: Sequence[str] = (), factory: bool = False) -> Any:
    """Instantiates a config into plain Python objects.

    Without ``_convert_`` a mapping of objects would come back as a ``DictConfig``, which turns the
    dataclasses inside it into configs again.

    Args:
        cfg: A node of a configuration.
        without: Keys of it that are not arguments of its target.
        factory: Bind the arguments only.

    Raises:
        ValueError: with the key of an argument that breaks its rule, or of a target that is not
            trusted.
    """
    trusted = require_trusted(cfg)
    if without:  # of a copy with all that is around it: messages name the whole key
        cfg = OmegaConf.select(copy.deepcopy(cfg._get_root()), cfg._get_full_key(None))
        OmegaConf.set_struct(cfg, False)
        for name in without:
            cfg.pop(name, None)
    options: dict[str, Any] = {"_convert_": "all"} | allow(instantiate=trusted)
    if factory:
        options["_partial_"] = True
    try:
        return instantiate(cfg, **options)
    except InstantiationException as error:
        if not isinstance(error.__cause__, ArgumentError):
            raise
        node = str(error).rpartition("full_key: ")[2].strip()  # where Hydra names the place
        raise with_key(cfg, f"{node}.{error.__cause__.argument}", error.__cause__) from error


@contextmanager
def keys_of(node: DictConfig, **renamed: str) -> Iterator[None]:
    """Puts the key of a node in front of an argument that breaks its rule.

    Raises:
        ValueError: with the key, which may be ``renamed``: argument=key. A key that the node lacks
            is one of the command.
    """
    try:
        yield
    except ArgumentError as error:
        name = renamed.get(error.argument, error.argument)
        above = node._get_full_key(None) if name.partition(".")[0] in node else ""
        raise with_key(node, f"{above}.{name}".lstrip("."), error) from error


def build(
    cfg: DictConfig,
    folder: RunFolder,
    *,
    wandb_id: str | None = None,
    fresh: bool = True,
    overrides: Sequence[str] = (),
) -> Run:
    """Wires the objects that a config names; the only place that knows them all.

    Without ``fresh``, published weights that the network would begin with are not loaded; what
    ``overrides`` name of the network does not follow these weights.
    """
    data = build_data(cfg)  # first: a network follows the images
    with keys_of(cfg):
        said = describe_initial(cfg, overrides) if fresh else ()
    module = build_module(cfg, fresh=fresh, said=said)
    return Run(module, data, build_trainer(cfg, folder, wandb_id))


def build_data(cfg: DictConfig) -> ImageData:
    """The data of a run; what a configuration leaves to the images is written into it."""
    data = cfg.dataset
    keys = ["root", "batch_size", "eval_batch_size", "val_size", "subset", "pad", "flip"]
    keys += ["storage", "extra", "extra_share"]
    reader = functools.cache(make(data.reader, factory=True))
    with keys_of(data):
        if left_open(data):
            describe(data, as_splits(reader(Path(data.root).expanduser())))
        return ImageData(
            reader,
            **{key: data[key] for key in keys},
            seed=cfg.seed,
            channels_last=cfg.training.channels_last,
        )


def describe(data: DictConfig, images: Splits) -> None:
    """Writes into the configuration of a data set what it leaves to its images, if anything."""
    if not left_open(data):
        return
    for key, value in facts(images).items():
        if data.get(key) is None:
            data[key] = value


def left_open(data: DictConfig) -> bool:
    """Whether the configuration of a data set leaves anything to its images."""
    keys = ("channels", "size", "classes", "mean", "std", "pad", "val_size")
    return any(data.get(key) is None for key in keys)


def build_module(
    cfg: DictConfig, *, fresh: bool = False, said: Sequence[str] = ()
) -> AdversarialTraining:
    """The network with its objective; a ``fresh`` one begins with the weights that are named.

    Lines that are to be ``said`` of these weights follow their own.
    """
    awp = cfg.training.awp
    with keys_of(awp, warmup_epochs="warmup"):
        perturbation = WeightPerturbation(awp.gamma, awp.warmup) if awp.gamma else None
    make(cfg.threat.ball)  # first, or Hydra forgets how its radius was typed
    share = cfg.loss.get("label_smoothing", 0)
    with keys_of(cfg.loss, share="label_smoothing", spread="smoothing"):
        spread = cfg.loss.get("smoothing", "uniform")
        smoothing = LabelSmoothing(share, cfg.dataset.classes, spread)
    terms = make_terms(cfg.loss.terms) | make_terms(cfg.reg.terms)
    attack = make(cfg.attack.search)
    if not isinstance(attack, Attack):
        raise ValueError(
            f"attack.search makes a {type(attack).__name__}, which is no attack: derive its class "
            "from energy_at.attacks.Attack"
        )
    net = make(cfg.model) if fresh else _make_without_weights(cfg.model)
    require_initialized(net)
    if fresh:
        load_initial(cfg, net, said)
    if cfg.training.channels_last:
        net = net.to(memory_format=torch.channels_last)
    with keys_of(cfg.training, eps_warmup_epochs="eps_warmup"):
        return AdversarialTraining(
            net,
            attack,
            Objective(terms, skip_flat=_skips(cfg)),
            val_attacks=make_attacks(cfg.validation),
            optimizer=make(cfg.optimizer, factory=True),
            schedule=make(cfg.schedule, factory=True),
            bn_mode=cfg.training.bn_mode,
            eps_warmup_epochs=cfg.training.eps_warmup,
            smoothing=smoothing if share else None,
            awp=perturbation,
            seed=cfg.seed,
            reuse=cfg.training.get("reuse", True),
        )


def _make_without_weights(model: DictConfig) -> Any:
    """The network of a run, whose weights are in its checkpoint: no published ones are requested.

    A stranger's configuration could name any.
    """
    own = OmegaConf.select(copy.deepcopy(model._get_root()), model._get_full_key(None))
    for node in nodes_in(own):
        if OmegaConf.select(node, "_target_") in (TIMM, f"{OURS}.models.timm"):
            OmegaConf.set_struct(node, False)
            node["pretrained"] = False
    with without_published():
        return make(own)


def make_terms(nodes: DictConfig) -> dict[str, Weighted]:
    """Terms by name; the coefficient of each is among its own arguments."""
    terms = {}
    for name, node in nodes.items():
        own = {key: node[key] for key in ("weight", "ramp_epochs") if key in node}
        if node.get("_partial_"):
            raise ValueError(f"{node._get_full_key(None)}._partial_=true must be false for a term")
        term = make(node, without=tuple(own))
        with keys_of(node):
            terms[str(name)] = Weighted(term, **own)
    return terms


def build_trainer(cfg: DictConfig, folder: RunFolder, wandb_id: str | None = None) -> Trainer:
    """Lightning's trainer, with the callbacks and loggers of a run."""
    hidden = {"progress"} if cfg.trainer.get("enable_progress_bar") is False else set()
    callbacks = [
        _callback(callback, folder)
        for name, callback in cfg.callbacks.items()
        if callback is not None and name not in hidden
    ]
    if mode := cfg.training.get("compile"):
        callbacks.append(CompiledNet(mode))
    loggers = build_loggers(cfg, folder.path, "train", id=wandb_id)
    plugins: list[Any] = [SharedBatchNorm(), CheckpointFiles()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # resume= queues a job again
    settings = make(cfg.trainer)
    kept = [name for name in ("last", "best") if cfg.callbacks.get(name) is not None]
    if kept and settings.get("enable_checkpointing") is False:
        raise ValueError(
            f"trainer.enable_checkpointing=false contradicts callbacks.{kept[0]}: leave it out"
        )
    quieten()
    try:
        return Trainer(
            **settings,
            callbacks=callbacks,
            logger=loggers or False,
            plugins=plugins,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ValueError(f"Lightning refuses the trainer's settings: {error}") from error


def build_loggers(cfg: DictConfig, folder: Path, job_type: str, **options: Any) -> list[Logger]:
    """The loggers that a config names; ``job_type`` and options are for W&B."""
    about: dict[str, Any] = {"config": OmegaConf.to_container(cfg, resolve=True)}
    loggers = []
    for name, logger in cfg.logger.items():
        if logger is None:
            continue
        if "_target_" not in logger:
            raise ValueError(f"logger.{name} must have a _target_: energy_at.training.csv_logger")
        found: dict[str, Any] = {}
        if name == "wandb":
            found = about | options | {"job_type": logger.get("job_type") or job_type}
            if job_type == "train":
                found["name"] = logger.get("name") or display_name(cfg)
                found["tags"] = list(dict.fromkeys([*(logger.get("tags") or []), *tags(cfg)]))
        elif name in ("tensorboard", "mlflow"):
            found = about | {"run_name": display_name(cfg), "tags": tags(cfg)}
        loggers.append(make(logger, factory=True)(folder, **found))
    return loggers


def reopen(
    folder: RunFolder, which: str = "last", cfg: DictConfig | None = None
) -> tuple[AdversarialTraining, ImageData]:
    """Network and data of a run that has been trained, with its configuration or with ``cfg``.

    Raises:
        FileNotFoundError: if the checkpoint, or the data, is not there.
        ValueError: if the checkpoint cannot be read, or belongs to another network, or if a value
            breaks its rule.
    """
    cfg = cfg or folder.config()
    check(cfg)
    checkpoint = folder.checkpoint(which)
    module, data = build_module(cfg), build_data(cfg)
    restore(module, checkpoint)
    return module, data


def restore(module: AdversarialTraining, checkpoint: Path) -> None:
    """Gives a module the weights of a checkpoint.

    Raises:
        ValueError: if the checkpoint cannot be read, or belongs to another network.
    """
    state, own = read_checkpoint(checkpoint)["state_dict"], module.state_dict()
    try:
        for name in own.keys() & state.keys():
            if state[name].is_complex() and not own[name].is_complex():  # torch would only warn
                raise TypeError(f"{name} is complex")
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        config = RunFolder(checkpoint.parents[1]).config_file
        raise ValueError(f"{checkpoint} is of another network than {config} describes") from error


def make_attacks(stage: DictConfig) -> dict[str, Attack]:
    """The attacks of a stage by column, as ``pgd10``; one that is null is left out."""
    made = make(stage.attacks)
    return {column_of(name, attack): attack for name, attack in made.items() if attack is not None}


def _callback(node: DictConfig, folder: RunFolder) -> Callback:
    callback = make(node)
    if isinstance(callback, functools.partial):
        with keys_of(node):
            known = inspect.signature(callback.func).parameters
            if unknown := [name for name in callback.keywords if name not in known]:
                key = f"{node._get_full_key(None)}.{unknown[0]}"
                raise ValueError(
                    f"{key}: {callback.func.__name__} takes no {unknown[0]}: leave it out"
                )
            if "dirpath" in callback.keywords:
                key = f"{node._get_full_key(None)}.dirpath"
                raise ValueError(f"{key}: checkpoints lie in the run folder: leave it out")
            callback = callback(dirpath=folder.checkpoints)
    if not isinstance(callback, Callback):
        raise ValueError(f"a Lightning callback is needed, got {callback!r}")
    return callback


def _skips(cfg: DictConfig) -> bool:
    """Finding out whether DER is inactive costs nothing on the CPU and a wait on a GPU."""
    wish = cfg.training.skip_inactive
    on_cpu = cfg.trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
    return on_cpu if wish == "auto" else bool(wish)
