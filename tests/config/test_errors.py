"""Bad input ends in one line: of a framework, of the system, of a reader that has left."""

import errno
import importlib
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from yaml import YAMLError

from energy_at.config.errors import explain, one_line_errors
from energy_at.core import trust
from energy_at.core.extras import install, of_torchvision
from energy_at.core.lock import locked
from energy_at.core.rules import ArgumentError, integer, require
from tests.helpers.running import ONE_EPOCH, assert_refused

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("reg=null", "reg=null must be aaer, der, der_gradalign, elle, elle_a, gradalign or none"),
        ("+trainer.max_steps=1", "+trainer.max_steps: the key is there already, leave out the +"),
        ("trainer.max_time=abc", "trainer.max_time=abc must be days:hours:minutes:seconds"),
        ("attack=null", "attack=null must be "),
        ("logger=[]", "logger=[] must be csv"),
        ("logger=[csv,comet]", "logger=comet must be csv, csv_wandb, mlflow"),
        ("callbacks=[default,emma]", "did you mean ema?"),
        ("experiment=rivals/leit", "error: experiment=rivals/leit must be architectures/cnn, "),
        ("experiment=liet", "standard_at or trades_der (did you mean rivals/liet?)"),
        ("hydra/launcher=nosuch", "hydra/launcher=nosuch must be basic, joblib, ray, "),
        ("hydra/launcher=null", "a group takes the name of one of its choices"),
        ("seed=${seed}", "seed=${seed} cannot be computed: Recursive interpolation"),
        ("hydra.run.dir=/dev/null/x", "Not a directory"),
    ],
)  # fmt: skip
def test_what_a_framework_or_the_system_refuses_gets_one_line(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))


def test_a_word_where_a_launcher_has_declared_a_number_is_met_by_its_name():
    config = OmegaConf.create({"hydra": {"launcher": JobLibLauncherConf}})
    with pytest.raises(ValidationError) as met:
        config.hydra.launcher.n_jobs = "many"
    must = "hydra.launcher.n_jobs=many must be an integer >= 1, or -1 for all cores"
    assert explain(met.value) == must


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=0,", "seed=0, cannot be read: write key=value, key=a,b for a sweep or key=[a,b]"),
        ("reg.name=a(b", "reg.name=a(b cannot be read: write key=value"),
        ("seed=ränge", "seed=ränge cannot be read: write key=value"),
        ("reg.weight=interval(1,2,3)", "reg.weight=interval(1,2,3): too many positional arguments"),
    ],
)
def test_an_override_that_cannot_be_read_gets_a_line_without_the_parsers_words(override, said):
    with pytest.raises(OverrideParseException) as met:
        OverridesParser.create().parse_overrides([override])
    assert explain(met.value).startswith(said)
    assert "https:" not in explain(met.value)


@pytest.mark.parametrize("extra", ["joblib", "submitit", "optuna", "ray"])
def test_a_launcher_that_is_not_installed_says_how_to_get_it(extra, type_train, monkeypatch):
    names = {"joblib": "hydra/launcher/joblib", "submitit": "hydra/launcher/submitit_local"}
    missing = MissingConfigException("no", names.get(extra, f"hydra/sweeper/{extra}"), ["basic"])
    assert explain(missing).endswith(install(extra))
    unknown = RuntimeError(f"Unknown plugin class : 'hydra_plugins.hydra_{extra}_launcher.x'")
    assert explain(unknown).endswith(install(extra))


