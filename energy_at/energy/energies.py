r"""Energies of a classifier read as an energy-based model (Grathwohl et al., 2020).

With logits ``f(x)``, the joint energy is ``E(x, y) = -f(x)[y]`` and the marginal energy
``E(x) = -logsumexp_k f(x)[k]``, so ``CE(x, y) = E(x, y) - E(x)``. All are in nats; low means
likely under the model. Energies are known only up to a constant of the network.

Delta energies compare a clean image ``x`` with its adversarial counterpart ``x*``
(Mirza et al., arXiv 2505.22486): ``dE(x) = E(x) - E(x*)``, ``dE(x, y) = E(x, y) - E(x*, y)``, so
``CE(x*) - CE(x) = dE(x) - dE(x, y)``.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from energy_at.core.rules import require
from energy_at.core.types import (
    Labels,
    Logits,
    PerExample,
    labels_of,
    require_indices,
    require_matrix,
)
from energy_at.energy.pair import A_PAIR, LogitPair


def marginal_energy(logits: Logits) -> PerExample:
    """``E(x) = -logsumexp_k f(x)[k]``, in nats."""
    require_matrix(logits)
    return -logits.logsumexp(dim=1)


def joint_energy(logits: Logits, y: Labels) -> PerExample:
    """``E(x, y) = -f(x)[y]``, in nats."""
    require_matrix(logits)
    require_indices(y, len(logits))
    with labels_of(y, logits.shape[1]):
        return -logits.gather(1, y.long()[:, None]).squeeze(1)


def resolution(logits: Logits) -> PerExample:
    """Distance between floating-point numbers at ``E(x)``, in nats; less is rounded away."""
    return marginal_energy(logits).abs() * torch.finfo(logits.dtype).eps


def delta_marginal(pair: LogitPair) -> PerExample:
    """``dE(x) = E(x) - E(x*)``: positive when the attack made the image more likely."""
    require(A_PAIR, pair=pair)
    return marginal_energy(pair.clean) - marginal_energy(pair.adv)


def delta_joint(pair: LogitPair) -> PerExample:
    """``dE(x, y) = E(x, y) - E(x*, y)``: negative when the attack made the label less likely."""
    require(A_PAIR, pair=pair)
    return joint_energy(pair.clean, pair.y) - joint_energy(pair.adv, pair.y)


def shift_norm(pair: LogitPair) -> PerExample:
    """``||[dE(x), dE(x, y)]||_2`` of each example; its gradient at a shift of 0 is 0."""
    shift = torch.stack([delta_marginal(pair), delta_joint(pair)])
    norm: PerExample = torch.linalg.vector_norm(shift, dim=0)
    return norm


def is_abnormal(pair: LogitPair) -> Bool[Tensor, " batch"]:
    """Whether each adversarial example is abnormal: the attack *lowered* the loss.

    ``CE(x*) < CE(x)``, equivalently ``dE(x, y) > dE(x)``. A zero shift is normal.
    """
    return delta_joint(pair) > delta_marginal(pair)
