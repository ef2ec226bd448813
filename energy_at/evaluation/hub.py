"""Networks on the Hugging Face Hub: a folder to upload, and files that are downloaded."""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save

from energy_at import __version__
from energy_at.config.build import reopen
from energy_at.config.keys import choices_of, compose_command
from energy_at.core.extras import require_package
from energy_at.core.files import write_atomic
from energy_at.core.progress import one_line_retries, printable
from energy_at.core.rules import ArgumentError
from energy_at.models.weights import exported, with_bf16_kernels
from energy_at.reporting.describe import setting
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.tables import Table
from energy_at.runs.checkpoints import state_digest
from energy_at.runs.folder import RunFolder

SCHEME = "hf://"  # hf://USER/REPO, or hf://USER/REPO@REVISION
WEIGHTS = "model.safetensors"
OWN_DATA = {  # by the reader: what is typed instead of a name
    "folder": "dataset=folder dataset.root=FOLDER",
    "npz": "dataset=npz dataset.file=FILE",
    "huggingface": "dataset=huggingface dataset.name=USER/NAME",
}


def export(
    folder: RunFolder, which: str, out: Path, *, hub: bool = False, dtype: str = "fp32"
) -> Path:
    """Writes the network of a run, its normalization and what it is; replaces ``out`` as a whole.

    For the ``hub`` a new folder ``out``, with its configuration and a model card. ``dtype`` is fp32
    or bf16, of the kernels alone.

    ``evaluate checkpoint=FILE model=...`` and ``load_weights`` of ``models.weights`` take the file.
    """
    cfg = folder.config()
    module, _ = reopen(folder, which)
    about = {
        "energy_at": __version__,
        "dataset": str(cfg.dataset.name),
        "model": json.dumps(OmegaConf.to_container(cfg.model)),
        "checkpoint": which,
    }
    weights = exported(module.net)
    if dtype == "bf16":
        weights = with_bf16_kernels(weights)
    content = save(weights, metadata={**about, "sha256": state_digest(weights)})
    if hub:
        return write_hub_folder(folder, which, content, out, dtype)
    write_atomic(out, content)  # save_file would leave it readable to its owner alone
    return out


def write_hub_folder(
    folder: RunFolder, which: str, weights: bytes, out: Path, dtype: str = "fp32"
) -> Path:
    """Writes weights, configuration and model card, as a whole; nothing is uploaded.

    Raises:
        ArgumentError: if ``out`` exists.
    """
    if out.exists():
        raise ArgumentError("out", str(out), "a folder that does not exist yet")
    cfg = folder.config()
    content = {
        "energy_at": __version__,
        "checkpoint": which,
        "dataset": {key: cfg.dataset.get(key) for key in ("name", "channels", "size", "classes")},
        "names": OmegaConf.to_container(cfg.dataset).get("names"),  # type: ignore[union-attr]
        "model": OmegaConf.to_container(cfg.model, resolve=True),
        "threat": OmegaConf.to_container(cfg.threat, resolve=True),
    }
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        (part / WEIGHTS).write_bytes(weights)
        (part / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        card = model_card(folder, which, dtype)
        (part / "README.md").write_text(card, encoding="utf-8")
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def model_card(folder: RunFolder, which: str, dtype: str = "fp32") -> str:
    """What the network is, how to evaluate it, and every accuracy that was measured of it."""
    cfg, run = folder.config(), FinishedRun(folder)
    mark = run.mark(which) if folder.results_file.is_file() else ""
    lines = [
        *("---", "library_name: energy_at", "tags: [adversarial-robustness, image-classification]"),
        *("---", "", f"# {printable(setting([cfg]))}", ""),
        f"The {which} checkpoint of a training with energy_at {__version__}; images are pixels in "
        "[0, 1], the network normalizes them itself.",
        *([f"**{mark}**: its accuracies are no result of the method.", ""] if mark else [""]),
        *("```", f"python -m energy_at.evaluate checkpoint=hf://USER/REPO {_options(cfg)}", "```"),
        *("", "## Accuracy", ""),
        *(["Measured before the kernels were rounded to bf16.", ""] if dtype == "bf16" else []),
    ]
    if folder.results_file.is_file():
        rows = [
            (images, name, f"{100 * share:.1f}")
            for checkpoint, images, shares in run.evaluated
            if checkpoint == which
            for name, share in shares.items()
            if name != "n"
        ]
        lines += [Table(("images", "attack", "accuracy %"), rows).markdown(), ""]
    for file in sorted(folder.path.glob("evaluation/*/evaluation.json")):
        if json.loads(file.read_text(encoding="utf-8"))["network"]["which"] == which:
            lines += [file.with_name("evaluation.md").read_text(encoding="utf-8").strip(), ""]
    return "\n".join(lines)


def _options(cfg: DictConfig) -> str:
    """Data set and network as they are typed: the groups, and what differs from their defaults."""
    name = str(cfg.model.get("_target_", "")).rpartition(".")[2]
    name = {"wideresnet": "wideresnet28_10"}.get(name, name)
    words = [f"dataset={cfg.dataset.name}", f"model={name}"]
    reader = cfg.dataset.get("reader", {}).get("_target_", "").rpartition(".")[2]
    if reader in OWN_DATA:
        words[0] = f"{OWN_DATA[reader]} dataset.size={cfg.dataset.size}"
    elif cfg.dataset.name in choices_of("dataset"):
        usual = compose_command("evaluate", words[:1]).dataset
        words += [
            f"dataset.{key}={cfg.dataset[key]}"
            for key in ("channels", "size", "classes")
            if cfg.dataset[key] != usual[key]
        ]
    if not cfg.training.channels_last:
        words.append("training.channels_last=false")
    if name not in choices_of("model"):
        return " ".join(words)
    defaults = _options_of(compose_command("evaluate", words[1:2]))
    for key, value in _options_of(cfg).items():
        if value != defaults.get(key):
            text = json.dumps(value, separators=(",", ":")).strip('"')
            words.append(shlex.quote(f"{'' if key in defaults else '+'}model.{key}={text}"))
    if name == "custom":
        words.append(f"'trust=[{cfg.model.target.partition('.')[0]}]'")
    return " ".join(words)


def _options_of(cfg: DictConfig) -> dict[str, Any]:
    """Options of a network that do not follow from the data set."""
    options = dict(OmegaConf.to_container(cfg.model))  # type: ignore[arg-type]
    net = options.pop("net", None) or {}
    options |= {f"net.{key}": value for key, value in net.items()}
    follow = ("channels", "classes", "size", "mean", "std")
    return {k: v for k, v in options.items() if k not in follow and not k.endswith("_")}


def downloaded(address: str) -> Path:
    """The file of weights in a repository of the Hub; one in its cache is not downloaded again.

    ``HF_HUB_OFFLINE=1`` takes the cache alone.

    Raises:
        ImportError: if the package ``huggingface_hub`` is missing.
        FileNotFoundError: if the file is missing, or the connection.
    """
    require_package("huggingface_hub", "huggingface", f"checkpoint={address}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = address.removeprefix(SCHEME).partition("@")
    try:
        with one_line_retries():
            return Path(hf_hub_download(name, WEIGHTS, revision=revision or None))
    except LocalEntryNotFoundError:
        reason = "no answer from the Hub, and not in its cache"
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
    raise FileNotFoundError(f"checkpoint={address} has no {WEIGHTS} within reach: {reason}")
