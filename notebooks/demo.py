"""`make demo`: the first notebook in a real kernel, its turns in the terminal while they happen.

The kernel writes each turn to a named pipe (the setting `echo`), which this process copies to the terminal. What it
leaves behind, the executed notebook and a page with the transcript, goes to `artifacts/`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
ARTIFACTS = HERE.parent / "artifacts"
NOTEBOOK = "01-first-turn.ipynb"


def copy_to_terminal(pipe: Path) -> None:
    """Copy until the process ends; a writer that goes away is not the end."""
    with open(os.open(pipe, os.O_RDWR), encoding="utf-8") as text:
        while piece := text.read(1):
            sys.stdout.write(piece)
            sys.stdout.flush()


def show_cell(cell: dict[str, Any]) -> None:
    """The outputs that are not a turn: those the pipe has shown already."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if output["output_type"] == "stream":
            print(output["text"], end="", flush=True)
        elif output["output_type"] == "error":
            print("\n".join(output["traceback"]), flush=True)
        elif "text/plain" in data and "text/markdown" not in data:
            print(data["text/plain"], flush=True)


def main() -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    notebook = nbformat.read(HERE / NOTEBOOK, as_version=4)
    page = ARTIFACTS / "first-turn.html"
    notebook.cells.append(nbformat.v4.new_code_cell(f'%agent export --overwrite "{page}"'))
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "turns"
        os.mkfifo(pipe)
        threading.Thread(target=copy_to_terminal, args=(pipe,), daemon=True).start()
        os.environ |= {
            "TURNCELL_ECHO": str(pipe),
            "TURNCELL_STORE": str(Path(folder) / "history.sqlite"),
            "TURNCELL_MODEL": "embedded",
        }
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
        )
        client.on_cell_start = lambda cell, cell_index: show_source(cell)
        client.on_cell_executed = lambda cell, cell_index, execute_reply: show_cell(cell)
        client.execute()
    notebook.cells.pop()
    nbformat.write(notebook, ARTIFACTS / NOTEBOOK)
    print(f"\nThe transcript as a page:  {page}\nThe executed notebook:     {ARTIFACTS / NOTEBOOK}")


def show_source(cell: dict[str, Any]) -> None:
    if cell["cell_type"] == "code":
        print("\n" + "\n".join(f"  │ {line}" for line in cell["source"].splitlines()), flush=True)


if __name__ == "__main__":
    main()
