"""A standard, non-robust network for the handwritten digits, and a run that ends with it."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F

from energy_at.data.readers import digits
from energy_at.models import small
from tests.helpers.running import train_in

TRAINING = (
    "dataset=digits",
    "model=small",
    "model.width=8",
    "threat.eps=0.1",
    "logger=none",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "validation.attacks.pgd.steps=1",
    "evaluation.subset=1",
    "callbacks.progress=null",
    "callbacks.best=null",
)


def digits_net():
    """The network, made in less than a second, and 360 images for a test: it is right on 79 %."""
    net, images = _trained()
    return deepcopy(net), images


@lru_cache
def _trained():
    train, test = digits(Path())
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = small(channels=1, classes=10, width=8, mean=[0.3053], std=[0.3762])
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(4):
            for batch in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                logits = net(train.pixels[batch] / 255)
                F.cross_entropy(logits, train.labels[batch]).backward()
                optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return net.eval(), test


def digits_run(folder):
    """The folder of a run whose last network is the trained one."""
    train_in(folder, *TRAINING)
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for key, value in digits_net()[0].state_dict().items():
        checkpoint["state_dict"][f"net.{key}"] = value
    torch.save(checkpoint, path)
    return folder
