r"""Energies of every image, natural and under each attack, for one network or several runs.

A table, samples.npz, and figures of E(x), E(x, y) and their shifts dE(x), dE(x, y). FAB minimises
the distance: it leaves images that resist, or were wrong before, as they were.

    python -m energy_at.analyse run=FOLDER
    python -m energy_at.analyse run=FOLDER \
        attacks=[fgsm,pgd,trades,targeted,apgd_ce,apgd_dlr,cw,fab,square]
    python -m energy_at.analyse runs=[FOLDER,FOLDER] eps=8/255 subset=null out=analysis
    python -m energy_at.analyse run=FOLDER logger=wandb
    python -m energy_at.analyse checkpoint=FILE model=wideresnet28_10 dataset=cifar10 \
        dataset.root=data
"""

from omegaconf import DictConfig

from energy_at.config.cli import command, overrides


@command("analyse", on_interrupt="nothing is written")
def main(cfg: DictConfig) -> str:
    from energy_at.analysis import analyse_command

    return analyse_command(cfg, overrides())


if __name__ == "__main__":
    main()
