"""Live view of trainings, from their folders, in the terminal or in the browser."""

from energy_at.watch.server import page_server
from energy_at.watch.state import Watch
from energy_at.watch.terminal import follow

__all__ = ["Watch", "follow", "page_server"]
