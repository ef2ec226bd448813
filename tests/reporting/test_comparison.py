"""Methods compared over seeds, from run folders written by hand."""

import csv
import functools
import io
import itertools

import pytest

from energy_at.reporting.comparison import (
    by_status,
    compare,
    comparison_table,
    epochs_table,
    results_table,
    runs_table,
)
from energy_at.reporting.figures import method_styles
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import RunFolder
from tests.helpers.running import TINY as TINY_SHORT
from tests.helpers.running import config

TINY = (*TINY_SHORT, "evaluation.attacks.pgd.steps=20")

composed = functools.cache(config)
PGD = (0.30, 0.35, 0.40)  # on held-out images after each epoch of a healthy run
LOST = (0.40, 0.05, 0.0)
LAST = {"clean": 0.8, "fgsm": 0.5, "pgd": 0.4, "n": 100}
COST = {"forward_equivalents": 5.02, "seconds": 90.0}


def metrics(pgd=PGD, aae=0.25, clean=None):
    """One training step and one validation for each epoch."""
    lines = ["step,epoch,train/loss,train/aae_share,val/acc/pgd10,val/acc/clean"]
    for epoch, accuracy in enumerate(pgd):
        seen = f"{accuracy},{'' if clean is None else clean[epoch]}"
        lines += [f"{epoch + 1},{epoch},1.0,{aae},,", f"{epoch + 1},{epoch},,,{seen}"]
    return "\n".join(lines) + "\n"


def named(cfg, shares):
    """PGD accuracy by the name of the attack that the configuration evaluates, if it does."""
    shares, attack = dict(shares), cfg.evaluation.attacks.get("pgd")
    accuracy = shares.pop("pgd")
    if attack is None:
        return shares
    restarts = f"x{attack.restarts}" if attack.restarts > 1 else ""
    return shares | {f"pgd{attack.steps}{restarts}": accuracy}


@pytest.fixture
def write(tmp_path):
    """Writes a finished run as a sweep leaves it, in a folder named by its number."""
    numbers = itertools.count()

    def written(*overrides, log=None, cost=COST, best=None, **shares):
        cfg = composed(*TINY, *overrides)
        folder = RunFolder.create(tmp_path / str(next(numbers)), cfg, [*TINY, *overrides])
        folder.metrics_file.write_text(metrics() if log is None else log)
        results = {"last": {"step": 3, "test": named(cfg, LAST | shares)}}
        if best is not None:
            results["best"] = {"step": 2, "test": named(cfg, LAST | best)}
        folder.write_results(results | ({} if cost is None else {"training": cost}))
        return folder

    return written


def rows(folders):
    table = comparison_table(compare(folders))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def run_rows(folders):
    table = runs_table(compare(folders))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


# Names


def test_runs_that_differ_in_the_seed_alone_are_one_row(write):
    jobs = [("none", 0), ("none", 1), ("der", 1), ("der", 2), ("der", 3)]
    assert [
        (row["method"], row["runs"])
        for row in rows([write(f"reg={reg}", f"seed={seed}") for reg, seed in jobs])
    ] == [("FGSM-AT", "2"), ("FGSM-AT + DER", "3")]


def test_runs_that_differ_in_anything_else_are_distinguished_by_what_was_typed(write):
    folders = [write("model.width=8", f"threat.eps={e}/255", f"seed={s}") for s in (0, 1)
               for e in (8, 16)]  # fmt: skip
    assert [(row["method"], row["runs"]) for row in rows(folders)] == [
        ("FGSM-AT, threat.eps=8/255", "2"),
        ("FGSM-AT, threat.eps=16/255", "2"),
    ]


def test_weights_of_a_regularizer_distinguish_rows(write):
    folders = [write("reg=der", f"reg.weight={w}", f"seed={s}") for w in (1, 5) for s in (0, 1)]
    assert [(row["method"], row["runs"]) for row in rows(folders)] == [
        ("FGSM-AT + DER, reg.weight=1", "2"),
        ("FGSM-AT + DER, reg.weight=5", "2"),
    ]


