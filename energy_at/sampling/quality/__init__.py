"""Quality and variety of sets of images: IS, FID, KID, precision and recall."""

from energy_at.sampling.quality.extractors import (
    Classifier,
    EfficientNetLite0,
    Extractor,
    ExtractorModule,
    Inception,
    NoExtractor,
)
from energy_at.sampling.quality.scores import (
    MIN_IMAGES,
    Features,
    Scores,
    compute_scores,
    extract_features,
    require_enough,
)

__all__ = [
    "MIN_IMAGES",
    "Classifier",
    "EfficientNetLite0",
    "Extractor",
    "ExtractorModule",
    "Features",
    "Inception",
    "NoExtractor",
    "Scores",
    "compute_scores",
    "extract_features",
    "require_enough",
]
