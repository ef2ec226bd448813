"""What a user's own images share, in whatever form: splits, classes, facts.

What is wrong with them is one line that names the file, before anything is written.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from energy_at.core.rules import Rule, is_integer, or_null
from energy_at.data.images import ImageSet, Splits, mean_and_std

SPLITS = {  # by the names that they have in folders and files
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
CHANNELS = or_null(Rule("1 (grey) or 3 (RGB)", lambda v: is_integer(v) and v in (1, 3)))
MOST_VALIDATED = 1000  # images, unless val_size says more: they are attacked after every epoch


def facts(splits: Splits) -> dict[str, Any]:
    """What the images say about the configuration of their data set.

    Their channels, size, classes, mean and standard deviation; and defaults that follow from these:
    how far a random crop moves them, and how many are held out to validate on.
    """
    channels, size, _ = splits.train.shape
    mean, std = mean_and_std(splits.train)
    held_out = len(splits.train) // 10 if splits.val is None else len(splits.val)
    classes = int(splits.train.labels.max()) + 1
    return {
        "channels": channels,
        "size": size,
        "classes": classes,
        "names": None if splits.names is None else list(splits.names),
        "mean": mean,
        "std": std,
        "pad": size // 8,
        "val_size": max(classes, min(held_out, MOST_VALIDATED)),
    }


def require_same(root: Path, split: str, classes: Collection[Any], known: Collection[Any]) -> None:
    if lacking := sorted(set(known) - set(classes)):
        raise ValueError(
            f"{root}: the {split} images have no class {lacking[0]}, which is among the training "
            "images: both need the same classes"
        )
    if unknown := sorted(set(classes) - set(known)):
        raise ValueError(
            f"{root}: the {split} images have a class {unknown[0]} that is not among the training "
            "images: both need the same classes"
        )


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def form_of(images: ImageSet) -> str:
    return "x".join(map(str, images.shape))


def splits_of(parts: dict[str, Any], names: tuple[str, ...] | None) -> Splits:
    """Without test images, those to validate on are the test set, as for Tiny-ImageNet."""
    test = parts.get("test")
    if test is None:
        return Splits(parts["train"], parts["val"], None, names)
    return Splits(parts["train"], test, parts.get("val"), names)
