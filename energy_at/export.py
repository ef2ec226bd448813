"""The weights of a run as one safetensors file: ``python -m energy_at.export run=FOLDER``."""

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import save

import energy_at
from energy_at.config import CONF
from energy_at.config.build import register_resolvers, reopened
from energy_at.config.cli import command_line, one_line_errors, require_read
from energy_at.config.schema import check
from energy_at.core.files import write_atomic
from energy_at.models import Normalized
from energy_at.models.weights import exported
from energy_at.runs.folder import RunFolder

register_resolvers()


def export(run: str | Path, which: str, out: Path) -> Path:
    """Writes the network of a run, its normalization and what it is; replaces ``out`` as a whole.

    ``python -m energy_at.evaluate checkpoint=FILE model=...`` takes the file, as does
    ``energy_at.models.weights.load_weights``.
    """
    folder = RunFolder.open(run)
    cfg = folder.config()
    module, _ = reopened(folder, which)
    about = {
        "energy_at": energy_at.__version__,
        "dataset": str(cfg.dataset.name),
        "model": json.dumps(OmegaConf.to_container(cfg.model)),
        "checkpoint": which,
    }
    if not isinstance(module.net, Normalized):
        raise ValueError("only the project's own networks are exported: normalization, then net")
    try:
        # Not by save_file, which leaves it readable to its owner alone.
        write_atomic(out, save(exported(module.net), metadata=about))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot write out={out}: {error}") from error
    return out


@hydra.main(version_base="1.3", config_path=CONF, config_name="export")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors():
        require_read(cfg)
        check(cfg)
        out = Path(str(cfg.out)) if cfg.out else Path(str(cfg.run)) / f"{cfg.which}.safetensors"
        print(f"written to {export(cfg.run, cfg.which, out)}")


if __name__ == "__main__":
    command_line(main)
