"""Tiny-ImageNet in miniature: the standard layout with four images of each of three classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from energy_at.data.readers import tiny_imagenet

WNIDS = ["n03", "n01", "n02"]  # the order of the file is the order of the classes
COLOURS = {"n03": (200, 30, 30), "n01": (30, 200, 30), "n02": (30, 30, 200)}
VAL = {"val_0.JPEG": "n02", "val_1.JPEG": "n03", "val_2.JPEG": "n01", "val_3.JPEG": "n03"}


def picture(wnid, brightness, size=(64, 64)):
    """The colour of the class; brightness distinguishes the images of a class; black lower left."""
    width, height = size
    array = np.empty((height, width, 3), dtype=np.uint8)
    array[:] = np.array(COLOURS[wnid]) + brightness
    array[height // 2 :, : width // 2] = 0
    return Image.fromarray(array)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=95, subsampling=0)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        for i in range(4):
            save(picture(wnid, 5 * i), made / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
        (made / "train" / wnid / f"{wnid}_boxes.txt").write_text("no image\n")
    for i, (name, wnid) in enumerate(VAL.items()):
        save(picture(wnid, 10 * i), made / "val" / "images" / name)
    rows = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in VAL.items()]
    (made / "val" / "val_annotations.txt").write_text("".join(rows))
    (made / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    return made


def test_labels_are_positions_in_wnids(folder):
    train, test = tiny_imagenet(folder.parent)
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert test.labels.tolist() == [WNIDS.index(wnid) for wnid in VAL.values()] == [2, 0, 1, 0]
    for part in (train, test):
        assert part.pixels.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert part.pixels.shape[1:] == (3, 64, 64)


def test_pixels_are_those_of_the_files_upright_and_in_rgb(folder):
    train, test = tiny_imagenet(folder.parent)
    training = [(wnid, 5 * i) for wnid in WNIDS for i in range(4)]
    validation = [(wnid, 10 * i) for i, wnid in enumerate(VAL.values())]
    for part, sources in ((train, training), (test, validation)):
        for image, (wnid, brightness) in zip(part.pixels.int(), sources, strict=True):
            colour = torch.tensor(COLOURS[wnid])[:, None, None] + brightness
            # JPEG rounds a flat colour by a little; the edges are whole blocks of 8x8.
            assert (image[:, :32] - colour).abs().max() <= 3
            assert (image[:, 32:, 32:] - colour).abs().max() <= 3
            assert image[:, 32:, :32].max() <= 3


def test_grey_images_have_three_equal_channels(folder):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8)[None].repeat(64, 0) * 4)
    save(grey, folder / "train" / "n03" / "images" / "n03_0.JPEG")
    first = tiny_imagenet(folder.parent)[0].pixels[0].int()
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert (first[0] - 4 * torch.arange(64)).abs().max() <= 6


def refusal(folder, kind=FileNotFoundError):
    with pytest.raises(kind) as caught:
        tiny_imagenet(folder.parent)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_data_says_what_to_put_where(tmp_path):
    message = refusal(tmp_path / "data" / "tiny-imagenet-200")
    assert "tiny-imagenet-200.zip" in message
    assert str(tmp_path / "data" / "tiny-imagenet-200") in message
    assert "dataset.root" in message
    assert list(tmp_path.iterdir()) == []


def test_missing_class_list_is_missing_data(folder):
    (folder / "wnids.txt").unlink()
    assert str(folder) in refusal(folder)


def test_class_without_images_is_named(folder):
    for path in (folder / "train" / "n01" / "images").iterdir():
        path.unlink()
    assert "train/n01/images" in refusal(folder)


def test_missing_annotations_are_named(folder):
    (folder / "val" / "val_annotations.txt").unlink()
    assert "val_annotations.txt" in refusal(folder)


def test_missing_validation_image_is_named(folder):
    (folder / "val" / "images" / "val_2.JPEG").unlink()
    assert "val_2.JPEG" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 20, 500])
def test_truncated_image_is_named(folder, kept):
    path = folder / "train" / "n02" / "images" / "n02_3.JPEG"
    path.write_bytes(path.read_bytes()[:kept])
    assert "n02_3.JPEG" in refusal(folder)


@pytest.mark.parametrize("size", [(32, 32), (64, 63), (128, 64)])
def test_image_of_another_size_is_named(folder, size):
    save(picture("n01", 0, size), folder / "val" / "images" / "val_2.JPEG")
    message = refusal(folder, ValueError)
    assert "64x64" in message
    assert "val_2.JPEG" in message
