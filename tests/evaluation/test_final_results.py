"""What a training is said to have cost."""

import json

import pytest
import torch

from energy_at.config.build import build_module
from energy_at.data import ImageSet
from energy_at.evaluation.final_results import cost, forward_equivalents, held_out, train
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import RunFolder
from energy_at.runs.resume import open_resumed
from tests.helpers.running import TINY, TINY_BN, config, prepared, states_equal

FAST = (*TINY, "trainer.max_epochs=1", "evaluation.images=[test]")


def step(*overrides):
    """Cost of a step as ``results.json`` counts it: a regularizer counts as active."""
    module = build_module(config("dataset=cifar10", "model.width=8", *overrides))
    module.objective.skip_flat = False
    return forward_equivalents(module, torch.rand(4, 3, 32, 32), torch.arange(4))


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        (("attack=fgsm",), 5),  # forward and gradient of the attack, forward, backward of two
        (("attack=fgsm", "reg=der"), 7),  # and backward through the clean images
        (("attack=fgsm", "reg=gradalign"), 11),
        (("attack=pgd", "attack.steps=2"), 7),
        (("attack=pgd",), 23),
        (("attack=pgd", "attack.restarts=2", "attack.steps=1"), 9),
        (("attack=fgsm_pgi", "loss=fgsm_pgi"), 7),  # and backward through the start
        (("attack=fgsm_pgi", "loss=fgsm_pgi", "reg=der"), 10),  # and clean images, both ways
        (("attack=sora",), 5),
        (("attack=sora", "reg=der"), 10),  # clean images both ways, PertAlign by a pass of its own
        (("attack=nuat", "loss=nuat"), 8.5),  # trains two, clean logits in every second attack
        (("attack=nuat", "loss=nuat", "reg=der"), 8.5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_step_costs_its_forward_and_backward_passes(overrides, passes):
    assert step(*overrides) == pytest.approx(passes, abs=0.2)


def test_the_grey_images_of_liet_count_for_the_batches_and_the_images_that_share_them():
    module = build_module(config("dataset=cifar10", "model.width=8", "attack=liet", "loss=liet"))
    batch = torch.rand(4, 3, 32, 32), torch.arange(4)
    one, many = (forward_equivalents(module, *batch, batch_size=size) for size in (None, 128))
    assert many == pytest.approx(7 + 10 * 2 / 128 / 20, abs=0.2)
    assert one - many == pytest.approx(10 * 2 / 20 * (1 / 4 - 1 / 128), rel=0.05)


def test_awp_costs_another_step_without_its_attack():
    awp = step("attack=pgd", "training.awp.gamma=0.01") - step("attack=pgd")
    assert awp == pytest.approx(3, abs=0.2)


def test_the_cost_does_not_depend_on_the_batch():
    module = build_module(config(*TINY_BN))
    few, many = (
        forward_equivalents(module, torch.rand(n, 3, 8, 8), torch.arange(n) % 4) for n in (2, 8)
    )
    assert few == pytest.approx(many)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    train(config(*FAST, "reg=der"), folder)
    return folder


def test_results_hold_the_verdict_and_the_checkpoint_to_use(finished):
    run = FinishedRun(finished)
    verdict = {"kind": run.status.kind, "step": run.status.step, "use": run.usable}
    assert json.loads(finished.results_file.read_text())["status"] == verdict


def test_results_hold_the_cost_of_the_training(finished):
    cost = json.loads(finished.results_file.read_text())["training"]
    assert set(cost) == {"forward_equivalents", "seconds"}
    assert 0 < cost["seconds"] < 600


@pytest.mark.parametrize(
    ("overrides", "more"),
    [(("reg=der",), 2), (("training.awp.gamma=0.01", "training.awp.warmup=9"), 3)],
    ids=["der", "awp"],
)
def test_a_regularizer_and_awp_count_as_active(tmp_path, overrides, more):
    def passes(*chosen):
        return cost(config(*TINY, *chosen), prepared(tmp_path, *TINY, *chosen))[
            "forward_equivalents"
        ]

    assert passes(*overrides) - passes() == pytest.approx(more, abs=0.3)


def test_counting_leaves_the_trained_network_alone(tmp_path):
    run, reference = (prepared(tmp_path, *TINY_BN) for _ in range(2))
    assert cost(config(*TINY_BN), run)["forward_equivalents"] > 1
    assert states_equal(run.module, reference.module)


@pytest.mark.slow
def test_a_resumed_run_adds_up_its_seconds(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(config(*FAST), folder)
    checkpoint = torch.load(folder.checkpoint(), weights_only=True)
    (timer,) = [state for name, state in checkpoint["callbacks"].items() if name == "Timer"]
    assert timer["time_elapsed"]["train"] > 0
    timer["time_elapsed"]["train"] = 1000.0
    torch.save(checkpoint, folder.checkpoint())
    train(*open_resumed(str(folder.path), ["trainer.max_epochs=2"]))
    assert 1000 < folder.results()["training"]["seconds"] < 1600


def test_a_run_without_timer_has_no_seconds(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(config(*FAST, "callbacks.timer=null"), folder)
    assert set(folder.results()["training"]) == {"forward_equivalents"}


def test_chance_is_the_share_of_the_commonest_class():
    images = ImageSet(
        torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 1, 2, 2, 0, 1])
    )
    assert held_out(images) == {"images": 8, "chance": 0.5}
