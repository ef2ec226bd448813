import pytest
import torch

from tests.helpers import checker

checker.install()

from tests.helpers.nets import TinyNet  # noqa: E402

torch.set_num_threads(1)  # tensors this small wait for threads longer than they compute


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(items):
    """Tests that share what takes long to make run in one process, where there are several."""
    for item in items:
        shared = item._fixtureinfo.name2fixturedefs.values()
        if any(definitions[-1].scope == "module" for definitions in shared):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def type_train(monkeypatch, capsys):
    """Types a training; returns exit code, standard output and standard error."""
    from energy_at import train  # takes seconds, and most tests type none
    from tests.helpers.running import typed

    return lambda *argv: typed(monkeypatch, capsys, train.main, *argv)


@pytest.fixture
def net():
    return TinyNet()


@pytest.fixture
def batch():
    return torch.rand(6, 3, 8, 8), torch.arange(6) % 4
