"""Configuration: compose, validate, build.

Importing it registers the resolvers of the YAML files.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from energy_at.config.versions import register_resolver


def parse_pixels(name: str, value: str | float, limit: float | None = 1) -> float:
    """Reads a length in pixel units from ``8/255`` or ``0.03``.

    Raises:
        ValueError: if it is not a number, or above ``limit`` (1: the pixel range).
    """
    try:
        number = float(Fraction(str(value).replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}={value} must be a number, or a fraction such as 8/255") from None
    if limit is not None and number > limit:
        raise ValueError(
            f"{name}={value} is above {limit:.4g}, but pixels lie in [0, 1]: "
            f"did you mean {value}/255?"
        )
    return number


def largest_radius(norm: str, channels: Any, size: Any) -> float:
    """Length, in pixel units, of the largest change of an image: from corner to corner."""
    return 1.0 if norm == "linf" else math.sqrt(channels * size**2)


def _by_eps(eps: float, at: Sequence[float], values: Sequence[float]) -> float:
    import numpy as np  # here: most configurations need none, and --help is waited for

    return float(np.interp(255 * eps, at, values))


def _by_steps(steps: str | int, one: Any, more: Any) -> Any:
    return one if int(steps) == 1 else more


def _run_dir(resume: Any, default: str) -> str:
    return str(resume) if resume and (Path(str(resume)) / "config.yaml").is_file() else default


def _sweep_name() -> str | None:
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def register_resolvers() -> None:
    """Registers the resolvers of the YAML files.

    ``${pixels:threat.eps,8/255}`` is 8/255, checked; ``${times:1.25,8/255}`` is a product;
    ``${largest_radius:l2,3,32}`` is the largest distance between two images of this shape;
    ``${samples:auto,1}`` names the examples that DER applies to under an attack of N steps;
    ``${by_steps:1,20,1}`` chooses between a value for one step and one for more;
    ``${by_subset:SUBSET,16,64}`` between one for a subset of a data set and one for all of it;
    ``${by_eps:EPS,[8,16],[1,2]}`` interpolates between values given at 255 EPS, constant beyond
    the last, ``log_by_eps`` their logarithms, and ``step_by_eps`` takes the first value up to 8,
    the second up to 16, and so on; ``${pick:TABLE,NAME,DEFAULT}`` looks up a name;
    ``${data_name:PATH}`` is the name of a folder, an ``.npz`` file or a data set of a hub;
    ``${sweep_name:}`` is the folder of the sweep that a job belongs to, null without one.
    """
    resolvers: dict[str, Callable[..., Any]] = {
        "pixels": parse_pixels,
        "largest_radius": largest_radius,
        "times": lambda a, b: float(Fraction(str(a)) * Fraction(str(b))),
        "samples": lambda wish, n: {"auto": _by_steps(n, "abnormal", "all")}.get(wish, wish),
        "by_steps": lambda steps, one, more: float(_by_steps(steps, one, more)),
        "by_subset": lambda subset, some, whole: whole if subset is None else some,
        "pick": lambda table, name, default: table[name if name in table else default],
        "by_eps": _by_eps,
        "log_by_eps": lambda eps, at, values: math.exp(_by_eps(eps, at, [*map(math.log, values)])),
        "step_by_eps": lambda eps, at, values: float(values[bisect_left(at, 255 * eps - 1e-6)]),
        "run_dir": _run_dir,
        "data_name": lambda path: Path(path).expanduser().resolve().name.removesuffix(".npz"),
        "sweep_name": _sweep_name,
    }
    for name, resolver in resolvers.items():
        register_resolver(name, resolver)


register_resolvers()
