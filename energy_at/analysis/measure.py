"""What an analysis measures: the energies of a network around images, in fp32.

All images are attacked, misclassified ones too. Noise and tiles are those of ``evaluation``, so any
batch size gives the same numbers. Energies are computed in fp64 from fp32 logits: otherwise the
cross-entropy of a confident image is lost in the rounding of its energies.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from energy_at.analysis.detection import Detection, Scores, scores_of
from energy_at.attacks import Attack, AttackOptions, LibraryAttack, WorstCase, pgd
from energy_at.attacks.registry import FROM_LIBRARY, named_attack
from energy_at.attacks.threat import Ball, Linf
from energy_at.core.ranges import require_ranges
from energy_at.core.types import Images, Labels, Logits, PerExample
from energy_at.energy import LogitPair, energies
from energy_at.evaluation import EvaluationTarget, TrainedModel
from energy_at.evaluation.robustness import TOGETHER, Evaluator, batched, finite_logits
from energy_at.models.modes import Tiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Truths = NDArray[np.bool_]

ATTACKS = ("fgsm", "pgd", "trades", "targeted", "cw")  # those that need no library
FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0)  # radii of the sweep, in units of eps
TIMES = tuple(i / 20 for i in range(31))  # along a path: x at 0, x* at 1, and half as far again


@dataclass(frozen=True, kw_only=True)
class AnalysisPlan(EvaluationTarget):
    """Images, threat model and attacks of an analysis; ``balls`` holds one ball."""

    radii: Sequence[Ball]  # of the PGD sweep
    subset: int | None = 1000
    steps: int = 20
    iterations: int = 100  # of APGD and FAB
    queries: int = 5000  # of Square
    ood: Sequence[str] | None = None  # sets that scores are to detect; None for no detection
    at_most: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges("analysis.AnalysisPlan", self)

    @property
    def eps(self) -> str:
        return next(iter(self.balls))

    @property
    def ball(self) -> Ball:
        return self.balls[self.eps]

    @cached_property
    def attacks(self) -> dict[str, Attack]:
        """By name; raises ``ImportError`` if one needs a library that is not installed."""
        return {name: named_attack(name, self.ball, **self._settings(name)) for name in self.names}

    @cached_property
    def labels(self) -> dict[str, str]:
        """The attacks as they are printed: ``PGD-20``."""
        return {name: self.label(name) for name in self.names}

    @property
    def sweep(self) -> dict[float, Attack]:
        """PGD at each radius of the sweep."""
        return {ball.eps: pgd(ball, steps=self.steps) for ball in self.radii}

    @property
    def probe(self) -> Attack | None:
        """The attack of the shift norm that detects images that are not natural."""
        return None if self.ood is None else pgd(self.ball, steps=self.steps)

    def _settings(self, name: str) -> dict[str, Any]:
        if name not in FROM_LIBRARY:
            return super()._settings(name)
        library = {"steps": self.iterations, "queries": self.queries}
        return library if name == "autoattack" else library | {"keeps": "worst"}


def plan_of(cfg: DictConfig, models: Iterable[TrainedModel]) -> AnalysisPlan:
    """The analysis that a configuration asks for.

    Raises:
        ValueError: if the networks were trained for different threat models and none is named, or
            a radius is not a length.
    """
    if OmegaConf.is_list(cfg.eps):
        raise ValueError(
            f"eps={list(cfg.eps)} must be one radius; eps_list=[4/255,8/255] takes several"
        )
    models = list(models)
    target = AnalysisPlan.fields_of(cfg, models)
    (ball,) = target["balls"].values()
    if cfg.eps_list is None:
        most = models[0].largest_radius(target["norm"])
        radii = [ball.scaled(factor) for factor in FACTORS if factor * ball.eps <= most]
    else:
        balls = models[0].threat_models(target["norm"], cfg.eps_list, key="eps_list").values()
        radii = sorted(balls, key=lambda ball: ball.eps)
    return AnalysisPlan(
        **target,
        names=list(cfg.attacks or ATTACKS),
        radii=radii,
        iterations=cfg.iterations,
        queries=cfg.queries,
        ood=None if cfg.ood is None else [str(name) for name in cfg.ood],
    )


@dataclass(frozen=True)
class Natural:
    """Columns of the natural images."""

    image: Integers  # index in the split that it was taken from
    label: Integers
    prediction: Integers  # class of the highest logit
    marginal: Floats  # E(x)
    joint: Floats  # E(x, y)


@dataclass(frozen=True)
class Shifts:
    """Columns of the same images under one attack."""

    prediction: Integers  # class of the highest logit at x*
    marginal: Floats  # E(x*)
    joint: Floats  # E(x*, y)
    delta_marginal: Floats  # dE(x) = E(x) - E(x*)
    delta_joint: Floats  # dE(x, y) = E(x, y) - E(x*, y)
    shift_norm: Floats  # ||[dE(x), dE(x, y)]||_2
    is_abnormal: Truths  # whether the attack lowered the loss (AAE)
    size: Floats  # |x* - x| in the norm of the threat model, in units of the pixel range


@dataclass(frozen=True)
class Paths:
    """Energies on the straight line from ``x`` through ``x*``, clamped to pixels.

    A row for each image at ``positions`` in ``Natural``, a column for each of ``TIMES``.
    """

    positions: Integers
    marginal: Floats  # E(x_t)
    joint: Floats  # E(x_t, y)


@dataclass(frozen=True)
class Radii:
    """Delta energies against the radius of the ball, in units of the pixel range.

    A row for each image at ``positions`` in ``Natural``, a column for each of ``eps``.
    """

    positions: Integers
    eps: Floats
    delta_marginal: Floats
    delta_joint: Floats


@dataclass(frozen=True)
class Landscape:
    """Energies of a network around images; shifts and paths by the name of the attack."""

    natural: Natural
    attacks: Mapping[str, Shifts]
    paths: Mapping[str, Paths]
    radii: Radii
    detection: Detection | None = None


def measure_landscape(
    net: nn.Module,
    evaluator: Evaluator,
    attacks: Mapping[str, Attack],
    radii: Mapping[float, Attack],
    *,
    ball: Ball,
    curves: int = 500,
    probe: Attack | None = None,
    ood: Mapping[str, Evaluator] | None = None,
) -> Landscape:
    """Measures the energies of every image.

    Args:
        net: The network.
        evaluator: The images.
        attacks: By name.
        radii: Attacks by the radius of their ball, for the delta energy against it.
        ball: Of ``attacks``; its norm measures the perturbations.
        curves: Paths and radii are measured on at most this many images, at equal distances.
        probe: The attack of the scores that detect images that are not natural; None for none.
        ood: Out-of-distribution images by name.

    Raises:
        ValueError: if the network returns anything but finite logits.
    """
    every = torch.arange(len(evaluator.images))
    chosen = every[:: -(-len(every) // curves)]
    with evaluator.evaluation_mode(net) as tiled:
        batches = batched(every, evaluator.batch_size)
        clean = [finite_logits(tiled, evaluator.batch(part)[0]).double().cpu() for part in batches]
        survey = _Survey(tiled, evaluator, torch.cat(clean), ball, probe)
        results = {name: survey.attack(name, attack, chosen) for name, attack in attacks.items()}
        detection = None
        if probe is not None:
            detection = Detection(
                survey.scores("natural", evaluator),
                {name: survey.scores(name, other) for name, other in (ood or {}).items()},
                {name: scores for name, (*_, scores) in results.items()},
            )
        few = replace(
            survey, evaluator=evaluator.take(chosen), clean=survey.clean[chosen], probe=None
        )
        swept = [few.attack(f"eps {eps:.3g}", attack)[0] for eps, attack in radii.items()]
    positions, eps = chosen.numpy(), np.array(list(radii), dtype=np.float64)
    deltas = [[s.delta_marginal for s in swept], [s.delta_joint for s in swept]]
    columns = (np.array(d).reshape(len(eps), len(positions)).T.copy() for d in deltas)
    return Landscape(
        survey.natural(),
        {name: shifts for name, (shifts, *_) in results.items()},
        {name: Paths(positions, *lines) for name, (_, lines, _) in results.items()},
        Radii(positions, eps, *columns),
        detection,
    )


@dataclass(frozen=True)
class _Survey:
    net: Tiled
    evaluator: Evaluator
    clean: Logits  # fp64, on the CPU
    ball: Ball
    probe: Attack | None

    def natural(self) -> Natural:
        labels = self.evaluator.images.labels.cpu()
        return Natural(
            np.array(self.evaluator.numbers, dtype=np.int64),
            _array(labels),
            _array(self.clean.argmax(1)),
            _array(energies.marginal_energy(self.clean)),
            _array(energies.joint_energy(self.clean, labels)),
        )

    def attack(
        self, name: str, attack: Attack, on_path: Labels | None = None
    ) -> tuple[Shifts, Floats, Scores]:
        """Shifts of all images, both energies on the paths of the images ``on_path``, scores."""
        shifts: list[Shifts] = []
        scores = [Scores.empty()]
        lines = [np.empty((2, 0, len(TIMES)))]
        for positions in self._batches(name, attack, shifts):
            x, y = self.evaluator.batch(positions)
            options = AttackOptions(generator=self.evaluator.noise(positions, 0))
            x_adv = attack.run(self.net, x, y, options).x_adv
            clean, adv = self.clean[positions].to(x.device), finite_logits(self.net, x_adv)
            pair = LogitPair(clean, adv.double(), y)
            columns = (
                pair.adv.argmax(1),
                energies.marginal_energy(pair.adv),
                energies.joint_energy(pair.adv, y),
                energies.delta_marginal(pair),
                energies.delta_joint(pair),
                energies.shift_norm(pair),
                energies.is_abnormal(pair),
                self._size(x_adv - x).double(),
            )
            shifts.append(Shifts(*map(_array, columns)))
            if self.probe is not None:
                noise = self.evaluator.noise(positions, 1)
                scores.append(scores_of(self.net, self.probe, x_adv, noise))
            if on_path is not None:
                wanted = torch.isin(positions, on_path).nonzero().flatten().to(x.device)
                blocks = batched(wanted, self.net.size)
                lines += [_lines(self.net, x[i], x_adv[i], y[i]) for i in blocks]
        whole = (np.concatenate([getattr(s, f.name) for s in shifts]) for f in fields(Shifts))
        return Shifts(*whole), np.concatenate(lines, axis=1), Scores.joined(scores)

    def scores(self, name: str, evaluator: Evaluator) -> Scores:
        """Scores of images that are not attacked before."""
        assert self.probe is not None
        parts, every = [], torch.arange(len(evaluator.images))
        with evaluator.bar(f"detection, {name}", len(every)) as bar:
            for positions in batched(every, evaluator.batch_size):
                x, _ = evaluator.batch(positions)
                noise = evaluator.noise(positions, 1)
                parts.append(scores_of(self.net, self.probe, x, noise))
                bar.update(len(positions))
        return Scores.joined(parts)

    def _batches(self, name: str, attack: Attack, done: Sequence[Shifts]) -> Iterator[Labels]:
        """Positions that are attacked at once; they change the result of a library attack."""
        together = isinstance(attack, LibraryAttack | WorstCase)
        every = torch.arange(len(self.clean))
        size = TOGETHER if together else self.evaluator.batch_size
        with self.evaluator.bar(name, len(every), left=", {remaining} left") as bar:
            for positions in batched(every, size):
                yield positions
                bar.update(len(positions))
                mean = np.concatenate([part.delta_marginal for part in done]).mean()
                bar.set_postfix_str(f"dE(x) {mean:+z.3f}", refresh=False)

    def _size(self, delta: Images) -> PerExample:
        order = float("inf") if isinstance(self.ball, Linf) else 2
        size: PerExample = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
        return size


def _lines(net: Tiled, x: Images, x_adv: Images, y: Labels) -> Floats:
    # All points of all paths together: a single path would not fill a tile.
    points = torch.cat([torch.lerp(x, x_adv, t) for t in TIMES]).clamp(0, 1)
    logits = finite_logits(net, points).double()
    both = [energies.marginal_energy(logits), energies.joint_energy(logits, y.repeat(len(TIMES)))]
    return _array(torch.stack(both).reshape(2, len(TIMES), len(x)).transpose(1, 2))


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array
