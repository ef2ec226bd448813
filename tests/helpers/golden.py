"""Golden results: small runs of every command, compared before and after a change of the code.

A refactoring must change no number. ``run`` types every command into a folder; ``compare`` reads
two such folders, of two versions of the code, made on the same machine with as many threads (one,
unless OMP_NUM_THREADS says otherwise)::

    python tests/helpers/golden.py run before
    python tests/helpers/golden.py run after      # with the other code installed, or in PYTHONPATH
    python tests/helpers/golden.py compare before after --renamed map.json

``map.json`` holds ``{"name in before": "name in after"}`` for columns, keys of JSON, and tensors.
Not compared, since it differs between two runs of the same code, or says where and by what it was
made: time, machine, versions, commit, paths, hashes, configurations; nor the pixels of figures.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import load_file

Values = dict[str, Any]  # what a file holds, by a name that says where: text, number or array

TRAINING = (
    "dataset=digits",
    "dataset.subset=400",
    "dataset.val_size=60",
    "dataset.batch_size=40",
    "model=preactresnet18",
    "model.width=4",
    "optimizer.lr=0.05",
    "schedule=triangular",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
    "callbacks.energy.every=4",
    "validation.attacks.pgd.steps=3",
    "evaluation.attacks.pgd.steps=3",
    "evaluation.subset=100",
    "logger=csv",
)
ALARMED = (  # in the second epoch: the attack grows stronger
    "attack=fgsm",
    "threat.eps=0.2",
    "training.eps_warmup=3",
    "callbacks=sentinel",
    "callbacks.progress=null",
    "callbacks.sentinel.rollbacks=2",
    "callbacks.sentinel.thresholds.aae_share=0.02",
    "callbacks.sentinel.thresholds.alignment=0.999",
    "callbacks.sentinel.thresholds.window=11",
    "callbacks.sentinel.thresholds.ratio=0.6",
)
PGD = ("attack=pgd", "attack.steps=3")
TRADES = ("attack=trades", "attack.steps=3")
JUDGED = "fgsm_der"  # the run that is evaluated, analysed, sampled from and exported
CPU = ("device=cpu", "progress=false")


@dataclass(frozen=True)
class Command:
    """What is typed, ``python -m energy_at.MODULE ARGUMENTS``, and the folder that it writes."""

    name: str
    module: str
    arguments: tuple[str, ...]
    folder: str
    killed: bool = False  # in its second epoch, and resumed

    @property
    def argv(self) -> list[str]:
        """The command of this interpreter."""
        return [sys.executable, "-m", f"energy_at.{self.module}", *self.arguments]


def training(name: str, *overrides: str, killed: bool = False) -> Command:
    """A training into the folder of its name."""
    typed = (*TRAINING, *overrides, f"hydra.run.dir={name}")
    return Command(name, "train", typed, name, killed)


COMMANDS = (
    training(JUDGED, "attack=fgsm", "reg=der", "trainer.max_epochs=8"),
    training("rs_fgsm_aaer", "attack=rs_fgsm", "reg=aaer"),
    training("pgd", *PGD, "loss=at", "reg=none", "threat=l2"),
    training("trades_der", *TRADES, "loss=trades", "reg=der"),
    training("mart", *PGD, "loss=mart"),
    training("weat_adv", *TRADES, "loss=weat_adv"),
    training("elle_a", "attack=n_fgsm", "reg=elle_a", "reg.sensitivity=0.1", "model=small",
             "optimizer.lr=0.2"),
    training("gradalign", "attack=fgsm", "reg=gradalign"),
    training("awp", *PGD, "training.awp.gamma=0.01", "training.awp.warmup=1"),
    training("ema", "callbacks=ema", "callbacks.progress=null", "callbacks.ema.decay=0.9"),
    training("rollback", *ALARMED),
    training("resumed", *PGD, "reg=der", "trainer.max_epochs=20", "dataset.subset=240",
             "callbacks.last.every_n_steps=4", killed=True),
    Command(
        "sweep",
        "train",
        ("-m", *TRAINING, "dataset.subset=240", "reg=der", "reg.weight=0,1", "seed=0,1",
         "hydra.sweep.dir=sweep"),
        "sweep",
    ),
    Command(
        "evaluate",
        "evaluate",
        (f"run={JUDGED}", "attacks=[fgsm,pgd,cw]", "eps=[0.05,0.1]", "steps=4", "restarts=2",
         "subset=40", *CPU, f"out={JUDGED}/evaluation/golden"),
        f"{JUDGED}/evaluation/golden",
    ),
    Command(
        "analyse",
        "analyse",
        (f"run={JUDGED}", "attacks=[fgsm,pgd,trades]", "steps=4", "subset=60", *CPU,
         f"out={JUDGED}/analysis/golden"),
        f"{JUDGED}/analysis/golden",
    ),
    Command(
        "sample",
        "sample",
        (f"run={JUDGED}", "start=local_pca", "start.k=10", "guidance=class_energy", "n=50",
         "shown=3", "sampler.steps=10", "quality=classifier", *CPU, "out=sample"),
        "sample",
    ),
    Command("report", "report", (f"runs=[{JUDGED},rollback]", "out=report"), "report"),
    Command(
        "export",
        "export",
        (f"run={JUDGED}", "which=best", "out=export/best.safetensors"),
        "export",
    ),
)  # fmt: skip


# Running


def run(out: Path) -> None:
    """Types every command that has not finished there before; its output becomes ``NAME.log``.

    Raises:
        RuntimeError: if one fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        log = _log(out, command)
        if log.is_file() and (out / command.folder).is_dir():
            print(f"{command.name}: finished before", flush=True)
            continue
        shutil.rmtree(out / command.folder, ignore_errors=True)  # of an attempt that was cut off
        part, began = log.with_suffix(".part"), time.monotonic()
        with part.open("w") as file:
            _typed(command, out, file)
        part.replace(log)
        print(f"{command.name}: {time.monotonic() - began:.1f} s", flush=True)


