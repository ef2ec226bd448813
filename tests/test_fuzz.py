"""Whatever is typed for any key of any command is taken, or refused in one line with the key."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.fuzz import VALUES, Fuzz, is_clear
from tests.helpers.running import CONF, TINY, train_in

pytestmark = pytest.mark.slow

SHORT = (*TINY, "trainer.enable_progress_bar=false", "dataset.subset=200", "trainer.max_epochs=1",
         "trainer.accelerator=cpu", "reg=der")  # fmt: skip
QUICK = ("run=run", "batch_size=8", "progress=false", "out=out")
EVALUATE = (*QUICK, "attacks=[fgsm]", "steps=1", "subset=8")
SAMPLE = (*QUICK, "n=8", "sampler.steps=2", "judge=none", "quality=none")
CHECKPOINT = ("checkpoint=run/checkpoints/last.ckpt", "dataset=synthetic", "model=small",
              "model.width=4", *EVALUATE[1:])  # fmt: skip
BENCHMARK = ("scenarios=[fgsm]", "rows=[reference]", "precisions=[fp32]", "dataset=synthetic",
             "model=small", "model.width=2", "dataset.batch_size=4", "warmup=0", "repeats=1",
             "progress=false", "out=out")  # fmt: skip
GROUPS = [
    (),
    *((f"attack={name}",) for name in ("pgd", "n_fgsm", "rs_fgsm", "sora")),
    *((f"attack={name}", f"loss={name}") for name in ("trades", "liet", "nuat", "fgsm_pgi")),
    *((f"loss={name}",) for name in ("mart", "weat_nat", "weat_adv")),
    *((f"reg={name}",) for name in ("gradalign", "elle_a", "aaer", "der_gradalign")),
    *((f"callbacks={name}",) for name in ("ema", "sentinel")),
    *((f"schedule={name}",) for name in ("onecycle", "piecewise", "constant")),
    *((f"model={name}",) for name in ("preactresnet18", "resnet18", "wideresnet28_10")),
    ("threat=l2",),
    ("logger=csv_wandb",),
]
COMMANDS = {
    "train": [(*SHORT, *groups) for groups in GROUPS],
    "evaluate": [EVALUATE],
    "evaluate checkpoint=": [CHECKPOINT],
    "analyse": [EVALUATE, (*EVALUATE, "logger=wandb", "logger.wandb.mode=disabled")],
    "sample": [
        (*SAMPLE, *groups)
        for groups in [
            ("start.k=5",), ("start=noise",), ("start=class_pca",),
            ("start=class_gaussian",),
            ("start.k=5", "guidance=none"), ("start.k=5", "guidance=class_stop"),
            ("start.k=5", "quality=classifier", "judge=run", "n=50"),
        ]
    ],
    "report": [("runs=run", "out=out")],
    "export": [("run=run", "out=out/net.safetensors")],
    "watch": [("run=run", "once=true")],
    "dashboard": [("dry_run=true", "out=out/dashboard.json")],
    "benchmark": [BENCHMARK],
    "doctor": [("dataset=synthetic",)],
}  # fmt: skip
ENDLESS = {"once", "browser"}  # keys of watch that have it run on
OF_TRAIN = ("dataset", "model", "threat", "training", "optimizer")  # read as train reads them
OF_NETWORK = (
    "run",
    "checkpoint",
    "source",
    "normalize",
    "which",
    "seed",
    "batch_size",
    "device",
    "progress",
    "trust",
)  # typed for evaluate alone
LEFT_OUT = {"train": (), "analyse": OF_TRAIN + OF_NETWORK, "sample": OF_TRAIN + OF_NETWORK}


def is_typed(name, key):
    group = key.split(".")[0]
    if name == "evaluate checkpoint=":
        return group in OF_NETWORK
    return key not in ENDLESS and group not in LEFT_OUT.get(name, OF_TRAIN)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("trained") / "run", *SHORT)


@pytest.mark.parametrize("name", COMMANDS)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(name, trained, here):
    """In a process where no hook checks types: it would raise before the package does."""
    shutil.copytree(trained, "run")
    command = [sys.executable, "-m", "tests.test_fuzz", name]
    paths = os.pathsep.join([str(CONF.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == 0, "the lines above are not clear, or come late"


def unclear_cases(name):
    """Types every value for every key of a command; returns how many lines are not clear."""
    torch.set_num_threads(1)
    known, cases, unclear, start = set(), 0, 0, time.process_time()
    for typed in COMMANDS[name]:
        fuzz = Fuzz(name.split()[0], typed, "out")
        for key in fuzz.keys():  # noqa: SIM118
            if fuzz.target(key) in known or not is_typed(name, key):
                continue
            known.add(fuzz.target(key))
            for value in VALUES:
                shutil.rmtree("out", ignore_errors=True)
                line = fuzz.type_in(f"{key}={value}")
                cases += 1
                said = "is taken"
                if line is not None:
                    late = "after something was written: " * Path("out").exists()
                    said = f"is refused {late}{line}"
                    if late or not is_clear(line, key, value):
                        unclear, said = unclear + 1, f"UNCLEAR {said}"
                print(f"{name} {key}={value} {said}", flush=True)
    print(f"{name}: {cases} cases in {time.process_time() - start:.0f} s of CPU time")
    return unclear


if __name__ == "__main__":
    sys.exit(min(unclear_cases(sys.argv[1]), 1))
