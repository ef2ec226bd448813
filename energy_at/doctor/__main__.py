"""Checks this installation on this machine.

Versions, extras, cores, GPU, W&B, a training of two steps, data sets. One line each, pass, warn or
fail, with the remedy; exit code 1 if a check fails.

    python -m energy_at.doctor
    python -m energy_at.doctor dataset.root=FOLDER
    python -m energy_at.doctor dataset=cifar10 dataset.root=FOLDER json=true
    python -m energy_at.doctor out=doctor.json
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from omegaconf import DictConfig

from energy_at.config.cli import command, output_file, quieten
from energy_at.config.keys import choices_of
from energy_at.core.files import write_atomic
from energy_at.doctor import Status, collect_checks, run_check

OWN = ("folder", "huggingface", "npz")  # images of the user's: looked for where they are named


@command("doctor")
def main(cfg: DictConfig) -> None:
    start, out = time.perf_counter(), output_file(cfg)
    all_of_them = [name for name in choices_of("dataset") if name not in OWN]
    datasets = [cfg.dataset] if "name" in cfg.dataset else all_of_them
    checks = collect_checks(datasets, Path(cfg.dataset.root).expanduser())
    quieten()  # the checks have imported Lightning
    width = max(map(len, checks))
    findings = []
    for check in checks:
        findings.append(found := run_check(check, checks[check]))
        if not cfg.json:
            print(f"{found.status:4}  {check:{width}}  {found.message}", flush=True)
            if found.remedy:
                print(f"{'':4}  {'':{width}}  remedy: {found.remedy}", flush=True)
    seconds = time.perf_counter() - start
    counts = {status: sum(f.status == status for f in findings) for status in get_args(Status)}
    report = {**counts, "seconds": round(seconds, 2), "checks": list(map(asdict, findings))}
    text = json.dumps(report, indent=2)
    summary = ", ".join(f"{number} {status}" for status, number in counts.items())
    print(text if cfg.json else f"{summary} in {seconds:.1f} s")
    if out is not None:
        write_atomic(out, text + "\n")
    if counts["fail"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
