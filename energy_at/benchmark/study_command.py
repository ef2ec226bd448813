"""The study at full size, in order of value: ``python -m energy_at.study``."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from energy_at.benchmark.machine import described
from energy_at.benchmark.study import jobs, known, work_off, write_known
from energy_at.config.cli import RERUN, command
from energy_at.evaluation.trained_model import device_of


def run(command: Sequence[str]) -> int:
    """Runs an entry in a process of its own; its exit code."""
    sys.stderr.write(f"\n$ python -m {' '.join(command)}\n")
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


@command("study", on_interrupt=RERUN)
def main(cfg: DictConfig) -> None:
    todo, machine = jobs(cfg), described(device_of("auto"))
    results, end = Path(str(cfg.results)), _end(cfg.hours)
    failed = work_off(
        todo,
        run,
        lambda: write_known(known(todo, machine), results),
        lambda: time.monotonic() < end,
    )
    done = sum(job.is_done for job in todo)
    path = write_known(known(todo, machine), results)
    print(f"{done} of {len(todo)} jobs are done; written to {path}")
    if failed:
        raise ValueError(f"failed: {', '.join(failed)}; the same command tries them again")


def _end(hours: float | None) -> float:
    return float("inf") if hours is None else time.monotonic() + 3600 * hours


if __name__ == "__main__":
    main()
