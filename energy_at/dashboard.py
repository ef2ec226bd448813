"""Makes a workspace at Weights & Biases.

Delta energies, AAE share, FGSM and PGD accuracy, energies, alarms, sweep over beta, samples. It
needs pip install 'energy_at[dashboard]' and an API key.

    python -m energy_at.dashboard entity=ACCOUNT project=energy_at
    python -m energy_at.dashboard --dry-run
    python -m energy_at.dashboard --dry-run out=dashboard.json
"""

import json

from omegaconf import DictConfig

from energy_at.config.cli import command, output_file
from energy_at.core.files import write_atomic


@command("dashboard")
def main(cfg: DictConfig) -> str | None:
    from energy_at.reporting.panels import specification

    out = output_file(cfg)
    if not cfg.dry_run:
        return create(cfg.entity, cfg.project, cfg.name)
    about = {name: cfg[name] for name in ("entity", "project", "name")}
    text = json.dumps(about | {"sections": specification()}, indent=2)
    if out is None:
        return text
    write_atomic(out, text + "\n")
    return None


def create(entity: str | None, project: str, name: str) -> str:
    """Saves the workspace, and returns its address.

    Raises:
        ValueError: if no account is named, no key configured, or W&B does not take it.
    """
    from energy_at.reporting.wandb_workspace import has_wandb_key, is_reachable, server, workspace

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


if __name__ == "__main__":
    main()
