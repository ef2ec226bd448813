"""Losses and their gradients in plain floats, image by image."""

import math

import torch

N, CLASSES, STEP = 12, 4, 1e-6
Y = torch.arange(N) % CLASSES


def logits():
    return (2 * torch.randn(N, CLASSES, dtype=torch.double)).requires_grad_()


def probabilities(f):
    total = sum(math.exp(z) for z in f)
    return [math.exp(z) / total for z in f]


def ce(f, y):
    return -math.log(probabilities(f)[y])


def slopes(value, point):
    """Central differences of ``value`` in every logit."""
    point = point.detach().clone()
    found = torch.zeros_like(point)
    for at in range(point.numel()):
        moved = point.view(-1)[at].item()
        ends = []
        for end in (moved + STEP, moved - STEP):
            point.view(-1)[at] = end
            ends.append(value(point))
        point.view(-1)[at] = moved
        found.view(-1)[at] = (ends[0] - ends[1]) / (2 * STEP)
    return found


def gradient(value, *of):
    """Of the sum of the values, zeros where there is no graph."""
    return torch.autograd.grad(value.sum(), of, allow_unused=True, materialize_grads=True)


def assert_gradient(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)
