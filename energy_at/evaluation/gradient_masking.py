"""What an evaluation finds out about itself: whether its attacks could have seen enough.

After Athalye et al. (2018), Carlini et al. (2019), and the flags of AutoAttack (Croce & Hein,
2020). A warning does not change a number: it says why the number may be too high.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from energy_at.core.types import Images, Labels, Logits, PerExample
from energy_at.evaluation.robustness import Exam, Mask
from energy_at.models.modes import eval_mode, full_precision, no_graph

LOOKED_AT = 250  # images, whatever the batch size
SATURATED = 16.6  # nats: beyond this gap 1 - p(y|x) is below the resolution of fp32


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        passed: ``None`` if it could not be looked at.
        finding: What was measured.
        meaning: What a failure means, or why it was not looked at.
    """

    name: str
    passed: bool | None
    finding: str
    meaning: str


def network_checks(net: nn.Module, exam: Exam) -> list[Check]:
    """Looks at outputs and gradients of the network, on the first 250 images."""
    net = exam.tiled(net)
    positions = torch.arange(min(LOOKED_AT, len(exam.images)))
    with eval_mode(net), full_precision(exam.images.labels.device.type):
        parts = positions.split(exam.batch_size)
        seen = [_seen(net, *exam.batch(part)) for part in parts]
    logits, again, slopes, right = (torch.cat(found) for found in zip(*seen, strict=True))
    return [
        _deterministic(logits, again),
        _are_logits(logits),
        _gradients(slopes, right),
        _scale(logits),
    ]


@torch.enable_grad()
def _seen(net: nn.Module, x: Images, y: Labels) -> tuple[Logits, Logits, PerExample, Tensor]:
    """Logits, again, the largest entry of the gradient, and whether the image is right."""
    point = x.clone().requires_grad_()
    outputs = net(point)
    loss = F.cross_entropy(outputs, y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, point)
    with no_graph():
        again = net(x)
    logits = outputs.detach()
    return logits, again, grad.flatten(1).abs().amax(1), logits.argmax(1) == y


def _deterministic(logits: Logits, again: Logits) -> Check:
    difference = float((logits - again).abs().max())
    return Check(
        "deterministic forward",
        difference <= 1e-4 * max(1.0, float(logits.abs().max())),
        f"two forward passes differ by {difference:.2g}",
        "the network draws random numbers: average its gradients (expectation over "
        "transformations), or its accuracy is overstated",
    )


def _are_logits(logits: Logits) -> Check:
    sums, low = logits.sum(1), float(logits.min())
    probabilities = low >= -1e-5 and bool(((sums - 1).abs() < 1e-4).all())
    return Check(
        "outputs are logits",
        not probabilities,
        f"outputs from {low:.3g} to {float(logits.max()):.3g}, "
        f"sums from {float(sums.min()):.3g} to {float(sums.max()):.3g}",
        "the network returns probabilities: energies are meaningless and gradients vanish; "
        "take its logits",
    )


def _gradients(slopes: PerExample, right: Tensor) -> Check:
    n, total = int(((slopes == 0) & right).sum()), int(right.sum())
    return Check(
        "input gradients",
        n == 0,
        f"zero for {n} of {total} images that are right",
        "gradient attacks on the cross-entropy cannot move these images: judge by cw, apgd_dlr "
        "and square as well",
    )


def _scale(logits: Logits) -> Check:
    top = logits.topk(2, dim=1).values
    gaps = top[:, 0] - top[:, 1]
    share = float((gaps > SATURATED).float().mean())
    return Check(
        "scale of the logits",
        share < 0.1,
        f"root mean square {float(logits.square().mean().sqrt()):.3g}, gap between the two "
        f"likeliest classes {float(gaps.median()):.3g} nats (median), "
        f"beyond fp32 for {100 * share:.1f} %",
        "the softmax saturates: the cross-entropy has nearly no gradient left; judge by cw or "
        "apgd_dlr, which do not see the scale",
    )


def stronger(outcomes: Mapping[str, Mask], weak: str, strong: str, eps: str) -> Check:
    """Whether the stronger of two white-box attacks breaks at least as many images.

    A difference that chance could make (sign test, 5 %) is no warning.
    """
    by_weak, by_strong = outcomes[weak], outcomes[strong]
    names = [name.split("@")[0].upper() for name in (strong, weak)]
    return Check(
        f"{names[0]} stronger than {names[1]} at {eps}",
        not _breaks_more(by_weak, by_strong),
        f"{int(by_strong.sum())} images right under {names[0]}, {int(by_weak.sum())} under "
        f"{names[1]}; {int((~by_weak & by_strong).sum())} broken by {names[1]} alone",
        "one step beats many: gradients are masked and the accuracy is overstated; judge by "
        "autoattack",
    )


def black_box(white: Mask, black: Mask, eps: str) -> Check:
    """Whether a black-box attack breaks no more images than the white-box ones together.

    A difference that chance could make (sign test, 5 %) is no warning.
    """
    return Check(
        f"white box stronger than black box at {eps}",
        not _breaks_more(black, white),
        f"of {len(white)} images, {int(white.sum())} right under the white-box attacks, "
        f"{int(black.sum())} under Square; {int((white & ~black).sum())} broken by Square alone",
        "an attack that sees no gradient beats those that do: they are too weak for this network, "
        "or its gradients are masked; the accuracy is overstated, judge by cw and autoattack",
    )


def _breaks_more(one: Mask, other: Mask) -> bool:
    """Whether the first attack alone breaks more images than the second alone, beyond chance."""
    alone, of_other = int((~one & other).sum()), int((one & ~other).sum())
    if alone <= of_other:
        return False
    return bool(binomtest(alone, alone + of_other, alternative="greater").pvalue < 0.05)
