"""Runs of a sweep against a number that was swept, from run folders written by hand."""

import csv
import functools
import itertools

import pytest

from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.sweeps import compare_runs, summary, sweep_curves
from energy_at.runs.folder import RunFolder
from tests.helpers.reports import write as write_run
from tests.helpers.running import TINY, config
from tests.helpers.tables import markdown_rows

composed = functools.cache(config)
SOUND, LOST = (0.30, 0.35, 0.40), (0.40, 0.05, 0.0)  # PGD accuracy on held-out images, by epoch
LOGGED = (
    "step,epoch,train/loss,train/delta_energy/marginal,train/delta_energy/joint,val/acc/pgd10,"
    "val/acc/clean"
)


@pytest.fixture
def write(tmp_path):
    """Writes a finished run as a sweep leaves it."""
    numbers = itertools.count()

    def written(*overrides, held_out=0.4, test=0.3, log=SOUND, delta=0.1):
        typed = [*TINY, "sweep=der_weight", *overrides]
        folder = RunFolder.create(tmp_path / str(next(numbers)), composed(*TINY, *overrides), typed)
        lines = [LOGGED]
        for epoch, accuracy in enumerate(log):
            lines += [f"{epoch + 1},{epoch},1.0,{delta},{2 * delta},,",
                      f"{epoch + 1},{epoch},,,,{accuracy},0.9"]  # fmt: skip
        folder.metrics_file.write_text("\n".join(lines) + "\n")
        val = {} if held_out is None else {"val": {"clean": 0.9, "pgd": held_out, "n": 64}}
        test_shares = {"clean": 0.8, "fgsm": 0.5, "pgd": test, "n": 100}
        folder.write_results({"last": {"step": 3, "test": test_shares} | val})
        return FinishedRun(folder)

    return written


def rows(one):
    table = one.table()
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.fixture
def sweep(write):
    """Weight 0 collapses once; of the others 2 is best on held-out, 5 on test images."""
    jobs = {"0": (0.2, 0.2), "2": (0.5, 0.3), "5": (0.4, 0.6)}
    return [
        write(
            "reg=der",
            f"reg.weight={weight}",
            f"seed={seed}",
            held_out=held_out + 0.1 * seed,
            test=test,
            delta=0.1 * float(weight),
            log=LOST if weight == "0" and seed else SOUND,
        )
        for weight, (held_out, test) in jobs.items()
        for seed in (0, 1)
    ]


def test_runs_are_named_by_the_weight_with_mean_and_range_over_seeds(sweep):
    (one,) = sweep_curves(sweep)
    assert one.key == "reg.weight"
    found = rows(one)
    assert [row["reg.weight"] for row in found] == ["0", "2", "5"]
    assert [row["runs"] for row in found] == ["2"] * 3
    assert found[1]["held-out PGD %"] == "55.0 [50.0, 60.0]"
    assert found[1]["test PGD %"] == "30.0"
    assert (found[2]["dE(x)"], found[2]["dE(x, y)"]) == ("+0.500", "+1.000")


def test_a_lost_run_is_marked_and_never_averaged(sweep):
    (one,) = sweep_curves(sweep)
    first = rows(one)[0]
    assert first["held-out PGD %"] == "20.0"
    assert first["no result"] == "collapsed (1)"
    (curve,) = one.curves.values()
    marks = [run.mark() for runs in curve.values() for run in runs]
    assert marks == ["", "collapsed", "", "", "", ""]
    crosses = [line for line in one.figure().axes[0].get_lines() if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses if len(line.get_xdata())] == [[0]]


def test_a_weight_of_zero_is_called_by_the_base_method(sweep):
    (one,) = sweep_curves(sweep)
    assert [row["method"] for row in rows(one)] == ["FGSM-AT", "FGSM-AT + DER", "FGSM-AT + DER"]


def test_the_best_is_named_by_held_out_images_alone(sweep):
    (one,) = sweep_curves(sweep)
    assert one.best() == [
        "Best on held-out images: reg.weight=2, with PGD accuracy 55.0 % [50.0, 60.0], 2 runs.",
        "Test images were not used for the choice.",
    ]


def test_each_method_has_a_best_of_its_own(write):
    found = {("der", 1): 0.5, ("der", 2): 0.4, ("gradalign", 1): 0.6, ("gradalign", 2): 0.7}
    runs = [write(f"reg={r}", f"reg.weight={w}", held_out=v) for (r, w), v in found.items()]
    (one,) = sweep_curves(runs)
    assert one.best()[:2] == [
        "Best on held-out images, FGSM-AT + DER: reg.weight=1, with PGD accuracy 50.0 % "
        "[50.0, 50.0], 1 run.",
        "Best on held-out images, FGSM-AT + GradAlign: reg.weight=2, with PGD accuracy 70.0 % "
        "[70.0, 70.0], 1 run.",
    ]


def test_a_value_with_a_lost_run_is_never_the_best(write):
    runs = [write("reg=der", f"reg.weight={w}", log=LOST, held_out=0.9) for w in (1, 2)]
    (one,) = sweep_curves(runs)
    no_best = "No best reg.weight: for every value some run collapsed or is not robust."
    assert one.best()[0] == no_best


def test_radii_are_numbers_and_other_choices_curves(write):
    runs = [
        write(f"reg={reg}", f"threat.eps={eps}/255") for reg in ("none", "der") for eps in (8, 4)
    ]
    (one,) = sweep_curves(runs)
    assert one.key == "threat.eps"
    assert list(map(str, one.curves)) == ["FGSM-AT", "FGSM-AT + DER"]
    assert list(list(one.curves.values())[1]) == pytest.approx([4 / 255, 8 / 255])
    assert one.best() == []  # a smaller radius is an easier test


