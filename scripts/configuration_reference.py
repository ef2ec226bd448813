"""Write docs/configuration.md from the YAML files of conf/: choices, keys, defaults, comments.

``python scripts/configuration_reference.py [--check]``; with ``--check`` nothing is written and the
exit code says whether the page is up to date.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
COMMANDS = ("train", "evaluate", "analyse", "sample", "report", "export", "watch", "dashboard",
            "doctor", "benchmark")  # fmt: skip
LINE = re.compile(r"^( *)([A-Za-z_]\w*):(?: +(.*?))?(?:  # (.*))?$")
INTERNAL = ("defaults", "hydra", "_target_", "_partial_", "reader", "terms")
INTRODUCTION = """# Configuration reference

Generated from `conf/` by `python scripts/configuration_reference.py`. A group takes one of its
choices (`reg=der`), a key a value (`reg.weight=20`). `${...}` refers to another key.
`COMMAND --help` prints the composed configuration.
"""


def keys(text: str) -> Iterator[tuple[str, str, str]]:
    """Dotted key, default and comment of each value in a YAML file of this project's style."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not (found := LINE.match(line)):
            continue
        indent, key, value, comment = len(found[1]), found[2], found[3] or "", found[4] or ""
        parents = [(depth, name) for depth, name in parents if depth < indent]
        path = [name for _, name in parents] + [key]
        parents.append((indent, key))
        if any(part in INTERNAL for part in path) or not value or value.startswith("#"):
            continue
        yield ".".join(path), value, comment


def table(rows: list[tuple[str, str, str]]) -> str:
    """A Markdown table; a ``|`` in a cell ends none."""
    cells = [(f"`{key}`", f"`{value}`" if value else "", comment) for key, value, comment in rows]
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines)


def about(file: Path) -> str:
    """The comment that heads a file."""
    comments = [
        line[2:] for line in file.read_text().splitlines()[:3]
        if line.startswith("# ") and "@package" not in line
    ]  # fmt: skip
    return comments[0] if comments else ""


def group_rows(group: str, files: list[Path]) -> list[tuple[str, str, str]]:
    """Each commented key of a group; one whose default or meaning differs names its choices."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for file in files:
        for row in keys(file.read_text()):
            if row[2]:
                found.setdefault(row, []).append(file.stem)
    repeated = [key for key, _, _ in found]
    return [
        (f"{group}.{key}", value, comment + (
            f" ({', '.join(choices)})" if repeated.count(key) > 1 else ""))
        for (key, value, comment), choices in found.items()
    ]  # fmt: skip


def command_rows(conf: Path, command: str) -> list[tuple[str, str, str]]:
    """The keys of a command, after those of the files that it builds on."""
    text = (conf / f"{command}.yaml").read_text()
    shared = [name for name in re.findall(r"^  - (\w+)$", text, re.MULTILINE) if name != "_self_"]
    rows = [row for name in shared for row in command_rows(conf, name)] + list(keys(text))
    return list({row[0]: row for row in rows}.values())  # the own keys replace those


def page(conf: Path) -> str:
    """The whole reference."""
    parts = [INTRODUCTION, "## Commands\n"]
    for command in COMMANDS:
        rows = command_rows(conf, command)
        parts += [f"### {command}\n", table(rows) + "\n"]
    parts.append("## Groups\n")
    groups = sorted(folder for folder in conf.rglob("*") if folder.is_dir())
    for group in groups:
        files = sorted(group.glob("*.yaml"))
        if not files:
            continue
        name = str(group.relative_to(conf))
        parts.append(f"### {name}\n")
        parts += [f"- `{file.stem}`: {about(file)}" for file in files]
        parts.append("")
        if name not in ("experiment", "protocol") and (rows := group_rows(name, files)):
            parts.append(table(rows) + "\n")
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    text = page(ROOT / "conf")
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
