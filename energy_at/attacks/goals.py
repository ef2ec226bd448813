"""What an attack raises: a goal binds a batch and returns a function of the logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F

from energy_at.core.rules import one_of, require
from energy_at.core.types import Classifier, Images, Labels, Logits, PerExample
from energy_at.models.modes import no_graph

Gain = Callable[[Logits], PerExample]
Goal = Callable[[Classifier, Images, Labels], Gain]


def misclassify(_: Classifier, __: Images, y: Labels) -> Gain:
    """Cross-entropy to the label, in nats (Madry et al., 2018, eq. 2.1)."""
    return lambda logits: F.cross_entropy(logits, y, reduction="none")


def leave_clean_prediction(model: Classifier, x: Images, _: Labels) -> Gain:
    """``KL(p(.|x) || p(.|x*))``, in nats; ``p(.|x)`` is computed once (Zhang et al., 2019)."""
    with no_graph():
        log_p = model(x).to(x.dtype).log_softmax(1)  # in fp32 under autocast too
    return lambda logits: F.kl_div(
        logits.log_softmax(1), log_p, log_target=True, reduction="none"
    ).sum(1)


def widen_margin(_: Classifier, __: Images, y: Labels) -> Gain:
    """``max_{k != y} f_k - f_y``, positive once misclassified (Carlini & Wagner, 2017, f6)."""

    def gain(logits: Logits) -> PerExample:
        right = logits.gather(1, y[:, None]).squeeze(1)
        others = logits.scatter(1, y[:, None], -float("inf"))
        return others.amax(1) - right

    return gain


Target = Literal["likeliest", "least_likely", "next"]


@dataclass(frozen=True)
class ReachTarget:
    """``log p(t|x*)``, in nats, of a wrong class ``t`` chosen once (Kurakin et al., 2017).

    Args:
        target: The wrong class that is the ``"likeliest"`` or the ``"least_likely"`` at ``x``, or
            the ``"next"`` one, ``(y + 1) mod K``.
    """

    target: Target = "least_likely"

    def __post_init__(self) -> None:
        require("target", self.target, one_of(*get_args(Target)))

    def __call__(self, model: Classifier, x: Images, y: Labels) -> Gain:
        target = self._choose(model, x, y)
        return lambda logits: -F.cross_entropy(logits, target, reduction="none")

    def _choose(self, model: Classifier, x: Images, y: Labels) -> Labels:
        with no_graph():
            logits = model(x)
        if self.target == "next":
            return (y + 1) % logits.shape[1]
        sign = 1 if self.target == "likeliest" else -1
        return (sign * logits).scatter(1, y[:, None], -float("inf")).argmax(1)
