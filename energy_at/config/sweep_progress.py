"""Where a sweep stands, for its jobs: ``[3/6] reg.weight=1 seed=0``, and the time left."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from energy_at.core.progress import clock

_VARIABLE = "ENERGY_AT_SWEEP"  # the processes of the jobs inherit it
_RESULTS = ("results.json", "samples.json", "error.txt")  # that a job ends with


@dataclass(frozen=True)
class SweepProgress:
    """What the jobs of a sweep know of it.

    Attributes:
        jobs: Their number.
        keys: Keys in which they differ.
        start: Seconds since the epoch.
        process: That of the sweep.
    """

    jobs: int
    keys: Sequence[str]
    start: float
    process: int = field(default_factory=os.getpid)

    @staticmethod
    def of(jobs: Sequence[Sequence[str]]) -> "SweepProgress":
        """From the overrides of all jobs."""
        shared = set.intersection(*map(set, jobs))
        keys = dict.fromkeys(_key(o) for job in jobs for o in job if o not in shared)
        return SweepProgress(len(jobs), list(keys), time.time())

    @staticmethod
    def inherited() -> "SweepProgress | None":
        """That of the sweep which has started this process, if any."""
        text = os.environ.get(_VARIABLE)
        return None if text is None else SweepProgress(**json.loads(text))

    @contextmanager
    def handed_down(self) -> Iterator[None]:
        """Lets processes that are started within know it."""
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = json.dumps(asdict(self))
        try:
            yield
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before

    def title(self, number: int, overrides: Sequence[str]) -> str:
        """Of a job, its number counted from 0."""
        own = [override for override in overrides if _key(override) in self.keys]
        return " ".join([f"[{number + 1}/{self.jobs}]", *own])

    def left(self, sweep: Path) -> str:
        """``, about 3:05 left`` from the jobs that have ended since the start; empty before."""
        ended = [p.stat().st_mtime for name in _RESULTS for p in sweep.rglob(name)]
        since = sum(at >= self.start for at in ended)
        missing = self.jobs - len(ended)
        if not since or missing < 1:
            return ""
        return f", about {clock((time.time() - self.start) / since * missing)} left"


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