def test_what_all_runs_have_typed_is_in_no_name(write):
    folders = [write("trainer.max_epochs=1", f"reg={reg}") for reg in ("none", "der")]
    assert [row["method"] for row in rows(folders)] == ["FGSM-AT", "FGSM-AT + DER"]


def test_a_truth_that_a_sweep_has_rewritten_is_the_same(write):
    """Hydra writes the ``false`` of a multirun as ``False``."""
    flips = [write("dataset.flip=false"), write("reg=der", "dataset.flip=False")]
    assert [row["method"] for row in rows(flips)] == ["FGSM-AT", "FGSM-AT + DER"]


def test_a_default_that_is_typed_makes_no_other_method(write):
    (row,) = rows([write("seed=0"), write("seed=1", "threat.eps=8/255")])
    assert row["runs"] == "2"


def test_runs_without_a_record_are_distinguished_by_their_configuration(write):
    one, two = write("threat.eps=8/255"), write("threat.eps=16/255")
    for folder in (one, two):
        folder.environment_file.unlink()
    names = [row["method"] for row in rows([one, two])]
    assert names == ["FGSM-AT, threat.eps=8/255", "FGSM-AT, threat.eps=16/255"]


def test_a_resumed_run_is_named_by_what_it_ran_with(write):
    resumed, other = write("trainer.max_epochs=13"), write("trainer.max_epochs=14")
    folder = resumed.environment_file
    folder.write_text(folder.read_text().replace('"trainer.max_epochs=13"',
                      '"trainer.max_epochs=12", "trainer.max_epochs=13"'))  # fmt: skip
    names = [row["method"] for row in rows([resumed, other])]
    assert names == ["FGSM-AT, trainer.max_epochs=13", "FGSM-AT, trainer.max_epochs=14"]


def test_jobs_of_two_sweeps_are_named_by_their_paths(tmp_path):
    folders = []
    for sweep, eps in (("a", 8), ("b", 16)):
        folder = RunFolder.create(tmp_path / sweep / "0", composed(*TINY, f"threat.eps={eps}/255"))
        folder.metrics_file.write_text(metrics())
        folder.write_results({"last": {"step": 3, "test": LAST}})
        folders.append(folder)
    paths = [str(tmp_path / sweep / "0") for sweep in "ab"]
    assert [row["run"] for row in run_rows(folders)] == paths


def test_runs_of_one_method_and_seed_have_labels_of_their_own(write):
    found = compare([write(), write()])
    assert [str(entry.label) for entry in found] == ["FGSM-AT, seed 0, 0", "FGSM-AT, seed 0, 1"]


# Numbers


def test_one_run_shows_its_numbers(write):
    folder = write(log=metrics(aae=0.125), clean=0.813, fgsm=0.5, pgd=0.25)
    assert rows([folder]) == [
        {
            "method": "FGSM-AT",
            "checkpoint": "last",
            "runs": "1",
            "clean %": "81.3",
            "FGSM %": "50.0",
            "PGD-20 %": "25.0",
            "AAE share %": "12.5",
            "status": "robust",
            "first alarm at step": "none",
            "forward passes": "5.0",
            "minutes with validation": "1.5",
        }
    ]


def test_seeds_show_their_mean_and_range_to_one_decimal(write):
    folders = [
        write(f"seed={i}", log=metrics(aae=aae), clean=clean, pgd=pgd,
              cost={"forward_equivalents": 5.0, "seconds": seconds})
        for i, (clean, pgd, aae, seconds) in enumerate(
            [(0.8, 0.3267, 0.1, 60), (0.8, 0.3561, 0.0, 90), (0.8, 0.3421, 0.0, 120)]
        )
    ]  # fmt: skip
    (row,) = rows(folders)
    assert row["clean %"] == "80.0"
    assert row["PGD-20 %"] == "34.2 [32.7, 35.6]"
    assert row["AAE share %"] == "3.3 [0.0, 10.0]"
    assert row["forward passes"] == "5.0"
    assert row["minutes with validation"] == "1.5 [1.0, 2.0]"


def test_the_aae_share_is_that_of_the_last_epoch(write):
    log = metrics(aae=0.0).replace("3,2,1.0,0.0,,", "3,2,1.0,0.9,,")
    assert rows([write(log=log)])[0]["AAE share %"] == "90.0"


