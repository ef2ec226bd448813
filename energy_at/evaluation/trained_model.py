"""Trained networks, of runs or of published weights: opened, evaluated on images, published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from energy_at import __version__
from energy_at.attacks.registry import ITERATED, LABELS
from energy_at.attacks.threat import BALLS, Ball
from energy_at.config import largest_radius, parse_pixels
from energy_at.config.build import build_data, build_loggers, keys_of, make, reopen
from energy_at.core.device import device_of
from energy_at.core.files import digest
from energy_at.core.interrupt import stop_if_interrupted
from energy_at.core.names import NORMS
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError, integer, one_of, or_null, require
from energy_at.core.trust import require_trusted
from energy_at.core.types import Labels
from energy_at.data import ImageData, ImageSet
from energy_at.evaluation.published_weights import open_weights
from energy_at.evaluation.robustness import Evaluator
from energy_at.reporting.comparison import compare
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.checkpoints import state_digest
from energy_at.runs.folder import RunFolder, runs_in
from energy_at.runs.selection import moved_data, named_folders, require_distinct
from energy_at.training.loggers import TolerantWandb


@dataclass(frozen=True)
class TrainedModel:
    """A trained network, its data set and its configuration."""

    net: nn.Module
    data: ImageData
    config: DictConfig  # data set, model and threat: of its run, or of the command line
    source: str  # where the weights come from, for people: a run or a file
    which: str | None  # last, best or healthy; None for a file that holds one network
    folder: Path  # where results about it go, unless the user names another folder
    device: torch.device  # where the network lies
    chosen: Mapping[str, Any] = field(default_factory=dict)  # what a file of weights left open
    mark: str = ""  # "collapsed" or "not robust": the accuracies of this checkpoint are no result

    def __post_init__(self) -> None:
        with keys_of(self.config.dataset):
            self.data.setup()

    @property
    def norm(self) -> str:
        """``linf`` or ``l2``, of the threat model that it was trained for."""
        ball = make(self.config.threat.ball)
        return next(name for name, kind in BALLS.items() if isinstance(ball, kind))

    def largest_radius(self, norm: str) -> float:
        return largest_radius(norm, self.config.dataset.channels, self.config.dataset.size)

    def threat_models(self, norm: str | None, eps: Any, *, key: str = "eps") -> dict[str, Ball]:
        """Balls by their radius as it was written.

        Args:
            norm: ``linf`` or ``l2``; that of the training by default.
            eps: A radius or a list of radii; by default that of the training, or in another norm
                that of the data set.
            key: The user's key, for messages.

        Raises:
            ValueError: if a radius is not a length in pixels, or the list is empty.
        """
        norm = norm or self.norm
        require(one_of(*NORMS), norm=norm)
        if eps is None:
            same = norm == self.norm
            eps = self.config.threat.eps if same else self.config.dataset.eps[norm]
        radii = list(eps) if OmegaConf.is_list(eps) or isinstance(eps, list) else [eps]
        if not radii:
            raise ValueError(f"{key}=[] names no radius: write {key}=[4/255,8/255]")
        most = self.largest_radius(norm)
        balls: dict[str, Ball] = {}
        for text in (str(radius).replace(" ", "") for radius in radii):
            try:
                balls[text] = BALLS[norm](parse_pixels(key, text, most))
            except ArgumentError as error:
                raise ValueError(f"{key}={text} must be {error.must}") from error
        return balls

    @property
    def identity(self) -> dict[str, Any]:
        """Source, checkpoint, mark and digest of the weights, for the record of a result."""
        named: dict[str, Any] = {"source": self.source, "which": self.which, "mark": self.mark}
        return {**named, **self.chosen, "sha256": self.weights_digest}

    @cached_property
    def weights_digest(self) -> str:
        return state_digest(self.net.state_dict())


@dataclass(frozen=True, kw_only=True)
class EvaluationTarget:
    """Images, threat models and attacks that a network is evaluated on."""

    norm: str  # linf or l2
    balls: Mapping[str, Ball]  # by their radius as it was written
    names: Sequence[str]  # of the attacks
    steps: int  # of PGD, TRADES, CW and targeted PGD
    restarts: int = 1  # of PGD
    split: str = "test"  # or val, or train
    subset: int | None = None  # number of images; None for all
    subset_seed: int | None = 0  # draws them; None takes the first ones
    seed: int = 0  # of the noise of the attacks
    at_most: ClassVar[bool] = False  # whether all images are taken if there are fewer

    def __post_init__(self) -> None:
        require_ranges("evaluation.EvaluationTarget", self)

    @staticmethod
    def fields_of(cfg: DictConfig, models: Sequence[TrainedModel]) -> dict[str, Any]:
        """The fields that the keys of a command set, with one threat model for all networks.

        Raises:
            ValueError: if a radius is not a length, or the networks were trained for different
                threat models and the keys name none.
        """
        found = {}
        for model in models:
            norm, balls = cfg.norm or model.norm, model.threat_models(cfg.norm, cfg.eps)
            found[norm, tuple(balls.values())] = balls
        if len(found) > 1:
            each = sorted(f"{norm} {', '.join(balls)}" for (norm, _), balls in found.items())
            raise ValueError(
                f"the runs have different threat models ({', '.join(each)}): name one for all, "
                "such as norm=linf eps=8/255"
            )
        (((norm, _), balls),) = found.items()
        keys = ("steps", "split", "subset", "subset_seed", "seed")
        return {"norm": norm, "balls": balls} | {key: cfg[key] for key in keys}

    def label(self, name: str) -> str:
        """``PGD-50-10``: steps and restarts of an attack; a single restart is not written."""
        steps = [self.steps] if name in ITERATED else []
        restarts = [self.restarts] if name == "pgd" and self.restarts > 1 else []
        return "-".join([LABELS.get(name, name), *map(str, steps + restarts)])

    def _settings(self, name: str) -> dict[str, Any]:
        """Arguments of the attack of this name."""
        return {"steps": self.steps} if name in ITERATED else {}

    def images(self, model: TrainedModel) -> tuple[ImageSet, list[int]]:
        """The images on the device of a network, and their indices in the split.

        Raises:
            ValueError: if the split has fewer, unless the subset is ``at_most`` so large.
        """
        images: ImageSet = getattr(model.data, self.split)
        n = self.subset
        if not self.at_most:
            require(or_null(integer(1, len(images))), subset=n)
        indices = self.drawn(len(images))
        return images.take(indices).to(model.device), indices.tolist()

    def drawn(self, n_images: int) -> Labels:
        """Indices of the subset of ``n_images`` images."""
        n = self.subset
        if n is None or self.subset_seed is None:
            return torch.arange(n_images)[:n]
        generator = torch.Generator().manual_seed(self.subset_seed)
        return torch.randperm(n_images, generator=generator)[:n].sort().values

    def evaluator(
        self, model: TrainedModel, *, batch_size: int | None = None, progress: bool = False
    ) -> Evaluator:
        """Attacks these images, on the device of a network; ``batch_size`` changes no result.

        Raises:
            ValueError: if the split has fewer images.
        """
        images, indices = self.images(model)
        return Evaluator(
            images,
            indices,
            model.config.dataset.eval_batch_size if batch_size is None else batch_size,
            channels_last=model.config.training.channels_last,
            seed=self.seed,
            progress=progress,
        )


def result_key(model: TrainedModel, images: ImageSet, settings: Mapping[str, Any]) -> str:
    """Digest of everything that a result about a network depends on, but for the machine.

    Weights alone do not make a network: the same fit another activation or another padding.

    ``settings`` holds everything but the network and the images, as JSON values.
    """
    return digest(
        {
            "weights": model.weights_digest,
            "model": OmegaConf.to_container(model.config.model, resolve=True),
            "dataset": images.digests(),
            "settings": settings,
            "versions": [__version__, torch.__version__],
        }
    )


def network_text(network: Mapping[str, Any]) -> str:
    """``runs/a, best checkpoint (collapsed)``: a network by its identity."""
    which = f", {network['which']} checkpoint" if network["which"] else ""
    return f"{network['source']}{which}" + (f" ({network['mark']})" if network["mark"] else "")


def open_model(cfg: DictConfig, overrides: Sequence[str] = ()) -> TrainedModel:
    """The network that ``run=FOLDER``, or ``checkpoint=FILE`` with its groups, names.

    Of the ``overrides`` of the command line, a run allows ``dataset.root`` alone.

    Raises:
        FileNotFoundError: if the run or the checkpoint does not exist.
        ValueError: unless exactly one is named, or if it cannot be opened.
    """
    stop_if_interrupted()
    if cfg.run is not None:
        return open_run(str(cfg.run), cfg, overrides)
    config = cfg.copy()
    config.seed = 0  # of the data: what is held out does not depend on the seed of the command
    data = build_data(config)  # first: a network follows the images
    net, chosen = open_weights(config, data, overrides)
    path = Path(str(cfg.checkpoint))
    folder = Path(path.stem)
    if folder.is_file():  # a checkpoint without a suffix
        folder = Path(f"{path.stem}.files")
    device = device_of(cfg.device)
    return TrainedModel(net, data, config, str(path), cfg.which, folder, device, chosen=chosen)


def open_models(cfg: DictConfig, overrides: Sequence[str] = ()) -> dict[str, TrainedModel]:
    """The networks that ``run``, ``runs`` or ``checkpoint`` names, by method and seed, or by file.

    Raises:
        FileNotFoundError: if a run or the checkpoint does not exist.
        ValueError: unless exactly one key is set, or if the runs have different data sets.
    """
    if cfg.checkpoint is not None:
        return {Path(cfg.checkpoint).name: open_model(cfg, overrides)}
    names = named_folders(cfg.runs) if cfg.run is None else []
    folders = [run for name in names for run in runs_in(name)] or [RunFolder.open(cfg.run)]
    require_distinct(folders)
    models = [open_run(str(folder.path), cfg, overrides) for folder in folders]
    for other in models[1:]:
        names = [str(model.config.dataset.name) for model in (models[0], other)]
        if names[0] != names[1]:
            raise ValueError(
                f"{models[0].source} is of {names[0]} and {other.source} of {names[1]}: only runs "
                "of one data set can be compared"
            )
    labels = {entry.path: str(entry.label) for entry in compare(folders)}
    return {labels[f.path]: model for f, model in zip(folders, models, strict=True)}


def open_run(run: str, cfg: DictConfig, overrides: Sequence[str] = ()) -> TrainedModel:
    """The network of a run, with the run's own data set and threat model.

    Raises:
        FileNotFoundError: if there is no run, or it lacks the checkpoint.
        ValueError: if an override changes what the run fixes.
    """
    stop_if_interrupted()
    folder, which = RunFolder.open(run), cfg.which or "last"
    config = OmegaConf.merge(folder.config(), OmegaConf.from_dotlist(moved_data(overrides)))
    assert isinstance(config, DictConfig)
    module, data = reopen(folder, which, config)
    device = device_of(cfg.device)
    mark = FinishedRun(folder).mark(which) if folder.results_file.is_file() else ""
    net = module.net.to(device)
    return TrainedModel(net, data, config, str(run), which, folder.path, device, mark=mark)


def require_wandb_only(cfg: DictConfig) -> None:
    """Raises ``ValueError`` if there is a logger besides W&B: only a training writes it.

    Or if its target is refused, which would come after all that is to be logged.
    """
    if others := [name for name in cfg.logger if name != "wandb"]:
        raise ValueError(f"logger={others[0]}: only trainings write it; choose wandb or none")
    require_trusted(cfg.logger)


def publish(
    cfg: DictConfig,
    model: TrainedModel,
    folder: Path,
    job_type: str,
    values: Mapping[str, Any],
) -> None:
    """Sends values to W&B in a run of their own, with the configuration of command and training."""
    config = cfg.copy()
    OmegaConf.set_struct(config, False)
    for group in ("dataset", "model", "threat"):  # a run brings its own
        config[group] = model.config[group]
    config["trained"] = model.config if cfg.checkpoint is None else None
    for logger in build_loggers(config, folder, job_type):
        assert isinstance(logger, TolerantWandb)
        logger.log_metrics(values)
        logger.finish()
