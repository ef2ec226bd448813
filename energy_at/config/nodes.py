"""Groups of keys in a configuration, and the key at which a value was typed."""

import re
from collections.abc import Iterator

from omegaconf import DictConfig
from omegaconf._impl import select_node

from energy_at.core.rules import ArgumentError, as_typed


def with_key(cfg: DictConfig, key: str, error: ArgumentError) -> ValueError:
    """Names the key that was typed: ``reg.weight`` for ``reg.terms.der.weight``.

    What a resolver has computed was typed at the first key that it reads.
    """
    value = error.value
    found = select_node(cfg._get_root(), key, throw_on_resolution_failure=False)
    if found is not None:
        above = found._get_parent()
        if read := re.match(r"\${\w+:[^$]*\${([\w.]+)}", str(above._get_node(found._key()))):
            found = select_node(above, read[1], absolute_key=True)
            value = found._value()
        key = found._get_full_key(None)
    return ValueError(f"{key}={as_typed(value)} must be {error.must}")


def nodes_in(node: DictConfig) -> Iterator[DictConfig]:
    """A configuration and every group of keys in it, but for those that repeat another."""
    yield node
    for name in map(str, node):
        own = node._get_node(name)
        if isinstance(own, DictConfig) and not own._is_none() and not own._is_interpolation():
            yield from nodes_in(own)
