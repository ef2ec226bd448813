"""Configuration: compose, validate, build."""

from pathlib import Path

from energy_at.config import resolvers as resolvers  # registered before anything is composed

_PACKAGE = Path(__file__).parents[1]
# inside an installed package, next to it in a checkout
CONF = str(next((p for p in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if p.is_dir()), _PACKAGE))
