"""A training that is only written down, and what somebody who watches sees of it."""

import io

from rich.console import Console

from energy_at.runs.folder import RunFolder
from energy_at.training.loggers import MetricsCSV
from energy_at.watch.terminal import follow

PER_EPOCH = 4


def begin(path, composed, weight=1.0):
    composed = composed.copy()
    composed.reg.weight = weight
    return RunFolder.create(path, composed, [f"reg.weight={weight:g}"], train_images=60)


def train(run, epochs, pgd=(0.4, 0.4, 0.0), alarm=None):
    """Writes epochs as a training does."""
    log = MetricsCSV(run.metrics_file)
    for epoch in epochs:
        for batch in range(PER_EPOCH):
            step = epoch * PER_EPOCH + batch + 1
            row = {"epoch": epoch, "train/delta_energy/marginal": step / 4, "train/aae_share": 0.5}
            if batch == PER_EPOCH - 1:
                row["perf/images_per_s"] = 32.0
            if step == alarm:
                row["alarm/co"] = 1.0
            log.log_metrics(row, step=step)
        accuracies = {"val/acc/fgsm": 0.5, "val/acc/pgd10": pgd[epoch], "epoch": epoch}
        log.log_metrics(accuracies, step=(epoch + 1) * PER_EPOCH)
    log.save()


def state(watch):
    watch.update()
    (found,) = watch.states()
    return found


def said(watch, width=120, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    follow(watch, console=console)
    return console.file.getvalue()
