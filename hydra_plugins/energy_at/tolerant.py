"""A launcher whose lost jobs do not end the sweep."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

STARTED = "environment.json"  # what a job writes first


def launched(
    launcher: Launcher, config: DictConfig, jobs: Sequence[Sequence[str]], first: int
) -> Sequence[JobReturn]:
    """What jobs return; nothing if the launcher has given up twice after some of them had begun.

    A job answers its own mistakes. What is raised here has killed one, such as a node that ran out
    of memory, or has kept all from starting: the latter is for the user to mend. One process that
    is killed may end others beside it, and jobs that wait; so all that have not finished are
    started once more, and go on where they were.
    """
    sweep = Path(str(config.hydra.sweep.dir))
    before = set(sweep.rglob(STARTED))
    for then in ("those that have not finished go on once more", "no more is tried"):
        try:
            return launcher.launch(jobs, initial_job_idx=first)
        except Exception as error:
            if set(sweep.rglob(STARTED)) <= before:
                raise
            line = " ".join(str(error).split())
            said = f"{type(error).__name__}: {line[:300]}"
            sys.stderr.write(f"error: a job was lost: {said}; {then}\n")
    return []
