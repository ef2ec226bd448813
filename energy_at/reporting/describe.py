"""Labels of configurations: names of methods, what runs share, and where they differ."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from energy_at.core.progress import printable
from energy_at.reporting.tables import Table, grouped

NOT_COMPARED = (  # keys in which repetitions of a run may differ: the seed, and no result
    "seed",
    "resume",
    "init",  # its digest is compared
    "logger",
    "hydra",
    "callbacks.progress",
    "dataset.root",
    "dataset.file",
    "dataset.cache",
    "dataset.storage",
    "dataset.download",
    "trainer.enable_progress_bar",
)
MISSING = "-"
ROBUST = "robust"  # status of runs whose method has others that are no result
DATASETS = {
    "digits": "handwritten digits (8x8)",
    "mnist5k": "MNIST (5,000 images)",
    "mnist_texture": "textured MNIST (5,000 images)",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "fashion_mnist": "Fashion-MNIST",
    "tiny_imagenet": "Tiny ImageNet",
    "synthetic": "synthetic images",
}
NETWORKS = {"preactresnet18": "PreActResNet18", "resnet18": "ResNet-18", "small": "small CNN"}
MAX_SETTINGS = 3  # of a label
NORM_LABELS = {"linf": "L-inf", "l2": "L2"}


@dataclass(frozen=True)
class MethodLabel:
    """Name of the method of one or several runs: ``FGSM-AT + DER, reg.weight=1``.

    Attributes:
        base: Base method, such as ``FGSM-AT``, ``TRADES`` or ``MART (PGD)``.
        regularizers: Their names; none if all their weights are 0.
        awp: Whether the weights were perturbed (AWP).
        settings: Keys, with values, in which it differs from the other methods of a comparison.
        run: Seed, and folder if needed, of a single run.
        status: ``collapsed`` or ``not robust``, for runs whose accuracies are no result, and
            ``ROBUST`` for the others of such a method.
    """

    base: str
    regularizers: tuple[str, ...] = ()
    awp: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    run: str = ""
    status: str = ""

    @staticmethod
    def of(config: DictConfig, *, without_zeros: bool = True) -> "MethodLabel":
        """From a resolved configuration; ``without_zeros`` leaves out regularizers of weight 0."""
        attack, loss = (printable(str(name)) for name in (config.attack.name, config.loss.name))
        own = attack in ("TRADES", loss)  # the attack that belongs to the loss
        base = f"{attack}-AT" if loss == "AT" else loss if own else f"{loss} ({attack})"
        base = "standard training" if attack == "none" else base
        names = dict.fromkeys(
            printable(str(_select(config, f"reg.{key}.name") or config.reg.name))
            for key, term in config.reg.terms.items()
            if term.get("weight", 1.0) != 0 or not without_zeros
        )
        return MethodLabel(base, tuple(names), bool(_select(config, "training.awp.gamma")))

    @property
    def added(self) -> tuple[str, ...]:
        return (*self.regularizers, "AWP") if self.awp else self.regularizers

    def number(self, key: str) -> float | None:
        return as_number(dict(self.settings).get(key))

    def without(self, *keys: str) -> "MethodLabel":
        return replace(self, settings=tuple(pair for pair in self.settings if pair[0] not in keys))

    def __str__(self) -> str:
        settings = [f"{key}={value}" for key, value in self.settings]
        parts = [" + ".join([self.base, *self.added]), *settings, *([self.run] if self.run else [])]
        return ", ".join(parts) + (f" ({self.status})" if self.status else "")


def method_labels(
    configs: Sequence[DictConfig], typed: Collection[str] = (), *, without_zeros: bool = True
) -> list[MethodLabel]:
    """A label for each configuration, with the settings that distinguish equal methods.

    Named are the keys that were typed and differ, and of the others as few as are needed; of the
    typed ones too if more than ``MAX_SETTINGS`` differ. Keys of ``attack``, ``loss``, ``reg`` and
    AWP are compared among runs with the same choice of these.

    Args:
        configs: Resolved configurations.
        typed: Keys that the user has set, in any of them.
        without_zeros: As for ``MethodLabel.of``.
    """
    methods = [MethodLabel.of(c, without_zeros=without_zeros) for c in configs]
    settings = [_settings(config) for config in configs]
    columns = columns_that_differ(settings, lambda key, i: _scope(key, methods[i], configs[i]))
    first = [key for key in typed if key in columns]
    others = sorted((key for key in columns if key not in first), key=lambda key: key.count("."))
    for named in (first, []):
        labels = methods
        for key in [*first, *others]:
            finer = [
                label if cell is None else replace(label, settings=(*label.settings, (key, cell)))
                for label, cell in zip(labels, columns[key], strict=True)
            ]
            if key in named or len(set(finer)) > len(set(labels)):
                labels = finer
        if all(len(label.settings) <= MAX_SETTINGS for label in labels):
            break
    return labels


class Protocol(NamedTuple):
    """How samples are drawn and scored: a protocol's name, and what differs from its values."""

    name: str
    changed: Sequence[str] = ()  # as typed: n=1000

    def __str__(self) -> str:
        return self.name + (f", with {', '.join(self.changed)}" if self.changed else "")


