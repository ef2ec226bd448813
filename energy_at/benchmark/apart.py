"""Rows in a process of their own, which has the memory allocation that Python starts with."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from hydra import initialize_config_dir

from energy_at.benchmark.making import turns_of
from energy_at.benchmark.setting import Setting
from energy_at.benchmark.timing import Turns
from energy_at.config import CONF

_MAKE = "make"


class Apart:
    """A process that makes rows and takes their turns when it is told to.

    Args:
        connection: To the process.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._made = 0

    def turns_of(
        self, setting: Setting, scenario: str, name: str, precision: str, clock: str
    ) -> Turns | None:
        """A row that runs there; ``None`` if it does not do this work."""
        self._made += 1
        about = (setting, scenario, name, precision, clock)
        return _There(self, self._made) if self.ask(_MAKE, self._made, about) else None

    def ask(self, order: str, number: int, about: tuple[Any, ...] = ()) -> Any:
        """What the process answers.

        Raises:
            RuntimeError: if it has ended.
        """
        try:
            self._connection.send((order, number, about))
            done, answer = self._connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(
                "the process of the published loops has ended: is there memory enough for it? "
                "apart=false runs them in the process of the others"
            ) from None
        if not done:
            raise answer
        return answer


@contextmanager
def apart() -> Iterator[Apart]:
    """A process beside this one, as long as the context lasts."""
    ways = multiprocessing.get_context("spawn")
    ours, theirs = ways.Pipe()
    process = ways.Process(target=_serve, args=(theirs, torch.get_num_threads()))
    process.start()
    theirs.close()  # so that the end of the process is the end of what can be read
    try:
        yield Apart(ours)
    finally:
        ours.close()
        process.join()


@dataclass(frozen=True)
class _There:
    process: Apart
    number: int

    def work(self) -> tuple[int, float]:
        found: tuple[int, float] = self.process.ask("work", self.number)
        return found

    def peak(self) -> int | None:
        found: int | None = self.process.ask("peak", self.number)
        return found

    def timed(self) -> tuple[float, float | None]:
        found: tuple[float, float | None] = self.process.ask("timed", self.number)
        return found

    def close(self) -> None:
        self.process.ask("close", self.number)


def _serve(connection: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    torch.set_num_threads(threads)
    rows: dict[int, Turns] = {}
    with initialize_config_dir(CONF, version_base="1.3"):
        while True:
            try:
                order, number, about = connection.recv()
            except EOFError:
                return
            connection.send(_answered(rows, order, number, about))


def _answered(rows: dict[int, Turns], order: str, number: int, about: tuple[Any, ...]) -> Any:
    try:
        if order == _MAKE:
            row = turns_of(*about)
            if row is not None:
                rows[number] = row
            return True, row is not None
        return True, getattr(rows[number], order)()
    except Exception as error:  # it belongs to the process that asks
        return False, error
    finally:
        if order == "close":
            rows.pop(number, None)
