"""Rows of the benchmark: the reference loop, the same with a library's attack, ours, a full run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from energy_at.attacks import GradientAttack, pgd
from energy_at.benchmark import reference
from energy_at.benchmark.scenarios import LIBRARIES, REFERENCES, SCENARIOS, Clock, Setting
from energy_at.config.build import build, build_data, build_module, make
from energy_at.core.rng import CountedNoise
from energy_at.core.types import Images, Labels
from energy_at.data import ImageSet, as_floats, synthetic
from energy_at.data.loaders import Batch
from energy_at.evaluation.robustness import Evaluator
from energy_at.models.compile import compile_net
from energy_at.models.modes import Tiled, full_precision, no_graph, tile_of
from energy_at.runs.folder import RunFolder
from energy_at.sampling import Chains, Langevin, Unguided, generate
from energy_at.training import AdversarialTraining

Around = Callable[[], AbstractContextManager[object]]
Step = Callable[[Images, Labels], object]


@dataclass
class Loop:
    """A row that is a plain Python loop: a turn does ``steps`` batches."""

    step: Step
    batches: Iterator[Batch]  # enough for all turns
    steps: int
    device: torch.device  # where the batches go
    clock: Clock
    loading: float = field(default=0.0, init=False)  # seconds of the last turn spent on images
    images: int = field(default=0, init=False)  # of the last turn

    def turn(self, around: Around = nullcontext) -> None:
        self.loading, self.images = 0.0, 0
        with around():
            for _ in range(self.steps):
                start = self.clock()
                x, y = (part.to(self.device) for part in next(self.batches))
                self.loading += self.clock() - start
                self.step(x, y)
                self.images += len(y)

    def close(self) -> None:
        self.batches = iter(())


class StepwiseFit(Callback):
    """A row that is a Lightning fit, in a thread of its own so that it can take turns with others.

    It waits before each turn of ``steps`` optimizer steps. A step lasts from the start of a batch
    to the start of the next: it includes fetching the next batch, the optimizer, the schedule,
    every callback and every logger. ``fit`` is given this as its last callback.
    """

    loading = None

    def __init__(self, fit: Callable[[Callback], object], steps: int, images: int) -> None:
        self.steps, self.images = steps, images
        self._turns: Queue[Around | None] = Queue()
        self._finished: Queue[BaseException | None] = Queue()
        self._steps_left = 0
        self._context = ExitStack()
        self._thread = Thread(target=self._run, args=(fit,), daemon=True)
        self._thread.start()
        self._wait()

    def turn(self, around: Around = nullcontext) -> None:
        self._turns.put(around)
        self._wait()

    def close(self) -> None:
        self._turns.put(None)
        self._thread.join()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._steps_left -= 1
        if self._steps_left > 0:
            return
        self._context.close()
        self._finished.put(None)
        around = self._turns.get()
        if around is None:
            raise _Closed
        self._steps_left = self.steps
        self._context.enter_context(around())

    def _run(self, fit: Callable[[Callback], object]) -> None:
        try:
            fit(self)
            self._finished.put(RuntimeError("the fit has ended before its last turn"))
        except _Closed:
            pass
        except BaseException as error:  # for the thread that waits
            self._finished.put(error)

    def _wait(self) -> None:
        error = self._finished.get()
        if error is not None:
            raise error


class _Closed(Exception):  # noqa: N818  not an error
    pass


Row = Loop | StepwiseFit


def make_row(setting: Setting, scenario: str, name: str, precision: str) -> Row | None:
    """A row of ``ROWS``; ``None`` if it does not do the work of the scenario at this precision."""
    ours = name not in REFERENCES
    if precision == "bf16" and (not ours or scenario == "evaluation"):
        return None
    if SCENARIOS[scenario].overrides:
        return _training(setting, scenario, name, precision)
    if scenario == "sampling" and name in LIBRARIES:
        return None
    net, images = _labelled(setting, ours=ours)
    if scenario == "evaluation":
        step = _evaluation_step(setting, name, net, images)
    else:
        step = _sampling_step(setting, name, net, precision)
    batch = as_floats(images.pixels, channels_last=ours), images.labels
    return Loop(step, repeat(batch), setting.config.steps, setting.device, setting.clock)


def peak_row(setting: Setting, operation: str, precision: str) -> Loop:
    """The machine's peak of a single operation, which bounds the FLOP/s of every other row.

    ``matmul`` is of square matrices; ``convolution`` is 3x3 with 128 channels.
    """
    device, large = setting.device, setting.device.type == "cuda"
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    n = (8192 if large else 1024) if operation == "matmul" else (256 if large else 32)
    shapes = [(n, n), (n, n)] if operation == "matmul" else [(n, 128, 16, 16), (128, 128, 3, 3)]
    a, b = (torch.randn(shape, dtype=dtype, device=device) for shape in shapes)
    if operation == "convolution":
        a, b = (t.contiguous(memory_format=torch.channels_last) for t in (a, b))

    def step(*_: Any) -> None:
        with torch.no_grad():
            torch.matmul(a, b) if operation == "matmul" else F.conv2d(a, b, padding=1)

    nothing = torch.empty(0, device=device)
    return Loop(step, repeat((nothing, nothing)), 20 if large else 1, device, setting.clock)


def full_run(cfg: DictConfig) -> StepwiseFit:
    """A whole training with its callbacks and loggers; its monitor writes after every turn."""

    def fit(pauses: Callback) -> None:
        with TemporaryDirectory(prefix="energy_at_benchmark_") as folder:
            run = build(cfg, RunFolder(Path(folder)))
            run.trainer.callbacks.append(pauses)  # type: ignore[attr-defined]
            run.trainer.fit(run.module, run.data)

    steps = cfg.callbacks.energy.every
    return StepwiseFit(fit, steps, steps * cfg.dataset.batch_size)


def bare_step(module: AdversarialTraining, optimizer: Optimizer, precision: str) -> Step:
    """An optimizer step of our parts without Lightning's loop."""

    def step(x: Images, y: Labels) -> None:
        torch.compiler.cudagraph_mark_step_begin()  # outputs may be overwritten
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = module.training_step((x, y), 1)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _training(setting: Setting, scenario: str, name: str, precision: str) -> Row | None:
    cfg = setting.training(scenario, precision)
    steps, device = cfg.callbacks.energy.every, setting.device
    seed_everything(cfg.seed, workers=True, verbose=False)
    if name == "full":
        return full_run(cfg)
    cfg.training.channels_last = cfg.training.channels_last and name not in REFERENCES
    module, data = build_module(cfg).to(device), build_data(cfg)
    net, optimizer = module.net, module.optimizer(module.net)
    if name == "bare":
        if (mode := cfg.training.compile) is not None:
            compile_net(net, mode)
        data.place(device)
        step = bare_step(module.train(), optimizer, precision)
        return Loop(step, iter(data.train_dataloader()), steps, device, setting.clock)
    search, terms = reference.terms_of(module.attack, module.objective)
    library = reference.library_attack(name, net, search) if name in LIBRARIES else None
    if name in LIBRARIES and library is None:
        return None

    def reference_step(x: Images, y: Labels) -> None:
        reference.train_step(net, optimizer, x, y, search, terms, library=library)

    batches = reference.batches(
        data.train, data.batch_size, pad=data.pad, flip=data.flip, workers=setting.workers
    )
    return Loop(reference_step, batches, steps, device, setting.clock)


