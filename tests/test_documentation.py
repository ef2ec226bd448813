"""README and docs: their Python runs, their links lead somewhere, their words are plain."""

import ast
import json
import re
import runpy
import shlex
import shutil
import sys
from io import StringIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from docs import claims
from energy_at import evaluate, train
from energy_at.doctor import __main__ as doctor
from energy_at.reporting.comparison import compare, runs_table
from energy_at.runs.folder import RunFolder, runs_below
from scripts import check_language, configuration_reference
from tests.helpers.nets import TinyNet
from tests.helpers.running import config

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/quickstart.ipynb"
MKDOCS = (ROOT / "mkdocs.yml").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
FILE = re.compile(r"^`(\S+)`\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    python -m energy_at\.(\w+) ((?:.*\\\n)*.*)", re.MULTILINE)
QUICK = (
    *("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu"),
    "trainer.enable_progress_bar=false",
    *("evaluation.attacks.pgd.steps=1", "evaluation.checkpoints=[last]", "evaluation.subset=20"),
)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("name", ["README.md", "docs/python_api.md"])
def test_the_python_runs_as_it_stands(name, here, monkeypatch):
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8) % 4
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    names = {"net": TinyNet(), "x": x, "y": y, "train_loader": loader, "val_loader": loader}
    snippets = SNIPPET.findall((ROOT / name).read_text())
    assert snippets
    quick = "accelerator='cpu', logger=False, enable_checkpointing=False, max_epochs=1, "
    for code in snippets:
        exec(code.replace("max_epochs=30,", quick), names)
    assert names["trainer"].global_step == 2
    if "x_adv" in names:
        assert (names["x_adv"] - x).abs().max() <= 8 / 255 + 1e-6


