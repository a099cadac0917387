"""The walls: imports point downward only, and the core stays pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "turncell"
LAYERS = ("core", "runtime", "adapters", "frames", "notebook")
BESIDE = {"errors": "core", "settings": "core"}
"""Modules beside the layers, and the layer whose rules hold for them."""
LAZY_DEFAULTS = PACKAGE / "runtime" / "defaults.py"
"""The one place of the runtime that may know adapters."""
MAY_IMPORT_ALL = {
    "__init__",
    "examples",
    "marimo",
    "widgets",
    "testing",
    "testing_server",
    "testing_model",
    "testing_store",
    "testing_wire",
}
IMPURE = {
    "asyncio",
    "time",
    "random",
    "secrets",
    "threading",
    "os",
    "pathlib",
    "socket",
    "subprocess",
    "io",
    "uuid",
    "datetime",
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str | None:
    """core, runtime ... of a dotted name in this package; None for what stands beside and may import all."""
    name = module.removeprefix("turncell.").split(".")[0]
    return name if name in LAYERS else BESIDE.get(name)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if own in MAY_IMPORT_ALL:
        return
    layer = layer_of(own)
    assert layer is not None, f"{own} belongs to no layer"
    for name in imported(path):
        if not name.startswith("turncell.") or path == LAZY_DEFAULTS:
            continue
        target = layer_of(name)
        if target is not None:
            assert LAYERS.index(target) <= LAYERS.index(layer), (
                f"{own} ({layer}) imports {name} ({target}), which lies above it"
            )


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_is_pure(path: Path) -> None:
    impure = {name for name in imported(path) if name.split(".")[0] in IMPURE}
    assert not impure, f"{path.name} imports {impure}: no clock, no randomness, no I/O and no asyncio in the core"
    tree = ast.parse(path.read_text())
    asynchronous = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    assert not asynchronous or path.name == "nucleus.py"


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import turncell", ("litellm", "pandas", "IPython", "anywidget", "pydantic", "sqlalchemy")),
        (
            "from turncell import Agent, tool, Rule",
            ("litellm", "pandas", "IPython", "anywidget", "sqlalchemy"),
        ),
        ("import turncell.adapters.litellm_model", ("litellm",)),
        ("import turncell.adapters.direct_chat", ("litellm", "openai", "aiohttp")),
    ],
)
def test_importing_is_cheap(statement: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys; {statement}; print([name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
