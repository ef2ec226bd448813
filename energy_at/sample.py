r"""Samples images from a robust classifier by descending its energy.

Measures them too: IS, FID, KID, precision and recall, with controls. Re-run the same command to
resume.

    python -m energy_at.sample run=FOLDER n=10000 start=local_pca guidance=class_energy
    python -m energy_at.sample run=FOLDER quality=efficientnet_lite0 sampler.steps=50
    python -m energy_at.sample -m run=FOLDER start=noise,class_pca,local_pca \
        guidance=none,class_energy
    python -m energy_at.sample run=FOLDER logger=wandb
    python -m energy_at.sample checkpoint=FILE model=wideresnet28_10 dataset=cifar10 \
        dataset.root=data
"""

from omegaconf import DictConfig

from energy_at.config.cli import RERUN, Job, command, overrides


@command("sample", jobs=True, on_interrupt=RERUN)
def main(cfg: DictConfig, job: Job) -> str:
    from energy_at.sampling import sample_command

    return sample_command(cfg, overrides(), job.folder if job.in_sweep else None)


if __name__ == "__main__":
    main()
