"""What is to be sampled, and how."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.config.build import make
from energy_at.sampling import Guidance, Langevin, Start
from energy_at.sampling.quality import Extractor

GROUPS = ("start", "guidance", "sampler", "quality")
SPLITS = ("train", "test", "val")


@dataclass(frozen=True)
class Plan:
    """What is to be sampled, and how.

    Attributes:
        n: Number of images; number ``i`` is of class ``i`` modulo the number of classes.
        seed: Of everything that is drawn; each image has its own.
        start: Where samples begin.
        guidance: Where they are led, and when they stop.
        sampler: How they move.
        extractor: Through whose eyes they are measured.
        reference: Split that they are measured against.
        shown: Images of each class in the grid.
        settings: Names and values of all this, as they were chosen.
    """

    n: int
    seed: int
    start: Start
    guidance: Guidance
    sampler: Langevin
    extractor: Extractor
    reference: str
    shown: int
    settings: Mapping[str, Any]

    @property
    def drawn(self) -> dict[str, Any]:
        """What the images depend on, beside network and data; not what they are measured by."""
        parts = {name: self.settings[name] for name in ("start", "guidance", "sampler")}
        return {"n": self.n, "seed": self.seed} | parts

    def title(self) -> str:
        """One line that says where samples begin, where they go, and how far."""
        start, guidance = (str(self.settings[name]["name"]) for name in ("start", "guidance"))
        sampler = self.settings["sampler"]
        return f"start {start}, guidance {guidance}, {sampler['energy']} energy, " + (
            f"at most {sampler['steps']} steps of {sampler['step_size']:g}"
        )


def plan_of(cfg: DictConfig) -> Plan:
    """The sampling that a configuration describes."""
    parts = {name: _part(cfg[name]) for name in GROUPS}
    return Plan(
        cfg.n,
        cfg.seed,
        parts["start"],
        parts["guidance"],
        parts["sampler"],
        parts["quality"],
        cfg.quality.reference,
        cfg.shown,
        {name: _settings(cfg[name]) for name in GROUPS},
    )


def _part(node: DictConfig) -> Any:
    """The object of a group, without the keys that are not its arguments."""
    node = copy.deepcopy(node)
    OmegaConf.set_struct(node, False)
    for name in ("name", "reference"):
        node.pop(name, None)
    return make(node)


def _settings(node: DictConfig) -> dict[str, Any]:
    """Names and values of a group."""
    return {str(name): value for name, value in node.items() if name != "_target_"}
