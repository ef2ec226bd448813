"""The sentence that ends the demo says what its two runs show, from run folders written by hand."""

import csv

import pytest

from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import RunFolder
from scripts import demo_verdict
from tests.helpers.running import TINY, config

KEPT, LOST, NEVER = (0.3, 0.5, 0.7), (0.5, 0.1, 0.0), (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def composed():
    return config(*TINY, "seed=4")


@pytest.fixture
def run(tmp_path, composed):
    """A run of ten steps an epoch, with this PGD accuracy after each."""

    def write(name, validations, pgd):
        folder = RunFolder.create(tmp_path / name, composed)
        lines = ["step,epoch,train/loss,val/acc/pgd10"]
        for epoch, accuracy in enumerate(validations):
            lines += [f"{10 * epoch + step},{epoch},1.0," for step in range(1, 11)]
            lines += [f"{10 * epoch + 10},{epoch},,{accuracy}"]
        folder.metrics_file.write_text("\n".join(lines) + "\n")
        shares = {"clean": 0.9, "fgsm": 0.8, "pgd": pgd, "n": 64}
        folder.write_results({"last": {"step": 30, "test": shares}})
        return FinishedRun(folder)

    return write


@pytest.mark.parametrize(
    ("plain", "der", "sentence"),
    [
        (
            (LOST, 0.004),
            (KEPT, 0.838),
            "FGSM-AT collapsed at epoch 2 (PGD 0.4 %); with DER it ended at 83.8 %.",
        ),
        (
            (LOST, 0.0),
            (LOST, 0.1),
            "FGSM-AT collapsed at epoch 2 (PGD 0.0 %); with DER it collapsed at epoch 2 "
            "(PGD 10.0 %).",
        ),
        (
            (NEVER, 0.1),
            (KEPT, 0.7),
            "FGSM-AT never became robust (PGD 10.0 %); with DER it ended at 70.0 %.",
        ),
        (
            (KEPT, 0.55),
            (KEPT, 0.706),
            "In this run FGSM-AT did not collapse (2 of 30 do not): it ended at 55.0 %, with DER "
            "it ended at 70.6 %. Run `make demo SEED=5`.",
        ),
    ],
)  # fmt: skip
def test_the_verdict_is_that_of_the_runs(run, plain, der, sentence):
    found = demo_verdict.verdict(run("plain", *plain), run("der", *der), 2, 30)
    assert found == sentence


def test_runs_that_escaped_are_counted_in_the_table_of_all_runs(tmp_path):
    file = tmp_path / "runs.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["reg", "PGD-20 %", "instruction set", "threads"])
        rows = [("none", 0.0), ("none", 9.9), ("none", 10.0), ("der", 77.7), ("der", 80.2)]
        writer.writerows([*row, "AVX2", 1] for row in rows)
        writer.writerow(["none", 1.0, "AVX2", 2])
    assert demo_verdict.earlier_runs(file) == (1, 4)
    assert demo_verdict.claim(file) == (
        "In docs/demo FGSM-AT ends below 10 % PGD accuracy in 3 of 4 runs over 2 instruction sets "
        "and numbers of threads; with DER it ends at 78 to 80 % (2 runs)."
    )
