"""The benchmark: the published loops compute what ours do, and what is measured is what is said."""

import json
import multiprocessing
from copy import deepcopy
from itertools import islice
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import seed_everything
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from energy_at.attacks import fgsm, n_fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import Linf
from energy_at.benchmark import __main__ as benchmark
from energy_at.benchmark import reference as published
from energy_at.benchmark.apart import apart
from energy_at.benchmark.making import turns_of
from energy_at.benchmark.plan import plan_of
from energy_at.benchmark.rows import Loop
from energy_at.benchmark.scenarios import ROWS, SCENARIOS
from energy_at.benchmark.stepwise import StepwiseFit
from energy_at.benchmark.timing import Here, Work, take_turns
from energy_at.benchmark.training_rows import bare_step
from energy_at.config import CONF
from energy_at.data import ImageSet
from energy_at.objectives import (
    DER,
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    GradAlign,
    Objective,
    TradesKL,
    Weighted,
)
from energy_at.training import AdversarialTraining
from tests.helpers.nets import TinyNet
from tests.helpers.running import TINY_BN, prepared, states_equal, typed

BALL = Linf(8 / 255)
AT = {"ce": Weighted(AdversarialCrossEntropy())}
KL = {"clean": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 6.0)}
SMALL = (
    "dataset=digits", "dataset.batch_size=8", "model.width=2", "attack_steps=2", "sampler_steps=2",
    "repeats=2", "warmup=0", "progress=false", "device=cpu",
)  # fmt: skip


def der(samples="all", weight=5.0):
    return {"der": Weighted(DER(samples), weight)}


METHODS = {
    "fgsm": (fgsm(BALL), AT),
    "fgsm der": (fgsm(BALL), AT | der()),
    "noise der abnormal": (n_fgsm(BALL, alpha=1e-4), AT | der("abnormal")),
    "rs-fgsm der": (rs_fgsm(BALL), AT | der()),
    "n-fgsm der": (n_fgsm(BALL), AT | der()),
    "gradalign": (fgsm(BALL), AT | {"gradalign": Weighted(GradAlign(BALL), 0.5)}),
    "pgd": (pgd(BALL), AT),
    "trades": (trades(BALL), KL),
    "trades der": (trades(BALL), KL | der()),
}


def module(net, method, **options):
    attack, terms = METHODS[method]
    bn_mode = "eval" if method.startswith("trades") else "batch"
    return AdversarialTraining(
        net, attack, Objective(terms, skip_flat=True), val_attacks={}, bn_mode=bn_mode, **options
    )


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_published_step_ends_at_our_weights(batch, method, dtype, error):
    x, y = batch[0].to(dtype), batch[1]
    theirs = TinyNet().to(dtype)
    ours = deepcopy(theirs).to(memory_format=torch.channels_last)
    start = deepcopy(theirs)
    training = module(ours, method)
    bare_step(training, sgd(ours), "fp32")(x.contiguous(memory_format=torch.channels_last), y)
    known = published.Method.of(*(training.attack, training.objective))
    published.train_step(theirs, sgd(theirs), x, y, known, training._noise(x.device, 0, 1))
    moved = [(b - a).norm() for a, b in zip(start.parameters(), ours.parameters(), strict=True)]
    assert min(moved) > 0
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert (a - b).abs().max() < error


def test_abnormal_examples_were_among_those_compared(batch):
    training = module(TinyNet(), "noise der abnormal")
    assert training.training_step(batch, 1)["parts"]["der"] > 0


def test_what_has_no_published_loop_is_refused():
    with pytest.raises(ValueError, match="no published loop"):
        published.Method.of(object(), Objective(AT))


def test_images_of_the_published_loop_are_crops_and_mirror_images():
    torch.manual_seed(0)
    pixels = torch.randint(1, 256, (4, 3, 8, 8), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(4))
    reading = published.batches(images, 2, pad=1, flip=True, workers=0)
    for x, y in islice(reading, 6):
        assert x.shape == (2, 3, 8, 8)
        assert x.dtype == torch.float32
        for image, label in zip(x, y, strict=True):
            padded = nn.functional.pad(pixels[label], (1, 1, 1, 1)) / 255
            crops = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
            assert any(torch.equal(image, c) or torch.equal(image, c.flip(-1)) for c in crops)


def test_work_is_what_torch_counts(batch):
    training = module(TinyNet(), "fgsm der")
    with FlopCounterMode(display=False) as theirs:
        training.training_step(batch, 1)["loss"].backward()
    with Work() as ours:
        training.training_step(batch, 1)["loss"].backward()
    assert ours.flops == theirs.get_total_flops() > 0


