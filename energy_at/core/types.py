"""Tensor types of the signatures in this package."""

from collections.abc import Callable

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]  # pixels in [0, 1]
Pixels = UInt8[Tensor, "batch channel height width"]  # as stored, 0 to 255
Logits = Float[Tensor, "batch classes"]
Labels = Int[Tensor, " batch"]
Targets = Float[Tensor, "batch classes"]  # a probability for each class
PerExample = Float[Tensor, " batch"]
Scalar = Float[Tensor, ""]

Classifier = Callable[[Images], Logits]
