"""The overrides of a sweep, split into fixed and swept ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.types import HydraContext


@dataclass(frozen=True)
class SweepOverrides:
    """The overrides of a sweep.

    Attributes:
        fixed: Those that all jobs share, as they are typed.
        swept: Those that name several values, by key.
    """

    fixed: list[str]
    swept: dict[str, Override]

    def values(self, key: str) -> list[str]:
        """The values of a choice or a range, as they are typed."""
        return [str(value) for value in self.swept[key].sweep_string_iterator()]


def parse_sweep(
    context: HydraContext, params: Mapping[str, str] | None, arguments: Sequence[str]
) -> SweepOverrides:
    """Parses what a configuration names and what was typed, which wins.

    Raises:
        ValueError: if a key that is swept has no value, or bounds that hold none.
    """
    lines = [*(f"{key}={value}" for key, value in (params or {}).items()), *arguments]
    parser = OverridesParser.create(config_loader=context.config_loader)
    last = {override.get_key_element(): override for override in parser.parse_overrides(lines)}
    fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
    swept = {key: o for key, o in last.items() if o.is_sweep_override()}
    for override in swept.values():
        _require_values(override)
    return SweepOverrides(fixed, swept)


def _require_values(override: Override) -> None:
    value: Any = override.value()
    if not isinstance(value, IntervalSweep):
        still = isinstance(value, RangeSweep) and value.step == 0
        if still or next(iter(override.sweep_string_iterator()), None) is None:
            raise ValueError(f"{override.input_line} names no value: there is no job to run")
        return
    low, high = cast(Any, (value.start, value.end))
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(
            f"{override.input_line} must have two finite bounds, the lower one first, such as "
            "interval(0.5, 20)"
        )
    if "log" in value.tags and low <= 0:
        raise ValueError(f"{override.input_line} must have bounds > 0, as it is searched by ratio")
