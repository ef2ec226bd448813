"""Attacks of other libraries and of the user: ``(model, x, y) -> x_adv``, whose images are checked.

They draw from the global generators of torch, NumPy and Python, which are seeded before a call and
restored after it.
"""

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from energy_at.attacks.base import TOLERANCE, Attack, AttackOptions, AttackResult
from energy_at.attacks.threat import A_BALL, L2, Ball, Linf, clip_to_pixels
from energy_at.core.rules import FUNCTION, integer, require, require_takes
from energy_at.core.types import Classifier, Images, Labels
from energy_at.models.modes import frozen_parameters, frozen_running_stats

Search = Callable[..., Tensor]  # (model, x, y), with keywords eps and norm if it names them


@dataclass(frozen=True)
class CustomAttack(Attack):
    """An attack of somebody else, on one block of images.

    A call raises ``ValueError`` unless all images lie in the ball and in [0, 1], and the network
    keeps its weights; roundings are removed, and modes restored.

    Args:
        ball: Threat model, Linf or L2. The search gets its radius as ``eps`` and ``linf`` or
            ``l2`` as ``norm`` if it has arguments of these names.
        search: Takes the network, images in [0, 1] and labels; returns adversarial images.
        name: For messages.
    """

    ball: Ball
    search: Search
    name: str = "attack"
    steps: int = 1  # as far as is known
    searches_together: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(A_BALL, ball=self.ball)
        require(FUNCTION, search=self.search)
        require(integer(1), steps=self.steps)
        require_takes(self.search, f"attack.{self.name}", "model", "x", "y", **self._known())

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        seed = 0 if options.generator is None else options.generator.initial_seed() % 2**32
        with (
            self._unchanged(model),
            frozen_running_stats(model),
            frozen_parameters(model),
            _seeded(seed, x.device),
            torch.enable_grad(),
        ):
            found = self.search(model, x.clone().contiguous(), y.clone(), **self._known())
        return AttackResult(self._checked(x, found))

    @contextmanager
    def _unchanged(self, model: Classifier) -> Iterator[None]:
        """Restores the modes of a network; raises ``ValueError`` if its weights change."""
        if not isinstance(model, nn.Module):
            yield
            return
        modes = {module: module.training for module in model.modules()}
        before = {key: value.clone() for key, value in model.state_dict().items()}
        yield
        for module, training in modes.items():
            module.training = training
        for key, value in model.state_dict().items():
            if not torch.equal(value, before[key]):
                raise ValueError(f"{self.name} must leave the network as it is: it changes {key}")

    def _known(self) -> dict[str, Any]:
        norm = "linf" if isinstance(self.ball, Linf) else "l2"
        try:
            named = inspect.signature(self.search).parameters
        except ValueError:  # a function in C
            return {}
        return {k: v for k, v in {"eps": self.ball.eps, "norm": norm}.items() if k in named}

    def _checked(self, x: Images, found: Any) -> Images:
        if not isinstance(found, Tensor) or found.shape != x.shape:
            got = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found)
            raise ValueError(f"{self.name} must return images of shape {tuple(x.shape)}, got {got}")
        x_adv = found.detach().to(x)
        delta = x_adv - x
        order = 2 if isinstance(self.ball, L2) else float("inf")
        size = torch.linalg.vector_norm(delta.double().flatten(1), ord=order, dim=1)
        beyond = (-x_adv).maximum(x_adv - 1).flatten(1).amax(1)
        self._require("finite", ~torch.isfinite(size), size)
        ball = f"in the {type(self.ball).__name__} ball of {self.ball.eps:.6g}"
        self._require(ball, size > self.ball.eps + TOLERANCE, size - self.ball.eps)
        self._require("in [0, 1]", beyond > TOLERANCE, beyond)
        return (x + clip_to_pixels(x, self.ball.project(delta))).clamp(0, 1)

    def _require(self, what: str, broken: Tensor, excess: Tensor) -> None:
        if broken.any():
            by = f", by up to {float(excess[broken].max()):.3g}" if what != "finite" else ""
            raise ValueError(
                f"{self.name} must return images that are {what}: {int(broken.sum())} of "
                f"{len(broken)} are not{by}"
            )

    def scaled(self, factor: float) -> "CustomAttack":
        return replace(self, ball=self.ball.scaled(factor))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global generators, and restores them."""
    numbers, words = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numbers)
            random.setstate(words)
