"""A Lightning run that advances when it is told to, so that it takes turns with others."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning import Callback, LightningModule, Trainer

Around = Callable[[], AbstractContextManager[object]]


class StepwiseFit:
    """A whole fit in a thread of its own that waits before each batch.

    A step lasts from the start of a batch to the start of the next: it includes fetching the next
    batch, the optimizer, the schedule, every callback and every logger.

    Args:
        fit: Runs the fit, given a callback that has to come last.
    """

    def __init__(self, fit: Callable[[Callback], object]) -> None:
        self._turnstile = _Turnstile()
        self._error: BaseException | None = None
        self._fit = fit
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def advance(self, steps: int, around: Around = nullcontext) -> None:
        """Runs so many steps, inside a context that is entered in their thread."""
        self._turnstile.order(steps, around)
        self._wait()

    def close(self) -> None:
        """Ends the fit where it is."""
        if self._thread.is_alive():
            self._turnstile.order(-1, nullcontext)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._fit(self._turnstile)
        except _Ended:
            pass
        except BaseException as error:  # it belongs to the thread that waits
            self._error = error
        finally:
            self._turnstile.arrived.release()

    def _wait(self) -> None:
        self._turnstile.arrived.acquire()
        if self._error is not None:
            raise self._error
        if not self._thread.is_alive():
            raise RuntimeError("the fit has ended before its last turn")


class _Ended(Exception):  # noqa: N818  it is no error
    pass


class _Turnstile(Callback):
    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._left = 0
        self._around: Around = nullcontext
        self._inside: AbstractContextManager[object] | None = None

    def order(self, steps: int, around: Around) -> None:
        self._left, self._around = steps, around
        self._go.release()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._inside is not None:
            self._left -= 1
            if self._left > 0:
                return
            self._inside.__exit__(None, None, None)
            self._inside = None
        self.arrived.release()
        self._go.acquire()
        if self._left < 0:
            raise _Ended
        self._inside = self._around()
        self._inside.__enter__()
