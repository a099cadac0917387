from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab, jupyter_server

VERSIONS = ("6.31.0", "7.4.0")
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    return {
        **browser_type_launch_args,
        "executable_path": os.environ.get("CHROMIUM_PATH", "/usr/bin/chromium"),
        "args": flags.split(),
    }


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    return {**browser_context_args, "viewport": {"width": 1200, "height": 900}}


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab") / "notebooks"


@pytest.fixture(scope="session")
def server(notebooks: Path) -> Iterator[str]:
    notebooks.mkdir()
    with jupyter_server(notebooks) as url:
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All on the newest kernel; on the older one what is marked `every_kernel`, and the rest with TURNCELL_FULL=1."""
    if "version" not in metafunc.fixturenames:
        return
    has_all = any(marker.name == "every_kernel" for marker in metafunc.definition.iter_markers())
    older, newest = VERSIONS
    marks = () if has_all else (pytest.mark.full,)
    metafunc.parametrize(
        "version",
        [pytest.param(older, marks=marks, id=f"ipykernel-{older}"), pytest.param(newest, id=f"ipykernel-{newest}")],
    )


@pytest.fixture
def lab(page: Page, server: str, notebooks: Path, request: pytest.FixtureRequest) -> Callable[..., Lab]:
    """`lab(kernel_version, cells)`: a new notebook with these cells, open and its kernel idle."""
    count = 0

    def open_notebook(version: str, cells: list[str]) -> Lab:
        nonlocal count
        count += 1
        name = f"{request.node.name.replace('[', '-').replace(']', '')}-{count}.ipynb"
        return Lab(page, server, notebooks, name, f"py-{version}", cells)

    return open_notebook
