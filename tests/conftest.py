import pytest
import torch
from jaxtyping import install_import_hook

import tests.checker  # noqa: F401  the hook names it

install_import_hook("energy_at", "tests.checker.checked")

from tests.nets import TinyNet  # noqa: E402

torch.set_num_threads(1)  # tensors this small wait for threads longer than they compute


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return TinyNet()


@pytest.fixture
def batch():
    return torch.rand(6, 3, 8, 8), torch.arange(6) % 4
