"""Accuracy of a trained network under attack: ``python -m energy_at.evaluate run=FOLDER``."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from energy_at.config.cli import RERUN, command, overrides


@command("evaluate", on_interrupt=RERUN)
def main(cfg: DictConfig) -> str:
    from energy_at.evaluation import FILES, evaluate
    from energy_at.evaluation.plan import plan_of
    from energy_at.evaluation.trained_model import opened

    subject = opened(cfg, overrides())
    plan = plan_of(cfg, subject)
    for line in plan.left_out:
        sys.stderr.write(f"left out: {line}\n")
    out = None if cfg.out is None else Path(str(cfg.out))
    batch_size = cfg.batch_size or subject.config.dataset.eval_batch_size
    folder, text = evaluate(subject, plan, out, batch_size=batch_size, progress=cfg.progress)
    return f"{text}\nwritten to {folder}/: {', '.join(FILES)}"


if __name__ == "__main__":
    main()
