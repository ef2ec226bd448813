"""Weights & Biases: the panels as a workspace, its server, and the API key."""

import importlib
import os
import threading
from contextlib import suppress
from typing import Any

import requests
from requests.utils import get_netrc_auth

from energy_at.core.extras import install
from energy_at.reporting.panels import SECTIONS, AnyPanel, Panel, Scatter, Scores

STEP = "trainer/global_step"  # x axis of every metric, as Lightning names it
PATIENCE = 5.0  # seconds within which a server must answer


def workspace(entity: str, project: str, name: str) -> Any:
    """All panels as a workspace, to be saved by the caller.

    Raises:
        ImportError: if wandb-workspaces is not installed.
    """
    try:
        ws = importlib.import_module("wandb_workspaces.workspaces")
        wr = importlib.import_module("wandb_workspaces.reports.v2")
    except ImportError as error:
        raise ImportError(
            f"the dashboard needs wandb-workspaces: {install('dashboard')}, "
            "or add --dry-run to see the specification"
        ) from error
    sections = [
        ws.Section(name=title, panels=[_plot(wr, panel) for panel in panels], is_open=True)
        for title, panels in SECTIONS.items()
    ]
    settings = ws.WorkspaceSettings(x_axis=STEP)
    return ws.Workspace(
        entity=entity, project=project, name=name, sections=sections, settings=settings
    )


def _plot(wr: Any, panel: AnyPanel) -> Any:
    if isinstance(panel, Panel):
        differences = [f"${{{line.key}}} - ${{{line.minus}}}" for line in panel.lines if line.minus]
        return wr.LinePlot(
            title=panel.title,
            x=STEP,
            y=list(panel.keys),
            title_x="optimizer step",
            title_y="share" if panel.unit == "%" else panel.unit,
            custom_expressions=differences or None,
        )
    if isinstance(panel, Scatter):
        x, y = wr.Config(panel.x), wr.SummaryMetric(panel.y)
        return wr.ScatterPlot(title=f"{panel.title} against {panel.x}", x=x, y=y)
    if isinstance(panel, Scores):
        return wr.BarPlot(title=panel.title, metrics=[panel.key])
    return wr.MediaBrowser(title=panel.title, media_keys=list(panel.keys))


def server() -> str:
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def has_wandb_key() -> bool:
    return bool(os.environ.get("WANDB_API_KEY") or get_netrc_auth(server()))


def is_reachable(url: str) -> bool:
    """Whether an address answers within ``PATIENCE`` seconds."""
    answered = threading.Event()

    def ask() -> None:
        with suppress(requests.RequestException):
            requests.head(url, timeout=PATIENCE)  # a refusal is an answer too
            answered.set()

    # A thread of its own: looking the name up can take longer than the timeout.
    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(PATIENCE)
