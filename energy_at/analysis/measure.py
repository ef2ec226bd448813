"""The energies of a network around images, in fp32 and evaluation mode.

All images are attacked, those that are wrong already too. Noise and tiles are those of
``robustness``, so any batch size gives the same numbers. Energies are computed in fp64 from fp32
logits: the cross-entropy of a confident image is lost in the rounding of its energies otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from energy_at.analysis.columns import TIMES, Floats, Landscape, Natural, Paths, Radii, Shifts
from energy_at.attacks import Attack, LibraryAttack, WorstCase
from energy_at.attacks.threat import Ball, Linf
from energy_at.core.types import Images, Labels, Logits, PerExample
from energy_at.energy.energies import (
    delta_joint,
    delta_marginal,
    is_abnormal,
    joint_energy,
    marginal_energy,
    shift_norm,
)
from energy_at.energy.pair import LogitPair
from energy_at.evaluation.robustness import TOGETHER, Evaluator, finite_logits
from energy_at.models.modes import eval_mode, full_precision
from energy_at.models.tiled import Tiled


def landscape(
    net: nn.Module,
    exam: Evaluator,
    attacks: Mapping[str, Attack],
    radii: Mapping[float, Attack],
    *,
    ball: Ball,
    curves: int = 500,
) -> Landscape:
    """Measures the energies of every image.

    Args:
        net: The network.
        exam: The images.
        attacks: By name.
        radii: Attacks by the radius of their ball, for the delta energy against it.
        ball: Of ``attacks``; its norm measures the perturbations.
        curves: Paths and radii are measured on at most this many images, evenly spread.

    Raises:
        ValueError: if the network returns anything but finite logits.
    """
    spread = torch.arange(0, len(exam.images), -(-len(exam.images) // curves))
    with _judged(net, exam) as tiled:
        survey = _Survey(tiled, exam, _all_logits(tiled, exam), ball)
        found = {name: survey.under(name, attack, spread) for name, attack in attacks.items()}
        few = survey.of(spread)
        swept = [few.under(f"eps {eps:.3g}", attack)[0] for eps, attack in radii.items()]
    positions = spread.numpy()
    return Landscape(
        survey.natural(),
        {name: shifts for name, (shifts, _) in found.items()},
        {name: Paths(positions, *lines) for name, (_, lines) in found.items()},
        Radii(
            positions,
            np.array(list(radii), dtype=np.float64),
            _side_by_side([shifts.delta_marginal for shifts in swept], len(spread)),
            _side_by_side([shifts.delta_joint for shifts in swept], len(spread)),
        ),
    )


@contextmanager
def _judged(net: nn.Module, exam: Evaluator) -> Iterator[Tiled]:
    device = exam.images.labels.device.type
    tiled = exam.tiled(net)
    with eval_mode(tiled), full_precision(device):
        yield tiled


@dataclass(frozen=True)
class _Survey:
    net: Tiled
    exam: Evaluator
    clean: Logits  # fp64, on the CPU
    ball: Ball

    def natural(self) -> Natural:
        """The images as they are."""
        labels = self.exam.images.labels.cpu()
        return Natural(
            np.array(_numbers(self.exam), dtype=np.int64),
            _array(labels),
            _array(self.clean.argmax(1)),
            _array(marginal_energy(self.clean)),
            _array(joint_energy(self.clean, labels)),
        )

    def of(self, positions: Labels) -> "_Survey":
        """The survey of some of the images."""
        images = self.exam.images.take(positions.to(self.exam.images.labels.device))
        numbers = [_numbers(self.exam)[i] for i in positions.tolist()]
        exam = replace(self.exam, images=images, numbers=numbers)
        return replace(self, exam=exam, clean=self.clean[positions])

    def under(
        self, name: str, attack: Attack, on_path: Labels | None = None
    ) -> tuple[Shifts, Floats]:
        """Shifts of all images, and both energies on the paths of those that are asked for."""
        shifts: list[Shifts] = []
        lines = [np.empty((2, 0, len(TIMES)))]
        for positions in self._worked(name, attack, shifts):
            x, y = self.exam.batch(positions)
            x_adv = attack(self.net, x, y, generator=self.exam.noise(positions, 0)).x_adv
            pair = LogitPair(
                self.clean[positions].to(x.device), finite_logits(self.net, x_adv).double(), y
            )
            shifts.append(_shifts(pair, self._size(x_adv - x)))
            if on_path is not None:
                wanted = torch.isin(positions, on_path).nonzero().flatten().to(x.device)
                lines += [_lines(self.net, x[part], x_adv[part], y[part])
                          for part in _blocks(wanted, self.net.size)]  # fmt: skip
        columns = [np.concatenate([getattr(part, field.name) for part in shifts])
                   for field in fields(Shifts)]  # fmt: skip
        return Shifts(*columns), np.concatenate(lines, axis=1)

    def _worked(self, name: str, attack: Attack, done: Sequence[Shifts]) -> Iterator[Labels]:
        """Positions that are searched at once: for the attacks of a library they decide."""
        together = isinstance(attack, LibraryAttack | WorstCase)
        every = torch.arange(len(self.clean))
        with tqdm(total=len(every), desc=name, unit="img", leave=False,
                  disable=not self.exam.progress) as bar:  # fmt: skip
            for positions in _blocks(every, TOGETHER if together else self.exam.batch_size):
                yield positions
                bar.update(len(positions))
                mean = np.concatenate([part.delta_marginal for part in done]).mean()
                bar.set_postfix_str(f"dE(x) {mean:+.3f}", refresh=False)

    def _size(self, delta: Images) -> PerExample:
        order = float("inf") if isinstance(self.ball, Linf) else 2
        size: PerExample = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
        return size


def _lines(net: Tiled, x: Images, x_adv: Images, y: Labels) -> Floats:
    """Marginal and joint energies of each image at ``TIMES``."""
    # All points of a path together: a path for itself would fill no tile.
    points = torch.cat([torch.lerp(x, x_adv, t) for t in TIMES]).clamp(0, 1)
    logits = finite_logits(net, points).double()
    found = torch.stack([marginal_energy(logits), joint_energy(logits, y.repeat(len(TIMES)))])
    return _array(found.reshape(2, len(TIMES), len(x)).transpose(1, 2))


def _shifts(pair: LogitPair, size: PerExample) -> Shifts:
    return Shifts(
        _array(pair.adv.argmax(1)),
        _array(marginal_energy(pair.adv)),
        _array(joint_energy(pair.adv, pair.y)),
        _array(delta_marginal(pair)),
        _array(delta_joint(pair)),
        _array(shift_norm(pair)),
        _array(is_abnormal(pair)),
        _array(size.double()),
    )


def _all_logits(net: Tiled, exam: Evaluator) -> Logits:
    batches = _blocks(torch.arange(len(exam.images)), exam.batch_size)
    found = [finite_logits(net, exam.batch(positions)[0]) for positions in batches]
    return torch.cat([logits.double().cpu() for logits in found])


def _blocks(positions: Labels, size: int) -> Iterator[Labels]:
    yield from (positions[first : first + size] for first in range(0, len(positions), size))


def _numbers(exam: Evaluator) -> Sequence[int]:
    return range(len(exam.images)) if exam.numbers is None else exam.numbers


def _side_by_side(columns: Sequence[Floats], rows: int) -> Floats:
    return np.stack(columns, axis=1) if columns else np.empty((rows, 0))


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array
