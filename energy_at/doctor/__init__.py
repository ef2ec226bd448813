"""Checks of this installation on this machine."""
