"""A training while it runs: what its folder says, in the terminal or in the browser."""

from energy_at.live.browser import page_server
from energy_at.live.terminal import follow
from energy_at.live.watched import Watch

__all__ = ["Watch", "follow", "page_server"]
