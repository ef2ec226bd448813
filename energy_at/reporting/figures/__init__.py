"""Figures of trainings, sweeps and samples."""
