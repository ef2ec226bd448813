r"""Accuracy of a trained network under FGSM, PGD-50-10 and AutoAttack.

In fp32, with 95 % confidence intervals and checks for gradient masking. Re-run the same command
to resume. AutoAttack takes most of the time: attacks=[fgsm,pgd] leaves it out.

    python -m energy_at.evaluate run=FOLDER
    python -m energy_at.evaluate run=FOLDER attacks=[fgsm,pgd] eps=[2/255,4/255,8/255] subset=1000
    python -m energy_at.evaluate run=FOLDER which=best norm=l2 eps=128/255
    python -m energy_at.evaluate checkpoint=FILE model=wideresnet28_10 dataset=cifar10 \
        dataset.root=data
"""

from omegaconf import DictConfig

from energy_at.config.cli import RERUN, command, overrides


@command("evaluate", on_interrupt=RERUN)
def main(cfg: DictConfig) -> str:
    from energy_at.evaluation import evaluate_command

    return evaluate_command(cfg, overrides())


if __name__ == "__main__":
    main()
