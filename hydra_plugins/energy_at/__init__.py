"""Sweepers and launchers that Hydra finds here; it imports them at every start, so they are light."""
