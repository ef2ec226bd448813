"""What the checks try things on: devices, images, a network, and a training of a few steps."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from energy_at.attacks import pgd, rs_fgsm
from energy_at.attacks.threat import Linf
from energy_at.core.types import Images, Labels
from energy_at.data import ImageData
from energy_at.data.readers import synthetic
from energy_at.doctor.findings import Checks, Verdict
from energy_at.models import Normalized, preactresnet18
from energy_at.objectives import DER, Weighted
from energy_at.training import FastAT

Weights = dict[str, Tensor]
CHANNELS, SIZE, CLASSES = 3, 8, 2


def devices() -> list[torch.device]:
    """The CPU, and the GPU where there is one."""
    names = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [torch.device(name) for name in names]


def on_every_device(checks: dict[str, Callable[[torch.device], Verdict]]) -> Checks:
    """The same checks on each device, under names such as ``attacks on cpu``."""
    return {
        f"{name} on {device.type}": partial(check, device)
        for name, check in checks.items()
        for device in devices()
    }


def batch(device: torch.device) -> tuple[Images, Labels]:
    """Sixteen images of noise, and their labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((16, CHANNELS, SIZE, SIZE), generator=generator)
    return x.to(device), torch.arange(16, device=device) % CLASSES


def noise(device: torch.device) -> torch.Generator:
    """Where an attack draws from."""
    return torch.Generator(device).manual_seed(0)


def small_net(device: torch.device, seed: int = 0) -> Normalized:
    """A PreActResNet18 of width 4; the global generators must be the caller's to draw from."""
    torch.manual_seed(seed)
    middle = [0.5] * CHANNELS
    net = preactresnet18(channels=CHANNELS, classes=CLASSES, mean=middle, std=middle, width=4)
    return net.to(device)


@dataclass(eq=False)  # Lightning hashes callbacks
class Record(Callback):
    """Weights at each step of a training, and at each validation.

    Attributes:
        live: Weights of the network after each step.
        average: Weights of its moving average after each step, if there is one.
        validated: Weights of the network that each validation ran.
        shared: Whether the average has ever shared memory with the network.
        metrics: What the last validation measured.
    """

    live: list[Weights] = field(default_factory=list)
    average: list[Weights] = field(default_factory=list)
    validated: list[Weights] = field(default_factory=list)
    shared: bool = False
    metrics: dict[str, float] = field(default_factory=dict)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """After each step, and after every callback before this one."""
        assert isinstance(pl_module, FastAT)
        self.live.append(weights(pl_module.net))
        if "val_ema" in pl_module.validated_nets:
            average = pl_module.validated_nets["val_ema"]()
            self.average.append(weights(average))
            self.shared |= bool(_memory(average) & _memory(pl_module.net))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        """Before each validation; there is one batch of it."""
        assert isinstance(pl_module, FastAT)
        self.validated.append(weights(pl_module.net))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After each validation."""
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


def trained(
    device: torch.device,
    *,
    seed: int = 0,
    epochs: int = 1,
    callbacks: Sequence[Callback] = (),
    deterministic: bool | None = None,
) -> Record:
    """Fast AT with DER, two steps in each epoch; and a validation after it."""
    record = Record()
    with undisturbed():
        net = small_net(torch.device("cpu"), seed)
        regularizers = {"der": Weighted(DER("all"), 1.0)}
        ball = Linf(8 / 255)
        module = FastAT(
            net,
            ball,
            regularizers,
            attack=rs_fgsm(ball),
            val_attacks={"pgd": pgd(ball, steps=1)},
            seed=seed,
        )
        trainer = Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=1,
            max_epochs=epochs,
            callbacks=[*callbacks, record],
            deterministic=deterministic,
            inference_mode=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, _images(seed))
    return record


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors this small wait for threads longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Global generators, and the switches of a deterministic trainer, are as before afterwards."""
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    gpus = range(torch.cuda.device_count())
    with torch.random.fork_rng(gpus), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on a training of four steps
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
            if workspace is not None:
                os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


def weights(net: nn.Module) -> Weights:
    """A copy of the parameters."""
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def equal(a: Weights, b: Weights) -> bool:
    """Whether they are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _images(seed: int) -> ImageData:
    reader = partial(
        synthetic, download=False, channels=CHANNELS, size=SIZE, classes=CLASSES, n_train=48
    )
    return ImageData(reader, Path(), batch_size=16, val_size=16, seed=seed)


def _memory(net: nn.Module) -> set[int]:
    return {value.data_ptr() for value in net.state_dict().values()}
