"""What is typed to write weights down, and to evaluate anybody's."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

import energy_at
from energy_at import evaluate, export
from energy_at.config.build import make, reopen
from energy_at.evaluation import hub
from energy_at.models.weights import load_weights
from energy_at.runs.checkpoints import read_tensors, state_digest
from energy_at.runs.folder import RunFolder
from energy_at.training.callbacks.checkpoints import BestCheckpoint
from tests.helpers.running import everything, states_equal, train_in, typed

MODEL = ("dataset=synthetic", "model.width=2")
WEAK = ("attacks=[fgsm,pgd]", "steps=2", "restarts=1", "batch_size=64", "progress=false")
CHECKPOINT = "checkpoint=run/checkpoints/last.ckpt"
TRAINING = (
    *MODEL,
    "attack=fgsm",
    "callbacks=ema",
    "callbacks.ema.decay=0.5",
    "validation.attacks.pgd.steps=1",
    "evaluation.attacks.pgd.steps=2",
    "logger=csv",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # the first epoch is best, so that last is not
        first = lambda self, *_: not self.best_k_models  # noqa: E731
        patch.setattr(BestCheckpoint, "check_monitor_top_k", first)
        return train_in(tmp_path_factory.mktemp("trained") / "run", *TRAINING)


@pytest.fixture(autouse=True)
def run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("energy_at.evaluation.gradient_masking.BLACK_BOX_QUERIES", 20)
    return Path(shutil.copytree(trained, "run"))


@pytest.fixture
def type_in(monkeypatch, capsys):
    return lambda entry, *argv: typed(monkeypatch, capsys, entry.main, *argv)


def rows(out):
    """Of the printed table."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()
            if line.startswith("| ")][2:]  # fmt: skip


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("which", [pytest.param("last", marks=pytest.mark.slow), "best"])
def test_an_exported_run_evaluates_to_the_same_numbers(which, type_in, run):
    before = everything()
    code, out, err = type_in(export, "run=run", f"which={which}")
    assert (code, err) == (0, "")
    file = run / f"{which}.safetensors"
    assert out == f"written to {file}\n"
    assert everything() == before | {file: file.read_bytes()}
    _, of_run, _ = type_in(evaluate, "run=run", f"which={which}", *WEAK)
    code, of_file, err = type_in(evaluate, f"checkpoint={file}", *MODEL, *WEAK)
    assert (code, err) == (0, "")
    assert rows(of_file) == rows(of_run)
    code, by_itself, err = type_in(evaluate, f"checkpoint={file}", MODEL[0], *WEAK)
    assert (code, err) == (0, f"{file}: its network has width=2\n")
    assert rows(by_itself) == rows(of_run)
    results = json.loads((run / "results.json").read_text())
    assert results["last"]["test"]["clean"] != results["best"]["test"]["clean"]
    shares = [f"{100 * results[which]['test'][name]:.1f}" for name in ("clean", "fgsm", "pgd2")]
    assert [row[3] for row in rows(of_file)] == shares


@pytest.mark.slow
@pytest.mark.parametrize("which", ["last", "best"])
def test_a_checkpoint_of_a_run_evaluates_as_the_run(which, type_in, run):
    _, of_run, _ = type_in(evaluate, "run=run", f"which={which}", *WEAK)
    checkpoint = f"checkpoint=run/checkpoints/{which}.ckpt"
    code, of_file, err = type_in(evaluate, checkpoint, *MODEL, *WEAK)
    assert (code, err) == (0, "")
    assert rows(of_file) == rows(of_run)


def test_the_options_of_an_evaluation_hold_for_a_file_too(type_in, run):
    typed_before = (CHECKPOINT, *MODEL, "subset=40", *WEAK)
    code, strong, err = type_in(evaluate, *typed_before, "threat.eps=32/255")
    assert (code, err) == (0, "")
    assert all(row[2].endswith(" of 40") for row in rows(strong))
    _, weak, _ = type_in(evaluate, *typed_before)
    assert rows(weak)[0] == rows(strong)[0]
    assert rows(weak) != rows(strong)


def test_the_exported_weights_are_those_of_the_run(run):
    module, _ = reopen(RunFolder.open(run), "last")
    file = hub.export(RunFolder.open(run), "last", Path("deep/folder/weights.safetensors"))
    net = make(OmegaConf.create(json.loads(metadata(file)["model"])))
    assert not states_equal(net, module.net)
    load_weights(net, read_tensors(file))
    assert states_equal(net, module.net)


