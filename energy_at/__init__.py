"""Adversarial training of image classifiers seen through energy-based models."""

import sys
from pathlib import Path
from types import TracebackType

__version__ = "0.2.0"


def _stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\nstopped\n")
    else:
        sys.__excepthook__(kind, error, trace)


# python -m energy_at.ENTRY, or energy-at: Ctrl-C while it imports is no defect
if sys.argv[:1] == ["-m"] or Path(*sys.argv[:1]).stem == "energy-at":
    sys.excepthook = _stopped
