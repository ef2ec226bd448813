"""Training objectives: named, weighted sums of per-example terms."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from energy_at.core.distributed import Part
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import Noise
from energy_at.core.rules import TRUTH, Rule, an, or_null, require, require_takes
from energy_at.core.types import (
    A_CLASSIFIER,
    Classifier,
    Images,
    Labels,
    PerExample,
    Scalar,
    labels_of,
    require_images,
    require_indices,
)
from energy_at.energy.pair import A_PAIR, LogitPair

_MEAN = "and leave the mean to the objective"
NO_GRADIENT = (
    "returns values without a gradient, and would train nothing: look for no_grad or detach in "
    "it, or leave it out"
)
PROBED = 256  # random pairs that a term is tried on


class Trait(Flag):
    """What a term needs: no step computes more than its terms read."""

    NONE = 0
    READS_CLEAN = auto()
    """It reads the clean logits."""
    TRAINS_CLEAN = auto()
    """Its gradient must reach the clean logits."""
    READS_START = auto()
    """It reads the logits of ``x + eta``, the attack's first point."""
    TRAINS_START = auto()
    """Its gradient must reach the logits of ``x + eta``."""
    FITS_CLEAN = auto()
    """It fits the clean images, so the running statistics of batch norm follow them too."""
    FLAT_AT_ZERO = auto()
    """It is never negative, and its gradient is 0 wherever it is 0."""
    DIFFERENTIATES_TWICE = auto()
    """Its value depends on input gradients."""


UNDECLARED = Trait.READS_CLEAN | Trait.TRAINS_CLEAN  # traits of a term that has none


@runtime_checkable
class Term(Protocol):
    """A loss of each example, from its pair of logits.

    Its attribute ``traits`` says what it needs; without one it is ``UNDECLARED``.
    """

    def __call__(self, pair: LogitPair) -> PerExample:
        """The loss of each example, in nats."""


@dataclass(frozen=True)
class Vicinity:
    """The network around a batch of clean images, for terms with forward passes of their own.

    Attributes:
        model: The network, in training mode.
        x: Clean images.
        y: Their labels.
        generator: Source of all noise.
        clean_grad: Gradient of the cross-entropy at ``x``, up to a positive factor, where the
            attack has computed it.
        part: The share of the batch that these images are; ``None`` for all of it.
    """

    model: Classifier
    x: Images
    y: Labels
    generator: Noise | None = None
    clean_grad: Images | None = None
    part: Part | None = None

    def __post_init__(self) -> None:
        require(A_CLASSIFIER, model=self.model)
        require_images(self.x)
        require_indices(self.y, len(self.x))

    def joined(self, own: PerExample) -> Tensor:
        """Values of the whole batch, where other processes work on the rest of it."""
        return own if self.part is None else self.part.joined(own)


@runtime_checkable
class Probe(Protocol):
    """A loss of each example, from forward passes of its own near the clean image.

    It leaves the running statistics of batch norm as they are.
    """

    @property
    def traits(self) -> Trait:
        """What the probe needs from the pair."""

    def probe(self, vicinity: Vicinity) -> PerExample:
        """The loss of each example, of the whole batch where several processes share it."""


A_TERM = Rule(
    "a term, such as TradesKL()", lambda v: isinstance(v, Term) and not isinstance(v, type)
)
A_TERM_OR_PROBE = Rule(
    "a term or a probe, such as TradesKL()",
    lambda v: isinstance(v, Term | Probe) and not isinstance(v, type),
)


@runtime_checkable
class Stateful(Protocol):
    """A term with a state that checkpoints must contain."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state."""


@dataclass(frozen=True)
class Weighted:
    """A term and its coefficient in the objective.

    Args:
        term: The loss of each example.
        weight: Its coefficient; 0 leaves the term out altogether.
        ramp_epochs: Epochs over which the coefficient rises linearly from 0; 0 for none.
    """

    term: Term | Probe
    weight: float = 1.0
    ramp_epochs: float = 0.0

    def __post_init__(self) -> None:
        require(A_TERM_OR_PROBE, term=self.term)
        require_ranges("objectives.Weighted", self)

    def at(self, epoch: float) -> float:
        """The coefficient after ``epoch`` (fractional) epochs."""
        return self.weight * min(1.0, epoch / self.ramp_epochs) if self.ramp_epochs else self.weight


TERMS = Rule(
    'a dictionary of weighted terms, such as {"der": Weighted(DER("all"), 20.0)}',
    lambda value: (
        isinstance(value, Mapping)
        and all(isinstance(key, str) for key in value)
        and all(isinstance(one, Weighted) for one in value.values())
    ),
)


def traits_of(term: Term | Probe) -> Trait:
    traits: Trait = getattr(term, "traits", UNDECLARED)
    return traits


