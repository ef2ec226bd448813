"""Keys that nobody reads, and flags of a sweep."""

import pytest

from tests.helpers.running import ONE_EPOCH

pytestmark = pytest.mark.usefixtures("here")


def test_a_misspelt_key_is_not_advised_with_a_plus(type_train):
    _, _, err = type_train(*ONE_EPOCH, "reg=der", "reg.wieght=1")
    assert "did you mean reg.weight" in err
    assert "+" not in err


def test_the_flag_of_a_sweep_may_stand_anywhere(type_train):
    _, _, err = type_train("reg=none", "-m", "hydra.run.dir=x", "seed=0,1")
    assert err.startswith("error: hydra.run.dir=x is where a single run is written")
