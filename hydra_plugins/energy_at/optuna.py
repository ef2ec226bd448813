"""A search by Optuna whose trials are jobs of a sweep.

``hydra-optuna-sweeper`` needs Optuna < 3, whose database no longer works with SQLAlchemy 2.
"""

import time
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from energy_at.config.sweep_progress import SweepProgress
from energy_at.core.extras import install
from hydra_plugins.energy_at.fault_tolerance import launch_jobs, places, require_any
from hydra_plugins.energy_at.overrides import parse_sweep

JOURNAL = "optuna.log"  # in the folder of the sweep: what a re-run sweep resumes from
STUDY = "sweep"  # its name in there
BEST = "best.yaml"
SEEDS = "seeds"  # of every trial, as the study keeps them
REPEATED = "seed"  # repeated, never searched


class OptunaSweeper(Sweeper):
    """Raises what the jobs return, by a tree-structured Parzen estimator.

    Several values of ``seed`` repeat every trial; their mean counts. A trial with a job that failed
    fails.

    Args:
        n_trials: In all, those before a kill included.
        n_jobs: Trials at a time.
        seed: Of the search.
        params: What to search: ``choice``, ``range``, ``interval``, ``tag(log, interval(a, b))``.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, seed: int, params: Mapping[str, str] | None
    ) -> None:
        self.n_trials, self.n_jobs, self.seed = n_trials, n_jobs, seed
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Makes the launcher."""
        self.context, self.composed = hydra_context, config
        self.place = places(hydra_context, config)
        self.runner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs all trials that are missing, those that were cut off first."""
        chosen = parse_sweep(self.context, self.params, arguments)
        self.fixed = chosen.fixed
        seeds = chosen.values(REPEATED) if REPEATED in chosen.swept else []
        self.repeats = [f"{REPEATED}={value}" for value in seeds]
        space = {k: distribution(o) for k, o in chosen.swept.items() if k != REPEATED}
        if not space:
            raise ValueError(
                "hydra/sweeper=optuna has nothing to search: name bounds, such as "
                "'reg.weight=interval(0.5, 20)'"
            )
        example = {key: self._example(found) for key, found in space.items()}
        used = self._compose(example)
        require_any(self.context, self.composed, self._jobs(example), self.place)
        folder = Path(str(self.composed.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        study = self._study(folder)
        each = max(1, len(self.repeats))
        self.progress = SweepProgress(self.n_trials * each, [*space, REPEATED], time.time())
        require_seeds(study, used, folder)
        OmegaConf.save(self.composed, folder / "multirun.yaml")
        for trial in [t for t in study.trials if not t.state.is_finished()]:
            self._run(study, [trial])
        while (left := self.n_trials - len(study.trials)) > 0:
            self._run(study, [study.ask(space) for _ in range(min(left, self.n_jobs))])
        self._conclude(study, folder)

    def _study(self, folder: Path) -> Any:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        known = STUDY in optuna.get_all_study_names(storage)
        study = (
            optuna.load_study(study_name=STUDY, storage=storage)
            if known
            else optuna.create_study(study_name=STUDY, storage=storage, direction="maximize")
        )
        # A resumed sampler must not repeat its earlier draws.
        seed = (self.seed + len(study.trials)) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study

    def _run(self, study: Any, trials: Sequence[Any]) -> None:
        import optuna

        each = max(1, len(self.repeats))
        jobs = [job for trial in trials for job in self._jobs(trial.params)]
        first = trials[0].number * each
        found = launch_jobs(self.runner, self.composed, jobs, first, self.place, self.progress)
        values = [job.return_value for job in found] or [None] * len(jobs)
        for place, trial in enumerate(trials):
            own = values[place * each : (place + 1) * each]
            if all(isinstance(value, float) and isfinite(value) for value in own):
                study.set_user_attr(_worthless(trial.number), own.count(0.0))
                study.tell(trial.number, sum(own) / each)
            else:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _jobs(self, params: Mapping[str, Any]) -> list[list[str]]:
        searched = [f"{key}={value}" for key, value in params.items()]
        if not self.repeats:
            return [[*self.fixed, *searched]]
        return [[*self.fixed, *searched, seed] for seed in self.repeats]

    def _compose(self, params: Mapping[str, Any]) -> list[str]:
        """Seeds of the jobs; finds an error in a name before anything is written."""
        load = self.context.config_loader.load_sweep_config
        jobs = [load(self.composed, job) for job in self._jobs(params)]
        return sorted(str(OmegaConf.select(job, REPEATED)) for job in jobs)

    @staticmethod
    def _example(found: Any) -> Any:
        return found.choices[0] if hasattr(found, "choices") else found.low

    def _conclude(self, study: Any, folder: Path) -> None:
        known = [trial for trial in study.trials if trial.value is not None]
        if not any(trial.value > 0 for trial in known):
            print(f"{_none_of(len(study.trials))}: there is no best")
            return
        best = study.best_trial
        OmegaConf.save({"value": best.value, "params": best.params}, folder / BEST)
        settings = " ".join(f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"
                        for key, value in best.params.items())  # fmt: skip
        lost = study.user_attrs.get(_worthless(best.number), 0)
        but = _counted_as_zero(lost, len(self.repeats)) if lost else ""
        what = "highest mean" if lost else "best"  # a setting that collapses is not announced
        trials = f"{len(known)} trial{'s'[: len(known) > 1]}"
        print(f"{what} of {trials} on held-out images: {settings} ({100 * best.value:.1f} %){but}")


def require_seeds(study: Any, used: Sequence[str], folder: Path) -> None:
    """Refuses to resume with other seeds: their means are not comparable.

    Args:
        study: Of Optuna; it keeps the seeds.
        used: Seeds of each trial, in order.
        folder: Of the search.

    Raises:
        ValueError: with the seeds of the search.
    """
    known = study.user_attrs.get(SEEDS)
    if known is None and not study.trials:
        study.set_user_attr(SEEDS, list(used))
    elif known is not None and known != list(used):
        raise ValueError(
            f"hydra.sweep.dir={folder} holds a search with seed={','.join(known)}, not "
            f"seed={','.join(used)}: type those, or choose another hydra.sweep.dir"
        )


def _worthless(number: int) -> str:
    """Where a study keeps how many runs of a trial collapsed, or are not robust."""
    return f"worthless runs of trial {number}"


def _counted_as_zero(lost: int, runs: int) -> str:
    each = "counts" if lost == 1 else "count each"
    are = "is" if lost == 1 else "are"
    return f", though {lost} of its {runs} runs collapsed or {are} not robust, and {each} as 0"


def _none_of(trials: int) -> str:
    return "the one trial is no result" if trials == 1 else f"none of {trials} trials is a result"


def distribution(override: Override) -> Any:
    """Optuna's distribution of what was typed.

    Raises:
        ValueError: if Optuna is not installed.
    """
    try:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    except ImportError as error:
        raise ValueError(f"hydra/sweeper=optuna needs Optuna: {install('optuna')}") from error
    value: Any = override.value()
    if isinstance(value, IntervalSweep):
        low, high = cast(Any, (value.start, value.end))
        kind = IntDistribution if _whole(low, high) else FloatDistribution
        return kind(low, high, log="log" in value.tags)
    if isinstance(value, RangeSweep) and _whole(value.start, value.stop, value.step):
        first, stop, step = cast(Any, (value.start, value.stop, value.step))
        return IntDistribution(first, first + (stop - first - 1) // step * step, step=step)
    return CategoricalDistribution([str(one) for one in override.sweep_string_iterator()])


def _whole(*numbers: Any) -> bool:
    return all(type(number) is int for number in numbers)
