"""Blocks and sections of a report, as Markdown and as one HTML page that loads nothing."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from energy_at.reporting.figures import save, svg
from energy_at.reporting.tables import Table

_STYLE = Path(__file__).with_name("document.css")
SHORT = 32  # characters of a cell that is kept on one line
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Code:
    """A command, or the name of a file."""

    text: str


@dataclass(frozen=True)
class Link:
    """A citation."""

    text: str
    address: str


@dataclass(frozen=True)
class Paragraph:
    """Words, code and citations."""

    parts: tuple[str | Code | Link, ...]

    def markdown(self) -> str:
        return "".join(_inline_markdown(part) for part in self.parts)

    def html(self) -> str:
        return f"<p>{''.join(_inline_html(part) for part in self.parts)}</p>"


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
        """A table that scrolls inside the page where it is wider."""
        head = "".join(_cell(name, 'th scope="col"') for name in self.table.columns)
        rows = "\n".join(self._row(i, row) for i, row in enumerate(self.table.rows))
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(self.name)}">'
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
        )

    def _row(self, index: int, cells: Sequence[str]) -> str:
        kind = ' class="marked"' if index in self.marked else ""
        return f"<tr{kind}>{''.join(map(_cell, cells))}</tr>"


@dataclass(frozen=True)
class Lines:
    """Commands, each on its own line."""

    lines: tuple[str, ...]

    def markdown(self) -> str:
        """Indented, so that no line can end the block."""
        return "\n".join(f"    {line}" for line in self.lines)

    def html(self) -> str:
        return f'<pre tabindex="0"><code>{escape(chr(10).join(self.lines))}</code></pre>'


@dataclass(frozen=True)
class Picture:
    """An image: embedded in the page, a file for the Markdown."""

    file: str  # relative to the report, a PNG
    content: bytes  # what the page shows, SVG or PNG
    caption: str

    def markdown(self) -> str:
        """The file, then its caption."""
        return f"![{plain(self.caption)}]({self.file})\n\n{plain(self.caption)}"

    def html(self) -> str:
        kind = "image/png" if self.content.startswith(b"\x89PNG") else "image/svg+xml"
        data = base64.b64encode(self.content).decode()
        return (
            f'<figure><div class="scroll" role="region" tabindex="0" '
            f'aria-label="{escape(self.caption)}"><img alt="{escape(self.caption)}" '
            f'src="data:{kind};base64,{data}"></div>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Gallery:
    """The folder that the report and its pictures are written to."""

    out: Path

    def draw(self, figure: Figure, file: str, caption: str) -> Picture:
        """Writes a figure as PNG and PDF; the page shows it as SVG."""
        target = self.out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        save(figure, target)
        return Picture(f"{file}.png", svg(figure), caption)

    def copy(self, source: Path, file: str, caption: str) -> Picture:
        """Copies an image from a run folder.

        Raises:
            ValueError: if it is no PNG.
        """
        content = source.read_bytes()
        if not content.startswith(_PNG):
            raise ValueError(f"{source} is damaged: it is no PNG image")
        target = self.out / f"{file}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return Picture(f"{file}.png", content, caption)


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
        """Text with links to the files of its pictures."""
        blocks = [f"# {plain(self.title)}", plain(self.subtitle)]
        for section in self.sections:
            blocks += [f"## {plain(section.title)}", *(b.markdown() for b in section.blocks)]
        return "\n\n".join(block for block in blocks if block) + "\n"

    def html(self) -> str:
        """One page without scripts that loads nothing."""
        items = "".join(
            f'<li><a href="#part{i}">{escape(section.title)}</a></li>'
            for i, section in enumerate(self.sections, 1)
        )
        parts = "\n".join(
            f'<section id="part{i}">\n<h2>{escape(section.title)}</h2>\n'
            + "\n".join(block.html() for block in section.blocks)
            + "\n</section>"
            for i, section in enumerate(self.sections, 1)
        )
        return (
            f"{_head(self.title)}<body>\n<main>\n<h1>{escape(self.title)}</h1>\n"
            f'<p class="subtitle">{escape(self.subtitle)}</p>\n<nav><ol>{items}</ol></nav>\n'
            f"{parts}\n</main>\n</body>\n</html>\n"
        )


def plain(text: str) -> str:
    """Escapes what Markdown would interpret, in text and in cells of tables."""
    text = re.sub(r"([\\`*<>&~]|\](?=[(\[])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
    return " ".join(text.split())


def _head(title: str) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text()}</style>\n</head>\n"
    )


def _cell(text: str, start: str = "td") -> str:
    """Only long cells may wrap."""
    kind = ' class="long"' if len(text) > SHORT else ""
    return f"<{start}{kind}>{escape(text)}</{start[:2]}>"


def _inline_markdown(part: str | Code | Link) -> str:
    if isinstance(part, Link):
        return f"[{plain(part.text)}]({part.address})"
    if isinstance(part, str):
        return _keep_ends(part)
    ticks = "``" if "`" in part.text else "`"
    return f"{ticks}{part.text}{ticks}"


def _keep_ends(text: str) -> str:
    before = " " if text[:1].isspace() else ""
    after = " " if text[-1:].isspace() and text.strip() else ""
    return before + plain(text) + after


def _inline_html(part: str | Code | Link) -> str:
    if isinstance(part, Link):
        return f'<a href="{escape(part.address)}">{escape(part.text)}</a>'
    return escape(part) if isinstance(part, str) else f"<code>{escape(part.text)}</code>"
