"""Rows of a training: the published loop, that loop with a library's attack, ours, Lightning's."""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from lightning import Callback, seed_everything
from omegaconf import DictConfig
from torch.optim import Optimizer

from energy_at.attacks import GradientAttack
from energy_at.benchmark import reference as published
from energy_at.benchmark.libraries import LIBRARIES, library_attack
from energy_at.benchmark.rows import Clock, Loop, Row, autocast, endless
from energy_at.benchmark.scenarios import Scenario
from energy_at.benchmark.setting import Setting
from energy_at.benchmark.stepwise import Around, StepwiseFit
from energy_at.config.build import build, build_data, build_module
from energy_at.core.types import Images, Labels
from energy_at.models.compile import begin_step, compile_net
from energy_at.runs.folder import RunFolder
from energy_at.training import AdversarialTraining


def training_row(
    name: str, scenario: Scenario, precision: str, setting: Setting, clock: Clock
) -> Row | None:
    """A row of a training; ``None`` if it does not do this work."""
    cfg = setting.training(scenario, precision)
    seed_everything(cfg.seed, workers=True, verbose=False)
    if name == "full":
        return FullRun(cfg, setting.steps)
    if name == "bare":
        return _bare(cfg, precision, setting, clock)
    return _published(name, cfg, setting, clock) if precision == "fp32" else None


class FullRun:
    """A whole Lightning run: logging, energy monitor, guard, schedule, optimizer.

    Its monitor writes at the end of every turn, so a turn of fewer steps than ``callbacks.energy``
    says overstates what that costs.
    """

    loading = None

    def __init__(self, cfg: DictConfig, steps: int) -> None:
        self.steps = steps
        self.images = steps * cfg.dataset.batch_size
        self.folder = tempfile.TemporaryDirectory(prefix="energy_at_benchmark_")
        self.fit = StepwiseFit(lambda turnstile: self._fit(cfg, turnstile))

    def turn(self, around: Around = nullcontext) -> None:
        """Runs its steps."""
        self.fit.advance(self.steps, around)

    def close(self) -> None:
        """Ends the run and removes its folder."""
        self.fit.close()
        self.folder.cleanup()

    def _fit(self, cfg: DictConfig, turnstile: Callback) -> None:
        run = build(cfg, RunFolder(Path(self.folder.name)))
        run.trainer.callbacks.append(turnstile)  # type: ignore[attr-defined]
        run.trainer.fit(run.module, run.data)


def bare_step(
    module: AdversarialTraining, optimizer: Optimizer, precision: str
) -> Callable[[Images, Labels], None]:
    """An optimizer step of our parts without Lightning's loop."""

    def step(x: Images, y: Labels) -> None:
        begin_step()
        with autocast(x.device, precision):
            loss = module.training_step((x, y), 1)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _bare(cfg: DictConfig, precision: str, setting: Setting, clock: Clock) -> Row:
    module = build_module(cfg).to(setting.device).train()
    if (mode := cfg.training.compile) is not None:
        compile_net(module.net, mode)
    data = build_data(cfg)
    data.place(setting.device)
    step = bare_step(module, module.optimizer(module.net), precision)
    return Loop(step, endless(data.train_dataloader()), setting.steps, setting.device, clock)


def _published(name: str, cfg: DictConfig, setting: Setting, clock: Clock) -> Row | None:
    cfg.training.channels_last = False
    module, data = build_module(cfg).to(setting.device), build_data(cfg)
    method = published.Method.of(module.attack, module.objective)
    attack: published.PublishedAttack | None = None
    if name in LIBRARIES:
        assert isinstance(module.attack, GradientAttack)
        attack = library_attack(name, module.net, module.attack)
        if attack is None:
            return None
    net, optimizer = module.net, module.optimizer(module.net)
    batches = published.batches(
        data.train, data.batch_size, pad=data.pad, flip=data.flip, workers=setting.workers
    )

    def step(x: Images, y: Labels) -> None:
        published.train_step(net, optimizer, x, y, method, attack=attack)

    return Loop(step, batches, setting.steps, setting.device, clock)
