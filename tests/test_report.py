"""The report of several runs: what is in it, the same bytes every time, a page without network."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from energy_at import report
from energy_at.reporting.comparison import compare
from energy_at.reporting.document import report as write_report
from energy_at.reporting.document.blocks import Code, Grid
from energy_at.reporting.document.results import accuracies, evaluations
from energy_at.reporting.document.runs import drawn_by_step, environment, overview
from energy_at.reporting.finished_run import failed_jobs, finished_runs
from energy_at.runs.folder import RunFolder
from energy_at.runs.result_folder import RECORD
from tests.helpers.pages import BROWSER, Page
from tests.helpers.running import TINY, config, everything, typed
from tests.reporting.document.test_results import CONTENT

composed = functools.cache(config)
BASE = (*TINY, "trainer.max_epochs=12")
SOUND = tuple(0.2 + 0.02 * i for i in range(12))
LOST = (0.2, 0.3, 0.4, 0.42, 0.44, 0.1, *[0.0] * 6)
OVERFITTED = (0.3, 0.44, 0.46, 0.46, 0.46, 0.46, 0.42, 0.40, 0.38, 0.36, 0.34, 0.32)
ODD = 'a<b>&"c'


def log(pgd):
    """Three steps and a validation for each epoch."""
    energies = [f"train/delta_energy/{name}" for name in ("marginal", "joint", "shift_norm")]
    keys = ["train/loss", *energies, "train/aae_share", "train/acc/clean", "train/acc/adv"]
    held_out = [f"val/acc/{name}" for name in ("clean", "fgsm", "pgd")]
    lines = [",".join(["step", "epoch", *keys, *held_out])]
    for epoch, accuracy in enumerate(pgd):
        trained = [f"{step},{epoch}" + f",{step / 100}" * 7 + ",,,"
                   for step in range(3 * epoch + 1, 3 * epoch + 4)]  # fmt: skip
        lines += [*trained, f"{3 * epoch + 3},{epoch}" + "," * 7 + f",0.9,0.5,{accuracy}"]
    return "\n".join(lines) + "\n"


def write(path, *overrides, pgd=SOUND, **record):
    """A finished run as a training leaves it, of a fixed environment."""
    folder = RunFolder.create(path, composed(*BASE, *overrides), [*BASE, *overrides])
    about = {
        "command": ["train.py", *overrides], "python": "3.11.7", "packages": {"torch": "2.6.0"},
        "git_commit": "abc", "platform": "Linux", "cpu_count": 2, "threads": 1, "device": "cpu",
        "overrides": [*BASE, *overrides],
    }  # fmt: skip
    folder.environment_file.write_text(json.dumps(about | record))
    if pgd:
        folder.metrics_file.write_text(log(pgd))
    shares = {"clean": 0.8, "fgsm": 0.5, "pgd": 0.4, "n": 100}
    folder.write_results({"last": {"step": 36, "test": shares}})
    return folder


def evaluate(run):
    folder = run.path / "evaluation" / "strong"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(CONTENT))
    Image.new("RGB", (8, 8), "red").save(folder / "curve.png")


def analyse(run):
    folder = run.path / "analysis" / "last"
    folder.mkdir(parents=True)
    (folder / "table.csv").write_text("attack,dE(x)\npgd,-1.5\n")
    Image.new("RGB", (8, 8), "blue").save(folder / "quiver.png")


@pytest.fixture
def type_report(here, monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, report.main, *argv)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A collapsed run, and one with an odd name and everything that can be measured; reported."""
    folder = tmp_path_factory.mktemp("two")
    write(folder / "plain", "reg=none", pgd=LOST)
    rich = write(folder / ODD, "reg=der", git_commit="abc-dirty")
    evaluate(rich)
    analyse(rich)
    (rich.path / "samples" / "pca").mkdir(parents=True)
    Image.new("RGB", (8, 8), "green").save(rich.path / "samples" / "pca" / "grid.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_report([RunFolder(Path("plain")), RunFolder(Path(ODD))], Path("report"))
    return folder


@pytest.fixture(scope="module")
def told(two):
    return sections(two)


@pytest.fixture(scope="module")
def page(two):
    return Page((two / "report" / "report.html").read_text())


def sections(folder):
    """Sections of the Markdown by title."""
    text = (folder / "report" / "report.md").read_text()
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {title: body for title, _, body in parts}


def bytes_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# What is in it


def test_the_report_has_its_sections_in_both_forms(told, page):
    titles = ["Runs", "Robust accuracy", "Training", "Checks", "Energy analysis",
              "Samples", "Environment"]  # fmt: skip
    assert list(told) == titles
    assert [page.text.index(title) for title in titles] == sorted(map(page.text.index, titles))


def test_differences_onsets_checks_and_environment_are_reported(told):
    assert "| reg.name " in told["Runs"]
    assert "| collapsed at step 18 " in told["Runs"]  # the sixth validation
    assert "| collapsed at 18 " in told["Robust accuracy"]
    assert "40.0 [37.0, 43.0]" in told["Robust accuracy"]
    assert "collapsed at step 18" in told["Training"]
    assert "| warning " in told["Checks"]
    assert "| pgd " in told["Energy analysis"]
    assert "The runs differ in git_commit." in told["Environment"]
    assert 'source tree of: a\\<b\\>\\&"c.' in told["Environment"]
    assert "    python -m energy_at.train reg=none" in told["Environment"]


def test_a_run_that_is_not_robust_is_marked_in_every_table(tmp_path):
    folder = write(tmp_path / "guess", pgd=(0.25,) * 12)
    evaluate(folder)
    found = compare([folder])
    runs = next(block for block in overview(found) if isinstance(block, Grid))
    assert (runs.table.rows[0][-2], runs.marked) == ("not robust", {0})
    strong = [(entry, one) for entry in found for one in evaluations(entry.path)]
    blocks = accuracies(found, strong, tmp_path)
    methods, checkpoints, strong = (block for block in blocks if isinstance(block, Grid))
    assert (methods.table.rows[0][3:6], methods.marked) == (("not robust",) * 3, {0})
    assert (checkpoints.table.rows[0][-1], checkpoints.marked) == ("not robust", {0})
    assert {row[2] for row in strong.table.rows} == {"not robust"}
    assert strong.marked == set(range(len(strong.table.rows)))


@pytest.mark.parametrize(
    ("title", "command"),
    [("Robust accuracy", "evaluate"), ("Checks", "evaluate"), ("Energy analysis", "analyse")],
)
def test_what_is_missing_is_named_with_its_command(told, title, command):
    line = f"missing for plain: `python -m energy_at.{command} run=plain`"
    assert line in told[title].splitlines()


def test_the_page_is_well_formed_loads_nothing_and_shows_odd_names(page):
    assert page.mistakes == []
    assert page.loaded == []
    assert {link for link in page.links if not link.startswith("#")} == {
        "https://arxiv.org/abs/2505.22486"
    }
    assert ODD in page.text
    kinds = [page.image(image)[0] for image in page.all("img")]
    assert kinds == ["image/png", *["image/svg+xml"] * 4, *["image/png"] * 2]


def test_markdown_shows_the_same_pictures_as_files(two, page):
    folder = two / "report"
    lines = (folder / "report.md").read_text().splitlines()
    files = [line.rpartition("](")[2].rstrip(")") for line in lines if line.startswith("![")]
    assert len(files) == len(page.all("img"))
    assert all((folder / file).read_bytes()[:4] == b"\x89PNG" for file in files)
    drawn = [file for file in files if file.startswith("figures/steps")]
    assert len(drawn) == 2
    assert all((folder / file).with_suffix(".pdf").is_file() for file in drawn)


def test_one_run_shows_what_was_typed_under_the_path_that_was_typed(here, type_report):
    write(here / "deep" / "run", "reg=der", "reg.weight=7", pgd=OVERFITTED)
    code, out, err = type_report("runs=deep/run")
    assert code == 0, err
    assert out.splitlines()[-1].endswith("report.md, report.html")
    told = sections(here)
    assert "    reg.weight=7" in told["Runs"].splitlines()
    assert "deep/run" in told["Runs"]
    assert "Samples" not in told
    assert "overfitted at step 9" in told["Training"]
    assert str(here) not in (here / "report" / "report.html").read_text()


def test_runs_without_a_log_are_reported_by_their_accuracies(here, type_report):
    write(here / "quiet", pgd=None)
    code, out, err = type_report("runs=quiet")
    assert code == 0, err
    assert "delta_energy" not in out
    assert "No training step was logged in quiet: use `logger=csv`." in sections(here)["Training"]


def test_seeds_of_many_runs_share_a_column(tmp_path):
    folders = [write(tmp_path / f"{reg}{seed}", f"reg={reg}", f"seed={seed}")
               for reg in ("none", "der") for seed in range(4)]  # fmt: skip
    *_, grid = overview(compare(folders))
    assert grid.table.columns == ("key", "FGSM-AT", "FGSM-AT + DER")
    assert grid.table.rows[0] == ("seed", "0, 1, 2, 3", "0, 1, 2, 3")
    assert grid.table.rows[1] == ("reg.name", "none", "DER")


def test_runs_of_one_configuration_differ_in_nothing(tmp_path):
    *_, said = overview(compare([write(tmp_path / name) for name in "ab"]))
    assert said == "The runs share one configuration."


def test_runs_of_one_environment_have_one_column(tmp_path):
    said, grid, *_ = environment(compare([write(tmp_path / name) for name in "ab"]))
    assert said == "All runs have the same environment."
    assert grid.table.columns == ("", "all runs")
    assert ("torch", "2.6.0") in grid.table.rows


def test_a_run_without_record_says_so(tmp_path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    other.environment_file.unlink()
    (grid,) = [b for b in environment(compare([one, other])) if isinstance(b, Grid)]
    assert ("git_commit", "abc", "not recorded") in grid.table.rows


@pytest.mark.slow
def test_of_very_many_runs_one_of_each_method_is_drawn_by_step(tmp_path):
    folders = [write(tmp_path / f"{seed}", f"seed={seed}", pgd=LOST if seed == 5 else SOUND)
               for seed in range(13)]  # fmt: skip
    assert [entry.place for entry in drawn_by_step(compare(folders))] == ["0", "5"]
    assert len(drawn_by_step(compare(folders[:12]))) == 12


def test_runs_of_one_method_and_seed_have_labels_of_their_own(tmp_path):
    found = compare([write(tmp_path / name) for name in "ab"])
    assert [str(entry.label) for entry in found] == ["FGSM-AT, seed 0, a", "FGSM-AT, seed 0, b"]


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(here):
    write(here / "run")
    for out in ("one", "other"):
        write_report([RunFolder(Path("run"))], Path(out))
    assert bytes_of(here / "one") == bytes_of(here / "other")


def test_a_smaller_report_removes_what_only_the_larger_one_wrote_and_nothing_else(two, here):
    out = here / "report"
    shutil.copytree(two / "report", out)
    shutil.copytree(two / "plain", here / "plain")
    (out / "figures" / "mine.png").write_text("mine")
    (out / "figures" / "steps_2.pdf").write_text("changed")
    (here / "outside.md").write_bytes((out / "table.md").read_bytes())
    before = json.loads((out / RECORD).read_text())
    record = before["files"]
    more = {"files": record | {"../outside.md": record["table.md"]}}
    (out / RECORD).write_text(json.dumps(before | more))
    write_report([RunFolder(Path("plain"))], Path("report"))
    kept = {RECORD, "figures/mine.png", "figures/steps_2.pdf"}
    written = json.loads((out / RECORD).read_text())["files"].keys()
    assert {"figures/steps_1.png", "report.html"} <= written < record.keys()
    assert bytes_of(out).keys() == written | kept
    assert (here / "outside.md").exists()


@pytest.mark.parametrize(
    ("record", "why"),
    [("{", "it is not JSON"), ('{"kind": "report", "key": null, "files": 3}', "it names no files")],
)
def test_a_damaged_record_of_a_report_is_named_in_one_line(here, type_report, record, why):
    write(here / "run")
    (here / "report").mkdir()
    (here / "report" / RECORD).write_text(record)
    code, _, err = type_report("runs=run")
    assert (code, err) == (1, f"error: report/.result.json is damaged: {why}\n")


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes_elsewhere_and_in_another_process(two, tmp_path):
    for name in ("plain", ODD):
        shutil.copytree(two / name, tmp_path / name)
    command = [sys.executable, "-m", "energy_at.report", f"runs=[plain,'{ODD}']", "out=other"]
    other = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "TZ": "Asia/Tokyo"}
    subprocess.run(command, cwd=tmp_path, env=other, check=True, capture_output=True)
    found = bytes_of(two / "report")
    assert {"report.html", "report.md", "delta_energy.pdf", "figures/steps_1.pdf"} <= set(found)
    assert bytes_of(tmp_path / "other") == found


# Bad input


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "metrics.csv").write_text("step,a\n1,x\n"), "metrics.csv is damaged"),
        (lambda run: (run / "results.json").write_text("{"), "results.json is damaged"),
        (lambda run: (run / "environment.json").write_text("{"), "environment.json is damaged"),
        (lambda run: (run / "config.yaml").write_text("{"), "config.yaml is damaged"),
        (lambda run: (run / "results.json").unlink(), "run has not finished"),
        (lambda run: shutil.rmtree(run), "run is not a run folder"),
        (lambda run: ((run / "evaluation/a").mkdir(parents=True),
                      (run / "evaluation/a/evaluation.json").write_text("{}")),
         "evaluation.json is damaged"),
        (lambda run: ((run / "analysis/a").mkdir(parents=True),
                      (run / "analysis/a/b.png").write_text("none")), "b.png is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_in_one_line(here, type_report, spoil, said):
    spoil(write(here / "run").path)
    before = everything()
    code, _, err = type_report("runs=run")
    assert (code, err.count("\n")) == (1, 1)
    assert said in err
    assert everything() == before


def test_an_output_that_is_a_file_is_named_in_one_line(here, type_report):
    write(here / "run")
    (here / "file").write_text("mine")
    code, _, err = type_report("runs=run", "out=file")
    assert (code, err.count("\n")) == (1, 1)
    assert "out=file is a file: name a folder" in err
    assert (here / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((), "runs= is missing: type it; --help shows how"),
        (("runs=[run,run]",), "runs=[...] names run twice: leave one out"),
        (("runs=[run,.]",), "runs=[...] names run twice: leave one out"),
        (("runs=[null]",), "runs=[None] must be the path of a folder, or a list of them"),
        (("runs=[1,2]",), "1 is not a run folder"),
        (("runs=run", "out=[a]"), "out=['a'] must be the path of one folder"),
        (("runs=run", "+foo=1"), "+foo=1: nothing reads foo"),
    ],
)
def test_a_mistake_gets_one_line_and_writes_nothing(here, type_report, wrong, said):
    write(here / "run")
    before = everything()
    code, out, err = type_report(*wrong)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert said in err
    assert everything() == before


