"""Tests mirror the package: every module has the test file of its name, where the module is."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "energy_at"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
OF_SEVERAL_MODULES = {
    "test_demo.py": "scripts/demo_verdict.py",
    "test_documentation.py": "README, docs/ and the scripts that write and check them",
    "test_experiments.py": "conf/experiment/",
    "test_gpu_study.py": "scripts/gpu_study.sh",
    "test_layout.py": "tests/",
    "test_faults.py": "what every command leaves behind when it is killed",
    "test_fuzz.py": "what every command answers to any value of any key",
    "test_own_images.py": "dataset=folder and dataset=npz, in every command",
    "test_own_networks.py": "model=timm, torchvision and custom, in every command",
    "test_python_api.py": "the Python of README",
    "test_start_up.py": "what all commands import before they answer",
    "test_wheel.py": "the package as it is installed",
}
ELSEWHERE = ("docs", "hydra_plugins")  # folders of tests of what is not in the package


def file_of(module):
    """``a/b.py`` is tested by ``a/test_b.py``, ``a/__main__.py`` by ``a/test_main.py``."""
    return module.with_name(f"test_{module.stem.strip('_')}.py")


def defines_something(module):
    body = ast.parse((PACKAGE / module).read_text()).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)


def test_every_module_has_the_test_file_of_its_name():
    """Except names alone, and packages, whose exports are tested where they are defined."""
    needed = [m for m in MODULES if m.name != "__init__.py" and defines_something(m)]
    assert [str(m) for m in needed if not (TESTS / file_of(m)).is_file()] == []


def test_every_test_file_has_the_name_of_a_module():
    found = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    strangers = found - set(map(file_of, MODULES))
    assert {str(file) for file in strangers if file.parts[0] not in ELSEWHERE} == set(
        OF_SEVERAL_MODULES
    )


def test_git_ignores_what_commands_write_into_the_current_folder():
    ignored = (TESTS.parent / ".gitignore").read_text().split()
    texts = [file.read_text() for file in (TESTS.parent / "conf").glob("*.yaml")]
    folders = re.findall(r"^(?:out|\s+dir): (\w+)\b", "\n".join(texts), re.MULTILINE)
    assert set(folders) == {"report", "benchmark", "runs", "null"}
    assert {f"/{name}/" for name in {"analysis", *folders} - {"null"}} <= set(ignored)
