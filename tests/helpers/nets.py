"""Networks small enough for unit tests."""

from torch import Tensor, nn


class TinyNet(nn.Module):
    """A classifier of 3x8x8 images into 4 classes, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
