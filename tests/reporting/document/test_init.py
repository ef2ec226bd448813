"""The report of several runs: what is in it, the same bytes every time, a page without network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from energy_at.reporting.document import report as write_report
from energy_at.runs.folder import RunFolder
from energy_at.runs.result_folder import RECORD
from tests.helpers.pages import BROWSER, Page
from tests.helpers.reports import LOST, ODD, analyse, bytes_of, evaluate, sections, write


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


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(here):
    write(here / "run")
    for out in ("one", "other"):
        write_report([RunFolder(Path("run"))], Path(out))
    assert bytes_of(here / "one") == bytes_of(here / "other")


@pytest.mark.slow
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
