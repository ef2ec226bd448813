"""What an attack raises: a goal binds a batch and returns a function of the logits."""

from collections.abc import Callable

import torch.nn.functional as F

from energy_at.modes import no_graph
from energy_at.shapes import Classifier, Images, Labels, Logits, PerExample

Gain = Callable[[Logits], PerExample]
Goal = Callable[[Classifier, Images, Labels], Gain]


def misclassify(_: Classifier, __: Images, y: Labels) -> Gain:
    """Cross-entropy to the label, in nats (Madry et al., 2018, eq. 2.1)."""
    return lambda logits: F.cross_entropy(logits, y, reduction="none")


def leave_clean_prediction(model: Classifier, x: Images, _: Labels) -> Gain:
    """``KL(p(.|x) || p(.|x*))``, in nats; ``p(.|x)`` is computed once (Zhang et al., 2019)."""
    with no_graph():
        log_p = model(x).log_softmax(1)
    return lambda logits: F.kl_div(
        logits.log_softmax(1), log_p, log_target=True, reduction="none"
    ).sum(1)
