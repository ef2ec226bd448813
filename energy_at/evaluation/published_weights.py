"""The network of a file of weights: what the file does not say is named, detected or measured."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from energy_at.config.build import keys_of, make
from energy_at.core.device import device_of
from energy_at.data import ImageData
from energy_at.evaluation.hub import SCHEME, downloaded
from energy_at.evaluation.normalization import choose_normalization, classified, drawn
from energy_at.models import Normalized
from energy_at.models.sources import SOURCES, Source, detected, options_of
from energy_at.models.weights import load_weights, tensors_of
from energy_at.runs.checkpoints import read_tensors

NORMALIZED_BY = ("dataset.mean=", "dataset.std=", "model.mean=", "model.std=")  # keys
SHORTCUTS = ("activated", "plain")  # that fit the same files


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
    content = read_tensors(downloaded(str(config.checkpoint)) if is_remote else path)
    keys = tensors_of(content, config.which)
    with keys_of(config):
        name = detected(keys) if config.source is None else config.source
        options = {} if name is None else options_of(name, keys)
    typed = [override.lstrip("+").partition("=")[0] for override in overrides]
    options = {k: v for k, v in options.items() if k in config.model and f"model.{k}" not in typed}
    config.model.update(options)
    if name is not None:
        record["code_base"] = {"name": name, **options}
        if config.source is None:
            said = ", ".join(f"{key}={value}" for key, value in options.items())
            sys.stderr.write(f"{path}: layers named as in source={name}: {said}\n")
    net = _built(config)
    has_normalization = load_weights(net, content, config.which)
    own = any(key.endswith("normalize.mean") for key in keys)
    if name is None and not own and "shortcut" in config.model and "model.shortcut" not in typed:
        measured = _measure_shortcut(config, content, data)
        record["shortcut"] = measured
        counts = ", ".join(f"{count} {kind}" for kind, count in measured["correct"].items())
        sys.stderr.write(
            f"{path}: the file does not say where its shortcuts begin: chosen "
            f"{measured['chosen']}, by correct ones of {measured['images']} images ({counts}); "
            "source=NAME or model.shortcut decides otherwise\n"
        )
        if config.model.shortcut != measured["chosen"]:
            config.model.shortcut = measured["chosen"]
            net = _built(config)
            load_weights(net, content, config.which)
    if isinstance(net, Normalized) and not has_normalization:
        data.setup()
        is_typed = any(o.lstrip("+").startswith(NORMALIZED_BY) for o in overrides)
        wish = config.normalize
        if wish == "auto":
            wish = "dataset" if is_typed else SOURCES.get(name or "", Source()).normalize
        with keys_of(config):
            found = choose_normalization(net, data.test, config.dataset.classes, wish)
        if found is not None:
            record["normalization"] = found.record()
            sys.stderr.write(f"{path}: {found}\n")
    return net, record


def _built(config: DictConfig) -> nn.Module:
    last = config.training.channels_last
    form = torch.channels_last if last else torch.contiguous_format
    net: nn.Module = make(config.model).to(device_of(config.device), memory_format=form)
    return net


def _measure_shortcut(
    config: DictConfig, content: Mapping[str, Any], data: ImageData
) -> dict[str, Any]:
    """The shortcut with which a network classifies the most images, in any normalization.

    That of the configuration stays unless the other is better by more than two standard deviations
    of the images on which they disagree.
    """
    data.setup()
    images = drawn(data.test).to(device_of(config.device))
    hits, wanted = {}, config.model.shortcut
    for shortcut in SHORTCUTS:
        config.model.shortcut = shortcut
        other = _built(config)
        if not load_weights(other, content, config.which):
            assert isinstance(other, Normalized)
            choose_normalization(other, data.test, config.dataset.classes)
        hits[shortcut] = classified(other, images)
    config.model.shortcut = wanted
    counts = {shortcut: int(hit.sum()) for shortcut, hit in hits.items()}
    chosen = wanted
    for shortcut, hit in hits.items():
        if wanted in hits:
            disagree = int((hit != hits[wanted]).sum())
            if counts[shortcut] - counts[wanted] > 2 * disagree**0.5:
                chosen = shortcut
    return {"chosen": chosen, "correct": counts, "images": len(images)}
