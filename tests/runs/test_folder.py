"""Run folders: what is written, what is refused."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder

PLAIN = {
    "seed": 3,
    "threat": {"eps": "8/255"},
    "dataset": {"classes": 10, "channels": 1, "size": 8},
    "callbacks": {"last": {}},
    **{group: {} for group in ("model", "attack", "loss", "reg", "trainer", "training")},
}
CONFIG = OmegaConf.create({**PLAIN, "alpha": "${threat.eps}"})
TENS = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 13)]
BOMB = "\n".join(["a0: &a0 1", *TENS])  # thirteen lines


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "one", CONFIG)


def one_line(caught):
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Folders


def test_a_new_run_can_be_opened_and_holds_its_resolved_configuration(run):
    opened = RunFolder.open(str(run.path))
    assert opened == run
    assert OmegaConf.to_container(opened.config()) == {**PLAIN, "alpha": "8/255"}
    assert "${" not in run.config_file.read_text()


def test_create_refuses_a_folder_that_holds_a_run(run):
    run.checkpoints.mkdir()
    (run.checkpoints / "last.ckpt").touch()
    before = run.config_file.read_bytes()
    with pytest.raises(ValueError, match="already holds a run") as caught:
        RunFolder.create(run.path, OmegaConf.create({"seed": 4}))
    assert f"resume={run.path} continues it" in one_line(caught)
    assert run.config_file.read_bytes() == before


def test_a_run_without_a_checkpoint_starts_over_for_the_same_overrides(tmp_path):
    folder = RunFolder.create(tmp_path / "run", CONFIG, ["seed=3"])
    folder.metrics_file.write_text("step,epoch\n1,0\n")
    (folder.path / ".metrics.csv.17.part").touch()
    with pytest.raises(ValueError, match=r"already holds a run: resume=.* starts it over"):
        RunFolder.create(folder.path, CONFIG, ["reg=der"])
    RunFolder.create(folder.path, CONFIG, ["seed=3", "optimizer.lr=0.1"])
    assert folder.overrides() == ["seed=3", "optimizer.lr=0.1"]
    assert not folder.metrics_file.exists()
    assert not list(folder.path.glob(".*"))


def test_a_run_whose_checkpoint_was_lost_does_not_start_over(tmp_path):
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.metrics_file.write_text("step,epoch\n1,0\n2,1\n")  # the epoch before had ended
    assert not folder.has_only_begun
    with pytest.raises(ValueError, match="continues it"):
        RunFolder.create(folder.path, CONFIG)


def test_create_takes_a_folder_that_holds_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path, CONFIG)
    assert RunFolder.open(tmp_path).config().seed == 3
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_open_refuses_what_is_no_run(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileNotFoundError, match="not a run folder") as caught:
        RunFolder.open(tmp_path / name)
    assert str(tmp_path / name) in one_line(caught)


@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/last.ckpt", "metrics.csv"])
def test_a_place_in_a_run_is_met_with_its_folder(run, inside):
    with pytest.raises(FileNotFoundError, match=f"lies in a run: name its folder, {run.path}$"):
        RunFolder.open(run.path / inside)


def test_results_come_back(run):
    results = {"last": {"step": 40, "val": {"clean": 1 / 3, "pgd": 0.1, "n": 237}}, "best": {}}
    run.write_results(results)
    assert RunFolder.open(run.path).results() == results
    run.write_results({"last": {}})
    assert run.results() == {"last": {}}
    assert not list(run.path.glob("*.part"))


def test_accuracies_of_a_run_that_did_not_finish_come_back_but_for_damaged_ones(run):
    good = {"step": 40, "val": {"clean": 1 / 3, "n": 237}}
    wrong = [3, [1], "a", {"val": 3}, {"val": {"clean": 2.0, "n": 9}}, {"val": {"clean": 0.5}}]
    run.write_evaluated({"good": good} | {str(i): value for i, value in enumerate(wrong)})
    assert run.evaluated() == {"good": good}
    run.evaluated_file.write_text("[1]")
    assert run.evaluated() == {}


def test_the_log_is_that_of_the_file_without_empty_cells(run):
    assert run.log().curves == {}
    run.metrics_file.write_text(
        "step,epoch,lr,val/acc/pgd10\n1,0,0.25,\n2,0,0.0,\n2,0,,0.5\n3,1,nan,\n"
    )
    lr, accuracy = run.log()["lr"], run.log()["val/acc/pgd10"]
    assert (list(lr.steps), list(lr.epochs)) == ([1, 2, 3], [0, 0, 1])
    assert list(lr.values[:2]) == [0.25, 0.0]
    assert np.isnan(lr.values[2])
    assert (list(accuracy.steps), list(accuracy.values)) == ([2], [0.5])


def test_the_log_is_read_once_until_the_file_changes(run):
    run.metrics_file.write_text("step,epoch,lr,val/acc/pgd10\n1,0,0.25,\n2,0,0.0,\n2,0,,0.5\n")
    assert list(run.log()["lr"].values) == [0.25, 0.0]
    assert run.log() is run.log()  # read once
    run.metrics_file.write_text("step,epoch,lr\n1,0,0.125\n")
    assert list(run.log()["lr"].values) == [0.125]


@pytest.mark.parametrize("name", ["results.json", "environment.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "<html>"])
def test_a_damaged_file_of_a_run_is_named_in_one_line(run, name, content):
    (run.path / name).write_text(content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        run.results() if name == "results.json" else run.overrides()
    assert str(run.path / name) in one_line(caught)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", '{"last": 3}', "last must hold a step and accuracies"),
        ("results.json", '{"last": {"test": {"clean": "a"}}}', "last.test must hold accuracies"),
        (
            "results.json",
            '{"last": {"test": {"clean": 5, "n": 9}}}',
            "last.test.clean=5 must be from 0",
        ),
        (
            "results.json",
            '{"best": {"val": {"clean": 1, "n": 0}}}',
            "best.val must hold accuracies",
        ),
        ("results.json", '{"training": {"seconds": "a"}}', "training must hold numbers"),
        ("results.json", '{"status": []}', "status must be a mapping"),
        ("results.json", '{"rows": "many"}', "rows must be an integer"),
        ("results.json", '{"alarms": 5}', "alarms must be a list, each with kind and step"),
        ("results.json", '{"alarms": [{"kind": 3}]}', "alarms must be a list, each with kind"),
        ("results.json", '{"last":\n {"step" 3}}', "line 2, column 10: it is not JSON"),
        ("results.json", "[" * 100_000, "it is not JSON"),
        ("environment.json", '{"overrides": 3}', "overrides must be a list"),
        ("environment.json", "{}", "overrides must be a list: remove it, and its run is used"),
        ("environment.json", "", "it is not JSON: remove it, and its run is used without"),
        *(
            ("environment.json", f'{{"overrides": [], "train_images": {n}}}', "must be an integer")
            for n in ('"many"', 10**400)
        ),
        ("config.yaml", "", "it has no group dataset"),
        ("config.yaml", "a: [1\nb: }", "line 2, column 2: it is not YAML"),
        ("config.yaml", "- 1", "it holds no configuration"),
        ("config.yaml", "dataset: 3", "it has no group dataset"),
        pytest.param("config.yaml", f"a: {'[' * 999}{']' * 999}", "nested too deeply", id="deep"),
        ("config.yaml", "a: &a {b: *a}", "config.yaml is damaged: it is nested too deeply"),
        pytest.param("config.yaml", BOMB, "aliases stand for 1.2e+12 values", id="aliases"),
        ("config.yaml", "a: !!python/object/apply:os.system [ls]", "it is not YAML"),
    ],
)
def test_a_file_of_a_run_with_other_content_is_named(run, name, content, said):
    (run.path / name).write_text(content)
    read = {"results.json": run.results, "environment.json": run.record, "config.yaml": run.config}
    with pytest.raises(ValueError, match=r"\.(json|yaml)") as caught:
        read[name]()
    message = one_line(caught)
    assert message.startswith(str(run.path / name))
    assert said in message


def test_a_run_that_lost_the_record_of_its_environment_is_resumed(run):
    run.environment_file.unlink()
    run.note_resume(CONFIG, ["trainer.max_epochs=9"])
    assert run.overrides() == ["trainer.max_epochs=9"]


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (RunFolder.results, ["has not finished", "resume="]),
        (RunFolder.checkpoint, ["last.ckpt"]),
        (lambda run: run.checkpoint("best"), ["best.ckpt"]),
    ],
)
def test_what_is_not_there_yet_is_named(run, read, words):
    with pytest.raises(FileNotFoundError) as caught:
        read(run)
    message = one_line(caught)
    for word in (*words, str(run.path)):
        assert word in message


def test_checkpoints_are_found(run):
    run.checkpoints.mkdir()
    for which in ("last", "best"):
        torch.save({"state_dict": {}, "which": which}, run.checkpoints / f"{which}.ckpt")
        assert read_checkpoint(run.checkpoint(which))["which"] == which
    assert run.checkpoint() == run.checkpoint("last")
