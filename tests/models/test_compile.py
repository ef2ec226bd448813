"""A compiled network trains as it does without, in a small number of graphs that is known."""

import pickle
from copy import deepcopy

import pytest
import torch
from lightning import Callback
from torch._dynamo import exc
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from energy_at import train
from energy_at.attacks import fgsm, pgd
from energy_at.attacks.threat import Linf
from energy_at.benchmark.rows import bare_step
from energy_at.config.build import build_module
from energy_at.models import compile as compiled
from energy_at.models.compile import compile_net, is_compiled, switch_of
from energy_at.models.modes import eval_mode, frozen_running_stats, no_graph
from energy_at.runs.folder import RunFolder
from tests.helpers.nets import TinyNet
from tests.helpers.running import TINY, config, everything, prepared, states_equal, typed

BALL = Linf(8 / 255)
METHODS = {
    "fgsm": ("attack=fgsm",),
    "fgsm der": ("attack=fgsm", "reg=der", "reg.samples=all", "reg.weight=1"),
    "rs": ("attack=rs_fgsm",),
    "n der": ("attack=n_fgsm", "reg=der", "reg.samples=all"),
    "pgd der": ("attack=pgd", "attack.steps=3", "reg=der"),
    "trades": ("attack=trades", "attack.steps=3", "loss=trades"),
    "mart": ("attack=pgd", "attack.steps=3", "loss=mart"),
    "elle": ("attack=fgsm", "reg=elle"),
    "aaer": ("attack=rs_fgsm", "reg=aaer"),
    "awp": ("attack=fgsm", "reg=der", "training.awp.gamma=0.01"),
}
EVERY_SUITE = ("fgsm der",)


@pytest.fixture
def without_codegen(monkeypatch):
    """Everything of the compiler but its last stage, which takes minutes and a C++ compiler."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


def graphs():
    return counters["stats"]["unique_graphs"]


def trained(mode, method, steps=20):
    """The state of the network after `steps` steps on random batches, and its graphs.

    In fp64: a gradient at zero has the sign of a rounding, and moves a pixel by 2 eps.
    """
    torch.manual_seed(0)
    cfg = config("dataset=synthetic", "model=small", "optimizer.lr=0.01", *METHODS[method])
    module = build_module(cfg)
    module.net = TinyNet().double()
    step = bare_step(module.train(), module.optimizer(module.net), "fp32")
    if mode is not None:
        compile_net(module.net, mode)
    before = graphs()
    for x in torch.rand(steps, 8, 3, 8, 8, dtype=torch.float64):
        step(x, torch.arange(8) % 4)
        module.on_after_backward()
    return module.net.state_dict(), graphs() - before


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in EVERY_SUITE else pytest.mark.slow) for m in METHODS]
)
def test_20_compiled_steps_end_where_20_others_do(without_codegen, method):
    ours, number = trained("default", method)
    plain, none = trained(None, method)
    assert 2 <= number <= 5
    assert none == 0
    for name, value in ours.items():
        assert (value - plain[name]).abs().max() < 1e-9, name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fgsm der", "trades"])
def test_20_steps_in_generated_code_end_where_20_others_do(method):
    ours, _ = trained("default", method)
    plain, _ = trained(None, method)
    for name, value in ours.items():
        assert (value - plain[name]).abs().max() < 1e-8, name


def test_compiled_bf16_logits_are_the_others_up_to_a_rounding(without_codegen, net, batch):
    def logits():
        with torch.autocast("cpu", dtype=torch.bfloat16), no_graph(), eval_mode(net):
            return net(batch[0])

    plain = logits()
    compile_net(net, "default")
    assert logits().dtype == torch.bfloat16
    torch.testing.assert_close(logits(), plain, rtol=2**-6, atol=2**-6)


def run_of(folder, *overrides):
    """A training of 2 epochs of 3 batches, the last one smaller, with as many of validation."""
    run = prepared(
        folder,
        *TINY,
        "dataset.size=8",
        "dataset.classes=4",
        "dataset.subset=20",
        "dataset.val_size=20",
        "dataset.batch_size=8",
        "dataset.eval_batch_size=8",
        "trainer.max_epochs=2",
        "callbacks.sentinel=null",
        *overrides,
    )
    torch.manual_seed(0)
    run.module.net = TinyNet()
    return run


@pytest.mark.slow
def test_two_epochs_with_validation_take_four_graphs_whatever_is_left_over(
    without_codegen, tmp_path
):
    plain = run_of(tmp_path / "plain", "reg=der", "callbacks=ema", "callbacks.ema.decay=0.5")
    start = deepcopy(plain.module.net.state_dict())
    plain.trainer.fit(plain.module, plain.data)
    before = graphs()
    ours = run_of(
        tmp_path / "ours",
        "reg=der",
        "training.compile=default",
        "callbacks=ema",
        "callbacks.ema.decay=0.5",
    )
    ours.trainer.fit(ours.module, ours.data)
    # the attack and x* in training, clean images and the attacks in validation, and the trial
    assert graphs() - before == 4 + 1
    assert not is_compiled(ours.module.net)
    assert ours.module.state_dict().keys() == plain.module.state_dict().keys()
    for name, value in plain.module.net.state_dict().items():
        # in fp32 now and then a pixel goes the other way
        apart = (ours.module.net.state_dict()[name] - value).float().norm()
        assert apart <= 0.1 * (value - start[name]).float().norm() + 1e-6, name


class Unplugged(Callback):
    """Fails in a step, as a machine does."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2:
            raise KeyError("unplugged")