def test_bf16_rounds_kernels_alone(type_in, run):
    code, out, err = type_in(export, "run=run", "dtype=bf16", "out=half.safetensors")
    assert (code, out, err) == (0, "written to half.safetensors\n", "")
    whole = read_tensors(hub.export(RunFolder.open(run), "last", Path("whole.safetensors")))
    half = read_tensors("half.safetensors")
    assert half.keys() == whole.keys()
    kernels = {key for key, value in half.items() if value.dtype == torch.bfloat16}
    names = ("conv", "shortcut", "linear.weight")
    assert kernels == {key for key in whole if any(name in key for name in names)}
    for key, value in whole.items():
        assert torch.equal(half[key], value.bfloat16() if key in kernels else value), key
    net = make(OmegaConf.create(json.loads(metadata("half.safetensors")["model"])))
    load_weights(net, half)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert torch.equal(net.net.conv1.weight, whole["conv1.weight"].bfloat16().float())
    code, out, err = type_in(export, "run=run", "dtype=bf16", "format=hub", "out=dir")
    assert (code, out, err) == (0, "written to dir\n", "")
    again = read_tensors("dir/model.safetensors")
    assert all(torch.equal(again[key], value) for key, value in half.items())
    assert "before the kernels were rounded to bf16" in Path("dir/README.md").read_text()
    code, _, err = type_in(export, "run=run", "dtype=fp16")
    assert (code, err) == (1, "error: dtype=fp16 must be fp32 or bf16 (did you mean bf16?)\n")


def test_the_file_says_what_it_is(run):
    file = hub.export(RunFolder.open(run), "best", Path("weights.safetensors"))
    about = metadata(file)
    model = json.loads(about.pop("model"))
    assert about == {
        "energy_at": energy_at.__version__,
        "dataset": "synthetic",
        "checkpoint": "best",
        "sha256": state_digest(read_tensors(file)),
    }
    assert (model["_target_"], model["width"]) == ("energy_at.models.preactresnet18", 2)
    assert (model["channels"], model["classes"]) == (3, 4)


def test_anyone_who_may_read_files_of_this_user_may_read_the_export(run):
    Path("other").touch()
    file = hub.export(RunFolder.open(run), "last", Path("weights.safetensors"))
    assert file.stat().st_mode == Path("other").stat().st_mode


def test_an_export_replaces_the_file_and_leaves_nothing_else(run):
    file = Path("weights.safetensors")
    file.write_bytes(b"old" * 100_000)
    before = everything()
    hub.export(RunFolder.open(run), "last", file)
    after = everything()
    assert after.keys() == before.keys()
    assert read_tensors(file).keys() > {"normalize.mean", "normalize.std", "conv1.weight"}


def test_an_export_that_finds_no_room_leaves_the_old_file(run):
    file = hub.export(RunFolder.open(run), "best", Path("weights.safetensors"))
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(Exception, match="too large"):
            hub.export(RunFolder.open(run), "last", file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    hub.export(RunFolder.open(run), "last", file)
    assert file.read_bytes() != before


def test_help_shows_an_example(type_in):
    code, out, _ = type_in(export, "--help")
    assert code == 0
    assert "python -m energy_at.export run=FOLDER" in out


@pytest.mark.parametrize(
    ("entry", "argv", "said"),
    [
        (evaluate, (), "name one of run=FOLDER, checkpoint=FILE"),
        (evaluate, ("run=run", CHECKPOINT), "name one of run=FOLDER"),
        (evaluate, ("checkpoint=none.pt",), "checkpoint none.pt not found"),
        (evaluate, ("checkpoint=run",), "checkpoint=run is a folder: name a file in it, or write "),
        (evaluate, ("checkpoint=run/config.yaml",), "run/config.yaml is not a checkpoint"),
        (evaluate, (CHECKPOINT, *MODEL, "model.width=3"), "the model needs (3, 3, 3, 3)"),
        (evaluate, (CHECKPOINT, *MODEL, "model=resnet18"), "first missing bn1.weight"),
        (evaluate, (CHECKPOINT, *MODEL, "model.final_norm=false"), "first unexpected bn.weight"),
        (evaluate, (CHECKPOINT, *MODEL, "dataset=digits"), "for 3 channels, the images have 1"),
        (evaluate, (CHECKPOINT, *MODEL, "dataset.classes=7"), "linear.weight is (4, 16), the"),
        (evaluate, (CHECKPOINT, *MODEL, "model.activation=gelu"), "must be relu or silu"),
        (evaluate, (CHECKPOINT, *MODEL, "model.shortcut=none"), "must be activated, plain or"),
        (export, (), "run"),
        (export, ("run=nowhere",), "nowhere is not a run folder"),
        (export, ("run=run", "out=x.onnx"), "out=x.onnx must end in .safetensors, the format"),
        (export, ("run=run", "out=x"), "out=x must end in .safetensors, the format"),
        (export, ("run=run", "format=hub", "out=x.safetensors"), "must be a folder, as format=hub"),
        (export, ("run=run", "which=final"), "which=final must be last, best or healthy"),
        (export, ("run=run", "wich=last"), "wich: unknown key; did you mean which?"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_writes_nothing(entry, argv, said, type_in):
    before = everything()
    code, out, err = type_in(entry, *argv)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert said in err
    assert everything() == before


def test_a_file_with_code_gets_one_line_and_runs_nothing(type_in):
    torch.save({"state_dict": {}, "code": typed}, "file.pt")
    code, out, err = type_in(evaluate, "checkpoint=file.pt", *MODEL)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "holds more than tensors and plain values, which could run code: not read" in err