def columns_that_differ(
    rows: Sequence[Mapping[str, str]], scope: Callable[[str, int], Any]
) -> dict[str, list[str | None]]:
    """Cells by key; ``None`` where all rows of the same scope have the same.

    Args:
        rows: Settings by key.
        scope: Of a key and the number of a row: what this setting belongs to.
    """
    columns = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        cells = [(scope(key, i), row.get(key)) for i, row in enumerate(rows)]
        several = Counter(place for place, _ in set(cells))
        if max(several.values()) > 1:
            columns[key] = [cell if several[place] > 1 else None for place, cell in cells]
    return columns


def as_number(value: Any) -> float | None:
    """A number, or a fraction such as ``8/255``, as a float; ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(Fraction(value) if isinstance(value, str) else value)
    except (ValueError, ZeroDivisionError):
        return None


def setting(configs: Sequence[DictConfig]) -> str:
    """``CIFAR-10, PreActResNet18 of width 16, L-inf, eps 8/255, 20 epochs``: what all runs share.

    What differs between the runs, and what their configuration does not say, is left out; several
    that share nothing have ``different settings``.
    """
    parts = [{part(config) for config in configs} for part in (_data, _network, _threat, _epochs)]
    shared = [found.pop() or "" for found in parts if len(found) == 1 and None not in found]
    return printable(", ".join(shared)) or ("different settings" if len(configs) > 1 else "")


def display_name(config: DictConfig) -> str:
    """Of a run in W&B: ``FGSM-AT + DER w=5 s=0``."""
    weight = _select(config, "reg.weight")
    has_weight = weight is not None and MethodLabel.of(config).regularizers
    return f"{MethodLabel.of(config)}{f' w={weight:g}' if has_weight else ''} s={config.seed}"


def tags(config: DictConfig) -> list[str]:
    """Method, attack, eps, data set and seed of a run, for W&B."""
    eps = _select(config, "threat.eps")
    return [
        str(MethodLabel.of(config)),
        str(config.attack.name),
        f"eps={eps}",
        str(config.dataset.name),
        f"seed={config.seed}",
    ]


def network_name(config: DictConfig) -> str:
    """``PreActResNet18 of width 16``."""
    return _network(config) or str(config.model._target_)


def threat_and_epochs(config: DictConfig) -> str:
    """``L-inf, eps 8/255, 20 epochs``, as far as the configuration says so."""
    return ", ".join(filter(None, (_threat(config), _epochs(config))))


def differences(columns: Mapping[str, DictConfig]) -> Table:
    """One row for each key whose resolved value differs, one column for each configuration.

    A key that repeats another is counted in that one's row; one that a key above sets, as
    ``reg.weight`` and ``reg.name`` set weight and class of ``reg.terms.der``, has no row.
    """
    cells = by_key([leaves(config) for config in columns.values()], MISSING)
    differing = [
        key
        for key, texts in cells.items()
        if len(set(texts)) > 1 and not any(other.startswith(f"{key}.") for other in cells)
    ]
    names = {key.replace("_target_", "name") for key in differing}
    keys = [key for key in differing if names.isdisjoint(_above(key))]
    rows = []
    for (_, texts), copies in grouped(keys, lambda k: (k.rpartition(".")[2], cells[k])).items():
        first, *others = sorted(copies, key=lambda key: key.count("."))
        repeated = f" (and {len(others)} that repeat it)" if others else ""
        rows.append((first.removesuffix("._target_") + repeated, *texts))
    return Table(("key", *columns), rows)


def _above(key: str) -> Iterator[str]:
    """``reg.weight`` and ``reg.terms.weight``, of ``reg.terms.der.weight``."""
    *nodes, last = key.replace("_target_", "name").replace("ramp_epochs", "ramp").split(".")
    return (".".join([*nodes[:depth], last]) for depth in range(1, len(nodes)))


def by_key(columns: Sequence[Mapping[str, str]], missing: str) -> dict[str, tuple[str, ...]]:
    """The cells of each key, one of each column."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return {key: tuple(column.get(key, missing) for column in columns) for key in keys}


