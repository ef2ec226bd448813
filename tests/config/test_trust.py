"""What a configuration may build: a stranger's run folder runs no code of its own."""

import copy
import re
import shutil
import statistics
import sys

import pytest
from omegaconf import OmegaConf

from energy_at import analyse, evaluate, export, sample, train
from energy_at.config import trust
from energy_at.config.build import make
from energy_at.config.trust import own_attacks, require_trusted, set_trusted
from energy_at.runs.folder import RunFolder
from tests.helpers.running import ONE_EPOCH, config, everything, train_in, typed

STRANGE = [
    "os.system",
    "joblib.load",
    "torch.hub.load",
    "torch.load",
    "builtins.open",
    "builtins.eval",
    "pathlib.Path.unlink",
    "urllib.request.urlopen",
    "numpy.load",
    "distutils.spawn.spawn",
    "subprocess.Popen",
    "hydra.utils.get_object",
    "hydra.utils.instantiate",
    "functools.partial",
    # ours, but nothing that a configuration has to build
    "energy_at.runs.folder.RunFolder.write_results",
    "energy_at.core.files.write_atomic",
    "energy_at.runs.checkpoints.read_checkpoint",
    "energy_at.config.trust.set_trusted",
    # aliases through a package that is allowed
    "torch.nn.modules.module.torch.hub.load",
    "torch.nn.functional.torch.hub.load",
    "torch.nn.init.warnings.sys.exit",
    "torch.optim.optimizer.functools.partial",
    "lightning.pytorch.callbacks.timer.log.warning",
    "torchvision.models.get_model",
    "torchvision.models.resnet.load_state_dict_from_url",
    "energy_at.objectives.der.torch.hub.load",
    # modules whose import would be the attack
    "antigravity.geohash",
    "this",
    "",
    "energy_at..objectives.DER",
]
PLACES = [
    "model",
    "dataset.reader",
    "attack.search",
    "attack.search.ball",
    "validation.attacks.pgd",
    "evaluation.attacks.pgd",
    "loss.terms.adversarial_ce",
    "reg.terms.der",
    "optimizer",
    "schedule",
    "callbacks.sentinel",
    "callbacks.sentinel.der.term",
    "callbacks.own",
    "logger.csv",
    "trainer.plugins",
    "threat.ball",
]


@pytest.fixture(autouse=True)
def trust_nobody(monkeypatch):
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    set_trusted([])
    yield
    monkeypatch.undo()
    set_trusted([])


@pytest.mark.parametrize("target", STRANGE)
def test_a_strange_target_is_refused_with_its_key_and_the_remedy(target):
    cfg = OmegaConf.create({"model": {"_target_": target, "x": 1}})
    package = re.escape(target.partition(".")[0])
    line = rf"^model\._target_={re.escape(target)} is not trusted.*trust=\[{package}\][^\n]*$"
    with pytest.raises(ValueError, match=line):
        make(cfg.model)


@pytest.mark.parametrize("target", ["antigravity.geohash", "this", "tests.helpers.never_imported"])
def test_a_refused_module_is_not_even_imported(target, monkeypatch):
    module = target if target == "this" else target.rpartition(".")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ValueError, match="is not trusted"):
        make(OmegaConf.create({"_target_": target}))
    assert module not in sys.modules or module == "tests.helpers"


@pytest.fixture(scope="module")
def composed():
    cfg = config("dataset=synthetic", "model=small", "reg=der", "callbacks=[default,sentinel]")
    OmegaConf.set_struct(cfg, False)
    return cfg


@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_a_configuration_is_checked(composed, place):
    cfg = copy.deepcopy(composed)
    OmegaConf.update(cfg, f"{place}._target_", "os.system", force_add=True)
    group = place.partition(".")[0]
    line = re.escape(f"{place}._target_=os.system is not trusted")
    with pytest.raises(ValueError, match=line):
        require_trusted(cfg[group])


@pytest.mark.parametrize(
    "below",
    [
        {"_partial_": True},
        {"_recursive_": False},
        {"_convert_": "all"},
        {"_args_": ["echo"]},
    ],
)
def test_hydras_own_keys_change_nothing(below):
    nested = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system", **below}]}
    with pytest.raises(ValueError, match=r"_args_\[0\]\._target_=os\.system is not trusted"):
        make(OmegaConf.create(nested))


def test_a_target_behind_an_interpolation_is_checked_by_its_value():
    cfg = OmegaConf.create({"x": "os.system", "model": {"_target_": "${x}"}})
    with pytest.raises(ValueError, match=r"model\._target_=os\.system is not trusted"):
        make(cfg.model)


@pytest.mark.parametrize("target", [1, None, ["os.system"], {"a": 1}])
def test_a_target_that_is_no_name_is_refused(target):
    with pytest.raises(ValueError, match="must be the name of a class or function"):
        make(OmegaConf.create({"_target_": target}))


