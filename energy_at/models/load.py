"""Weights of others: state dicts as the robustness literature and RobustBench publish them.

Wrapping mappings and prefixes are taken off, the layer names of Gowal et al. (2020) and their
successors are translated, and everything else must fit exactly.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from energy_at.models.normalize import Normalized

State = dict[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
NORMALIZATION = {
    "mean": ("mean", "mu", "normalize.mean", "0.mean"),
    "std": ("std", "sigma", "normalize.std", "0.std"),
}
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


def load_weights(net: Normalized, content: Mapping[str, Any], which: str = "last") -> None:
    """Puts published weights into a network of ours.

    Normalization that the file holds replaces the network's own; otherwise the network keeps the
    mean and std that it was made with.

    Args:
        net: The network; changed only if everything fits.
        content: What the file held.
        which: The entry to take of a file that holds several checkpoints.

    Raises:
        ValueError: if a layer is missing, left over, or of another shape.
    """
    state = unwrapped(content, which)
    normalization = _taken(state, net)
    state = _translated(state, set(net.net.state_dict()))
    _require_fit(state, net)
    net.net.load_state_dict(state, strict=False)  # old files count no batches
    net.normalize.load_state_dict(normalization, strict=False)


def unwrapped(content: Mapping[str, Any], which: str = "last") -> State:
    """The tensors of a checkpoint by layer, without the wrappings of whoever saved them.

    Raises:
        ValueError: if there are none.
    """
    while inner := [content[k] for k in (which, *WRAPPERS) if isinstance(content.get(k), Mapping)]:
        content = inner[0]
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        names = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ValueError(f"the checkpoint has no weights to take: it holds {names}")
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return _without_inner_prefix(state)


def _without_inner_prefix(state: State) -> State:
    """Takes ``model.`` off where only the normalization beside it does not have it."""
    own = {k for names in NORMALIZATION.values() for k in names} & set(state)
    rest = [key for key in state if key not in own]
    for prefix in (*PREFIXES, "1."):
        if rest and own and all(key.startswith(prefix) for key in rest):
            return {key if key in own else key.removeprefix(prefix): v for key, v in state.items()}
    return state


def _taken(state: State, net: Normalized) -> State:
    """Takes the normalization out of ``state``, in the shape of ours."""
    found = {}
    for ours, theirs in NORMALIZATION.items():
        for key in theirs:
            if key in state:
                like = getattr(net.normalize, ours)
                value = state.pop(key)
                if value.numel() != like.numel():
                    raise ValueError(
                        f"the checkpoint's {key} is for {value.numel()} channels, "
                        f"the images have {like.numel()}"
                    )
                found[ours] = value.to(like.dtype).reshape(like.shape)
    return found


def _translated(state: State, wanted: set[str]) -> State:
    if not any("batchnorm" in key for key in state):
        return state
    last = {"batchnorm.": "bn." if "bn.weight" in wanted else "bn1.",
            "logits.": "linear." if "linear.weight" in wanted else "fc."}  # fmt: skip
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in DEEPMIND:
            name = re.sub(pattern, replacement, name)
        for theirs, ours in last.items():
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        renamed[name] = value
    return renamed


def _require_fit(state: State, net: Normalized) -> None:
    wanted = net.net.state_dict()
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
        if value.shape != wanted[key].shape:
            raise ValueError(
                f"the checkpoint is of another network: {key} is {tuple(value.shape)}, "
                f"the model needs {tuple(wanted[key].shape)}; choose model.width, the data set's "
                "channels and its classes to match"
            )


def exported(net: Normalized) -> State:
    """The weights as ``load_weights`` takes them, contiguous copies: what an export file holds."""
    state = {f"normalize.{k}": v for k, v in net.normalize.state_dict().items()}
    state |= net.net.state_dict()
    return {key: value.detach().clone().contiguous().cpu() for key, value in state.items()}
