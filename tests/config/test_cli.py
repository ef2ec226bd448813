"""What is typed, and what comes back."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from energy_at import evaluate, report, train
from energy_at.reporting.comparison import FILES
from tests.helpers.running import ONE_EPOCH, everything, train_in, typed


@pytest.fixture(autouse=True)
def _offline(here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    with redirect_stdout(io.StringIO()) as out:
        train_in(folder / "finished", *ONE_EPOCH, "reg=der")
    return folder, out.getvalue()


@pytest.fixture
def finished(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return trained[1]


def test_the_command_of_the_readme_trains_on_embedded_data(tmp_path):
    command = [sys.executable, "-m", "energy_at.train", "model=preactresnet18", "reg=der",
               "attack=fgsm", "trainer.max_epochs=1", "model.width=4", "dataset.subset=400",
               "validation.attacks.pgd.steps=2", "evaluation.attacks.pgd.steps=2",
               "hydra.run.dir=run"]  # fmt: skip
    nobody = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    nobody |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env=nobody, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "W&B runs offline" in result.stderr
    for shown in ("loss=", "clean=", "adv=", "dE(x)=", "img/s="):
        assert shown in result.stdout + result.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "environment.json", "metrics.csv", "checkpoints", "results.json",
            "delta_energy.png", "delta_energy.pdf", "wandb"} <= names  # fmt: skip


def test_a_run_leaves_one_row_for_each_step_with_all_energies(finished):
    with Path("finished/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [row for row in rows if row["train/loss"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 15))
    logged = {f"train/delta_energy/{k}" for k in ("marginal", "joint", "shift_norm", "shift_p99")}
    logged |= {f"train/energy/{e}_{w}" for e in ("marginal", "joint") for w in ("clean", "adv")}
    logged |= {"train/aae_share", "train/acc/clean", "train/acc/adv", "train/logit_scale",
               "train/loss/adversarial_ce", "train/loss/der", "lr", "epoch"}  # fmt: skip
    assert all(row[name] for row in steps for name in logged)
    (validated,) = [row for row in rows if row["val/acc/pgd"]]
    assert (validated["step"], validated["epoch"]) == ("14", "0")
    assert validated["val/delta_energy/marginal"]


def test_a_run_knows_its_versions_and_its_configuration(finished):
    environment = json.loads(Path("finished/environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert set(environment) >= {"git_commit", "device", "command", "cpu_count"}
    assert "${" not in Path("finished/config.yaml").read_text()


def test_the_printed_table_holds_the_written_results(finished):
    results = json.loads(Path("finished/results.json").read_text())
    assert f"{100 * results['last']['test']['clean']:.1f}" in finished
    assert results["last"]["test"]["n"] == 128
    assert results["last"]["val"]["n"] == 64


def test_a_run_is_opened_again_and_measures_the_same(finished, monkeypatch, capsys):
    monkeypatch.setattr("energy_at.evaluation.gradient_masking.BLACK_BOX_QUERIES", 20)
    weak = ("attacks=[fgsm,pgd]", "steps=2", "restarts=1", "progress=false")
    code, out, _ = typed(monkeypatch, capsys, evaluate.main, "run=finished", *weak)
    results = json.loads(Path("finished/results.json").read_text())["last"]["test"]
    assert code == 0
    cells = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
    shares = {row[1]: row[4] for row in cells if len(row) > 4}
    for label, name in (("clean", "clean"), ("FGSM", "fgsm"), ("PGD-2", "pgd")):
        assert shares[label] == f"{100 * results[name]:.1f}"


@pytest.mark.slow
def test_report_writes_table_and_figure(finished, monkeypatch, capsys):
    shutil.copytree("finished", "other")
    code, out, _ = typed(monkeypatch, capsys, report.main, "runs=[finished,other]", "out=both")
    assert code == 0
    assert out.count("| finished") == out.count("| other ") == 4
    assert {p.name for p in Path("both").iterdir()} == {
        "table.md", "table.csv", "delta_energy.png", "delta_energy.pdf", "report.md",
        "report.html", "figures", *FILES
    }  # fmt: skip


def test_a_finished_run_is_not_overwritten(finished, type_train):
    before = everything()
    code, _, err = type_train(*ONE_EPOCH, "hydra.run.dir=finished")
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "finished already holds a run: resume=" in err
    assert everything() == before


@pytest.mark.parametrize(
    ("typed_wrong", "said"),
    [
        ("attack=fgms", "attack=fgms: unknown choice; did you mean attack=fgsm? choose from fgsm,"),
        ("dataset=cifar11", "choose from cifar10, cifar100, digits"),
        ("reg=derr", "reg=derr: unknown choice; did you mean reg=der? choose from aaer, der"),
        ("model=wrn28_10", "did you mean model=wideresnet28_10?"),
        ("reg.weight=20", "reg=none has no weight: add reg=der (or aaer, elle, elle_a, gradalign)"),
        ("attack.k=2", "attack=fgsm has no k: add attack=n_fgsm"),
        ("reg.weigth=2", "reg.weigth: unknown key; did you mean reg.weight?"),
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean trainer.max_epochs?"),
        ("epochs=3", "epochs: unknown key; did you mean dataset.epochs or trainer.max_epochs"),
        ("datset=cifar10", "datset: unknown key; did you mean dataset?"),
        ("hydra.swep.dir=x", "hydra.swep.dir: unknown key; did you mean hydra.sweep.dir"),
        (("reg=der", "reg.weight=-1"), "reg.weight=-1 must be a finite number >= 0"),
        ("optimizer.lr=-1", "optimizer.lr=-1 must be a finite number > 0"),
        ("schedule.peak=2", "schedule.peak=2 must be a finite number > 0 and < 1"),
        ("callbacks.last.every_n_steps=0", "last.every_n_steps=0 must be an integer >= 1, or null"),
        ("reg=null", "a group takes the name of one of its choices, such as reg=none"),
        ("reg=[der,gradalign]", "or a combination that has a file: reg=der_gradalign, or each in"),
        ("loss=[at,trades]", "loss takes one choice, such as loss=at, or each in turn: -m loss=at"),
        ("training.awp=0.01", "training.awp=0.01 must be a group of keys"),
        ("evaluation.attacks=null", "evaluation.attacks=None must be a group of keys"),
        ("no_such_key=1", "no_such_key: unknown key; --help lists all keys"),
        ("threat.eps=8", "threat.eps=8 is above 1, but pixels lie in [0, 1]: did you mean 8/255?"),
        (("threat=l2", "threat.eps=128"), "threat.eps=128 is above 13.86, but pixels lie in [0"),
        ("threat.eps=-8/255", "must be positive"),
        ("threat.eps=eight", "must be a number, or a fraction such as 8/255"),
        ("attack.alpha=2", "attack.alpha=2 is above 1"),
        (("model=preactresnet18", "model.width=2", "dataset.batch_size=1"), "one image"),
        (("model=preactresnet18", "model.width=2", "dataset.batch_size=447"), "one image"),
        ("dataset.val_size=1", "cannot hold out 1 of 512 images"),
        ("dataset.subset=1000", "dataset.subset=1000 is too large"),
        ("seed=abc", "seed=abc must be an integer from 0 to 4294967295"),
        ("trainer.devices=0", "trainer.devices=0 must be a number of processes >= 1, or auto"),
        ("trainer.precision=foo", "Lightning refuses the trainer's settings: Precision 'foo'"),
        ("+trainer.foo=1", "+trainer.foo=1: nothing reads trainer.foo"),
        ("+trainer.max_steps=1", "+trainer.max_steps: the key is there already, leave out the +"),
        ("trainer.accumulate_grad_batches=2", "accumulate_grad_batches=2 must be 1, as every step"),
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run=True must be false, as it would write"),
        ("trainer.overfit_batches=2", "trainer.overfit_batches=2 must be 0"),
        ("trainer.limit_test_batches=2", "must be null, as no training uses it"),
        ("trainer.inference_mode=true", "must be false, as attacks need gradients"),
        ("trainer.barebones=true", "Lightning refuses the trainer's settings"),
        ("trainer.limit_train_batches=0", "limit_train_batches=0 must be a finite number > 0"),
        ("trainer.gradient_clip_val=-1", "gradient_clip_val=-1 must be a finite number > 0"),
        ("trainer.min_epochs=abc", "trainer.min_epochs=abc must be an integer >= 1, or null"),
        ("trainer.max_time=abc", "not a valid duration. Expected a string in the format DD:HH:MM"),
        ("+foo=1", "+foo=1: nothing reads foo, leave it out; --help lists all keys"),
        ("+training.foo=1", "+training.foo=1: nothing reads training.foo"),
        (("reg=der", "+reg.foo=1"), "+reg.foo=1: nothing reads reg.foo, leave it out"),
        (("reg=none", "+reg.weight=1"), "+reg.weight=1: nothing reads reg.weight"),
        ("+evaluation.attacks.foo=1", "nothing reads evaluation.attacks.foo"),
        ("+optimizer.foo=1", "got an unexpected keyword argument 'foo'"),
        ("evaluation.checkpoints=last", "must be a list of last and best, such as [last]"),
        ("callbacks.best.monitor=val/acc/foo", "choose from val/acc/clean, val/acc/fgsm"),
        ("model.classes=3", "the model has 3 logits but labels go up to 3"),
        ("model.channels=1", "the model does not take images of shape (3, 8, 8)"),
        ("attack=null", "takes the name of one of its choices"),
        ("hydra.run.dir=/dev/null/x", "Not a directory"),
        ("resume=", "resume= names no run"),
        ("trainer.precision=bf16-true", "use bf16-mixed or 32-true"),
        ("callbacks.best.monitor=test/acc", "must not be chosen by test/acc"),
        ("evaluation.subset=1000", "evaluation.subset=1000 is too large"),
        (("dataset=cifar10", "dataset.download=false"), "put cifar-10-batches-py/ from https://"),
        (("dataset=tiny_imagenet",), "Tiny-ImageNet not found, no wnids.txt: unpack"),
        ("resume=nowhere", "nowhere is not a run folder"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_leaves_nothing(type_train, typed_wrong, said):
    wrong = (typed_wrong,) if isinstance(typed_wrong, str) else typed_wrong
    code, out, err = type_train(*ONE_EPOCH, *wrong)
    assert code == 1
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert list(Path().iterdir()) == []


def test_a_loss_that_is_not_finite_stops_with_its_step(type_train):
    code, _, err = type_train(*ONE_EPOCH, "optimizer.lr=1e30", "hydra.run.dir=broken")
    assert code == 1
    assert "the loss is nan at step" in err.splitlines()[-1]
    assert not list(Path("broken").rglob("*.ckpt"))


def test_a_late_nan_keeps_the_last_good_checkpoint(type_train):
    good = type_train(*ONE_EPOCH, "hydra.run.dir=run", "trainer.max_epochs=2")
    assert good[0] == 0
    before = Path("run/checkpoints/last.ckpt").read_bytes()
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    for group in checkpoint["optimizer_states"][0]["state"].values():
        group["momentum_buffer"].fill_(float("inf"))
    torch.save(checkpoint, "run/checkpoints/last.ckpt")
    poisoned = Path("run/checkpoints/last.ckpt").read_bytes()
    code, _, err = type_train("resume=run", "trainer.max_epochs=4")
    assert code == 1
    assert "training stopped, checkpoints written before are kept" in err
    assert Path("run/checkpoints/last.ckpt").read_bytes() == poisoned != before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "has no checkpoint last.ckpt"),
        (lambda p: p.write_bytes(p.read_bytes()[:1000]), "is damaged or truncated"),
        (lambda p: torch.save({"state_dict": {}, "f": typed}, p), "more than tensors and plain"),
    ],
    ids=["missing", "truncated", "code"],
)
def test_a_bad_checkpoint_gets_one_line_and_the_run_is_left_alone(
    finished, type_train, damage, said
):
    damage(Path("finished/checkpoints/last.ckpt"))
    before = everything()
    code, _, err = type_train("resume=finished")
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
    assert everything() == before


def test_resume_refuses_to_make_another_run_of_it(finished, type_train):
    before = everything()
    code, _, err = type_train("resume=finished", "reg=none")
    assert code == 1
    assert "resume continues a run as it was, so reg=none cannot change" in err
    assert everything() == before


def test_resume_trains_on_for_longer(finished, type_train):
    code, _, err = type_train("resume=finished", "trainer.max_epochs=2")
    assert code == 0, err
    with Path("finished/metrics.csv").open() as file:
        steps = [int(r["step"]) for r in csv.DictReader(file) if r["train/loss"]]
    assert steps == list(range(1, 29))


@pytest.mark.parametrize(("argv", "said"), [(["-m"], "\nstopped\n"), (["train.py"], "Traceback")])
def test_ctrl_c_while_an_entry_is_imported_is_no_defect(argv, said):
    """As of ``python -m energy_at.train``: the package comes first, then what takes its time."""
    program = f"import sys; sys.argv = {argv}; import energy_at; raise KeyboardInterrupt"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGINT  # 130 in a shell
    assert done.stderr.startswith(said)
    assert ("Traceback" in done.stderr) == (argv != ["-m"])


@pytest.mark.parametrize("entry", [train, evaluate, report])
def test_help_shows_an_example(entry, monkeypatch, capsys):
    code, out, _ = typed(monkeypatch, capsys, entry.main, "--help")
    assert code == 0
    assert f"python -m {entry.__name__} " in out


@pytest.mark.parametrize(
    ("entry", "argv", "said"),
    [
        (evaluate, ("run=nowhere",), "nowhere is not a run folder"),
        (evaluate, (), "run"),
        (report, ("runs=[nowhere]",), "nowhere is not a run folder"),
        (report, ("runs=[]",), "runs=[] names no run"),
        (report, (), "runs"),
    ],
)
def test_other_entries_answer_mistakes_in_one_line(entry, argv, said, monkeypatch, capsys):
    code, _, err = typed(monkeypatch, capsys, entry.main, *argv)
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
    assert list(Path().iterdir()) == []
