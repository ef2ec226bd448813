"""The workspace of W&B, and the key that it needs."""

from energy_at.reporting import wandb_workspace
from energy_at.reporting.panels import specification


def test_the_workspace_draws_what_the_specification_says():
    model = wandb_workspace.workspace("me", "project", "name")._to_model().model_dump(by_alias=True)
    sections = model["spec"]["section"]["panelBankConfig"]["sections"]
    for drawn, wanted in zip(sections, specification(), strict=False):
        assert drawn["name"] == wanted["title"]
        for panel, described in zip(drawn["panels"], wanted["panels"], strict=True):
            text = str(panel["config"])
            keys = described.get("keys") or [described.get("y") or described.get("key")]
            for line in described.get("lines", []):
                keys = [k for k in (line["key"], line["minus"]) if k]
                assert all(key in text for key in keys)
            assert described.get("lines") or all(str(key) in text for key in keys)
    assert len(specification()) <= len(sections)


def test_a_key_is_found_where_wandb_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    assert not wandb_workspace.has_wandb_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert wandb_workspace.has_wandb_key()
    (tmp_path / ".netrc").write_text("machine example.org\n  login user\n  password x\n")
    assert not wandb_workspace.has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_workspace.has_wandb_key()


def test_the_gap_is_an_expression_of_two_metrics():
    made = wandb_workspace.workspace("me", "project", "name")
    (gap,) = [p for s in made.sections for p in s.panels if p.title.startswith("FGSM - PGD")]
    assert gap.custom_expressions == ["${val/acc/fgsm} - ${val/acc/pgd10}"]