def test_everything_that_the_project_itself_names_is_built():
    for overrides in (["reg=der"], ["loss=trades", "attack=trades"], ["callbacks=[default,ema]"]):
        cfg = config("dataset=synthetic", "model=small", *overrides)
        for group in cfg.values():
            require_trusted(group)
    assert "energy_at.objectives.DER" in trust._own_targets()


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Linear",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.StepLR",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.loggers.CSVLogger",
        "torchvision.models.resnet18",
        "timm.create_model",
    ],
)
def test_known_classes_of_libraries_are_allowed(target):
    assert trust._is_family(target)
    assert not trust._is_family(f"{target}.forward")
    require_trusted(OmegaConf.create({"_target_": target}))


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "_args_"])
def test_timm_reads_no_file_of_a_stranger(argument):
    node = {"_target_": "timm.create_model", argument: ["p.pth"]}
    with pytest.raises(ValueError, match=f"timm.create_model may not take {argument}"):
        require_trusted(OmegaConf.create(node))


def test_a_trusted_package_is_built_from_by_its_own_things_only(monkeypatch):
    own = OmegaConf.create({"_target_": "tests.helpers.running.config"})
    alias = OmegaConf.create({"_target_": "tests.helpers.wandb_files.json.loads"})
    other = OmegaConf.create({"_target_": "testsuite.thing"})
    set_trusted(["tests.helpers"])
    require_trusted(own)
    for cfg in (alias, other):
        with pytest.raises(ValueError, match="is not trusted"):
            require_trusted(cfg)
    set_trusted([])
    with pytest.raises(ValueError, match="is not trusted"):
        require_trusted(own)
    monkeypatch.setenv(trust.VARIABLE, "some_package, tests")
    set_trusted([])
    require_trusted(own)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, and a module of its owner that leaves a file when it is called."""
    folder = tmp_path_factory.mktemp("trust")
    train_in(folder / "run", *ONE_EPOCH, "dataset.subset=64")
    (folder / "my_package.py").write_text(
        "from pathlib import Path\nfrom energy_at.models import small\n"
        "def network(**kwargs):\n"
        "    Path('called').touch()\n    return small(**kwargs)\n"
    )
    return folder


@pytest.fixture
def owner(folder, monkeypatch):
    """A place where the module can be imported."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    (folder / "called").unlink(missing_ok=True)
    return folder


def strange(folder, target):
    """The run, as a stranger has changed it."""
    shutil.rmtree(folder / "strange", ignore_errors=True)
    shutil.copytree(folder / "run", folder / "strange")
    run = RunFolder(folder / "strange")
    cfg = OmegaConf.load(run.config_file)
    cfg.model._target_ = target
    cfg.trust = ["my_package"]
    run.config_file.write_text(OmegaConf.to_yaml(cfg))
    return run


COMMANDS = {
    evaluate: ["run=strange", "attacks=[fgsm]", "subset=8"],
    train: ["resume=strange", "trainer.max_epochs=2"],
    export: ["run=strange"],
    sample: ["run=strange", "n=4", "quality=none", "start=noise"],
    analyse: ["run=strange", "attacks=[fgsm]", "subset=8"],
}


JUDGE = ["run=run", "judge=strange", *COMMANDS[sample][1:]]


@pytest.mark.parametrize(
    ("command", "argv"),
    [*COMMANDS.items(), (sample, JUDGE)],
    ids=[*(command.__name__ for command in COMMANDS), "judge"],
)
def test_no_command_runs_the_code_of_a_strangers_run(owner, monkeypatch, capsys, command, argv):
    strange(owner, "my_package.network")
    before = everything(owner)
    code, _, error = typed(monkeypatch, capsys, command.main, *argv)
    assert code == 1
    assert error.startswith("error: model._target_=my_package.network is not trusted")
    assert "trust=[my_package]" in error
    assert error.count("\n") == 1
    assert everything(owner) == before  # nothing called, nothing written


def test_who_trusts_a_package_builds_from_it_and_no_run_says_so(owner, monkeypatch, capsys):
    run = strange(owner, "my_package.network")
    words = [*COMMANDS[train], "trust=[my_package]"]
    code, _, error = typed(monkeypatch, capsys, train.main, *words)
    assert (code, error) == (0, "")
    assert (owner / "called").exists()
    assert "trust" not in RunFolder(owner / "run").config()
    assert "trust" not in str(run.overrides())


def test_a_secret_of_the_reader_is_read_by_no_saved_configuration(folder):
    run = strange(folder, "energy_at.models.small")
    text = run.config_file.read_text()
    for hidden in ("${oc.env:SECRET_KEY}", '"\\x24{oc.env:SECRET_KEY}"'):
        run.config_file.write_text(text.replace("name: synthetic", f"name: {hidden}"))
        with pytest.raises(ValueError, match="holds an interpolation"):
            run.config()


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("mine", "math.hypot", "attack.mine=math.hypot is not trusted"),
        ("mine", "statistics.nothing", "attack.mine=statistics.nothing cannot be imported"),
        ("mine", "statistics", "must be the name of a function: my_module.my_attack"),
        ("mine", "statistics.__doc__", "must be a function of model, x and y"),
        ("pgd", "statistics.mean", "attack.pgd: choose a name that is no attack of this package"),
        ("eot", 10, "attack.eot=10: write eot=10"),
    ],
)
def test_an_attack_of_ones_own_is_a_function_that_is_trusted(name, target, said):
    cfg = OmegaConf.create({"eot": 1, "attack": {name: target}})
    set_trusted(["statistics"])
    try:
        with pytest.raises(ValueError, match=re.escape(said)):
            own_attacks(cfg.attack)
        cfg.attack = {"mine": "statistics.mean"}
        assert own_attacks(cfg.attack) == {"mine": statistics.mean}
    finally:
        set_trusted([])
