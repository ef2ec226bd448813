"""States of a checkpoint that a training would not take: each is named in one line."""

import copy
import re

import pytest
import torch

from energy_at.config.preflight import require_sound
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import BestCheckpoint
from energy_at.training.callbacks import callbacks_of
from energy_at.training.loggers import MetricsCSV
from tests.helpers.running import ONE_EPOCH, config, fitted, prepared

KEYS = (*ONE_EPOCH, "callbacks=[ema,sentinel]", "callbacks.sentinel.action=rollback",
        "reg=elle_a", "dataset.subset=200")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return fitted(folder, *KEYS), RunFolder(folder).checkpoint()


def require(tmp_path, state):
    """Checks a new training against a state; returns it."""
    path = tmp_path / "last.ckpt"
    torch.save(state, path)
    run = prepared(tmp_path / "run", *KEYS)
    require_sound(config(*KEYS), run, path)
    return run


def test_the_state_of_a_training_is_taken_by_one_like_it(tmp_path, trained):
    run, path = trained
    again = require(tmp_path, read_checkpoint(path))
    before, after = (one.module.objective.state_dict()["elle"] for one in (run, again))
    assert all(torch.equal(after[k], value) for k, value in before.items())
    (best,), (ours,) = (callbacks_of(one.trainer, BestCheckpoint) for one in (run, again))
    assert ours.best_model_score == best.best_model_score
    progress = read_checkpoint(path)["loops"]["fit_loop"]["epoch_progress"]
    assert again.trainer.fit_loop.epoch_progress.state_dict() == progress
    assert not list((tmp_path / "run").rglob("*"))


def put(value, *keys):
    def change(state):
        for key in keys[:-1]:
            state = state[key] if not isinstance(key, re.Pattern) else next(
                state[k] for k in state if key.match(k))  # fmt: skip
        if value is None:
            del state[keys[-1]]
        else:
            state[keys[-1]] = value

    return change