def commands(page):
    """Name and arguments of each command of a page, as a shell would split them."""
    text = (ROOT / "docs" / page).read_text()
    return [(name, shlex.split(line.replace("\\\n", ""))) for name, line in COMMAND.findall(text)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project of docs/extending.md: a run, its evaluation, and a copy as another seed."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for name, text in FILE.findall((ROOT / "docs/extending.md").read_text()):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text)
        Path("mine/__init__.py").touch()
        runpy.run_path("make.py")
        (_, trained), (_, evaluated) = commands("extending.md")
        patch.setattr(sys, "argv", ["train", *trained, *QUICK, "hydra.run.dir=runs/paper/0"])
        train.main()
        shutil.copytree("runs/paper/0", "runs/paper/1")
        config = Path("runs/paper/1/config.yaml")
        config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
        small = ["run=runs/paper/0", "steps=1", "restarts=1", "subset=10", "device=cpu"]
        patch.setattr(sys, "argv", ["evaluate", *evaluated[1:], *small])
        evaluate.main()
        for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
            del sys.modules[name]
    return folder


def test_the_project_that_extends_energy_at_trains_with_its_own_parts(project):
    run = RunFolder.open(project / "runs/paper/0")
    config = run.config()
    targets = [config.attack.search, config.reg.terms.distance, config.model, config.dataset.reader]
    assert all(node._target_.startswith("mine.") for node in targets)
    assert list(run.log()["train/loss/distance"].steps) == [1]


def test_metrics_are_read_in_pandas_as_the_guide_says(project, monkeypatch):
    monkeypatch.chdir(project)
    names = {}
    for code in SNIPPET.findall((ROOT / "docs/training.md").read_text()):
        exec(code.replace("RUN_FOLDER", "runs/paper/0"), names)
    assert len(names["steps"]) == len(names["validations"]) == 1
    assert names["both"].notna().all(axis=None)


def test_tables_and_figures_of_a_paper_are_made_as_the_guide_says(project, monkeypatch):
    monkeypatch.chdir(project)
    Path("report").mkdir()
    runs = pd.read_csv(StringIO(runs_table(compare(list(runs_below(Path("runs"))))).csv()))
    lost = runs.assign(**{"status": "not robust", "clean %": 99.9})
    pd.concat([runs.assign(status="robust"), lost]).to_csv("report/runs.csv", index=False)
    names = {}
    with mpl.rc_context({"backend": "agg"}):
        for code in SNIPPET.findall((ROOT / "docs/paper.md").read_text()):
            exec(code, names)
    tex = Path("table.tex").read_text()
    assert all(part in tex for part in ("\\toprule", "seeds", "PGD-1 \\%", "\\pm"))
    assert "99.9" not in tex  # no mean of what is no result
    assert list(names["strong"]) == ["FGSM", "PGD-1", "clean"]
    assert Path("seeds.pdf").is_file()


@pytest.fixture
def own_images(here, monkeypatch):
    """The files that docs/own_images.md names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    numbers = np.random.default_rng(0)
    images, labels = numbers.integers(0, 256, (48, 28, 28, 3), dtype=np.uint8), np.arange(48) % 2
    for number, pixels in enumerate(images):
        split, name = ("train", "test")[number % 4 // 2], ("cat", "dog")[number % 2]
        folder = here / "data" / "pets" / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    names = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
    for code in SNIPPET.findall((ROOT / "docs/own_images.md").read_text()):
        exec(code, names)
    shutil.copy("data/mine.npz", "data/pathmnist.npz")
    np.savez("data/generated.npz", image=images, label=labels)


@pytest.mark.slow
def test_the_commands_for_own_images_run(own_images, monkeypatch, capsys):
    hub = "dataset=huggingface"  # whose data sets tests/data/test_hub.py reads
    found = [(name, argv) for name, argv in commands("own_images.md") if hub not in argv]
    assert [name for name, _ in found] == ["train", "train", "train", "doctor"]
    for number, (_, argv) in enumerate(found[:3]):
        monkeypatch.setattr(sys, "argv", ["train", *argv, *QUICK, f"hydra.run.dir=run{number}",
                                          "model.width=2", "logger=csv"])  # fmt: skip
        train.main()
    configs = [RunFolder.open(f"run{number}").config() for number in range(3)]
    assert [cfg.dataset.name for cfg in configs] == ["pets", "pathmnist", "pathmnist"]
    assert [cfg.model.classes for cfg in configs] == [2, 2, 2]
    monkeypatch.setattr(sys, "argv", ["doctor", *found[3][1]])
    capsys.readouterr()
    doctor.main()
    assert "24 training and 24 test images of 3x64x64" in capsys.readouterr().out


def test_the_speed_of_mapped_images_is_measured_as_the_guide_says(own_images, monkeypatch, capsys):
    (code,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs/own_images.md").read_text(), re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["speed.py", "data/pathmnist.npz", "2"])
    exec(code, {})
    assert re.fullmatch(r"\{'disk': [1-9]\d*, 'memory': [1-9]\d*\}\n", capsys.readouterr().out)


def in_ten_lines():
    """The commands of docs/your_own.md, without those that take minutes; its file is written."""
    code = SNIPPET.findall((ROOT / "docs/your_own.md").read_text())
    Path("mine.py").write_text("\n\n".join(code))
    return [argv for name, argv in commands("your_own.md") if name == "train" and len(argv) > 1]


SMALL_STEP = ("logger=csv", "dataset.batch_size=16", "validation.attacks.pgd.steps=1")


def test_own_parts_in_ten_lines_train_together(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    own = [argv for argv in in_ten_lines() if "trust=[mine]" in argv]
    together = list(dict.fromkeys(o for argv in reversed(own) for o in argv if o != "model=small"))
    monkeypatch.setattr(sys, "argv", ["train", *together, *QUICK, *SMALL_STEP, "hydra.run.dir=run"])
    train.main()
    run = RunFolder.open("run")
    config = run.config()
    assert list(run.log()["train/loss/mine"].steps) == [1]
    assert (config.dataset.size, config.dataset.channels, config.model.net.width) == (16, 3, 16)
    (argv,) = (argv for name, argv in commands("your_own.md") if name == "evaluate")
    few = ("run=run", "out=out", "steps=1", "restarts=1", "subset=20", "progress=false")
    own = [o for o in argv if not o.startswith("run=")]
    monkeypatch.setattr(sys, "argv", ["evaluate", *own, *few, "device=cpu"])
    evaluate.main()
    rows = json.loads(Path("out/evaluation.json").read_text())["accuracies"]
    assert [row["label"] for row in rows] == ["clean", "PGD-1", "foolbox"]
    (code,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs/your_own.md").read_text(), re.DOTALL)
    for said, short in {"RUN_FOLDER": "run", "subset=100": "subset=9, steps=1, restarts=1"}.items():
        code = code.replace(said, short)
    exec(code.replace('Path("out")', 'Path("python")'), names := {})
    assert "| mine   | 8/255 |" in names["table"]
    sys.modules.pop("mine")


@pytest.mark.slow
def test_the_commands_in_ten_lines_run_each_alone(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    small = {
        "dataset=cifar10": "dataset=synthetic",
        "model.name=resnet26d": "model.name=test_resnet",
    }
    sizes = ("dataset.size=32", "trainer.limit_val_batches=1")
    for number, argv in enumerate(in_ten_lines()):
        argv = [small.get(option, option) for option in argv]
        own = sizes if "dataset=synthetic" in argv else ()
        folder = f"hydra.run.dir=run{number}"
        monkeypatch.setattr(sys, "argv", ["train", *argv, *QUICK, *SMALL_STEP, *own, folder])
        train.main()
        assert (Path(f"run{number}") / "results.json").is_file()
    sys.modules.pop("mine")


def test_the_commands_for_slurm_compose():
    found = [argv for _, argv in commands("sweeps_and_clusters.md")
             if "hydra/launcher=submitit_slurm" in argv]  # fmt: skip
    assert found
    for argv in found:
        parsed = OverridesParser.create().parse_overrides([a for a in argv if a != "-m"])
        cfg = config(*[o.input_line for o in parsed if not o.is_sweep_override()])
        assert cfg.dataset.root == "/shared/data"


def test_what_the_docs_count_is_what_the_committed_runs_say():
    text = (ROOT / "docs/methods.md").read_text()
    assert claims.delta_energies() in text
    assert claims.collapses() in text


def test_every_page_is_in_the_navigation_or_left_out_of_it_by_name():
    outside, _, inside = MKDOCS.partition("not_in_nav: |")[2].partition("nav:")
    left_out = [pattern for pattern in outside.split() if not pattern.startswith("!")]
    for page in PAGES[1:]:
        name = page.relative_to(ROOT / "docs").as_posix()
        unlisted = any(Path("/", name).match(pattern) for pattern in left_out)
        assert f": {name}" in inside or unlisted, name


@pytest.mark.slow
def test_the_notebook_runs_as_it_stands(here):
    nbclient, nbformat = map(pytest.importorskip, ("nbclient", "nbformat"))
    notebook = nbformat.reads(NOTEBOOK.read_text(), as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
    shown = [
        (cell.source, output.data)
        for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output
    ]  # fmt: skip
    (text,) = [data["text/plain"] for source, data in shown if "accuracies(" in source]
    accuracies = ast.literal_eval(text)
    assert accuracies["clean"] > accuracies["fgsm"] >= accuracies["pgd"] > 0.3
    pictures = [data for _, data in shown if "image/png" in data]
    assert len(pictures) == 2


def test_the_notebook_is_small():
    assert NOTEBOOK.stat().st_size < 80_000


def test_a_public_name_without_a_docstring_is_found(tmp_path):
    griffe = pytest.importorskip("griffe")
    pytest.importorskip("mkdocs")
    from scripts import public_names

    (tmp_path / "part.py").write_text('"""A part."""\ndef a():\n    "Doc."\ndef b():\n    pass\n')
    names = "from part import a, b\nA = 1\n__all__ = ['A', 'a', 'b']\n"
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/__init__.py").write_text('"""A whole."""\n' + names)
    whole = griffe.load(
        "whole", search_paths=[tmp_path], resolve_aliases=True, resolve_external=True
    )
    assert public_names.undocumented(whole) == ["whole.b"]
    assert public_names.page(whole).splitlines()[::2] == [
        "# whole", "A whole.", "::: whole.A", "::: whole.a", "::: whole.b"
    ]  # fmt: skip


def test_every_package_of_the_library_has_its_page_in_the_navigation():
    pages = re.findall(r"^      - energy_at\.(\w+): api/(\w+)\.md$", MKDOCS, re.MULTILINE)
    packages = {
        file.parent.name for file in (ROOT / "energy_at").glob("*/__init__.py")
        if "__all__" in file.read_text()
    }  # fmt: skip
    assert {name for name, _ in pages} == {page for _, page in pages} == packages - {"analysis"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_configuration_reference_is_up_to_date():
    written = configuration_reference.PAGE.read_text()
    assert configuration_reference.page(ROOT / "conf") == written


def test_the_configuration_reference_knows_keys_defaults_and_comments():
    text = "# Head.\nname: DER\nweight: 2  # beta\nnested:\n  key: [1, 2]  # two\n_target_: a.b\n"
    assert list(configuration_reference.keys(text)) == [
        ("name", "DER", ""), ("weight", "2", "beta"), ("nested.key", "[1, 2]", "two")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".py", '"""The run goes on."""\n'),
        (".py", "x = 1  # goes on\n"),
        (".yaml", "key: 1  # it goes on\n"),
        (".md", "It goes on.\n"),
    ],
)
def test_words_to_avoid_are_found_in_prose(suffix, text):
    found = [line for _, line in check_language.READERS[suffix](text)]
    assert any(check_language.PATTERN.search(line) for line in found)


@pytest.mark.parametrize(
    ("suffix", "text"), [(".py", "judge = apart\n"), (".md", "    goes on\n```\ngoes on\n```\n")]
)
def test_code_is_not_checked(suffix, text):
    found = [line for _, line in check_language.READERS[suffix](text)]
    assert not any(check_language.PATTERN.search(line) for line in found)
