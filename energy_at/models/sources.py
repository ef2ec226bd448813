"""What code bases build differently though their weights have the same names and shapes.

Keys and shapes of a file decide neither whether a shortcut begins at the block's input or at its
first activation, nor how a convolution of stride 2 is padded, nor the activation, nor the
normalization in front.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from energy_at.core.rules import one_of, or_null, require
from energy_at.models.weights import PREFIXES

Constants = tuple[list[float], list[float]]  # mean and std, one value a channel
OPTIONS = ("shortcut", "padding", "activation", "final_norm")  # in which code bases differ


@dataclass(frozen=True)
class Source:
    """A code base: what it builds, and the pixels that its networks take."""

    model: Mapping[str, Any] = field(default_factory=dict)  # options of the network
    normalize: Literal["auto", "dataset", "none"] = "auto"  # that of the data set, or none
    constants: Mapping[str, Constants] = field(default_factory=dict)  # by data set, if its own


_PLAIN = {"shortcut": "plain", "padding": "symmetric", "activation": "relu"}
_ACTIVATED = {**_PLAIN, "shortcut": "activated"}
_SVHN = {"svhn": ([0.4380, 0.4440, 0.4730], [0.1751, 0.1771, 0.1744])}
SOURCES = {
    "fast_adversarial": Source(_PLAIN, "dataset"),  # Wong et al. (2020)
    "n_fgsm": Source(_PLAIN, "dataset", _SVHN),  # de Jorge et al. (2022)
    "aaer": Source(_PLAIN, "dataset", _SVHN),  # Lin et al. (2023)
    "gradalign": Source(_PLAIN, "none"),  # Andriushchenko & Flammarion (2020)
    "robust_overfitting": Source(_ACTIVATED, "dataset"),  # Rice et al. (2020)
    # Zhang et al. (2019): Wide ResNets and ResNets, no pre-activation ResNet
    "trades": Source({"padding": "symmetric", "activation": "relu"}, "none"),
    "deepmind": Source(  # Gowal et al. (2020), as their evaluation builds it
        {"shortcut": "plain3x3", "padding": "same", "activation": "silu"}, "dataset"
    ),
    "robustbench": Source(),  # many: see ``options_of``
}


def detected(keys: Collection[str]) -> str | None:
    """The code base whose layer names these are; None for names that several use."""
    if any("batchnorm" in key for key in keys):
        return "deepmind"
    return "gradalign" if any("model_preact_hl1." in key for key in keys) else None


def options_of(source: str, keys: Collection[str]) -> dict[str, Any]:
    """Options of the network of a code base, given the names of its weights.

    Raises:
        ArgumentError: if the code base is unknown.
    """
    require(or_null(one_of(*SOURCES)), source=source)
    final_norm = has_final_norm(keys)
    options = dict(SOURCES[source].model)
    if source == "robustbench":
        if detected(keys) == "deepmind":  # Gowal et al. and those that built on them
            options = dict(SOURCES["deepmind"].model)
        else:  # PreActResNet(bn_before_fc, out_shortcut): both, or neither
            options = _ACTIVATED if final_norm else _PLAIN
    return {**options, "final_norm": final_norm}


def normalization_of(source: str, dataset: str, channels: int) -> dict[str, list[float]]:
    """Mean and std of the pixels that a code base gives its networks; nothing if the data set's."""
    found = SOURCES[source].constants.get(dataset)
    if SOURCES[source].normalize == "none":
        found = [0.0] * channels, [1.0] * channels
    return {} if found is None else {"mean": found[0], "std": found[1]}


def has_final_norm(keys: Collection[str]) -> bool:
    """Whether batch norm comes before the classifier of a ResNet."""
    last = {key[: -len(".weight")] for key in keys if key.endswith(".weight")}
    bare = {name.removeprefix(p) for name in last for p in ("", *PREFIXES)}
    return bool(bare & {"bn", "batchnorm"}) or any(n.endswith((".bn", ".batchnorm")) for n in last)
