"""The weights of a run, with its normalization, as a safetensors file or a folder for the Hub.

python -m energy_at.export run=FOLDER which=best out=model.safetensors
python -m energy_at.export run=FOLDER format=hub out=DIR
"""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from energy_at import __version__
from energy_at.config.cli import command, output_file
from energy_at.core.files import write_atomic
from energy_at.core.rules import one_of, require

_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".onnx", ".bin", ".zip")


@command("export")
def main(cfg: DictConfig) -> str:
    if cfg.run is None:
        raise ValueError("run= names no run: write run=FOLDER")
    require(one_of("safetensors", "hub"), format=cfg.format)
    run, which, hub = str(cfg.run), cfg.which or "last", cfg.format == "hub"
    out = (cfg.out and Path(str(cfg.out))) if hub else output_file(cfg)
    out = out or Path(run, f"hub-{which}" if hub else f"{which}.safetensors")
    if not hub and out.suffix != ".safetensors":
        raise ValueError(f"out={out} must end in .safetensors, the format that is written")
    if hub and out.suffix in _FILES:
        raise ValueError(f"out={out} must be a folder, as format=hub writes several files")
    return f"written to {export(run, which, out, hub=hub)}"


def export(run: str | Path, which: str, out: Path, *, hub: bool = False) -> Path:
    """Writes the network of a run, its normalization and what it is; replaces ``out`` as a whole.

    For the ``hub`` a new folder ``out``, with its configuration and a model card.

    ``evaluate checkpoint=FILE model=...`` and ``load_weights`` of ``models.weights`` take the file.
    """
    from energy_at.runs.folder import RunFolder

    cfg = (folder := RunFolder.open(run)).config()
    from safetensors.torch import save  # after the run was found: torch takes seconds

    from energy_at.config.build import reopen
    from energy_at.evaluation.hub import write_hub_folder
    from energy_at.models.weights import exported
    from energy_at.runs.checkpoints import state_digest

    module, _ = reopen(folder, which)
    about = {
        "energy_at": __version__,
        "dataset": str(cfg.dataset.name),
        "model": json.dumps(OmegaConf.to_container(cfg.model)),
        "checkpoint": which,
    }
    weights = exported(module.net)
    content = save(weights, metadata={**about, "sha256": state_digest(weights)})
    if hub:
        return write_hub_folder(folder, which, content, out)
    write_atomic(out, content)  # save_file would leave it readable to its owner alone
    return out


if __name__ == "__main__":
    main()
