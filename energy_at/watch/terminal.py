"""The live view in a terminal."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from energy_at.reporting.panels import (
    AAE,
    ATTACKED,
    CLEAN,
    DELTA_X,
    DELTA_XY,
    FGSM,
    GAP,
    HELD_OUT_X,
    LOSS,
    PGD,
    SHIFT,
)
from energy_at.watch.state import LINES, Watch

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # of a sparkline
NARROW = 100  # columns of a terminal that has no room for ranges
ALONE = 2  # runs that have room for their curves; more get a line each
PANELS = (DELTA_X, DELTA_XY, SHIFT, HELD_OUT_X, AAE, GAP, PGD, FGSM, CLEAN, ATTACKED, LOSS)
SHORT = {  # columns of a line for each run
    "dE(x)": "train/delta_energy/marginal",
    "dE(x, y)": "train/delta_energy/joint",
    "AAE %": "train/aae_share",
    "FGSM-PGD %": "val/acc/fgsm - val/acc/pgd",
    "PGD %": "val/acc/pgd",
}
SHORTEST = ("dE(x)", "AAE %", "PGD %")  # those of a narrow terminal


def follow(
    watch: Watch,
    *,
    interval: float = 2.0,
    once: bool = False,
    console: Console | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Shows the runs until all of them are over.

    Args:
        watch: The runs.
        interval: Seconds between two looks.
        once: Show how things stand, and end; where the output is no terminal in any case.
        console: Where to.
        wait: Lets the time between two looks pass.
    """
    console = console or Console()
    if once or not console.is_terminal:
        watch.look()
        while watch.behind:
            watch.look()
        console.print(shown(watch, console.width))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            watch.look()
            live.update(shown(watch, console.width), refresh=True)
            if watch.is_over:
                return
            if not watch.behind:
                wait(interval)


def shown(watch: Watch, width: int) -> RenderableType:
    """All runs: each with its curves, or of many a line each; in so many columns."""
    states = watch.states()
    if len(states) > ALONE:
        return _lines(states, narrow=width < NARROW)
    every = zip(states, watch.watched.values(), strict=True)
    return Group(*(_alone(state, watched.curves(), width) for state, watched in every))


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
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _alone(
    state: dict[str, Any], curves: dict[str, list[list[float]]], width: int
) -> RenderableType:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    wide = width >= NARROW
    titles = [("", "left"), ("now", "right"), ("", "left"), ("range", "left")]
    for title, justify in titles[: 3 + wide]:
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    blocks = max(8, min(WIDTH, width - (75 if wide else 52)))
    for panel in PANELS:
        for name in (" - ".join(line.keys) for line in panel.lines):
            if name in curves:
                means = [point[2] for point in curves[name]]
                label, unit = LINES[name][0].label, "" if panel.unit == "1" else panel.unit
                now = f"{state['last'][name]:.4g} {unit}"
                span = [f"{min(means):.3g} to {max(means):.3g}"] * wide
                table.add_row(label, now, Text(sparkline(means, blocks), style="cyan"), *span)
    return Group(Text(""), _head(state), _where(state), _progress(state), table, *_marks(state))


def _head(state: dict[str, Any]) -> Text:
    return Text.assemble((state["name"], "bold"), "  ", (state["status"], _style(state)))


def _where(state: dict[str, Any]) -> Text:
    rate = state["images_per_s"]
    parts = [
        f"epoch {state['epoch']}/{state['epochs'] or '?'}",
        f"step {state['step']:,}/{state['steps'] or 0:,}".replace("/0", "/?"),
        f"{rate:,.0f} images/s" if rate else "- images/s",
        f"{clock(state['seconds_left'])} of training left",
        f"last row {clock(state['age'])} ago",
    ]
    if state["status"] == "finished":
        parts = parts[:3]
    return Text("  ".join(parts), style="dim")


def _progress(state: dict[str, Any]) -> RenderableType:
    return ProgressBar(total=state["steps"] or 1, completed=state["step"] * bool(state["steps"]),
                       width=60)  # fmt: skip


def _marks(state: dict[str, Any]) -> list[Text]:
    return [Text(said(mark), style="bold red") for mark in state["marks"]]


def said(mark: dict[str, Any]) -> str:
    """A mark in words."""
    if mark["kind"] == "alarm":
        return f"alarm: {mark['name']} at step {mark['step']:,}"
    return f"{mark['name']} by held-out PGD accuracy since step {mark['step']:,}"


def _lines(states: Sequence[dict[str, Any]], *, narrow: bool) -> Table:
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), header_style="dim")
    names = [f"{state['name']} {state['apart']}" for state in states]
    table.add_column("run", overflow="fold", min_width=min(30, max(map(len, names))))
    table.add_column("status", min_width=8)
    numbers = {name: SHORT[name] for name in (SHORTEST if narrow else SHORT)}
    for title in ("step", "left", *numbers):
        table.add_column(title, justify="right", no_wrap=True, min_width=5)
    table.add_column("marks")
    for name, state in zip(names, states, strict=True):
        last = state["last"]
        share = f"{state['step'] / state['steps']:.0%}" if state["steps"] else str(state["step"])
        marks = ", ".join(f"{m['name']} {m['kind']} {m['step']:,}" for m in state["marks"])
        table.add_row(
            name,
            Text(_brief(state["status"], 1 if narrow else 2), style=_style(state)),
            share,
            clock(state["seconds_left"]),
            *(f"{last[key]:.3g}" if key in last else "-" for key in numbers.values()),
            Text(marks, style="bold red"),
        )
    return table


def _brief(status: str, parts: int) -> str:
    """``failed: the loss is nan at step 3``, without what to do about it."""
    return ": ".join(status.split(": ")[:parts])


def _style(state: dict[str, Any]) -> str:
    word = str(state["status"]).partition(":")[0]
    return {"training": "green", "finished": "blue", "failed": "red", "silent": "yellow"}.get(
        word, "magenta"
    )