FAILED = [
    "job 1 failed: reg.weight=-1 must be a finite number >= 0",
    "job 2 failed: the loss is nan at step 3",
]


@pytest.fixture
def failing(here):
    """A sweep of three jobs: one failed before it had a configuration, one while it trained."""
    write(Path("sweep/0"), pgd=())
    begun = write(Path("sweep/2"), "seed=1", pgd=())
    begun.results_file.unlink()
    begun.error_file.write_text("the loss is nan at step 3\n")
    Path("sweep/1").mkdir()
    Path("sweep/1/error.txt").write_text("reg.weight=-1 must be a finite number >= 0\n")
    return "sweep"


def test_jobs_of_a_sweep_that_failed_are_named_with_their_reason(failing, capsys):
    assert [run.path for run in finished_runs(failing)] == [Path("sweep/0")]
    assert capsys.readouterr().err == ""
    assert failed_jobs(failing, alone=True) == FAILED
    first, _ = failed_jobs(failing, alone=False)
    assert first.startswith("job sweep/1 failed: reg.weight=-1 must be")
    blocks = list(overview(compare(finished_runs(failing)), FAILED))
    assert blocks[blocks.index("2 jobs have no result:") + 1] == Code("\n".join(FAILED))


def test_a_sweep_of_which_every_job_failed_has_no_report(failing, type_report):
    for job in "02":
        shutil.rmtree(f"sweep/{job}")
    code, out, err = type_report("runs=sweep", "out=nothing")
    assert (code, out, err) == (1, "", f"error: no run has finished: {FAILED[0]}\n")
    assert not Path("nothing").exists()


