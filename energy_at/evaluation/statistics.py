"""Statistics of an evaluation: accuracy, over classes too, and calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import binomtest
from torchmetrics.functional.classification import binary_calibration_error

from energy_at.attacks.registry import AttackKey
from energy_at.core.types import Labels
from energy_at.evaluation.robustness import Mask, Outcome

BINS = 15  # of confidence, of equal width


def accuracy(found: Outcome, labels: Labels, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Share of correct images with its Wilson interval of 95 %, ECE, and the worst class.

    ``names`` are those of the classes, if they are known.
    """
    count, n = int(found.correct.sum()), len(labels)
    low, high = binomtest(count, n).proportion_ci(0.95, method="wilson")
    shares = class_accuracies(found.correct, labels)
    worst = min(shares, key=lambda label: shares[label])
    return {
        "correct": count,
        "images": n,
        "accuracy": count / n,
        "low": float(low),
        "high": float(high),
        "ece": calibration_error(found),
        "worst_class": worst,
        "worst_class_name": str(names[worst]) if names else f"class {worst}",
        "worst_class_accuracy": shares[worst],
    }


def calibration_error(found: Outcome) -> float:
    """Expected calibration error, 0 to 1: mean of |accuracy - confidence| (Guo et al., 2017).

    Images are in 15 bins of their confidence, the softmax of the predicted class; the mean weighs
    a bin by its images.
    """
    confidence = found.confidence.double().clamp(0, 1)
    return float(binary_calibration_error(confidence, found.correct.long(), n_bins=BINS))


def class_accuracies(correct: Mask, labels: Labels) -> dict[int, float]:
    """Share of correct images by class, of classes that have images."""
    images = labels.bincount()
    right = labels[correct].bincount(minlength=len(images))
    return {k: int(right[k]) / int(images[k]) for k in images.nonzero().flatten().tolist()}


def class_rows(
    correct: Mapping[AttackKey, Mask], labels: Labels, names: Sequence[str] | None
) -> list[dict[str, Any]]:
    """A row for each class: its images, and their accuracy clean and under each attack."""
    shares = {str(key): class_accuracies(mask, labels) for key, mask in correct.items()}
    images = labels.bincount().tolist()
    return [
        {"class": k, "name": names[k] if names else k, "images": n}
        | {key: found[k] for key, found in shares.items()}
        for k, n in enumerate(images)
        if n
    ]
