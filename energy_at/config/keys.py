"""Keys and choices that exist: what is unknown is refused with the nearest names."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from energy_at.config.schema import RULES
from energy_at.config.versions import BASE
from energy_at.core.files import CONF
from energy_at.core.rules import named_here, nearest

_ADDITIVE = ("callbacks", "logger")  # groups whose choices add up; those of others exclude another
# Values of a data set that keys of other groups, which people mean, take as defaults.
_PER_DATASET = tuple(f"dataset.{name}" for name in ("cpu", "epochs", "eps", "lr", "peak"))
FOLDERS = ("run", "runs", "resume")  # keys of the folder that a command works on
OPEN = {"evaluate": "attack."}  # groups whose keys are names that the user chooses, without a +
_MISSING = object()


def require_single(overrides: Sequence[str]) -> None:
    """Raises ``ValueError`` for several choices of a group: Hydra would mix their keys."""
    for override in overrides:
        group, _, chosen = override.lstrip("+").partition("=")
        if choices_of(group) and group not in _ADDITIVE and chosen.startswith("["):
            first, *others = chosen.strip("[]").split(",")
            sweep = f", or each in turn: -m {group}={','.join([first, *others])}" if others else ""
            combined = ", or a combination that has a file: reg=der_gradalign"
            raise ValueError(
                f"{override}: {group} takes one choice, such as {group}={first}"
                + (combined if group == "reg" else "")
                + sweep
            )


def require_read(cfg: DictConfig, name: str, overrides: Sequence[str]) -> None:
    """Raises ``ValueError`` for a key that was added with ``+`` and that nothing reads.

    Legal are arguments of everything that has a ``_target_``, which refuses those that it does not
    know, and further things with a ``_target_``: callbacks, attacks, terms.
    """
    added = [o for o in overrides if o.startswith("+") and not _is_argument(cfg, key_of(o))]
    if own := OPEN.get(name):
        if group := [o for o in added if f"{key_of(o)}." == own]:
            raise ValueError(unknown_key(own[:-1], name, [group[0].lstrip("+")]))
        added = [o for o in added if not key_of(o).startswith(own)]
    if not added:
        return
    known = compose_groups(name, overrides)
    for override in added:
        key = key_of(override)
        if OmegaConf.select(known, key, default=_MISSING) is _MISSING:
            known = compose_groups(name, overrides, all_of_it=True)
            if elsewhere := _of_another_choice(key, known):
                raise ValueError(elsewhere)
            hint = _suggest(key, _names_near(key, known))
            raise ValueError(f"{override}: nothing reads {key}, leave it out{hint}")


def unknown_key(key: str, name: str, overrides: Sequence[str]) -> str:
    """One line about a key that is not in the configuration, with the nearest ones."""
    typed = next((o for o in overrides if key_of(o) == key), f"{key}=")
    own, value = set(compose_command(name, [])), typed.partition("=")[2]  # also missing ones
    also = named_here(key)
    meant = [n for n in (also, *FOLDERS) if n in own]
    if also in (*FOLDERS, "checkpoint") and meant:
        from energy_at.runs.folder import run_around

        value = str((meant[0] in FOLDERS and run_around(value)) or value)
        return f"{key}: unknown key; did you mean {meant[0]}={value}?"
    if also == "out" and also not in own:
        return f"{key}: unknown key; did you mean hydra.run.dir={value}?"
    group = also.partition(".")[0]  # threat.norm=L2, model.arch=resnet18
    choice = value.lower().replace("-", "_")
    if group != key and group in own and choice in choices_of(group):
        return f"{key}: unknown key; did you mean {group}={choice}?"
    if any(key_of(o) == "resume" for o in overrides):
        from energy_at.runs.selection import CHANGEABLE, fixed

        if not key.startswith(CHANGEABLE):
            return fixed(typed)
    cfg = compose_groups(name, [o for o in overrides if key_of(o) != key], all_of_it=True)
    hint = _suggest(key, _names_near(key, cfg), value)
    return _of_another_choice(key, cfg) or f"{key}: unknown key{hint}"


def _of_another_choice(key: str, cfg: DictConfig) -> str | None:
    """One line about a key that the chosen one of a group lacks and another has."""
    group, _, rest = key.partition(".")
    choices = _keys_by_choice(group, cfg)
    if not (having := [choice for choice, keys in choices.items() if key in keys]):
        return None
    chosen = cfg.hydra.runtime.choices.get(group)
    first, *others = sorted(having, key=lambda choice: choice != "der")
    more = f" (or {', '.join(others)})" if others else ""
    return f"{group}={chosen} has no {rest}: add {group}={first}{more}"


def _names_near(key: str, cfg: DictConfig) -> set[str]:
    """The keys that may be meant: those of the command, and of every choice of the key's group.

    A key without a group may be that of any: ``weight=2`` means ``reg.weight``.
    """
    group = named_here(key).partition(".")[0]
    groups = [group] if "." in key else cfg.hydra.runtime.choices
    others = {k for group in groups for keys in _keys_by_choice(group, cfg).values() for k in keys}
    if "." not in key:
        others = {other for other in others if other.partition(".")[2] == key}
    own = {k for k in keys_in(cfg) if key.startswith("hydra.") or not k.startswith("hydra.")}
    return own | others


def _keys_by_choice(group: str, cfg: DictConfig) -> dict[str, set[str]]:
    """The keys of each choice of a group of the command, full and dotted."""
    if group not in cfg.hydra.runtime.choices or group.startswith("hydra"):
        return {}
    return {
        choice: {f"{group}.{own}" for own in keys_in(OmegaConf.load(file))}
        for choice, file in choices_of(group).items()
    }


def choices_of(group: str) -> dict[str, Path]:
    """Files of a configuration group by choice, also in folders of it: ``rivals/liet``."""
    files = sorted(Path(CONF, group).rglob("*.yaml"))
    return {file.relative_to(Path(CONF, group)).with_suffix("").as_posix(): file for file in files}


def nested_choices(loader: ConfigLoader, group: str) -> list[str]:
    """Choices of a group as Hydra finds them, also in folders of it: ``rivals/liet``."""
    found = loader.get_group_options(group, ObjectType.CONFIG)
    for folder in loader.get_group_options(group, ObjectType.GROUP):
        found += [f"{folder}/{choice}" for choice in nested_choices(loader, f"{group}/{folder}")]
    return found


def groups_help(*, _root_: DictConfig) -> str:
    """The groups of a command with their choices, for ``--help``; empty if it has none."""
    loader = GlobalHydra.instance().config_loader()
    groups = sorted(name for name in _root_.hydra.runtime.choices if not name.startswith("hydra/"))
    lines = [f"{group}: {', '.join(nested_choices(loader, group))}\n" for group in groups]
    listed = "".join(lines).replace("$", "$$")  # Hydra reads the help as a template
    return f"Groups (GROUP=CHOICE):\n\n{listed}\n" if lines else ""


def compose_groups(name: str, overrides: Sequence[str], *, all_of_it: bool = False) -> DictConfig:
    """The configuration of a command with the groups that were chosen, as far as they exist."""
    chosen = [o for o in overrides if o.partition("=")[2] in choices_of(o.partition("=")[0])]
    return compose_command(name, chosen, all_of_it=all_of_it)


def compose_command(name: str, overrides: Sequence[str], *, all_of_it: bool = False) -> DictConfig:
    """The configuration of a command, also inside another command."""
    with ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(CONF, **BASE))
        return compose(name, list(overrides), return_hydra_config=all_of_it)


def keys_in(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key that people type, full and dotted; not those that only say how objects are made."""
    if not isinstance(node, DictConfig):
        return
    for name in map(str, node):
        if name.startswith("_") or name in ("ball", "published", "search", "terms"):
            continue
        yield f"{prefix}{name}"
        if not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
            yield from keys_in(node[name], f"{prefix}{name}.")


