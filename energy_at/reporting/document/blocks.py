"""Blocks and sections of a report, and what its two templates need to write them."""

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from energy_at.core.progress import printable
from energy_at.reporting.figures import save, svg
from energy_at.reporting.tables import Table

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Code:
    """A command, or the name of a file; alone it is a block, each line on its own."""

    text: str


@dataclass(frozen=True)
class Link:
    """A citation."""

    text: str
    address: str


@dataclass(frozen=True)
class Heading:
    """Title of a part of a section."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table with a name; marked rows are highlighted."""

    name: str
    table: Table
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """An image: embedded in the page, a file for the Markdown."""

    file: str  # relative to the report, a PNG
    content: bytes  # what the page shows, SVG or PNG
    caption: str

    @property
    def data(self) -> str:
        """The image as the address of itself."""
        kind = "image/png" if self.content.startswith(_PNG) else "image/svg+xml"
        return f"data:{kind};base64,{base64.b64encode(self.content).decode()}"


Paragraph = str | tuple[str | Code | Link, ...]
Block = Paragraph | Code | Heading | Grid | Picture


def render(name: str, title: str, subtitle: str, sections: Mapping[str, Collection[Block]]) -> str:
    """The report as ``report.md``, or as ``report.html``: one page that loads nothing.

    A section without blocks is left out.
    """
    found = {heading: blocks for heading, blocks in sections.items() if blocks}
    template = _TEMPLATES.get_template(f"{name}.jinja")
    return printable(template.render(title=title, subtitle=subtitle, sections=found))


def draw(out: Path, figure: Figure, file: str, caption: str) -> Picture:
    """Writes a figure of the report below ``out``, as PNG and PDF; the page shows it as SVG."""
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    save(figure, out / file)
    return Picture(f"{file}.png", svg(figure), caption)


def copy(out: Path, source: Path, file: str, caption: str) -> Picture:
    """Copies an image from a run folder to the report below ``out``.

    Raises:
        ValueError: if it is no PNG.
    """
    content = source.read_bytes()
    if not content.startswith(_PNG):
        raise ValueError(f"{source} is damaged: it is no PNG image")
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    (out / f"{file}.png").write_bytes(content)
    return Picture(f"{file}.png", content, caption)


def where(flags: Iterable[object]) -> frozenset[int]:
    return frozenset(i for i, flag in enumerate(flags) if flag)


def plain(text: str) -> str:
    """Escapes what Markdown would interpret, in text and in cells of tables."""
    text = re.sub(r"([\\`*<>&~]|\](?=[(\[])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
    return re.sub(r"\s+", " ", text)


def _plain_table(table: Table) -> str:
    rows = [tuple(map(plain, row)) for row in table.rows]
    return Table(tuple(map(plain, table.columns)), rows).markdown()


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(["html.jinja"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {"plain": plain, "plain_table": _plain_table}
_TEMPLATES.tests["of"] = lambda block, kind: type(block).__name__ == kind
