"""The command that measures speed: its table, files and error messages."""

import csv
import json
from pathlib import Path

import pytest

from energy_at.benchmark import __main__ as benchmark
from energy_at.benchmark.scenarios import ROWS, SCENARIOS
from tests.helpers.running import typed

SMALL = (
    "dataset=digits", "dataset.batch_size=8", "model.width=2", "attack_steps=2", "sampler_steps=2",
    "repeats=2", "warmup=0", "progress=false", "device=cpu",
)  # fmt: skip


@pytest.fixture
def typing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *argv: typed(monkeypatch, capsys, benchmark.main, *argv)


@pytest.mark.slow
def test_the_table_has_every_row_of_a_training_and_its_numbers(typing):
    code, out, err = typing(*SMALL, "scenarios=[fgsm_der]", "out=found")
    assert code == 0, err
    about = json.loads(Path("found/benchmark.json").read_text())
    rows = {(row["scenario"], row["row"], row["precision"]): row for row in about["rows"]}
    training = {("fgsm_der", r, p) for r in ("bare", "full") for p in ("fp32", "bf16")}
    assert training | {("fgsm_der", "reference", "fp32")} < set(rows)
    work = {key: row["flops"] for key, row in rows.items()}
    reference = work["fgsm_der", "reference", "fp32"]
    assert work["fgsm_der", "bare", "fp32"] == work["fgsm_der", "full", "bf16"] < 0.85 * reference
    assert all(len(row["seconds"]) == 2 for row in rows.values())
    assert Path("found/benchmark.md").read_text().splitlines()[0] in out
    assert sorted(path.name for path in Path().iterdir()) == ["found"]


def test_a_row_is_measured_and_written(typing):
    few = ("scenarios=[fgsm]", "rows=[bare]", "precisions=[fp32]", "out=found")
    code, out, err = typing(*SMALL, *few)
    assert code == 0, err
    rows = json.loads(Path("found/benchmark.json").read_text())["rows"]
    found = {(row["scenario"], row["row"], len(row["seconds"])) for row in rows}
    assert found == {("fgsm", row, 2) for row in ("bare", "matmul", "convolution")}
    assert Path("found/benchmark.md").read_text().splitlines()[0] in out


@pytest.mark.slow
def test_evaluation_and_sampling_have_their_rows(typing):
    code, _, err = typing(*SMALL, "scenarios=[evaluation,sampling]", "out=found")
    assert code == 0, err
    about = json.loads(Path("found/benchmark.json").read_text())
    rows = {(row["scenario"], row["row"], row["precision"]) for row in about["rows"]}
    assert {("sampling", "bare", "bf16"), ("evaluation", "full", "fp32")} < rows
    with Path("found/benchmark.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["row"] == ROWS["full"]]
    assert {row["scenario"]: row["image steps/s"] != "" for row in table} == {
        SCENARIOS["evaluation"].label: False,
        SCENARIOS["sampling"].label: True,
    }
    for row in table:
        if row["image steps/s"]:  # of two steps
            assert float(row["image steps/s"]) == pytest.approx(
                2 * float(row["images/s"]), rel=0.02
            )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("scenarios=[fgsm,nothing]",), "scenarios=nothing must be fgsm, "),
        (("attack=pgd",), "attack: unknown key; did you mean attack_steps"),
        (("threat=l2", "rows=[reference]", "scenarios=[fgsm]"), "rows=[reference] has no loop"),
        (("clock=moon",), "clock=moon must be wall or cpu"),
        (("repeats=0",), "repeats=0 must be"),
        (("device=cuda",), "device=cuda"),
        (("out=/dev/null/x", "repeats=0"), "out=/dev/null/x cannot be made"),  # before any work
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(typing, argv, said):
    code, _, err = typing(*argv)
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
    assert list(Path().iterdir()) == []


def test_help_names_all_scenarios_and_rows(typing):
    code, out, _ = typing("--help")
    assert code == 0
    assert set(SCENARIOS) | set(ROWS) <= set(out.split())
