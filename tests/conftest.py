import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.helpers import checker

checker.install()

from tests.helpers import compositions  # noqa: E402
from tests.helpers.nets import TinyNet  # noqa: E402

compositions.install()
torch.set_num_threads(1)  # tensors this small wait for threads longer than they compute


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(items):
    """Tests that share what takes long to make run in one process, where there are several.

    Of what is typed with many values the first eight are in the suite, the others slow tests.
    """
    typed = Counter()
    for item in items:
        typed[item.nodeid.partition("[")[0]] += 1
        types = any(name.startswith("type_") for name in item.fixturenames)
        if types and typed[item.nodeid.partition("[")[0]] > 8:
            item.add_marker(pytest.mark.slow)
        shared = [found[-1] for found in item._fixtureinfo.name2fixturedefs.values()]
        groups = [one.baseid for one in shared if one.scope == "package"]
        groups += [item.module.__name__ for one in shared if one.scope == "module"]
        if groups:
            item.add_marker(pytest.mark.xdist_group(groups[0]))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Decoded images and classifiers stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def forget_interrupts():
    """Handles Ctrl-C as before afterwards, and forgets that it was pressed."""
    from energy_at.core.interrupt import remember_interrupts  # after the hook that checks types

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of xdist ignore it
    yield
    remember_interrupts()
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def type_train(monkeypatch, capsys):
    """Types a training; returns exit code, standard output and standard error."""
    from energy_at import train  # takes seconds, and most tests type none
    from tests.helpers.running import typed

    return lambda *argv: typed(monkeypatch, capsys, train.main, *argv)


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory):
    """The folder of a finished run."""
    from tests.helpers.digits_net import digits_run  # after the hook that checks types

    return digits_run(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def digits_run(trained_digits, here):
    """A copy of it, in the working directory."""
    return Path(shutil.copytree(trained_digits, "run"))


@pytest.fixture
def type_evaluate(monkeypatch, capsys):
    from energy_at import evaluate
    from tests.helpers.running import typed

    return lambda *argv: typed(monkeypatch, capsys, evaluate.main, *argv)


@pytest.fixture
def type_sample(monkeypatch, capsys):
    """Types a sampling; its classifier learns for a moment only."""
    from energy_at import sample
    from tests.helpers.running import typed
    from tests.helpers.samples import quick_classifier

    quick_classifier(monkeypatch)
    return lambda *argv: typed(monkeypatch, capsys, sample.main, *argv)


@pytest.fixture(scope="session")
def untrained_runs(tmp_path_factory):
    """A folder of runs that were trained for no step."""
    from tests.helpers.analyses import untrained_runs

    return untrained_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def type_analyse(untrained_runs, here, monkeypatch, capsys):
    """Types an analysis in a working directory with these runs."""
    from energy_at import analyse
    from tests.helpers.running import typed

    shutil.copytree(untrained_runs, here, dirs_exist_ok=True)
    return lambda *argv: typed(monkeypatch, capsys, analyse.main, *argv)


@pytest.fixture
def net():
    return TinyNet()


@pytest.fixture
def batch():
    return torch.rand(6, 3, 8, 8), torch.arange(6) % 4
