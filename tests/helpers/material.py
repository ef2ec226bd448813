"""Plans of samplings, and a network of digits to sample from."""

from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from energy_at.data import ImageData
from energy_at.data.readers import digits
from energy_at.evaluation import TrainedModel
from energy_at.models import small
from energy_at.sampling.plan import plan_of
from tests.helpers.running import CONF


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plan_of(compose("sample", list(overrides)))


def plan(*overrides):
    return composed("n=40", "start.k=5", *overrides)


def other(*overrides):
    """The same without what only local PCA has."""
    return composed("n=40", *overrides)


def subject(*, seed=0, images=300, classes=10, act="relu"):
    train, test = digits(Path())
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = small(channels=1, classes=classes, width=4, mean=[0.3], std=[0.4]).eval()
    data = ImageData(
        lambda _: (train.first(images), test.first(100)), "", batch_size=4, val_size=20
    )
    config = OmegaConf.create(
        {
            "dataset": {"name": "digits", "classes": classes, "channels": 1},
            "model": {"act": act},
            "training": {"channels_last": False},
        }
    )
    return TrainedModel(net, data, config, "here", None, Path("here"), torch.device("cpu"))
