"""What a job prints of its sweep."""

import os
import time

from energy_at.config.sweep_progress import SweepProgress

JOBS = [["dataset=digits", f"reg.weight={w}", f"seed={s}"] for w in (1, 5) for s in (0, 1, 2)]


def test_a_job_is_named_by_its_number_and_what_is_swept():
    sweep = SweepProgress.of(JOBS)
    assert [sweep.title(i, job) for i, job in enumerate(JOBS)][1:4:2] == [
        "[2/6] reg.weight=1 seed=1",
        "[4/6] reg.weight=5 seed=0",
    ]
    assert SweepProgress.of(JOBS[:1]).title(0, JOBS[0]) == "[1/1]"


def test_processes_inherit_it_until_the_sweep_ends():
    before = dict(os.environ)
    sweep = SweepProgress.of(JOBS)
    with sweep.handed_down():
        assert SweepProgress.inherited() == sweep
        assert sweep.process == os.getpid()
    assert dict(os.environ) == before
    assert SweepProgress.inherited() is None


def test_the_time_left_follows_from_the_jobs_that_ended_since_the_start(tmp_path):
    sweep = SweepProgress(jobs=6, keys=["seed"], start=time.time() - 60)
    assert sweep.left(tmp_path) == ""
    for number, (name, age) in enumerate([("results.json", 900), ("results.json", 10),
                                          ("error.txt", 5)]):  # fmt: skip
        file = tmp_path / str(number) / name
        file.parent.mkdir()
        file.write_text("")
        os.utime(file, (time.time() - age,) * 2)
    # two jobs in 60 s; one had ended before, three are missing
    assert sweep.left(tmp_path) in (", about 1:30 left", ", about 1:31 left")
