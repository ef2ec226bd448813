"""What keeps a sampler honest: other sets of images, distances to the training set, a judge."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from energy_at.core.types import Labels
from energy_at.data import ImageSet
from energy_at.sampling import TrainingImages
from energy_at.sampling.samples import Samples
from energy_at.sampling.training_images import as_rows, embed

SAMPLES, START, HELD_OUT, MEANS = "samples", "start alone", "held-out images", "class means"
MOST = 2000  # images whose nearest training image is looked for, and of a class whose pairs count
CHUNK = 2048


def sets(samples: Samples, held_out: ImageSet, means: Tensor, seed: int) -> dict[str, ImageSet]:
    """The samples, and the sets that they are to be compared with.

    Args:
        samples: Finished.
        held_out: Real images that nothing was fitted to; as many as there are samples are drawn,
            or all if there are fewer.
        means: Mean image of every class, as bytes; each sample's class has its own.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(held_out), generator=generator)[: len(samples)].sort().values
    return {
        SAMPLES: ImageSet(samples.pixels, samples.label),
        START: ImageSet(samples.start, samples.label),
        HELD_OUT: held_out.take(drawn),
        MEANS: ImageSet(means[samples.label], samples.label),
    }


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each image, by pixels.

    Attributes:
        distances: L2, in units of the pixel range.
        places: Of the training images.
    """

    distances: Float[Tensor, " images"]
    places: Labels


def nearest(images: ImageSet, training: TrainingImages, label: str, *, progress: bool) -> Nearest:
    """The nearest training image of each of the first ``MOST`` images, whatever its class."""
    device = training.pixels.device
    rows = as_rows(images.pixels[:MOST].to(device))
    best = torch.full((len(rows),), torch.inf, device=device)
    places = torch.zeros(len(rows), dtype=torch.long, device=device)
    chunks = range(0, len(training.labels), CHUNK)
    for first in tqdm(chunks, desc=label, leave=False, disable=not progress):
        found = torch.cdist(rows, as_rows(training.pixels[first : first + CHUNK])).min(1)
        closer = found.values < best
        best = torch.where(closer, found.values, best)
        places = torch.where(closer, found.indices + first, places)
    # Matrix products find the place; of near images, they lose the distance.
    exact = [
        torch.linalg.vector_norm(part - as_rows(training.pixels[at]), dim=1)
        for part, at in zip(torch.split(rows, CHUNK), torch.split(places, CHUNK), strict=True)
    ]
    return Nearest(torch.cat(exact).cpu(), places.cpu())


def variety(images: ImageSet) -> float | None:
    """Mean L2 distance between two images of a class, over the classes; in pixel units.

    ``None`` if no class has two images.
    """
    found = []
    for label in torch.unique(images.labels).tolist():
        rows = as_rows(images.pixels[images.labels == label][:MOST])
        if len(rows) > 1:
            found.append(torch.pdist(rows).mean())
    return float(torch.stack(found).mean()) if found else None


def judged(judge: nn.Module | None, images: ImageSet, *, channels_last: bool) -> float | None:
    """Share of images that the judge takes for their class; ``None`` without a judge."""
    if judge is None:
        return None
    device = next(judge.parameters()).device
    logits, _ = embed(judge, images.pixels.to(device), channels_last=channels_last)
    return float((logits.argmax(1).cpu() == images.labels).float().mean())


def copied(ours: Nearest, real: Nearest) -> float:
    """Share of images that are nearer to a training image than 99 of 100 held-out images are.

    0.01 for a sampler that copies no more than nature does.
    """
    return float((ours.distances < real.distances.quantile(0.01)).float().mean())
