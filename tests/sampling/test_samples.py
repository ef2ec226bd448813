"""Finished samples: columns, files, and parts that survive a kill."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from energy_at.runs.result_folder import ResultFolder
from energy_at.sampling.langevin import Stop
from energy_at.sampling.samples import Parts, Samples, SamplingBar, as_bytes


def alike(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def some(numbers):
    """Samples that differ."""
    number = torch.tensor(numbers)
    pixels = (number % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 4).contiguous()
    stop = torch.full_like(number, int(Stop.REACHED))
    return Samples(number, pixels, 255 - pixels, number % 3, number * 2, stop, number / 7)


def test_samples_are_put_in_order():
    whole = Samples.concat([some([4, 1]), some([0, 3]), some([2])])
    assert alike(vars(whole), vars(some([0, 1, 2, 3, 4])))


def test_bytes_are_the_nearest_and_survive_the_way_back():
    between = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).reshape(1, 1, 2, 2)
    assert as_bytes(between).flatten().tolist() == [0, 0, 1, 255]
    whole = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert as_bytes(whole / 255).equal(whole)


def test_arrays_are_as_most_tools_read_them():
    found = some([5, 6]).arrays()
    assert found["pixels"].shape == (2, 2, 4, 3)
    assert found["pixels"].dtype == np.uint8
    assert found["pixels"][1].tolist() == np.full((2, 4, 3), 6).tolist()


def parts_in(folder, key="key"):
    return Parts(ResultFolder(folder, "sampling", key))


def test_parts_are_on_disk_when_it_is_time(tmp_path, monkeypatch):
    monkeypatch.setattr(Parts, "EVERY", 0.0)
    parts = parts_in(tmp_path / "out")
    parts.add(some([3, 1]))
    monkeypatch.setattr(Parts, "EVERY", 1e9)
    parts.add(some([2]))
    assert parts_in(tmp_path / "out").done == {1, 3}
    parts.write()
    again = parts_in(tmp_path / "out")
    assert again.done == {1, 2, 3}
    assert alike(vars(Samples.concat(again.finished)), vars(some([1, 2, 3])))
    again.add(some([0]))
    again.write()
    third = parts_in(tmp_path / "out")
    assert third.done == {0, 1, 2, 3}
    third.remove()
    assert not (tmp_path / "out" / "parts").exists()


def test_no_folder_is_made_before_there_is_something_to_keep(tmp_path):
    parts_in(tmp_path / "out").write()
    assert not (tmp_path / "out").exists()


def test_parts_of_other_samples_are_refused_and_stay(tmp_path):
    parts = parts_in(tmp_path / "out")
    parts.add(some([0]))
    parts.write()
    with pytest.raises(ValueError, match="holds another sampling: choose another out=FOLDER"):
        parts_in(tmp_path / "out", "another")
    assert parts_in(tmp_path / "out").done == {0}


@pytest.mark.parametrize("damage", [b"", b"PK no archive"])
def test_a_damaged_part_is_drawn_again(tmp_path, damage):
    parts = parts_in(tmp_path / "out")
    for number in (0, 1):
        parts.add(some([number]))
        parts.write()
    (tmp_path / "out" / "parts" / "000000.npz").write_bytes(damage)
    again = parts_in(tmp_path / "out")
    assert again.done == {1}
    again.add(some([0]))
    again.write()
    assert parts_in(tmp_path / "out").done == {0, 1}


def test_the_bar_shows_the_mean_energy_at_once_and_the_share_at_target_once_there_is_one(
    monkeypatch,
):
    monkeypatch.setattr("energy_at.core.progress.has_bars", lambda: True)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(SamplingBar, "EVERY", 0.0)
    bar = SamplingBar(total=4)
    bar.show_energies(torch.tensor([-1.0, -2.0]))
    assert bar.postfix == "energy -1.50"
    bar.count(some([0, 1, 2]))
    bar.count(replace(some([3]), stop=torch.tensor([int(Stop.CAP)])))
    bar.show_energies(torch.tensor([3.0]))
    assert bar.postfix == "energy +3.00, 75 % at target"
    assert bar.n == 4
    monkeypatch.setattr(SamplingBar, "EVERY", 1e9)  # a look at the device waits for it
    bar.show_energies(torch.tensor([9.0]))
    assert "+3.00" in bar.postfix
