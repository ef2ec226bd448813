"""Packages of extras, asked for where they are needed."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import url2pathname


def require_package(package: str, extra: str, what: str) -> None:
    """Raises ``ImportError`` if a package of an extra, that ``what`` needs, is not installed."""
    if find_spec(package) is None:
        raise ImportError(f"{what} needs {package}: {install(extra)}", name=package)


def install(extra: str) -> str:
    """The command that installs an extra; into the checkout that is installed, if one is."""
    try:
        origin = json.loads(distribution("energy_at").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    if origin.get("dir_info", {}).get("editable"):
        return f"pip install -e '{url2pathname(urlsplit(origin['url']).path)}[{extra}]'"
    return f"pip install 'energy_at[{extra}]'"
