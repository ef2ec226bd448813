"""The weights that ``init=FILE|RUN`` names, to start a training from."""

from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from energy_at.core.files import is_first, sha256
from energy_at.core.progress import write_line
from energy_at.models.weights import start_from
from energy_at.runs.checkpoints import read_tensors
from energy_at.runs.folder import RunFolder


def load_initial(cfg: DictConfig, net: nn.Module) -> None:
    """Loads the weights of ``init``, if there are any, and writes their digest into ``cfg``.

    A run stands for its last checkpoint.

    Raises:
        FileNotFoundError: if the file or the run does not exist.
        ValueError: if the weights do not fit, or are not those of a digest in ``cfg``.
    """
    if cfg.get("init") is None:
        return
    path = Path(str(cfg.init)).expanduser()
    if path.is_dir():
        path = RunFolder.open(path).checkpoint("last")
    if not path.is_file():
        raise FileNotFoundError(f"init={cfg.init} must be a file of weights or the folder of a run")
    found = sha256(path.read_bytes())
    if cfg.init_sha256 not in (None, found):
        raise ValueError(
            f"init_sha256={cfg.init_sha256} must be the digest of {path}, which is {found}: "
            "the file has changed"
        )
    try:
        reset = start_from(net, read_tensors(path))
    except ValueError as error:
        raise ValueError(f"init={cfg.init}: {error}") from error
    cfg.init_sha256 = found
    if is_first():
        head = f"; other classes: {', '.join(reset)} start anew" if reset else ""
        write_line(f"init     {path}, SHA-256 {found[:12]}{head}")
