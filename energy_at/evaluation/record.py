"""What is written down of an evaluation: its setting, and a row for each attack and radius."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from scipy.stats import binomtest

from energy_at import __version__
from energy_at.core.files import digest
from energy_at.data import ImageSet
from energy_at.evaluation.plan import Plan
from energy_at.evaluation.robustness import Mask
from energy_at.evaluation.trained_model import TrainedModel

NORMS = {"linf": "L-inf", "l2": "L2"}


def about(
    subject: TrainedModel, plan: Plan, images: ImageSet, places: Sequence[int]
) -> dict[str, Any]:
    """The setting, and a key that tells it from all others.

    Weights alone do not make a network: the same fit another activation, or another padding.
    """
    every = len(getattr(subject.data, plan.split))
    seeded = plan.subset_seed if len(places) < every else None
    said: dict[str, Any] = {
        "network": {
            "source": subject.source,
            "which": subject.which,
            "sha256": subject.fingerprint,
        },
        "dataset": {
            "name": subject.config.dataset.name,
            "split": plan.split,
            "images": len(places),
            "of": every,
            "seed": seeded,
        },
        "norm": NORMS[plan.norm],
        "eps": list(plan.balls),
        "attacks": [plan.label(name) for name in plan.names],
        "seed": plan.seed,
        "precision": "fp32",
    }
    setting = {k: v for k, v in said.items() if k != "network"}
    setting |= {
        "weights": said["network"]["sha256"],
        "model": OmegaConf.to_container(subject.config.model, resolve=True),
        "images": images.digests(),
        "places": list(places),
        "version": __version__,
    }
    return said | {"key": digest(setting)}


def folder_name(said: dict[str, Any]) -> str:
    """Names what was judged, and how."""
    radii = [eps.replace("/", "of") for eps in said["eps"]]
    eps = radii[0] if len(radii) == 1 else f"{radii[0]}-to-{radii[-1]}"
    which = said["network"]["which"] or "weights"
    norm = said["norm"].replace("-", "").lower()
    data = said["dataset"]
    return f"{which}-{norm}-{eps}-{data['images']}-{data['split']}-{said['key'][:6]}"


def accuracy(plan: Plan, name: str, right: Mask) -> dict[str, Any]:
    """The share of right images under an attack, with its Wilson interval of 95 %."""
    attack, _, eps = name.partition("@")
    count, n = int(right.sum()), len(right)
    low, high = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return {
        "attack": attack,
        "label": "clean" if attack == "clean" else plan.label(attack),
        "eps": plan.balls[eps].eps if eps else 0.0,
        "eps_text": eps,
        "right": count,
        "images": n,
        "accuracy": count / n,
        "low": float(low),
        "high": float(high),
    }
