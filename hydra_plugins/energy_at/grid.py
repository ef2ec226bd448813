"""Hydra's own sweeper, with jobs that may be lost."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from energy_at.config.sweep_progress import SweepProgress
from hydra_plugins.energy_at.fault_tolerance import launch_jobs, places, require_any
from hydra_plugins.energy_at.overrides import parse_sweep


class GridSweeper(BasicSweeper):
    """Every combination of the values; what is typed wins over what ``sweep=`` names."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes a launcher whose lost jobs end nothing."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = _Tolerant(self.launcher, hydra_context, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Runs all jobs.

        Raises:
            ValueError: if bounds are given where values are needed, or if no job could begin.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        for key, override in parse_sweep(self.hydra_context, self.params, arguments).swept.items():
            if not override.is_discrete_sweep():
                raise ValueError(
                    f"{override.input_line}: hydra/sweeper=optuna searches between bounds; a sweep "
                    f"takes values, such as {key}=0,1,2"
                )
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = parser.parse_overrides([*self._parse_config(), *arguments])
        (jobs,) = self.split_arguments(typed, None)
        require_any(self.hydra_context, self.config, jobs, places(self.hydra_context, self.config))
        return super().sweep(arguments)


class _Tolerant(Launcher):
    def __init__(self, launcher: Launcher, context: HydraContext, config: DictConfig) -> None:
        self.launcher = launcher
        self.place = places(context, config)
        self.config = config

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """The launcher inside is set up."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        return launch_jobs(
            self.launcher,
            self.config,
            job_overrides,
            initial_job_idx,
            self.place,
            SweepProgress.of(job_overrides),
        )
