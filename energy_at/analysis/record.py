"""What an analysis was made with, and a key that tells it from all others."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from energy_at import __version__
from energy_at.analysis.output import ARRAYS
from energy_at.analysis.plan import Plan
from energy_at.core.files import digest
from energy_at.data import ImageSet
from energy_at.evaluation.trained_model import TrainedModel

Chosen = tuple[ImageSet, list[int]]  # images, and their places in the split


def network(name: str, subject: TrainedModel, places: Sequence[int], plan: Plan) -> dict[str, Any]:
    """A network and the images that it is shown."""
    return {
        "name": name,
        "source": subject.source,
        "which": subject.which,
        "sha256": subject.weights_digest,
        "device": subject.device.type,
        "dataset": subject.config.dataset.name,
        "images": len(places),
        "of": len(getattr(subject.data, plan.split)),
        "places_sha256": digest(list(places)),
    }


def key_of(plan: Plan, networks: Sequence[Mapping[str, Any]]) -> str:
    """Changes with everything that the numbers depend on, but for the machine."""
    shown = ("sha256", "dataset", "images", "of", "places_sha256")
    seen = [{name: network[name] for name in shown} for network in networks]
    return digest([_asked(plan), seen, __version__])


def record(plan: Plan, networks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the files were made with, and what their arrays are."""
    return {
        "key": key_of(plan, networks),
        "networks": list(networks),
        **_asked(plan),
        "precision": "fp32, energies fp64",
        "versions": {"energy_at": __version__, "torch": torch.__version__},
        "samples.npz": ARRAYS,
    }


def _asked(plan: Plan) -> dict[str, Any]:
    return {
        "split": plan.split,
        "subset": plan.subset,
        "subset_seed": plan.subset_seed,
        "norm": plan.norm,
        "eps": plan.ball.eps,
        "eps_text": plan.eps,
        "attacks": plan.labels,
        "steps": plan.steps,
        "iterations": plan.iterations,
        "queries": plan.queries,
        "radii": [ball.eps for ball in plan.balls],
        "seed": plan.seed,
    }
