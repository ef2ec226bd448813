"""A trained network and its images, opened."""

import pytest
from hydra import compose, initialize_config_dir

from tests.helpers.running import CONF


@pytest.fixture
def subject(digits_run):
    from energy_at.evaluation import trained_model  # after the hook that checks types

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return trained_model.open_model(compose("evaluate", ["run=run", "device=cpu"]))
