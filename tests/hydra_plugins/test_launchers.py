"""Sweeps by other launchers and sweepers: what they are given, and how their jobs end."""

import json
import os
import re
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import optuna
import pytest
import submitit
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import OmegaConf
from ray.exceptions import RuntimeEnvSetupError, WorkerCrashedError
from submitit.core.utils import FailedJobError, UncompletedJobError

from energy_at import train
from energy_at.config.errors import explain
from energy_at.config.schema import check_start
from energy_at.config.sweep_progress import SweepProgress
from energy_at.core.extras import install
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.sweeps import summary
from energy_at.runs.folder import runs_below
from hydra_plugins.energy_at.fault_tolerance import is_loss, launch_jobs, places
from hydra_plugins.energy_at.optuna import require_seeds
from hydra_plugins.energy_at.overrides import parse_sweep
from hydra_plugins.energy_at.ray import require_reachable, speaks_http2
from tests.helpers.running import CONF, ONE_EPOCH, assert_refused, choices, everything, typed

pytestmark = pytest.mark.usefixtures("here")

DIGITS = (
    *ONE_EPOCH,
    "dataset=digits",
    "dataset.subset=128",
    "validation.attacks.pgd.steps=1",
    "evaluation.attacks.pgd.steps=1",
    "evaluation.checkpoints=[last]",
    "evaluation.subset=64",
)
AT_WANDB = ["logger=wandb" if override == "logger=csv" else override for override in DIGITS]


def settings_of(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides], return_hydra_config=True).hydra


# Groups


@pytest.mark.parametrize("name", sorted({*choices("sweep")} - {"none"}))
def test_a_sweep_of_the_group_starts_one_and_names_what_is_swept(name, type_train):
    code, _, err = type_train("hydra/sweeper=wandb", f"sweep={name}")
    assert (code, err) == (0, "")
    assert OmegaConf.load("wandb_sweep.yaml").parameters.keys() == {
        *settings_of(f"sweep={name}").sweeper.params
    }


def test_a_run_of_what_a_sweep_fixes_is_no_sweep(type_train):
    assert_refused(type_train, "seed=0,1: add -m", "sweep=seeds", "hydra.mode=RUN", "seed=0,1")


def test_the_sweep_over_the_weight_is_three_seeds_of_each_weight():
    assert dict(settings_of("sweep=der_weight").sweeper.params) == {
        "reg.weight": "0,0.5,1,2,5",
        "seed": "0,1,2",
    }


def test_what_is_typed_wins_over_what_the_sweep_names(type_train):
    code, out, _ = type_train("hydra/sweeper=wandb", "sweep=der_weight", "reg.weight=0,3")
    assert code == 0, out
    written = OmegaConf.to_container(OmegaConf.load("wandb_sweep.yaml"))
    assert written["parameters"] == {
        "reg.weight": {"values": [0, 3]},
        "seed": {"values": [0, 1, 2]},
    }


# Jobs that are lost

SWEEP = Path("sweep")
OF_SWEEP = OmegaConf.create({"hydra": {"sweep": {"dir": str(SWEEP)}}})
KILLED = "A worker process was killed. This could be caused by many things."


class Lossy:
    """Starts jobs and loses them, `times` times."""

    def __init__(self, starts, times=2, error=OSError):
        self.starts, self.times, self.error, self.launches = starts, times, error, []

    def launch(self, jobs, initial_job_idx):
        self.launches.append(len(jobs))
        if self.times == 0:
            return ["done"] * len(jobs)
        self.times -= 1
        for number in range(initial_job_idx, initial_job_idx + len(jobs)) if self.starts else ():
            begin(number)
        raise self.error(KILLED)


def begin(number):
    folder = SWEEP / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.json").write_text('{"overrides": []}')
    (folder / "config.yaml").write_text("{}")


def launch(launcher, jobs=1, first=0):
    overrides = [[f"seed={seed}"] for seed in range(jobs)]
    sweep = SweepProgress.of(overrides)
    return launch_jobs(
        launcher, OF_SWEEP, overrides, first, lambda _, number: SWEEP / str(number), sweep
    )


def test_a_job_that_is_killed_does_not_end_the_sweep_and_is_named(capsys):
    assert launch(Lossy(starts=True), first=3) == []
    said = "error: a job was lost: OSError: A worker process was killed; "
    assert capsys.readouterr().err.count(said) == 2
    assert summary(SWEEP).splitlines() == [
        "no job has finished",
        "job 3 was lost: re-run the sweep with hydra.sweep.dir=sweep to resume it",
    ]