def _typed(command: Command, out: Path, file: IO[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}

    def started(argv: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            argv, cwd=out, env=environment, stdout=file, stderr=subprocess.STDOUT
        )

    process = started(command.argv)
    if command.killed:
        _kill(process, out / command.folder / "checkpoints")
        process = started([*command.argv[:3], f"resume={command.folder}"])
    if process.wait() != 0:
        raise RuntimeError(f"{command.name} failed: {Path(file.name).read_text()[-2000:]}")


def _kill(process: "subprocess.Popen[bytes]", checkpoints: Path) -> None:
    """Kills a training once it has saved a checkpoint after that of its first epoch."""
    best, last = checkpoints / "best.ckpt", checkpoints / "last.ckpt"
    while not (best.is_file() and last.is_file() and _age(last) > _age(best)):
        if process.poll() is not None:
            raise RuntimeError(f"{checkpoints.parent} ended before it was killed")
        time.sleep(0.005)
    process.kill()
    process.wait()
    if (checkpoints.parent / "results.json").is_file():
        raise RuntimeError(f"{checkpoints.parent} had finished before it was killed")


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


# Reading

TIMED = re.compile(r"(^|[\W_])(perf|seconds?|minutes?|hours?|time)([\W_]|$)")
UNTOLD = {"environment", "config"}  # in JSON
HASHED = re.compile(r"-[0-9a-f]{12}(?=[./])")  # in the name of a file
SKIPPED = {"environment.json"}  # command, versions, machine
ALL_VALUES = {"results.json"}  # of other JSON, numbers alone


def read_csv(path: Path) -> Values:
    """Cells as text, by row and column; rows that hold a time alone are left out.

    Columns count by name, whatever their order; empty cells are cells too.
    """
    with path.open(newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    kept = [(i, name) for i, name in enumerate(header) if not TIMED.search(name)]
    found: Values = {f"column/{name}": "" for _, name in kept}
    number = 0
    for line in lines:
        cells = {name: line[i] if i < len(line) else "" for i, name in kept}
        if any(text for name, text in cells.items() if name not in ("step", "epoch")):
            number += 1
            found |= {f"row {number}/{name}": text for name, text in cells.items()}
    return found


def read_json(path: Path) -> Values:
    """Numbers, and in ``results.json`` texts too, by the keys that lead to them."""
    return dict(_leaves(json.loads(path.read_text()), "", texts=path.name in ALL_VALUES))


def _leaves(value: Any, at: str, *, texts: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in UNTOLD and not TIMED.search(key):
                yield from _leaves(inner, f"{at}/{key}", texts=texts)
    elif isinstance(value, list):
        yield f"{at}/length", len(value)
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{at}/{number}", texts=texts)
    elif texts or not isinstance(value, str):
        yield at, repr(value)


def read_checkpoint(path: Path) -> Values:
    """Tensors of network, average and optimizer, and how far the training has come."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    parts = ("state_dict", "current_model_state", "optimizer_states", "epoch", "global_step")
    return dict(_tensors({part: content.get(part) for part in parts}, ""))


def _tensors(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _tensors(inner, f"{at}/{key}")
    else:
        yield at, value if isinstance(value, torch.Tensor) else repr(value)


def read_safetensors(path: Path) -> Values:
    """Its tensors."""
    return {f"/{name}": tensor for name, tensor in load_file(path).items()}


def read_npz(path: Path) -> Values:
    """Its arrays."""
    with np.load(path, allow_pickle=False) as arrays:
        return {f"/{name}": arrays[name] for name in arrays.files}


READERS: dict[str, Callable[[Path], Values]] = {
    ".csv": read_csv,
    ".json": read_json,
    ".ckpt": read_checkpoint,
    ".safetensors": read_safetensors,
    ".npz": read_npz,
}


# Comparing


def compare(a: Path, b: Path, renamed: Mapping[str, str]) -> bool:
    """Prints a line for each command; true if all results are the same."""
    every, known = True, [c for c in COMMANDS if any(_log(f, c).is_file() for f in (a, b))]
    if not known:
        raise RuntimeError(f"neither {a} nor {b} holds results of golden.py run")
    for command in known:
        said, same = _compared(a, b, command, renamed)
        print(f"{command.name}: {said}")
        every = every and same
    return every


def _log(folder: Path, command: Command) -> Path:
    """Output of a command, there once it has finished."""
    return folder / f"{command.name}.log"


def _compared(a: Path, b: Path, command: Command, renamed: Mapping[str, str]) -> tuple[str, bool]:
    missing = [folder for folder in (a, b) if not _log(folder, command).is_file()]
    if missing:
        return f"differs: not finished in {missing[0]}", False
    sizes: list[int] = []
    found = list(_differences(_files(a, command), _files(b, command), renamed, sizes))
    if not sizes and not found:
        return "differs: nothing is there to compare", False
    if not found:
        return f"same ({len(sizes)} files, {sum(sizes)} values)", True
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"differs: {found[0]}{more}", False


def _differences(
    theirs: Mapping[str, Path],
    ours: Mapping[str, Path],
    renamed: Mapping[str, str],
    sizes: list[int],
) -> Iterator[str]:
    """Differences between the files of a command; notes how many values each file holds."""
    for name in sorted(theirs.keys() | ours.keys()):
        reader = READERS.get(Path(name).suffix.partition(" ")[0])
        if name not in theirs or name not in ours:
            said = f"{name} {'is new' if name in ours else 'is missing'}"
            if reader is None:
                print(f"warning: {said}")
            else:
                yield said
        elif reader is not None:
            before = {_renamed(k, renamed): v for k, v in reader(theirs[name]).items()}
            after = reader(ours[name])
            sizes.append(len(after))
            yield from (f"{name}: {said}" for said in _unequal(before, after))


def _files(folder: Path, command: Command) -> dict[str, Path]:
    """Its files by their path, without those of commands that write below its folder.

    What a sampling keeps for the next one is named by hashes, which hold the version of the code:
    files that differ only in these are distinguished by what they hold.
    """
    top = folder / command.folder
    inner = [folder / c.folder for c in COMMANDS if c.folder != command.folder]
    inner = [path for path in inner if top in path.parents]
    found: dict[str, list[Path]] = {}
    for path in top.rglob("*"):
        inside = any(other in path.parents for other in inner)
        if path.is_file() and path.name not in SKIPPED and not inside:
            found.setdefault(HASHED.sub("", path.relative_to(top).as_posix()), []).append(path)
    return {
        name if number == 0 else f"{name} ({number + 1})": path
        for name, paths in found.items()
        for number, path in enumerate(sorted(paths, key=_content) if len(paths) > 1 else paths)
    }


def _content(path: Path) -> list[bytes]:
    """What a file holds, to sort by."""
    reader = READERS.get(path.suffix)
    values = reader(path).values() if reader else [path.read_bytes()]
    return sorted(_bytes(v) if isinstance(v, torch.Tensor) else repr(v).encode() for v in values)


def _renamed(place: str, renamed: Mapping[str, str]) -> str:
    """The place under the names of today: of a column as a whole, of a key, of a tensor."""
    row, _, name = place.partition("/")
    if row or name in renamed:
        return f"{row}/{renamed.get(name, name)}"
    return "/".join(renamed.get(part, part) for part in place.split("/"))


def _unequal(before: Values, after: Values) -> Iterator[str]:
    for place in dict.fromkeys((*before, *after)):
        if place not in before or place not in after:
            yield f"{place.lstrip('/')} {'is new' if place not in before else 'is missing'}"
        elif not _same(before[place], after[place]):
            yield f"{place.lstrip('/')}: {_said(before[place], after[place])}"


def _same(a: Any, b: Any) -> bool:
    """Bit for bit: a NaN equals itself, and 0 is not -0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    return bool(a == b)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _said(a: Any, b: Any) -> str:
    """What differs, in a few words."""
    if not hasattr(a, "shape") or not hasattr(b, "shape"):
        return f"{a!r} before, {b!r} after"
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype} {tuple(a.shape)} before, {b.dtype} {tuple(b.shape)} after"
    one, two = (np.asarray(x).ravel().tolist() for x in (a, b))
    pairs = [(x, y) for x, y in zip_longest(one, two) if repr(x) != repr(y)]
    first = f", the first {pairs[0][0]!r} before, {pairs[0][1]!r} after" if pairs else ""
    return f"{len(pairs)} of {len(one)} numbers differ{first}"


def main() -> int:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="type every command into a folder")
    runs.add_argument("out", type=Path)
    compares = commands.add_parser("compare", help="compare two such folders")
    compares.add_argument("before", type=Path)
    compares.add_argument("after", type=Path)
    compares.add_argument("--renamed", type=Path, help="JSON: old name to new name")
    typed = parser.parse_args()
    if typed.command == "run":
        run(typed.out)
        return 0
    renamed = json.loads(typed.renamed.read_text()) if typed.renamed else {}
    return 0 if compare(typed.before, typed.after, renamed) else 1


if __name__ == "__main__":
    sys.exit(main())
