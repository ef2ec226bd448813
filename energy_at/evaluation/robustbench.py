"""An entry for RobustBench's leaderboard (Croce et al., 2021), of evaluations that qualify."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.attacks import Attack, LibraryAttack, WorstCase
from energy_at.attacks.autoattack import autoattack
from energy_at.attacks.registry import AttackKey
from energy_at.attacks.threat import L2, Ball, Linf
from energy_at.reporting.describe import network_name

# Test images and radii of the leaderboards
RADII: dict[str, dict[Ball, str]] = {
    "cifar10": {Linf(8 / 255): "8/255", L2(0.5): "0.5"},
    "cifar100": {Linf(8 / 255): "8/255"},
}
IMAGES = 10_000


def leaderboard_entry(
    record: Mapping[str, Any], config: DictConfig, attacks: Mapping[AttackKey, Attack]
) -> dict[str, Any] | None:
    """The entry, in the form of RobustBench's ``model_info``; what the user fills in is null.

    Args:
        record: An evaluation, as ``evaluation.json`` holds it.
        config: Of the network.
        attacks: Of the evaluation.

    Returns:
        None unless the standard AutoAttack was run on the whole test set, at the radius of a
        leaderboard, and the checks found a deterministic network that returns logits.
    """
    data, radii = record["dataset"], RADII.get(record["dataset"]["name"], {})
    whole = data["split"] == "test" and data["images"] == data["of"] == IMAGES
    reader = str(OmegaConf.select(config, "dataset.reader._target_"))
    whole &= reader.endswith(f".{data['name']}")  # no folder of this name
    needed = [check["passed"] for check in record["checks"][:2]]
    found = {
        radii[ball]: key
        for key, attack in attacks.items()
        if key.name == "autoattack" and (ball := _ball(attack)) in radii and is_standard(attack)
    }
    if not (whole and found and all(needed)):
        return None
    ((eps, key),) = found.items()
    shares = {(row["attack"], row["eps_text"]): row["accuracy"] for row in record["accuracies"]}
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": config.dataset.get("extra") is not None,
        "number_forward_passes": 1,
        "dataset": data["name"],
        "venue": None,
        "architecture": network_name(config),
        "eps": eps,
        "clean_acc": f"{100 * shares['clean', '']:.2f}",
        "reported": None,
        "autoattack_acc": f"{100 * shares['autoattack', key.eps]:.2f}",
    }


def is_standard(attack: Attack) -> bool:
    """Whether an attack is AutoAttack's standard version, with all its steps and queries."""
    ball = _ball(attack)
    return ball is not None and attack == autoattack(ball)


def _ball(attack: Attack) -> Ball | None:
    parts = attack.attacks if isinstance(attack, WorstCase) else [attack]
    return parts[0].ball if isinstance(parts[0], LibraryAttack) else None