def test_a_search_over_two_numbers_is_one_curve_of_each(write):
    runs = [write("reg=der", f"reg.weight={i}", f"reg.gamma={i / 10}") for i in range(1, 9)]
    weight, gamma = sweep_curves(runs)
    assert (weight.key, gamma.key) == ("reg.weight", "reg.gamma")
    assert list(map(str, weight.curves)) == ["FGSM-AT + DER"]


def test_seeds_and_names_are_no_numbers_to_draw_against(write):
    assert (
        sweep_curves([write(f"reg={reg}", f"seed={s}") for reg in ("none", "der") for s in (0, 1)])
        == []
    )


def test_runs_that_differ_in_the_method_too_are_no_sweep(write):
    runs = [write("reg=none", "trainer.max_epochs=2"), write("reg=der", "trainer.max_epochs=3")]
    assert sweep_curves(runs) == []


def test_a_sweep_holds_table_and_figure(sweep, tmp_path):
    best = compare_runs(tmp_path).splitlines()[-2]
    assert best.startswith("Best on held-out images: reg.weight=2,")
    assert (
        (tmp_path / "against_reg_weight.csv")
        .read_text()
        .startswith("reg.weight,method,quantity,runs,n,mean,std,min,max")
    )
    assert (tmp_path / "against_reg_weight.png").read_bytes()[:4] == b"\x89PNG"


# What is printed at the end of a sweep


@pytest.fixture
def jobs(tmp_path):
    """A sweep over two methods and two seeds."""
    for job, (reg, seed) in enumerate(itertools.product(("none", "der"), (0, 1))):
        write_run(tmp_path / "sweep" / str(job), f"reg={reg}", f"seed={seed}")
    return tmp_path / "sweep"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_that_has_not_finished_is_left_out(jobs):
    (jobs / "1" / "results.json").unlink()
    summary(jobs)
    assert [row["runs"] for row in markdown_rows(jobs / "comparison.md")] == ["1", "2"]
    assert [row["run"] for row in table(jobs / "runs.csv")] == ["0", "2", "3"]


def test_a_sweep_without_a_finished_run_says_so(jobs):
    for path in jobs.glob("*/results.json"):
        path.unlink()
    (jobs / "2" / "error.txt").write_text("out of luck\n")
    lost = f"was lost: re-run the sweep with hydra.sweep.dir={jobs} to resume it"
    assert summary(jobs).splitlines() == [
        "no job has finished",
        *(f"job {job} {lost}" for job in "013"),
        "job 2 failed: out of luck",
    ]
    assert not list(jobs.glob("comparison*"))


def test_a_sweep_whose_jobs_all_failed_at_once_names_each(tmp_path):
    for job in "01":
        (tmp_path / job).mkdir()
        (tmp_path / job / "error.txt").write_text(f"wrong value {job}\n")
    assert summary(tmp_path).splitlines() == [
        "no job has finished",
        "job 0 failed: wrong value 0",
        "job 1 failed: wrong value 1",
    ]


def test_jobs_are_in_the_order_in_which_they_ran(jobs):
    for old, new in (("0", "10"), ("1", "11")):
        (jobs / old).rename(jobs / new)
        (jobs / new / "error.txt").write_text("late\n")
    (jobs / "3" / "error.txt").write_text("early\n")
    *_, first, second, third = summary(jobs).splitlines()
    assert [line.split()[1] for line in (first, second, third)] == ["3", "10", "11"]
    assert [row["method"] for row in markdown_rows(jobs / "comparison.md")] == [
        "FGSM-AT + DER",
        "FGSM-AT",
    ]


@pytest.mark.slow
def test_a_run_without_log_is_compared_by_its_accuracies(jobs):
    """``logger=none`` and ``logger=wandb`` write none."""
    for job in "23":
        (jobs / job / "metrics.csv").unlink()
    summary(jobs)
    logged, quiet = markdown_rows(jobs / "comparison.md")
    assert quiet["method"] == "FGSM-AT + DER"
    assert quiet["clean %"] == logged["clean %"] == "80.0"
    assert quiet["AAE share %"] == ""
    for job in "23":
        guessed = {"clean": 0.8, "fgsm": 0.25, "pgd": 0.25, "n": 100}
        RunFolder(jobs / job).write_results({"last": {"step": 36, "test": guessed}})
    summary(jobs)
    assert markdown_rows(jobs / "comparison.md")[1]["status"] == "not robust (2 of 2 runs)"


def test_runs_are_found_in_folders_of_folders(jobs):
    """``hydra.sweep.subdir='${reg.name}/${seed}'``."""
    for job, name in enumerate(("none/0", "none/1", "DER/0", "DER/1")):
        (jobs / name).parent.mkdir(exist_ok=True)
        (jobs / str(job)).rename(jobs / name)
    summary(jobs)
    assert {row["method"]: row["runs"] for row in markdown_rows(jobs / "comparison.md")} == {
        "FGSM-AT": "2",
        "FGSM-AT + DER": "2",
    }


def test_only_runs_that_differ_in_one_key_are_compared(write):
    unlike = [
        write("trainer.max_epochs=2", "threat.eps=8/255", "optimizer.lr=0.1"),
        write("trainer.max_epochs=3", "threat.eps=16/255", "optimizer.lr=0.2", held_out=0.9),
    ]
    assert sweep_curves(unlike) == []
    like = write("trainer.max_epochs=3", "threat.eps=8/255", "optimizer.lr=0.1")
    found = {one.key: one for one in sweep_curves([*unlike, like])}
    assert [*found] == ["trainer.max_epochs"]
    curves = found["trainer.max_epochs"].curves.values()
    assert sorted(list(curve) for curve in curves) == [[2, 3], [3]]
    assert "with PGD accuracy 40.0 %" in found["trainer.max_epochs"].best()[0]
