"""Samplings of a sweep: a row for each, the starts alone, and a curve over the steps."""

import csv
import json

import pytest

from energy_at.reporting.figures import results
from energy_at.reporting.tradeoff import FILES, compare_samplings, score_cells

SCORES = {"fid": 30.0, "precision": 0.5, "recall": 0.25, "variety": 2.0, "copied": 0.125}


@pytest.fixture
def write(tmp_path):
    """Writes ``samples.json`` as a job of a sweep leaves it."""

    def written(
        job, start="noise", guidance="none", *, steps=100, seed=0, protocol=("ours", []), **scores
    ):
        folder = tmp_path / str(job)
        folder.mkdir()
        report = {
            "network": {"source": "run"},
            "dataset": "digits",
            "protocol": {"name": protocol[0], "changed": protocol[1]},
            "settings": {
                "start": {"name": start, **({"k": 5} if start == "local_pca" else {})},
                "guidance": {"name": guidance},
                "sampler": {"name": "langevin", "steps": steps},
            },
            "n": 50,
            "seed": seed,
            "mean_steps": steps / 2,
            "stopped": {"reached": 10, "cap": 40},
            "reference": {"split": "train", "images": 1200},
            "extractor": "classifier",
            "sets": {
                "samples": SCORES | scores,
                "start alone": SCORES | {"fid": 90.0},
                "held-out images": SCORES | {"fid": 1.0},
            },
        }
        (folder / "samples.json").write_text(json.dumps(report))

    return written


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr("energy_at.reporting.tradeoff.save", lambda *_: [])


