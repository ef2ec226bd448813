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
    out = output_file(cfg) or Path(str(cfg.run)) / f"{cfg.which}.safetensors"
    return f"written to {export(cfg.run, cfg.which, out)}"


def export(run: str | Path, which: str, out: Path) -> Path:
    """Writes the network of a run, its normalization and what it is; replaces ``out`` as a whole.

    ``python -m energy_at.evaluate checkpoint=FILE model=...`` takes the file, as does
    ``energy_at.models.weights.load_weights``.
    """
    from safetensors.torch import save

    from energy_at.config.build import reopen
    from energy_at.models.weights import exported
    from energy_at.runs.folder import RunFolder

    folder = RunFolder.open(run)
    cfg = folder.config()
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
