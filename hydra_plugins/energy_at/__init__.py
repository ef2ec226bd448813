"""Sweepers and launchers that Hydra finds here.

It imports them at every start, so they import what they run on only when they run.
"""
