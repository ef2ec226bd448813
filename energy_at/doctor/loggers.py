"""Where the logs of a training would go."""

import os

from energy_at.doctor.findings import Checks, Verdict, passed
from energy_at.reporting.wandb_workspace import has_wandb_key


def checks() -> Checks:
    """Checks of the loggers."""
    return {"wandb": wandb_mode}


def wandb_mode() -> Verdict:
    """The mode that ``logger=csv_wandb``, the default, would run W&B in."""
    mode, has_key = os.environ.get("WANDB_MODE") or None, has_wandb_key()
    if mode is None:
        online = "online: an API key is configured"
        return passed(online if has_key else "offline: no API key is configured ('wandb login')")
    if not _is_mode(mode):
        return Verdict(
            "fail",
            f"WANDB_MODE={mode} is no mode of W&B: a training would go on without W&B",
            "unset WANDB_MODE, or set it to online, offline or disabled",
        )
    if mode in ("online", "run", "shared") and not has_key:
        return Verdict(
            "warn",
            f"WANDB_MODE={mode}, but no API key is configured: a training would run offline",
            "wandb login, or unset WANDB_MODE to run offline",
        )
    return passed(f"{mode}: WANDB_MODE says so")


def _is_mode(mode: str) -> bool:
    import wandb  # a second that only those wait who set the mode

    try:
        wandb.Settings(mode=mode)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True
