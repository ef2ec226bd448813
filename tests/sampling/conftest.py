"""A run that was sampled with everything."""

import shutil
import sys

import pytest

from energy_at import sample
from energy_at.sampling import output
from tests.helpers.samples import QUICK, quick_classifier
from tests.helpers.wandb_files import without_key


@pytest.fixture
def without_figures(monkeypatch):
    """They take longer than everything else, and are looked at in tests of their own."""
    monkeypatch.setattr(output, "_figures", lambda *_: {})


@pytest.fixture(scope="package")
def done(trained_digits, tmp_path_factory):
    """A run that was sampled with everything, and what was said."""
    folder = tmp_path_factory.mktemp("sampled")
    shutil.copytree(trained_digits, folder / "run")
    argv = ["run=run", "n=70", "quality=classifier", "out=made", "logger=wandb", *QUICK]
    with pytest.MonkeyPatch.context() as patch:
        without_key(patch, folder / "home")
        patch.chdir(folder)
        quick_classifier(patch)
        patch.setattr(sys, "argv", ["sample", *argv])
        sample.main()
    return folder


@pytest.fixture
def made(done, monkeypatch):
    monkeypatch.chdir(done)
    return done / "made"
