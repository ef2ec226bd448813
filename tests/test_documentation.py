"""README and docs: their Python runs, their links lead somewhere, their words are plain."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from scripts import check_language, configuration_reference
from tests.helpers.nets import TinyNet

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


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
