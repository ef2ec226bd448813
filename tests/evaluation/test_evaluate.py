"""An evaluation: its numbers, its files, and what a kill leaves."""

import csv
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from energy_at import evaluation
from energy_at.attacks.registry import CLEAN
from energy_at.attacks.threat import L2, Linf
from energy_at.data import ImageData, ImageSet
from energy_at.evaluation import (
    FILES,
    EvaluationPlan,
    Evaluator,
    TrainedModel,
    gradient_masking,
    robustness,
)
from energy_at.evaluation.evaluate import setting_line
from energy_at.evaluation.robustness import Journal
from energy_at.reporting.figures.results import accuracy_figure
from tests.evaluation.test_gradient_masking import Trap
from tests.evaluation.test_trained_model import brightened, remodelled, retrained
from tests.helpers.evaluations import outcomes, report
from tests.helpers.running import everything
from tests.helpers.standard_net import cifar10_test, standard_net


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gradient_masking, "BLACK_BOX_QUERIES", 20)


@pytest.fixture
def blocks_of_ten(monkeypatch):
    """The attacks of the library search ten images together."""
    monkeypatch.setattr(robustness, "TOGETHER", 10)


PLAN = EvaluationPlan(
    norm="linf", balls={"0.05": Linf(0.05)}, names=["fgsm", "pgd"], steps=2, restarts=2, subset=40
)


@pytest.mark.parametrize(
    ("change", "must"),
    [
        ({"norm": "foo"}, "linf or l2"),
        ({"split": "tset"}, r"test, val or train \(did you mean test\?\)"),
        ({"subset": -3}, "an integer >= 1, or null"),
        ({"restarts": 0}, "an integer >= 1"),
    ],
)
def test_what_is_no_evaluation_is_refused(change, must):
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} must be {must}, got"):
        replace(PLAN, **change)


def judged(subject, plan, out, batch_size=10):
    """The files of an evaluation, by name."""
    evaluation.evaluate(subject, plan, Path(out), batch_size=batch_size, progress=False)
    return {name: Path(out, name).read_bytes() for name in FILES}


def subject_of(net, images):
    """Any network, evaluated on these images of two classes."""
    train = ImageSet(images.pixels[:1].repeat(8, 1, 1, 1), torch.arange(8) % 2)
    data = ImageData(lambda _: (train, images), "", batch_size=4, val_size=2)
    config = OmegaConf.create(
        {"dataset": {"name": "made up"}, "model": {}, "training": {"channels_last": False}}
    )
    return TrainedModel(net, data, config, "here", None, Path("here"), torch.device("cpu"))


# Numbers


class Line(nn.Module):
    """Two classes and a margin that is linear in the image."""

    def __init__(self, weights, bias):
        super().__init__()
        self.weights, self.bias = nn.Parameter(weights), bias

    def forward(self, x):
        margin = x.flatten(1) @ self.weights - self.bias
        return torch.stack([margin, torch.zeros_like(margin)], 1)


@pytest.mark.parametrize(
    ("norm", "ball", "dual"), [("linf", Linf, 1), ("l2", L2, 2)], ids=["linf", "l2"]
)
def test_the_accuracy_of_a_linear_network_is_known_at_every_radius(norm, ball, dual):
    # An image of class 0 is lost exactly if its margin is below eps |w|, in the dual norm.
    pixels, weights = torch.randint(100, 156, (80, 1, 8, 8), dtype=torch.uint8), torch.randn(64)
    scores = (pixels / 255).flatten(1) @ weights
    ordered = scores.sort().values
    bias, *limits = ((ordered[[9, 39, 69]] + ordered[[10, 40, 70]]) / 2).tolist()
    radii = [float((limit - bias) / weights.norm(dual)) for limit in limits]
    names = ["fgsm", "pgd", "cw", "targeted"]
    images = ImageSet(pixels, torch.zeros(80, dtype=torch.long))
    balls = {str(eps): ball(eps) for eps in radii}
    plan = EvaluationPlan(norm=norm, balls=balls, names=names, steps=20, restarts=1)
    judged(subject_of(Line(weights, bias), images), plan, "out", 80)
    found = {(row["attack"], row["eps"]): row["correct"] for row in report("out")["accuracies"]}
    left = dict(zip(radii, (40, 10), strict=True))
    assert found == {("clean", 0.0): 70} | {
        (name, eps): left[eps] for name in names for eps in left
    }