def rows(folder):
    with (folder / "tradeoff.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_without_a_sampling_has_no_table(tmp_path):
    assert compare_samplings(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_each_sampling_has_a_row_each_start_one_and_the_held_out_images_the_last(write, tmp_path):
    for job, (start, guidance) in enumerate(
        [("noise", "none"), ("noise", "class_energy"), ("local_pca", "none")]
    ):
        write(job, start, guidance, fid=30.0 + job)
    text = compare_samplings(tmp_path)
    assert text.startswith("digits, 50 samples, seed 0, scores by classifier against 1200 train")
    assert text.splitlines()[-1] == f"written to {tmp_path}/: {', '.join(FILES)}"
    assert all((tmp_path / name).stat().st_size > 100 for name in FILES)
    found = rows(tmp_path)
    assert [(row["images"], row["start"], row["guidance"], row["FID"]) for row in found] == [
        ("samples", "noise", "none", "30.00"),
        ("samples", "noise", "class_energy", "31.00"),
        ("samples", "local_pca", "none", "32.00"),
        ("start alone", "noise", "", "90.00"),
        ("start alone", "local_pca", "", "90.00"),
        ("held-out images", "", "", "1.00"),
    ]
    assert (found[0]["mean steps"], found[0]["arrived %"]) == ("50.0", "20.0")
    assert (found[3]["mean steps"], found[3]["arrived %"]) == ("0", "")


def test_jobs_are_in_the_order_of_their_numbers(write, tmp_path, without_figures):
    for job in (0, 2, 10):
        write(job, seed=job)
    compare_samplings(tmp_path)
    assert [row["seed"] for row in rows(tmp_path)[:3]] == ["0", "2", "10"]


def test_seeds_are_one_row_of_means_with_standard_errors(write, tmp_path, without_figures):
    for job, (guidance, seed, fid) in enumerate(
        [("none", 0, 10.0), ("class_energy", 0, 7.0), ("none", 1, 14.0), ("none", 2, 12.0)]
    ):
        write(job, guidance=guidance, seed=seed, fid=fid)
    text = compare_samplings(tmp_path)
    lines = (tmp_path / "tradeoff.md").read_text().splitlines()[2:]
    assert "seed 0" not in text
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    by_name = [dict(zip(found[0], row, strict=True)) for row in found[2:]]
    assert [(r["images"], r["guidance"], r["seeds"], r["FID"]) for r in by_name] == [
        ("samples", "none", "3", "12.00 ± 1.15"),  # 2 / sqrt(3)
        ("samples", "class_energy", "1", "7.00"),
        ("start alone", "", "3", "90.00 ± 0.00"),  # both guidances of seed 0 have one start
        ("held-out images", "", "3", "1.00 ± 0.00"),
    ]
    assert by_name[0]["mean steps"] == "50.0 ± 0.0"
    assert r"12.00 $\pm$ 1.15" in (tmp_path / "tradeoff.tex").read_text()
    assert [(row["seed"], row["FID"]) for row in rows(tmp_path)[:4]] == [
        ("0", "10.00"), ("0", "7.00"), ("1", "14.00"), ("2", "12.00")
    ]  # fmt: skip


def test_every_table_says_the_protocol_and_what_all_samplings_change(
    write, tmp_path, without_figures
):
    changed = ["n=50", "quality=classifier"]
    write(0, protocol=("ours", [*changed, "start=noise"]))
    write(1, "local_pca", protocol=("ours", changed))
    text = compare_samplings(tmp_path)
    protocol = "ours, with n=50, quality=classifier"
    assert text.splitlines()[0].endswith(f", protocol {protocol}")
    assert [row["protocol"] for row in rows(tmp_path)] == [*[protocol] * 4, ""]
    assert protocol in (tmp_path / "tradeoff.tex").read_text()
    write(2, "ood", protocol=("dat", ["n=50"]))
    text = compare_samplings(tmp_path)
    assert "protocol" not in text.splitlines()[0]
    found = [row["protocol"] for row in rows(tmp_path)]
    assert found == [protocol, protocol, "dat, with n=50", protocol, protocol, "dat, with n=50", ""]


def test_a_point_of_the_figure_is_the_mean_of_its_seeds_and_steps_are_its_curve(
    write, tmp_path, monkeypatch, without_figures
):
    for job, (steps, seed, fid) in enumerate([(200, 0, 10.0), (100, 0, 20.0), (100, 1, 40.0)]):
        write(job, steps=steps, seed=seed, fid=fid)
    drawn = {}

    def draw(curves, title, controls):
        drawn.update(curves)
        return results.tradeoff_figure(curves, title, controls)

    monkeypatch.setattr("energy_at.reporting.tradeoff.tradeoff_figure", draw)
    compare_samplings(tmp_path)
    (curve,) = drawn.values()
    assert [(point["steps"], point["fid"]) for point in curve] == [(100, 30.0), (200, 10.0)]


def test_without_scores_of_features_no_empty_panel_is_drawn(write, tmp_path, monkeypatch):
    missing = dict.fromkeys(("fid", "precision", "recall"))
    for job, accuracy in enumerate((0.5, 0.75)):
        write(job, steps=10 + job, **missing, classifier_accuracy=accuracy)
    figures = []
    monkeypatch.setattr("energy_at.reporting.tradeoff.save", lambda f, _: figures.append(f))
    compare_samplings(tmp_path)
    (axes,) = figures[0].axes
    (line,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert list(line.get_ydata()) == [0.5, 0.75]
    figures.clear()
    write(2, **missing, variety=None)
    compare_samplings(tmp_path)
    assert figures == []


def test_the_start_alone_and_held_out_images_are_marked(write, tmp_path, monkeypatch):
    write(0)
    figures = []
    monkeypatch.setattr("energy_at.reporting.tradeoff.save", lambda f, _: figures.append(f))
    compare_samplings(tmp_path)
    left = figures[0].axes[0]
    marks = {line.get_marker(): line.get_ydata()[0] for line in left.get_lines()}
    assert marks == {"o": 30.0, "D": 90.0, "*": 1.0}
    (legend,) = figures[0].legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["noise, none", "start alone", "held-out images"]


def test_a_score_has_its_unit_and_one_that_was_not_measured_is_empty():
    cells = score_cells([SCORES | {"kid": None}], ["fid", "kid", "recall", "copied"])
    assert cells == ["30.00", "", "0.250", "12.5"]
