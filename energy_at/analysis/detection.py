"""How well scores of a network separate natural images from others: AUROC, AUPR, FPR95.

The others are out-of-distribution images, or adversarial ones. No score reads the label: the
shift norm is that of a PGD attack on the class that the network predicts.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_roc,
)

from energy_at.attacks import Attack, AttackOptions
from energy_at.core.rng import Noise
from energy_at.core.types import Images
from energy_at.energy import LogitPair, energies
from energy_at.evaluation.robustness import finite_logits
from energy_at.reporting.tables import Table

Floats = NDArray[np.float64]
SCORES = {"E(x)": "energy", "max softmax": "max_softmax", "shift norm": "shift_norm"}
_LOWER_IS_NATURAL = ("energy", "shift_norm")
RATES = ("AUROC", "AUPR", "FPR95")
KINDS = {"ood": "out of distribution", "adversarial": "adversarial"}


@dataclass(frozen=True)
class Scores:
    """Columns of images, natural or not."""

    energy: Floats  # E(x), in nats
    max_softmax: Floats  # max_k p(k|x)
    shift_norm: Floats  # ||[dE(x), dE(x, k)]||_2 under PGD, k the predicted class, in nats

    @staticmethod
    def empty() -> "Scores":
        return Scores(*(np.empty(0) for _ in fields(Scores)))

    @staticmethod
    def joined(parts: Sequence["Scores"]) -> "Scores":
        columns = ([getattr(part, f.name) for part in parts] for f in fields(Scores))
        return Scores(*map(np.concatenate, columns))


@dataclass(frozen=True)
class Detection:
    """Scores of natural images, and of others by the name of their set or attack."""

    natural: Scores
    ood: Mapping[str, Scores] = field(default_factory=dict)
    adversarial: Mapping[str, Scores] = field(default_factory=dict)

    def sets(self) -> Iterator[tuple[str, str, Scores]]:
        """Kind (of ``KINDS``), name and scores of each set of others."""
        for kind in KINDS:
            for name, scores in getattr(self, kind).items():
                yield kind, name, scores

    def rates(self, others: Scores, score: str) -> "Rates":
        """How well a score, of ``SCORES``, separates the natural images from the others."""
        column = SCORES[score]
        sign = -1 if column in _LOWER_IS_NATURAL else 1
        return Rates(sign * getattr(self.natural, column), sign * getattr(others, column))


@dataclass(frozen=True)
class Rates:
    """Detection by a threshold on a score that is higher for natural images, the positives.

    As Hendrycks & Gimpel (2017) and Liu et al. (2020) report it.
    """

    natural: Floats
    others: Floats

    @cached_property
    def _ranked(self) -> tuple[Tensor, Tensor]:
        """Scores and whether they are of natural images.

        Ranks in the place of the scores change no rate; of scores outside [0, 1] torchmetrics
        would take the sigmoid, which makes ties of large ones.
        """
        both = torch.from_numpy(np.concatenate([self.natural, self.others]))
        rank = both.unique(return_inverse=True)[1].double()
        is_natural = torch.arange(len(both)) < len(self.natural)
        return rank / rank.max().clamp(min=1), is_natural.long()

    @cached_property
    def roc(self) -> tuple[Floats, Floats]:
        """Share of others and of natural images above a threshold, from the highest down."""
        fpr, tpr, _ = binary_roc(*self._ranked)
        return fpr.double().numpy(), tpr.double().numpy()

    @property
    def auroc(self) -> float:
        return float(binary_auroc(*self._ranked))

    @property
    def aupr(self) -> float:
        """Average precision, of which the share of natural images is that of chance."""
        return float(binary_average_precision(*self._ranked))

    @property
    def fpr95(self) -> float:
        """Share of others that pass the threshold which 95 % of the natural images pass."""
        fpr, tpr = self.roc
        return float(fpr[np.argmax(tpr >= 0.95 - 1e-6)])  # rates are fp32


def scores_of(net: nn.Module, probe: Attack, x: Images, noise: Noise | None) -> Scores:
    """Scores of a batch; ``probe`` attacks the predicted class."""
    logits = finite_logits(net, x)
    label = logits.argmax(1)
    x_adv = probe.run(net, x, label, AttackOptions(generator=noise)).x_adv
    pair = LogitPair(logits.double(), finite_logits(net, x_adv).double(), label)
    columns = (
        energies.marginal_energy(pair.clean),
        pair.clean.softmax(1).amax(1),
        energies.shift_norm(pair),
    )
    return Scores(*(column.cpu().numpy() for column in columns))


def rate_rows(runs: Mapping[str, Detection], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each set and score, of several runs for each of them; rates are from 0 to 1.

    ``labels`` are those of the attacks.
    """
    return [
        ({"run": run} if len(runs) > 1 else {})
        | {"kind": KINDS[kind], "images": labels[name] if kind == "adversarial" else name}
        | {"n": len(others.energy), "natural": len(found.natural.energy), "score": score}
        | {name: getattr(rates, name.lower()) for name in RATES}
        for run, found in runs.items()
        for kind, name, others in found.sets()
        for score in SCORES
        for rates in (found.rates(others, score),)
    ]


def write_rates(folder: Path, runs: Mapping[str, Detection], labels: Mapping[str, str]) -> str:
    """Writes the rates as CSV, JSON and Markdown; returns the last, which is in percent."""
    rows = rate_rows(runs, labels)
    percent = [
        {key: f"{100 * value:.1f}" if key in RATES else str(value) for key, value in row.items()}
        for row in rows
    ]
    text = (
        f"{Table.of(percent).markdown()}\n\n"
        "In percent. Natural images are the positives: a lower E(x), a higher max softmax, a "
        "smaller shift norm.\nFPR95: share of the others above the threshold that 95 % of the "
        "natural images pass. AUPR depends on the numbers of images."
    )
    (folder / "detection.csv").write_text(Table.of(rows).csv(), encoding="utf-8")
    (folder / "detection.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (folder / "detection.md").write_text(text + "\n", encoding="utf-8")
    return text
