"""Configurations in words: what runs have in common, and where they differ."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.reporting.tables import Table

NOT_THERE = "-"
DATASETS = {
    "digits": "handwritten digits (8x8)",
    "mnist5k": "MNIST (5,000 images)",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "fashion_mnist": "Fashion-MNIST",
    "tiny_imagenet": "Tiny ImageNet",
    "synthetic": "synthetic images",
}
NETWORKS = {"preactresnet18": "PreActResNet18", "resnet18": "ResNet-18", "small": "small CNN"}
BALLS = {"Linf": "L-inf", "L2": "L2"}


def setting(configs: Sequence[DictConfig]) -> str:
    """``CIFAR-10, PreActResNet18 of width 16, L-inf, eps 8/255, 20 epochs``: what all runs share.

    What differs between the runs, and what their configuration does not say, is left out.
    """
    parts = (_dataset, _network, _threat, _epochs)
    said = [{part(config) for config in configs} for part in parts]
    return ", ".join(found.pop() or "" for found in said if len(found) == 1 and None not in found)


def differences(columns: Mapping[str, DictConfig], apart: Sequence[str]) -> Table:
    """One row for each key whose resolved value differs, one column for each configuration.

    A key that repeats another, as interpolation makes it, stands in that one's row.

    Args:
        columns: Configurations by name.
        apart: Keys, or groups of keys, to leave out.
    """
    values = [_leaves(config) for config in columns.values()]
    keys = [key for key in dict.fromkeys(k for found in values for k in found)
            if not any(key == a or key.startswith(f"{a}.") for a in apart)]  # fmt: skip
    rows: dict[tuple[str, ...], list[str]] = {}
    for key in keys:
        cells = tuple(found.get(key, NOT_THERE) for found in values)
        if len(set(cells)) > 1:
            rows.setdefault((key.rpartition(".")[2], *cells), []).append(key)
    return Table(
        ("key", *columns),
        [(_with_copies(repeated), *cells) for (_, *cells), repeated in rows.items()],
    )


def _with_copies(keys: Sequence[str]) -> str:
    first, *copies = sorted(keys, key=lambda key: (key.count("."), keys.index(key)))
    return f"{first} (and {', '.join(copies)})" if copies else first


def _leaves(config: DictConfig) -> dict[str, str]:
    found: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), below)
        elif prefix:
            found[prefix] = value if isinstance(value, str) else json.dumps(value)

    walk("", OmegaConf.to_container(config))
    return found


def _dataset(config: DictConfig) -> str | None:
    name, subset = _select(config, "dataset.name"), _select(config, "dataset.subset")
    if name is None:
        return None
    images = f" ({subset:,} training images)" if isinstance(subset, int) else ""
    return DATASETS.get(name, str(name)) + images


def _network(config: DictConfig) -> str | None:
    target, width = _select(config, "model._target_"), _select(config, "model.width")
    if target is None:
        return None
    name = str(target).rpartition(".")[2]
    if name == "wideresnet":
        name = f"WideResNet-{_select(config, 'model.depth')}-{_select(config, 'model.widen')}"
        return name if width in (None, 16) else f"{name} of width {width}"
    return NETWORKS.get(name, name) + ("" if width is None else f" of width {width}")


def _threat(config: DictConfig) -> str | None:
    eps, target = _select(config, "threat.eps"), _select(config, "threat.ball._target_")
    if eps is None or target is None:
        return None
    ball = str(target).rpartition(".")[2]
    return f"{BALLS.get(ball, ball)}, eps {eps}"


def _epochs(config: DictConfig) -> str | None:
    epochs = _select(config, "trainer.max_epochs")
    return None if epochs is None else f"{epochs} epoch{'' if epochs == 1 else 's'}"


_select: Callable[[DictConfig, str], Any] = OmegaConf.select
