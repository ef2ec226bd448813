import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("energy_at", "beartype.beartype")

from tests.nets import TinyNet  # noqa: E402


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return TinyNet()


@pytest.fixture
def batch():
    return torch.rand(6, 3, 8, 8), torch.arange(6) % 4
