"""Finished samples: columns, files, parts that survive a kill, and the progress bar."""

import math
import shutil
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
from energy_at.core.progress import Bar
from energy_at.core.types import Labels, PerExample, Pixels
from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling.langevin import Chains, Stop

FILE = "samples.npz"  # of all samples, once they are finished


@dataclass(frozen=True)
class Samples:
    """Chains that have stopped, on the CPU; images are bytes.

    ``number`` orders them, ``stop`` holds values of ``Stop``, and ``target`` is in nats, minus
    infinity without guidance.
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
        return cls(
            chains.number.cpu(),
            as_bytes(chains.x),
            as_bytes(chains.start),
            chains.y.cpu(),
            chains.steps.cpu(),
            chains.stop.cpu(),
            chains.target.cpu(),
        )

    @classmethod
    def concat(cls, parts: Sequence["Samples"]) -> "Samples":
        """All samples of the parts, by number."""
        whole = [torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)]
        order = whole[0].argsort()
        return cls(*(column[order] for column in whole))

    @classmethod
    def read(cls, path: Path) -> "Samples | None":
        """The samples in a file of ``arrays``; ``None`` if it is damaged."""
        try:
            with np.load(path) as file:
                columns = {f.name: torch.from_numpy(file[f.name]) for f in fields(cls)}
        except (BadZipFile, EOFError, KeyError, OSError, ValueError):
            return None
        for name in ("pixels", "start"):
            columns[name] = columns[name].permute(0, 3, 1, 2).contiguous()
        return cls(**columns)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Columns as arrays; images as (n, height, width, channels), as most tools read them."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("pixels", "start"):
            columns[name] = columns[name].permute(0, 2, 3, 1)
        return {name: column.contiguous().numpy() for name, column in columns.items()}

    @property
    def moved(self) -> PerExample:
        """Distance of each sample from its start, L2 in pixels."""
        change = (self.pixels.float() - self.start.float()).flatten(1) / 255
        moved: Tensor = torch.linalg.vector_norm(change, dim=1)
        return moved

    def __len__(self) -> int:
        return len(self.number)


def as_bytes(x: Tensor) -> Pixels:
    """Pixels in [0, 1] as bytes, to the nearest."""
    return (x * 255).round().to(torch.uint8).cpu().contiguous()


class Parts:
    """Files of finished samples, so that an interrupted sampling resumes.

    Args:
        result: The folder of the sampling; claimed with the first file.

    Raises:
        ValueError: if the file of all samples is damaged.
    """

    EVERY = 20.0  # seconds between two files

    def __init__(self, result: ResultFolder) -> None:
        self.result, self.folder = result, result.path / "parts"
        self._fresh: list[Samples] = []
        self._written = time.monotonic()
        whole = result.path / FILE
        files = [whole] if whole.is_file() else sorted(self.folder.glob("*.npz"))
        read = [Samples.read(path) for path in files]
        if whole in files and None in read:
            raise ValueError(f"{whole} is damaged: remove it, or choose another out=FOLDER")
        self.finished = [part for part in read if part is not None]  # damaged: drawn again

    @property
    def done(self) -> set[int]:
        """Numbers of the finished samples."""
        return {int(i) for part in self.finished for i in part.number}

    def add(self, samples: Samples) -> None:
        """Keeps finished samples; they are on disk after ``EVERY`` seconds at the latest."""
        self.finished.append(samples)
        self._fresh.append(samples)
        if time.monotonic() - self._written > self.EVERY:
            self.write()

    def write(self) -> None:
        """Writes the samples that are not on disk yet."""
        self._written = time.monotonic()
        if not self._fresh:
            return
        self.result.claim()
        last = max((int(path.stem) for path in self.folder.glob("*.npz")), default=-1)
        with replacing(self.folder / f"{last + 1:06d}.npz") as part, part.open("wb") as file:
            arrays: dict[str, Any] = Samples.concat(self._fresh).arrays()
            np.savez(file, **arrays)
        self._fresh = []

    def remove(self) -> None:
        """Removes the files, once all samples are written elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


class SamplingBar(Bar):
    """Progress bar: finished images, rate, mean energy, share that reached its target."""

    EVERY = 0.5  # seconds between two looks at the device

    _finished = _reached = 0
    _seen = -math.inf

    def show_energies(self, energies: Tensor) -> None:
        """Shows the mean energy of a step, also before the first sample has finished."""
        if not self.disable and time.monotonic() - self._seen > self.EVERY:
            self._seen = time.monotonic()
            text = f"energy {float(energies.mean()):+.2f}"
            if self._finished:
                text += f", {100 * self._reached / self._finished:.0f} % at target"
            self.set_postfix_str(text, refresh=False)
        self.update(0)

    def count(self, samples: Samples) -> None:
        """Counts finished samples."""
        self._finished += len(samples)
        self._reached += int((samples.stop == Stop.REACHED).sum())
        self.update(len(samples))
