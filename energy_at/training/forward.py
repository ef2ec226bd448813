"""The forward passes of a training step, where none is repeated, and those of a validation."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from energy_at.attacks import Attack, AttackResult
from energy_at.core.distributed import Part
from energy_at.core.rng import Noise
from energy_at.core.types import Images, Labels, Logits
from energy_at.energy.metrics import accuracies, cross_entropies, delta_energies
from energy_at.energy.pair import LogitPair
from energy_at.models.modes import frozen_running_stats, no_graph
from energy_at.objectives import Trait


def logits(net: nn.Module, x: Images) -> Logits:
    """Logits of a batch, in the precision of the images, under autocast too."""
    output: Logits = net(x)
    return output.to(x.dtype)


@dataclass(frozen=True)
class Passes:
    """Computes the logits that an objective reads.

    Attributes:
        net: The network, in training mode.
        traits: Of the objective.
        shared: Whether the attack runs the network in the mode, and at the weights, of the
            training: only then are its logits and gradients reused.
        observed: Whether a callback reads clean logits.
    """

    net: nn.Module
    traits: Trait
    shared: bool
    observed: bool

    def pair(self, x: Images, y: Labels, found: AttackResult) -> LogitPair:
        """Logits of clean and adversarial images; clean ones are NaN if nothing reads them."""
        start = self._start_logits(found)
        clean = self._clean_logits(x, found)
        adv = logits(self.net, found.x_adv)
        return LogitPair(torch.full_like(adv, torch.nan) if clean is None else clean, adv, y, start)

    def keeps_graph(self, attack: Attack) -> bool:
        """Whether the loss needs the graph of the attack's first pass."""
        trains_clean = Trait.TRAINS_CLEAN in self.traits and attack.starts_clean
        reusable = trains_clean and Trait.FITS_CLEAN not in self.traits
        return self.shared and (reusable or Trait.TRAINS_START in self.traits)

    def _start_logits(self, found: AttackResult) -> Logits | None:
        if Trait.READS_START not in self.traits:
            return None
        if self.shared or found.x_start is None:
            return found.start_logits
        with frozen_running_stats(self.net):
            return logits(self.net, found.x_start)

    def _clean_logits(self, x: Images, found: AttackResult) -> Logits | None:
        if Trait.FITS_CLEAN in self.traits:
            return logits(self.net, x)
        trains, reads = Trait.TRAINS_CLEAN in self.traits, Trait.READS_CLEAN in self.traits
        if not (trains or reads or self.observed):
            return None
        known = found.clean_logits if self.shared else None
        if known is not None and (known.requires_grad or not trains):
            return known
        # the running statistics must be those of the base method, which a forward pass of
        # regularizers or callbacks in training mode would change
        with frozen_running_stats(self.net), nullcontext() if trains else no_graph():
            return logits(self.net, x)


def validation_metrics(
    net: nn.Module,
    attacks: Mapping[str, Attack],
    x: Images,
    y: Labels,
    part: Part,
    noise: Callable[[], Noise],
) -> dict[str, Tensor]:
    """``acc/clean``, ``acc/pgd``, ``ce/...`` and ``delta_energy/...`` of a whole batch.

    ``net`` is in evaluation mode, ``x`` the ``part`` of this process; ``noise`` makes a generator
    for each attack. Delta energies of the last, strongest attack are named without it.
    """
    with no_graph():
        clean = net(x)
    values: dict[str, Tensor] = {}
    for name, attack in attacks.items():
        x_adv = attack(net, x, y, generator=noise()).x_adv
        with no_graph():
            pair = LogitPair(clean, net(x_adv), y).gathered(part)
        both = accuracies(pair) | cross_entropies(pair)
        for kind in ("acc", "ce"):
            values[f"{kind}/clean"] = both[f"{kind}/clean"]
            values[f"{kind}/{name}"] = both[f"{kind}/adv"]
        values |= {f"{name}/{metric}": value for metric, value in delta_energies(pair).items()}
    strongest = next(reversed([*attacks]), "")
    return {name.removeprefix(f"{strongest}/"): value for name, value in values.items()}
