"""The panels as a workspace at Weights & Biases.

``python -m energy_at.dashboard entity=ACCOUNT project=energy_at``
"""

import json
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from energy_at.config import CONF
from energy_at.config.cli import command_line, one_line_errors, require_read
from energy_at.config.schema import check
from energy_at.reporting.panels import specification
from energy_at.reporting.wandb_workspace import has_wandb_key, is_reachable, server, workspace


def described(cfg: DictConfig) -> str:
    """The specification as JSON: it needs no account and no network."""
    about = {name: cfg[name] for name in ("entity", "project", "name")}
    return json.dumps(about | {"sections": specification()}, indent=2)


def create(entity: str | None, project: str, name: str) -> str:
    """Saves the workspace, and returns its address.

    Raises:
        ValueError: if no account is named, no key configured, or W&B does not take it.
    """
    if entity is None:
        raise ValueError("entity= is missing: name the account or team, or add --dry-run")
    made = workspace(entity, project, name)
    if not has_wandb_key():
        raise ValueError("no W&B API key is configured: wandb login, or add --dry-run")
    if not is_reachable(server()):
        raise ValueError(f"{server()} does not answer: try later, or add --dry-run")
    try:
        made.save()
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"W&B refuses the workspace of {entity}/{project}: {why}") from error
    return str(made.url)


@hydra.main(version_base="1.3", config_path=CONF, config_name="dashboard")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors():
        require_read(cfg)
        check(cfg)
        if not cfg.dry_run:
            print(create(cfg.entity, cfg.project, cfg.name))
        elif cfg.out is None:
            print(described(cfg))
        else:
            Path(str(cfg.out)).write_text(described(cfg) + "\n")


def plain_flags() -> None:
    """Lets ``--dry-run`` stand for ``dry_run=true``, which is how Hydra would have it."""
    sys.argv[1:] = ["dry_run=true" if arg == "--dry-run" else arg for arg in sys.argv[1:]]


if __name__ == "__main__":
    plain_flags()
    command_line(main)
