"""Names for results that change with everything that the results depend on."""

import hashlib
import json
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from energy_at import __version__
from energy_at.data import ImageSet
from energy_at.subject import Subject


def key_of(*parts: Any) -> str:
    """A name for these values."""
    text = json.dumps([*parts, __version__, torch.__version__], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def network_key(subject: Subject) -> list[Any]:
    """The network: weights alone do not make one, the same fit another activation."""
    return [subject.fingerprint, OmegaConf.to_container(subject.config.model, resolve=True)]


def images_key(images: ImageSet) -> list[str]:
    """The images and their labels."""
    return [_digest(images.pixels), _digest(images.labels)]


def _digest(tensor: Tensor) -> str:
    values: Any = tensor.cpu().contiguous().flatten().numpy()  # hashed where they are, not copied
    return hashlib.sha256(values).hexdigest()
