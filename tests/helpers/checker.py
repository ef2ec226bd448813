"""Checks shapes and types of every call into the package while tests run."""

import inspect
from functools import partial
from typing import Any, get_args

import jaxtyping
import lightning  # noqa: F401  here, since under the hook Python finds no module's bytecode
import sklearn.datasets  # noqa: F401
import torchvision  # noqa: F401
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

# An int is a float, as in PEP 484; a wrong type is a TypeError, as jaxtyping's is.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))

_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Has everything that is imported from now on checked.

    jaxtyping binds the arguments of every call anew, to compare their shapes; where no signature
    names a tensor that would be a fifth of the time of all tests.
    """
    jaxtyping.jaxtyped = _lean  # what the hook decorates with
    install_import_hook("energy_at", "tests.helpers.checker.checked")


def _lean(fn: Any = None, *, typechecker: Any) -> Any:
    if fn is None:
        return partial(_lean, typechecker=typechecker)
    if inspect.isfunction(fn) and not any(map(_names_tensors, fn.__annotations__.values())):
        return typechecker(fn)
    return _jaxtyped(fn, typechecker=typechecker)


def _names_tensors(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return True  # it may
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    inner = annotation if isinstance(annotation, list) else get_args(annotation)
    return any(map(_names_tensors, inner))
