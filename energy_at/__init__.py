"""Adversarial training of image classifiers seen through energy-based models."""

__version__ = "0.1.0"
