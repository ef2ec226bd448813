"""Energies and attacks against what is known of them in closed form, and what bf16 does to eps."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from energy_at.attacks import fgsm, pgd
from energy_at.attacks.threat import L2, Ball, Linf
from energy_at.core.types import Images, Logits
from energy_at.doctor.findings import Checks, Verdict, judged
from energy_at.doctor.trials import (
    batch,
    noise,
    on_every_device,
    one_thread,
    small_net,
    undisturbed,
)
from energy_at.energy.energies import (
    delta_joint,
    delta_marginal,
    joint_energy,
    marginal_energy,
    shift_norm,
)
from energy_at.energy.pair import LogitPair

NATS = 1e-4  # allowed rounding of energies at logits up to 100
ROUNDING = 1e-6  # of perturbations
LINF, L_TWO = Linf(8 / 255), L2(128 / 255)
CURE = "undo what was edited in energy_at/{}; if nothing was, pip install --force-reinstall torch"


def checks() -> Checks:
    """Checks of the mathematics."""
    return on_every_device({"energies": energies, "attacks": attacks, "bf16": bf16})


@one_thread()
def energies(device: torch.device) -> Verdict:
    """The identities between cross-entropy and energies, and gradients at the edge."""
    generator = torch.Generator().manual_seed(0)
    clean, adv = 5 * torch.randn((2, 64, 10), generator=generator).to(device)
    pair = LogitPair(clean, adv, torch.arange(64, device=device) % 10)
    off = {claim: _largest(error) for claim, error in _energy_errors(pair).items()}
    claims = {f"{claim} (off by {error:.1e} nats)": error <= NATS for claim, error in off.items()}
    for where, other in {"no shift": clean, "logits of 10,000": 1e4 * adv.sign()}.items():
        moved = clean.clone().requires_grad_()
        (grad,) = torch.autograd.grad(shift_norm(LogitPair(moved, other, pair.y)).sum(), moved)
        claims[f"the gradient of DER is finite at {where}"] = bool(grad.isfinite().all())
    said = f"{len(claims)} facts hold, identities to {max(off.values()):.1e} nats"
    return judged(claims, said, CURE.format("energy.py"))


@one_thread()
def attacks(device: torch.device) -> Verdict:
    """FGSM, an L2 step and PGD on a linear classifier, whose worst perturbations are known."""
    (x, y), weight = batch(device), _weight(device)
    worst = torch.where(y == 0, -1.0, 1.0)[:, None, None, None] * weight

    def model(images: Images) -> Logits:
        score = (images * weight).flatten(1).sum(1)
        return torch.stack([score, -score], 1)

    found = {ball: pgd(ball)(model, x, y, generator=noise(device)).x_adv for ball in (LINF, L_TWO)}
    inner = 0.25 + x / 2  # so far from 0 and 1 that no step is clipped
    corner = (x + LINF.eps * worst.sign()).clamp(0, 1)
    along = L_TWO.eps * worst / worst.flatten(1).norm(dim=1)[:, None, None, None]
    errors = {
        "FGSM is x + eps sign(w)": fgsm(LINF)(model, x, y).x_adv - corner,
        "a step in L2 is x + eps w / |w|": fgsm(L_TWO)(model, inner, y).x_adv - inner - along,
        "PGD ends in the corner of the Linf ball": found[LINF] - corner,
    }
    off = {claim: _largest(error) for claim, error in errors.items()}
    claims = {f"{claim} (off by {error:.1e})": error <= ROUNDING for claim, error in off.items()}
    for ball, x_adv in found.items():
        claims |= _stays(f"PGD in {ball}", ball, x, x_adv)
    excess = max(_excess(ball, x, x_adv) for ball, x_adv in found.items())
    said = f"FGSM, L2 step and PGD as calculated; beyond eps only rounding ({excess:.0e})"
    return judged(claims, said, CURE.format("threat.py and energy_at/attacks"))


@one_thread()
def bf16(device: torch.device) -> Verdict:
    """What eps would become in bf16 images, and that it stays what it is under bf16 autocast."""
    eps = eps_in_bf16(LINF.eps, device)
    claims = {f"bf16 rounds 8/255 to between 8 and 9 (to {255 * eps:.2f})": 8 < 255 * eps <= 9}
    (x, y), seen, excess = batch(device), [], 0.0
    with undisturbed():
        net = small_net(device).eval()
    net.net.register_forward_hook(lambda _, __, logits: seen.append(logits.dtype))
    for ball in (LINF, L_TWO):
        for name, attack in {"FGSM": fgsm(ball), "PGD": pgd(ball)}.items():
            with torch.autocast(device.type, dtype=torch.bfloat16):
                x_adv = attack(net, x, y, generator=noise(device)).x_adv
            claims[f"{name} returns fp32 images, not {x_adv.dtype}"] = x_adv.dtype == torch.float32
            claims |= _stays(f"{name} in {ball} under bf16", ball, x, x_adv)
            excess = max(excess, _excess(ball, x, x_adv))
    claims["autocast runs the network in bf16"] = set(seen) == {torch.bfloat16}
    said = (
        f"bf16 images would make 8/255 up to {255 * eps:.2f}/255; "
        f"under autocast only rounding is beyond eps ({excess:.0e})"
    )
    return judged(claims, said, "use trainer.precision=32-true on this device")


def eps_in_bf16(eps: float, device: torch.device) -> float:
    """The largest change that a network sees which is given ``x`` and ``x + eps`` in bf16."""
    pixels = torch.linspace(0, 1 - eps, 2**16, device=device)
    return _largest((pixels + eps).bfloat16().float() - pixels.bfloat16().float())


def _energy_errors(pair: LogitPair) -> dict[str, Tensor]:
    """What each identity is off by, example by example."""
    clean, y, c = pair.clean, pair.y, 50.0
    ce, ce_adv = (F.cross_entropy(logits, y, reduction="none") for logits in (clean, pair.adv))
    marginal, joint = marginal_energy(clean), joint_energy(clean, y)
    flat, extreme = torch.zeros_like(clean), 1e30 * torch.eye(10, device=clean.device)
    return {
        "CE = E(x, y) - E(x)": ce - (joint - marginal),
        "CE(x*) - CE(x) = dE(x) - dE(x, y)": ce_adv - ce - delta_marginal(pair) + delta_joint(pair),
        "logits + c move E(x) by -c": marginal_energy(clean + c) - marginal + c,
        "logits + c move E(x, y) by -c": joint_energy(clean + c, y) - joint + c,
        "10 logits of 0 have E(x) = -log 10": marginal_energy(flat) + math.log(10),
        "a logit of 1e30 has E(x) = -1e30": marginal_energy(extreme) / 1e30 + 1,
    }


def _weight(device: torch.device) -> Tensor:
    """Of a linear classifier: of either sign, none near 0, too small to saturate the softmax."""
    draw = 2 * torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(1)) - 1
    return (draw.sign() * (0.01 + 0.01 * draw.abs())).to(device)


def _stays(what: str, ball: Ball, x: Images, x_adv: Images) -> dict[str, bool]:
    reach = _reach(ball, x, x_adv)
    return {
        f"{what} goes to its border and no further (goes {reach:.6f})": 0.9 * ball.eps
        <= reach
        <= ball.eps + ROUNDING,
        f"{what} stays in [0, 1]": bool(((x_adv >= 0) & (x_adv <= 1)).all()),
    }


def _excess(ball: Ball, x: Images, x_adv: Images) -> float:
    return max(0.0, _reach(ball, x, x_adv) - ball.eps)


def _reach(ball: Ball, x: Images, x_adv: Images) -> float:
    """The largest norm of a perturbation, in fp64."""
    order = math.inf if isinstance(ball, Linf) else 2
    delta = (x_adv.double() - x.double()).flatten(1)
    return float(torch.linalg.vector_norm(delta, order, dim=1).max())


def _largest(error: Tensor) -> float:
    return float(error.abs().max())
