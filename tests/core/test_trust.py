"""What a configuration may build: a stranger's run folder runs no code of its own."""

import re
import shutil
import statistics
import sys
from itertools import cycle
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import energy_at.watch.__main__ as watch
from energy_at import analyse, evaluate, export, report, sample, train
from energy_at.config.build import make
from energy_at.config.schema import check
from energy_at.core import trust
from energy_at.core.trust import own_attacks, require_inside, require_trusted, set_trusted
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
    "energy_at.core.trust.set_trusted",
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
    "hydra.sweeper",
    "of_nobody",
]


def built(target, **more):
    return {"_target_": target, **more}


ALIAS = "torch.nn.modules.module.torch.hub.load"
NESTED = built("torch.nn.Sequential", _args_=[built("torch.nn.ReLU"), built("os.system")])
FORMS = {  # node: where in it the first refused target stands, and this target
    "plain": (built("os.system", command="id"), "_target_", "os.system"),
    "partial": (built("os.system", _partial_=True), "_target_", "os.system"),
    "not recursive": (built("os.system", _recursive_=False), "_target_", "os.system"),
    "converted": (built("os.system", _convert_="all"), "_target_", "os.system"),
    "positional": (built("os.system", _args_=["id"]), "_target_", "os.system"),
    "alias": (built(ALIAS, repo="x"), "_target_", ALIAS),
    "below": ({"x": {"y": built("os.system")}}, "x.y._target_", "os.system"),
    "in a list": ({"x": [[1, built("os.system")]]}, "x[0][1]._target_", "os.system"),
    "argument": (built("torch.nn.Sequential", x=built("os.system")), "x._target_", "os.system"),
    "element": (NESTED, "_args_[1]._target_", "os.system"),
    "ours": (built("energy_at.runs.folder.runs_in"), "_target_", "energy_at.runs.folder.runs_in"),
    "no name": (built(["os.system"]), "_target_", "[os.system]"),
}


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
    remedy = "no configuration of this" if package == "energy_at" else rf"trust=\[{package}\]"
    line = rf"^model\._target_={re.escape(target)} is not trusted[^\n]*{remedy}[^\n]*$"
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


@pytest.fixture(scope="module")
def saved(composed, tmp_path_factory):
    """The run folder of this configuration."""
    return RunFolder.create(tmp_path_factory.mktemp("saved") / "run", composed)


@pytest.mark.parametrize(
    ("place", "form"),
    [(place, "plain") for place in PLACES] + [("callbacks.own", form) for form in FORMS],
)
def test_a_run_that_names_a_strange_target_anywhere_is_not_read(saved, composed, place, form):
    node, at, target = FORMS[form]
    cfg = OmegaConf.create(OmegaConf.to_container(composed, resolve=True))
    OmegaConf.update(cfg, place, node, merge=False, force_add=True)
    OmegaConf.save(cfg, saved.config_file)
    with pytest.raises(ValueError, match=r"config\.yaml") as caught:
        saved.config()
    says = "must be the name of" if form == "no name" else "is not trusted"
    line = f"{saved.config_file}: {place}.{at}={target} {says}"
    assert str(caught.value).startswith(line)
    assert ("trust=[os]" in str(caught.value)) is (target == "os.system")


def test_a_target_is_found_behind_anchors_of_yaml(saved, composed):
    text = OmegaConf.to_yaml(composed, resolve=True)
    for alias in ("{z: *a}", "{z: {<<: *a, b: 1}}"):
        saved.config_file.write_text(f"a: &a {{_target_: os.system}}\nx: {alias}\n{text}")
        with pytest.raises(ValueError, match=r": a\._target_=os\.system is not trusted"):
            saved.config()


def test_a_target_behind_an_interpolation_is_checked_by_its_value():
    cfg = OmegaConf.create({"x": "os.system", "model": {"_target_": "${x}"}})
    with pytest.raises(ValueError, match=r"model\._target_=os\.system is not trusted"):
        make(cfg.model)


@pytest.mark.parametrize("target", [1, None, "", ["os.system"], {"a": 1}])
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


@pytest.mark.parametrize("name", ["hf-hub:a", "HF_HUB:a/b", "local-dir:x", "a/b", "a\\b"])
def test_a_run_names_no_network_of_a_server_or_a_folder(name, tmp_path):
    node = {"net": {"_target_": "timm.create_model", "model_name": name}}
    cfg = OmegaConf.create({"model": node})
    require_trusted(cfg)  # typed
    line = rf"config.yaml: model.net.model_name={re.escape(name)} would be read .* trust=\[timm\]$"
    with pytest.raises(ValueError, match=line):
        require_trusted(cfg, of=tmp_path / "config.yaml")
    set_trusted(["timm"])
    require_trusted(cfg, of=tmp_path / "config.yaml")


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
    require_trusted(own)


