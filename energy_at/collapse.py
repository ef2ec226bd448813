"""When a training lost its robustness, read from its log."""

from collections.abc import Sequence


def collapse_step(rows: Sequence[dict[str, float]], classes: int) -> int | None:
    """Optimizer step from which a run is collapsed to its end; ``None`` for a sound run.

    A validation counts as collapsed if PGD accuracy on held-out images is below half its best so
    far, or below half of chance. A run that comes back is sound.

    Args:
        rows: Rows of ``metrics.csv``.
        classes: Of the data set.
    """
    onset, best = None, 0.0
    for row in rows:
        if "val/acc/pgd" not in row:
            continue
        accuracy = row["val/acc/pgd"]
        best = max(best, accuracy)
        if accuracy >= max(best, 1 / classes) / 2:
            onset = None
        elif onset is None:
            onset = int(row["step"])
    return onset
