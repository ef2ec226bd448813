"""One decorator for all commands: their help, and where flags may stand."""

import pytest

from energy_at import evaluate, report, train
from tests.helpers.running import typed


@pytest.mark.parametrize("entry", [train, evaluate, report])
def test_help_shows_an_example(entry, monkeypatch, capsys):
    code, out, _ = typed(monkeypatch, capsys, entry.main, "--help")
    assert code == 0
    assert f"python -m {entry.__name__} " in out


@pytest.mark.usefixtures("here")
def test_the_flag_of_a_sweep_may_stand_anywhere(type_train):
    _, _, err = type_train("reg=none", "-m", "hydra.run.dir=x", "seed=0,1")
    assert err.startswith("error: hydra.run.dir=x is where a single run is written")
