"""How fast this machine trains, evaluates and samples: ``python -m energy_at.benchmark``."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from energy_at.benchmark.machine import described
from energy_at.benchmark.output import FILES, said, table, write
from energy_at.benchmark.plan import Found, Plan, compared, plan_of
from energy_at.config.cli import command
from energy_at.core.files import staged
from energy_at.evaluation.trained_model import device_of
from energy_at.reporting.describe import setting


def benchmark(plan: Plan, out: Path, *, progress: bool) -> str:
    """Measures, and writes what is measured after every scenario.

    Returns:
        The table, and where the files are.
    """
    found: list[Found] = []
    about = {
        "machine": described(plan.setting.device),
        "network": setting([plan.setting.config]),
        "settings": plan.settings,
    }
    for more in compared(plan, shown=progress):
        found += more
        with staged(out) as part:
            write(found, about, part)
    return f"{table(found).markdown()}\n\n{said(found, about)}\nwritten to {out}/: " + ", ".join(
        FILES
    )


@command("benchmark", on_interrupt="scenarios that are done are in {out}")
def main(cfg: DictConfig) -> str:
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    plan = plan_of(cfg, device_of(cfg.device))
    return benchmark(plan, Path(str(cfg.out)), progress=cfg.progress)


if __name__ == "__main__":
    main()