@pytest.mark.slow
def test_a_report_ends_with_the_jobs_that_failed(failing, type_report):
    code, out, err = type_report("runs=sweep", "out=told")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == FAILED
    assert FAILED[1] in Path("told/report.md").read_text()
    assert FAILED[1] in Path("told/report.html").read_text()


@pytest.mark.slow
def test_a_folder_may_have_a_number_for_a_name_and_keeps_what_it_holds(here, type_report):
    write(here / "1")
    (here / "2").mkdir()
    (here / "2" / "mine").write_text("mine")
    assert type_report("runs=1", "out=2")[0] == 0
    assert (here / "2" / "mine").read_text() == "mine"
    assert (here / "2" / "report.html").is_file()
    assert not list(here.glob(".*"))


# A real browser


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the page is not looked at")
@pytest.mark.parametrize("width", [pytest.param(1200, marks=pytest.mark.slow), 500])
def test_a_browser_shows_the_page_with_its_figures(two, here, width):
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--window-size={width},5000", f"--user-data-dir={here / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--screenshot=shot.png",
        (two / "report" / "report.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, cwd=here, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(here / "shot.png").convert("RGB"))
    blue = (pixels == (0x00, 0x72, 0xB2)).all(-1).sum()  # PGD error, in a figure alone
    assert blue > 100
    assert (pixels[:, -8:] == 255).all()  # nothing reaches over the edge
