"""The panels as a workspace of Weights & Biases."""

import importlib
from typing import Any

from energy_at.reporting.panels import SECTIONS, AnyPanel, Images, Panel, Scatter, Scores
from energy_at.training.loggers.account import STEP


def workspace(entity: str, project: str, name: str) -> Any:
    """The workspace, not yet saved.

    Args:
        entity: Account or team.
        project: At W&B.
        name: Of the saved view.

    Raises:
        ImportError: if wandb-workspaces is not installed.
    """
    ws, wr = _library("workspaces"), _library("reports.v2")
    sections = [
        ws.Section(name=s.title, panels=[_drawn(wr, panel) for panel in s.panels], is_open=True)
        for s in SECTIONS
    ]
    settings = ws.WorkspaceSettings(x_axis=STEP)
    return ws.Workspace(
        entity=entity, project=project, name=name, sections=sections, settings=settings
    )


def _library(part: str) -> Any:
    try:
        return importlib.import_module(f"wandb_workspaces.{part}")
    except ImportError as error:
        raise ImportError(
            "the dashboard needs wandb-workspaces: pip install 'energy_at[dashboard]', "
            "or add --dry-run to see the specification"
        ) from error


def _drawn(wr: Any, panel: AnyPanel) -> Any:
    if isinstance(panel, Panel):
        return _curves(wr, panel)
    if isinstance(panel, Scatter):
        x, y = wr.Config(panel.x), wr.SummaryMetric(panel.y)
        return wr.ScatterPlot(title=f"{panel.title} against {panel.x}", x=x, y=y)
    if isinstance(panel, Scores):
        return wr.BarPlot(title=panel.title, metrics=[panel.key])
    assert isinstance(panel, Images)
    return wr.MediaBrowser(title=panel.title, media_keys=list(panel.keys))


def _curves(wr: Any, panel: Panel) -> Any:
    """W&B draws either metrics or expressions of them."""
    expressions = [f"${{{line.key}}} - ${{{line.minus}}}" for line in panel.lines if line.minus]
    return wr.LinePlot(
        title=panel.title,
        x=STEP,
        y=list(panel.keys),
        title_x="optimizer step",
        title_y="share" if panel.unit == "%" else panel.unit,
        custom_expressions=expressions or None,
    )
