"""Images from a robust classifier: ``python -m energy_at.sample run=FOLDER``."""

from pathlib import Path

from omegaconf import DictConfig

from energy_at.config.cli import RERUN, Job, command, overrides


@command("sample", jobs=True, on_interrupt=RERUN)
def main(cfg: DictConfig, job: Job) -> str:
    from energy_at.evaluation.publish import require_wandb_only
    from energy_at.evaluation.trained_model import open_model
    from energy_at.sampling.generation import FILES, Options, sample
    from energy_at.sampling.output import publish_samples
    from energy_at.sampling.plan import plan_of

    require_wandb_only(cfg)
    plan, asked = plan_of(cfg), cfg.copy()
    cfg.seed = 0  # of the data: which images are held out must not depend on what is drawn
    subject = open_model(cfg, overrides())
    own = job.folder if job.in_sweep else None
    out = own if cfg.out is None else Path(str(cfg.out))
    options = Options(cfg.batch_size, str(cfg.judge), cfg.progress)
    folder, text = sample(subject, plan, out, options)
    publish_samples(asked, subject, folder)
    return f"{text}\n\nwritten to {folder}/: {', '.join(FILES)} and figures"


if __name__ == "__main__":
    main()