@pytest.mark.parametrize("typed_again", [False, True])
def test_jobs_alongside_one_that_is_killed_continue(typed_again, capsys):
    if typed_again:
        begin(0)
        os.utime(SWEEP / "0" / "environment.json", (1, 1))
    assert launch(Lossy(starts=True, times=1)) == ["done"]
    assert "jobs that have not finished are resumed" in capsys.readouterr().err


def test_a_launcher_that_cannot_start_is_for_the_user_to_mend():
    begin(7)  # in an earlier attempt
    with pytest.raises(OSError, match="A worker process was killed"):
        launch(Lossy(starts=False))


def test_a_job_that_is_killed_before_it_writes_is_tried_once_more():
    assert launch(Lossy(starts=False, times=1, error=TerminatedWorkerError)) == ["done"]


def test_a_job_that_is_lost_twice_before_it_writes_is_named():
    assert launch(Lossy(starts=False, times=9, error=TerminatedWorkerError), jobs=2) == []
    again = "its process was lost before it had begun: re-run the sweep with hydra.sweep.dir=sweep"
    assert summary(SWEEP).splitlines() == [
        "no job has finished",
        f"job 0 failed: {again}",
        f"job 1 failed: {again}",
    ]


class Terminated:
    """Its first job is terminated once: joblib raises here what the worker has raised there."""

    def __init__(self, code, cause):
        self.stops = [(code, cause)]

    def launch(self, jobs, initial_job_idx):
        for code, cause in self.stops[:]:
            self.stops.clear()
            raise SystemExit(code) from cause
        return ["done"]


def test_a_worker_that_is_terminated_is_a_lost_job(capsys):
    assert launch(Terminated(143, RuntimeError("traceback of the worker"))) == ["done"]
    assert "a worker ended with exit code 143; jobs that have" in capsys.readouterr().err


class Submitted:
    """Submitit as its launcher uses it: the first of two jobs is killed."""

    def launch(self, jobs, initial_job_idx):
        if Path("done").exists():
            return ["done"] * len(jobs)
        killed = "import os; os.kill(os.getpid(), 9)"
        late = "import pathlib, time; time.sleep(30); pathlib.Path('done').touch()"
        executor = submitit.LocalExecutor("logs")
        executor.update_parameters(timeout_min=5)
        jobs = executor.map_array(exec, [killed, late])
        return [job.results()[0] for job in jobs]


@pytest.mark.slow
def test_jobs_that_still_run_are_not_started_twice():
    assert launch(Submitted(), jobs=2) == ["done"] * 2


@pytest.mark.parametrize(("code", "cause"), [(143, None), (130, RuntimeError("in a worker"))])
def test_who_stops_the_sweep_itself_has_stopped_it(code, cause):
    with pytest.raises(SystemExit):
        launch(Terminated(code, cause))


def test_jobs_that_one_tears_along_twice_run_one_by_one(capsys):
    """The one that is killed every time is the first."""
    launcher = Lossy(starts=True, times=3, error=TerminatedWorkerError)
    first, *others = launch(launcher, jobs=3)
    assert first.return_value is None
    assert others == ["done", "done"]
    assert launcher.launches == [3, 3, 1, 1, 1]
    assert capsys.readouterr().err.endswith("job 0 is not tried again\n")


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (TerminatedWorkerError, True),
        (WorkerCrashedError, True),
        (UncompletedJobError, True),
        (FailedJobError, False),
        (RuntimeEnvSetupError, False),
    ],
)
def test_what_launchers_raise_for_a_lost_process_is_known(error, loss):
    assert is_loss(error()) is loss


def test_the_folder_of_a_job_is_known_before_it_runs():
    overrides = ["hydra.sweep.dir=s", "hydra.sweep.subdir=${reg.name}/${hydra.job.num}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", overrides, RunMode.MULTIRUN)
        place = places(HydraContext(loader, Callbacks()), config)
        assert place(["reg=der", "seed=3"], 2) == Path("s/DER/2")


# Bad input


