"""What is typed to evaluate a network, and what comes back."""

import shutil
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from energy_at.config.build import make
from energy_at.core.extras import install
from energy_at.evaluation import FILES, gradient_masking
from energy_at.models.weights import exported
from energy_at.runs.result_folder import RECORD
from tests.helpers.digits_net import digits_net
from tests.helpers.evaluations import QUICK, outcomes, report, written
from tests.helpers.running import CONF, assert_refused, everything


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gradient_masking, "BLACK_BOX_QUERIES", 20)


@pytest.fixture
def without_the_library(monkeypatch):
    monkeypatch.setattr(sys.modules["energy_at.attacks.autoattack"], "find_spec", lambda _: None)


@pytest.mark.usefixtures("digits_run")
def test_a_run_is_evaluated_where_it_lies(type_evaluate):
    code, out, err = type_evaluate("run=run", *QUICK)
    assert (code, err) == (0, "")
    folder = Path(written(out))
    assert folder == Path("run/evaluation", f"last-linf-0.1-20-test-{report(folder)['key'][:6]}")
    assert {path.name for path in folder.iterdir()} == {*FILES, "journal.jsonl", RECORD}
    assert out.startswith(folder.joinpath("evaluation.md").read_text())
    assert report(folder)["eps"] == ["0.1"]  # of the run


@pytest.mark.slow
@pytest.mark.usefixtures("digits_run")
def test_what_is_re_run_is_the_same_evaluation_and_what_differs_another(type_evaluate):
    folders = [
        written(type_evaluate("run=run", *QUICK, *more)[1])
        for more in ((), ("batch_size=3",), ("seed=1",), ("eps=0.05",), ("eps=[1/10,0.05]",))
    ]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 4
    assert Path(folders[-1]).name.startswith("last-linf-1of10-to-0.05-20-test-")
    assert Path(folders[-1], "accuracy.png").is_file()


@pytest.mark.usefixtures("digits_run")
def test_another_norm_brings_its_own_radius(type_evaluate):
    _, out, _ = type_evaluate("run=run", *QUICK, "norm=l2")
    found = report(written(out))
    assert (found["norm"], found["eps"]) == ("l2", ["0.5"])  # of the digits
    _, out, _ = type_evaluate("run=run", *QUICK, "norm=l2", "eps=128/255")
    assert report(written(out))["accuracies"][1]["eps"] == 128 / 255


@pytest.mark.usefixtures("digits_run")
def test_a_subset_is_drawn_by_its_seed_and_stated(type_evaluate):
    chosen = {}
    for seed in ("0", "1", "null"):
        _, out, _ = type_evaluate("run=run", "attacks=[fgsm]", "subset=9", "progress=false",
                                  f"subset_seed={seed}", f"out=seed-{seed}")  # fmt: skip
        drawn = "the first" if seed == "null" else f"drawn with seed {seed}"
        assert f"9 of 360 ({drawn}) test images" in out
        chosen[seed] = outcomes(f"seed-{seed}")["image"]
    assert chosen["null"] == list(range(9))
    assert chosen["0"] != chosen["1"]
    assert all(images == sorted(set(images)) for images in chosen.values())


@pytest.mark.parametrize(("split", "n"), [("val", 237), ("train", 1200)])
@pytest.mark.usefixtures("digits_run")
def test_other_images_of_the_run_can_be_chosen(type_evaluate, split, n):
    _, out, _ = type_evaluate("run=run", *QUICK, "attacks=[fgsm]", f"split={split}")
    assert f"20 of {n} (drawn with seed 0) {split} images of digits" in out


@pytest.mark.slow
@pytest.mark.usefixtures("digits_run")
def test_a_file_of_weights_is_evaluated_to_the_same_numbers(type_evaluate):
    net, _ = digits_net()
    save_file(exported(net), "weights.safetensors")
    shutil.copy("weights.safetensors", "weights")
    _, out, _ = type_evaluate("run=run", *QUICK)
    model = ("model=small", "model.width=8", "eps=0.1")
    for file in ("weights.safetensors", "weights", "run/checkpoints/last.ckpt"):
        _, again, err = type_evaluate(f"checkpoint={file}", *model, *QUICK)
        assert err == ""
        assert outcomes(written(again)) == outcomes(written(out))


@pytest.mark.slow
def test_the_same_weights_in_another_network_are_another_evaluation(type_evaluate):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        net = make(compose("evaluate", ["model.width=2"]).model)
    save_file(exported(net), "weights.safetensors")
    options = ("model.width=2", "model.shortcut=activated")
    typed_before = ("checkpoint=weights.safetensors", *options, *QUICK)
    folders = [
        written(type_evaluate(*typed_before, f"model.activation={activation}")[1])
        for activation in ("relu", "silu")
    ]
    assert folders[0] != folders[1]


