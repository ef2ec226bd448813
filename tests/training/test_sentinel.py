"""What the sentinel does to a training, and what it leaves alone."""

import csv
from unittest.mock import MagicMock

import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import StepLR

from energy_at.config.preflight import require_sound
from energy_at.evaluation import final_results as outcome
from energy_at.objectives import DER, Weighted
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import read_metrics_log
from energy_at.runs.resume import open_resumed
from energy_at.training.loggers import DummyExperiment, TolerantWandb
from energy_at.training.sentinel import Sentinel
from tests.helpers.logs import FAILS, row, validation
from tests.helpers.running import TINY_BN, config, fitted, prepared, states_equal

slow = pytest.mark.slow
STEPS = 3  # of an epoch
RUN = (*TINY_BN, "dataset.batch_size=32", "dataset.subset=96", "trainer.max_epochs=3",
       "callbacks.energy.every=2", "validation.attacks.pgd.steps=1",
       "optimizer.lr=0.05")  # fmt: skip
ROLL = ("callbacks=sentinel", "callbacks.progress=null", "callbacks.sentinel.rollbacks=1")
NEVER_CALM = (  # and no alarm before the window is full
    "callbacks.sentinel.classes=100000", "callbacks.sentinel.thresholds.aae_share=1e-6",
    "callbacks.sentinel.thresholds.alignment=0.999",
)  # fmt: skip
JUMPY = (*NEVER_CALM, "callbacks.sentinel.thresholds.window=4")


def rows(folder, without=("perf/", "alarm/")):
    with (folder / "metrics.csv").open(newline="") as file:
        found = [{k: v for k, v in r.items() if v and not k.startswith(without)}
                 for r in csv.DictReader(file)]  # fmt: skip
    return [r for r in found if r.keys() - {"step", "epoch"}]


