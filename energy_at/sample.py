"""Images out of a robust classifier: ``python -m energy_at.sample run=FOLDER``."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from energy_at.analysis.publishing import publish_samples, require_publishable
from energy_at.config import CONF
from energy_at.config.build import make, register_resolvers
from energy_at.config.cli import command_line, one_line_errors, require_read
from energy_at.config.contention import hint_at_contention
from energy_at.config.schema import check
from energy_at.evaluation.trained_model import opened
from energy_at.sampling.generation import FILES, Options, Plan, sample

register_resolvers()

GROUPS = ("start", "guidance", "sampler", "quality")


def plan_of(cfg: DictConfig) -> Plan:
    """What was asked for."""
    settings = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in GROUPS}
    parts = {name: make(cfg[name].made) for name in GROUPS}
    return Plan(
        cfg.n,
        cfg.seed,
        parts["start"],
        parts["guidance"],
        parts["sampler"],
        parts["quality"],
        cfg.quality.reference,
        cfg.shown,
        {name: _shown(values) for name, values in settings.items()},
    )


def _shown(settings: object) -> dict[str, object]:
    """Names and values, without what only says how objects are made."""
    assert isinstance(settings, dict)
    return {str(name): value for name, value in settings.items() if name != "made"}


def draw(cfg: DictConfig, overrides: Sequence[str], out: Path | None) -> str:
    """Samples what the configuration names, and says where the files are."""
    plan, asked = plan_of(cfg), cfg.copy()
    cfg.seed = 0  # of the data: which images are held out must not depend on what is drawn
    subject = opened(cfg, overrides)
    options = Options(cfg.batch_size, str(cfg.judge), cfg.progress)
    folder, text = sample(subject, plan, out, options)
    publish_samples(asked, subject, folder)
    return f"{text}\n\nwritten to {folder}/: {', '.join(FILES)} and figures"


@hydra.main(version_base="1.3", config_path=CONF, config_name="sample")
def main(cfg: DictConfig) -> None:
    """Command-line entry."""
    job = HydraConfig.get()
    swept = job.mode == RunMode.MULTIRUN
    folder = Path(job.runtime.output_dir) if swept else None
    stopped = "the same command goes on where it was"
    with one_line_errors(folder, go_on=swept, stopped=stopped):
        require_read(cfg)
        check(cfg)
        require_publishable(cfg)
        hint_at_contention()
        out = folder if cfg.out is None else Path(str(cfg.out))
        print(draw(cfg, job.overrides.task, out))


if __name__ == "__main__":
    command_line(main)
