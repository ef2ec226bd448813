"""Findings of the doctor: a fault has a reason and a remedy."""

import pytest

from energy_at.doctor import Verdict, require, run_check
from tests.helpers.doctor import fails

# Findings


def test_what_a_check_raises_is_a_failure_with_its_reason():
    def broken():
        raise KeyError("gone\nand two lines")

    found = run_check("thing", broken)
    assert found.name == "thing"
    assert fails(found, "KeyError", "gone", "test_init.py:")
    assert "\n" not in found.message


def test_a_torchvision_of_another_build_has_its_own_remedy():
    def broken():
        raise RuntimeError("operator torchvision::nms does not exist")

    assert "install both together" in run_check("smoke", broken).remedy


def test_what_has_measured_nothing_does_not_pass():
    found = run_check("empty", lambda: require({}, "fine", "none"))
    assert fails(found, "measured nothing")


def test_a_fault_without_a_remedy_is_refused():
    with pytest.raises(ValueError, match="remedy"):
        Verdict("warn", "slow")
    with pytest.raises(ValueError, match="remedy"):
        Verdict("pass", "fine", "none needed")
