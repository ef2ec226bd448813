"""The independent classifier: trained once, or any run of the same data set."""

import shutil
from pathlib import Path

import pytest
import torch

from energy_at.runs.folder import RunFolder
from energy_at.sampling import classifier, pipeline
from tests.helpers.running import everything
from tests.helpers.samples import QUICK, columns, opened_net, report, same


def test_the_classifier_is_trained_once_and_a_second_call_draws_nothing(
    made, tmp_path, type_sample, monkeypatch, without_figures
):
    again = shutil.copytree(made, tmp_path / "again")
    folders = list(Path("classifiers").glob("classifier-*"))
    assert len(folders) == 1
    before = columns(made)

    def never(*_, **__):
        raise AssertionError("not again")

    monkeypatch.setattr(classifier, "_train", never)
    monkeypatch.setattr(pipeline, "generate", never)
    code, out, err = type_sample("run=run", "n=70", "quality=none", f"out={again}", *QUICK)
    assert (code, err) == (0, "")
    assert same(columns(again), before)
    assert report(again)["of_earlier_attempts"] == 70
    assert "without the time of 70 samples from an earlier attempt" in out


def test_a_classifier_of_another_data_set_is_refused(digits_run, type_sample):
    shutil.copytree(digits_run, "other")
    path = Path("other/config.yaml")
    path.write_text(path.read_text().replace("name: digits", "name: letters"))
    before = everything()
    code, _, err = type_sample("run=run", "judge=other", "n=3", "quality=none", *QUICK)
    assert code == 1
    assert err == (
        "error: judge=other is a classifier of letters, 10 classes, but samples are of digits, "
        "10 classes\n"
    )
    assert everything() == before


def test_any_run_of_the_data_set_may_be_the_classifier(digits_run, type_sample, without_figures):
    code, _, err = type_sample("run=run", "judge=run", "n=20", "quality=none", "out=made", *QUICK)
    assert (code, err) == (0, "")
    found = columns("made")
    pixels = torch.from_numpy(found["pixels"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        right = (opened_net()(pixels).argmax(1).numpy() == found["label"]).mean()
    assert report("made")["sets"]["samples"]["classifier_accuracy"] == pytest.approx(right)


@pytest.mark.slow
def test_an_interrupted_classifier_is_trained_again(
    digits_run, type_sample, monkeypatch, without_figures
):
    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.fit", cut)
        assert type_sample("run=run", "n=3", "quality=none", "out=made", *QUICK)[0] == 130
    assert not list(Path("classifiers").glob("classifier-*[!t]"))
    code, _, err = type_sample("run=run", "n=3", "quality=none", "out=made", *QUICK)
    assert (code, err) == (0, "")
    (folder,) = Path("classifiers").glob("classifier-*")
    assert RunFolder.open(folder).has_checkpoint()
