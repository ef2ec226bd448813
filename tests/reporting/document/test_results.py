"""Results of other commands: their pictures, and what a report reads of them."""

import json

import pytest

from energy_at.reporting.document.results import analyses, evaluations, samples
from tests.helpers.reports import CONTENT, accuracy

# What other commands have left in a run folder, and what is said where it is damaged


PNG = b"\x89PNG\r\n\x1a\nrest"


def write(run, content, name="strong"):
    folder = run / "evaluation" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "evaluation.json").write_text(text)
    return folder


def test_a_run_without_any_has_none(tmp_path):
    assert evaluations(tmp_path) == analyses(tmp_path) == []
    assert samples(tmp_path) == ()


def test_an_evaluation_is_read(tmp_path):
    folder = write(tmp_path, CONTENT)
    (folder / "curve.png").write_bytes(PNG)
    (one,) = evaluations(tmp_path)
    assert (one.name, one.network, one.norm) == ("strong", "best", "L-inf")
    assert one.images == "cifar10 test, 1,000 of 10,000"
    assert one.pictures == (folder / "curve.png",)
    results = [(result, meaning) for result, *_, meaning in one.checks]
    assert results == [("pass", ""), ("warning", "m"), ("not run", "m")]


def test_accuracies_are_by_radius_from_the_smallest_each_with_the_clean_one(tmp_path):
    write(tmp_path, CONTENT)
    (one,) = evaluations(tmp_path)
    clean = {"clean": "80.0 [77.0, 83.0]"}
    assert one.radii == [
        ("8/255", clean | {"fgsm": "50.0 [47.0, 53.0]", "pgd": "40.0 [37.0, 43.0]"}),
        ("16/255", clean | {"pgd": "25.0 [22.0, 28.0]"}),
    ]


def test_an_attack_is_named_by_its_label(tmp_path):
    write(
        tmp_path, CONTENT | {"accuracies": [accuracy("pgd", 0.1, "0.1", 0.5) | {"label": "PGD-50"}]}
    )
    assert evaluations(tmp_path)[0].radii == [("0.1", {"PGD-50": "50.0 [47.0, 53.0]"})]


def test_what_was_left_out_is_a_check_that_did_not_run(tmp_path):
    write(tmp_path, CONTENT | {"left_out": ["autoattack: not installed"]})
    result, _, finding, _ = evaluations(tmp_path)[0].checks[-1]
    assert (result, finding) == ("not run", "autoattack: not installed")


def test_an_evaluation_without_attack_has_its_clean_accuracy(tmp_path):
    write(tmp_path, CONTENT | {"accuracies": CONTENT["accuracies"][:1]})
    assert evaluations(tmp_path)[0].radii == [("0", {"clean": "80.0 [77.0, 83.0]"})]


def test_all_images_are_not_said_to_be_some(tmp_path):
    write(tmp_path, CONTENT | {"dataset": CONTENT["dataset"] | {"images": 10000}})
    assert evaluations(tmp_path)[0].images == "cifar10 test, 10,000"


def test_evaluations_are_in_the_order_of_their_names(tmp_path):
    for name in "bca":
        write(tmp_path, CONTENT, name)
    assert [one.name for one in evaluations(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", CONTENT | {"accuracies": 3}, CONTENT | {"accuracies": [{}]},
     CONTENT | {"network": "last"}, CONTENT | {"checks": [{"passed": "yes"}]},
     CONTENT | {"accuracies": [accuracy("a", 0, "0", 0.5) | {"low": "x"}]}],
)  # fmt: skip
def test_a_damaged_evaluation_is_named_in_one_line(tmp_path, content):
    folder = write(tmp_path, content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        evaluations(tmp_path)
    assert str(folder / "evaluation.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_analysis_is_its_table_and_its_figures(tmp_path):
    folder = tmp_path / "analysis" / "last"
    folder.mkdir(parents=True)
    (folder / "table.csv").write_text('attack,"E(x), mean"\npgd,-1.5\nfgsm,\ncw,1\n')
    for name in ("quiver.png", "histogram.png"):
        (folder / name).write_bytes(PNG)
    (tmp_path / "analysis" / "empty").mkdir()
    ((name, table, pictures),) = analyses(tmp_path)
    assert name == "last"
    assert table.columns == ("attack", "E(x), mean")
    assert table.rows == [("pgd", "-1.5"), ("fgsm", ""), ("cw", "1")]
    assert [path.name for path in pictures] == ["histogram.png", "quiver.png"]


def test_samples_are_found_in_folders_of_folders(tmp_path):
    for name in ("b/grid.png", "b/classes/000-0.png", "a/deep/grid.png", "top.png"):
        file = tmp_path / "samples" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    names = [str(path.relative_to(tmp_path / "samples")) for path in samples(tmp_path)]
    assert names == ["a/deep/grid.png", "b/grid.png", "top.png"]
