"""A missing package is named with a command that installs it."""

import json
import re
import shlex
import tomllib

import pytest

from energy_at.core.extras import install, require_package
from tests.helpers.running import CONF


@pytest.fixture
def installed_from(tmp_path, monkeypatch):
    """Puts a distribution of the project in front, installed from an address or from an index."""
    info = tmp_path / "energy_at-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: energy_at\nVersion: 9\n")
    monkeypatch.syspath_prepend(tmp_path)

    def from_(**origin):
        if origin:
            (info / "direct_url.json").write_text(json.dumps(origin))

    return from_


def test_from_an_index_the_name_is_enough(installed_from):
    installed_from()
    assert install("timm") == "pip install 'energy_at[timm]'"


def test_from_a_wheel_file_the_name_is_said(installed_from):
    installed_from(url="file:///tmp/energy_at-9.whl", archive_info={})
    assert install("timm") == "pip install 'energy_at[timm]'"


def test_in_a_checkout_its_folder_is_said(installed_from, tmp_path):
    folder = tmp_path / "my work" / "energy_at"
    installed_from(url=folder.as_uri(), dir_info={"editable": True})
    assert shlex.split(install("timm")) == ["pip", "install", "-e", f"{folder}[timm]"]


def test_a_missing_package_is_named_and_one_that_is_there_is_not():
    require_package("torch", "timm", "model=timm")
    said = re.escape(f"model=timm needs no_such_package: {install('timm')}")
    with pytest.raises(ImportError, match=rf"^{said}$") as caught:
        require_package("no_such_package", "timm", "model=timm")
    assert caught.value.name == "no_such_package"


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((CONF.parent / "pyproject.toml").read_text())["project"]
    calls = re.compile(
        r"""\binstall\(\s*f?["']([\w-]+)["']\)|require_package\("\w+", "([\w-]+)\""""
    )
    package = CONF.parent / "energy_at"
    named = {a or b for f in package.rglob("*.py") for a, b in calls.findall(f.read_text())}
    assert {"timm", "huggingface", "dashboard", "offline-quality"} <= named
    assert named <= set(project["optional-dependencies"])