def test_the_best_checkpoint_has_a_row_of_its_own(write):
    folders = [write(f"seed={i}", best={"pgd": pgd}) for i, pgd in enumerate((0.5, 0.52))]
    last, best = rows(folders)
    assert (last["checkpoint"], last["PGD-20 %"]) == ("last", "40.0")
    assert (best["checkpoint"], best["PGD-20 %"]) == ("best", "51.0 [50.0, 52.0]")


def test_a_cost_that_was_not_measured_leaves_its_cell_empty(write):
    bare, untimed = write("reg=none", cost=None), write("reg=der", cost={"forward_equivalents": 7})
    assert [
        (row["forward passes"], row["minutes with validation"]) for row in rows([bare, untimed])
    ] == [
        ("", ""),
        ("7.0", ""),
    ]


def test_an_accuracy_that_was_not_measured_leaves_its_cell_empty(write):
    folder = write()
    folder.write_results({"last": {"step": 3, "test": {"clean": 0.8, "n": 100}}})
    (row,) = rows([folder])
    assert (row["clean %"], row["FGSM %"], row["PGD-20 %"]) == ("80.0", "", "")


def test_an_aae_share_that_was_not_logged_leaves_its_cell_empty(write):
    folder = write(log=metrics().replace("train/aae_share", "train/other"))
    assert rows([folder])[0]["AAE share %"] == ""
    assert run_rows([folder])[0]["AAE share %"] == ""


@pytest.mark.parametrize(
    ("overrides", "column"),
    [
        ((), "PGD-20 %"),
        (("evaluation.attacks.pgd.steps=50",), "PGD-50 %"),
        (("evaluation.attacks.pgd.steps=50", "evaluation.attacks.pgd.restarts=10"), "PGD-50-10 %"),
    ],
)
def test_the_column_of_pgd_is_named_by_steps_and_restarts(write, overrides, column):
    found = compare([write(*overrides), write(*overrides, "seed=1")])
    assert column in comparison_table(found).columns
    assert column in runs_table(found).columns


def test_runs_evaluated_by_different_attacks_share_a_column_that_names_neither(write):
    table = comparison_table(compare([write(), write("evaluation.attacks.pgd.steps=50")]))
    assert "PGD %" in table.columns


def test_runs_evaluated_without_pgd_are_compared_by_the_rest(write):
    (row,) = rows([write("~evaluation.attacks.pgd")])
    assert row["clean %"] == "80.0"


# Collapse


def test_a_collapsed_run_is_never_averaged(write):
    healthy, lost = write("seed=0", pgd=0.4), write("seed=1", log=metrics(LOST, aae=0.75), pgd=0.0)
    (row,) = rows([healthy, lost])
    assert [row[name] for name in ("clean %", "FGSM %", "PGD-20 %")] == ["collapsed"] * 3
    assert row["status"] == "collapsed at 2 (1 of 2 runs)"


def test_every_collapse_names_its_step(write):
    logs = (metrics(LOST), metrics(PGD), metrics((0.4, 0.3, 0.1)))
    (row,) = rows([write(f"seed={i}", log=log) for i, log in enumerate(logs)])
    assert row["status"] == "collapsed at 2, 3 (2 of 3 runs)"


def test_a_collapse_leaves_other_methods_alone(write):
    folders = [write("reg=none", log=metrics(LOST)), write("reg=der", pgd=0.375)]
    lost, healthy = rows(folders)
    assert lost["PGD-20 %"] == "collapsed"
    assert (healthy["PGD-20 %"], healthy["status"]) == ("37.5", "robust")


def test_the_best_checkpoint_of_a_collapsed_run_keeps_its_numbers(write):
    last, best = rows([write(log=metrics((0.3, 0.4, 0.0)), best={"pgd": 0.38})])
    assert last["PGD-20 %"] == "collapsed"
    assert best["PGD-20 %"] == "38.0"


