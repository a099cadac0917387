"""The notebooks of this project where nobody attends: every runner ends, in time, without a question."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in HERE.glob("*.ipynb"))
LIMIT_S = 240
"""For machines that do much else; alone it takes a few seconds for each notebook."""


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TURNCELL_MODEL": "embedded",
        "TURNCELL_STORE": str(folder / "history.sqlite"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def executed(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def check_unattended(path: Path) -> None:
    """It ran to its end, nothing in it needs a kernel to be read, and what had to be asked was denied."""
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip()), path
    shown = [output for cell in code for output in cell.outputs]
    assert not any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown), path
    if path.name.startswith("01"):
        answers = "".join(str(output.data.get("text/markdown", "")) for output in shown if "data" in output)
        assert "Denied by the unattended policy" in answers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The notebooks as a repository has them: executed, and here without what they have shown."""
    copy = shutil.copytree(HERE, tmp_path / "notebooks")
    for path in copy.glob("*.ipynb"):
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(book, path)
    return copy


@pytest.mark.feature("D6")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", [NOTEBOOKS[:1], pytest.param(NOTEBOOKS, marks=pytest.mark.full)])
def test_jupyter_execute_runs_the_notebooks(folder: Path, names: list[str]) -> None:
    executed(folder, "jupyter", "execute", "--inplace", "--timeout=120", *names)
    for name in names:
        check_unattended(folder / name)


@pytest.mark.feature("D6")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", [NOTEBOOKS[0], *(pytest.param(name, marks=pytest.mark.full) for name in NOTEBOOKS[1:])]
)
def test_papermill_runs_a_notebook(folder: Path, name: str) -> None:
    executed(folder, "papermill", name, "done.ipynb", "--execution-timeout", "120", "--no-progress-bar")
    done = (folder / "done.ipynb").rename(folder / f"{name[:2]}-done.ipynb")
    check_unattended(done)
