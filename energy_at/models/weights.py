"""State dicts of other code bases, as the robustness literature and RobustBench publish them.

Wrapping mappings and prefixes are removed, the layer names of Gowal et al. (2020) and their
successors are translated, and everything else must fit exactly.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from energy_at.models.layers import Normalized

State = dict[str, Tensor]

_LAYERS = (nn.Linear, nn.Conv2d)

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "weights",
    "model_state",
    "ema_state_dict",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "1.", "0.")  # 0.: of ELLE
NORMALIZATION = {"mean": ("mean", "mu"), "std": ("std", "sigma")}
UNUSED = (  # kept in files of Zhang et al. (2019) and of Andriushchenko & Flammarion (2020), and
    "sub_block1.",  # of those that built on them: aliases, and blocks that no forward pass uses
    "model_preact_hl1.",
    "n_averaged",  # of torch's weight averaging
)
DEEPMIND = (
    (r"^(init_conv|conv_2d)\.", "conv1."),
    (r"^layer\.(\d)\.block\.(\d+)\.", lambda m: f"block{int(m[1]) + 1}.layer.{m[2]}."),
    (r"^layer_(\d)\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (r"\.batchnorm_(\d)\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.conv_2d_(\d)\.", r".conv\1."),
    (r"\.conv_(\d)\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"^(block.*)\.shortcut\.", r"\1.convShortcut."),
    (r"^(layer\d.*)\.shortcut\.weight", r"\1.shortcut.0.weight"),
)


def start_from(net: nn.Module, content: Mapping[str, Any]) -> list[str]:
    """Load weights to train further, of a network that may have been for other classes.

    A last layer of another number of classes keeps its initial weights; all else is as in
    ``load_weights``.

    Returns:
        The weights and biases that kept their initial values.

    Raises:
        ValueError: if another layer is missing, unexpected, or of another shape.
    """
    own, last = _network_of(net).state_dict(), _last_layer(net)
    state = unwrapped(content, wanted=set(own))
    found = {k: v for k, v in state.items() if not is_normalization(k)}
    found = _translated(found, set(own))
    other = [k for k in last if k in found and found[k].shape != own[k].shape]
    if all(found[k].shape[1:] == own[k].shape[1:] for k in other):
        found |= {k: own[k] for k in other}
    load_weights(net, found | {k: v for k, v in state.items() if is_normalization(k)})
    return other


def _last_layer(net: nn.Module) -> list[str]:
    """Names of the weights of the last linear layer, or convolution, of a network."""
    layers = {n: m for n, m in _network_of(net).named_modules() if isinstance(m, _LAYERS)}
    name = next(reversed(layers), None)
    return (
        [] if name is None else [f"{name}.{key}".lstrip(".") for key in layers[name].state_dict()]
    )


def _network_of(net: nn.Module) -> nn.Module:
    """The network behind the normalization."""
    return net.net if isinstance(net, Normalized) else net


def load_weights(net: nn.Module, content: Mapping[str, Any], which: str | None = None) -> bool:
    """Load published weights into a network.

    Normalization that the file holds replaces the network's own; otherwise the network keeps the
    mean and std that it was made with. A network without normalization refuses a file with one.

    Args:
        net: Changed only if everything fits.
        content: What the file held.
        which: The entry to take of a file that holds several checkpoints; ``last`` if left out.

    Returns:
        Whether the file holds a normalization.

    Raises:
        ValueError: if a layer is missing, unexpected, or of another shape, or if the normalization
            is ambiguous.
    """
    state = unwrapped(content, which, set(_network_of(net).state_dict()))
    network = _network_of(net)
    normalization = _normalization(state, net)
    state = {key: value for key, value in state.items() if not is_normalization(key)}
    state = _translated(state, set(network.state_dict()))
    _require_fit(state, network)
    counts = {k: v.reshape(()) for k, v in state.items() if k.endswith("num_batches_tracked")}
    network.load_state_dict(state | counts, strict=False)  # old files count no batches
    if isinstance(net, Normalized):
        net.normalize.load_state_dict(normalization, strict=False)
    return bool(normalization)


def unwrapped(
    content: Mapping[str, Any], which: str | None = None, wanted: Collection[str] = ()
) -> State:
    """The tensors of a checkpoint by layer, without the wrappings that other code bases add.

    Raises:
        ValueError: if there are none, or no entry ``which``.
    """
    return _without_prefixes(tensors_of(content, which), wanted)


def tensors_of(content: Mapping[str, Any], which: str | None = None) -> State:
    """The tensors of a checkpoint by the names that they have in it.

    Raises:
        ValueError: if there are none, or no entry ``which``.
    """
    chosen = which is None
    while inner := [k for k in (which or "last", *WRAPPERS) if isinstance(content.get(k), Mapping)]:
        chosen = chosen or inner[0] == which
        content = content[inner[0]]
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        names = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ValueError(f"the checkpoint has no weights to take: it holds {names}")
    if not chosen:
        raise ValueError(f"the checkpoint holds no entry {which}: leave out which={which}")
    return state


def _without_prefixes(state: State, wanted: Collection[str]) -> State:
    """Remove prefixes that all layers share; the normalization may have another one.

    Layers of the ``wanted`` names keep them.
    """
    state = {key: value for key, value in state.items() if key not in UNUSED}
    while True:
        layers = [key for key in state if not is_normalization(key)]
        prefix = next((p for p in PREFIXES if all(k.startswith(p) for k in layers)), None)
        if not layers or prefix is None or set(layers) <= set(wanted):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.startswith(UNUSED)}


def is_normalization(key: str) -> bool:
    """Whether a weight of this name is a mean or a standard deviation of pixels."""
    return any(key.rpartition(".")[2] in names for names in NORMALIZATION.values())


def _normalization(state: State, net: nn.Module) -> State:
    """Mean and std of the file in the shape of ours; nothing if it has none.

    Raises:
        ValueError: if it has one of the two, several of them, or of other images.
    """
    found = {
        ours: [key for key in state if key.rpartition(".")[2] in theirs]
        for ours, theirs in NORMALIZATION.items()
    }
    if not any(found.values()):
        return {}
    if not isinstance(net, Normalized):
        raise ValueError(
            "the checkpoint holds a normalization, which the network has no place for: choose "
            "model=custom, whose networks have one"
        )
    if any(len(keys) != 1 for keys in found.values()):
        names = ", ".join(key for keys in found.values() for key in keys)
        raise ValueError(f"normalization must be one mean and one std, or nothing; got {names}")
    values = {}
    for ours, (key,) in found.items():
        like, value = getattr(net.normalize, ours), state[key]
        if value.numel() != like.numel():
            raise ValueError(
                f"the checkpoint's {key} is for {value.numel()} channels, "
                f"the images have {like.numel()}"
            )
        values[ours] = value.to(like.dtype).reshape(like.shape)
    if not bool((values["std"] > 0).all()):
        raise ValueError(f"the checkpoint's {found['std'][0]} must be > 0")
    if (mean := float(values["mean"].max())) > 1:
        raise ValueError(
            f"the checkpoint's {found['mean'][0]} must be of pixels in [0, 1], got {mean:g}: "
            "divide its mean and std by 255"
        )
    return values


def _translated(state: State, wanted: set[str]) -> State:
    if not any("batchnorm" in key for key in state):
        return state
    last = (
        (r"^batchnorm\.", "bn." if "bn.weight" in wanted else "bn1."),
        (r"^logits\.", "linear." if "linear.weight" in wanted else "fc."),
    )
    for pattern, replacement in (*DEEPMIND, *last):
        state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
    return state


def _require_fit(state: State, network: nn.Module) -> None:
    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    if missing or unexpected:
        raise ValueError(
            "the checkpoint is of another network: "
            f"first missing {missing[0] if missing else 'none'}, "
            f"first unexpected {unexpected[0] if unexpected else 'none'}; "
            "choose model, model.width and the options of the model to match"
        )
    for key, value in state.items():
        if value.is_complex() and not wanted[key].is_complex():  # torch would only warn
            raise ValueError(f"the checkpoint is damaged, or of another network: {key} is complex")
        if value.shape != wanted[key].shape and not key.endswith("num_batches_tracked"):
            raise ValueError(
                f"the checkpoint is of another network: {key} is {tuple(value.shape)}, "
                f"the model needs {tuple(wanted[key].shape)}; choose model.width, the data set's "
                "channels and its classes to match"
            )


def exported(net: nn.Module) -> State:
    """The weights as ``load_weights`` takes them, contiguous copies: what an export file holds."""
    state = {}
    if isinstance(net, Normalized):
        state = {f"normalize.{k}": v for k, v in net.normalize.state_dict().items()}
    state |= _network_of(net).state_dict()
    return {key: value.detach().clone().contiguous().cpu() for key, value in state.items()}


def with_bf16_kernels(state: State) -> State:
    """Kernels of convolutions and linear layers in bf16, which halves a file; the rest as it is.

    Variances of batch norm and the normalization of the pixels would lose what they cannot spare.
    """
    return {
        key: value.bfloat16()
        if value.is_floating_point() and value.ndim > 1 and not is_normalization(key)
        else value
        for key, value in state.items()
    }
