"""A small convolutional network without batch norm, for small images and quick work."""

from torch import Tensor, nn

from energy_at.models.layers import require_positive


class SmallCNN(nn.Module):
    """Two pairs of 3x3 convolutions with max pooling, then two linear layers.

    Takes images of 8 pixels and more: the last feature map is averaged to 2x2.
    """

    def __init__(self, *, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes, width=width)
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
