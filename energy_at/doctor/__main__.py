"""Checks of this installation, with remedies: ``python -m energy_at.doctor``.

Exit code 1 if a check fails; nothing is written but ``out``.
"""

import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from energy_at.config.cli import command, quieten
from energy_at.config.keys import choices_of
from energy_at.core.files import write_atomic
from energy_at.doctor.findings import Checks, as_json, row, run_check, summary


def collect_checks(datasets: Sequence[str], root: Path) -> Checks:
    """Every check by its name; a module that cannot be imported fails as one check."""
    checks: Checks = {}
    for subject in ("installation", "smoke", "data"):
        try:
            module = import_module(f"energy_at.doctor.{subject}")
            checks |= module.checks(datasets, root) if subject == "data" else module.checks()
        except Exception as error:  # the other checks do not depend on it
            checks[subject] = partial(_raise, error)
    return checks


def _raise(error: Exception) -> NoReturn:
    raise error


@command("doctor")
def main(cfg: DictConfig) -> None:
    start = time.perf_counter()
    datasets = [cfg.dataset.name] if "name" in cfg.dataset else list(choices_of("dataset"))
    checks = collect_checks(datasets, Path(cfg.dataset.root).expanduser())
    quieten()  # the checks have imported Lightning
    findings = []
    for check in checks:
        findings.append(run_check(check, checks[check]))
        if not cfg.json:
            print(row(findings[-1], max(map(len, checks))), flush=True)
    seconds = time.perf_counter() - start
    print(as_json(findings, seconds) if cfg.json else summary(findings, seconds))
    if cfg.out is not None:
        try:
            write_atomic(Path(str(cfg.out)), as_json(findings, seconds) + "\n")
        except OSError as error:
            raise ValueError(f"cannot write out={cfg.out}: {error.strerror}") from error
    if any(finding.status == "fail" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
