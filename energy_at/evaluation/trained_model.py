"""A trained network and the images it is judged on: of a run, or of anybody's weights."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from energy_at.attacks.threat import L2, Ball, Linf
from energy_at.config.build import build_data, make, reopened
from energy_at.config.resolvers import parse_pixels
from energy_at.core.device import device_of
from energy_at.data import ImageData, ImageSet
from energy_at.models.weights import load_weights
from energy_at.runs.checkpoints import read_tensors
from energy_at.runs.folder import RunFolder

BALLS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}


@dataclass(frozen=True)
class TrainedModel:
    """What is judged.

    Attributes:
        net: The network, on its device.
        data: The data set it is judged on.
        config: Of the run, or as it was typed: data set, model, threat.
        source: Where the weights came from, for people: a run or a file.
        which: ``last``, ``best`` or ``healthy``; ``None`` for a file that holds one network.
        folder: Where what is found belongs, unless the user names another place.
        device: Where the network lies.
    """

    net: nn.Module
    data: ImageData
    config: DictConfig
    source: str
    which: str | None
    folder: Path
    device: torch.device

    @property
    def norm(self) -> str:
        """``linf`` or ``l2``, of its own threat model."""
        ball = make(self.config.threat.ball)
        return next(name for name, kind in BALLS.items() if isinstance(ball, kind))

    def balls(self, norm: str | None, eps: Any, *, key: str = "eps") -> dict[str, Ball]:
        """The threat models to judge by, with their radii as they were written.

        Args:
            norm: ``linf`` or ``l2``; its own if left out.
            eps: A radius, or a list of radii; its own, or the data set's in another norm, if left
                out.
            key: Where the user wrote them.

        Raises:
            ValueError: if a radius is no length in pixels or beyond all images, or there is none.
        """
        norm = norm or self.norm
        if eps is None:
            same = norm == self.norm
            eps = self.config.threat.eps if same else self.config.dataset.eps[norm]
        radii = list(eps) if OmegaConf.is_list(eps) or isinstance(eps, list) else [eps]
        if not radii:
            raise ValueError(f"{key}=[] names no radius: write {key}=[4/255,8/255]")
        most = 1 if norm == "linf" else math.sqrt(self.data.test.pixels[0].numel())
        texts = [str(radius).replace(" ", "") for radius in radii]
        return {text: BALLS[norm](parse_pixels(key, text, most)) for text in texts}

    def chosen(self, split: str, n: int | None, seed: int | None) -> tuple[ImageSet, list[int]]:
        """Images of a split on the device, and their places in it.

        Args:
            split: ``test``, ``val`` or ``train``.
            n: How many; all if left out.
            seed: Draws them; ``None`` takes the first ``n``.

        Raises:
            ValueError: if there are fewer.
        """
        images: ImageSet = getattr(self.data, split)
        if n is not None and n > len(images):
            raise ValueError(f"subset={n} is out of reach: there are {len(images)} {split} images")
        places = torch.arange(len(images))
        if n is not None and seed is not None:
            generator = torch.Generator().manual_seed(seed)
            places = torch.randperm(len(images), generator=generator)[:n].sort().values
        places = places[:n]
        return images.take(places).to(self.device), places.tolist()

    @property
    def fingerprint(self) -> str:
        """Changes with every weight."""
        digest = hashlib.sha256()
        for name, value in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def opened(cfg: DictConfig, overrides: Sequence[str] = ()) -> TrainedModel:
    """The network that ``run=FOLDER``, or ``checkpoint=FILE`` with its groups, names.

    Args:
        cfg: With ``run``, ``checkpoint``, ``which`` and ``device``, and the groups.
        overrides: What was typed; of a run, only where its data lies can be another.

    Raises:
        ValueError: unless exactly one of ``run`` and ``checkpoint`` is named.
    """
    if (cfg.run is None) == (cfg.checkpoint is None):
        raise ValueError(
            "name what to open: run=FOLDER, or checkpoint=FILE with its model= and dataset="
        )
    return _of_file(cfg) if cfg.run is None else of_run(str(cfg.run), cfg, overrides)


def of_run(run: str, cfg: DictConfig, overrides: Sequence[str] = ()) -> TrainedModel:
    """The network of a run, with the run's own data set and threat.

    Raises:
        ValueError: if an override would make them another run's.
    """
    overrides = [override.lstrip("+~") for override in overrides]
    moved = [o for o in overrides if o.startswith("dataset.root=")]
    for override in sorted(set(overrides) - set(moved)):
        if override.startswith(("dataset", "model", "threat", "training")):
            raise ValueError(
                f"run={run} brings its own data set, model and threat: leave out {override}"
            )
    folder, which = RunFolder.open(run), cfg.which or "last"
    config = OmegaConf.merge(folder.config(), OmegaConf.from_dotlist(moved))
    assert isinstance(config, DictConfig)
    module, data = reopened(folder, which, config)
    device = device_of(cfg.device)
    return TrainedModel(module.net.to(device), data, config, str(run), which, folder.path, device)


def _of_file(cfg: DictConfig) -> TrainedModel:
    net, path = make(cfg.model), Path(str(cfg.checkpoint))
    load_weights(net, read_tensors(path), cfg.which)
    device = device_of(cfg.device)
    net = net.to(device, memory_format=torch.channels_last)
    folder = Path(path.stem)
    if folder.is_file():  # a checkpoint without a suffix
        folder = Path(f"{path.stem}.files")
    return TrainedModel(net, build_data(cfg), cfg, str(path), cfg.which, folder, device)
