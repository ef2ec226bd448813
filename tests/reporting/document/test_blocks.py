"""Sections as Markdown and as a page: well-formed, escaped, and nothing loaded."""

import re
from html.parser import HTMLParser

import pytest

from energy_at.reporting.document.blocks import (
    Code,
    Grid,
    Heading,
    Link,
    Picture,
    copy,
    plain,
    render,
)
from energy_at.reporting.tables import Table
from tests.helpers.pages import Page

ODD = 'a<b>&"c'
PNG = b"\x89PNG\r\n\x1a\nrest"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
TABLE = Table(("run", "PGD %"), [(ODD, "+1.5"), ("plain", "x" * 50)])
BLOCKS = (
    ("Words of ", Code(ODD), " and ", Link("a paper", "https://arxiv.org/abs/1"), "."),
    f"More words of {ODD}",
    Heading(ODD),
    Grid(ODD, TABLE, frozenset({1})),
    Code(f"python -m this {ODD}\nsecond"),
    Picture("figures/a.png", PNG, ODD),
    Picture("figures/b.png", SVG, ODD),
)
REPORT = (ODD, f"subtitle {ODD}", {ODD: BLOCKS, "Second": ("Last.",), "Third": ()})
MARKDOWN, HTML = (render(name, *REPORT) for name in ("report.md", "report.html"))


@pytest.fixture
def page():
    return Page(HTML)


def test_every_tag_is_closed_in_its_order(page):
    assert page.mistakes == []
    assert page.tags[:2] == ["html", "head"]


def test_odd_names_are_text(page):
    assert "b" not in page.tags
    assert page.text.count(ODD) == 12
    assert [image["alt"] for image in page.all("img")] == [ODD, ODD]


def test_nothing_is_loaded(page):
    assert page.loaded == []
    assert page.links == ["#part1", "#part2", "https://arxiv.org/abs/1"]
    assert "script" not in page.tags
    assert "link" not in page.tags
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "url(" not in HTML


def test_every_image_is_embedded(page):
    assert [page.image(image) for image in page.all("img")] == [
        ("image/png", PNG),
        ("image/svg+xml", SVG),
    ]


def test_the_contents_lead_to_every_section(page):
    ids = [section["id"] for section in page.all("section")]
    assert [f"#{name}" for name in ids] == page.links[:2]


def test_rows_that_need_attention_are_marked(page):
    assert [row.get("class") for row in page.all("tr")] == [None, None, "marked"]


def test_only_long_cells_may_wrap(page):
    assert [cell.get("class") for cell in page.all("td")] == [None, None, None, "long"]


def test_a_table_scrolls_inside_the_page_by_keyboard_too(page):
    regions = [div for div in page.all("div") if div.get("class") == "scroll"]
    assert len(regions) == 3
    assert all(div["tabindex"] == "0" and div["aria-label"] == ODD for div in regions)


def test_markdown_has_the_same_parts():
    lines = MARKDOWN.splitlines()
    name = 'a\\<b\\>\\&"c'
    assert lines[:5] == [f"# {name}", "", f"subtitle {name}", "", f"## {name}"]
    assert f"Words of `{ODD}` and [a paper](https://arxiv.org/abs/1)." in lines
    assert lines[lines.index(f"    python -m this {ODD}") + 1] == "    second"
    assert f"![{name}](figures/a.png)" in lines
    assert "## Second" in lines
    assert "## Third" not in lines  # it has no block
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert MARKDOWN.endswith("\n")
    assert "\n\n\n" not in MARKDOWN


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("FGSM-AT + DER, seed 0", "FGSM-AT + DER, seed 0"),
        ("co16_s0", "co16_s0"),
        ("terms._target_", "terms.\\_target\\_"),
        ("E(x*) | E(x)", "E(x\\*) | E(x)"),
        ("34.2 [32.7, 35.6]", "34.2 [32.7, 35.6]"),
        ("[here](http://there)", "[here\\](http://there)"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_changes_nothing_in_plain_text(text, written):
    assert plain(text) == written


def test_code_with_a_backtick_stays_code():
    text = render("report.md", "title", "", {"Code": [(Code("a`b"),)]})
    assert text == "# title\n\n## Code\n\n``a`b``\n"


def test_the_parser_of_these_tests_sees_mistakes():
    assert isinstance(Page("<p><b></p>"), HTMLParser)
    assert Page("<p><b></p>").mistakes
    assert Page("<p>").mistakes
    assert Page('<img src="http://somewhere/a.png">').loaded == ["http://somewhere/a.png"]


def test_a_picture_that_is_none_is_named(tmp_path):
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "bad.png").write_bytes(b"<html>")
    out = tmp_path / "report"
    picture = copy(out, tmp_path / "good.png", "figures/a", "caption")
    assert picture.content == PNG == (tmp_path / "report" / "figures" / "a.png").read_bytes()
    with pytest.raises(ValueError, match="no PNG") as caught:
        copy(out, tmp_path / "bad.png", "figures/b", "caption")
    assert str(tmp_path / "bad.png") in str(caught.value)


def colours(rules):
    """The colours that a rule of the page gives names, as shares of red, green and blue."""
    return {
        name: [int(2 * code[i] if len(code) == 3 else code[2 * i : 2 * i + 2], 16) / 255
               for i in range(3)]
        for name, code in re.findall(r"--(\w+): #(\w+);", rules)
    }  # fmt: skip


def contrast(one, other):
    """WCAG 2.1, from 1 to 21."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
              for colour in (one, other)]  # fmt: skip
    bright, dark = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear))[::-1]
    return (bright + 0.05) / (dark + 0.05)


def test_the_page_follows_the_readers_dark_mode_and_can_be_read_in_both():
    style = HTML.partition("<style>")[2].partition("</style>")[0]
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    light, dark = colours(light), colours(dark.partition("* {")[0])
    used = set(re.findall(r"var\(--(\w+)\)", style))
    assert set(light) == set(dark) == used
    for scheme in (light, dark):
        for text in ("text", "muted", "link"):
            for below in ("page", "marked", "code"):
                assert contrast(scheme[text], scheme[below]) >= 4.5, (text, below)
    assert contrast(light["page"], dark["page"]) > 10
    (picture,) = re.findall(r"^figure img {.*}", style, re.MULTILINE)
    assert "background: #fff;" in picture


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_control_characters_are_escaped(name):
    text = render(name, "title", "", {"Text": ["a\x1b[31mb"], "Code": [(Code("\x9b2J"),)]})
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "x1b" in text
