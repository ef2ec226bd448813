"""Live view of runs in a terminal."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from energy_at.reporting.panels import (
    AAE,
    ATTACKED,
    CLEAN,
    DELTA_X,
    DELTA_XY,
    FGSM,
    FGSM_MINUS_PGD,
    HELD_OUT_AAE,
    HELD_OUT_CLEAN,
    HELD_OUT_X,
    LOSS,
    PERT_ALIGN,
    PGD,
    SHIFT,
)
from energy_at.watch.state import Watch

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # of a sparkline
NARROW = 100  # columns of a terminal that has no room for ranges
DETAILED = 2  # runs that have room for their curves; more get a line each
CURVES = (  # of a run in detail
    *(DELTA_X, DELTA_XY, SHIFT, HELD_OUT_X, AAE, HELD_OUT_AAE, FGSM_MINUS_PGD, PGD, FGSM),
    *(CLEAN, HELD_OUT_CLEAN, ATTACKED, PERT_ALIGN, LOSS),
)
COLUMNS = (DELTA_X, DELTA_XY, AAE, FGSM_MINUS_PGD, PGD)  # of a line for each run
NARROW_COLUMNS = (DELTA_X, AAE, PGD)
STATUS_WIDTH = 26  # of such a line
COLORS = {
    "waiting": "magenta",
    "training": "green",
    "evaluating": "magenta",
    "silent": "yellow",
    "finished": "blue",
    "failed": "red",
}


def follow(
    watch: Watch,
    *,
    interval: float = 2.0,
    once: bool = False,
    console: Console | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the runs every ``interval`` seconds until all of them have ended.

    With ``once``, or if the output is no terminal, their current state is all.
    """
    console = console or Console(markup=False)
    if once or not console.is_terminal:
        watch.update()
        while watch.behind:
            watch.update()
        console.print(render(watch, console.width))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            watch.update()
            live.update(render(watch, console.width), refresh=True)
            if watch.has_ended:
                return
            if not watch.behind:
                wait(interval)


def render(watch: Watch, width: int) -> RenderableType:
    states = watch.states()
    if len(states) > DETAILED:
        return _table(states, narrow=width < NARROW)
    every = zip(states, watch.runs.values(), strict=True)
    return Group(*(_details(state, run.curves(), width) for state, run in every))


def sparkline(means: Sequence[float], width: int = WIDTH) -> str:
    """As many blocks, from the lowest value to the highest; each the mean of its neighbours."""
    size = -(-len(means) // width) if means else 1
    groups = [means[i : i + size] for i in range(0, len(means), size)]
    values = [sum(group) / len(group) for group in groups]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round(scale * (value - low))] for value in values)


def clock(seconds: float | None) -> str:
    """``1:02:03``; a dash for what is not known."""
    return "-" if seconds is None else tqdm.format_interval(round(seconds))


def _details(
    state: dict[str, Any], curves: dict[str, list[list[float]]], width: int
) -> RenderableType:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    wide = width >= NARROW
    table.add_column("", no_wrap=True)
    table.add_column("now", justify="right", no_wrap=True)
    for title in ("", "range")[: 1 + wide]:
        table.add_column(title, no_wrap=True)
    blocks = max(8, min(WIDTH, width - (75 if wide else 52)))
    for metric in CURVES:
        if metric.name in curves:
            means = [point[2] for point in curves[metric.name]]
            now = f"{state['last'][metric.name]:.4g} {'' if metric.unit == '1' else metric.unit}"
            span = [f"{min(means):.3g} to {max(means):.3g}"] * wide
            table.add_row(metric.label, now, Text(sparkline(means, blocks), style="cyan"), *span)
    head = Text.assemble((state["name"], "bold"), "  ", _status(state))
    marks = [Text(mark["text"], style="bold red") for mark in state["marks"]]
    bar = ProgressBar(
        total=state["steps"] or 1, completed=state["step"] * bool(state["steps"]), width=60
    )
    return Group(Text(""), head, _where(state), bar, table, *marks)


def _where(state: dict[str, Any]) -> Text:
    rate = state["images_per_s"]
    parts = [
        f"epoch {state['epoch']}/{state['epochs'] or '?'}",
        f"step {state['step']:,}/" + (f"{state['steps']:,}" if state["steps"] else "?"),
        f"{rate:,.0f} images/s" if rate else "- images/s",
        f"{clock(state['seconds_left'])} of training left",
        f"last row {clock(state['age'])} ago",
    ]
    if state["status"] == "finished":
        parts = parts[:3]
    return Text("  ".join(parts), style="dim")


def _table(states: Sequence[dict[str, Any]], *, narrow: bool) -> Table:
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), header_style="dim")
    names = [f"{state['name']} {state['overrides']}" for state in states]
    table.add_column("run", overflow="fold", min_width=min(30, max(map(len, names))))
    table.add_column("status", min_width=8, max_width=STATUS_WIDTH, no_wrap=True)
    metrics = NARROW_COLUMNS if narrow else COLUMNS
    for title in ("step", "left", *(metric.column for metric in metrics)):
        table.add_column(title, justify="right", no_wrap=True, min_width=5)
    table.add_column("marks")
    for name, state in zip(names, states, strict=True):
        last = state["last"]
        share = f"{state['step'] / state['steps']:.0%}" if state["steps"] else str(state["step"])
        marks = ", ".join(f"{m['name']} {m['kind']} {m['step']:,}" for m in state["marks"])
        table.add_row(
            name,
            Text(state["status"], style=COLORS[state["status"]]) if narrow else _status(state),
            share,
            clock(state["seconds_left"]),
            *(f"{last[m.name]:.3g}" if m.name in last else "-" for m in metrics),
            Text(marks, style="bold red"),
        )
    return table


def _status(state: dict[str, Any]) -> Text:
    """``training``, or ``finished: collapsed at step 12``."""
    text = ": ".join(filter(None, (state["status"], state["detail"])))
    return Text(text, style=COLORS[state["status"]])
