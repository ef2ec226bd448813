"""Rules for arguments of what a configuration builds, to be checked before torch is imported.

The classes and functions check their arguments by the same rules.
"""

import re
from typing import Any, Literal, get_args

from energy_at.core.names import NORMS, SPLITS
from energy_at.core.rules import (
    POSITIVE,
    SHARE,
    TRUTH,
    Rule,
    integer,
    is_list,
    is_number,
    number,
    one_of,
    or_null,
    require,
)

BNMode = Literal["batch", "eval"]
Action = Literal["warn", "stop", "checkpoint", "rollback"]
Remedy = Literal["auto", "der", "beta", "alpha"]
Samples = Literal["abnormal", "all"]
Reference = Literal["clean", "start"]
Spread = Literal["uniform", "random"]
Activation = Literal["relu", "silu"]
Padding = Literal["symmetric", "same"]
Shortcut = Literal["activated", "plain", "plain3x3"]
Storage = Literal["auto", "memory", "disk"]
Compilation = Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"]

_COUNT, _WEIGHT, _CLASSES = integer(1), number(0), integer(2)
_SHARE_BELOW_1 = number(0, 1, below=True)
_LR = number(0, 1000, above=True)
_SCORE = Rule(
    "a score on held-out images, such as val/acc/pgd10 or val/ce/pgd10",
    lambda value: isinstance(value, str) and bool(re.fullmatch("val(_ema)?/(acc|ce)/[^/]+", value)),
)
_SHARES = Rule(
    f"a list of shares of all steps, such as [0.5,0.75], each {SHARE.must}",
    lambda value: is_list(value) and all(map(SHARE.holds, value)),
)
_MEANS = Rule(
    "a list of finite numbers, one a channel",
    lambda value: is_list(value) and len(value) > 0 and all(map(is_number, value)),
)
_STDS = Rule(
    "a list of finite numbers > 0, one a channel as mean",
    lambda value: _MEANS.holds(value) and min(value) > 0,
)
_BY_ARGUMENTS: dict[str, dict[str, Rule]] = {
    "attacks.Linf": {"eps": number(0, 1, above=True)},
    "attacks.L2": {"eps": POSITIVE},
    "attacks.GradientAttack": {
        "steps eot": _COUNT,
        "alpha": POSITIVE,
        "project track_every": TRUTH,
    },
    "attacks.Gaussian": {"std": number(0)},
    "attacks.n_fgsm": {"k": POSITIVE},
    "attacks.pgd": {"restarts": _COUNT},
    "attacks.restarted_pgd": {"restarts": _COUNT},
    "attacks.SingleStep": {
        "alpha": or_null(POSITIVE),
        "steps": Rule("1: the attack takes a single step", integer(1, 1).holds),
    },
    "attacks.LIET": {"classes": _CLASSES, "every": _COUNT, "low high": number(0, 1)},
    "attacks.FGSMPGI": {"reset": _COUNT, "decay": number(0)},
    "attacks.NuAT": {"weight ramp_epochs": _WEIGHT},
    "attacks.SORA": {"rate": POSITIVE},
    "objectives.Weighted": {"weight ramp_epochs": _WEIGHT},
    "objectives.DER": {
        "gamma": number(0),
        "samples": one_of(*get_args(Samples)),
        "reference": one_of(*get_args(Reference)),
        "detach_clean": TRUTH,
    },
    "objectives.AAER": {"ce logits": _WEIGHT, "detach_start": TRUTH},
    "objectives.GradAlign": {"detach_clean": TRUTH},
    "objectives.AdaptiveELLE": {"sensitivity": POSITIVE, "decay": number(0, 1)},
    "objectives.LabelSmoothing": {
        "share": _SHARE_BELOW_1,
        "classes": _CLASSES,
        "spread": one_of(*get_args(Spread)),
    },
    "models.sizes": {"channels classes width": _COUNT},
    "models.Normalize": {"mean": _MEANS, "std": _STDS},
    "models.activation_function": {"activation": one_of(*get_args(Activation))},
    "models.PreActResNet": {
        "shortcut": one_of(*get_args(Shortcut)),
        "final_norm": TRUTH,
    },
    "models.conv3x3": {"padding": one_of(*get_args(Padding))},
    "models.WideResNet": {
        "widen": _COUNT,
        "depth": Rule("6 n + 4 with n >= 1", lambda v: integer(10).holds(v) and v % 6 == 4),
    },
    "models.mlp_mixer": {"width depth": _COUNT},
    "models.timm": {"pretrained": TRUTH, "drop_rate drop_path_rate": _SHARE_BELOW_1},
    "data.ImageData": {
        "batch_size eval_batch_size val_size": _COUNT,
        "subset": or_null(_COUNT),
        "pad": integer(0),
        "flip": TRUTH,
        "storage": one_of(*get_args(Storage)),
    },
    "training.AdversarialTraining": {
        "bn_mode": one_of(*get_args(BNMode)),
        "eps_warmup_epochs": number(0),
    },
    "training.WeightPerturbation": {"gamma warmup_epochs": number(0)},
    "training.sgd": {
        "lr": _LR,
        "momentum": number(0, 1),
        "weight_decay": number(0, 1000),
        "nesterov decay_norm": TRUTH,
    },
    "training.adamw": {
        "lr": _LR,
        "beta1 beta2": _SHARE_BELOW_1,
        "weight_decay": number(0, 1000),
        "decay_vectors": TRUTH,
    },
    "training.triangular": {"peak": SHARE},
    "training.piecewise": {"milestones": _SHARES, "factor": number(0, 1, above=True)},
    "training.onecycle": {"pct_start": SHARE, "cycle_momentum": TRUTH},
    "training.cosine": {"warmup floor": _SHARE_BELOW_1},
    "training.StepBuffer": {"every": _COUNT},
    "training.CompiledNet": {"mode": one_of(*get_args(Compilation))},
    "training.RunProgress": {"refresh_rate": _COUNT},
    "training.EMA": {"decay": _SHARE_BELOW_1},
    "training.BestCheckpoint": {"monitor": _SCORE},
    "training.LastCheckpoint": {"every_n_steps": or_null(_COUNT)},
    "training.Sentinel": {
        "action": one_of(*get_args(Action)),
        "classes": _CLASSES,
        "rollbacks": _COUNT,
        "rewind": TRUTH,
    },
    "training.Remedies": {"remedy": one_of(*get_args(Remedy)), "factor": number(1, above=True)},
    "overfitting.Thresholds": {
        "window": integer(4),
        "aae_share alignment ratio divergence drop rise": SHARE,
        "pert_align": or_null(SHARE),
        "patience recovery": _COUNT,
    },
    "evaluation.EvaluationTarget": {
        "steps restarts": _COUNT,
        "norm": one_of(*NORMS),
        "split": one_of(*SPLITS),
        "subset": or_null(_COUNT),
    },
    "evaluation.EvaluationPlan": {"eot": _COUNT},
    "evaluation.Evaluator": {"batch_size": _COUNT},
    "analysis.AnalysisPlan": {"iterations queries": _COUNT},
    "sampling.SamplingPlan": {
        "n shown batch_size": _COUNT,
        "frames": integer(0, 100),
    },
    "sampling.Langevin": {
        "precision": one_of("fp32", "bf16"),
        "steps": integer(0),
        "step_size": POSITIVE,
        "noise": number(0),
        "momentum": _SHARE_BELOW_1,
        "radius": or_null(POSITIVE),
        "normalize": TRUTH,
    },
    "sampling.ClassEnergy": {
        "draw": one_of("empirical", "mean", "quantile"),
        "quantile": number(0, 1),
        "tolerance width": number(0),
        "pulls": TRUTH,
    },
    "sampling.ClassGaussian": {"scale": number(0)},
    "sampling.ClassPCA": {"variance": number(0, 1, above=True), "scale": number(0)},
    "sampling.LocalPCA": {"k": _COUNT, "by": one_of("features", "pixels", "low_frequencies")},
    "sampling.OtherImages": {
        "by": one_of("number", "features"),
        "closest": number(0, 1, above=True),
    },
}
_OF_OWN = ("models.Normalize", "models.sizes")
_OF_RESNETS = (*_OF_OWN, "models.activation_function")
_HANDS_ON = {  # to what a function hands its arguments on
    **dict.fromkeys(
        ("attacks.fgsm", "attacks.rs_fgsm", "attacks.n_fgsm", "attacks.restarted_pgd"),
        ("attacks.GradientAttack",),
    ),
    **dict.fromkeys(
        ("attacks.pgd", "attacks.trades"), ("attacks.GradientAttack", "attacks.Gaussian")
    ),
    **dict.fromkeys(
        ("attacks.LIET", "attacks.FGSMPGI", "attacks.NuAT", "attacks.SORA"),
        ("attacks.SingleStep",),
    ),
    **dict.fromkeys(
        ("models.timm", "models.torchvision", "models.mlp_mixer", "models.custom"),
        ("models.Normalize",),
    ),
    "models.small": _OF_OWN,
    "models.resnet18": _OF_RESNETS,
    "models.preactresnet18": (*_OF_RESNETS, "models.conv3x3", "models.PreActResNet"),
    "models.wideresnet": (*_OF_RESNETS, "models.conv3x3", "models.WideResNet"),
    "training.EnergyMonitor": ("training.StepBuffer",),
    "training.FiniteGuard": ("training.StepBuffer",),
    "training.Sentinel": ("training.Remedies",),
    "sampling.LocalPCA": ("sampling.ClassPCA",),
}
_LEFT_OUT = ("alpha", "std", "mean", "channels", "classes")
RANGES = {
    of: {name: rule for names, rule in rules.items() for name in names.split()}
    for of, rules in _BY_ARGUMENTS.items()
}


def require_ranges(of: str, owner: object = None, **arguments: Any) -> None:
    """Raises ``ArgumentError`` by the first argument of a class or function that breaks its rule.

    Args:
        of: Its room and its name.
        owner: An object that has the arguments as attributes, or else they are named.
        arguments: Those that are checked.
    """
    for name, rule in RANGES[of].items():
        require(rule, **{name: arguments[name] if owner is None else getattr(owner, name)})


def ranges_of(target: str) -> dict[str, Rule]:
    """The rules for what a ``_target_`` of this package takes; none for anything else.

    Null does not break those of what functions and images give if a configuration leaves it out.
    """
    of = target.removeprefix("energy_at.")
    rooms = (*_HANDS_ON.get(of, ()), of)
    found = [item for room in rooms for item in RANGES.get(room, {}).items()]
    return {name: or_left_out(rule) if name in _LEFT_OUT else rule for name, rule in found}


def or_left_out(rule: Rule) -> Rule:
    """A rule that null does not break, in the words of the rule."""
    return rule._replace(holds=lambda value: value is None or rule.holds(value))