def observed_traits(
    term: Term, classes: int, device: torch.device | str = "cpu"
) -> tuple[Trait, float]:
    """Which logits a term reads and trains, and its least value, on random pairs.

    Their shifts are 0.01 to 100 nats. The term's state and the global generator stay as they are.

    Raises:
        ValueError: if it does not return one value for each example, with a gradient.
    """
    generator = torch.Generator().manual_seed(0)
    shifts = torch.logspace(-2, 2, PROBED)[:, None]
    draw = partial(torch.randn, PROBED, classes, generator=generator)
    adv, y = 3 * draw(), torch.randint(classes, (PROBED,), generator=generator).to(device)
    logits = {"adv": adv.to(device).requires_grad_()}
    for name in ("clean", "start"):
        logits[name] = (adv + shifts * draw()).to(device).requires_grad_()

    def value(**changed: Tensor) -> Any:  # of somebody else
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(0)
            return copy.deepcopy(term)(LogitPair(y=y, **logits | changed))

    values, found = value(), Trait.NONE
    if not isinstance(values, Tensor) or values.shape != y.shape:
        got = f"values of shape {tuple(values.shape)}" if isinstance(values, Tensor) else ""
        raise ValueError(
            f"the term {type(term).__name__} returns {got or f'a {type(values).__name__}'} for "
            f"{PROBED} examples: it must return one for each, {_MEAN}"
        )
    if not values.requires_grad:
        raise ValueError(f"the term {type(term).__name__} {NO_GRADIENT}")
    wanted = {"clean": Trait.TRAINS_CLEAN, "start": Trait.TRAINS_START}
    sources = [logits[name] for name in wanted]
    grads = torch.autograd.grad(values.sum(), sources, allow_unused=True)
    for trait, grad in zip(wanted.values(), grads, strict=True):
        found |= trait if grad is not None and bool(grad.any()) else Trait.NONE
    for name, trait in {"clean": Trait.READS_CLEAN, "start": Trait.READS_START}.items():
        other = value(**{name: (adv + shifts * draw()).to(device)})
        found |= Trait.NONE if torch.equal(values.nan_to_num(), other.nan_to_num()) else trait
    return found, float(values.detach().min())


@dataclass(frozen=True)
class Losses:
    """The value of an objective on a batch, and of each weighted term (without graph)."""

    total: Scalar
    parts: Mapping[str, Scalar]


class Objective:
    """``sum_k weight_k * mean(term_k)`` over a batch; the only place that takes the mean.

    A term of weight 0 is dropped, so that it costs nothing and changes no bit of the training.

    Args:
        terms: The terms by name.
        skip_flat: Leave a term out of the graph when it is 0 and flat there, which saves the
            backward pass through what only it reads. Finding out waits for the device.

    Raises:
        ValueError: if no term has a positive weight.
    """

    def __init__(self, terms: Mapping[str, Weighted], *, skip_flat: bool = False) -> None:
        require(TERMS, terms=terms)
        require(TRUTH, skip_flat=skip_flat)
        self.terms = {name: w for name, w in terms.items() if w.weight > 0}
        self.skip_flat = skip_flat
        self._untried: set[str] = set()  # probes that have to show a gradient
        if not self.terms:
            zero = f": {next(iter(terms))} has weight 0" if terms else ""
            raise ValueError(f"an objective needs at least one term with a positive weight{zero}")

    @property
    def traits(self) -> Trait:
        traits = Trait.NONE
        for weighted in self.terms.values():
            traits |= traits_of(weighted.term)
        return traits

    def require_traits(self, classes: int, device: torch.device | str = "cpu") -> None:
        """Raises ``ValueError`` for a term that reads or trains logits which it does not declare.

        It would be trained on constants, without a word. Every term is tried on random logits, and
        must return one value for each example.
        """
        for name, weighted in self.terms.items():
            term = weighted.term
            if isinstance(term, Probe):
                self._untried.add(name)  # it needs images
                continue
            who = f"the term {name} ({type(term).__name__})"
            require_takes(term, who, "a LogitPair alone")
            declared, (found, least) = traits_of(term), observed_traits(term, classes, device)
            single = [trait for trait in Trait if trait]
            if missing := found & ~declared:
                does = [str(t.name).lower().replace("_", " ") for t in single if t in missing]
                needed = [f"Trait.{t.name}" for t in single if t in declared | found]
                raise ValueError(
                    f"{who} {' and '.join(does)} logits undeclared: "
                    f"give it traits = {' | '.join(needed)}"
                )
            if least < 0 and Trait.FLAT_AT_ZERO in declared:
                raise ValueError(f"{who} is negative: take Trait.FLAT_AT_ZERO from its traits")

    def __call__(
        self, pair: LogitPair, epoch: float = float("inf"), vicinity: Vicinity | None = None
    ) -> Losses:
        """Its value on a batch, ``epoch`` (fractional) epochs into the training.

        Without a ``vicinity`` it is the value of the terms that read the pair only.
        """
        require(A_PAIR, pair=pair)
        require(or_null(A_VICINITY), vicinity=vicinity)
        parts, live = {}, []
        for name, weighted in self.terms.items():
            term = weighted.term
            if not isinstance(term, Probe):
                with labels_of(pair.y, pair.adv.shape[1]):
                    values = term(pair)
            elif vicinity is not None:
                values = self._of_probe(name, term, vicinity)
            else:
                continue
            part = weighted.at(epoch) * values.mean()
            parts[name] = part.detach()
            may_be_flat = self.skip_flat and Trait.FLAT_AT_ZERO in traits_of(term)
            if not may_be_flat or bool(part):
                live.append(part)
        return Losses(torch.stack(live or [pair.adv.sum() * 0]).sum(), parts)

    def _of_probe(self, name: str, probe: Probe, vicinity: Vicinity) -> PerExample:
        values: Any = probe.probe(vicinity)
        if not isinstance(values, Tensor) or values.ndim != 1:
            raise ValueError(f"the probe {name} must return one value for each example, {_MEAN}")
        if name in self._untried and not values.requires_grad:
            raise ValueError(f"the probe {name} {NO_GRADIENT}")
        self._untried.discard(name)
        return values

    def state_dict(self) -> dict[str, Any]:
        return {name: term.state_dict() for name, term in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, term in self._stateful().items():
            if name in state:
                term.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Stateful]:
        return {n: w.term for n, w in self.terms.items() if isinstance(w.term, Stateful)}


A_VICINITY = an(Vicinity, "a Vicinity(model, x, y)")
AN_OBJECTIVE = an(Objective, 'an Objective, such as Objective({"kl": Weighted(TradesKL())})')
