"""One table and one figure of several runs.

``python -m energy_at.report runs=[A,B] out=FOLDER``
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig

from energy_at.figures import delta_energy_figure, save
from energy_at.mistakes import CONF, command_line, one_line_errors
from energy_at.runs import RunFolder
from energy_at.tables import results_table


def report(folders: list[RunFolder], out: Path) -> str:
    """Writes table (Markdown, CSV) and figure (PNG, PDF) to ``out``; returns the table."""
    if not folders:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    table = results_table(folders)
    names = [folder.path.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder in folders]
    metrics = [folder.metrics() for folder in folders]
    figure = delta_energy_figure(dict(zip(names, metrics, strict=True)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table.markdown() + "\n")
    (out / "table.csv").write_text(table.csv())
    save(figure, out / "delta_energy")
    return table.markdown()


@hydra.main(version_base="1.3", config_path=CONF, config_name="report")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    with one_line_errors():
        names = list(cfg.runs) if isinstance(cfg.runs, ListConfig) else [cfg.runs]
        print(report([RunFolder.open(name) for name in names], Path(cfg.out)))
        print(f"written to {cfg.out}/: table.md, table.csv, delta_energy.png, delta_energy.pdf")


if __name__ == "__main__":
    command_line(main)
