"""A sweep written down for W&B: its agents run the jobs, wherever they are started."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.energy_at.overrides import parse_sweep


class AgentSweeper(Sweeper):
    """Runs nothing, and writes the configuration of a W&B sweep.

    Choices make a grid. Bounds make a Bayesian search for the highest PGD accuracy on held-out
    images.

    Args:
        file: Where to write it.
        project: Of W&B.
        n_trials: After how many runs a search ends; ``None`` for never.
        params: What to sweep, in addition to what is typed.
    """

    def __init__(
        self, file: str, project: str, n_trials: int | None, params: Mapping[str, str] | None
    ) -> None:
        self.file, self.project, self.n_trials = Path(file), project, n_trials
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what parses overrides."""
        self.context, self.composed = hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        """Writes the file and says what to do with it.

        Raises:
            ValueError: if nothing is swept or logged, or the file is there and differs.
        """
        chosen = parse_sweep(self.context, self.params, arguments)
        if not chosen.swept:
            raise ValueError("nothing to sweep: name several values, such as reg.weight=0,1,2")
        example = [f"{key}={_first(o)}" for key, o in chosen.swept.items()]
        job = self.context.config_loader.load_sweep_config(self.composed, [*chosen.fixed, *example])
        if "logger" not in chosen.swept:
            _require_logged(job)
        parameters = {key: parameter(override) for key, override in chosen.swept.items()}
        # hydra.mode: a sweep= among the fixed ones would have every agent start the whole sweep
        command = ["${env}", "python", "-m", "energy_at.train", *chosen.fixed, "hydra.mode=RUN"]
        accuracy = f"val/acc/pgd{job.validation.attacks.pgd.steps}"  # on held-out images
        searched = any("values" not in one for one in parameters.values())
        written = {
            "project": self.project,
            "method": "bayes" if searched else "grid",
            **({"metric": {"name": accuracy, "goal": "maximize"}} if searched else {}),
            **({"run_cap": self.n_trials} if self.n_trials else {}),
            "command": [*command, "${args_no_hyphens}"],
            "parameters": parameters,
        }
        text = OmegaConf.to_yaml(OmegaConf.create(written))
        if self.file.exists() and self.file.read_text() != text:
            raise ValueError(
                f"{self.file} is there and holds another sweep: hydra.sweeper.file=FILE names one"
            )
        self.file.write_text(text)
        print(f"written to {self.file}: 'wandb sweep {self.file}' says how to start its agents")


def _require_logged(job: DictConfig) -> None:
    loggers = (OmegaConf.select(job, "logger") or {}).values()
    if not any("wandb" in str(OmegaConf.select(one, "_target_")) for one in loggers if one):
        raise ValueError(
            "hydra/sweeper=wandb needs jobs that log to W&B, or its agents would show nothing: "
            "add logger=wandb or logger=csv_wandb"
        )


def parameter(override: Override) -> dict[str, Any]:
    """What W&B is to choose from."""
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        whole = {type(value.start), type(value.end)} == {int}
        kind = "int_uniform" if whole else "uniform"
        kind = "log_uniform_values" if "log" in value.tags else kind
        return {"distribution": kind, "min": value.start, "max": value.end}
    return {"values": [_plain(one) for one in override.sweep_string_iterator()]}


def _first(override: Override) -> Any:
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        return value.start
    return next(iter(override.sweep_string_iterator()))


def _plain(text: str) -> Any:
    """A number where it is one: W&B plots against numbers only."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
