"""What lacks a package is refused with the key that needs it and the extra that brings it."""

import re
import tomllib

import pytest
from omegaconf import OmegaConf

from energy_at.config import extras
from energy_at.config.extras import require_installed
from energy_at.core.extras import install
from tests.helpers.running import CONF

CONFIGS = [*CONF.rglob("*.yaml")]


@pytest.mark.parametrize("target", extras._NEEDED)
def test_a_missing_package_names_its_choice_and_its_extra(target, monkeypatch):
    package, extra = extras._NEEDED[target]
    cfg = OmegaConf.create({"dataset": {"reader": {"_target_": target}}})
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: object())
    require_installed(cfg)
    monkeypatch.setattr(
        "energy_at.core.extras.find_spec", lambda name: None if name == package else object()
    )
    said = rf"^dataset=\w+ needs {package}: {re.escape(install(extra))}$"
    with pytest.raises(ImportError, match=said):
        require_installed(cfg)


def test_the_table_is_of_targets_and_extras_that_exist():
    text = "\n".join(file.read_text() for file in CONFIGS)
    built = set(re.findall(r"_target_: (\S+)", text))
    known = tomllib.loads((CONF.parent / "pyproject.toml").read_text())["project"]
    assert set(extras._NEEDED) <= built
    for package, extra in extras._NEEDED.values():
        assert any(line.startswith(package) for line in known["optional-dependencies"][extra])
