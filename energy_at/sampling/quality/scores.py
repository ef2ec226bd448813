"""IS, FID, KID, precision and recall, as torch-fidelity computes them.

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

FEWEST = 50  # images: below, a covariance says nothing
KID_SUBSET = 1000  # torch-fidelity's own; fewer where there are fewer images
BATCH = 64


@dataclass(frozen=True)
class Features:
    """What an extractor sees in a set of images; rows are images."""

    logits: Float[Tensor, "images classes"]
    values: Float[Tensor, "images features"]

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> "Features":
        """Those of the first images."""
        return Features(self.logits[:n], self.values[:n])


@dataclass(frozen=True)
class Scores:
    """How a set of images compares with a reference.

    Attributes:
        inception_score: Mean over ten parts; whatever the extractor, by its classes.
        inception_score_std: Over the parts.
        fid: Frechet distance.
        kid: Kernel distance, mean over subsets.
        kid_std: Over the subsets.
        precision: Share of the images that lie among the reference.
        recall: Share of the reference that lies among the images.
        images: Number of images.
        reference: Number of images of the reference.
        kid_subset: Images of a subset of KID.
        full_rank: Whether there are more images than features on both sides. If not, FID is far
            above its limit and compares only sets of the same size.
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
    """Refuses to compare a handful.

    Raises:
        ValueError: if there are too few images for a covariance.
    """
    for what, count in {"image": images, "reference image": reference}.items():
        if count < FEWEST:
            few = f"1 {what} is" if count == 1 else f"{count} {what}s are"
            raise ValueError(
                f"{few} too few for FID: it takes at least {FEWEST}, and thousands to mean "
                "something; raise n, or quality=none"
            )


def features_of(
    extractor: ExtractorModule, pixels: Pixels, device: torch.device, *, label: str, progress: bool
) -> Features:
    """What the extractor sees; grey images are shown in three equal channels."""
    found: dict[str, list[Tensor]] = {extractor.logits: [], extractor.features: []}
    names = extractor.module.get_requested_features_list()  # type: ignore[operator]
    with (
        torch.no_grad(),
        tqdm(total=len(pixels), desc=label, unit="img", leave=False, disable=not progress) as bar,
    ):
        for part in torch.split(pixels, BATCH):
            shown = part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part
            values = extractor.module(shown.to(device).contiguous())
            for name, value in zip(names, values, strict=True):
                found[name].append(value.float().cpu())
            bar.update(len(part))
    return Features(torch.cat(found[extractor.logits]), torch.cat(found[extractor.features]))


def scores(found: Features, reference: Features) -> Scores:
    """All scores of a set of images against a reference.

    Raises:
        ValueError: if there are too few images.
    """
    require_enough(len(found), len(reference))
    subset = min(KID_SUBSET, len(found), len(reference))
    settings = {"verbose": False, "kid_subset_size": subset}
    isc = isc_features_to_metric(found.logits)
    fid = fid_statistics_to_metric(*map(_statistics, (found, reference)), verbose=False)
    kid = kid_features_to_metric(found.values, reference.values, **settings)
    prc = prc_features_to_metric(found.values, reference.values, **settings)
    return Scores(
        isc["inception_score_mean"],
        isc["inception_score_std"],
        fid["frechet_inception_distance"],
        kid["kernel_inception_distance_mean"],
        kid["kernel_inception_distance_std"],
        prc["precision"],
        prc["recall"],
        len(found),
        len(reference),
        subset,
        min(len(found), len(reference)) > found.values.shape[1],
    )


def _statistics(found: Features) -> dict[str, object]:
    return fid_features_to_statistics(found.values)  # type: ignore[no-any-return]
