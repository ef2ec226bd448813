"""Images from a robust classifier: ``python -m energy_at.sample run=FOLDER``."""

from omegaconf import DictConfig

from energy_at.config.cli import RERUN, Job, command, overrides


@command("sample", jobs=True, on_interrupt=RERUN)
def main(cfg: DictConfig, job: Job) -> str:
    from energy_at.sampling import sample_command

    return sample_command(cfg, overrides(), job.folder if job.in_sweep else None)


if __name__ == "__main__":
    main()
