"""What a validation measures: means of batches, and what only all images together give."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torchmetrics import CatMetric

from energy_at.attacks import Attack, AttackOptions
from energy_at.attacks.base import require_bounded
from energy_at.core.distributed import Part
from energy_at.core.rng import Noise
from energy_at.core.types import Images, Labels
from energy_at.energy.energies import shift_norm
from energy_at.energy.metrics import (
    DELTA_ENERGIES,
    SHIFT_P99,
    accuracies,
    cross_entropies,
    delta_energies,
)
from energy_at.energy.pair import LogitPair
from energy_at.models.modes import no_graph


class Percentile(CatMetric):
    """The 99th percentile of the values of all batches: the mean of theirs is another number.

    Each process has the values of all images, so nothing is gathered.
    """

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable", sync_on_compute=False)

    def compute(self) -> Tensor:
        return torch.quantile(super().compute().float(), 0.99)


def names_of_metrics(prefix: str, attacks: Iterable[str]) -> list[str]:
    """What ``validation_metrics`` measures, with the percentiles."""
    names = [*attacks]
    kinds = [f"{kind}/{name}" for kind in ("acc", "ce") for name in ("clean", *names)]
    above = [f"{name}/" for name in names[:-1]] + [""] * bool(names)
    shifts = [f"{one}{metric}" for one in above for metric in DELTA_ENERGIES]
    return [f"{prefix}/{name}" for name in kinds + shifts]


def validation_metrics(
    net: nn.Module,
    attacks: Mapping[str, Attack],
    x: Images,
    y: Labels,
    part: Part,
    noise: Callable[[], Noise],
    prefix: str,
    percentiles: dict[str, Percentile],
) -> dict[str, Tensor]:
    """``acc/clean``, ``acc/pgd10``, ``ce/...`` and ``delta_energy/...`` of a whole batch.

    ``net`` is in evaluation mode, ``x`` the ``part`` of this process; ``noise`` makes a generator
    for each attack. Delta energies of the last, strongest attack are named without it. Norms of
    the energy shift are added to ``percentiles``. All names follow the ``prefix`` (``val``).
    """
    with no_graph():
        clean = net(x)
    values: dict[str, Tensor] = {}
    strongest = next(reversed([*attacks]), "")
    for name, attack in attacks.items():
        x_adv = attack.run(net, x, y, AttackOptions(generator=noise())).x_adv
        place = f" (attack {name}, in validation)"
        require_bounded(*attack.extremes(x, x_adv).tolist(), place=place)
        with no_graph():
            pair = LogitPair(clean, net(x_adv), y).gathered(part)
        both = accuracies(pair) | cross_entropies(pair)
        for kind in ("acc", "ce"):
            values[f"{kind}/clean"] = both[f"{kind}/clean"]
            values[f"{kind}/{name}"] = both[f"{kind}/adv"]
        above = "" if name == strongest else f"{name}/"
        shifts = delta_energies(pair)
        del shifts[SHIFT_P99]
        values |= {f"{above}{metric}": value for metric, value in shifts.items()}
        name = f"{prefix}/{above}{SHIFT_P99}"
        percentiles.setdefault(name, Percentile().to(x.device)).update(shift_norm(pair))
    return {f"{prefix}/{name}": value for name, value in values.items()}