def alarms(folder):
    return [r for r in rows(folder, "perf/") if any(k.startswith("alarm/") for k in r)]


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class Failing(Callback):
    """Feeds the sentinel steps whose attack has failed for a while."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            sentinel = next(c for c in trainer.callbacks if isinstance(c, Sentinel))
            sentinel.read(trainer, [row(self.step, **FAILS | {"adv": 0.9})] * 20)


class Notes(Callback):
    """Records network and momentum at the end of each epoch, and as each batch begins."""

    def __init__(self):
        self.epochs, self.batches, self.terms, self.rates, self.radii = [], {}, {}, {}, {}

    def _state(self, trainer, module):
        return weights(module), [s["momentum_buffer"].clone() for s in
                                 trainer.optimizers[0].state_dict()["state"].values()]  # fmt: skip

    def on_train_epoch_end(self, trainer, module):
        self.epochs.append(self._state(trainer, module))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches[trainer.global_step] = self._state(trainer, module)
        self.terms[trainer.global_step] = dict(module.objective.terms)
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]
        self.radii[trainer.global_step] = module._attack_at(batch_idx).ball.eps


UNSEEN = ("trainer.limit_val_batches=0", "callbacks.best=null")  # no held-out images


def trained_until_alarm(tmp_path, step, *overrides, unseen=UNSEEN):
    """A training whose sentinel raises an alarm after a step."""
    run, notes = prepared(tmp_path, *RUN, *unseen, *overrides), Notes()
    run.trainer.callbacks.insert(1, Failing(step))
    run.trainer.callbacks.append(notes)
    run.trainer.fit(run.module, run.data)
    return run, notes


def same(a, b):
    return all(torch.equal(a[0][k], b[0][k]) for k in a[0]) and all(map(torch.equal, a[1], b[1]))


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unwatched")
    return fitted(folder, *RUN, "callbacks.sentinel=null"), folder


@pytest.mark.parametrize("action", ["warn", "checkpoint"])
def test_a_watched_training_is_the_same_bit_for_bit(tmp_path, unwatched, action, capsys):
    alone, folder = unwatched
    run = fitted(tmp_path, *RUN, *JUMPY, f"callbacks.sentinel.action={action}")
    assert states_equal(run.module, alone.module)
    assert rows(tmp_path) == rows(folder)
    assert [r["step"] for r in alarms(tmp_path)] == ["4"]
    assert "CO alarm at step 4" in capsys.readouterr().err


@pytest.mark.parametrize("accuracy", [None, 0.0, 0.1, 0.4])
def test_an_alarm_says_if_no_validation_was_robust(tmp_path, capsys, accuracy):
    run = prepared(tmp_path, *RUN, *UNSEEN)
    (sentinel,) = (one for one in run.trainer.callbacks if isinstance(one, Sentinel))
    run.trainer.callbacks.insert(1, Failing(4))
    if accuracy is not None:
        sentinel.detector.update(validation(1, accuracy, 0.5))
    run.trainer.fit(run.module, run.data)
    assert "CO alarm at step 4" in (err := capsys.readouterr().err)
    assert ("; the network has not been robust yet" in err) == (accuracy in (0.0, 0.1))


def test_an_alarm_is_in_the_log_at_its_step(tmp_path):
    run, _ = trained_until_alarm(tmp_path, STEPS + 2)
    (alarm,) = alarms(tmp_path)
    (kept,) = outcome.alarms(run)["alarms"]
    assert (kept["kind"], kept["step"], kept["signal"]) == ("CO", STEPS + 2, "AAE share")
    assert (alarm["step"], alarm["epoch"]) == (str(STEPS + 2), "1")
    assert float(alarm["alarm/by/aae_share"]) > 0.25  # twenty times 0.5 push the steps before out
    assert (alarm["alarm/co"], alarm["alarm/held_out"]) == ("1.0", "0.0")
    assert RunFolder(tmp_path).log().alarms == [("CO", STEPS + 2)]
    assert run.trainer.global_step == 3 * STEPS


def test_the_last_healthy_network_is_kept_exactly(tmp_path):
    _, notes = trained_until_alarm(tmp_path, 2 * STEPS + 1, "callbacks.sentinel.action=checkpoint")
    kept = read_checkpoint(RunFolder(tmp_path).checkpoint("healthy"))
    assert kept["global_step"] == 2 * STEPS
    assert all(torch.equal(kept["state_dict"][k], v) for k, v in notes.epochs[1][0].items())


def test_an_epoch_is_healthy_if_held_out_images_confirm_it(tmp_path, capsys):
    """Of two classes 75 % must be right under PGD; of many, a few images will do."""
    options = ("callbacks.sentinel.action=checkpoint", "optimizer.lr=1e-9")  # learns nothing
    trained_until_alarm(
        tmp_path / "a", 2 * STEPS + 1, *options, "callbacks.sentinel.classes=2", unseen=()
    )
    assert not RunFolder(tmp_path / "a").has_checkpoint("healthy")
    assert "no epoch before was healthy" in capsys.readouterr().err
    trained_until_alarm(
        tmp_path / "b", 2 * STEPS + 1, *options, "callbacks.sentinel.classes=100", unseen=()
    )
    kept = read_checkpoint(RunFolder(tmp_path / "b").checkpoint("healthy"))
    assert kept["global_step"] == 2 * STEPS
    assert (
        f"{RunFolder(tmp_path / 'b').checkpoint('healthy')} is healthy" in capsys.readouterr().err
    )


def test_a_stopped_training_has_its_checkpoints(tmp_path):
    run, _ = trained_until_alarm(tmp_path, STEPS + 2, "callbacks.sentinel.action=stop")
    assert run.trainer.global_step == STEPS + 2
    assert run.trainer.state.finished
    last, healthy = (RunFolder(tmp_path).checkpoint(which) for which in ("last", "healthy"))
    assert read_checkpoint(last)["global_step"] == STEPS + 2
    assert read_checkpoint(healthy)["global_step"] == STEPS
    again = fitted(tmp_path, *RUN, "callbacks.sentinel.action=stop", checkpoint=last)
    assert again.trainer.global_step == STEPS + 2
    folder = RunFolder(tmp_path)
    OmegaConf.save(config(*RUN), folder.config_file, resolve=True)
    folder.write_results({})
    said = rf"was stopped by the sentinel \(CO alarm at step {STEPS + 2}\), with part of its"
    with pytest.raises(ValueError, match=said):
        open_resumed(str(tmp_path), ["evaluation.subset=2"])


def test_a_rollback_restores_exactly_and_switches_der_on(tmp_path, capsys):
    step = STEPS + 1
    run, notes = trained_until_alarm(tmp_path, step, *ROLL)
    assert same(notes.batches[step], notes.epochs[0])
    assert not same(notes.batches[step + 1], notes.epochs[0])
    assert list(notes.terms[step - 1]) == ["adversarial_ce"]
    assert notes.terms[step]["der"] == Weighted(DER("abnormal"), 20.0)
    returns = [r["alarm/rollback"] for r in alarms(tmp_path) if "alarm/rollback" in r]
    assert returns == [str(float(STEPS))]
    assert any("train/loss/der" in r for r in rows(tmp_path))
    assert run.trainer.global_step == 4 * STEPS  # one epoch is repeated
    assert len(read_metrics_log(tmp_path / "metrics.csv")["train/loss"]) == 4 * STEPS
    line = "step 4: rollback restores step 3, applies DER of weight 20, extends training by 1 epoch"
    assert f"{line}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "schedule", ["triangular", "onecycle", pytest.param("piecewise", marks=slow)]
)
@pytest.mark.parametrize(
    ("step", "epochs"),
    [(STEPS + 1, 2), *(pytest.param(*p, marks=slow) for p in ((1, 1), (STEPS, 1), (3 * STEPS, 3)))],
)
def test_the_schedule_is_rewound_by_whole_epochs(tmp_path, schedule, step, epochs):
    """Without a healthy epoch: to the beginning, or to less than an epoch before it."""
    run, notes = trained_until_alarm(tmp_path, step, *ROLL, *NEVER_CALM, f"schedule={schedule}")
    optimizer = run.module.optimizer(run.module.net)
    planned = run.module.schedule(optimizer, 3 * STEPS)
    rates = []
    for _ in range(3 * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        planned.step()
    early = STEPS * epochs - step  # steps before the beginning
    seen = [notes.rates[n] for n in sorted(notes.rates)]
    assert seen == pytest.approx(rates[:step] + seen[step : step + early] + rates)
    assert run.trainer.global_step == (3 + epochs) * STEPS
    repeated = [r["alarm/repeated"] for r in alarms(tmp_path) if "alarm/repeated" in r]
    assert repeated == [str(float(epochs))]


def test_warm_ups_are_rewound_with_the_schedule(tmp_path):
    _, notes = trained_until_alarm(tmp_path, STEPS, *ROLL, *NEVER_CALM, "training.eps_warmup=2")
    radii = [notes.radii[n] for n in sorted(notes.radii)]
    assert radii[STEPS:] == pytest.approx(
        [8 / 255 * min(n / (2 * STEPS), 1) for n in range(1, 3 * STEPS + 1)]
    )


@pytest.mark.slow
def test_a_rollback_without_rewind_continues_the_schedule(tmp_path):
    run, notes = trained_until_alarm(tmp_path, STEPS + 1, *ROLL, "callbacks.sentinel.rewind=false")
    alone = prepared(tmp_path / "b", *RUN, "callbacks.sentinel=null")
    other = Notes()
    alone.trainer.callbacks.append(other)
    alone.trainer.fit(alone.module, alone.data)
    assert notes.rates == other.rates
    assert run.trainer.global_step == 3 * STEPS
    assert not any("alarm/repeated" in r for r in alarms(tmp_path))


def test_a_schedule_that_cannot_be_rewound_is_refused(tmp_path):
    run = prepared(tmp_path, *RUN, *ROLL)
    run.module.schedule = lambda optimizer, _: StepLR(optimizer, 3)
    with pytest.raises(ValueError, match=r"^callbacks\.sentinel\.rewind=true must be false for a"):
        require_sound(config(*RUN, *ROLL), run)
    with pytest.raises(ValueError, match=r"^rewind must be false for a StepLR: only LambdaLR and"):
        run.trainer.fit(run.module, run.data)
    assert run.trainer.global_step == 0


@pytest.mark.slow
def test_a_rollback_counts_in_the_cost_of_the_training(tmp_path):
    """Five steps were made as they began, of twelve; DER costs a backward pass more."""
    run, _ = trained_until_alarm(tmp_path, 5, "callbacks=sentinel", "callbacks.progress=null")
    cfg = config(*RUN, "callbacks=sentinel", "callbacks.progress=null")
    without, der = (outcome.cost(c, prepared(tmp_path, *RUN))["forward_equivalents"]
                    for c in (cfg, config(*RUN, "reg=der")))  # fmt: skip
    assert der > without + 1
    mean = outcome.cost(cfg, run)["forward_equivalents"]
    assert mean == pytest.approx((5 * without + 7 * der) / 12, abs=0.01)


def test_a_training_without_a_healthy_epoch_begins_again(tmp_path):
    first = weights(prepared(tmp_path / "new", *RUN).module)
    _, notes = trained_until_alarm(tmp_path, 2, "callbacks=sentinel", "callbacks.progress=null")
    now, momentum = notes.batches[2]
    assert all(torch.equal(now[k], first[k]) for k in first)
    assert momentum == []


def test_a_rollback_restores_the_average_too(tmp_path):
    options = ("callbacks=ema", "callbacks.progress=null", "callbacks.ema.decay=0.5",
               "callbacks.sentinel.action=rollback",
               "callbacks.sentinel.rewind=false")  # fmt: skip
    trained_until_alarm(tmp_path, 3 * STEPS, *options)  # at the end: nothing is trained after it
    last, healthy = (
        read_checkpoint(RunFolder(tmp_path).checkpoint(which)) for which in ("last", "healthy")
    )
    assert healthy["global_step"] == 2 * STEPS
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(last[part][k], v) for k, v in healthy[part].items())


def test_a_rollback_restores_the_perturbations_of_the_images_too(tmp_path):
    """At the end: nothing is trained after it."""
    run, _ = trained_until_alarm(
        tmp_path, 3 * STEPS, *ROLL, "callbacks.sentinel.rewind=false", "attack=fgsm_pgi",
        "loss=fgsm_pgi"
    )  # fmt: skip
    last, healthy = (
        read_checkpoint(RunFolder(tmp_path).checkpoint(which)) for which in ("last", "healthy")
    )
    assert healthy["global_step"] == 2 * STEPS
    assert set(healthy["attack"]) == {"delta", "momentum"}
    for name, kept in healthy["attack"].items():
        assert torch.equal(last["attack"][name], kept)
        assert torch.equal(run.module.memory[name], kept)
        snapshot = healthy["sentinel"]["rollback"]["healthy"]["attack"][name]
        assert torch.equal(snapshot, kept)


class Unplugged(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("unplugged")


ROLLS = (*RUN, *JUMPY, "callbacks.sentinel.action=rollback", "callbacks.sentinel.rollbacks=2",
         "callbacks.last.every_n_steps=1", "attack=rs_fgsm",
         "callbacks.sentinel.thresholds.ratio=0.67")  # held-out images confirm nothing # fmt: skip


@pytest.fixture(scope="module")
def rolled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rolled")
    return fitted(folder, *ROLLS), folder


@pytest.mark.parametrize("step", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_rollback_survives_a_kill_and_a_resume(tmp_path, rolled, step):
    whole, folder = rolled
    assert len(alarms(folder)) > 3
    broken = prepared(tmp_path, *ROLLS)
    broken.trainer.callbacks.insert(0, Unplugged(step))
    with pytest.raises(KeyError):
        broken.trainer.fit(broken.module, broken.data)
    again = fitted(tmp_path, *ROLLS, checkpoint=RunFolder(tmp_path).checkpoint())
    assert states_equal(again.module, whole.module)
    assert rows(tmp_path, "perf/") == rows(folder, "perf/")
    assert again.module.objective.terms == whole.module.objective.terms


@pytest.mark.slow
def test_a_resume_extends_limited_steps_as_the_rollback_did(tmp_path, capsys):
    roll = (*ROLLS, "callbacks.sentinel.rollbacks=1", f"trainer.max_steps={3 * STEPS}")
    broken = prepared(tmp_path, *roll)
    broken.trainer.callbacks.insert(0, Unplugged(5))
    with pytest.raises(KeyError):
        broken.trainer.fit(broken.module, broken.data)
    again = fitted(tmp_path, *roll, checkpoint=RunFolder(tmp_path).checkpoint())
    (repeated,) = (float(r["alarm/repeated"]) for r in alarms(tmp_path) if "alarm/repeated" in r)
    assert again.trainer.global_step == (3 + repeated) * STEPS > 3 * STEPS
    assert ": rollback limit (1) reached\n" in capsys.readouterr().err


def refuse(**_):
    raise OSError("no network")


def test_an_alert_that_fails_stops_no_training(tmp_path, capsys):
    run = prepared(tmp_path, *RUN, *JUMPY)
    logger = TolerantWandb(save_dir=tmp_path, project="energy_at", mode="offline")
    logger._experiment = MagicMock(alert=refuse)
    run.trainer.loggers = [logger, *run.trainer.loggers]
    run.trainer.fit(run.module, run.data)
    assert run.trainer.global_step == 3 * STEPS
    err = capsys.readouterr().err
    assert err.count("W&B has failed and is disabled from here on: OSError: no network") == 1
    assert "CO alarm at step 4" in err
    assert isinstance(logger.experiment, DummyExperiment)


@pytest.mark.parametrize(("batches", "images"), [("1.0", 20), ("2", 16)])
def test_the_sentinel_counts_the_held_out_images(tmp_path, batches, images):
    run = fitted(tmp_path, *TINY_BN, "dataset.val_size=20", "dataset.eval_batch_size=8",
                 f"trainer.limit_val_batches={batches}", "trainer.max_epochs=1")  # fmt: skip
    (sentinel,) = (c for c in run.trainer.callbacks if hasattr(c, "detector"))
    assert sentinel.detector.ro.images == images


# Settings


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "thresholds.aae_share=1.5",
            "thresholds.aae_share=1.5 must be a finite number > 0 and < 1",
        ),
        ("thresholds.window=2", "thresholds.window=2 must be an integer >= 4"),
        ("factor=1", "factor=1 must be a finite number > 1"),
        ("rollbacks=0", "rollbacks=0 must be an integer >= 1"),
    ],
)
def test_a_setting_out_of_range_is_named(tmp_path, typed, said):
    with pytest.raises(ValueError, match=f"^callbacks.sentinel.{said}$"):
        prepared(tmp_path, *TINY_BN, f"callbacks.sentinel.{typed}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("callbacks.sentinel.remedy=beta",),
            "^callbacks.sentinel.remedy=beta must be der, as the training has no DER",
        ),
        (
            ("attack=none", "callbacks.sentinel.remedy=alpha"),
            "^callbacks.sentinel.remedy=alpha must be der or beta: NoAttack has no step",
        ),
        (
            ("callbacks.energy=null",),
            "^callbacks.sentinel.action=rollback must be warn without an energy monitor",
        ),
    ],
)
def test_an_action_that_could_not_be_taken_is_refused_before(tmp_path, overrides, said):
    cfg = config(*TINY_BN, "callbacks=sentinel", "callbacks.progress=null", *overrides)
    run = prepared(tmp_path, *TINY_BN, "callbacks=sentinel", "callbacks.progress=null", *overrides)
    with pytest.raises(ValueError, match=said):
        require_sound(cfg, run)
