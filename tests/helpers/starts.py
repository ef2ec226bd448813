"""Training images whose pixels are correlated, and draws of starts."""

import math

import torch

from energy_at.core.rng import CountedNoise
from energy_at.sampling import TrainingImages


def images_of(*counts, shape=(1, 2, 3), seed=0):
    """`counts` images of each class, whose pixels are correlated, the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    pixels, labels = [], []
    for label, count in enumerate(counts):
        mixing = torch.randn(size, size, generator=generator)
        values = 128 + 12 * torch.randn(count, size, generator=generator) @ mixing
        pixels.append(values.clamp(0, 255).to(torch.uint8).reshape(count, *shape))
        labels += [label] * count
    order = torch.randperm(len(labels), generator=generator)
    return TrainingImages(torch.cat(pixels)[order], torch.tensor(labels)[order], len(counts))


def drawn(start, label, n, images, fit, seed=0):
    return start.draw(label, torch.arange(n), CountedNoise.of(range(n), seed), images, fit)
