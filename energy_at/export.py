"""The weights of a run, with its normalization, as a safetensors file or a folder for the Hub.

python -m energy_at.export run=FOLDER which=best out=model.safetensors
python -m energy_at.export run=FOLDER format=hub out=DIR
"""

from pathlib import Path

from omegaconf import DictConfig

from energy_at.config.cli import command, output_file
from energy_at.core.rules import one_of, require

_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".onnx", ".bin", ".zip")


@command("export")
def main(cfg: DictConfig) -> str:
    if cfg.run is None:
        raise ValueError("run= names no run: write run=FOLDER")
    require(one_of("safetensors", "hub"), format=cfg.format)
    require(one_of("fp32", "bf16"), dtype=cfg.dtype)
    run, which, hub = str(cfg.run), cfg.which or "last", cfg.format == "hub"
    out = (cfg.out and Path(str(cfg.out))) if hub else output_file(cfg)
    out = out or Path(run, f"hub-{which}" if hub else f"{which}.safetensors")
    if not hub and out.suffix != ".safetensors":
        raise ValueError(f"out={out} must end in .safetensors, the format that is written")
    if hub and out.suffix in _FILES:
        raise ValueError(f"out={out} must be a folder, as format=hub writes several files")
    from energy_at.runs.folder import RunFolder

    folder = RunFolder.open(run)
    from energy_at.evaluation.hub import export  # after the run was found: torch takes seconds

    return f"written to {export(folder, which, out, hub=hub, dtype=cfg.dtype)}"


if __name__ == "__main__":
    main()