def leaves(config: DictConfig) -> dict[str, str]:
    """Values by dotted key, as they are typed, without those of ``NOT_COMPARED``."""
    found: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if prefix in NOT_COMPARED:
            return
        if isinstance(value, dict) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), below)
        elif prefix:
            found[prefix] = value if isinstance(value, str) else json.dumps(value)

    walk("", OmegaConf.to_container(config))
    return found


def _settings(config: DictConfig) -> dict[str, str]:
    """The same, with the choice of a group under the name of the group: ``model``, ``dataset``."""
    found: dict[str, str] = {}
    for key, value in leaves(config).items():
        group, _, last = key.rpartition(".")
        if group and last in ("_target_", "name"):
            found[group] = value.rpartition(".")[2] if last == "_target_" else value
        else:
            found[key] = value
    return found


def _scope(key: str, method: MethodLabel, config: DictConfig) -> Any:
    """Choice of the group that a key belongs to, if the name of the method states that choice."""
    group = key.partition(".")[0]
    if group in ("attack", "loss"):
        return config[group].name
    if group == "reg":
        return method.regularizers
    return method.awp if key.startswith("training.awp.") else None


def _data(config: DictConfig) -> str | None:
    name, subset = _select(config, "dataset.name"), _select(config, "dataset.subset")
    if name is None:
        return None
    label = DATASETS.get(name, str(name))
    if isinstance(subset, int):
        return f"{label.partition(' (')[0]} ({subset:,} training images)"
    return label


def _network(config: DictConfig) -> str | None:
    name, width = _factory(config, "model"), _select(config, "model.width")
    if name == "wideresnet":
        name = f"WideResNet-{_select(config, 'model.depth')}-{_select(config, 'model.widen')}"
        width = None if width == 16 else width
    if name in ("timm", "torchvision"):
        name = _select(config, "model.name")
    if name == "custom":
        name = str(_select(config, "model.target")).rpartition(".")[2]
    of_width = "" if width is None else f" of width {width}"
    return None if name is None else NETWORKS.get(name, name) + of_width


def _threat(config: DictConfig) -> str | None:
    eps, ball = _select(config, "threat.eps"), _factory(config, "threat.ball")
    norm = NORM_LABELS.get(str(ball).lower(), ball)
    return None if eps is None or ball is None else f"{norm}, eps {eps}"


def _epochs(config: DictConfig) -> str | None:
    epochs = _select(config, "trainer.max_epochs")
    return None if epochs is None else f"{epochs} epoch{'' if epochs == 1 else 's'}"


def _factory(config: DictConfig, key: str) -> str | None:
    target = _select(config, f"{key}._target_")
    return None if target is None else str(target).rpartition(".")[2]


_select: Callable[[DictConfig, str], Any] = OmegaConf.select
