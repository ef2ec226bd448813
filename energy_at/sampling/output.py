"""The files of a sampling: images, scores, tables, figures; and its scores at W&B."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from energy_at.data import as_floats
from energy_at.evaluation import TrainedModel
from energy_at.evaluation.trained_model import network_text, publish
from energy_at.models.modes import eval_mode
from energy_at.reporting.describe import Protocol
from energy_at.reporting.figures import results as figures
from energy_at.reporting.figures import save
from energy_at.reporting.panels import SCORES
from energy_at.reporting.tables import Table
from energy_at.reporting.tradeoff import score_cells
from energy_at.runs.environment import environment
from energy_at.sampling.interpolation import Interpolation
from energy_at.sampling.langevin import Stop
from energy_at.sampling.plan import TRAIN_TEST, SamplingPlan
from energy_at.sampling.prepare import Material
from energy_at.sampling.quality import Inception
from energy_at.sampling.samples import FILE, Samples
from energy_at.sampling.score import HELD_OUT, MOST, SAMPLES, SampleScores
from energy_at.sampling.trajectories import Trajectory

FILES = (FILE, "samples.json", "samples.csv", "samples.md", "samples.tex")
SIDE_BY_SIDE = 12
PER_CLASS = 100
SYMBOLS = {
    "joint": "E(x, y)",
    "marginal": "E(x)",
    "conditional": "E(x, y) - E(x)",
    "mixed": "(E(x, y) + E(x)) / 2",
    "sharpened": "2 E(x, y) - E(x)",
    "cross_entropy": "cross-entropy",
}


def describe(
    material: Material, samples: Samples, sets: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Network, settings and environment, scores of all sets, and statistics of the samples."""
    model, plan = material.model, material.plan
    dataset = model.config.dataset.name
    images = len(material.of_classes(plan.reference_images(model.data)))
    return {
        "network": model.identity,
        "dataset": dataset,
        "fitted_to": {"split": "train", "images": len(model.data.train)},
        "protocol": plan.protocol._asdict(),
        "settings": dict(plan.settings),
        "config": {
            name: OmegaConf.to_container(model.config[name], resolve=True)
            for name in ("dataset", "model")
        },
        "n": plan.n,
        "seed": plan.seed,
        "device": str(model.device),
        "environment": environment(),
        "sets": sets,
        "stopped": {stop.name.lower(): int((samples.stop == stop).sum()) for stop in Stop},
        "mean_steps": float(samples.steps.float().mean()),
        "moved": float(samples.moved.median()),
        "work": work(material, samples),
        "classes": list(material.classes),
        "training_energy": float(material.training_energies.mean()),
        "reference": {"dataset": dataset, "split": plan.reference, "images": images},
        "extractor": plan.extractor.name,
    }


def work(material: Material, samples: Samples) -> dict[str, Any]:
    """What the sampler has computed, of all attempts, without what fills up the last tile.

    Returns:
        ``evaluations`` of the network, each a forward pass and a gradient of the input: one for
        each step, and one that sees a sample at its target; ``forward_passes`` that cost the same,
        two for each; ``share_of_cap``, of what it would be if no sample stopped; ``flops``.
    """
    model, plan = material.model, material.plan
    evaluations = int(samples.steps.sum() + (samples.stop == Stop.REACHED).sum())
    x = as_floats(material.images.pixels[:1], model.config.training.channels_last)
    with FlopCounterMode(display=False) as forward, torch.no_grad(), eval_mode(model.net):
        model.net(x)
    return {
        "evaluations": evaluations,
        "forward_passes": 2 * evaluations,
        "share_of_cap": evaluations / max(1, plan.n * plan.sampler.steps),
        "flops": 2 * evaluations * forward.get_total_flops(),
    }


