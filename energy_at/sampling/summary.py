"""What a sampling has found, and the words and tables that say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from energy_at.data import ImageSet
from energy_at.reporting.tables import Table
from energy_at.sampling.controls import HELD_OUT, SAMPLES, Nearest
from energy_at.sampling.plan import Plan
from energy_at.sampling.samples import Samples

SYMBOLS = {
    "joint": "E(x, y)",
    "marginal": "E(x)",
    "conditional": "E(x, y) - E(x)",
    "cross_entropy": "cross-entropy",
}
COLUMNS = (
    ("set", "set", "{}"),
    ("images", "images", "{}"),
    ("inception_score", "IS", "{:.2f}"),
    ("fid", "FID", "{:.2f}"),
    ("kid", "KID", "{:.4f}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("judge", "judge %", "{:.1f}"),
    ("variety", "variety", "{:.3f}"),
    ("nearest", "nearest", "{:.3f}"),
    ("copied", "copied %", "{:.1f}"),
)


@dataclass(frozen=True)
class Found:
    """What a sampling has found.

    Attributes:
        samples: The images, and how they came about.
        energies: Of the images as they are written: ``joint`` and ``marginal``, in nats.
        descended: Energies of these images too, of the kind that was descended.
        sets: The samples and their controls.
        near: Nearest training images of the samples and of held-out images.
        rows: Scores of every set.
        training: The training images.
        classes: Their names.
        training_energies: Of the training images, of the kind that was descended.
    """

    samples: Samples
    energies: Mapping[str, Tensor]
    descended: Tensor
    sets: Mapping[str, ImageSet]
    near: Mapping[str, Nearest]
    rows: Mapping[str, Mapping[str, Any]]
    training: ImageSet
    classes: Sequence[str]
    training_energies: Tensor


def markdown(report: Mapping[str, Any], found: Found, plan: Plan) -> str:
    """Setting, scores, and what to make of them."""
    stopped, seconds = report["stopped"], report["seconds"]
    ours, real = found.rows[SAMPLES], found.rows[HELD_OUT]
    energies, symbol = found.descended, SYMBOLS[plan.sampler.energy]
    earlier = report["of_earlier_attempts"]
    lines = [
        f"{plan.n} samples of {report['dataset']} from {report['network']['source']}, "
        f"seed {plan.seed}: {plan.title()}.",
        "",
        _table(found).markdown(),
        "",
        _eyes(found, plan, report["reference"]),
        f"- stopped: {stopped['reached']} at their target energy, {stopped['cap']} at the cap; "
        f"{report['mean_steps']:.1f} steps on average",
        f"- {symbol} of the samples: mean {energies.mean():+.2f}, 5 to 95 %: "
        f"{energies.quantile(0.05):+.2f} to {energies.quantile(0.95):+.2f} nats; "
        f"training images: mean {report['training_energy']:+.2f}",
        f"- nearest training image, L2 in pixels: median {ours['nearest']:.3f} of the "
        f"samples, {real['nearest']:.3f} of held-out images; "
        f"{100 * ours['copied']:.1f} % of the samples are nearer than 99 % of held-out images",
        f"- seconds: {seconds['prepare']:g} to prepare, {seconds['sample']:g} to sample, "
        f"{seconds['measure']:g} to measure"
        + (
            f"; {earlier} samples are of an earlier attempt, whose time is not in it"
            * bool(earlier)
        ),
    ]
    return "\n".join(lines)


def _eyes(found: Found, plan: Plan, reference: Mapping[str, Any]) -> str:
    if plan.extractor.name == "none":
        return "- quality=none: nothing was measured by features"
    line = (
        f"- scores by {plan.extractor.name} against {reference['images']} {reference['split']} "
        f"images of {reference['dataset']}"
    )
    if plan.extractor.name != "inception-v3-compat":
        line += "; not comparable with published IS and FID, which are Inception's"
    row = found.rows[SAMPLES]
    if not row["full_rank"]:
        line += (
            "; fewer images than features: FID is far above its limit and compares only sets of "
            "this size"
        )
    return line


def _table(found: Found) -> Table:
    measured = {key for row in found.rows.values() for key, v in row.items() if v is not None}
    kept = [column for column in COLUMNS if column[0] in {"set", *measured}]
    rows = []
    for name, row in found.rows.items():
        cells = {"set": name, **row}
        cells |= {key: 100 * row[key] for key in ("judge", "copied") if row.get(key) is not None}
        rows.append(
            tuple(
                "" if cells.get(key) is None else form.format(cells[key]) for key, _, form in kept
            )
        )
    return Table(tuple(title for _, title, _ in kept), rows)


def rows_csv(found: Found) -> str:
    """Scores of every set, a row each."""
    names = list(dict.fromkeys(key for row in found.rows.values() for key in row))
    rows = [
        (name, *("" if row.get(key) is None else str(row[key]) for key in names))
        for name, row in found.rows.items()
    ]
    return Table(("set", *names), rows).csv()