def key_of(override: str) -> str:
    """Where ``+key=value``, or ``+group@package=choice``, puts something."""
    return override.lstrip("+~").partition("=")[0].rpartition("@")[2]


def near_keys(key: str, known: Iterable[str]) -> list[str]:
    """The nearest of the known keys, but for the groups of an unknown one."""
    others = [other for other in known if not f"{key}.".startswith(f"{other}.")]
    if not key.startswith("dataset."):
        others = [other for other in others if not other.startswith(_PER_DATASET)]
    return nearest(key, others)


def _suggest(key: str, known: Iterable[str], value: str = "") -> str:
    """The nearest keys; with brackets around the value if the nearest one takes a list."""
    near = near_keys(key, known)
    rule = RULES.get(near[0]) if near and value else None
    if rule is not None and rule.holds([value]) and not rule.holds(value):
        return f"; did you mean {near[0]}=[{value}]?"
    return f"; did you mean {' or '.join(near)}?" if near else "; --help lists all keys"


def _is_argument(cfg: DictConfig, key: str) -> bool:
    parts = key.split(".")
    nodes = [OmegaConf.select(cfg, ".".join(parts[: i + 1])) for i in range(len(parts))]
    return any(isinstance(node, DictConfig) and "_target_" in node for node in nodes)
