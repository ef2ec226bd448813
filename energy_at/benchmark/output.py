"""Numbers as a table and as files."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from energy_at.benchmark.plan import OPERATIONS, Found, peaks
from energy_at.benchmark.scenarios import ROWS, SCENARIOS
from energy_at.reporting.tables import Table

COLUMNS = (
    "scenario",
    "row",
    "precision",
    "images/s",
    "ratio",
    "GFLOP/image",
    "TFLOP/s",
    "of peak %",
    "memory MiB",
    "over bare %",
    "loading %",
)
FILES = ("benchmark.json", "benchmark.csv", "benchmark.md")


def table(found: Sequence[Found]) -> Table:
    """One row for each row, precision and scenario.

    The ratio is that of images a second to the reference's. ``over bare`` is the time that a full
    run takes beyond the bare loop, ``loading`` the share of a turn that goes into images.
    """
    most = peaks(found)
    own = [one for one in found if one.row not in OPERATIONS]
    return Table(COLUMNS, [_cells(one, own, most[one.precision]) for one in own])


def peaks_line(found: Sequence[Found]) -> str:
    """The machine's own peaks, in words."""
    said = [f"{precision} {speed / 1e12:.3g}" for precision, speed in sorted(peaks(found).items())]
    return f"peak measured beside it, convolution or matrix product: {', '.join(said)} TFLOP/s"


def write(found: Sequence[Found], about: dict[str, Any], folder: Path) -> None:
    """The table as Markdown and CSV; every turn as JSON."""
    shown = table(found)
    turns = [asdict(one) for one in found]
    (folder / "benchmark.json").write_text(json.dumps(about | {"rows": turns}, indent=1) + "\n")
    (folder / "benchmark.csv").write_text(shown.csv())
    (folder / "benchmark.md").write_text(f"{shown.markdown()}\n\n{said(found, about)}\n")


def said(found: Sequence[Found], about: dict[str, Any]) -> str:
    """What the numbers stand for, in a few lines."""
    machine, settings = about["machine"], about["settings"]
    load = f", load {machine['load']}" if "load" in machine else ""
    return "\n".join(
        [
            f"{machine['device']}, {machine['threads']} threads{load}, torch {machine['torch']}; "
            f"{about['network']}, batch {settings['batch_size']}; median of {settings['repeats']} "
            f"turns of {settings['steps']} steps by the {settings['clock']} clock; "
            f"{settings['attack_steps']} attack steps, {settings['sampler_steps']} of a sample; "
            f"published loops in {'a' if settings['apart'] else 'the same'} process"
            f"{' of their own' if settings['apart'] else ''}",
            peaks_line(found),
        ]
    )


def _cells(one: Found, found: Sequence[Found], peak: float) -> tuple[str, ...]:
    reference = _of(found, one.scenario, "reference", "fp32")
    bare = _of(found, one.scenario, "bare", one.precision)
    measured = one.measured
    loading = sum(measured.loading) / sum(measured.seconds) if measured.loading else None
    over = one.measured.second / bare.measured.second - 1 if bare and one.row == "full" else None
    return (
        SCENARIOS[one.scenario].label,
        ROWS.get(one.row, one.row),
        one.precision,
        f"{one.rate:.3g}",
        "" if reference is None else f"{one.rate / reference.rate:.2f}",
        f"{measured.flops / measured.images / 1e9:.3g}",
        f"{one.speed / 1e12:.3g}",
        f"{100 * one.speed / peak:.0f}",
        "" if measured.peak is None else f"{measured.peak / 2**20:.0f}",
        "" if over is None else f"{100 * over:+.1f}",
        "" if loading is None else f"{100 * loading:.2f}",
    )


def _of(found: Sequence[Found], scenario: str, row: str, precision: str) -> Found | None:
    same = [o for o in found if (o.scenario, o.row, o.precision) == (scenario, row, precision)]
    return same[0] if same else None
