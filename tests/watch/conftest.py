import pytest

from tests.helpers.running import TINY, config

RUN = (*TINY, "trainer.max_epochs=3", "dataset.batch_size=16", "reg=der")


@pytest.fixture(scope="session")
def composed():
    return config(*RUN)


@pytest.fixture
def begun(here, composed):
    from tests.helpers.watching import begin  # after the hook that checks types

    return begin(here / "run", composed)
