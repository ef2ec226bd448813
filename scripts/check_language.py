"""Find words to avoid in README, docs, docstrings, comments and messages, of the tests too.

``python scripts/check_language.py [FILE ...]`` prints one line for each finding, with the word to
use instead, and exits with 1 if there is any. Code, code spans and code blocks are not checked.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = {  # pattern: what to write instead
    r"judg(e|es|ed|ing|ement)": "evaluate, accuracy under attack, independent classifier",
    r"(stay|stays|stayed) right": "correct under attack",
    r"typed again|type it again|types? them again": "re-run the same command to resume",
    r"(go|goes|went|going) on": "resume, continue",
    r"where it was": "resume",
    r"(is|are|was|were|be|been) told|tells?": "detected, reported, says",
    r"at one": "also, same",
    r"vouch(es|ed|ing)?( for)?": "confirmed by held-out data",
    r"of now": "current",
    r"so many": "N",
    r"in a row": "consecutive",
    r"eyes": "feature extractor",
    r"that (is|are) none|is none of|there is none": "invalid, unknown, missing",
    r"cannot be had|could not be had|can be had": "not available",
    r"apart": "separately",
    r"likewise": "also, same",
    r"beside": "alongside, next to",
    r"(what )?(became|becomes|has become|had become) of": "result, status",
    r"fates?": "status",
    r"by a hair": "barely",
    r"spread of": "standard deviation, range",
    r"seconds of the (wall|processor)": "wall-clock seconds, CPU seconds",
    r"slips? of the hand|mistakes?|mistaken": "pre-flight checks, bad input, errors",
    r"clear of": "below the threshold, above it",
    r"no such": "unknown, missing",
    r"whoever|whosever": "anyone who, whoever's: name it",
    r"lets? go": "releases",
    r"likes best": "prefers",
    r"in words": "as text",
    r"sound(er|est|ness|ly)?": "healthy, valid",
}
CHECKED = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"),
    *("energy_at", "hydra_plugins", "conf", "scripts", "tests"),
)
UNCHECKED = ("check_language.py", "test_documentation.py")  # they name the words
PATTERN = re.compile(r"\b(?:" + "|".join(f"(?:{key})" for key in USE) + r")\b", re.IGNORECASE)
CODE = re.compile(r"``?[^`]*``?|https?://\S+|\]\([^)]*\)|\bjudge=\S+")  # judge= is a key


def instead(word: str) -> str:
    return next(use for key, use in USE.items() if re.fullmatch(key, word, re.IGNORECASE))


def prose_of_markdown(text: str) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, line


def prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Comments, and strings that hold more than one word: docstrings and messages."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for number, line in enumerate(node.value.splitlines()):
                yield node.lineno + number, line


def prose_of_yaml(text: str) -> Iterator[tuple[int, str]]:
    """Comments, and the texts of --help."""
    for number, line in enumerate(text.splitlines(), 1):
        _, mark, comment = line.partition("# ")
        if mark:
            yield number, comment
        elif line.startswith("      "):
            yield number, line


def prose_of_html(text: str) -> Iterator[tuple[int, str]]:
    """What stands between tags, but for style and scripts."""
    hidden = re.sub(r"(?s)<(style|script)\b.*?</\1>", lambda m: "\n" * m[0].count("\n"), text)
    for number, line in enumerate(hidden.splitlines(), 1):
        yield number, re.sub(r"<[^>]*>|\{[{%].*?[%}]\}", " ", line)


READERS = {
    ".md": prose_of_markdown,
    ".py": prose_of_python,
    ".yaml": prose_of_yaml,
    ".html": prose_of_html,
    ".jinja": prose_of_html,
}


def findings(file: Path) -> Iterator[str]:
    for number, line in READERS[file.suffix](file.read_text()):
        for found in PATTERN.finditer(CODE.sub("", line)):
            word = found.group()
            yield f"{file.relative_to(ROOT)}:{number}: {word!r}: say {instead(word)}"


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", *CHECKED],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    files = [Path(name).resolve() for name in sys.argv[1:]] or [ROOT / name for name in listed]
    known = [file for file in files if file.suffix in READERS and file.name not in UNCHECKED]
    lines = [line for file in known for line in findings(file)]
    print("\n".join(lines) or f"language: {len(known)} files, no finding")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
