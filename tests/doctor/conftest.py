import pytest


@pytest.fixture(autouse=True)
def alone(tmp_path, tmp_path_factory, monkeypatch):
    """An empty folder, and nobody's W&B; libraries may cache at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