def test_rows_take_turns_and_each_begins_a_round():
    turns = []
    clock = iter(range(1000))
    rows = {
        name: Loop(
            lambda *_, name=name: turns.append(name), iter([(torch.zeros(2), torch.ones(2))] * 9),
            1, torch.device("cpu"), lambda: 0.0,
        )
        for name in "abc"
    }  # fmt: skip
    told = []
    here = {
        name: Here(row, torch.device("cpu"), lambda: float(next(clock)))
        for name, row in rows.items()
    }
    found = take_turns(here, rounds=3, warmup=1, advance=told.append)
    assert told == turns
    assert "".join(turns) == "abc" + "abc" + "abc" + "bca" + "cab" + "abc"
    assert all(len(one.seconds) == 3 and one.images == 2 for one in found.values())


def test_a_run_that_takes_turns_ends_at_the_weights_of_one_that_does_not(tmp_path):
    options = (
        *TINY_BN,
        "trainer.max_epochs=1",
        "callbacks.best=null",
        "callbacks.last=null",
        "schedule=constant",
    )
    whole = prepared(tmp_path / "whole", *options, "+trainer.limit_train_batches=5")
    whole.trainer.fit(whole.module, whole.data)
    seed_everything(0, verbose=False)
    stepped = prepared(tmp_path / "stepped", *options)

    def fit(turnstile):
        stepped.trainer.callbacks.append(turnstile)
        stepped.trainer.fit(stepped.module, stepped.data)

    fitting = StepwiseFit(fit)
    fitting.advance(2)
    assert not states_equal(whole.module, stepped.module)
    fitting.advance(3)
    assert states_equal(whole.module, stepped.module)
    fitting.close()
    assert stepped.trainer.global_step == 5


def test_an_error_inside_a_run_reaches_the_one_who_waits():
    def fit(turnstile):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        StepwiseFit(fit)


@pytest.fixture
def typing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *argv: typed(monkeypatch, capsys, benchmark.main, *argv)


def test_the_table_has_every_row_and_its_numbers(typing):
    code, out, err = typing(
        *SMALL, "apart=false", "scenarios=[fgsm_der,evaluation,sampling]", "out=found"
    )
    assert code == 0, err
    about = json.loads(Path("found/benchmark.json").read_text())
    rows = {(row["scenario"], row["row"], row["precision"]): row for row in about["rows"]}
    training = {("fgsm_der", r, p) for r in ("bare", "full") for p in ("fp32", "bf16")}
    assert training | {("fgsm_der", "reference", "fp32")} < set(rows)
    assert {("sampling", "bare", "bf16"), ("evaluation", "full", "fp32")} < set(rows)
    work = {key: row["measured"]["flops"] for key, row in rows.items()}
    reference = work["fgsm_der", "reference", "fp32"]
    assert work["fgsm_der", "bare", "fp32"] == work["fgsm_der", "full", "bf16"] < 0.85 * reference
    assert all(len(row["measured"]["seconds"]) == 2 for row in rows.values())
    assert Path("found/benchmark.md").read_text().splitlines()[0] in out
    assert sorted(path.name for path in Path().iterdir()) == ["found"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("scenarios=[fgsm,nothing]",), "scenarios=[nothing]: choose from fgsm,"),
        (("rows=[theirs]",), "choose from reference,"),
        (("rows=[torchattacks]",), "torchattacks is not installed"),
        (("attack=pgd",), "attack"),
        (("precisions=[fp16]",), "precisions="),
        (("training.compile=default",), "gradalign takes: leave it out of scenarios="),
        (("clock=moon",), "clock=moon must be wall or cpu"),
        (("repeats=0",), "repeats=0 must be"),
        (("device=cuda",), "device=cuda"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(typing, argv, said):
    code, _, err = typing(*argv)
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
    assert list(Path().iterdir()) == []


def test_help_names_all_scenarios_and_rows(typing):
    code, out, _ = typing("--help")
    assert code == 0
    assert set(SCENARIOS) | set(ROWS) <= set(out.split())


@pytest.mark.slow
def test_rows_apart_do_the_same_work_and_their_errors_come_back():
    with initialize_config_dir(CONF, version_base="1.3"):
        setting = plan_of(compose("benchmark", list(SMALL)), torch.device("cpu")).setting
        with apart() as process:
            about = (setting, "fgsm_der", "reference", "fp32", "cpu")
            ours, theirs = turns_of(*about), process.turns_of(*about)
            assert ours.work() == theirs.work()
            seconds, loading = theirs.timed()
            assert 0 < loading < seconds
            assert process.turns_of(setting, "sampling", "reference", "bf16", "cpu") is None
            with pytest.raises(KeyError, match="nothing"):
                process.turns_of(setting, "nothing", "reference", "fp32", "cpu")
            theirs.close()
            ours.close()
            for child in multiprocessing.active_children():
                child.kill()
            with pytest.raises(RuntimeError, match="has ended"):
                theirs.timed()
