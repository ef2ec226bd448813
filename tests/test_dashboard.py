"""The dashboard as code: what is typed, and what it says without an account."""

import json
import sys

import pytest

from energy_at import dashboard
from energy_at.core.extras import install
from energy_at.reporting.panels import SECTIONS, specification
from tests.helpers.running import typed


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def type_dashboard(monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, dashboard.main, *argv)


def test_a_dry_run_needs_neither_account_nor_network_nor_library(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setattr("socket.socket.connect", pytest.fail)
    monkeypatch.setattr(sys, "argv", ["dashboard", "--dry-run", "project=mine"])
    dashboard.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["project"], found["entity"]) == ("mine", None)
    assert found["sections"] == json.loads(json.dumps(specification()))
    assert not list(tmp_path.iterdir())


def test_the_specification_can_go_to_a_file(type_dashboard, tmp_path):
    assert type_dashboard("dry_run=true", "out=spec.json") == (0, "", "")
    found = json.loads((tmp_path / "spec.json").read_text())
    assert [s["title"] for s in found["sections"]] == list(SECTIONS)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "entity= is missing"),
        (["entity=me"], "no W&B API key is configured: wandb login, or add --dry-run"),
        (["entity=[a]"], "entity=[a] must be the name"),
        (["dry_run=perhaps"], "dry_run=perhaps must be true or false"),
        (
            ["dry_run=true", "out=/dev/null/spec.json"],
            "spec.json cannot be written (File exists)",
        ),
        (["+x=1", "dry_run=true"], "nothing reads x"),
    ],
)
def test_a_mistake_gets_one_line(type_dashboard, argv, said):
    code, out, err = type_dashboard(*argv)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


@pytest.mark.slow
def test_without_its_library_or_its_server_one_line_says_so(type_dashboard, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    code, _, err = type_dashboard("entity=me")
    assert (code, err.count("\n")) == (1, 1)
    assert "http://127.0.0.1:9 does not answer" in err
    for name in ("wandb_workspaces", "wandb_workspaces.workspaces"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = type_dashboard("entity=me")
    assert (code, err.count("\n")) == (1, 1)
    assert install("dashboard") in err