def test_the_table_of_runs_has_the_numbers_of_collapsed_ones_too(write):
    folders = [write("seed=3", pgd=0.4), write("seed=5", log=metrics(LOST, aae=0.75), pgd=0.015)]
    healthy, lost = run_rows(folders)
    assert (healthy["run"], healthy["seed"], healthy["PGD-20 %"]) == ("0", "3", "40.0")
    assert (healthy["status"], healthy["lost at step"]) == ("robust", "")
    assert (lost["run"], lost["seed"], lost["PGD-20 %"]) == ("1", "5", "1.5")
    assert (lost["clean %"], lost["FGSM %"], lost["AAE share %"]) == ("80.0", "50.0", "75.0")
    _, best = run_rows([write("seed=6", best={"pgd": 0.2})])
    assert (best["checkpoint"], best["AAE share %"]) == ("best", "")  # that of the last epoch
    assert (lost["status"], lost["lost at step"]) == ("collapsed", "2")
    assert {row["method"] for row in (healthy, lost)} == {"FGSM-AT"}
    assert (lost["checkpoint"], lost["forward passes"], lost["minutes with validation"]) == (
        "last",
        "5.0",
        "1.5",
    )


# Never robust


GUESSED = metrics((0.25, 0.25, 0.25), clean=(0.5, 0.3, 0.25))  # of four classes, 64 images


def test_a_run_that_is_not_robust_is_never_averaged(write):
    (row,) = rows([write("seed=0"), write("seed=1", log=GUESSED, pgd=0.25)])
    assert [row[name] for name in ("clean %", "FGSM %", "PGD-20 %")] == ["not robust"] * 3
    assert row["status"] == "not robust (1 of 2 runs)"
    assert row["AAE share %"] == "25.0, 25.0"


def test_the_table_of_runs_says_that_one_is_not_robust_and_its_accuracies(write):
    healthy, lost = run_rows([write("seed=0"), write("seed=1", log=GUESSED, pgd=0.25)])
    assert (healthy["status"], lost["status"]) == ("robust", "not robust")
    assert (lost["PGD-20 %"], lost["lost at step"]) == ("25.0", "")


def test_runs_may_be_lost_in_both_ways(write):
    logs = (metrics(LOST), GUESSED, metrics())
    (row,) = rows([write(f"seed={i}", log=log) for i, log in enumerate(logs)])
    assert row["PGD-20 %"] == "collapsed, not robust"
    assert row["status"] == "collapsed at 2 (1 of 3 runs); not robust (1 of 3 runs)"


def test_no_checkpoint_of_a_run_that_never_was_robust_is_a_result(write):
    last, best = rows([write(log=GUESSED, best={"pgd": 0.3})])
    assert last["PGD-20 %"] == best["PGD-20 %"] == "not robust"


def test_a_run_that_lost_everything_has_collapsed_and_keeps_its_best_checkpoint(write):
    log = metrics((0.3, 0.4, 0.25), clean=(0.5, 0.6, 0.25))
    last, best = rows([write(log=log, best={"pgd": 0.42})])
    assert (last["PGD-20 %"], best["PGD-20 %"]) == ("collapsed", "42.0")
    assert last["status"] == best["status"] == "collapsed at 3"


def test_accuracy_on_clean_images_makes_no_run_robust(write):
    folder = write(log=metrics((0.2, 0.2, 0.2), clean=(0.5,) * 3), pgd=0.2)
    assert rows([folder])[0]["PGD-20 %"] == "not robust"


def test_a_run_without_validations_is_not_robust_if_its_evaluation_says_so(write):
    quiet = "step,epoch,train/loss\n1,0,1.0\n2,0,1.0\n3,0,1.0\n"
    guessed, robust = write("reg=none", log=quiet, pgd=0.25), write("reg=der", log=quiet, pgd=0.4)
    assert [row["status"] for row in rows([guessed, robust])] == ["not robust", "not logged"]


def test_chance_is_that_of_the_images_that_were_held_out(write):
    folder = write(log=metrics((0.4,) * 3, clean=(0.45,) * 3))
    assert rows([folder])[0]["status"] == "robust"
    results = folder.results() | {"held_out": {"images": 1000, "chance": 0.45}}
    folder.write_results(results)
    assert rows([folder])[0]["status"] == "not robust"


