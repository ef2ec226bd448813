"""Networks of timm and torchvision, and those of a user's own, for the images of a data set."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torchvision import models as torchvision_models
from torchvision.models import WeightsEnum

from energy_at.core.extras import require_package
from energy_at.core.progress import one_line_retries
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError, Rule, integer, one_of, require
from energy_at.models.layers import Normalize, Normalized, make_convolutions_safe

READS_FILES = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


def timm(
    *,
    name: str,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    classes: int,
    size: int,
    pretrained: bool = False,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    **options: Any,
) -> Normalized:
    """A network of timm, made for images of ``size`` if its architecture fixes a size.

    Args:
        name: As timm lists it, with or without the tag of its weights.
        mean: Of each channel; with pretrained weights their own is used for colour images.
        std: The same.
        channels: Of the images.
        classes: Number of logits.
        size: Height and width of the images.
        pretrained: Start from the weights that timm publishes, which are downloaded once.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth.
        options: Further arguments of the architecture, such as ``patch_size=4``.

    Raises:
        ImportError: if timm is missing.
        ValueError: if the network is unknown, or refuses an argument.
    """
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    require_ranges("models.timm", pretrained=pretrained, **rates)
    _require_timm("timm")
    import timm as library  # takes a second

    known = library.list_models() + library.list_pretrained()
    # never hf-hub: or local-dir:, whose weights could run code
    require(Rule("the name of a network of timm", known.__contains__, tuple(known)), name=name)
    if found := sorted(READS_FILES & options.keys()):
        raise ArgumentError(found[0], options[found[0]], "left out: init=FILE loads weights safely")
    about = library.get_pretrained_cfg(name)
    if about is not None and about.fixed_input_size:
        options.setdefault("img_size", size)
    options |= {key: rate for key, rate in rates.items() if rate}
    options |= {"in_chans": channels, "num_classes": classes}
    with _refusals_of_library(name), one_line_retries():
        net: Any = library.create_model(name, pretrained=pretrained, **options)
    if pretrained and channels == len(net.pretrained_cfg["mean"]):
        mean, std = net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
    return _normalized(net, mean, std)


def mlp_mixer(
    *,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    classes: int,
    size: int,
    patch_size: int = 4,
    width: int = 512,
    depth: int = 8,
) -> Normalized:
    """An MLP-Mixer (Tolstikhin et al., 2021) of timm; those that timm names fix larger patches.

    Args:
        mean: Of each channel.
        std: The same.
        channels: Of the images.
        classes: Number of logits.
        size: Height and width of the images, a multiple of ``patch_size``.
        patch_size: Height and width of a patch.
        width: Channels of a patch.
        depth: Blocks.

    Raises:
        ImportError: if timm is missing.
        ValueError: if an argument is out of range.
    """
    require_ranges("models.mlp_mixer", width=width, depth=depth)
    fits = Rule(
        f"an integer >= 1 of which the image size, {size}, is a multiple",
        lambda value: integer(1).holds(value) and size % value == 0,
    )
    require(fits, patch_size=patch_size)
    _require_timm("mlp_mixer")
    from timm.models.mlp_mixer import MlpMixer

    net = MlpMixer(classes, size, channels, patch_size, num_blocks=depth, embed_dim=width)
    return _normalized(net, mean, std)


def _require_timm(model: str) -> None:
    require_package("timm", "timm", f"model={model}")


def torchvision(
    *,
    name: str,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    classes: int,
    size: int,
    **options: Any,
) -> Normalized:
    """A classifier of torchvision; grey images are given to its three channels.

    Args:
        name: As torchvision lists it.
        mean: Of each channel.
        std: The same.
        channels: 1 or 3, of the images.
        classes: Number of logits.
        size: Height and width of the images.
        options: Further arguments of the architecture, such as ``stochastic_depth_prob=0.1``.

    Raises:
        ValueError: if the network is unknown, or refuses an argument.
    """
    require(one_of(*torchvision_models.list_models(torchvision_models)), name=name)
    require(Rule("1 or 3", (1, 3).__contains__), channels=channels)
    if found := sorted({"weights", "weights_backbone", "progress"} & options.keys()):
        raise ArgumentError(found[0], options[found[0]], "left out: init=FILE loads weights")
    if name.startswith("vit_"):
        options.setdefault("image_size", size)
    if name in ("googlenet", "inception_v3"):  # their second outputs are for other losses
        options |= {"aux_logits": False, "init_weights": True}
    with _refusals_of_library(name):
        net = torchvision_models.get_model(name, weights=None, num_classes=classes, **options)
    if ignored := sorted(options.keys() - _arguments(type(net))):
        raise ArgumentError(ignored[0], options[ignored[0]], f"left out: {name} takes none")
    # mean and std of three channels make three of a grey image
    repeat = 3 // channels
    return _normalized(net, list(mean) * repeat, list(std) * repeat)


@contextmanager
def without_published() -> Iterator[None]:
    """Builds networks as their arguments say, but with none of the weights these would load.

    Published weights decide more of a network than its values, such as its image size.
    """
    kept = WeightsEnum.get_state_dict, nn.Module.load_state_dict
    WeightsEnum.get_state_dict = lambda *_, **__: {}
    nn.Module.load_state_dict = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        WeightsEnum.get_state_dict, nn.Module.load_state_dict = kept  # type: ignore[method-assign]


def _arguments(kind: type[nn.Module]) -> set[str]:
    """Of a network of torchvision and the functions that make it; some ignore all others."""
    functions = inspect.getmembers(inspect.getmodule(kind), inspect.isfunction)
    makers: list[Callable[..., Any]] = [kind, *(function for _, function in functions)]
    return {argument for one in makers for argument in inspect.signature(one).parameters}


def custom(
    *,
    net: Callable[..., Any],
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    classes: int,
    size: int,
    target: str | None = None,
) -> Normalized:
    """A user's own network behind the normalization of the data set.

    Lazy layers are given their sizes by images of zeros.

    Args:
        net: Class or function; of ``channels``, ``classes`` and ``size`` it gets those that it
            takes.
        mean: Of each channel.
        std: The same.
        channels: Of the images.
        classes: Number of logits.
        size: Height and width of the images.
        target: The name of ``net``, for messages.

    Raises:
        ValueError: if it is no network.
    """
    given = getattr(net, "keywords", {})
    takes = inspect.signature(getattr(net, "func", net)).parameters
    if all(one.kind is not one.VAR_KEYWORD for one in takes.values()):
        for key in given.keys() - takes.keys():
            raise ArgumentError(f"net.{key}", given[key], f"left out: {target} takes none")
    about = {"channels": channels, "classes": classes, "size": size}
    made = net(**{key: about[key] for key in about.keys() & (takes.keys() - given.keys())})
    if not isinstance(made, nn.Module):
        must = f"a torch.nn.Module, or a function that returns one: it returns {type(made)}"
        raise ArgumentError("target", target, must)
    normalized = _normalized(made, mean, std)
    if any(is_lazy(parameter) for parameter in made.parameters()):
        training = made.training
        with torch.no_grad():
            normalized.eval()(torch.zeros(2, channels, size, size))
        made.train(training)
        normalized.train()
    return normalized


@contextmanager
def _refusals_of_library(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each architecture raises its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError("name", name, f"a network that can be made so: {reason}") from error


def _normalized(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Normalized:
    make_convolutions_safe(net)
    return Normalized(Normalize(mean, std), net)
