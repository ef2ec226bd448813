"""Words on the command line that are no ``key=value``: refused with what was probably meant."""

from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from energy_at.config.keys import (
    FOLDERS,
    choices_of,
    compose_command,
    key_of,
    keys_in,
    near_keys,
)
from energy_at.core.rules import one_of
from energy_at.core.trust import require_trusted, set_trusted


class _UnreadableError(Exception):
    """Hydra's parser would print its usage, and exit with 2."""


def require_overrides(command: str, arguments: Sequence[str]) -> None:
    """Checks what was typed before Hydra reads it.

    Raises:
        ValueError: for an option that Hydra does not have, a word without ``=``, a group without a
            choice, or a callback of Hydra, which it would build at once, that is not trusted.
    """
    parser = get_args_parser()
    parser.error = _raise  # type: ignore[method-assign]
    unknown, overrides = _parse(parser, arguments)
    if unknown is not None:
        raise ValueError(_of_an_option(command, unknown, arguments))
    for before, word in pairwise(["", *overrides]):
        if not word.startswith("~") and ("=" not in word or word == "="):
            raise ValueError(_of_a_word(command, before, word, overrides))
    for word in overrides:
        group, _, choice = word.lstrip("+").partition("=")
        if choice in ("", "null", "[]") and "/" not in group and (known := choices_of(group)):
            raise ValueError(f"{word} must be {one_of(*known).broken_by(choice)}")
    if any("hydra.callbacks" in word and "_target_" in word for word in overrides):
        own = [word for word in overrides if key_of(word).startswith(("hydra.callbacks", "trust"))]
        cfg = compose_command(command, own, all_of_it=True)
        set_trusted(cfg.trust if OmegaConf.is_list(cfg.trust) else [])
        require_trusted(cfg.hydra.callbacks)


def options_first(arguments: Sequence[str]) -> list[str]:
    """Options of Hydra, and their values, in front: it reads no overrides on both sides of one."""
    takes = {
        name: action.nargs is None
        for action in get_args_parser()._actions
        for name in action.option_strings
        if action.nargs in (None, 0)
    }
    options: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        (options if name in takes else others).append(word)
        if takes.get(name) and not equals:
            options += islice(words, 1)
    return [*options, *others]


def _raise(message: str) -> NoReturn:
    raise _UnreadableError(message)


def _parse(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first unknown option, if any, and the words that are no options."""
    try:
        known, unknown = parser.parse_known_args(list(arguments))
    except _UnreadableError:  # such as -reg, which begins like -r
        return next(a for a in arguments if a.startswith("-")), []
    option = next((one for one in unknown if one.startswith("-")), None)
    if option is not None and option not in arguments:  # Python 3.14 leaves -eg of -reg
        ends = (a for a in arguments if a.startswith("-") and a.endswith(option.lstrip("-")))
        option = next(ends, option)
    return option, list(known.overrides)


def _of_an_option(command: str, option: str, arguments: Sequence[str]) -> str:
    """``--reg der: write reg=der``."""
    name, _, value = option.partition("=")
    following = arguments[arguments.index(option) + 1 :] if option in arguments else []
    if not value and following and "=" not in following[0] and not following[0].startswith("-"):
        value = following[0]
        option = f"{option} {value}"
    key = _meant_key(compose_command(command, []), name.lstrip("-").replace("-", "_"))
    if key is None:
        return f"{option}: unknown option; write key=value, without dashes; --help lists all keys"
    return f"{option}: write {key}={value or 'VALUE'}"


def _of_a_word(command: str, before: str, word: str, words: Sequence[str]) -> str:
    """``r: write run=r``, ``reg der: write reg=der``."""
    if before.endswith((",", "=")) or word.startswith(","):
        return f"{before} {word}: leave out the space, or put quotes around it"
    cfg = compose_command(command, [])
    named = [*map(str, cfg)]  # also runs: ???, which is not "in" a configuration
    following = words[words.index(word) + 1 :]
    if len(following) > 1 and following[0] == "=":
        return f"{word} = {following[1]}: write {word}={following[1]}, without spaces"
    name, _, value = word.partition(":")
    dotted = "." in name and all(part.isidentifier() for part in name.split("."))
    if value and (dotted or name in named):
        return f"{word}: write {name}={value}"
    if groups := [group for group in named if word in choices_of(group)]:
        return f"{word}: write {' or '.join(f'{group}={word}' for group in groups)}"
    key = _meant_key(cfg, word)
    if key is not None and following and "=" not in following[0]:
        return f"{word} {following[0]}: write {key}={following[0]}"
    folder = next((key for key in FOLDERS if key in named), None)
    if key == word or folder is None or (folder == "resume" and not Path(word).is_dir()):
        return f"{word}: write key=value; --help lists all keys"
    return f"{word}: write {folder}={word}"


def _meant_key(cfg: DictConfig, name: str) -> str | None:
    """The key, or the one most like it."""
    known = {*keys_in(cfg)}
    return name if name in known else next(iter(near_keys(name, known)), None)