def test_a_run_that_overfits_robustly_is_a_result_and_says_when(write):
    log = metrics((0.3, 0.44, 0.46, 0.46, 0.46, 0.46, 0.42, 0.40, 0.38, 0.36, 0.34, 0.32))
    (row,) = rows([write("seed=0", log=log)])
    assert (row["PGD-20 %"], row["status"]) == ("40.0", "overfitted at 3")


def test_no_curve_averages_runs_that_are_no_result(write):
    logs = (metrics(LOST), GUESSED, metrics())
    groups = by_status(compare([write(f"seed={i}", log=log) for i, log in enumerate(logs)]))
    assert {str(label): len(runs) for label, runs in groups.items()} == {
        "FGSM-AT (collapsed)": 1,
        "FGSM-AT (not robust)": 1,
        "FGSM-AT (robust)": 1,
    }
    styles = method_styles(list(groups))
    assert len({style["color"] for style in styles.values()}) == 1
    assert len({str(style["linestyle"]) for style in styles.values()}) == 3


# Alarms


def with_alarms(log, *alarms):
    header, *lines = log.strip().split("\n")
    table = [f"{header},alarm/co,alarm/ro", *(f"{line},," for line in lines)]
    for kind, step in alarms:
        cells = "0.4," if kind == "CO" else ",0.4"
        table.append(f"{step},{step - 1},,,,,{cells}")
    return "\n".join(table) + "\n"


def test_the_first_alarm_of_each_kind_is_shown_with_its_runs(write):
    lost = with_alarms(metrics(LOST), ("CO", 2), ("CO", 3))
    both = with_alarms(metrics(), ("RO", 1), ("CO", 3))
    folders = [write(f"seed={i}", log=log) for i, log in enumerate((lost, metrics(), both))]
    (row,) = rows(folders)
    assert row["first alarm at step"] == "CO 2, 3 (2 of 3 runs); RO 1 (1 of 3 runs)"
    told = [[r[k] for k in ("first alarm", "alarm at step", "alarm in epoch")] for r in
            run_rows(folders)]  # fmt: skip
    assert told == [["CO", "2", "2"], ["none", "", ""], ["RO", "1", "1"]]


def test_a_run_without_a_sentinel_says_so(write):
    folders = [write("callbacks.sentinel=null")]
    assert rows(folders)[0]["first alarm at step"] == "no sentinel"
    assert run_rows(folders)[0]["first alarm"] == "no sentinel"


# Files


@pytest.mark.parametrize("tabulated", [comparison_table, runs_table])
def test_csv_parses_back_to_the_same_cells(write, tabulated):
    folders = [write("threat.eps=8/255", pgd=0.4), write("threat.eps=8/255", "seed=1", pgd=0.3),
               write("threat.eps=16/255", log=metrics(LOST), best={"pgd": 0.2})]  # fmt: skip
    table = tabulated(compare(folders))
    header, *cells = csv.reader(io.StringIO(table.csv()))
    assert tuple(header) == table.columns
    assert [tuple(row) for row in cells] == table.rows
    assert len(cells) == (3 if tabulated is comparison_table else 4)


def test_no_run_makes_an_empty_table():
    for tabulated in (comparison_table, runs_table, epochs_table):
        assert tabulated(compare([])).rows == []


# The table of checkpoints


METRICS = """\
step,epoch,train/loss,train/acc/adv,train/aae_share,train/delta_energy/marginal,train/delta_energy/joint,val/acc/pgd10
1,0,2.0,0.9,0.9,9.0,9.0,
2,0,1.5,0.8,0.8,8.0,8.0,
2,0,,,,,,0.3
3,1,1.0,0.5,0.25,0.5,-1.0,
4,1,0.5,0.7,0.75,1.0,-3.5,
4,1,,,,,,0.4
"""


RESULTS = {
    "last": {
        "step": 4,
        "val": {"clean": 0.9, "fgsm": 0.7777, "pgd20": 0.004, "n": 237},
        "test": {"clean": 1.0, "fgsm": 0.5, "pgd20": 0.0, "n": 360},
    },
    "best": {"step": 2, "test": {"clean": 0.8, "fgsm": 0.6, "pgd20": 0.45, "n": 360}},
}


