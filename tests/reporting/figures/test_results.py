"""Pictures of results: images by class, and accuracy over eps."""

import numpy as np
import pytest

from energy_at.reporting.figures import ATTACK_STYLES, DOTS
from energy_at.reporting.figures.results import (
    COLUMNS,
    ROWS,
    accuracy_figure,
    grid,
    trajectories_figure,
)


def shown(classes, each, per_class):
    """The grid of images that are as bright as their class and number say, none of class 1."""
    labels = np.repeat(np.arange(classes), each)
    brightness = (labels % 25) * 10 + np.tile(np.arange(each), classes)
    keep = labels != 1
    images = brightness.astype(np.uint8)[keep, None, None, None] * np.ones((3, 3, 1), np.uint8)
    return grid(images, labels[keep], [f"c{i}" for i in range(classes)], per_class)


@pytest.mark.parametrize(
    ("classes", "per_class", "blocks", "columns"), [(4, 3, 1, 3), (25, 9, 1, 5), (200, 10, 8, 5)]
)
def test_every_class_stands_in_its_row_with_its_name(classes, per_class, blocks, columns):
    axes = shown(classes, 5, per_class).axes
    assert len(axes) == blocks
    names = [[text.get_text() for text in part.get_yticklabels()] for part in axes]
    assert [name for block in names for name in block] == [f"c{i}" for i in range(classes)]
    for part, block in zip(axes, names, strict=True):
        pixels = part.images[0].get_array()
        assert pixels.shape[1] == 4 * columns
        for row, name in enumerate(block):
            label = int(name[1:])
            found = pixels[4 * row, ::4]
            wanted = [255] * columns if label == 1 else (label % 25) * 10 + np.arange(columns)
            assert np.array_equal(found, wanted)


def test_a_title_that_is_cut_still_has_the_number_of_images_shown():
    images = np.zeros((10, 8, 8, 1), np.uint8)
    figure = grid(images, np.arange(10), [str(i) for i in range(10)], 1, "a long title " * 9)
    title = figure.get_suptitle().replace("\n", " ")
    assert title.startswith("10 of 10 shown: a long")
    assert title.endswith(DOTS)


@pytest.mark.slow
def test_a_page_of_very_many_classes_keeps_its_size():
    figure = shown(1000, 5, 5)
    assert len(figure.axes) == 1000 / ROWS
    assert sum(part.images[0].get_array().shape[1] // 4 for part in figure.axes) <= COLUMNS


def test_attacks_are_coloured_as_in_the_curve_of_the_accuracy():
    rows = [
        {"attack": name, "label": name, "eps": eps, "accuracy": 0.5, "low": 0.4, "high": 0.6}
        for name, eps in (("clean", 0.0), *((n, 0.1) for n in ATTACK_STYLES))
    ]
    (axes,) = accuracy_figure({"accuracies": rows, "norm": "linf"}).axes
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.get_lines()}
    assert drawn == ATTACK_STYLES


def test_the_curve_of_the_accuracy_begins_at_the_clean_one():
    labels = {"clean": "clean", "fgsm": "FGSM", "pgd": "PGD-2-2"}
    shares = {("clean", 0): 0.8, ("pgd", 16): 0.1, ("fgsm", 16): 0.3,
              ("fgsm", 4): 0.6, ("pgd", 4): 0.5}  # fmt: skip
    rows = [
        {"attack": name, "label": labels[name], "eps": eps / 255, "accuracy": share,
         "low": share - 0.1, "high": share + 0.1}
        for (name, eps), share in shares.items()
    ]  # fmt: skip
    (axes,) = accuracy_figure({"accuracies": rows, "norm": "linf"}, "title").axes
    assert axes.get_xlabel() == "eps, L-inf [1/255]"
    assert axes.get_ylabel() == "accuracy [%]"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "FGSM", "PGD-2-2", "95 % interval (Wilson)"
    }  # fmt: skip
    for line in axes.get_lines():
        name = line.get_label().lower().partition("-")[0]
        assert line.get_xdata().tolist() == pytest.approx([0, 4, 16])
        expected = [100 * share for share in (0.8, shares[name, 4], shares[name, 16])]
        assert line.get_ydata().tolist() == pytest.approx(expected)


def test_the_frames_of_a_chain_stand_in_its_row_over_their_steps_and_energies():
    frames = np.arange(2 * 3, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
    rows = [("cat", (0, 4, 8), frames[:3], [1.0, 0.5, -2.0]),
            ("dog", (0, 1, 2), frames[3:], [0.0, -1.0, -1.5])]  # fmt: skip
    axes = trajectories_figure(rows, "a title").axes
    assert [part.get_ylabel() for part in axes] == ["cat", "", "", "dog", "", ""]
    assert [part.get_xlabel() for part in axes] == [
        "step 0\n+1.00", "step 4\n+0.50", "step 8\n-2.00",
        "step 0\n+0.00", "step 1\n-1.00", "step 2\n-1.50",
    ]  # fmt: skip
    assert [int(part.images[0].get_array()[0, 0, 0]) for part in axes] == list(range(6))
