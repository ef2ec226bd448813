"""Adversarial training of image classifiers seen through energy-based models."""

import sys
from types import TracebackType

__version__ = "0.2.0"


def _stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\nstopped\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # python -m energy_at.ENTRY: Ctrl-C while it imports is no defect
    sys.excepthook = _stopped
