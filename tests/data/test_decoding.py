"""Image files become bytes once: what is cached, what it depends on, and what cannot be read."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from energy_at.data.decoding import decoded_files, header, image


def picture(height, width, channels=3, seed=0):
    """A smooth random image, as bytes (height, width, channels)."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 4, channels), dtype=np.uint8).squeeze()
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def files(tmp_path):
    """Four PNG files of 12x12 in tmp_path/images."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        picture(12, 12, seed=i).save(path)
    return paths


def read(files, **options):
    root = files[0].parent
    return decoded_files(
        files, root, root.parent / "cache", **({"channels": None, "size": None} | options)
    )


def cached(files):
    found = sorted((files[0].parent.parent / "cache").iterdir())
    return [path for path in found if not path.is_symlink()]


def test_images_of_the_size_are_their_own_bytes(files):
    pixels = read(files)
    assert pixels.shape == (4, 3, 12, 12)
    for row, path in zip(pixels, files, strict=True):
        assert np.array_equal(row.permute(1, 2, 0), np.asarray(Image.open(path)))


def test_a_cache_is_read_again_without_the_images(files):
    first = read(files).clone()
    (path,) = cached(files)
    state = path.stat()
    for file in files:
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        file.write_bytes(b"x" * file.stat().st_size)
        os.utime(file, ns=times)
    assert torch.equal(read(files), first)
    assert path.stat().st_mtime_ns == state.st_mtime_ns


@pytest.mark.parametrize("change", ["size", "channels", "time", "content", "name", "order"])
def test_a_cache_depends_on_files_and_form(files, change):
    read(files)
    options = {"size": {"size": 6}, "channels": {"channels": 1}}.get(change, {})
    if change == "time":
        os.utime(files[0], (1, 1))
    if change == "content":
        picture(12, 12, seed=9).save(files[0], compress_level=0)
    if change == "name":
        files[0] = files[0].rename(files[0].with_name("other.png"))
    read(files[::-1] if change == "order" else files, **options)
    assert len(cached(files)) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_form_that_is_found_and_one_that_is_named_share_a_cache(files, order, capsys):
    for form in [{}, {"size": 12}, {"channels": 3, "size": 12}][::order]:
        assert read(files, **form).shape == (4, 3, 12, 12)
    assert capsys.readouterr().err.count("decoded 4 images") == 1
    (path,) = cached(files)
    path.unlink()
    assert read(files).shape == (4, 3, 12, 12)
    assert cached(files) == [path]


def test_a_cache_that_was_cut_off_is_made_again(files):
    whole = read(files).clone()
    (path,) = cached(files)
    os.truncate(path, path.stat().st_size - 1)
    assert torch.equal(read(files), whole)
    assert cached(files) == [path]


def test_what_is_written_to_the_pixels_stays_in_memory(files):
    pixels = read(files)
    before = pixels.clone()
    pixels.zero_()
    assert torch.equal(read(files), before)


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (20, 20)])
def test_the_shorter_side_is_resized_and_the_square_in_the_middle_kept(tmp_path, height, width):
    source = picture(height, width)
    source.save(tmp_path / "one.png")
    resized = source.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    top, left = (height // 2 - 10) // 2, (width // 2 - 10) // 2
    middle = np.asarray(resized)[top : top + 10, left : left + 10]
    found = image(tmp_path / "one.png", 3, 10).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - middle).max() <= 1  # rounded in another order


def test_an_image_is_turned_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture(8, 16).save(tmp_path / "one.png", exif=exif)
    upright = np.asarray(picture(8, 16).rotate(-90, expand=True))
    assert header(tmp_path / "one.png")[1:] == (8, 16)
    shown = image(tmp_path / "one.png", 3, 8).transpose(1, 2, 0)
    assert np.array_equal(shown, upright[4:12])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_the_common_formats_are_read(tmp_path, suffix):
    picture(16, 16).save(tmp_path / f"one.{suffix}")
    found = image(tmp_path / f"one.{suffix}", 3, 16).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - np.asarray(picture(16, 16))).mean() < 16


def test_grey_is_one_channel_and_the_same_in_all_three_of_rgb(tmp_path):
    grey = picture(12, 12, channels=1)
    grey.save(tmp_path / "grey.png")
    assert header(tmp_path / "grey.png").grey
    assert np.array_equal(image(tmp_path / "grey.png", 1, 12)[0], np.asarray(grey))
    assert all(np.array_equal(c, np.asarray(grey)) for c in image(tmp_path / "grey.png", 3, 12))


def test_grey_images_among_others_need_a_choice(files):
    picture(12, 12, channels=1).save(files[1])
    with pytest.raises(
        ValueError, match=rf"^channels must be 3 .* 1 of 4 .* such as {files[1]}, .*"
    ):
        read(files)
    assert not (files[0].parent.parent / "cache").exists()
    assert [read(files, channels=n).shape[1] for n in (1, 3)] == [1, 3]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [([(12, 12), (12, 10)], "from 10x12 to 12x12"), ([(12, 10)] * 2, "are 10x12")],
)
def test_sizes_that_differ_or_are_no_square_need_a_choice(files, sizes, said):
    for path, size in zip(files, sizes, strict=False):
        picture(*size).save(path)
    with pytest.raises(ValueError, match=rf"^size must be a number .*{said}, got None$"):
        read(files[:2])
    assert read(files[:2], size=8).shape == (2, 3, 8, 8)


def spoil(path, how):
    if how == "0 bytes":
        path.write_bytes(b"")
    elif how == "not an image":
        path.write_text("no picture")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-60])
    elif how == "missing file":
        path.unlink()
        path.symlink_to("nowhere.png")
    elif how == "instead of 8 bits":
        Image.fromarray(np.full((12, 12), 40_000, dtype=np.uint16)).save(path)
    elif how == "transparent":
        picture(12, 12, channels=4).save(path)
    elif how == "2 frames":
        picture(12, 12).save(path, save_all=True, append_images=[picture(12, 12, seed=1)])


@pytest.mark.parametrize(
    "how",
    ["0 bytes", "not an image", "truncated", "missing file", "instead of 8 bits", "transparent",
     "2 frames"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written(files, how):
    spoil(files[2], how)
    with pytest.raises(
        ValueError, match=rf"^cannot read {files[2]} \(.*{how}.*\): replace or remove"
    ):
        read(files)
    assert not list((files[0].parent.parent / "cache").glob("*"))


def test_all_files_that_cannot_be_read_are_counted(files):
    for path in files:
        spoil(path, "0 bytes")
    with pytest.raises(
        ValueError, match=r"0\.png .*2\.png \(0 bytes\) and 1 more: .* the 4 files$"
    ):
        read(files)


def test_a_link_to_an_image_is_that_image(files):
    (files[0].parent / "link.png").symlink_to(files[0])
    pixels = read([*files, files[0].parent / "link.png"])
    assert torch.equal(pixels[4], pixels[0])


def test_a_cache_that_cannot_be_written_is_named(files):
    Path(files[0].parent.parent / "cache").write_text("a file")
    with pytest.raises(ValueError, match=r"^cache must be a folder that can be written to \(.*\)"):
        read(files)


def test_of_two_that_need_the_same_images_one_decodes_them(files, capsys):
    start = Barrier(2)

    def together(_):
        start.wait()
        return read(files, size=200).clone()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(together, range(2))
    assert torch.equal(one, other)
    assert capsys.readouterr().err.count("decoded 4 images") == 1
    assert len(cached(files)) == 1
