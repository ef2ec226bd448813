"""What a value of a sweeper or a launcher may be, which Hydra makes before any job begins."""

from omegaconf import DictConfig, OmegaConf

from energy_at.config.schema import RULES, TRUTH, Rule, integer, is_path, number, or_null, require

_SUBMITIT: dict[str, Rule] = {
    "timeout_min": integer(1),
    "nodes": integer(1),
    "tasks_per_node": integer(1),
    "gpus_per_node": or_null(integer(0)),
    "cpus_per_task": or_null(integer(1)),
    "mem_gb": or_null(number(0, above=True)),
    "max_num_timeout": integer(0),
    "signal_delay_s": integer(0),
    "array_parallelism": integer(1),
    "stderr_to_stdout": TRUTH,
}
STARTS: dict[str, dict[str, dict[str, Rule]]] = {  # keys of sweepers and launchers, by class
    "sweeper": {
        "GridSweeper": {"max_batch_size": or_null(integer(1))},
        "BasicSweeper": {"max_batch_size": or_null(integer(1))},
        "OptunaSweeper": {
            "n_trials": integer(1),
            "n_jobs": integer(1),
            "seed": integer(0, 2**32 - 1),
        },
        "AgentSweeper": {
            "n_trials": or_null(integer(1)),
            "file": ("the path of one file", is_path),
            "project": RULES["project"],
        },
    },
    "launcher": {
        "JoblibLauncher": {
            "n_jobs": (
                "an integer >= 1, or -1 for all cores",
                lambda v: type(v) is int and (v >= 1 or v == -1),
            )
        },
        "RayLauncher": {
            "cpus_per_job": number(0, above=True),
            "gpus_per_job": number(0),
            "num_cpus": or_null(integer(1)),
        },
        "LocalLauncher": _SUBMITIT,
        "SlurmLauncher": _SUBMITIT,
    },
}


def check_start(cfg: DictConfig) -> None:
    """Refuses the first value that the chosen sweeper or launcher cannot have.

    Args:
        cfg: With the part that is Hydra's.

    Raises:
        ValueError: with the key, the value and what it must be.
    """
    for part, choices in STARTS.items():
        target = OmegaConf.select(cfg, f"hydra.{part}._target_", default="")
        rules = choices.get(str(target).rpartition(".")[2], {})
        require(cfg, {f"hydra.{part}.{key}": rule for key, rule in rules.items()})


def required(key: str) -> str | None:
    """What a key of a sweeper or a launcher must be; ``None`` for any other."""
    _, _, name = key.partition("hydra.")
    part, _, last = name.partition(".")
    rules = [own[last] for own in STARTS.get(part, {}).values() if last in own]
    return rules[0][0] if rules else None