def test_an_alias_is_refused_with_what_to_write_instead():
    set_trusted(["tests.helpers"])
    cfg = OmegaConf.create({"_target_": "tests.helpers.wandb_files.json.loads"})
    with pytest.raises(ValueError, match=r"is of json: name a function or class of your own"):
        require_trusted(cfg)


@pytest.mark.parametrize("package", ["energy_at", "energy_at.runs", "energy_at.runs.folder"])
def test_no_word_makes_our_own_functions_a_target(package, monkeypatch):
    with pytest.raises(ValueError, match=rf"trust=\[{package}\] must be .* of yours"):
        check(OmegaConf.create({"trust": [package]}))
    set_trusted([package])
    monkeypatch.setenv(trust.VARIABLE, package)
    with pytest.raises(ValueError, match="is not trusted") as caught:
        require_trusted(OmegaConf.create({"_target_": "energy_at.runs.folder.runs_in"}))
    assert "trust=" not in str(caught.value)
    assert trust.VARIABLE not in str(caught.value)


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


def strange(folder, target, place="model"):
    """The run, as a stranger has changed it."""
    shutil.rmtree(folder / "strange", ignore_errors=True)
    shutil.copytree(folder / "run", folder / "strange")
    run = RunFolder(folder / "strange")
    cfg = OmegaConf.load(run.config_file)
    OmegaConf.update(cfg, f"{place}._target_", target, force_add=True)
    cfg.trust = ["my_package"]
    run.config_file.write_text(OmegaConf.to_yaml(cfg))
    return run


