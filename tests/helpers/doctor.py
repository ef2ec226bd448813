"""Checks of the doctor, and what they say."""

from omegaconf import open_dict

from energy_at.config.keys import compose_groups
from energy_at.doctor.smoke import readable


def check(name, root, **changes):
    cfg = compose_groups("doctor", [f"dataset={name}"]).dataset
    with open_dict(cfg):
        cfg.update(changes)
    return readable(cfg, root)


def fails(verdict, *said):
    assert verdict.status == "fail", verdict
    assert verdict.remedy
    for part in said:
        assert part in verdict.message
    return True
