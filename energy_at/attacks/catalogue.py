"""The attacks that a network can be judged by, by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from energy_at.attacks.autoattack import LibraryAttack, autoattack, require_installed
from energy_at.attacks.base import Attack
from energy_at.attacks.registry import cw, fgsm, pgd, rs_fgsm, targeted, trades
from energy_at.attacks.threat import Ball

OWN: dict[str, Callable[..., Attack]] = {
    "fgsm": fgsm,
    "rs_fgsm": rs_fgsm,
    "pgd": pgd,
    "trades": trades,
    "targeted": targeted,
    "cw": cw,
}
FROM_LIBRARY: dict[str, Callable[..., Attack]] = {
    "apgd_ce": partial(LibraryAttack, name="apgd-ce"),
    "apgd_dlr": partial(LibraryAttack, name="apgd-dlr"),
    "apgd_t": partial(LibraryAttack, name="apgd-t"),
    "fab": partial(LibraryAttack, name="fab"),
    "fab_t": partial(LibraryAttack, name="fab-t"),
    "square": partial(LibraryAttack, name="square"),
    "autoattack": autoattack,
}
LABELS = {
    "clean": "clean",
    "fgsm": "FGSM",
    "rs_fgsm": "RS-FGSM",
    "pgd": "PGD",
    "trades": "TRADES",
    "targeted": "targeted PGD",
    "cw": "CW",
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_t": "APGD-T",
    "fab": "FAB",
    "fab_t": "FAB-T",
    "square": "Square",
    "autoattack": "AutoAttack",
}
STYLES: dict[
    str, tuple[str, str]
] = {  # colour and marker in every figure: Okabe and Ito's palette, then Tol's
    "fgsm": ("#E69F00", "o"),
    "rs_fgsm": ("#F0E442", "o"),
    "pgd": ("#0072B2", "s"),
    "trades": ("#009E73", "^"),
    "targeted": ("#56B4E9", "v"),
    "cw": ("#CC79A7", "D"),
    "apgd_ce": ("#332288", "P"),
    "apgd_dlr": ("#882255", "X"),
    "apgd_t": ("#44AA99", "p"),
    "fab": ("#8B5A2B", "<"),
    "fab_t": ("#DDCC77", ">"),
    "square": ("#999999", "h"),
    "autoattack": ("#D55E00", "*"),
}


def named_attack(name: str, ball: Ball, **settings: Any) -> Attack:
    """The attack of this name, with its published constants where ``settings`` says nothing.

    Raises:
        ValueError: if there is none.
        ImportError: if its library is not installed.
    """
    if name not in OWN | FROM_LIBRARY:
        raise ValueError(
            f"there is no attack {name!r}: choose from {', '.join(OWN | FROM_LIBRARY)}"
        )
    if name in FROM_LIBRARY:
        require_installed(name)
    return (OWN | FROM_LIBRARY)[name](ball, **settings)
