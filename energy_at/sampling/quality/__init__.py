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
    FEWEST,
    Features,
    Scores,
    features_of,
    require_enough,
    scores,
)

__all__ = [
    "FEWEST",
    "Classifier",
    "EfficientNetLite0",
    "Extractor",
    "ExtractorModule",
    "Features",
    "Inception",
    "NoExtractor",
    "Scores",
    "features_of",
    "require_enough",
    "scores",
]
