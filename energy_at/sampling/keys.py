"""Names for results that change with everything that the results depend on."""

from typing import Any

import torch
from omegaconf import OmegaConf

from energy_at import __version__
from energy_at.core.files import digest
from energy_at.evaluation.trained_model import TrainedModel


def key_of(*parts: Any) -> str:
    """A name for these values."""
    return digest([*parts, __version__, torch.__version__])


def network_key(subject: TrainedModel) -> list[Any]:
    """The network: weights alone do not make one, the same fit another activation."""
    return [subject.weights_digest, OmegaConf.to_container(subject.config.model, resolve=True)]
