"""Blocks and sections of a report, as Markdown and as one HTML page that loads nothing."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from energy_at.reporting.figures import save, svg
from energy_at.reporting.tables import Table

_PAGE = Path(__file__).with_name("page.html")
SHORT = 32  # characters of a cell that is kept on one line
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Code:
    """A command, or the name of a file."""

    text: str

    def markdown(self) -> str:
        ticks = "``" if "`" in self.text else "`"
        return f"{ticks}{self.text}{ticks}"

    def html(self) -> str:
        return f"<code>{escape(self.text)}</code>"


@dataclass(frozen=True)
class Link:
    """A citation."""

    text: str
    address: str

    def markdown(self) -> str:
        return f"[{plain(self.text)}]({self.address})"

    def html(self) -> str:
        return f'<a href="{escape(self.address)}">{escape(self.text)}</a>'


@dataclass(frozen=True)
class Paragraph:
    """Words, code and citations."""

    parts: tuple[str | Code | Link, ...]

    def markdown(self) -> str:
        parts = (plain(p) if isinstance(p, str) else p.markdown() for p in self.parts)
        return "".join(parts)

    def html(self) -> str:
        parts = (escape(p) if isinstance(p, str) else p.html() for p in self.parts)
        return f"<p>{''.join(parts)}</p>"


@dataclass(frozen=True)
class Heading:
    """Title of a part of a section."""

    text: str

    def markdown(self) -> str:
        return f"### {plain(self.text)}"

    def html(self) -> str:
        return f"<h3>{escape(self.text)}</h3>"


@dataclass(frozen=True)
class Grid:
    """A table with a name; marked rows are highlighted."""

    name: str
    table: Table
    marked: frozenset[int] = frozenset()

    def markdown(self) -> str:
        columns = tuple(map(plain, self.table.columns))
        return Table(columns, [tuple(map(plain, row)) for row in self.table.rows]).markdown()

    def html(self) -> str:
        head = "".join(_cell(name, 'th scope="col"') for name in self.table.columns)
        kinds = [' class="marked"' if i in self.marked else "" for i in range(len(self.table.rows))]
        rows = "\n".join(
            f"<tr{kind}>{''.join(map(_cell, row))}</tr>"
            for kind, row in zip(kinds, self.table.rows, strict=True)
        )
        return _scrolling(
            self.name,
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>",
        )


@dataclass(frozen=True)
class Lines:
    """Commands, each on its own line."""

    lines: tuple[str, ...]

    def markdown(self) -> str:
        return "\n".join(f"    {line}" for line in self.lines)  # no line can end the block

    def html(self) -> str:
        return f'<pre tabindex="0"><code>{escape(chr(10).join(self.lines))}</code></pre>'


@dataclass(frozen=True)
class Picture:
    """An image: embedded in the page, a file for the Markdown."""

    file: str  # relative to the report, a PNG
    content: bytes  # what the page shows, SVG or PNG
    caption: str

    def markdown(self) -> str:
        return f"![{plain(self.caption)}]({self.file})\n\n{plain(self.caption)}"

    def html(self) -> str:
        kind = "image/png" if self.content.startswith(_PNG) else "image/svg+xml"
        caption, data = escape(self.caption), base64.b64encode(self.content).decode()
        image = _scrolling(self.caption, f'<img alt="{caption}" src="data:{kind};base64,{data}">')
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


@dataclass(frozen=True)
class Gallery:
    """The folder that the report and its pictures are written to."""

    out: Path

    def draw(self, figure: Figure, file: str, caption: str) -> Picture:
        """Writes a figure as PNG and PDF; the page shows it as SVG."""
        save(figure, self._place(file))
        return Picture(f"{file}.png", svg(figure), caption)

    def copy(self, source: Path, file: str, caption: str) -> Picture:
        """Copies an image from a run folder.

        Raises:
            ValueError: if it is no PNG.
        """
        content = source.read_bytes()
        if not content.startswith(_PNG):
            raise ValueError(f"{source} is damaged: it is no PNG image")
        self._place(f"{file}.png").write_bytes(content)
        return Picture(f"{file}.png", content, caption)

    def _place(self, file: str) -> Path:
        target = self.out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


Block = Paragraph | Heading | Grid | Lines | Picture


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """The report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def markdown(self) -> str:
        blocks = [f"# {plain(self.title)}", plain(self.subtitle)]
        for section in self.sections:
            blocks += [f"## {plain(section.title)}", *(b.markdown() for b in section.blocks)]
        return "\n\n".join(block for block in blocks if block) + "\n"

    def html(self) -> str:
        """One page without scripts that loads nothing."""
        items, parts = [], []
        for i, section in enumerate(self.sections, 1):
            title, blocks = escape(section.title), "\n".join(b.html() for b in section.blocks)
            items.append(f'<li><a href="#part{i}">{title}</a></li>')
            parts.append(f'<section id="part{i}">\n<h2>{title}</h2>\n{blocks}\n</section>')
        return Template(_PAGE.read_text()).substitute(
            title=escape(self.title),
            subtitle=escape(self.subtitle),
            contents="".join(items),
            parts="\n".join(parts),
        )


def where(flags: Iterable[object]) -> frozenset[int]:
    return frozenset(i for i, flag in enumerate(flags) if flag)


def plain(text: str) -> str:
    """Escapes what Markdown would interpret, in text and in cells of tables."""
    text = re.sub(r"([\\`*<>&~]|\](?=[(\[])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
    return re.sub(r"\s+", " ", text)


def _scrolling(name: str, content: str) -> str:
    """What scrolls inside the page where it is wider, by keyboard too."""
    label = escape(name)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{content}</div>'


def _cell(text: str, start: str = "td") -> str:
    """Only long cells may wrap."""
    kind = ' class="long"' if len(text) > SHORT else ""
    return f"<{start}{kind}>{escape(text)}</{start[:2]}>"
