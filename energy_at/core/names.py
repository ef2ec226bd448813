"""Names that commands check before torch is imported, and that objects are chosen by."""

ATTACKS = {  # of evaluations and analyses: with their labels
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
NORMS = ("linf", "l2")
SPLITS = ("test", "val", "train")
