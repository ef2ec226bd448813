"""Rules for the values of arguments: what a value must be, as text and as a test."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

Rule = tuple[str, Callable[[Any], bool]]


class ArgumentError(ValueError):
    """An argument that breaks its rule; the configuration puts its key in the argument's place."""

    def __init__(self, argument: str, value: Any, must: str) -> None:
        super().__init__(f"{argument} must be {must}, got {value!r}")
        self.argument, self.value, self.must = argument, value, must

    def __reduce__(self) -> tuple[Any, ...]:  # a worker of a sweep hands it over
        return type(self), (self.argument, self.value, self.must)


def require(argument: str, value: Any, rule: Rule) -> None:
    """Raises ``ArgumentError`` if a value breaks the rule of its argument."""
    must, holds = rule
    if not holds(value):
        raise ArgumentError(argument, value, must)


def is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def integer(low: int, high: float = math.inf) -> Rule:
    """An integer within closed limits."""
    limits = f"from {low} to {high}" if high < math.inf else f">= {low}"
    return f"an integer {limits}", lambda v: is_integer(v) and bool(low <= v <= high)


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    """A finite number within limits, which are closed unless ``above`` or ``below`` is set."""
    upper = f" and {'<' if below else '<='} {high:g}" if high < math.inf else ""

    def holds(value: Any) -> bool:
        if not is_number(value) or (above and value == low) or (below and value == high):
            return False
        return bool(low <= value <= high)

    return f"a finite number {'>' if above else '>='} {low:g}{upper}", holds


def or_null(rule: Rule) -> Rule:
    """What a rule allows, or nothing."""
    must, holds = rule
    return f"{must}, or null", lambda value: value is None or holds(value)


def one_of(*names: str) -> Rule:
    return f"{', '.join(names[:-1])} or {names[-1]}", lambda value: value in names


def some_of(*names: str) -> Rule:
    def holds(value: Any) -> bool:
        return is_list(value) and len(value) > 0 and set(value) <= set(names)

    return f"a list of {' and '.join(names)}, such as [{names[0]}]", holds


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


TRUTH: Rule = ("true or false", lambda value: isinstance(value, bool))
POSITIVE = number(0, above=True)
SHARE = number(0, 1, above=True, below=True)