BEST = re.compile("BestCheckpoint")
LOOP = ("loops", "fit_loop")
CO = ("sentinel", "detector", "co")
RO = ("sentinel", "detector", "ro")
HEALTHY = ("sentinel", "rollback", "healthy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("abc", "callbacks", "Timer", "time_elapsed"), "callbacks.Timer.time_elapsed is str"),
        (put("a", "callbacks", "Timer", "time_elapsed", "train"), "time_elapsed.train is str"),
        (put(3, "callbacks", "Timer"), "callbacks.Timer is int, not dict"),
        (put("x", "callbacks", BEST, "best_model_score"), "BestCheckpoint.best_model_score is str"),
        (put(None, "callbacks", BEST, "best_k_models"), "it lacks 'best_k_models'"),
        (put(3, *LOOP, "epoch_progress"), "loops.fit_loop.epoch_progress is int, not dict"),
        (put("x", *LOOP, "epoch_progress", "current", "ready"), "current.ready is str, not int"),
        (put(True, *LOOP, "epoch_progress", "current", "ready"), "current.ready is bool, not int"),
        (put(None, *LOOP, "epoch_progress", "total"), "it lacks 'total'"),
        (put([3], *LOOP, "state_dict", "combined_loader"), "combined_loader[0] is int, not dict"),
        (put(3, *CO), "sentinel.detector.co is int, not dict"),
        (put("abc", *CO, "steps"), "sentinel.detector.co.steps is str, not list"),
        (put(None, *CO, "steps"), "it lacks 'steps'"),
        (put([[0.1, 0.2]], *CO, "steps"), "co.steps[0] is no list of 3 numbers"),
        (put([[0.1, 0.2, "a"]], *CO, "steps"), "co.steps[0] is no list of 3 numbers"),
        (put([0.1], *CO, "confirmed"), "co.confirmed is no list of 2 numbers"),
        (put(["a"], *CO, "pert_aligns"), "co.pert_aligns[0] is str"),
        (put([[0.1]], *RO, "steps"), "ro.steps[0] is no list of 2 numbers"),
        (put(["a"], *RO, "loss", "values"), "ro.loss.values[0] is str"),
        (put(["a"], "sentinel", "rollback", "steps"), "rollback.steps[0] is str"),
        (put({}, *HEALTHY), "it lacks 'attack'"),
        (put("a", *HEALTHY, "step"), "healthy.step is str"),
        (put(torch.ones(1), *HEALTHY, "network", "net.normalize.mean"),
         "healthy.network.net.normalize.mean is a tensor of another shape"),
        (put([], *HEALTHY, "averages"), "0 averages of the healthy state, not 1"),
        (put(None, *HEALTHY, "averages", 0, "n_averaged"), "averages[0] has no n_averaged"),
        (put({"momentum_buffer": torch.ones(7)}, *HEALTHY, "optimizer", 0),
         "momentum_buffer of the optimizer is of another shape than its weights"),
        (put([3], "sentinel", "alarms"), "must be a mapping, not int"),
        (put([], "lr_schedulers"), "0 lr_schedulers, not 1"),
        (put([3], "lr_schedulers"), "lr_schedulers[0] is int, not dict"),
        (put([{}], "lr_schedulers"), "it lacks 'lr_lambdas'"),
        (put([], "optimizer_states"), "not enough values to unpack"),
        (put([{}, {}], "optimizer_states"), "too many values to unpack"),
        (put([{}], "optimizer_states"), "it lacks 'param_groups'"),
        (put({"momentum_buffer": torch.ones(7)}, "optimizer_states", 0, "state", 0),
         "momentum_buffer of the optimizer is of another shape than its weights"),
        (put({"momentum_buffer": torch.tensor(1j)}, "optimizer_states", 0, "state", 0),
         "momentum_buffer of the optimizer is complex"),
        (put(None, "objective"), "it lacks 'objective'"),
        (put(torch.ones(3), "objective", "elle", "count"), "elle.count is a tensor of another"),
        (put(torch.tensor(1j), "objective", "elle", "count"), "elle.count is a tensor of another"),
        (put(torch.ones(3), *HEALTHY, "objective", "elle", "count"),
         "healthy.objective.elle.count is a tensor of another"),
        (put(3, "attack"), "attack is int, not dict"),
        (put({"a": 3}, "attack"), "attack holds what is no tensor"),
        (put(torch.ones(1), *HEALTHY, "network", "more"), "healthy.network has an unknown more"),
        (put(torch.ones(1), *HEALTHY, "averages", 0, "more"), "averages[0] has an unknown more"),
        (put(3, "ImageData"), "ImageData is int, not dict"),
        (put(None, "ImageData"), "it lacks 'ImageData'"),
        (put(None, "ImageData", "batch"), "ImageData has no batch"),
        (put({"batch": 1}, *LOOP, "state_dict", "combined_loader", 0), "[0] has no epoch"),
        (put(None, "averaging_state", "n_averaged"), "averaging_state has no n_averaged"),
        (put(torch.ones(1), *HEALTHY, "averages", 0, "module.net.normalize.mean"),
         "normalize.mean is a tensor of another"),
        (put(None, "metrics_rows"), "it lacks 'metrics_rows'"),
        (put("abc", "pytorch-lightning_version"), "Invalid version: 'abc'"),
        (put(None, "current_model_state", "net.normalize.mean"), "has no net.normalize.mean"),
    ],
)  # fmt: skip
def test_a_state_of_another_kind_is_named(tmp_path, trained, change, said):
    state = copy.deepcopy(read_checkpoint(trained[1]))
    change(state)
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged \(") as caught:
        require(tmp_path, state)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["fgsm_pgi", "liet", "sora"])
def test_what_an_attack_remembers_is_of_its_images(tmp_path, kind):
    """A training would forget perturbations of another shape without a word, and restart them."""
    keys = (*ONE_EPOCH, f"attack={kind}", "dataset.subset=100")
    run = fitted(tmp_path, *keys)
    path = RunFolder(tmp_path).checkpoint()
    state, images = read_checkpoint(path), (100, *run.data.train.shape)
    shapes = run.module.attack.memory_shapes(images[0], images[1:])
    assert {name: tuple(value.shape) for name, value in state["attack"].items()} == shapes
    require_sound(config(*keys), prepared(tmp_path, *keys), path)
    (name, value), *_ = state["attack"].items()
    for attack, said in (
        ({**state["attack"], name: value[None]}, f"attack.{name} is a tensor of another shape"),
        ({}, f"attack has no {name}"),
    ):
        torch.save({**state, "attack": attack}, path)
        with pytest.raises(ValueError, match=rf"last\.ckpt is damaged \({said}"):
            require_sound(config(*keys), prepared(tmp_path, *keys), path)


def test_a_run_without_a_log_needs_no_rows(tmp_path, trained):
    state = dict(read_checkpoint(trained[1]))
    del state["metrics_rows"]
    torch.save(state, tmp_path / "last.ckpt")
    keys = (*KEYS, "logger=none")
    run = prepared(tmp_path / "run", *keys)
    assert not any(isinstance(logger, MetricsCSV) for logger in run.trainer.loggers)
    require_sound(config(*keys), run, tmp_path / "last.ckpt")
