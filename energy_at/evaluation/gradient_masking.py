"""Checks for gradient masking: whether the attacks of an evaluation are strong enough.

After Athalye et al. (2018), Carlini et al. (2019), and the flags of AutoAttack (Croce & Hein,
2020). A warning changes no number: it says why the number may be too high.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from energy_at.attacks import LibraryAttack
from energy_at.attacks.autoattack import EXTRA, is_installed
from energy_at.attacks.registry import LABELS, AttackKey
from energy_at.attacks.threat import Ball
from energy_at.core.extras import install
from energy_at.core.types import Images, Labels, Logits, PerExample
from energy_at.evaluation.robustness import Evaluator, Mask
from energy_at.models.modes import no_graph

CHECKED_IMAGES = 250  # whatever the batch size
SATURATED = 16.6  # nats: beyond this margin 1 - p(y|x) is below the resolution of fp32
BLACK_BOX_IMAGES, BLACK_BOX_QUERIES = 200, 1000
BLACK_BOX = "white box stronger than black box at {}"
WITH_BLACK_BOX = ("square", "autoattack")  # not white-box attacks alone


@dataclass(frozen=True)
class Check:
    """A check and its result."""

    name: str
    passed: bool | None  # None if the check was not run
    finding: str  # what was measured
    meaning: str  # what a failure means, or why the check was not run


def network_checks(net: nn.Module, evaluator: Evaluator) -> list[Check]:
    """Checks outputs and input gradients of the network on the first 250 images."""
    parts = torch.arange(min(CHECKED_IMAGES, len(evaluator.images))).split(evaluator.batch_size)
    with evaluator.evaluation_mode(net) as tiled:
        found = [_forward_twice(tiled, *evaluator.batch(part)) for part in parts]
    logits, again, slopes, correct = (torch.cat(values) for values in zip(*found, strict=True))
    difference = float((logits - again).abs().max())
    low, high, sums = float(logits.min()), float(logits.max()), logits.sum(1)
    are_probabilities = low >= -1e-5 and bool(((sums - 1).abs() < 1e-4).all())
    without_gradient = int(((slopes == 0) & correct).sum())
    first, second = logits.topk(2, dim=1).values.unbind(1)
    margins = first - second
    saturated = float((margins > SATURATED).float().mean())
    return [
        Check(
            "deterministic forward",
            difference <= 1e-4 * max(1.0, float(logits.abs().max())),
            f"two forward passes differ by {difference:.2g}",
            "the network draws random numbers: average its gradients over them with eot=10 "
            "(expectation over transformation), or its accuracy is overstated",
        ),
        Check(
            "outputs are logits",
            not are_probabilities,
            f"outputs from {low:.3g} to {high:.3g}, "
            f"sums from {float(sums.min()):.3g} to {float(sums.max()):.3g}",
            "the network returns probabilities: energies are meaningless and gradients vanish; "
            "take its logits",
        ),
        Check(
            "input gradients",
            without_gradient == 0,
            f"zero for {without_gradient} of {int(correct.sum())} correctly classified images",
            "gradient attacks on the cross-entropy cannot move these images: evaluate with cw, "
            "apgd_dlr and square as well",
        ),
        Check(
            "scale of the logits",
            saturated < 0.1,
            f"root mean square {float(logits.square().mean().sqrt()):.3g}, margin of the most "
            f"likely class {float(margins.median()):.3g} nats (median), "
            f"beyond fp32 for {100 * saturated:.1f} %",
            "the softmax saturates: the cross-entropy has nearly no gradient left; evaluate with "
            "cw or apgd_dlr, which do not depend on the scale",
        ),
    ]


def attack_checks(
    net: nn.Module,
    evaluator: Evaluator,
    balls: Mapping[str, Ball],
    correct: Mapping[AttackKey, Mask],
) -> list[Check]:
    """Checks at every radius that stronger attacks break more images than weaker ones."""
    checks = []
    for eps, ball in balls.items():
        fgsm, pgd = AttackKey("fgsm", eps), AttackKey("pgd", eps)
        if {fgsm, pgd} <= set(correct):
            checks.append(stronger(correct, fgsm, pgd))
        keys = [k for k in correct if k.eps == eps and k.name not in WITH_BLACK_BOX]
        if keys and is_installed():
            first = torch.arange(min(BLACK_BOX_IMAGES, len(evaluator.images)))
            key = AttackKey("black box", eps)
            square = LibraryAttack(ball, "square", queries=BLACK_BOX_QUERIES)
            black = evaluator.take(first).correct(net, {key: square})[key]
            white = torch.stack([correct[k] for k in keys]).all(0)
            checks.append(black_box(white[first], black, eps))
        else:
            needs = "a white-box attack, such as attacks=[pgd]"
            if keys:
                needs = f"the AutoAttack library: {install(EXTRA)}"
            checks.append(Check(BLACK_BOX.format(eps), None, "not run", f"needs {needs}"))
    return checks


def black_box_passes(images: int) -> float:
    """Passes of the black-box check of ``images`` images at a single radius, at most."""
    return min(BLACK_BOX_IMAGES, images) * BLACK_BOX_QUERIES / 3 if is_installed() else 0.0


def stronger(correct: Mapping[AttackKey, Mask], weak: AttackKey, strong: AttackKey) -> Check:
    """Whether the stronger of two white-box attacks breaks at least as many images."""
    by_weak, by_strong = correct[weak], correct[strong]
    names = [LABELS[key.name] for key in (strong, weak)]
    return Check(
        f"{names[0]} stronger than {names[1]} at {weak.eps}",
        not _breaks_more(by_weak, by_strong),
        f"{int(by_strong.sum())} images correct under {names[0]}, {int(by_weak.sum())} "
        f"under {names[1]}; {int((~by_weak & by_strong).sum())} broken by {names[1]} alone",
        "one step beats many: gradients are masked and the accuracy is overstated; evaluate with "
        "autoattack",
    )


def black_box(white: Mask, black: Mask, eps: str) -> Check:
    """Whether a black-box attack breaks no more images than the white-box ones together."""
    return Check(
        BLACK_BOX.format(eps),
        not _breaks_more(black, white),
        f"of {len(white)} images, {int(white.sum())} correct under the white-box attacks, "
        f"{int(black.sum())} under Square; {int((white & ~black).sum())} broken by Square alone",
        "an attack without gradients beats those with gradients: they are too weak for this "
        "network, or its gradients are masked; the accuracy is overstated, evaluate with cw and "
        "autoattack",
    )


@torch.enable_grad()
def _forward_twice(
    net: nn.Module, x: Images, y: Labels
) -> tuple[Logits, Logits, PerExample, Tensor]:
    """Logits, logits again, largest entry of the input gradient, and whether y is predicted."""
    point = x.clone().requires_grad_()
    outputs = net(point)
    loss = F.cross_entropy(outputs, y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, point)
    with no_graph():
        again = net(x)
    logits = outputs.detach()
    return logits, again, grad.flatten(1).abs().amax(1), logits.argmax(1) == y


def _breaks_more(one: Mask, other: Mask) -> bool:
    """Whether the first attack alone breaks more images than the second alone.

    A difference that chance explains (sign test, 5 %) does not count.
    """
    alone, of_other = int((~one & other).sum()), int((one & ~other).sum())
    if alone <= of_other:
        return False
    return bool(binomtest(alone, alone + of_other, alternative="greater").pvalue < 0.05)
