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
LIMIT_S = 90

RUNNERS = {
    "jupyter execute": ["-m", "jupyter", "execute", "--output={done}", "--timeout=60", "{book}"],
    "papermill": ["-m", "papermill", "{book}", "{done}", "--execution-timeout", "60", "--no-progress-bar"],
}


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TURNCELL_MODEL": "embedded",
        "TURNCELL_STORE": str(folder / "history.sqlite"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


@pytest.mark.feature("D6")
def test_every_notebook_runs_where_nobody_attends(tmp_path: Path) -> None:
    """All at once, each in a kernel of its own: what takes time is starting them."""
    book_of = {runner: shutil.copytree(HERE, tmp_path / runner) for runner in RUNNERS}
    running = {}
    for runner, words in RUNNERS.items():
        for name in NOTEBOOKS:
            command = [word.format(book=name, done=f"done-{name}") for word in words]
            running[runner, name] = subprocess.Popen(
                [sys.executable, *command], cwd=book_of[runner], env=environment(tmp_path / runner),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
    said = {key: process.communicate(timeout=LIMIT_S)[0] for key, process in running.items()}
    assert {key: said[key][-2000:] for key, process in running.items() if process.returncode} == {}
    assert len(said) == len(RUNNERS) * len(NOTEBOOKS) >= 6
    for (runner, name), _ in running.items():
        done = nbformat.read(book_of[runner] / f"done-{name}", as_version=4)
        shown = [output for cell in done.cells for output in cell.get("outputs", [])]
        assert not any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown), name
        if name.startswith("01"):
            answers = "".join(str(output.data.get("text/markdown", "")) for output in shown if "data" in output)
            assert "Denied by the unattended policy" in answers and "3.5" in answers