@pytest.mark.slow
def test_a_compiled_training_resumes_where_it_was_cut_off(without_codegen, tmp_path):
    typed = ("training.compile=default", "callbacks.last.every_n_steps=1", "trainer.max_epochs=1")
    whole = run_of(tmp_path / "whole", *typed)
    whole.trainer.fit(whole.module, whole.data)
    cut = run_of(tmp_path / "cut", *typed)
    cut.trainer.callbacks.append(Unplugged())
    with pytest.raises(KeyError):
        cut.trainer.fit(cut.module, cut.data)
    assert not is_compiled(cut.module.net)
    again = run_of(tmp_path / "cut", *typed)
    last = RunFolder(tmp_path / "cut").checkpoint()
    again.trainer.fit(again.module, again.data, ckpt_path=last, weights_only=True)
    assert again.trainer.global_step == whole.trainer.global_step == 3
    assert states_equal(again.module, whole.module)


def test_the_attacks_backward_pass_computes_no_gradient_of_a_weight(net, batch, monkeypatch):
    masks = []

    def seen(graph, _):
        found = [n for n in graph.graph.nodes if "convolution_backward" in str(n.target)]
        masks.append([n.args[-1][1] for n in found])
        return graph.forward

    backend = aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=seen)
    monkeypatch.setattr(compiled, "BACKEND", backend)
    compile_net(net, "default")
    masks.clear()  # of the trial
    pgd(BALL, steps=2)(net, *batch)
    assert masks
    assert not any(weight for mask in masks for weight in mask)
    assert all(weight.requires_grad for weight in net.parameters())
    fgsm(BALL)(net, *batch, keep_graph=True)  # the training continues with this pass
    assert all(masks[-1])


def test_copies_and_files_of_a_compiled_network_are_those_of_the_network(
    without_codegen, net, batch
):
    names = list(net.state_dict())
    compile_net(net, "default")
    with no_graph(), eval_mode(net):
        logits = net(batch[0])
        for copied in (deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert not is_compiled(copied)
            torch.testing.assert_close(copied(batch[0]), logits)
    assert list(net.state_dict()) == names


def test_a_network_that_is_switched_off_runs_as_it_is_written(without_codegen, net, batch):
    compile_net(net, "default")
    turn = switch_of(net)
    turn(False)
    before = graphs()
    net(batch[0])
    assert graphs() == before
    turn(True)
    net(batch[0])
    assert graphs() == before + 1


def test_one_graph_too_many_is_an_error_and_no_slow_training(without_codegen, net, batch):
    compile_net(net, "default")
    old = torch.__version__.startswith("2.6.")
    error = exc.RecompileLimitExceeded if old else exc.FailOnRecompileLimitHit
    with torch._dynamo.config.patch({"cache_size_limit" if old else "recompile_limit": 1}):
        net(batch[0])
        with pytest.raises(error), frozen_running_stats(net):
            net(batch[0])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (
            "reg=gradalign",
            "training.compile=default must be null for gradalign: a compiled network",
        ),
        ("trainer.devices=2", "training.compile=default must be null for several processes"),
        ("training.compile=fast", "compile=fast must be default, reduce-overhead or"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_anything_is_written(
    without_codegen, tmp_path, monkeypatch, capsys, override, key
):
    monkeypatch.chdir(tmp_path)
    argv = [*TINY, "training.compile=default", "trainer.accelerator=cpu", override]
    code, _, err = typed(monkeypatch, capsys, train.main, *argv)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert key in err
    assert everything() == {}


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_so_in_one_line(tmp_path, monkeypatch, capsys):
    from torch._inductor import config as inductor

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    torch.compiler.reset()
    argv = [*TINY, "training.compile=default", "trainer.accelerator=cpu"]
    code, _, err = typed(monkeypatch, capsys, train.main, *argv)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "training.compile=default must be null without a C++ compiler that works" in err
    assert not (tmp_path / "runs").exists()