@pytest.mark.parametrize(
    ("swept", "said"),
    [
        (("dataset=cifar10", "dataset.root=nowhere", "dataset.download=false", "seed=0,1,2"),
         "dataset.root=nowhere must"),
        (("logger=tensorboard", "seed=0,1"), "logger=tensorboard needs tensorboard"),
        (("attack=none", "reg=der", "seed=0,1"), "attack=none (NoAttack) leaves the loss"),
        (("trainer.max_epochs=0", "seed=0,1"), "trainer.max_epochs=0 must be an integer >= 1"),
        (("dataset=folder,tiny_imagenet", "dataset.root=nowhere"), "dataset.root=nowhere must"),
        (("dataset=folder", "dataset.root=nowhere", "hydra/sweeper=optuna", "reg=der",
          "reg.weight=interval(1,2)", "hydra.sweeper.n_trials=2"), "dataset.root=nowhere must"),
    ],
)  # fmt: skip
def test_what_every_job_lacks_is_said_once(type_train, monkeypatch, swept, said):
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: None)
    code, out, err = type_train("-m", *ONE_EPOCH, "hydra.sweep.dir=all", *swept)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert not Path("all").exists()


def test_a_job_that_alone_lacks_something_does_not_end_the_others(type_train):
    swept = ("evaluation.subset=99999,64", "hydra.sweep.dir=all", *DIGITS[:-1])
    code, _, err = type_train("-m", *swept)
    assert (code, err.count("error: ")) == (1, 1)
    assert Path("all/0/error.txt").read_text().startswith("evaluation.subset=99999 must")
    assert Path("all/1/results.json").is_file()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (("hydra/launcher=jobli",), "(did you mean joblib?)"),
        (("sweep=der_wait",), "sweep=der_wait must be architectures, datasets, der_weight, eps, "),
        (("reg=der", "reg.wait=0,1"), "reg.wait: unknown key; did you mean reg.weight"),
        (("hydra/sweeper=optuna", "reg=der"), "has nothing to search: name bounds"),
        (
            ("hydra/sweeper=optuna", "reg.wait=interval(0,1)"),
            "reg.wait: unknown key; did you mean reg.weight",
        ),
        (("sweep=optuna_der", "hydra.sweeper.n_trials=0"), "n_trials=0 must be an integer >= 1"),
        (("hydra/sweeper=wandb", "reg=der"), "nothing to sweep: name several values"),
        (("reg=der", "reg.weight=interval(0,1)"), "hydra/sweeper=optuna searches between bounds"),
        (("seed=range(0,0)",), "seed=range(0,0) names no value: there is no job to run"),
        (("seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=many"), "n_jobs=many must"),
        (("reg=der", "hydra/sweeper=wandb", "reg.weight=0,1"), "add logger=wandb or logger=csv_wa"),
        (("seed=0,1", "hydra/launcher=submitit_slurm"), 'Could not detect "srun"'),
        (
            ("seed=0,1", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:1"),
            "no Ray cluster answers at hydra.launcher.address=127.0.0.1:1",
        ),
        (
            ("seed=0,1", "hydra/launcher=ray", "hydra.launcher.address=here"),
            "hydra.launcher.address=here is no address: write HOST:PORT",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_mistake_in_a_sweep_gets_one_line_and_leaves_nothing(
    type_train, tmp_path, mistake, said, monkeypatch
):
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, err = type_train("-m", *DIGITS, *mistake)
    assert code == 1
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    left = [path for path in tmp_path.rglob("*") if path.name != "multirun.yaml" and path.is_file()]
    assert left == []


@pytest.mark.parametrize("launcher", [*choices("hydra/launcher"), "joblib", "basic"])
def test_the_launchers_are_as_they_must_be(launcher):
    hydra = settings_of(f"hydra/launcher={launcher}")
    check_start(OmegaConf.create({"hydra": {"launcher": hydra.launcher}}))


@pytest.mark.parametrize("sweeper", choices("hydra/sweeper"))
def test_the_sweepers_are_as_they_must_be(sweeper):
    check_start(OmegaConf.create({"hydra": settings_of(f"hydra/sweeper={sweeper}")}))


def test_without_ray_its_launcher_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=re.escape(install("ray"))):
        require_reachable(None)


def answering(answer):
    """Port of a server that answers its one visitor with these bytes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        visitor, _ = server.accept()
        with visitor, server:
            visitor.recv(100)
            visitor.sendall(answer)

    Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


@pytest.mark.parametrize("answer", [b"", b"220 mail ready\r\n", b"HTTP/1.1 400 no\r\n\r\n"])
def test_a_server_that_is_no_cluster_is_distinguished(answer):
    with pytest.raises(ValueError, match=r"something else than a Ray cluster answers at .*127.0.0"):
        require_reachable(f"127.0.0.1:{answering(answer)}")


def test_a_web_server_is_distinguished():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(ValueError, match="something else than a Ray cluster"):
            require_reachable(f"127.0.0.1:{server.server_port}")


@pytest.mark.parametrize(("frame", "speaks"), [(4, True), (7, False)])  # SETTINGS, GOAWAY
def test_servers_of_ray_begin_with_their_settings(frame, speaks):
    port = answering(bytes([0, 0, 0, frame, 0, 0, 0, 0, 0]))
    assert speaks_http2("127.0.0.1", port) is speaks


# SLURM


def test_the_script_for_slurm_asks_for_what_the_configuration_says(monkeypatch, tmp_path):
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    hydra = settings_of(
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu",
        "hydra.launcher.tasks_per_node=4",
        "hydra.launcher.gpus_per_node=4",
        "hydra.launcher.nodes=2",
    )
    params = OmegaConf.to_container(hydra.launcher, resolve=False)
    general = {"name", "timeout_min", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task",
               "mem_gb", "stderr_to_stdout"}  # fmt: skip
    apart = {"_target_", "submitit_folder", "max_num_timeout"}
    executor = submitit.AutoExecutor(tmp_path / "logs", cluster="slurm", slurm_max_num_timeout=3)
    executor.update_parameters(
        **{k if k in general else f"slurm_{k}": v for k, v in params.items() if k not in apart}
    )
    script = executor._executor._make_submission_file_text("python -u job.py", "uid")
    asked = {line.split(" ", 1)[1] for line in script.splitlines() if line.startswith("#SBATCH")}
    assert asked >= {
        "--partition=gpu",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=8",
        "--mem=32GB",
        "--time=720",
        "--job-name=energy_at",
        "--signal=USR2@120",
    }
    assert "python -u job.py" in script


# W&B agents


def test_bounds_become_a_search_of_wandb_and_choices_values(type_train):
    code, out, err = type_train(
        "-m", *AT_WANDB, "sweep=optuna_der", "hydra/sweeper=wandb", "seed=0,1",
        "hydra.sweeper.file=search.yaml",
    )  # fmt: skip
    assert code == 0, err
    assert "wandb sweep search.yaml" in out
    written = OmegaConf.to_container(OmegaConf.load("search.yaml"))
    assert written["method"] == "bayes"
    assert written["metric"] == {"name": "val/acc/pgd1", "goal": "maximize"}
    assert written["parameters"] == {
        "reg.weight": {"distribution": "log_uniform_values", "min": 0.5, "max": 50.0},
        "reg.gamma": {"distribution": "uniform", "min": 0.0, "max": 1.0},
        "seed": {"values": [0, 1]},
    }
    assert [path.name for path in Path().iterdir()] == ["search.yaml"]


def test_the_command_of_an_agent_is_the_job_of_the_sweep(type_train):
    code, _, err = type_train("-m", *AT_WANDB, "hydra/sweeper=wandb", "reg=der", "reg.weight=0,2")
    assert code == 0, err
    written = OmegaConf.to_container(OmegaConf.load("wandb_sweep.yaml"), resolve=False)
    assert written["method"] == "grid"
    start = ["${env}", "python", "-m", "energy_at.train"]
    assert written["command"][:4] == start
    assert written["command"][-1] == "${args_no_hyphens}"
    overrides = [*written["command"][4:-1], "reg.weight=2"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra_only = [o for o in overrides if not o.startswith("hydra.")]
        assert compose("train", hydra_only).reg.weight == 2
    code, _, err = type_train("-m", *AT_WANDB, "hydra/sweeper=wandb", "reg=none,der")
    assert (code, err.count("\n")) == (1, 1)
    assert "wandb_sweep.yaml is there and holds another sweep" in err


# Optuna


class Parabola:
    """Jobs that need no training: best at 2, lost beyond 9."""

    def launch(self, jobs, initial_job_idx):
        typed_for = [dict(o.split("=") for o in job) for job in jobs]
        weights = [float(job["reg.weight"]) for job in typed_for]
        values = [None if weight > 9 else 1 - (weight - 2) ** 2 / 100 for weight in weights]
        return [JobReturn(_return_value=v, status=JobStatus.COMPLETED) for v in values]


def test_a_search_finds_what_is_best_and_failed_trials_do_not_end_it(monkeypatch, capsys):
    monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda **_: Parabola())
    search = ("-m", "sweep=optuna_der", "hydra.sweep.dir=search", "hydra.sweeper.n_trials=25",
              "hydra.sweeper.params={reg.weight: 'interval(0, 10)'}", "seed=0,1")  # fmt: skip
    code, out, err = typed(monkeypatch, capsys, train.main, *search)
    assert code == 0, err
    best = OmegaConf.load("search/best.yaml")
    assert best.params["reg.weight"] == pytest.approx(2, abs=1)
    assert best.value == pytest.approx(1, abs=0.01)
    assert "on held-out images: reg.weight=" in out


class Halved:
    """Jobs of which every other one collapses."""

    def launch(self, jobs, initial_job_idx):
        values = [0.18 * (place % 2) for place, _ in enumerate(jobs)]
        return [JobReturn(_return_value=v, status=JobStatus.COMPLETED) for v in values]


def test_a_best_trial_with_a_collapsed_run_says_so_and_keeps_to_its_seeds(monkeypatch, capsys):
    monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda **_: Halved())
    search = ("-m", "sweep=optuna_der", "hydra.sweep.dir=search", "hydra.sweeper.n_trials=1")
    code, out, err = typed(monkeypatch, capsys, train.main, *search, "seed=0,1")
    assert code == 0, err
    assert out.startswith("highest mean of 1 trial on held-out images: reg.weight=")
    said = "(9.0 %), though 1 of its 2 runs collapsed or is not robust, and counts as 0"
    assert out.splitlines()[0].endswith(said)
    before = everything()
    code, out, err = typed(monkeypatch, capsys, train.main, *search, "seed=0,1,2")
    assert (code, out) == (1, "")
    assert err == (
        "error: hydra.sweep.dir=search holds a search with seed=0,1, not seed=0,1,2: type those, "
        "or choose another hydra.sweep.dir\n"
    )
    assert everything() == before


def test_a_search_that_has_kept_no_seeds_continues_with_any():
    study = optuna.create_study()
    study.ask()
    require_seeds(study, ["0", "1"], Path("search"))
    assert study.user_attrs == {}


@pytest.mark.slow
def test_a_search_resumes_where_it_was_killed(type_train):
    search = ("-m", *DIGITS, "sweep=optuna_der", "seed=0,1", "hydra.sweep.dir=search")
    code, out, err = type_train(*search, "hydra.sweeper.n_trials=1")
    assert code == 0, err
    assert "the one trial is no result: there is no best" in out  # after one epoch
    assert not Path("search/best.yaml").exists()
    before = {run.path.name: run.results_file.read_bytes() for run in runs_below("search")}
    assert list(before) == ["0", "1"]
    code, out, err = type_train(*search, "hydra.sweeper.n_trials=2")
    assert code == 0, err
    runs = runs_below("search")
    assert [run.path.name for run in runs] == ["0", "1", "2", "3"]
    assert all(run.results_file.read_bytes() == before[run.path.name] for run in runs[:2])
    backend = optuna.storages.journal.JournalFileBackend("search/optuna.log")
    study = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    for trial in study.trials:
        own = [FinishedRun(run).score() for run in runs[2 * trial.number : 2 * trial.number + 2]]
        assert trial.value == pytest.approx(sum(own) / 2)
        config = json.loads(runs[2 * trial.number].environment_file.read_text())["overrides"]
        assert f"reg.weight={trial.params['reg.weight']}" in config
    assert len({trial.params["reg.weight"] for trial in study.trials}) == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=range(0,0)", "names no value: there is no job to run"),
        ("seed=range(0,3,0)", "names no value: there is no job to run"),
        ("reg.weight=interval(1,0)", "must have two finite bounds, the lower one first"),
        ("reg.weight=interval(1,1)", "must have two finite bounds, the lower one first"),
        ("reg.weight=interval(0,inf)", "must have two finite bounds, the lower one first"),
        ("reg.weight=tag(log, interval(-1,1))", "must have bounds > 0, as it is searched by ratio"),
        ("reg.weight=tag(log, interval(0,1))", "must have bounds > 0, as it is searched by ratio"),
    ],
)
def test_what_is_swept_has_values(override, said):
    loader = ConfigLoaderImpl(ConfigSearchPathImpl())
    with pytest.raises(ValueError, match=said) as met:
        parse_sweep(HydraContext(loader, Callbacks()), None, [override])
    assert str(met.value).startswith(override)
    assert explain(met.value) == str(met.value)
