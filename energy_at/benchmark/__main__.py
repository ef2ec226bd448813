"""Measures how fast this machine trains, evaluates and samples.

Our code and plain PyTorch loops as published, in alternation, with the FLOPs of each.

    python -m energy_at.benchmark
    python -m energy_at.benchmark model.width=64 dataset.batch_size=128 scenarios=[fgsm_der,trades]
    python -m energy_at.benchmark rows=[reference,bare,full] clock=cpu threads=1 repeats=5

Scenarios: fgsm fgsm_der fgsm_der_inactive rs_fgsm_der n_fgsm_der gradalign pgd trades
trades_der evaluation sampling scaling
Rows: reference torchattacks foolbox bare full
"""

from pathlib import Path

from omegaconf import DictConfig

from energy_at.config.cli import command
from energy_at.core.files import require_writable, staged


@command("benchmark", on_interrupt="finished scenarios are in {out}")
def main(cfg: DictConfig) -> str:
    """Measure every scenario, writing after each; returns the table and where the files are."""
    import torch

    from energy_at.benchmark.measure import (
        FILES,
        Result,
        describe_machine,
        measure_scenario,
        summary,
        table,
        write,
    )
    from energy_at.benchmark.scenarios import Setting
    from energy_at.core.device import device_of, keep_freed_memory
    from energy_at.reporting.describe import setting as describe_setting

    require_writable("out", cfg.out)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    if cfg.training.keep_memory:
        keep_freed_memory()
    setting = Setting.of(cfg, device_of(cfg.device))
    about = {
        "machine": describe_machine(setting.device),
        "network": describe_setting([cfg]),
        "settings": setting.summary,
    }
    results: list[Result] = []
    for scenario in setting.scenarios:
        results += measure_scenario(setting, scenario)
        with staged(Path(str(cfg.out))) as part:
            write(results, about, part)
    text = f"{table(results).markdown()}\n\n{summary(results, about)}"
    return f"{text}\nwritten to {cfg.out}/: {', '.join(FILES)}"


if __name__ == "__main__":
    main()
