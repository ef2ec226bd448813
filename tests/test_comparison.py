"""Methods compared over seeds, from run folders written by hand."""

import csv
import functools
import io
import itertools

import pytest
from omegaconf import open_dict

from energy_at.comparison import comparison_table, grouped, method, runs_table
from energy_at.runs import RunFolder
from tests.running import TINY, config

composed = functools.cache(config)
PGD = (0.30, 0.35, 0.40)  # on held-out images after each epoch of a sound run
LOST = (0.40, 0.05, 0.0)
LAST = {"clean": 0.8, "fgsm": 0.5, "pgd": 0.4, "n": 100}
COST = {"forward_equivalents": 5.02, "seconds": 90.0}


def metrics(pgd=PGD, aae=0.25):
    """One training step and one validation for each epoch."""
    lines = ["step,epoch,train/loss,train/aae_share,val/acc/pgd"]
    for epoch, accuracy in enumerate(pgd):
        lines += [f"{epoch + 1},{epoch},1.0,{aae},", f"{epoch + 1},{epoch},,,{accuracy}"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def write(tmp_path):
    """Writes a finished run as a sweep leaves it, in a folder named by its number."""
    numbers = itertools.count()

    def written(*overrides, log=None, cost=COST, best=None, **shares):
        folder = RunFolder.create(
            tmp_path / str(next(numbers)), composed(*TINY, *overrides), [*TINY, *overrides]
        )
        folder.metrics_file.write_text(metrics() if log is None else log)
        results = {"last": {"step": 3, "test": LAST | shares}}
        if best is not None:
            results["best"] = {"step": 2, "test": LAST | best}
        folder.write_results(results | ({} if cost is None else {"training": cost}))
        return folder

    return written


def rows(folders):
    table = comparison_table(grouped(folders))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def run_rows(folders):
    table = runs_table(grouped(folders))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


# Names


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("attack=fgsm",), "FGSM-AT"),
        (("attack=rs_fgsm",), "RS-FGSM-AT"),
        (("attack=fgsm", "reg=der"), "FGSM-AT + DER"),
        (("attack=n_fgsm", "reg=aaer"), "N-FGSM-AT + AAER"),
        (("attack=pgd", "training.awp.gamma=0.01"), "PGD-AT + AWP"),
        (("attack=pgd", "reg=der", "training.awp.gamma=0.01"), "PGD-AT + DER + AWP"),
        (("attack=fgsm", "reg=der_gradalign"), "FGSM-AT + DER + GradAlign"),
        (("attack=trades", "loss=trades"), "TRADES"),
        (("attack=trades", "loss=trades", "reg=der"), "TRADES + DER"),
        (("attack=fgsm", "loss=trades"), "TRADES (FGSM)"),
        (("attack=pgd", "loss=mart"), "MART (PGD)"),
        (("attack=trades", "loss=weat_adv"), "WEAT-adv"),
    ],
)
def test_a_method_is_named_by_attack_loss_regularizer_and_awp(overrides, name):
    assert method(composed(*TINY, *overrides)) == name


def test_runs_that_differ_in_the_seed_alone_are_one_row(write):
    jobs = [("none", 0), ("none", 1), ("der", 1), ("der", 2), ("der", 3)]
    assert [
        (row["method"], row["runs"])
        for row in rows([write(f"reg={reg}", f"seed={seed}") for reg, seed in jobs])
    ] == [("FGSM-AT", "2"), ("FGSM-AT + DER", "3")]


def test_runs_that_differ_in_anything_else_are_told_apart_by_what_was_typed(write):
    folders = [write("model.width=8", f"threat.eps={e}/255", f"seed={s}") for s in (0, 1)
               for e in (8, 16)]  # fmt: skip
    assert [(row["method"], row["runs"]) for row in rows(folders)] == [
        ("FGSM-AT, threat.eps=8/255", "2"),
        ("FGSM-AT, threat.eps=16/255", "2"),
    ]


def test_what_all_runs_have_typed_is_in_no_name(write):
    folders = [write("trainer.max_epochs=1", f"reg={reg}") for reg in ("none", "der")]
    assert [row["method"] for row in rows(folders)] == ["FGSM-AT", "FGSM-AT + DER"]


def test_a_default_that_is_typed_makes_no_other_method(write):
    (row,) = rows([write("seed=0"), write("seed=1", "threat.eps=8/255")])
    assert row["runs"] == "2"


def test_names_that_nothing_typed_tells_apart_hold_the_folder(write):
    one, two = write("threat.eps=8/255"), write("threat.eps=16/255")
    for folder in (one, two):
        folder.environment_file.unlink()
    names = [row["method"] for row in rows([one, two])]
    assert names == ["FGSM-AT (0)", "FGSM-AT (1)"]


