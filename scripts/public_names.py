"""Hook of MkDocs: the pages of docs/api/, each with the public names of one package.

A public name stands in the ``__all__`` of its package. ``mkdocs build`` fails for one without a
docstring, for a package without a page, and for a page without a package. The code is read, not
imported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = "energy_at"
COMMANDS = ("analysis",)  # what only a command exports is no library


def public_names(package: griffe.Module) -> Iterator[tuple[str, griffe.Object | griffe.Alias]]:
    """The names that a package exports, in order, with what stands behind them."""
    for name in package.exports or ():
        yield str(name), package[str(name)]


def undocumented(package: griffe.Module) -> list[str]:
    """Public names of a package that have no docstring, and the package itself."""
    found = [] if package.has_docstring else [package.path]
    return found + [
        f"{package.path}.{name}"
        for name, target in public_names(package)
        if not (target.has_docstring or target.is_attribute)
    ]


def page(package: griffe.Module) -> str:
    """The reference of a package: its docstring, then each public name."""
    assert package.docstring is not None
    parts = [f"# {package.path}", package.docstring.value]
    parts += [f"::: {package.path}.{name}" for name, _ in public_names(package)]
    return "\n\n".join(parts) + "\n"


def packages() -> dict[str, griffe.Module]:
    """The packages of the library, by name."""
    root = griffe.load(PACKAGE, search_paths=[ROOT], resolve_aliases=True)
    return {
        name: module
        for name, module in root.modules.items()
        if name not in COMMANDS and isinstance(module, griffe.Module) and module.exports
    }


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    found = packages()
    if missing := [name for package in found.values() for name in undocumented(package)]:
        raise PluginError(f"without a docstring: {', '.join(missing)}")
    for name, package in found.items():
        files.append(File.generated(config, f"api/{name}.md", content=page(package)))
    return files
