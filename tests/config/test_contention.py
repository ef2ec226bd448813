"""Threads of other programs, as Linux counts them in ``/proc/loadavg``."""

import os

import pytest
import torch

from energy_at.config import contention


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine on which so many threads want to run, ours among them."""

    def made(running, cores, threads):
        load = tmp_path / "loadavg"
        load.write_text(f"9.99 9.99 9.99 {running}/812 4711\n")
        monkeypatch.setattr(contention, "LOAD", load)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    return made


@pytest.mark.parametrize(
    ("running", "cores", "threads", "fewer"), [(2, 2, 2, 1), (5, 16, 16, 12), (9, 4, 4, 1)]
)
def test_threads_that_others_crowd_out_get_a_hint(machine, capsys, running, cores, threads, fewer):
    machine(running, cores, threads)
    contention.hint_at_contention()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"OMP_NUM_THREADS={fewer} before" in err
    assert err.startswith(f"hint: {running - 1} more thread{'' if running == 2 else 's'} ")


@pytest.mark.parametrize(("running", "cores", "threads"), [(1, 2, 2), (3, 4, 2), (8, 4, 1)])
def test_threads_with_a_core_each_get_none(machine, capsys, running, cores, threads):
    machine(running, cores, threads)
    contention.hint_at_contention()
    assert capsys.readouterr().err == ""


def test_a_system_that_does_not_tell_gets_none(machine, tmp_path):
    machine(9, 2, 2)
    (tmp_path / "loadavg").unlink()
    assert contention.contention() is None
