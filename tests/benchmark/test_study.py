"""The study: every job once, in order, on again where it was cut off, and one small result."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from energy_at import evaluate, train
from energy_at.benchmark import study_command as study
from energy_at.benchmark.study import Job, jobs, known, work_off, write_known
from tests.helpers.running import CONF, typed

SMALL = " ".join(
    (
        "dataset=digits dataset.subset=100 dataset.val_size=20 model=small model.width=4",
        "trainer.max_epochs=1 trainer.accelerator=cpu trainer.precision=32-true",
        "trainer.enable_progress_bar=false evaluation.subset=20 evaluation.attacks.pgd.steps=1",
        "evaluation.attacks.pgd.restarts=1",
    )
)


def study_config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("study", list(overrides))


def job(tmp_path, name):
    return Job(name, "energy_at.evaluate", (), tmp_path / name / "evaluation.json")


def test_every_method_is_trained_then_judged_and_samples_come_last():
    names = [job.name for job in jobs(study_config())]
    assert names[:3] == ["benchmark", "fgsm_8", "fgsm_8 judged"]
    assert names[-1] == "samples"
    for method in ("fgsm", "rs_fgsm", "n_fgsm"):
        for eps in (8, 16):
            assert {f"{method}_{eps}", f"{method}_der_{eps}"} < set(names)
    assert {"gradalign_8", "pgd_8", "pgd_der_8", "trades_8", "trades_der_8"} < set(names)
    assert len(names) == len(set(names))


def test_every_training_of_the_study_is_a_configuration():
    for one in jobs(study_config()):
        if one.entry == "energy_at.train":
            argv = [typed for typed in one.argv if not typed.startswith("hydra.")]
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose("train", argv)
            assert cfg.dataset.name == "cifar10"
            assert cfg.model.width == 64
            assert cfg.trainer.max_epochs == 30
            assert f"_{255 * cfg.threat.ball.eps:.0f}" in one.name


def test_what_is_done_is_left_and_a_failure_ends_nothing_else(tmp_path):
    todo = [job(tmp_path, name) for name in ("done", "bad", "bad judged", "good")]
    todo[0].result.parent.mkdir()
    todo[0].result.write_text("{}")
    codes, told = iter([1, 0]), []
    failed = work_off(todo, lambda _: next(codes), lambda: told.append(1), lambda: True)
    assert failed == ["bad", "bad judged"]
    assert len(told) == 3
    assert next(codes, None) is None


def test_no_job_begins_after_the_time(tmp_path):
    todo = [job(tmp_path, name) for name in "abc"]
    begun, left = [], iter([True, False])
    assert work_off(todo, lambda c: begun.append(c) or 0, lambda: None, lambda: next(left)) == []
    assert len(begun) == 1


def test_samples_of_nothing_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = typed(monkeypatch, capsys, study.main, "sampled=nothing")
    assert (code, err.count("\n")) == (1, 1)
    assert "sampled=nothing: choose from fgsm_8" in err
    assert list(Path().iterdir()) == []


def test_a_study_cut_off_goes_on_and_leaves_one_small_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = study_config(
        f'overrides="{SMALL}"', 'evaluate="attacks=[fgsm] subset=10 progress=false device=cpu"'
    )
    todo = [one for one in jobs(cfg) if one.name.startswith("fgsm_der_8")]
    entries = {"energy_at.train": train.main, "energy_at.evaluate": evaluate.main}

    def run(command):
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", list(command))
            entries[command[0]]()
        return 0

    assert run(todo[0].command()) == 0
    todo[0].result.unlink()  # as if it had been killed before its evaluation
    assert todo[0].command() == ("energy_at.train", "resume=study/fgsm_der_8")
    assert work_off(todo, run, lambda: None, lambda: True) == []
    path = write_known(known(todo, {"device": "NVIDIA H100 80GB"}), Path("results"))
    assert path == Path("results/nvidia_h100_80gb.json")
    found = json.loads(path.read_text())["jobs"]
    assert found["fgsm_der_8"]["last"]["test"]["n"] == 20
    assert [share["label"] for share in found["fgsm_der_8 judged"]["accuracies"]] == [
        "clean",
        "FGSM",
    ]
    assert path.stat().st_size < 10_000
    assert work_off(todo, pytest.fail, lambda: None, lambda: True) == []
