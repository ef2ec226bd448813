"""Rules for the values of arguments: what a value must be, as text and as a test."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeGuard


class Rule(NamedTuple):
    """What a value must be, as text and as a test; if names, then of these."""

    must: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()

    def broken_by(self, value: Any) -> str | None:
        """What a value that breaks the rule must be, with the nearest name."""
        if self.holds(value):
            return None
        words = [v for v in (value if is_list(value) else [value]) if v not in self.names]
        near = [name for word in words for name in nearest(str(word), self.names, 1)]
        return self.must + (f" (did you mean {near[0]}?)" if near else "")


class ArgumentError(ValueError):
    """An argument that breaks its rule; the configuration puts its key in the argument's place."""

    def __init__(self, argument: str, value: Any, must: str) -> None:
        text = " ".join(repr(value).split())  # a tensor's and a network's take many lines
        shown = text if len(text) <= 200 else f"{text[:77]}..."
        super().__init__(f"{argument} must be {must}, got {shown}")
        self.argument, self.value, self.must = argument, value, must

    def __reduce__(self) -> tuple[Any, ...]:  # a worker of a sweep hands it over
        return type(self), (self.argument, self.value, self.must)


class MissingFilesError(ArgumentError, FileNotFoundError):
    """A folder that lacks the files it is named for."""


def require(rule: Rule, **arguments: Any) -> None:
    """Raises ``ArgumentError`` by the first argument that breaks the rule."""
    for argument, value in arguments.items():
        if (must := rule.broken_by(value)) is not None:
            raise ArgumentError(argument, value, must)


def require_takes(
    function: Callable[..., Any], who: str, *arguments: str, **keywords: object
) -> None:
    """Raises ``ValueError`` if a user's function cannot be called with these arguments."""
    taken = ", ".join(arguments[:-1]) + " and " * bool(arguments[:-1]) + arguments[-1]
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C, whose arguments are unknown
        return
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise ValueError(f"{who} must take {taken}: {error}") from None


def is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; an integer must fit into 64 bits."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return bool(-(2**63) <= value < 2**63) if is_integer(value) else math.isfinite(value)


def integer(low: int, high: int = 2**63 - 1) -> Rule:
    """An integer within closed limits; the highest is that of 64 bits."""
    limits = f"from {low} to {high}" if high < 2**63 - 1 else f">= {low}"
    return Rule(f"an integer {limits}", lambda v: is_integer(v) and bool(low <= v <= high))


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    """A finite number within limits, which are closed unless ``above`` or ``below`` is set."""
    upper = f" and {'<' if below else '<='} {high:g}" if high < math.inf else ""

    def holds(value: Any) -> bool:
        if not is_number(value) or (above and value == low) or (below and value == high):
            return False
        return bool(low <= value <= high)

    return Rule(f"a finite number {'>' if above else '>='} {low:g}{upper}", holds)


def or_null(rule: Rule) -> Rule:
    """What a rule allows, or nothing."""
    return Rule(f"{rule.must}, or null", lambda v: v is None or rule.holds(v), rule.names)


def one_of(*names: str) -> Rule:
    must = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return Rule(must, lambda value: isinstance(value, str) and value in names, names)


def an(kind: type | tuple[type, ...], must: str) -> Rule:
    """An object of a class, and not the class itself."""
    return Rule(must, lambda value: isinstance(value, kind))


def only(value: Any, why: str) -> Rule:
    """The one value of a setting of Lightning's that a training here can honour."""
    return Rule(f"{as_typed(value)}, as {why}", lambda other: other == value)


def some_of(*names: str) -> Rule:
    def holds(value: Any) -> bool:
        return is_list(value) and len(value) > 0 and set(value) <= set(names)

    return Rule(f"a list of {' and '.join(names)}, such as [{names[0]}]", holds, names)


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def as_typed(value: Any) -> str:
    """A value as the command line takes it: ``null``, ``true``, ``[a,b]``."""
    if is_list(value):
        return f"[{','.join(map(as_typed, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


