"""IS, FID, KID, precision and recall, computed by torch-fidelity.

IS: Salimans et al., 2016. FID: Heusel et al., 2017; lower is better, and it falls with the number
of images. KID: Binkowski et al., 2018; lower is better. Precision and recall: Kynkaanniemi et al.,
2019.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from tqdm import tqdm

from energy_at.core.types import Pixels
from energy_at.sampling.quality.extractors import ExtractorModule

MIN_IMAGES = 50  # for a covariance
KID_SUBSET = 1000  # torch-fidelity's default; smaller for fewer images
BATCH = 64


@dataclass(frozen=True)
class Features:
    """Logits and features of a set of images; rows are images."""

    logits: Float[Tensor, "images classes"]
    values: Float[Tensor, "images features"]

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> "Features":
        return Features(self.logits[:n], self.values[:n])


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images against a reference set.

    Attributes:
        inception_score: Mean over ten parts, by the classes of the extractor.
        inception_score_std: Standard deviation over the parts.
        fid: Frechet distance.
        kid: Kernel distance, mean over subsets.
        kid_std: Standard deviation over the subsets.
        precision: Share of the images within the manifold of the reference.
        recall: Share of the reference within the manifold of the images.
        images: Number of images.
        reference: Number of reference images.
        kid_subset: Number of images in a subset of KID.
        full_rank: Whether both sets have more images than features. If not, FID is far above its
            limit, and only sets of the same size are comparable.
    """

    inception_score: float
    inception_score_std: float
    fid: float
    kid: float
    kid_std: float
    precision: float
    recall: float
    images: int
    reference: int
    kid_subset: int
    full_rank: bool


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
    extractor: ExtractorModule, pixels: Pixels, device: torch.device, *, label: str, progress: bool
) -> Features:
    """Logits and features of images; the channel of grey images is repeated three times."""
    found = []
    with (
        torch.no_grad(),
        tqdm(total=len(pixels), desc=label, unit="img", leave=False, disable=not progress) as bar,
    ):
        for part in torch.split(pixels, BATCH):
            rgb = part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part
            outputs = extractor.module(rgb.to(device).contiguous())
            found.append([values.float().cpu() for values in outputs])
            bar.update(len(part))
    return Features(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def compute_scores(features: Features, reference: Features) -> Scores:
    """All scores of a set of images against a reference set.

    Raises:
        ValueError: if a set has fewer than ``MIN_IMAGES`` images.
    """
    require_enough(len(features), len(reference))
    subset = min(KID_SUBSET, len(features), len(reference))
    settings = {"verbose": False, "kid_subset_size": subset}
    isc = isc_features_to_metric(features.logits)
    statistics = [fid_features_to_statistics(each.values) for each in (features, reference)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)
    kid = kid_features_to_metric(features.values, reference.values, **settings)
    prc = prc_features_to_metric(features.values, reference.values, **settings)
    return Scores(
        isc["inception_score_mean"],
        isc["inception_score_std"],
        fid["frechet_inception_distance"],
        kid["kernel_inception_distance_mean"],
        kid["kernel_inception_distance_std"],
        prc["precision"],
        prc["recall"],
        len(features),
        len(reference),
        subset,
        min(len(features), len(reference)) > features.values.shape[1],
    )