def _evaluation_step(setting: Setting, name: str, net: nn.Module, images: ImageSet) -> Step:
    """An evaluation by PGD with one restart: further ones would skip images that are broken."""
    attack = pgd(make(setting.config.threat.ball), steps=setting.config.attack_steps)
    assert isinstance(attack, GradientAttack)
    library = reference.library_attack(name, net, attack) if name in LIBRARIES else None
    evaluator = Evaluator(images, batch_size=len(images), channels_last=True)

    def step(x: Images, y: Labels) -> None:
        if name == "bare":
            with full_precision(x.device.type), no_graph():
                net(attack.run(net, x, y).x_adv)
        elif name == "full":
            evaluator.accuracies(net, {"pgd": attack})
        else:
            reference.evaluate(net, x, y, attack, library)

    return step


def _sampling_step(setting: Setting, name: str, net: nn.Module, precision: str) -> Step:
    sampler = Langevin(steps=setting.config.sampler_steps, precision=precision)
    tiled = Tiled(net, tile_of(setting.device))

    def step(x: Images, y: Labels) -> None:
        if name == "reference":
            reference.sample(net, x, y, steps=sampler.steps, step_size=sampler.step_size)
            return
        number, zero = torch.arange(len(y), device=y.device), torch.zeros(len(y), device=y.device)
        chains = Chains.start_at(number, y, x, zero, CountedNoise(number))
        if name == "full":
            list(generate(tiled, sampler, Unguided(), [chains], len(x)))
            return
        while len(chains):
            chains, _, _ = sampler.advance(net, chains, Unguided())

    return step


def _labelled(setting: Setting, *, ours: bool) -> tuple[nn.Module, ImageSet]:
    """An untrained network in evaluation mode, and a batch of images.

    The labels are its predictions, so that an evaluation attacks every image.
    """
    cfg = setting.config
    torch.manual_seed(cfg.seed)
    kind = torch.channels_last if ours else torch.contiguous_format
    net = make(cfg.model).to(setting.device, memory_format=kind).eval()
    shape = {key: cfg.dataset[key] for key in ("channels", "size", "classes")}
    images, _ = synthetic(Path(), **shape, n_train=setting.batch_size)
    images = images.to(setting.device)
    with torch.no_grad():
        labels = net(as_floats(images.pixels, ours)).argmax(1)
    if ours and (mode := cfg.training.compile) is not None:
        compile_net(net.requires_grad_(False), mode)
    return net, ImageSet(images.pixels, labels)