FEW = ["attacks=[fgsm]", "subset=8"]
DRAWN = ["n=4", "quality=none", "start=noise"]
COMMANDS = {
    "evaluate": (evaluate, ["run=strange", *FEW]),
    "train resume=": (train, ["resume=strange", "trainer.max_epochs=2"]),
    "export": (export, ["run=strange"]),
    "sample": (sample, ["run=strange", *DRAWN]),
    "sample, classifier": (sample, ["run=run", "judge=strange", *DRAWN]),
    "analyse": (analyse, ["run=strange", *FEW]),
    "analyse runs=": (analyse, ["runs=[run,strange]", *FEW]),
}
READERS = {
    "report": (report, ["runs=[run,strange]"]),
    "watch": (watch, ["run=strange", "once=true"]),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", ["model", "callbacks.own"])  # always built, and never
def test_no_command_takes_a_strangers_run(owner, monkeypatch, capsys, name, place):
    command, argv = COMMANDS[name]
    target, place = "my_package.network", f"{place}._target_"
    run = strange(owner, target, place.removesuffix("._target_"))
    before = everything(owner)
    code, out, error = typed(monkeypatch, capsys, command.main, *argv)
    assert (code, out) == (1, "")
    file = run.config_file.relative_to(owner)
    assert error.startswith(f"error: {file}: {place}={target} is not trusted")
    assert "trust=[my_package]" in error
    assert error.count("\n") == 1
    assert everything(owner) == before  # nothing called, nothing written


@pytest.mark.parametrize(("place", "target"), zip(PLACES, cycle(STRANGE), strict=False))
def test_no_classifier_of_a_stranger_is_opened(owner, monkeypatch, capsys, place, target):
    strange(owner, target, place)
    before = everything(owner)
    code, out, error = typed(monkeypatch, capsys, sample.main, *COMMANDS["sample, classifier"][1])
    assert (code, out, error.count("\n")) == (1, "", 1)
    at = f"{place.removesuffix('._target_')}._target_={target} is not trusted"
    assert error.startswith(f"error: strange/config.yaml: {at}")
    assert everything(owner) == before


@pytest.mark.parametrize("name", READERS)
def test_who_builds_nothing_needs_no_trust(owner, monkeypatch, capsys, name):
    command, argv = READERS[name]
    strange(owner, "my_package.network")
    code, out, _ = typed(monkeypatch, capsys, command.main, *argv)
    assert code == 0
    assert "strange" in out
    assert not (owner / "called").exists()
    shutil.rmtree("report", ignore_errors=True)


def test_who_trusts_a_package_builds_from_it_and_no_run_says_so(owner, monkeypatch, capsys):
    run = strange(owner, "my_package.network")
    words = [*COMMANDS["train resume="][1], "trust=[my_package]"]
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


CHECKPOINTS = "lightning.pytorch.callbacks.ModelCheckpoint"
FILE = Path("run", "config.yaml")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("trainer.default_root_dir", "/tmp", "trainer.default_root_dir=/tmp"),
        ("callbacks.mine", {"_target_": CHECKPOINTS, "dirpath": "/tmp"}, "callbacks.mine.dirpath"),
        (
            "callbacks.mine",
            {"_target_": CHECKPOINTS, "filename": "../a"},
            "callbacks.mine.filename",
        ),
        ("callbacks.mine", {"_target_": CHECKPOINTS, "_args_": ["/tmp"]}, "callbacks.mine._args_"),
        (
            "callbacks.a",
            {"b": [{"_target_": CHECKPOINTS, "dirpath": "a"}]},
            "callbacks.a.b[0].dirpath",
        ),
        ("callbacks.best.dirpath", "/tmp", "callbacks.best.dirpath=/tmp"),
        (
            "logger.mine",
            {"_target_": "lightning.pytorch.loggers.CSVLogger"},
            "logger.mine._target_",
        ),
        ("logger.wandb.settings", {"base_url": "http://a"}, "logger.wandb.settings"),
        ("logger.wandb.entity", "stranger", "logger.wandb.entity=stranger"),
        ("logger.wandb.id", "other", "logger.wandb.id=other"),
        ("logger.wandb.save_code", True, "logger.wandb.save_code=True"),
        ("logger.csv.path", "/elsewhere/a", "logger.csv.path=/elsewhere/a"),
        (
            "logger.tensorboard",
            {"_target_": "energy_at.training.tensorboard_logger", "log_dir": "/tmp"},
            "logger.tensorboard.log_dir=/tmp",
        ),
        (
            "logger.b",
            {"_target_": "energy_at.training.mlflow_logger", "tracking_uri": "http://a"},
            "logger.b.tracking_uri=http://a",
        ),
    ],
)
def test_a_run_that_is_resumed_writes_nowhere_else_unless_lightning_is_trusted(key, value, named):
    cfg = config("logger=csv_wandb", "+callbacks.steps._target_=" + CHECKPOINTS)
    require_inside(cfg, of=FILE)
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(ValueError, match=re.escape(f"{FILE}: {named}")) as caught:
        require_inside(cfg, of=FILE)
    assert str(caught.value).endswith("add trust=[lightning]")
    set_trusted(["lightning"])
    require_inside(cfg, of=FILE)


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("logger.mlflow.tracking_uri", "MLFLOW_TRACKING_URI"),
        ("logger.wandb.entity", "WANDB_ENTITY"),
    ],
)
def test_the_address_of_a_tracker_is_typed_again_or_in_the_environment(key, variable, monkeypatch):
    cfg = config("logger=[wandb,mlflow]", f"{key}=mine")
    with pytest.raises(ValueError, match=f"{key}=mine .* set {variable}=mine, or add trust"):
        require_inside(cfg, of=FILE)
    require_inside(cfg, of=FILE, typed=cfg)
    monkeypatch.setenv(variable, "other")
    for now in (None, config("logger=[wandb,mlflow]", f"{key}=other"), config("logger=csv")):
        with pytest.raises(ValueError, match=f"{key}=mine"):
            require_inside(cfg, of=FILE, typed=now)
    monkeypatch.setenv(variable, "mine")
    require_inside(cfg, of=FILE)


@pytest.mark.parametrize("name", ["checkpoints", "metrics.csv"])
def test_a_link_out_of_a_run_that_is_resumed_needs_trust(tmp_path, name):
    run, cfg = tmp_path / "run", config()
    run.mkdir()
    (run / name).symlink_to("../elsewhere")
    with pytest.raises(
        ValueError, match=rf"{name} is a link to .*elsewhere, .*trust=\[lightning\]"
    ):
        require_inside(cfg, of=run / "config.yaml")
    (tmp_path / "linked").symlink_to("run")  # the folder as a whole may be one
    (run / name).unlink()
    (run / name).symlink_to("inside")
    require_inside(cfg, of=tmp_path / "linked" / "config.yaml")
    (run / name).unlink()
    (run / name).symlink_to("../elsewhere")
    set_trusted(["lightning"])
    require_inside(cfg, of=run / "config.yaml")
