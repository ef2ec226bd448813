"""What is measured: one scenario for each way to spend compute."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["training", "evaluation", "sampling"]


@dataclass(frozen=True)
class Scenario:
    """A kind of work.

    Attributes:
        label: For people.
        kind: What the work is.
        overrides: Of a training, as they are typed.
    """

    label: str
    kind: Kind
    overrides: tuple[str, ...] = ()


# An untrained network says nothing of how often DER is active, so both cases are forced: all
# examples count, or a shift goes unpunished that no network reaches.
_ACTIVE = ("reg=der", "reg.samples=all")
_INACTIVE = ("reg=der", "reg.gamma=1000000.0")
_TRADES = ("attack=trades", "loss=trades")

SCENARIOS = {
    "fgsm": Scenario("FGSM-AT", "training", ("attack=fgsm",)),
    "fgsm_der": Scenario("FGSM + DER, active", "training", ("attack=fgsm", *_ACTIVE)),
    "fgsm_der_inactive": Scenario("FGSM + DER, inactive", "training", ("attack=fgsm", *_INACTIVE)),
    "rs_fgsm_der": Scenario("RS-FGSM + DER", "training", ("attack=rs_fgsm", *_ACTIVE)),
    "n_fgsm_der": Scenario("N-FGSM + DER", "training", ("attack=n_fgsm", *_ACTIVE)),
    "gradalign": Scenario("FGSM + GradAlign", "training", ("attack=fgsm", "reg=gradalign")),
    "pgd": Scenario("PGD AT", "training", ("attack=pgd",)),
    "trades": Scenario("TRADES", "training", _TRADES),
    "trades_der": Scenario("TRADES + DER", "training", (*_TRADES, "reg=der")),
    "evaluation": Scenario("evaluation by PGD", "evaluation"),
    "sampling": Scenario("sampling", "sampling"),
    "scaling": Scenario("PGD AT of three sizes", "training", ("attack=pgd",)),
}
SCALING = "scaling"  # its rows are sizes of our bare loop
ROWS = {
    "reference": "plain PyTorch loop",
    "torchattacks": "the same loop, torchattacks",
    "foolbox": "the same loop, foolbox",
    "bare": "our parts, bare loop",
    "full": "full run",
}
PRECISIONS = ("fp32", "bf16")


def chosen(key: str, names: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The names that were typed, in the order of those known; all if none was.

    Raises:
        ValueError: if one is not known.
    """
    wrong = [name for name in names or () if name not in known]
    if wrong:
        raise ValueError(f"{key}=[{wrong[0]}]: choose from {', '.join(known)}")
    return [name for name in known if names is None or name in names]