def test_runs_of_two_sweeps_that_nothing_tells_apart_are_all_there(tmp_path):
    folders = []
    for sweep, eps in (("a", 8), ("b", 16)):
        folder = RunFolder.create(tmp_path / sweep / "0", composed(*TINY, f"threat.eps={eps}/255"))
        folder.metrics_file.write_text(metrics())
        folder.write_results({"last": {"step": 3, "test": LAST}})
        folders.append(folder)
    paths = [str(tmp_path / sweep / "0") for sweep in "ab"]
    assert [row["method"] for row in rows(folders)] == [f"FGSM-AT ({path})" for path in paths]
    assert [row["run"] for row in run_rows(folders)] == paths


def test_a_configuration_older_than_the_names_is_compared_all_the_same():
    old = composed(*TINY).copy()
    with open_dict(old):
        del old.training.awp, old.attack.name
    assert method(old) == "method without name"


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
            "collapse at step": "none",
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
    log = metrics(aae=0.0).replace("3,2,1.0,0.0,", "3,2,1.0,0.9,")
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
    groups = grouped([write(*overrides), write(*overrides, "seed=1")])
    assert column in comparison_table(groups).columns
    assert column in runs_table(groups).columns


def test_runs_judged_by_different_attacks_share_a_column_that_names_neither(write):
    table = comparison_table(grouped([write(), write("evaluation.attacks.pgd.steps=50")]))
    assert "PGD %" in table.columns


def test_runs_judged_without_pgd_are_compared_by_the_rest(write):
    (row,) = rows([write("~evaluation.attacks.pgd")])
    assert row["clean %"] == "80.0"


# Collapse


def test_a_collapsed_run_is_never_averaged(write):
    sound, lost = write("seed=0", pgd=0.4), write("seed=1", log=metrics(LOST, aae=0.75), pgd=0.0)
    (row,) = rows([sound, lost])
    assert [row[name] for name in ("clean %", "FGSM %", "PGD-20 %")] == ["collapsed"] * 3
    assert row["collapse at step"] == "2 (1 of 2 runs)"


def test_every_collapse_names_its_step(write):
    logs = (metrics(LOST), metrics(PGD), metrics((0.4, 0.3, 0.1)))
    (row,) = rows([write(f"seed={i}", log=log) for i, log in enumerate(logs)])
    assert row["collapse at step"] == "2, 3 (2 of 3 runs)"


def test_a_collapse_leaves_other_methods_alone(write):
    folders = [write("reg=none", log=metrics(LOST)), write("reg=der", pgd=0.375)]
    lost, sound = rows(folders)
    assert lost["PGD-20 %"] == "collapsed"
    assert (sound["PGD-20 %"], sound["collapse at step"]) == ("37.5", "none")


def test_the_best_checkpoint_of_a_collapsed_run_keeps_its_numbers(write):
    last, best = rows([write(log=metrics(LOST), best={"pgd": 0.38})])
    assert last["PGD-20 %"] == "collapsed"
    assert best["PGD-20 %"] == "38.0"


def test_the_table_of_runs_has_the_numbers_of_collapsed_ones_too(write):
    folders = [write("seed=3", pgd=0.4), write("seed=5", log=metrics(LOST, aae=0.75), pgd=0.015)]
    sound, lost = run_rows(folders)
    assert (sound["run"], sound["seed"], sound["PGD-20 %"]) == ("0", "3", "40.0")
    assert sound["collapse at step"] == "none"
    assert (lost["run"], lost["seed"], lost["PGD-20 %"]) == ("1", "5", "1.5")
    assert (lost["clean %"], lost["FGSM %"], lost["AAE share %"]) == ("80.0", "50.0", "75.0")
    assert lost["collapse at step"] == "2"
    assert {row["method"] for row in (sound, lost)} == {"FGSM-AT"}
    assert (lost["checkpoint"], lost["forward passes"], lost["minutes with validation"]) == (
        "last",
        "5.0",
        "1.5",
    )


# Files


@pytest.mark.parametrize("tabulated", [comparison_table, runs_table])
def test_csv_parses_back_to_the_same_cells(write, tabulated):
    folders = [write("threat.eps=8/255", pgd=0.4), write("threat.eps=8/255", "seed=1", pgd=0.3),
               write("threat.eps=16/255", log=metrics(LOST), best={"pgd": 0.2})]  # fmt: skip
    table = tabulated(grouped(folders))
    header, *cells = csv.reader(io.StringIO(table.csv()))
    assert tuple(header) == table.columns
    assert [tuple(row) for row in cells] == table.rows
    assert len(cells) == (3 if tabulated is comparison_table else 4)


def test_no_run_makes_an_empty_table():
    assert comparison_table(grouped([])).rows == runs_table(grouped([])).rows == []