def run(path, *, metrics=METRICS, results=RESULTS):
    folder = RunFolder.create(path, composed(*TINY_SHORT))
    if metrics is not None:
        folder.metrics_file.write_text(metrics)
    if results is not None:
        folder.write_results(results)
    return FinishedRun(folder)


def as_dicts(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_every_epoch_has_its_validation_and_the_means_of_its_steps(tmp_path):
    folders = [run(tmp_path / name).folder for name in ("a", "b")]
    folders[1].metrics_file.write_text(METRICS + "5,2,0.1,1.0,0.0,0.125,0.0,\n")
    rows = as_dicts(epochs_table(compare(folders)))
    assert {(row["method"], row["seed"]) for row in rows} == {("FGSM-AT", 0)}
    names = ("run", "epoch", "held-out clean %", "held-out PGD %", "train adv %", "AAE share %",
             "dE(x)", "dE(x, y)")  # fmt: skip
    both = [(1, "", 30.0, 85.0, 85.0, 8.5, 8.5), (2, "", 40.0, 60.0, 50.0, 0.75, -2.25)]
    assert [tuple(row[name] for name in names) for row in rows] == [
        *(("a", *row) for row in both),
        *(("b", *row) for row in (*both, (3, "", "", 100.0, 0.0, 0.125, 0.0))),
    ]


def test_numbers_of_a_run_are_those_of_its_files(tmp_path):
    val, test, best = as_dicts(results_table([run(tmp_path / "fgsm_at")]))
    trained = {
        "status": "robust",
        "train adv %": "60.0",
        "AAE share %": "50.0",
        "dE(x)": "+0.750",
        "dE(x, y)": "-2.250",
    }
    assert val == trained | {
        "run": "fgsm_at",
        "checkpoint": "last",
        "images": "held-out",
        "n": "237",
        "clean %": "90.0",
        "FGSM %": "77.8",
        "PGD-20 %": "0.4",
    }
    assert test == dict.fromkeys(trained, "") | {
        "status": "robust",
        "run": "fgsm_at",
        "checkpoint": "last",
        "images": "test",
        "n": "360",
        "clean %": "100.0",
        "FGSM %": "50.0",
        "PGD-20 %": "0.0",
    }
    assert best == dict.fromkeys(trained, "") | {
        "status": "robust",
        "run": "fgsm_at",
        "checkpoint": "best",
        "images": "test",
        "n": "360",
        "clean %": "80.0",
        "FGSM %": "60.0",
        "PGD-20 %": "45.0",
    }


def test_runs_of_one_name_are_distinguished_by_their_paths(tmp_path):
    table = results_table([run(tmp_path / sweep / "0") for sweep in "ab"])
    assert {row["run"] for row in as_dicts(table)} == {str(tmp_path / s / "0") for s in "ab"}


def test_runs_follow_each_other(tmp_path):
    table = results_table([run(tmp_path / name) for name in ("b", "a", "c")])
    assert [row["run"] for row in as_dicts(table)] == ["b"] * 3 + ["a"] * 3 + ["c"] * 3


def test_what_was_not_measured_is_empty(tmp_path):
    bare = run(
        tmp_path / "bare",
        metrics="step,epoch,train/loss,train/acc/adv\n1,0,1.0,0.5\n",
        results={"last": {"step": 1, "test": {"clean": 0.5, "n": 2}}},
    )
    (row,) = as_dicts(results_table([bare]))
    assert row["train adv %"] == "50.0"
    empty = {name for name, cell in row.items() if cell == ""}
    assert empty == {"FGSM %", "PGD-20 %", "AAE share %", "dE(x)", "dE(x, y)"}


def test_a_run_without_log_has_its_accuracies(tmp_path):
    rows = as_dicts(results_table([run(tmp_path / "quiet", metrics=None)]))
    assert [row["clean %"] for row in rows] == ["90.0", "100.0", "80.0"]
    assert {row["dE(x)"] for row in rows} == {""}


def test_a_run_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has not finished"):
        results_table([run(tmp_path / "half", results=None)])
