"""Whether everything works on this machine, and what to do if not: ``python -m energy_at.doctor``.

Exit code 1 if any check fails; nothing is written but ``out``.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from energy_at.config import CONF
from energy_at.config.cli import command, quieten
from energy_at.core.files import write_atomic
from energy_at.doctor import Finding, as_json, checks, examined, row, summary


def doctor(root: Path, dataset: str = "*", *, quiet: bool = False) -> Iterator[Finding]:
    """Runs every check, and prints each finding as it comes unless ``quiet``.

    Args:
        root: Folder of the data.
        dataset: Name of the one data set to look for; all of them if left out.
        quiet: Print nothing.
    """
    every = checks(sorted(Path(CONF, "dataset").glob(f"{dataset}.yaml")), root)
    quieten()  # the checks have imported Lightning
    width = max(map(len, every))
    for name, run in every.items():
        finding = examined(name, run)
        if not quiet:
            print(row(finding, width), flush=True)
        yield finding


def write(text: str, out: Path) -> None:
    """Writes the file as a whole.

    Raises:
        ValueError: if it cannot be written.
    """
    try:
        write_atomic(out, text + "\n")
    except OSError as error:
        raise ValueError(f"cannot write out={out}: {error.strerror}") from error


@command("doctor")
def main(cfg: DictConfig) -> None:
    start = time.perf_counter()
    root, name = Path(cfg.dataset.root).expanduser(), cfg.dataset.get("name", "*")
    findings = list(doctor(root, name, quiet=cfg.json))
    seconds = time.perf_counter() - start
    print(as_json(findings, seconds) if cfg.json else summary(findings, seconds))
    if cfg.out is not None:
        write(as_json(findings, seconds), Path(str(cfg.out)))
    if any(finding.status == "fail" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
