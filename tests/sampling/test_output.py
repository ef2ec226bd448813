"""The files of a sampling hold what was drawn and what was found."""

import csv
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from energy_at.reporting import panels
from energy_at.sampling.langevin import Stop
from energy_at.sampling.output import FILES
from tests.helpers.samples import BARE, FIGURES, columns, opened_net, report
from tests.helpers.wandb_files import Kept


def test_the_images_and_what_is_known_of_each(made):
    found = columns(made)
    assert found["pixels"].shape == (70, 8, 8, 1)
    assert found["pixels"].dtype == found["start"].dtype == np.uint8
    assert found["label"].tolist() == [i % 10 for i in range(70)]
    assert found["number"].tolist() == list(range(70))
    assert found["steps"].max() <= 4
    assert set(found["stop"]) <= set(Stop)
    assert bool((found["steps"][found["stop"] == Stop.CAP] == 4).all())
    assert np.isfinite(found["target"]).all()


def test_energies_are_those_of_the_bytes_that_are_written(made):
    found = columns(made)
    pixels = torch.from_numpy(found["pixels"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = opened_net()(pixels)
    joint = -logits[torch.arange(70), torch.from_numpy(found["label"])]
    torch.testing.assert_close(torch.from_numpy(found["joint"]), joint, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.from_numpy(found["marginal"]), -logits.logsumexp(1), atol=1e-5, rtol=1e-5
    )


def test_the_report_holds_the_configuration_and_all_numbers(made):
    found = report(made)
    assert found["n"] == 70
    assert found["seed"] == 0
    assert found["dataset"] == "digits"
    assert found["extractor"] == "classifier"
    assert found["reference"] == {"dataset": "digits", "split": "train", "images": 1200}
    assert found["fitted_to"]["split"] == "train"
    assert found["settings"]["start"] == {
        "name": "local_pca", "k": 5, "by": "features", "variance": 0.99, "scale": 1.0
    }  # fmt: skip
    assert found["settings"]["sampler"]["steps"] == 4
    assert found["settings"]["guidance"]["name"] == "class_energy"
    assert len(found["network"]["sha256"]) == 64
    assert found["stopped"]["cap"] + found["stopped"]["reached"] == 70
    found_columns = columns(made)
    assert found["mean_steps"] == pytest.approx(found_columns["steps"].mean())
    change = (found_columns["pixels"] / 255.0 - found_columns["start"] / 255.0).reshape(70, -1)
    middle = np.sort(np.sqrt((change**2).sum(1)))[34]  # torch's median: the lower of two
    assert found["moved"] == pytest.approx(middle, rel=1e-5)
    assert middle > 0
    said = f"moved by {middle:.3f} (L2 in pixels, median)"
    assert said in Path(made, "samples.md").read_text()
    assert found["protocol"] == {
        "name": "ours",
        "changed": ["quality=classifier", "n=70", "start.k=5", "sampler.steps=4"],
    }
    assert found["of_earlier_attempts"] == 0
    assert set(found["seconds"]) == {"prepare", "sample", "measure"}
    assert list(found["sets"]) == ["samples", "start alone", "held-out images", "class means"]
    for row in found["sets"].values():
        assert {
            "fid",
            "kid",
            "inception_score",
            "precision",
            "recall",
            "classifier_accuracy",
            "variety",
        } <= (row.keys())
        assert row["images"] == 70
    assert found["sets"]["class means"]["variety"] == 0
    for name in ("samples", "start alone", "held-out images"):
        assert {"nearest", "copied"} <= found["sets"][name].keys()


def test_the_work_is_a_pass_and_a_gradient_for_each_step_and_for_each_look_at_a_target(made):
    found, net = columns(made), opened_net()
    reached = found["stop"] == Stop.REACHED
    assert 0 < reached.sum() < 70
    evaluations = int(found["steps"].sum() + reached.sum())
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        net(torch.zeros(1, 1, 8, 8))
    assert report(made)["work"] == {
        "evaluations": evaluations,
        "forward_passes": 2 * evaluations,
        "share_of_cap": pytest.approx(evaluations / (70 * 4)),
        "flops": 2 * evaluations * forward.get_total_flops(),
    }
    assert forward.get_total_flops() > 0
    assert f"- work: {evaluations} evaluations" in Path(made, "samples.md").read_text()


def test_every_table_says_the_protocol(made):
    protocol = "ours, with quality=classifier, n=70, start.k=5, sampler.steps=4"
    assert f"Protocol {protocol}.\n" in Path(made, "samples.md").read_text()
    assert Path(made, "samples.tex").read_text().startswith(f"% protocol {protocol}\n")
    with Path(made, "samples.csv").open() as file:
        assert {row["protocol"] for row in csv.DictReader(file)} == {protocol}


def test_every_class_has_a_picture_of_its_own(made):
    found = columns(made)
    names = sorted(path.name for path in Path(made, "classes").iterdir())
    assert names == [f"{label:03d}-{label}.png" for label in range(10)]
    with Image.open(Path(made, "classes", "003-3.png")) as picture:
        shown = np.asarray(picture)[::8, ::8]  # each pixel is eight pixels wide
    first, second = found["pixels"][found["label"] == 3][:2, :, :, 0]
    assert (shown[:8, :8] == first).all()
    assert (shown[:8, 9:17] == second).all()


def test_the_table_is_that_of_the_report(made):
    with Path(made, "samples.csv").open() as file:
        rows = {row["set"]: row for row in csv.DictReader(file)}
    for name, expected in report(made)["sets"].items():
        assert float(rows[name]["fid"]) == pytest.approx(expected["fid"])
        assert int(rows[name]["images"]) == expected["images"]


def test_the_text_says_whose_features_and_what_the_numbers_are_not(made):
    text = Path(made, "samples.md").read_text()
    assert "70 samples of digits" in text
    assert "scores by classifier against 1200 train images of digits" in text
    assert "not comparable with published IS and FID" in text
    assert "at their target energy" in text
    assert "nearest training image" in text
    assert "nan" not in text.lower()


def test_the_figures_show_something(made):
    for name in FIGURES:
        path = made / name
        assert path.stat().st_size > 1000
        if path.suffix == ".png":
            assert matplotlib.image.imread(path)[:, :, :3].std() > 0.03


def test_wandb_keeps_pictures_scores_and_everything_that_a_panel_shows(made):
    kept = Kept(made)
    (row,) = kept.rows
    assert (kept.run.job_type, list(kept.run.tags)) == ("sample", ["digits"])
    assert kept.config["seed"] == 0
    assert kept.config["trained"]["attack"]["steps"] == 1
    for name, value in report(made)["sets"]["samples"].items():
        assert value is None or row[f"sample/{name}"] == value
    (section,) = [one for one in panels.specification() if one["title"] == "Samples"]
    shown = [key for one in section["panels"] for key in one.get("keys") or [one["key"]]]
    assert all(key.startswith("sample") for key in shown)
    assert len(shown) > 7
    assert set(shown) <= {key.partition(".")[0] for key in row}
    files = sorted(path.name for path in kept.media.rglob("*.png"))
    assert [name.split("_")[0] for name in files] == ["distributions", "grid", "nearest", "start"]
    (table,) = kept.media.rglob("*.table.json")
    rows = json.loads(table.read_text())["data"]
    assert [row[0] for row in rows] == list(report(made)["sets"])


def test_nothing_else_is_left(made):
    assert sorted(path.name for path in made.iterdir()) == sorted(
        [*FILES, *FIGURES, ".result.json", "classes", "wandb"]
    )
    assert not Path("run/samples").exists()  # what others reuse is in the typed cache


@pytest.mark.slow
def test_the_figures_of_a_handful_are_drawn(digits_run, type_sample):
    code, _, err = type_sample("run=run", "n=3", "out=made", *BARE, "guidance=none")
    assert (code, err) == (0, "")
    assert all(Path("made", name).is_file() for name in FIGURES)
