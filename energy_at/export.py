"""The weights of a run, with its normalization, as one safetensors file.

python -m energy_at.export run=FOLDER
python -m energy_at.export run=FOLDER which=best out=model.safetensors
"""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from energy_at import __version__
from energy_at.config.cli import command, output_file
from energy_at.core.files import write_atomic


@command("export")
def main(cfg: DictConfig) -> str:
    if cfg.run is None:
        raise ValueError("run= names no run: write run=FOLDER")
    run, which = str(cfg.run), cfg.which or "last"
    out = output_file(cfg) or Path(run) / f"{which}.safetensors"
    return f"written to {export(run, which, out)}"


def export(run: str | Path, which: str, out: Path) -> Path:
    """Writes the network of a run, its normalization and what it is; replaces ``out`` as a whole.

    ``python -m energy_at.evaluate checkpoint=FILE model=...`` takes the file, as does
    ``energy_at.models.weights.load_weights``.
    """
    from energy_at.runs.folder import RunFolder

    folder = RunFolder.open(run)
    cfg = folder.config()

    from safetensors.torch import save  # after the run was found: torch takes seconds

    from energy_at.config.build import reopen
    from energy_at.models.weights import exported

    module, _ = reopen(folder, which)
    about = {
        "energy_at": __version__,
        "dataset": str(cfg.dataset.name),
        "model": json.dumps(OmegaConf.to_container(cfg.model)),
        "checkpoint": which,
    }
    # Not by save_file, which leaves it readable to its owner alone.
    write_atomic(out, save(exported(module.net), metadata=about))
    return out


if __name__ == "__main__":
    main()