def write_files(
    folder: Path,
    report: Mapping[str, Any],
    material: Material,
    samples: Samples,
    scores: SampleScores,
    chains: Sequence[Trajectory] = (),
    between: Interpolation | None = None,
) -> str:
    """Writes all files to an empty folder; returns settings, scores and remarks as Markdown."""
    dataset = report["config"]["dataset"]
    classes = [str(name) for name in dataset.get("names") or range(dataset["classes"])]
    plan = material.plan
    text = markdown(report, plan, scores)
    energies = {kind: scores.energies[kind].numpy() for kind in ("joint", "marginal")}
    arrays: dict[str, Any] = {"key": np.array(report["key"]), **samples.arrays(), **energies}
    np.savez_compressed(folder / FILE, **arrays)
    files = [re.sub(r"[^\w.-]+", "_", name) for name in classes]
    (folder / "classes").mkdir()
    for label in material.classes:
        of_class = arrays["pixels"][arrays["label"] == label][:PER_CLASS]
        if len(of_class):
            picture = figures.class_grid(of_class)
            picture.save(folder / "classes" / f"{label:03d}-{files[label]}.png")
    if plan.format == "png":
        (folder / "images").mkdir()
        for i, label, pixels in zip(
            arrays["number"], arrays["label"], arrays["pixels"], strict=True
        ):
            picture = figures.picture(pixels)
            picture.save(folder / "images" / f"{i:06d}-{files[label]}.png")
    drawn = _figures(arrays, material, scores, classes, chains, between)
    for name, figure in drawn.items():
        save(figure, folder / name)
    (folder / FILES[1]).write_text(json.dumps(report, indent=2) + "\n")
    (folder / FILES[2]).write_text(_table(report["sets"], plan.protocol).csv())
    (folder / FILES[3]).write_text(text + "\n")
    latex = _score_table(report["sets"]).latex()
    (folder / FILES[4]).write_text(f"% protocol {plan.protocol}\n{latex}\n")
    return text


def publish_samples(
    cfg: DictConfig,
    model: TrainedModel,
    folder: Path,
    sets: Mapping[str, Mapping[str, Any]],
    protocol: Protocol,
) -> None:
    """Sends figures, scores and the table of all sets, if ``logger=wandb``."""
    if not cfg.logger:
        return
    import wandb

    table = _table(sets, protocol)
    values: dict[str, Any] = {
        f"samples/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))
    }
    values |= {f"sample/{k}": value for k, value in sets[SAMPLES].items() if value is not None}
    values["samples/sets"] = wandb.Table(list(table.columns), [list(row) for row in table.rows])
    publish(cfg, model, folder, "sample", values)


def _table(sets: Mapping[str, Mapping[str, Any]], protocol: Protocol) -> Table:
    """All scores of every set; ``None`` where one is missing."""
    names = list(dict.fromkeys(name for row in sets.values() for name in row))
    rows = [
        (label, *(row.get(name) for name in names), str(protocol)) for label, row in sets.items()
    ]
    return Table(("set", *names, "protocol"), rows)


def _figures(
    samples: Mapping[str, Any],
    material: Material,
    scores: SampleScores,
    classes: list[str],
    chains: Sequence[Trajectory],
    between: Interpolation | None,
) -> dict[str, Figure]:
    plan, near = material.plan, scores.near[SAMPLES]
    title = f"{material.model.config.dataset.name}: {plan.title}"
    generator = torch.Generator().manual_seed(plan.seed)
    few = torch.randperm(min(plan.n, MOST), generator=generator)[:SIDE_BY_SIDE]
    training = material.images.pixels[near.places[few].to(material.images.pixels.device)]
    pairs = zip(
        samples["pixels"][few.numpy()],
        training.permute(0, 2, 3, 1).cpu().numpy(),
        near.distances[few].tolist(),
        strict=True,
    )
    ours, theirs = scores.energies[plan.sampler.energy], material.training_energies
    place = {label: i for i, label in enumerate(material.classes)}
    labels = np.array([place[label] for label in samples["label"].tolist()])
    names = [classes[label] for label in material.classes]
    rows = [
        (classes[c.label], c.steps, c.pixels.permute(0, 2, 3, 1).numpy(), c.energies.tolist())
        for c in chains
    ]
    drawn = {}
    if between is not None:
        first, second = (classes[label] for label in between.classes)
        frames = between.pixels.permute(0, 2, 3, 1).numpy()
        drawn["interpolation"] = figures.interpolation_figure(
            (first, second), between.shares, frames, between.energies.tolist(), title
        )
    return drawn | {
        "grid": figures.grid(samples["pixels"], labels, names, plan.shown, title),
        "start": figures.grid(samples["start"], labels, names, plan.shown, f"{title}; starts"),
        **({"chains": figures.trajectories_figure(rows, title)} if rows else {}),
        "nearest": figures.nearest_figure(list(pairs), title),
        "distributions": figures.distributions_figure(
            {name: scores.near[name].distances.double().numpy() for name in (SAMPLES, HELD_OUT)},
            {"samples": ours.double().numpy(), "training images": theirs.double().numpy()},
            SYMBOLS[plan.sampler.energy],
            title,
        ),
    }


