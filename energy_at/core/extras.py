"""Packages that are missing, or do not fit each other: what to install."""

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


def of_torchvision(error: BaseException) -> str | None:
    """What to do about a torchvision that was built for another torch than the one that is here."""
    if not (isinstance(error, RuntimeError) and "operator torchvision::" in str(error)):
        return None
    return (
        "torchvision does not fit this torch: install both together, pip install --force-reinstall "
        "torch torchvision, for the CPU build with --index-url https://download.pytorch.org/whl/cpu"
    )
