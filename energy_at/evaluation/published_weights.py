"""The network of a file of weights: what the file does not say is named, detected or measured."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from energy_at.config.build import keys_of, make
from energy_at.config.initial_weights import (
    NORMALIZED_BY,
    changes,
    keys_typed,
    network_options,
    require_own_constants,
)
from energy_at.core.device import device_of
from energy_at.core.rules import ArgumentError
from energy_at.data import ImageData, as_floats
from energy_at.evaluation.hub import SCHEME, downloaded
from energy_at.evaluation.normalization import (
    choose_normalization,
    counts_text,
    drawn,
    is_better,
    logits_of,
    same_logits,
)
from energy_at.models import Normalized
from energy_at.models.modes import try_on
from energy_at.models.sources import SOURCES
from energy_at.models.weights import load_weights, tensors_of
from energy_at.runs.checkpoints import read_tensors

SHORTCUTS = ("activated", "plain")  # that fit the same files
HOW = "source=NAME of its code base"


def open_weights(
    config: DictConfig, data: ImageData, overrides: Sequence[str]
) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network of ``checkpoint``, on its device, and how its open questions were answered.

    Options of ``config.model`` that ``source`` names, or the file or a measurement on test images
    decides, are written into it, unless they were typed; what was measured is said.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it does not fit the network.
    """
    path, record = Path(str(config.checkpoint)), {}
    is_remote = str(config.checkpoint).startswith(SCHEME)
    file = downloaded(str(config.checkpoint)) if is_remote else path
    content = read_tensors(file)
    keys = tensors_of(content, config.which)
    typed = keys_typed(overrides)
    wish = "dataset" if typed & NORMALIZED_BY and config.normalize == "auto" else config.normalize
    with keys_of(config):
        require_own_constants(config, path, keys, typed)
        name, options = network_options(
            config, file, keys, config.source, typed, normalize=wish == "auto"
        )
    changed = changes(config, options)
    if name is not None:
        record["code_base"] = {"name": name, **options}
        if wish == "auto" and SOURCES[name].normalize != "auto":
            wish = "dataset"  # or mean 0 and std 1, which are its own by now
    net = _built(config)
    has_normalization = load_weights(net, content, config.which)
    if has_normalization and config.normalize != "auto":
        must = f"left out: {path} holds a normalization"
        raise ArgumentError("normalize", config.normalize, must)
    said = []
    if name is not None and config.source is None:
        said.append(f"layers named as in source={name}" + (f": {changed}" if changed else ""))
    elif name is None and changed:
        said.append(f"its network has {changed}")
    is_open = "shortcut" in config.model and "shortcut" not in options
    if is_open and "model.shortcut" not in typed:
        record["shortcut"], line = _choose_shortcut(config, content, data, wish)
        said.append(line)
        net = _built(config)
        load_weights(net, content, config.which)
    if isinstance(net, Normalized) and not has_normalization:
        data.setup()
        with keys_of(config):
            found = choose_normalization(net, data.test, config.dataset.classes, wish)
        if found is not None:
            if not found.decided:
                raise ValueError(
                    f"{path} holds no normalization, and the correct ones of {found.counts} do not "
                    f"decide which it needs: write {HOW}, normalize=dataset or normalize=none"
                )
            record["normalization"] = found.record()
            said.append(str(found))
    _require_classes(net, data, config)
    sys.stderr.writelines(f"{path}: {line}\n" for line in said)  # nothing before a refusal
    return net, record


def _require_classes(net: nn.Module, data: ImageData, config: DictConfig) -> None:
    """Raises ``ValueError`` unless a network has a logit for each class of the test images."""
    data.setup()
    few = data.test.first(1).to(device_of(config.device))
    logits = try_on(net, as_floats(few.pixels, config.training.channels_last))
    highest = int(data.test.labels.max())
    if logits.shape[1] <= highest:
        raise ValueError(
            f"the network has {logits.shape[1]} logits but labels go up to {highest}: choose the "
            "data set that it was trained on, and leave dataset.classes to it"
        )


def _built(config: DictConfig) -> nn.Module:
    last = config.training.channels_last
    form = torch.channels_last if last else torch.contiguous_format
    net: nn.Module = make(config.model).to(device_of(config.device), memory_format=form)
    return net


def _choose_shortcut(
    config: DictConfig, content: Mapping[str, Any], data: ImageData, wish: str
) -> tuple[dict[str, Any], str]:
    """Writes into a configuration the shortcut with which its network classifies the most images.

    Each is tried in the normalization that suits it best, unless ``wish`` names one. Returns what
    was measured, for the record and as a line.

    Raises:
        ValueError: unless one is better by more than the noise, or both give the same logits.
    """
    data.setup()
    images = drawn(data.test).to(device_of(config.device))
    logits, wanted = {}, config.model.shortcut
    for shortcut in SHORTCUTS:
        config.model.shortcut = shortcut
        net = _built(config)
        if not load_weights(net, content, config.which):
            assert isinstance(net, Normalized)
            choose_normalization(net, data.test, config.dataset.classes, wish)
        logits[shortcut] = logits_of(net, images)
    hits = {name: found.argmax(1) == images.labels for name, found in logits.items()}
    correct = {name: int(hit.sum()) for name, hit in hits.items()}
    chosen, other = sorted(SHORTCUTS, key=lambda name: (correct[name], name == wanted))[::-1]
    path, counts = config.checkpoint, counts_text(correct, len(images))
    if same_logits(logits[chosen], logits[other]):
        chosen = wanted
    elif not is_better(hits[chosen], hits[other]):
        raise ValueError(
            f"{path} does not say where its shortcuts begin, and the correct ones of {counts} do "
            f"not decide: write {HOW}, or model.shortcut=activated or plain"
        )
    config.model.shortcut = chosen
    line = (
        f"the file does not say where its shortcuts begin: chosen {chosen}, by correct ones of "
        f"{counts}; source=NAME or model.shortcut decides otherwise"
    )
    return {"chosen": chosen, "correct": correct, "images": len(images)}, line