# What the field also calls the things that have names here.
_ALSO_CALLED = {other: name for name, others in {
    "alpha": "step_size",
    "at": "ce cross_entropy crossentropy xent madry",
    "autoattack": "aa auto_attack",
    "batch_size": "bs train_batch_size",
    "checkpoint": "checkpoint_path ckpt ckpt_path",
    "dataset": "data",
    "device": "cuda",
    "devices": "gpus n_gpus num_gpus",
    "eps": "epsilon",
    "eval_batch_size": "test_batch_size",
    "experiment": "exp",
    "linf": "inf l_inf linfty",
    "lr": "learning_rate",
    "max_epochs": "epochs n_epochs num_epochs",
    "model": "arch architecture model_name net network",
    "optimizer": "optim",
    "out": "out_dir outdir output output_dir save_dir",
    "pgd": "bim i_fgsm ifgsm",
    "piecewise": "multi_step multistep step",
    "reg": "regularization regulariser regularizer",
    "restarts": "n_restarts nb_restarts num_restarts",
    "resume": "resume_from resume_from_checkpoint",
    "root": "data_dir data_path data_root datadir",
    "rs_fgsm": "ffgsm r_fgsm",
    "schedule": "lr_schedule lr_scheduler scheduler",
    "seed": "manual_seed random_seed",
    "steps": "iterations iters n_iter n_steps nb_iter num_iter num_steps",
    "subset": "n_ex n_examples num_examples",
    "tensorboard": "tb",
    "threat": "norm threat_model",
    "triangular": "cyclic",
    "weight": "beta lambda lamda",
    "weight_decay": "wd",
}.items() for other in others.split()}  # fmt: skip


def named_here(key: str) -> str:
    """A dotted key with the names that things have here: ``regularizer.beta`` is ``reg.weight``."""
    return ".".join(_ALSO_CALLED.get(part, part) for part in key.split("."))


def nearest(word: str, words: Iterable[str], n: int = 3) -> list[str]:
    """The most similar of some names, of which those with another path may share the last part.

    Capitals and dashes count for nothing: ``CIFAR-10`` is nearest to ``cifar10``. A word that the
    field also uses counts as the name here: ``tb`` is nearest to ``tensorboard``, ``pgd20``, with
    its steps, to ``pgd``.
    """
    typed = word.lower().replace("-", "_")
    forms = {typed, named_here(typed), named_here(typed.rstrip("_0123456789")) or typed}

    def likeness(other: str) -> float:
        return max(similarity(form, other) for form in forms)

    def similarity(word: str, other: str) -> float:
        ends = word.rpartition(".")[2], other.rpartition(".")[2]
        last = 0.95 if ends[0] == ends[1] else 0.9 * SequenceMatcher(None, *ends).ratio()
        part = 0.0
        if len(word) > 2 and word in other:
            part = 0.9 if other.startswith(f"{word}_") else 0.8
        return max(SequenceMatcher(None, word, other).ratio(), last, part)

    rated = ((likeness(other), other) for other in words)
    found = sorted(rated, key=lambda one: (-one[0], one[1].count("."), one[1]))
    best = found[0][0] if found else 0
    return [other for ratio, other in found[:n] if ratio >= max(0.6, best - 0.1)]


TRUTH = Rule("true or false", lambda value: isinstance(value, bool))
FUNCTION = Rule("a function", callable)
POSITIVE = number(0, above=True)
SHARE = number(0, 1, above=True, below=True)
PRECISION = Rule(
    "32-true, bf16-mixed or 64-true: in others an eps of 8/255 becomes 8.96/255",
    lambda value: str(value) in ("32-true", "bf16-mixed", "64-true", "32", "64", "None"),
)
TRAINER = {  # settings of Lightning's trainer that no training here can honour
    "precision": PRECISION,
    "accumulate_grad_batches": only(1, "every step is one batch: raise the batch size"),
    "fast_dev_run": only(
        False,
        "it would write results of a few batches: a short training has max_epochs 1 and "
        "limit_train_batches 2",
    ),
    "max_steps": Rule(
        "an integer >= 1, or -1 for no limit", lambda v: v == -1 or integer(1).holds(v)
    ),
    "overfit_batches": only(0, "it would validate on training images: train on fewer of them"),
}
