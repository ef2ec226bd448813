"""The bar of a sampling: images done, rate, time left, mean energy, share that has arrived."""

from types import TracebackType

from torch import Tensor
from tqdm import tqdm

from energy_at.sampling import Stop
from energy_at.sampling.samples import Samples


class SamplingBar:
    """Shows how far a sampling is.

    Args:
        total: Images.
        done: Images that an earlier attempt has finished.
        shown: Whether to show anything.
    """

    def __init__(self, total: int, done: int, *, shown: bool) -> None:
        self._bar = tqdm(total=total, initial=done, desc="sampling", unit="img", disable=not shown)
        self._energies: Tensor | None = None
        self._finished = self._reached = 0

    def __enter__(self) -> "SamplingBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def seen(self, energies: Tensor) -> None:
        """Takes the energies of a step; nothing waits for them until the bar is drawn."""
        self._energies = energies
        self._bar.update(0)

    def finished(self, samples: Samples) -> None:
        """Counts finished samples."""
        self._finished += len(samples)
        self._reached += int((samples.stop == Stop.REACHED).sum())
        if self._energies is not None and not self._bar.disable:
            energy, share = float(self._energies.mean()), self._reached / self._finished
            self._bar.set_postfix_str(
                f"energy {energy:+.2f}, {100 * share:.0f} % arrived", refresh=False
            )
        self._bar.update(len(samples))
