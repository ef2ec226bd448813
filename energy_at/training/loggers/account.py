"""Weights & Biases as it is set up here: its server, the key for it, the axis of what is logged."""

import netrc
import os
import threading
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

STEP = "trainer/global_step"  # the axis of every metric, as Lightning calls it
PATIENCE = 5.0  # seconds that a server has to answer at all


def server() -> str:
    """Where W&B is."""
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def has_wandb_key() -> bool:
    """Whether wandb would find a key where it looks for one: environment, then netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(server()).hostname or ""
    for path in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        if path and Path(path).is_file():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except netrc.NetrcParseError:
                return False
    return False


def is_reachable(url: str) -> bool:
    """Whether anything answers at an address within ``PATIENCE`` seconds."""
    answered = threading.Event()

    def ask() -> None:
        with suppress(OSError, ValueError):
            try:
                urlopen(url, timeout=PATIENCE).close()
            except HTTPError as refused:  # an answer too
                refused.close()
            answered.set()

    # A thread of its own: looking the name up can take longer than the timeout.
    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(PATIENCE)