def test_a_standard_network_has_no_robust_accuracy(subject):
    plan = replace(PLAN, balls={"0.3": Linf(0.3)}, steps=10, restarts=1)
    judged(subject, plan, "out")
    right = {row["attack"]: row["correct"] for row in report("out")["accuracies"]}
    assert right["pgd"] == 0
    assert right["clean"] >= 28


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "ball"),
    [("linf", Linf(8 / 255)), ("l2", L2(128 / 255))],
    ids=["linf", "l2"],
)
def test_a_standard_network_for_cifar10_has_none_either(norm, ball, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(robustness, "tile_of", lambda _: 10)
    monkeypatch.setattr(gradient_masking, "BLACK_BOX_QUERIES", 1)
    images = cifar10_test(tmp_path_factory).first(10)
    names = ["fgsm", "pgd"]
    plan = EvaluationPlan(norm=norm, balls={"eps": ball}, names=names, steps=5, restarts=1)
    judged(subject_of(standard_net(), images), plan, "out")
    right = {row["attack"]: row["correct"] for row in report("out")["accuracies"]}
    assert right["clean"] >= 9
    assert right["pgd"] == 0
    assert all(check["passed"] for check in report("out")["checks"][:3])


@pytest.mark.usefixtures("blocks_of_ten")
def test_any_batch_size_gives_the_same_files(subject):
    names = ["fgsm", "rs_fgsm", "pgd", "trades", "targeted", "cw", "apgd_ce"]
    plan = replace(PLAN, names=names, subset=25)
    expected = judged(subject, plan, "whole", 250)
    for batch_size in (1, 7):
        assert judged(subject, plan, str(batch_size), batch_size) == expected
    right = [row["correct"] for row in report("whole")["accuracies"]]
    assert 0 < min(right) < max(right) < 25


@pytest.mark.slow
def test_an_image_fares_in_a_subset_as_it_does_among_all(subject):
    plan = replace(PLAN, names=["fgsm", "rs_fgsm", "pgd", "trades", "targeted", "cw"])
    judged(subject, replace(plan, subset=None), "all")
    judged(subject, plan, "some")
    every, some = outcomes("all"), outcomes("some")
    assert len(every["image"]) == 360
    for name, column in some.items():
        assert column == [every[name][i] for i in some["image"]]


@pytest.mark.slow
def test_the_seed_is_that_of_the_noise(subject):
    found = []
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        judged(subject, replace(PLAN, names=["rs_fgsm"], seed=seed, subset=200), name)
        found.append(outcomes(name)["rs_fgsm@0.05"])
    assert found[0] == found[1] != found[2]


# Files


def test_every_file_says_the_same(subject):
    names, classes = ["fgsm", "pgd", "cw"], "abcdefghij"
    subject.config.dataset.names = list(classes)
    plan = replace(PLAN, names=names, balls={"0.05": Linf(0.05), "1/10": Linf(0.1)}, subset=15)
    folder, text = evaluation.evaluate(subject, plan, Path("out"), batch_size=9, progress=False)
    found, columns = report("out"), outcomes("out")
    assert folder == Path("out")
    assert Path("out/evaluation.md").read_text() == text + "\n"
    assert [row["attack"] for row in found["accuracies"]] == ["clean", *names, *names]
    with Path("out/evaluation.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {key: "" if value is None else str(value) for key, value in row.items()}
            for row in found["accuracies"]
        ]
    printed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    for row in found["accuracies"]:
        right = sum(columns[f"{row['attack']}@{row['eps_text']}".removesuffix("@")])
        assert (row["correct"], row["images"], row["accuracy"]) == (right, 15, right / 15)
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        percent = f"{100 * right / 15:.1f}"
        cells = [row["label"], row["eps_text"], f"{right} of 15", percent, interval]
        worst = f"{100 * row['worst_class_accuracy']:.1f} ({classes[row['worst_class']]})"
        assert [*cells, f"{100 * row['ece']:.1f}", worst] in printed
    for check in found["checks"]:
        verdict = "pass" if check["passed"] else "warning"
        assert f"- {verdict}: {check['name']}: {check['finding']}" in text
    with Path("out/classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert sum(int(row["images"]) * float(row["cw@1/10"]) for row in classes) == pytest.approx(
        sum(columns["cw@1/10"])
    )
    images = subject.data.test
    assert columns["label"] == [int(images.labels[i]) for i in columns["image"]]
    clean = Evaluator(images).correct(subject.net, {})[CLEAN]
    assert columns["clean"] == [int(clean[i]) for i in columns["image"]]


def test_the_report_says_what_was_evaluated_and_how(subject):
    judged(subject, replace(PLAN, subset=9, subset_seed=4), "out")
    found, text = report("out"), Path("out/evaluation.md").read_text()
    assert text.splitlines()[0] == (
        "run, last checkpoint (not robust): 9 of 360 (drawn with seed 4) test images of digits, "
        "L-inf, fp32, Wilson intervals."
    )
    assert found["dataset"] == {
        "name": "digits", "split": "test", "images": 9, "of": 360, "seed": 4
    }  # fmt: skip
    assert found["network"]["which"] == "last"
    assert found["precision"] == "fp32"
    assert found["attacks"] == ["FGSM", "PGD-2-2"]
    assert {"python", "packages", "git_commit", "device"} <= set(found["environment"])


@pytest.mark.parametrize(
    ("steps", "restarts", "label"),
    [(50, 10, "PGD-50-10"), (10, 1, "PGD-10"), (1, 10, "PGD-1-10"), (1, 1, "PGD-1")],
)
def test_a_label_tells_steps_from_restarts(steps, restarts, label):
    plan = replace(PLAN, steps=steps, restarts=restarts)
    assert plan.label("pgd") == label
    assert plan.label("cw") == f"CW-{steps}"
    assert plan.label("autoattack") == "AutoAttack"


def test_a_list_of_radii_gives_the_rows_of_each_alone_and_a_figure(subject):
    eps = {"0.02": Linf(0.02), "0.1": Linf(0.1), "0.05": Linf(0.05)}
    judged(subject, replace(PLAN, balls=eps), "all")
    together, columns = report("all")["accuracies"], outcomes("all")
    for text, ball in eps.items():
        judged(subject, replace(PLAN, balls={text: ball}), text)
        alone = outcomes(text)
        rows = [row for row in together if row["eps_text"] in ("", text)]
        assert report(text)["accuracies"] == rows
        assert alone == {name: columns[name] for name in alone}
        assert not list(Path(text).glob("accuracy.*"))
    assert {path.suffix for path in Path("all").glob("accuracy.*")} == {".png", ".pdf"}


def test_a_long_title_fits_the_figure(subject):
    source = "/".join(["a folder of $50", *["with-a-long-name"] * 12])
    plan = replace(PLAN, balls={"0.1": Linf(0.1), "0.2": Linf(0.2)}, subset=5)
    judged(replace(subject, source=source), plan, "out")
    figure = accuracy_figure(report("out"), setting_line(report("out")))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    title, page = axes.title.get_window_extent(), figure.bbox
    assert page.x0 <= title.x0 <= title.x1 <= page.x1
    assert page.y0 <= title.y0 <= title.y1 <= page.y1
    assert axes.get_window_extent().y1 <= title.y0


def test_a_masked_gradient_is_in_the_report_whatever_else_was_run():
    generator = torch.Generator().manual_seed(0)
    channel = torch.randint(60, 196, (20, 1, 16, 16), dtype=torch.uint8, generator=generator)
    images = ImageSet(channel.repeat(1, 2, 1, 1), torch.zeros(20, dtype=torch.long))
    plan = replace(PLAN, balls={"8/255": Linf(8 / 255)}, steps=20, subset=None)
    passed = {}
    for names in (["pgd"], ["pgd", "autoattack"], ["fgsm", "pgd"], ["square"]):
        folder = "-".join(names)
        judged(subject_of(Trap(), images), replace(plan, names=names), folder)
        text, checks = Path(folder, "evaluation.md").read_text(), report(folder)["checks"]
        passed[folder] = [check["passed"] for check in checks if "stronger" in check["name"]]
        for check in checks:
            verdict = {True: "pass", False: "warning", None: "not run"}[check["passed"]]
            assert f"- {verdict}: {check['name']}: {check['finding']}" in text
            assert (check["meaning"] in text) == (check["passed"] is not True)
    assert passed == {
        "pgd": [False], "pgd-autoattack": [False], "fgsm-pgd": [False, True], "square": [None]
    }  # fmt: skip


# What a kill leaves


class Killed(BaseException):
    """Nobody catches it."""


class Counted(nn.Module):
    """A network that counts its calls, and in one of them dies."""

    def __init__(self, net, dies_at=None, kill=None):
        super().__init__()
        self.net, self.calls, self.dies_at, self.kill = net, 0, dies_at, kill

    def forward(self, x):
        self.calls += 1
        if self.calls == self.dies_at:
            self.kill()
        return self.net(x)


def stop():
    raise Killed


LONG = replace(PLAN, names=["fgsm", "pgd", "apgd_ce"], subset=20)


@pytest.mark.usefixtures("blocks_of_ten")
def test_what_was_cut_off_resumes_and_repeats_no_finished_batch(subject, monkeypatch):
    whole, marks, note = Counted(subject.net), [0], Journal.note

    def marked(journal, *found):
        note(journal, *found)
        marks.append(whole.calls)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note", marked)
        expected = judged(replace(subject, net=whole), LONG, "whole", 5)
    for share in (0.004, 0.05, 0.3, 0.8):
        cut = Counted(subject.net, math.ceil(share * whole.calls), stop)
        folder = f"cut at {share}"
        with pytest.raises(Killed):
            judged(replace(subject, net=cut), LONG, folder, 5)
        resumed = Counted(subject.net)
        assert judged(replace(subject, net=resumed), LONG, folder, 5) == expected
        journals = [Path(name, "journal.jsonl").read_bytes() for name in (folder, "whole")]
        assert journals[0] == journals[1]
        done = max(mark for mark in marks if mark < cut.calls)
        asked_again = int(done > 0)  # how many classes the network has: AutoAttack minds
        assert resumed.calls == whole.calls - done + asked_again


def test_what_is_finished_is_not_searched_again(subject):
    net = Counted(subject.net)
    first = judged(replace(subject, net=net), LONG, "out")
    net.calls = 0
    assert judged(replace(subject, net=net), LONG, "out") == first
    assert net.calls == 5  # the checks look twice at 2 batches; AutoAttack asks for the classes


def test_every_attack_says_how_often_it_asked_the_network(subject):
    """An attack of the user asks for 128 images at a time, three times here."""

    def mine(model, x, y):
        for _ in range(3):
            x = (x - 1e-3).clamp(0, 1)
            model(x)
        model(x[:1])
        return x

    plan = replace(PLAN, names=["fgsm", "pgd", "mine"], own={"mine": mine}, restarts=1)
    judged(subject, plan, "out", 7)
    rows = {row["attack"]: row for row in report("out")["accuracies"]}
    tried = rows["clean"]["correct"]
    assert 7 < tried <= 40
    found = {name: (row["calls"], row["forward_passes"]) for name, row in rows.items()}
    assert found == {
        "clean": (None, 0),
        "fgsm": (None, tried),
        "pgd": (None, 2 * tried),  # two steps; how many calls depends on the batch size
        "mine": (4, 3 * tried + 1),
    }
    with Path("out/evaluation.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["attack"] == "mine"]
    assert (row["calls"], row["forward_passes"]) == ("4", str(3 * tried + 1))


def test_a_killed_process_leaves_its_finished_batches(subject):
    child = os.fork()
    if child == 0:
        try:
            net = Counted(subject.net, 3, lambda: os.kill(os.getpid(), signal.SIGKILL))
            judged(replace(subject, net=net), PLAN, "cut")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    left = Path("cut/journal.jsonl").read_bytes()
    assert left.count(b"\n") == 2
    net = Counted(subject.net)
    assert judged(replace(subject, net=net), PLAN, "cut") == judged(
        replace(subject, net=Counted(subject.net)), PLAN, "whole"
    )
    assert Path("cut/journal.jsonl").read_bytes().startswith(left)


def test_a_line_that_was_cut_in_the_middle_is_done_again(subject):
    expected = judged(subject, PLAN, "out")
    journal = Path("out/journal.jsonl")
    whole = journal.read_bytes()
    for kept in (0, 20, whole.index(b"\n"), whole.index(b"\n") + 1, -30, -1):
        journal.write_bytes(whole[:kept])
        for name in FILES:
            Path("out", name).unlink()
        assert judged(subject, PLAN, "out") == expected
        assert journal.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.usefixtures("blocks_of_ten")
def test_another_batch_size_may_go_on(subject):
    expected = judged(subject, LONG, "out")
    lines = Path("out/journal.jsonl").read_text().splitlines(keepends=True)
    Path("out/journal.jsonl").write_text("".join(lines[: len(lines) // 2]))
    assert judged(subject, LONG, "out", 7) == expected


OTHERS = {
    "images": (brightened, {}),
    "weights": (retrained, {}),
    "model": (remodelled, {}),
    "seed": (None, {"seed": 1}),
    "fewer": (None, {"subset": 39}),
    "drawn": (None, {"subset_seed": 1}),
    "first": (None, {"subset_seed": None}),
    "split": (None, {"split": "val"}),
    "radius": (None, {"balls": {"0.06": Linf(0.06)}}),
    "norm": (None, {"balls": {"0.05": L2(0.05)}, "norm": "l2"}),
    "attacks": (None, {"names": ["pgd"]}),
    "steps": (None, {"steps": 3}),
    "restarts": (None, {"restarts": 1}),
}


def test_the_folder_of_another_evaluation_is_refused_and_left_as_it_was(subject):
    judged(subject, PLAN, "out")
    before = everything()
    for name, (other, plan) in OTHERS.items():
        another = other(subject) if other else subject
        with pytest.raises(ValueError, match="out holds another evaluation: choose another out="):
            judged(another, replace(PLAN, **plan), "out")
        assert everything() == before, name


def test_a_swap_of_steps_and_restarts_is_another_evaluation(subject):
    judged(subject, replace(PLAN, steps=1, restarts=3), "out")
    with pytest.raises(ValueError, match="holds another evaluation"):
        judged(subject, replace(PLAN, steps=3, restarts=1), "out")


@pytest.mark.parametrize("content", [b"not json\n", b"[1, 2]\n", b"\xff\xfe\n", b'{"a": 1}\n{}\n'])
def test_a_journal_of_somebody_else_is_refused_and_left_as_it_was(subject, content):
    Path("out").mkdir()
    Path("out/journal.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match="out holds other files: choose another out=FOLDER"):
        judged(subject, PLAN, "out")
    assert Path("out/journal.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    "line", ["no json", "[]", "{}", '{"task": "clean", "images": [1], "correct": 1}']
)
def test_a_damaged_journal_is_refused_with_what_to_do(subject, line):
    judged(subject, replace(PLAN, names=["fgsm"]), "out")
    with Path("out/journal.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"out/journal.jsonl is damaged: remove it to start again"):
        judged(subject, replace(PLAN, names=["fgsm"]), "out")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["fgsm", "autoattack"], "autoattack needs at least 4 classes, not 2: leave"),
        (["fgsm", "apgd_dlr"], "apgd_dlr needs at least 3 classes, not 2"),
    ],
)
def test_too_few_classes_are_seen_before_any_attack_is_run(names, said):
    images = ImageSet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    plan = replace(PLAN, names=names, subset=None)
    with pytest.raises(ValueError, match=said):
        judged(subject_of(Line(torch.ones(64), 0.0), images), plan, "out")
    assert not Path("out").exists()
