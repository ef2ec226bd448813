"""Reads tables back."""


def markdown_rows(path):
    """The rows of a Markdown table."""
    lines = [line.strip("|").split("|") for line in path.read_text().splitlines()]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]
