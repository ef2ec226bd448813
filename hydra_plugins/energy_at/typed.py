"""What was typed for a sweep, apart by what is to be done with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext


@dataclass(frozen=True)
class Typed:
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


def typed(
    context: HydraContext, params: Mapping[str, str] | None, arguments: Sequence[str]
) -> Typed:
    """Parses what a configuration names and what was typed, which wins."""
    lines = [*(f"{key}={value}" for key, value in (params or {}).items()), *arguments]
    parser = OverridesParser.create(config_loader=context.config_loader)
    last = {override.get_key_element(): override for override in parser.parse_overrides(lines)}
    fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
    return Typed(fixed, {key: o for key, o in last.items() if o.is_sweep_override()})
