"""Scenarios of the benchmark, and the configuration that all of its rows share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from energy_at.config.build import keys_of
from energy_at.core.rules import integer, one_of, require

Clock = Callable[[], float]


class Scenario(NamedTuple):
    """A kind of work: its label in the table, and its overrides of ``energy_at.train``, if any."""

    label: str
    overrides: tuple[str, ...] = ()


# How often DER is active depends on the training, so both extremes are forced: all examples count,
# or gamma is above every shift.
_ACTIVE = ("reg=der", "reg.samples=all")
_INACTIVE = ("reg=der", "reg.gamma=1000000.0")
_TRADES = ("attack=trades", "loss=trades")

SCENARIOS = {
    "fgsm": Scenario("FGSM-AT", ("attack=fgsm",)),
    "fgsm_der": Scenario("FGSM + DER, active", ("attack=fgsm", *_ACTIVE)),
    "fgsm_der_inactive": Scenario("FGSM + DER, inactive", ("attack=fgsm", *_INACTIVE)),
    "rs_fgsm_der": Scenario("RS-FGSM + DER", ("attack=rs_fgsm", *_ACTIVE)),
    "n_fgsm_der": Scenario("N-FGSM + DER", ("attack=n_fgsm", *_ACTIVE)),
    "gradalign": Scenario("FGSM + GradAlign", ("attack=fgsm", "reg=gradalign")),
    "pgd": Scenario("PGD AT", ("attack=pgd",)),
    "trades": Scenario("TRADES", _TRADES),
    "trades_der": Scenario("TRADES + DER", (*_TRADES, "reg=der")),
    "evaluation": Scenario("evaluation by PGD"),
    "sampling": Scenario("sampling"),
    "scaling": Scenario("PGD AT of three sizes", ("attack=pgd",)),
}
SCALING = "scaling"  # its rows are sizes of the bare loop
LIBRARIES = ("torchattacks", "foolbox")
REFERENCES = ("reference", *LIBRARIES)
ROWS = {
    "reference": "plain PyTorch loop",
    "torchattacks": "the same loop, torchattacks",
    "foolbox": "the same loop, foolbox",
    "bare": "our parts, bare loop",
    "full": "full run",
}
PRECISIONS = ("fp32", "bf16")
UNTIMED = 2  # turns that count operations and memory


@dataclass(frozen=True)
class Setting:
    """What the rows of a benchmark have in common."""

    config: DictConfig  # data set (for its sizes), network, threat model, optimizer
    device: torch.device
    scenarios: list[str]  # of SCENARIOS
    rows: list[str]  # of ROWS
    precisions: list[str]  # of PRECISIONS; reference loops run in fp32 only

    def __post_init__(self) -> None:
        counts = ("steps", "repeats", "attack_steps", "sampler_steps")
        require(integer(1), **{name: self.config[name] for name in counts})
        require(integer(0), warmup=self.config.warmup)
        with keys_of(self.config.dataset):
            require(integer(1), batch_size=self.config.dataset.batch_size)

    @classmethod
    def of(cls, cfg: DictConfig, device: torch.device) -> "Setting":
        """The scenarios, rows and precisions that a configuration asks for.

        Raises:
            ValueError: if a name is unknown, or the library of a row is not installed.
        """
        rows = select("rows", cfg.rows, list(ROWS))
        missing = [name for name in rows if name in LIBRARIES and find_spec(name) is None]
        if missing and cfg.rows is not None:
            raise ValueError(f"rows=[{missing[0]}]: {missing[0]} is not installed: leave it out")
        scenarios = select("scenarios", cfg.scenarios, list(SCENARIOS))
        if cfg.training.compile is not None and "gradalign" in scenarios:
            raise ValueError(
                f"training.compile={cfg.training.compile} has no second derivatives, which "
                "gradalign takes: leave it out of scenarios=[fgsm,fgsm_der,...]"
            )
        rows = [name for name in rows if name not in missing]
        return cls(cfg, device, scenarios, rows, select("precisions", cfg.precisions, PRECISIONS))

    @property
    def batch_size(self) -> int:
        return int(self.config.dataset.batch_size)

    @property
    def turns(self) -> int:
        """Of each row, untimed ones included."""
        return int(self.config.repeats + self.config.warmup) + UNTIMED

    @property
    def clock(self) -> Clock:
        """Wall-clock or CPU seconds, after the device has finished its work."""
        read = {"wall": time.perf_counter, "cpu": time.process_time}[self.config.clock]
        if self.device.type != "cuda":
            return read

        def synchronize_and_read() -> float:
            torch.cuda.synchronize(self.device)
            return read()

        return synchronize_and_read

    @property
    def workers(self) -> int:
        workers = self.config.workers
        return (2 if self.device.type == "cuda" else 0) if workers == "auto" else int(workers)

    @property
    def summary(self) -> dict[str, Any]:
        names = ("steps", "repeats", "clock", "attack_steps", "sampler_steps")
        training = {f"training.{key}": value for key, value in self.config.training.items()}
        return {"batch_size": self.batch_size, **{n: self.config[n] for n in names}, **training}

    def sizes(self) -> dict[str, "Setting"]:
        """Batch size, attack steps and optimizer steps: each once, twice and four times."""
        keys = {
            "batch": "dataset.batch_size",
            "attack steps": "attack_steps",
            "optimizer steps": "steps",
        }
        sizes = {}
        for n, (name, key) in product((1, 2, 4), keys.items()):
            config = self.config.copy()
            OmegaConf.update(config, key, n * OmegaConf.select(config, key))
            sizes[f"{n} x {name}"] = replace(self, config=config)
        return sizes

    def training(self, scenario: str, precision: str) -> DictConfig:
        """The configuration of a training as ``energy_at.train`` composes it."""
        overrides = [*SCENARIOS[scenario].overrides, "logger=csv", *_QUIET]
        if "attack=pgd" in overrides or "attack=trades" in overrides:
            overrides.append(f"attack.steps={self.config.attack_steps}")
        cfg = compose("train", overrides)
        with open_dict(cfg):
            for name in ("dataset", "model", "threat", "optimizer", "seed"):
                cfg[name] = self.config[name]
            classes = cfg.dataset.classes
            cfg.dataset.reader = {
                "_target_": "energy_at.data.synthetic",
                **{key: cfg.dataset[key] for key in ("channels", "size", "classes")},
                "n_train": self.batch_size * (self.config.steps * self.turns + 2) + classes,
                "n_test": classes,
            }
        cfg.training = OmegaConf.merge(cfg.training, self.config.training)
        cfg.dataset.val_size = classes
        cfg.dataset.subset = None
        cfg.trainer.precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[precision]
        cfg.trainer.accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        cfg.callbacks.energy.every = self.config.steps  # one transfer to the host in every turn
        return cfg


def select(key: str, names: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The names given, in the order of those known; all of them if ``names`` is ``None``.

    Raises:
        ValueError: if a name is unknown.
    """
    for name in names or ():
        require(one_of(*known), **{key: name})
    return [name for name in known if names is None or name in names]


_QUIET = (
    "callbacks.progress=null",  # the benchmark has a progress bar of its own
    "callbacks.best=null",  # and neither validates nor ends an epoch
    "callbacks.last=null",
    "trainer.enable_progress_bar=false",
    "trainer.limit_val_batches=0",
    "trainer.enable_checkpointing=false",
    "trainer.max_epochs=1000",
    "schedule=constant",
)
