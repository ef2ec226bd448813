"""Images of other data sets, made to fit a network."""

import numpy as np
import pytest
import torch
from PIL import Image

from energy_at.core.rules import ArgumentError
from energy_at.data.other_images import fit, other_images


def test_images_of_the_form_stay_as_they_are():
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(fit(pixels, 3, 8), pixels)
    grey = fit(pixels[:, :1], 3, 8)
    assert torch.equal(grey, pixels[:, :1].expand(-1, 3, -1, -1))


def test_the_square_in_the_middle_is_resized_and_colours_become_their_luminance():
    pixels = torch.zeros((1, 3, 10, 20), dtype=torch.uint8)
    pixels[..., 5:15] = torch.tensor([200, 100, 40], dtype=torch.uint8)[:, None, None]
    assert torch.equal(fit(pixels, 3, 5), pixels[:, :, :5, 5:10])
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 40)
    assert fit(pixels, 1, 30).unique().tolist() == [grey]


def test_images_are_averaged_when_they_are_made_smaller():
    board = (255 * (torch.arange(32)[:, None] + torch.arange(32)) % 510).to(torch.uint8)
    assert (fit(board[None, None], 1, 8).int() - 128).abs().max() <= 1


def test_a_folder_gives_its_images_at_any_depth_and_a_file_its_test_images(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    (tmp_path / "a/b").mkdir(parents=True)
    for name, one in zip(("a/0.png", "a/b/1.png", "a/b/2.png"), images, strict=True):
        Image.fromarray(one).save(tmp_path / name)
    (tmp_path / "a/notes.txt").write_text("no image")
    expected = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert torch.equal(other_images(tmp_path / "a", 3, 6, "ood"), expected)
    np.savez(tmp_path / "f.npz", train_images=images[:1], train_labels=[0],
             test_images=images, test_labels=[0, 1, 0])  # fmt: skip
    assert torch.equal(other_images(tmp_path / "f.npz", 3, 6, "ood"), expected)
    np.savez(tmp_path / "g.npz", images=images)
    assert torch.equal(other_images(tmp_path / "g.npz", 3, 6, "ood"), expected)


def test_what_holds_no_images_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", y=np.zeros(3))
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for name in ("a.png", "b.gif"):
        Image.new("RGB", (6, 6)).save(tmp_path / "mixed" / name)
    for name, said in {
        "f.npz": "it holds y",
        "empty": "a folder that holds images",
        "mixed": "b.gif is another image",
    }.items():
        with pytest.raises(ArgumentError, match=said):
            other_images(tmp_path / name, 3, 6, "ood")