def test_a_reader_that_has_closed_gets_no_traceback(monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as stop, one_line_errors():
            print("a table\n" * 100_000)
    assert stop.value.code == 141
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("lines", [1, 10_000], ids=["at the end", "before it"])
def test_a_full_device_behind_standard_output_gets_one_line(monkeypatch, capfd, lines):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stop, one_line_errors():
            print("a table\n" * lines)
    assert stop.value.code == 1
    assert capfd.readouterr().err == "error: standard output: No space left on device\n"


def test_a_write_that_names_no_file_is_one_of_the_run(capsys):
    with pytest.raises(SystemExit), one_line_errors(Path("runs/one")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert capsys.readouterr().err == "error: runs/one: No space left on device\n"


# Where a command is run


def mistake():
    require(integer(1), steps=0)


LINE = "steps=0 must be an integer >= 1"


def test_a_mistake_is_one_line_and_a_defect_keeps_its_traceback(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        mistake()
    assert (stop.value.code, capsys.readouterr().err) == (1, f"error: {LINE}\n")
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def test_every_traceback_is_shown_on_demand(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ArgumentError), one_line_errors():
        mistake()


def in_a_callback():
    try:
        mistake()
    except ArgumentError as error:
        raise RuntimeError("in a callback") from error


def test_a_mistake_is_explained_whatever_a_framework_has_wrapped_around_it():
    with pytest.raises(RuntimeError) as met:
        in_a_callback()
    assert explain(met.value) == LINE
    assert explain(RuntimeError("of nobody that we know")) is None


def test_trusted_code_that_fails_is_named_by_file_and_line(here, monkeypatch, capsys):
    (here / "own_term.py").write_text("def term(pair):\n    return pair.nothing\n")
    monkeypatch.syspath_prepend(here)
    own_term = importlib.import_module("own_term")
    monkeypatch.setattr(trust, "_trusted", ["own_term"])
    with pytest.raises(SystemExit) as stop, one_line_errors():
        own_term.term(1)
    err = capsys.readouterr().err
    assert stop.value.code == 1
    assert err.startswith(f"error: {here / 'own_term.py'}:2: AttributeError: 'int' object has no")
    assert err.count("\n") == 1
    monkeypatch.setattr(trust, "_trusted", [])
    with pytest.raises(AttributeError), one_line_errors():
        own_term.term(1)


def test_a_folder_that_stayed_empty_is_removed_and_one_with_files_is_kept(here):
    Path("used").mkdir()
    Path("used/metrics.csv").touch()
    Path("empty").mkdir()
    for name in ("empty", "used"):
        with pytest.raises(SystemExit), one_line_errors(Path(name)):
            mistake()
    assert [path.name for path in here.iterdir()] == ["used"]


def test_a_job_leaves_its_error_in_its_folder_until_it_is_run_again(here, capsys):
    folder, file = Path("job"), Path("job/error.txt")
    folder.mkdir()
    for error, line in ((mistake, LINE), ("text".index, "TypeError: ")):
        with one_line_errors(folder, keep_going=True):
            error()
        assert file.read_text().startswith(line)
        assert file.read_text().count("\n") == 1
        err = capsys.readouterr().err
        assert err.endswith(f"error: {file.read_text()}")
        assert ("Traceback" in err) == (error is not mistake)
    with one_line_errors(folder):
        assert not file.exists()


def test_a_job_whose_folder_is_in_use_leaves_no_error_there(here, capsys):
    job = here / "job"
    with locked(job / ".lock", job):
        with one_line_errors(job, keep_going=True), locked(job / ".lock", job):
            pass
        assert [path.name for path in job.iterdir()] == [".lock"]
    assert f"error: {job} is in use by process {os.getpid()}" in capsys.readouterr().err


def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors(on_interrupt="resume=run continues"):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\nstopped: resume=run continues\n"


def test_ctrl_c_before_anything_is_written_leaves_nothing_to_resume(here, capsys):
    for kept in ([], ["config.yaml"]):
        Path("run").mkdir()
        for name in kept:
            Path("run", name).touch()
        with pytest.raises(SystemExit), one_line_errors(Path("run"), on_interrupt="resume=run"):
            raise KeyboardInterrupt
        said = "resume=run" if kept else "nothing was written"
        assert capsys.readouterr().err == f"\nstopped: {said}\n"
        assert Path("run").exists() == bool(kept)


def test_a_network_that_calls_view_is_told_of_the_memory_format():
    x = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError) as caught:
        x.view(2, -1)
    assert "set training.channels_last=false" in explain(caught.value)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("def f(:\n", "own_code.Mine cannot be imported: invalid syntax (own_code.py, line 1)"),
        (
            "import nothing_of_the_kind\n",
            "own_code.py:1: ModuleNotFoundError: No module named",
        ),
        ("Other = 1\n", "cannot be imported: module 'own_code' has no attribute 'Mine'"),
    ],
)
def test_a_module_of_ones_own_that_cannot_be_imported_says_why(
    module, said, here, monkeypatch, type_train
):
    Path("own_code.py").write_text(module)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(trust, "_trusted", [])
    term = "+reg.terms={mine: {_target_: own_code.Mine}}"
    assert_refused(type_train, said, *ONE_EPOCH, "trust=[own_code]", term)


def test_a_yaml_file_of_ones_own_that_cannot_be_read_is_named_with_the_line():
    Path("mine.yaml").write_text("terms: [\n")
    with pytest.raises(YAMLError) as met:
        OmegaConf.load("mine.yaml")
    # the parsers of OmegaConf 2.3 and 2.4 say it in other words
    assert re.search(
        r"mine.yaml is not YAML: line 2, column 1: .*expected.* node", explain(met.value)
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("hydra.job=abc", "hydra.job=abc must be a group of keys"),
        ("hydra.run.dir=null", "hydra.run.dir=null must be a text"),
        ("hydra.run.dir=[]", "hydra.run.dir=[] must be a text"),
        ("hydra.mode=abc", "hydra.mode=abc must be RUN or MULTIRUN"),
        ("hydra.job.chdir=abc", "hydra.job.chdir=abc must be true or false"),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=abc", "n_jobs=abc must be an integer >= 1"),
    ],
)
def test_a_value_of_another_type_for_a_key_of_hydra_is_named_with_its_rule(type_train, typed, said):
    assert_refused(type_train, said, *ONE_EPOCH, *typed.split())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("loss.terms.adversarial_ce=[]", "adversarial_ce=[] must be a group of keys"),
        ("loss.terms={a: 1}", "error: loss.terms.a: unknown key"),
        ("+loss.terms.adversarial_ce.x=3", "error: loss.terms.adversarial_ce.x: energy_at"),
        ("+loss.terms.adversarial_ce.weight=0", "adversarial_ce has weight 0"),
        ("+loss.terms.adversarial_ce._partial_=true", "_partial_=true must be false for a term"),
        ("+loss.terms.adversarial_ce._recursive_=1", "_recursive_=1 must be true or false"),
        ("+loss.terms.adversarial_ce._args_=3", "_args_=3 must be a list of arguments"),
        ("+loss.terms.adversarial_ce._args_=[1]", "error: loss.terms.adversarial_ce: Error in c"),
    ],
)
def test_a_wrong_value_anywhere_in_a_term_is_named_with_its_key(typed, said, type_train):
    assert_refused(type_train, said, *ONE_EPOCH, typed)


def test_a_torchvision_of_another_build_is_said_with_the_remedy():
    with pytest.raises(RuntimeError) as met:  # as its import does
        torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::no_such", "Meta")
    assert explain(met.value) == of_torchvision(met.value)
    assert "pip install --force-reinstall torch torchvision" in str(explain(met.value))
    with pytest.raises(RuntimeError) as other:
        torch._C._dispatch_has_kernel_for_dispatch_key("aten::no_such", "Meta")
    assert explain(other.value) is None