def test_a_run_may_have_a_number_for_a_name(digits_run, type_evaluate):
    digits_run.rename("0")
    code, out, _ = type_evaluate("run=0", *QUICK, "out=1")
    assert (code, written(out)) == (0, "1")


@pytest.mark.usefixtures("digits_run", "without_the_library")
def test_without_autoattack_one_line_says_so_and_the_rest_is_done(type_evaluate):
    more = ("steps=2", "restarts=2", "subset=10", "progress=false", "out=out")
    code, out, err = type_evaluate("run=run", *more)
    line = f"AutoAttack is not installed: {install('autoattack')}"
    assert (code, err) == (0, f"left out: {line}\n")
    assert f"- left out: {line}\n" in out
    assert [row["label"] for row in report("out")["accuracies"]] == ["clean", "FGSM", "PGD-2-2"]
    assert report("out")["left_out"] == [line]
    (check,) = [check for check in report("out")["checks"] if "black box" in check["name"]]
    assert check["passed"] is None
    assert check["meaning"] == f"needs the AutoAttack library: {install('autoattack')}"


@pytest.mark.usefixtures("digits_run")
def test_it_runs_fgsm_pgd_50_10_and_autoattack(type_evaluate):
    code, out, _ = type_evaluate("run=run", "eps=0.5", "subset=20", "progress=false")
    assert code == 0
    labels = [row["label"] for row in report(written(out))["accuracies"]]
    assert labels == ["clean", "FGSM", "PGD-50-10", "AutoAttack"]


@pytest.mark.usefixtures("digits_run", "without_the_library")
@pytest.mark.parametrize("name", ["autoattack", "square", "apgd_t"])
def test_without_the_library_an_attack_of_it_is_refused(type_evaluate, name):
    before = everything()
    code, out, err = type_evaluate("run=run", f"attacks=[fgsm,{name}]")
    assert (code, out) == (1, "")
    assert err == f"error: {name} needs the AutoAttack library: {install('autoattack')}\n"
    assert everything() == before


@pytest.mark.usefixtures("digits_run")
def test_a_key_that_exists_may_be_typed_with_two_pluses(type_evaluate):
    _, out, _ = type_evaluate("run=run", *QUICK, "++subset=5")
    assert "5 of 360" in out


@pytest.mark.usefixtures("digits_run")
def test_ctrl_c_ends_in_one_line_and_what_is_re_run_resumes(type_evaluate, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["energy_at.evaluation.evaluate"], "network_checks", press)
        code, out, err = type_evaluate("run=run", *QUICK, "out=out")
    assert (code, out) == (130, "")
    assert err == "\nstopped: re-run the same command to resume\n"
    left = Path("out/journal.jsonl").read_bytes()
    assert type_evaluate("run=run", *QUICK, "out=out")[0] == 0
    assert Path("out/journal.jsonl").read_bytes().startswith(left)
    assert left.count(b"\n") > 1


@pytest.mark.usefixtures("digits_run")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("run=run", "eps=1/255,2/255"), "write eps=[1/255,2/255] for a list"),
        (("run=run", "attacks=[fgms]"), "attacks=[fgms] must be a list of different names"),
        (("run=run", "attacks=[n_fgsm]"), "(did you mean fgsm?)"),
        (("run=run", "attacks=[pgd,pgd]"), "must be a list of different names"),
        (("run=run", "steps=0"), "steps=0 must be an integer >= 1"),
        (("run=run", "restarts=0", "attacks=[fgsm]"), "restarts=0 must be an integer >= 1"),
        (("run=run", "subset=361"), "subset=361 must be an integer from 1 to 360, or null"),
        (("run=run", "subset=0"), "subset=0 must be an integer >= 1, or null"),
        (("run=run", "batch_size=0"), "batch_size=0 must be an integer >= 1"),
        (("run=run", "norm=l1"), "norm=l1 must be linf or l2"),
        (("run=run", "split=tset"), "split=tset must be test, val or train (did you mean test?)"),
        (("run=run", "no_such_key=1"), "no_such_key: unknown key"),
        (("run=run", "+no_such_key=1"), "+no_such_key=1: nothing reads no_such_key, leave it out"),
        (("run=run", "++no_such_key=1"), "++no_such_key=1: nothing reads no_such_key"),
        (("checkpoint=file", "+training.foo=1"), "+training.foo=1: nothing reads training.foo"),
        (("run=run", "+attack=pgd"), "attack: unknown key; did you mean attacks=[pgd]?"),
        (("run=run", "~steps"), "~steps: the command reads this key, which cannot be deleted"),
        (("run=run", "out=file", *QUICK), "out=file cannot be made (File exists)"),
        (("run=run", "out=taken", *QUICK), "taken holds other files: choose another out=FOLDER"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_writes_nothing(type_evaluate, wrong, said):
    Path("file").write_text("text")
    Path("taken").mkdir()
    Path("taken/journal.jsonl").write_text("of somebody else\n")
    assert_refused(type_evaluate, said, *wrong)