def _score_table(sets: Mapping[str, Mapping[str, Any]]) -> Table:
    """Scores of every set, as far as they were measured, ready to print."""
    names = [name for name in SCORES if any(row.get(name) is not None for row in sets.values())]
    return Table(
        ("set", "images", *(SCORES[name].column for name in names)),
        [(label, str(row["images"]), *score_cells([row], names)) for label, row in sets.items()],
    )


def markdown(report: Mapping[str, Any], plan: SamplingPlan, scores: SampleScores) -> str:
    """Settings, scores, and how to read them."""
    sets, stopped, seconds = report["sets"], report["stopped"], report["seconds"]
    ours, real, energies = sets[SAMPLES], sets[HELD_OUT], scores.energies[plan.sampler.energy]
    earlier = report["of_earlier_attempts"]
    of = _classes_text(report)
    lines = [
        f"{plan.n} samples of {report['dataset']}{of} from {network_text(report['network'])}, "
        f"seed {plan.seed}: {plan.title}.",
        f"Protocol {plan.protocol}.",
        "",
        _score_table(sets).markdown(),
        "",
        _extractor_line(report),
        f"- stopped: {stopped['reached']} at their target energy, {stopped['cap']} at the cap; "
        f"{report['mean_steps']:.1f} steps on average; moved by {report['moved']:.3f} "
        "(L2 in pixels, median)",
        _work_line(report),
        f"- {SYMBOLS[plan.sampler.energy]} of the samples: mean {energies.mean():+.2f}, 5 to 95 %: "
        f"{energies.quantile(0.05):+.2f} to {energies.quantile(0.95):+.2f} nats; "
        f"training images: mean {report['training_energy']:+.2f}",
        f"- nearest training image, L2 in pixels: median {ours['nearest']:.3f} of the "
        f"samples, {real['nearest']:.3f} of held-out images; "
        f"{100 * ours['copied']:.1f} % of the samples are nearer than 99 % of held-out images",
        f"- seconds: {seconds['prepare']:g} to prepare, {seconds['sample']:g} to sample, "
        f"{seconds['measure']:g} to measure"
        + (f"; without the time of {earlier} samples from an earlier attempt" * bool(earlier)),
    ]
    return "\n".join(lines)


def _work_line(report: Mapping[str, Any]) -> str:
    done, seconds = report["work"], report["seconds"]["sample"]
    line = (
        f"- work: {done['evaluations']} evaluations of the network with an input gradient, "
        f"{100 * done['share_of_cap']:.1f} % of those without a stop; "
        f"{done['flops'] / 1e12:.3g} TFLOP"
    )
    if seconds and done["evaluations"] and not report["of_earlier_attempts"]:
        speed = done["evaluations"] / seconds
        line += f", {speed:.3g} image steps/s, {done['flops'] / seconds / 1e12:.3g} TFLOP/s"
    return line


def _classes_text(report: Mapping[str, Any]) -> str:
    """``, classes cat and dog``; empty if the samples are of all classes."""
    dataset, classes = report["config"]["dataset"], report["classes"]
    if len(classes) == dataset["classes"]:
        return ""
    names = dataset.get("names") or range(dataset["classes"])
    listed = ", ".join(str(names[label]) for label in classes)
    return f", {'class' if len(classes) == 1 else 'classes'} {listed}"


def _extractor_line(report: Mapping[str, Any]) -> str:
    extractor, reference = report["extractor"], report["reference"]
    if extractor == "none":
        return "- quality=none: no scores from features"
    images = f"{reference['images']} {reference['split']} images of {reference['dataset']}"
    images += _classes_text(report)
    parts = [f"- scores by {extractor} against {images}"]
    if reference["split"] in ("test", TRAIN_TEST):
        parts.append("the held-out images are among them")
    if (shares := report["settings"]["quality"]["most_confident"]) is not None:
        of_is, of_fid = (f"{100 * share:g} %" for share in shares)
        parts.append(
            f"IS of the {of_is} of the samples of each predicted class of which the network is "
            f"most confident, FID, KID, precision and recall of {of_fid}"
        )
    if extractor != Inception.name:
        parts.append("not comparable with published IS and FID, which use Inception")
    if not report["sets"][SAMPLES]["full_rank"]:
        parts.append(
            "fewer images than features: FID is far above its limit and compares only sets of "
            "this size"
        )
    return "; ".join(parts)
