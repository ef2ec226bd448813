"""What a validation measures of one batch."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from energy_at.attacks import Attack
from energy_at.core.distributed import Part
from energy_at.core.rng import Noise
from energy_at.core.types import Images, Labels
from energy_at.energy.metrics import accuracies, cross_entropies, delta_energies
from energy_at.energy.pair import LogitPair
from energy_at.models.modes import no_graph


def validation_metrics(
    net: nn.Module,
    attacks: Mapping[str, Attack],
    x: Images,
    y: Labels,
    part: Part,
    noise: Callable[[], Noise],
) -> dict[str, Tensor]:
    """``acc/clean``, ``acc/pgd10``, ``ce/...`` and ``delta_energy/...`` of a whole batch.

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
