"""Out-of-distribution images: test images of another data set, of a folder, or of a file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf

from energy_at.config.build import make
from energy_at.config.keys import choices_of, compose_command
from energy_at.core.rules import ArgumentError, nearest
from energy_at.core.types import Pixels
from energy_at.data import ImageSet
from energy_at.data.images import as_splits
from energy_at.data.other_images import fit, other_images
from energy_at.data.readers import ALLOW
from energy_at.evaluation import EvaluationTarget, Evaluator, TrainedModel

_OWN = ("folder", "huggingface", "npz")  # data sets that a name alone does not choose


def ood_evaluators(
    names: Sequence[str], plan: EvaluationTarget, model: TrainedModel, evaluator: Evaluator
) -> dict[str, Evaluator]:
    """Images of each set, made to fit the network, with the settings of the natural images.

    Of each set as many as the plan takes of the natural images, drawn by the same seed.

    Raises:
        ArgumentError: if a set is unknown, that of the network, or its files are missing.
    """
    evaluators = {}
    for name in names:
        pixels = _pixels(name, model)
        chosen = plan.drawn(len(pixels))
        images = ImageSet(pixels[chosen], torch.zeros(len(chosen), dtype=torch.long))
        label = name if name in choices_of("dataset") else Path(name).name
        if label in evaluators:
            raise ArgumentError("ood", list(names), f"sets of different names: {label} is twice")
        evaluators[label] = replace(
            evaluator, images=images.to(model.device), numbers=chosen.tolist()
        )
    return evaluators


def _pixels(name: str, model: TrainedModel) -> Pixels:
    data = model.config.dataset
    form = int(data.channels), int(data.size)
    known = [choice for choice in choices_of("dataset") if choice not in _OWN]
    path = Path(name).expanduser()
    if name not in known:
        if path.exists():
            return other_images(path, *form, "ood")
        near = nearest(name, known, 1)
        raise ArgumentError(
            "ood",
            name,
            f"a data set ({', '.join(known)}), a folder of images or an .npz file"
            + (f" (did you mean {near[0]}?)" if near else ""),
        )
    if name == data.name:
        raise ArgumentError("ood", name, "another data set than that of the network")
    cfg = compose_command("analyse", [f"dataset={name}"]).dataset
    OmegaConf.update(cfg, "download", False)
    root = Path(data.root).expanduser()
    try:
        found = as_splits(make(cfg.reader, factory=True)(root)).test
    except ArgumentError as error:
        must = error.must.removesuffix(ALLOW)
        raise ArgumentError("ood", name, f"in dataset.root={root}, which must be {must}") from None
    return fit(found.pixels, *form)
