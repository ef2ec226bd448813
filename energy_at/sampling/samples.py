"""Finished samples: columns, files, and parts that survive a kill."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from energy_at.core.files import replacing
from energy_at.core.types import Labels, PerExample, Pixels
from energy_at.sampling import Chains


@dataclass(frozen=True)
class Samples:
    """Finished samples, on the CPU.

    Attributes:
        number: Of each.
        pixels: Bytes.
        start: Bytes that it began as.
        label: Its class.
        steps: That it took.
        stop: Why it stopped, a ``Stop``.
        target: Energy that it was led to, in nats; minus infinity without guidance.
    """

    number: Labels
    pixels: Pixels
    start: Pixels
    label: Labels
    steps: Labels
    stop: Int[Tensor, " batch"]
    target: PerExample

    @classmethod
    def of(cls, chains: Chains) -> "Samples":
        """Chains that have stopped."""
        return cls(
            chains.number.cpu(),
            as_bytes(chains.x),
            as_bytes(chains.start),
            chains.y.cpu(),
            chains.steps.cpu(),
            chains.stop.cpu(),
            chains.target.cpu(),
        )

    def __len__(self) -> int:
        return len(self.number)

    @classmethod
    def joined(cls, parts: Sequence["Samples"]) -> "Samples":
        """All of them, by number."""
        whole = [torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)]
        order = whole[0].argsort()
        return cls(*(column[order] for column in whole))


def as_bytes(x: Tensor) -> Pixels:
    """Pixels in [0, 1] as bytes, to the nearest."""
    return (x * 255).round().to(torch.uint8).cpu().contiguous()


def arrays(samples: Samples) -> dict[str, NDArray[np.generic]]:
    """Columns as arrays; images as (n, height, width, channels), as most tools read them."""
    found = {f.name: getattr(samples, f.name) for f in fields(samples)}
    for name in ("pixels", "start"):
        found[name] = found[name].permute(0, 2, 3, 1)
    return {name: column.contiguous().numpy() for name, column in found.items()}


class Parts:
    """Finished samples on disk while others are on their way.

    Args:
        folder: Of the parts; made with the first.
        key: Of the samples.

    Raises:
        ValueError: if the folder holds parts of other samples.
    """

    EVERY = 20.0  # seconds between two files

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.finished: list[Samples] = []
        self._fresh: list[Samples] = []
        self._written = time.monotonic()
        for path in sorted(folder.glob("*.npz")):
            part = self._read(path)
            if part is not None:
                self.finished.append(part)

    @property
    def done(self) -> set[int]:
        """Numbers of the finished samples."""
        return {int(i) for part in self.finished for i in part.number}

    def add(self, samples: Samples) -> None:
        """Keeps finished samples; not later than after some seconds, on disk."""
        self.finished.append(samples)
        self._fresh.append(samples)
        if time.monotonic() - self._written > self.EVERY:
            self.write()

    def write(self) -> None:
        """Writes what is not on disk yet."""
        self._written = time.monotonic()
        if not self._fresh:
            return
        last = max((int(path.stem) for path in self.folder.glob("*.npz")), default=-1)
        path = self.folder / f"{last + 1:06d}.npz"
        with replacing(path) as part, part.open("wb") as file:
            whole: dict[str, Any] = _columns(Samples.joined(self._fresh))
            np.savez(file, key=np.array(self.key), **whole)
        self._fresh = []

    def remove(self) -> None:
        """Removes the files: the whole is written."""
        for path in self.folder.glob("*.npz"):
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()

    def _read(self, path: Path) -> Samples | None:
        """The samples of a file; ``None`` if it is damaged: they are drawn again."""
        found = read_columns(path)
        if found is None:
            return None
        if str(found["key"]) != self.key:
            raise ValueError(f"{self.folder.parent} holds other samples: choose another out=FOLDER")
        return Samples(*(torch.from_numpy(found[f.name]) for f in fields(Samples)))


def read_columns(path: Path) -> dict[str, NDArray[Any]] | None:
    """The key and the columns of a file of samples; ``None`` if it is damaged."""
    try:
        with np.load(path) as found:
            return {name: found[name] for name in ("key", *(f.name for f in fields(Samples)))}
    except (BadZipFile, EOFError, KeyError, OSError, ValueError):
        return None


def _columns(samples: Samples) -> dict[str, NDArray[np.generic]]:
    return {f.name: getattr(samples, f.name).numpy() for f in fields(samples)}
