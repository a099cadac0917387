"""Runs as a notebook: each prompt as a `%%agent` cell, with its transcript as the static output of the cell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from turncell.core.fold import RunState
from turncell.frames.inside import Shown, to_show
from turncell.frames.markdown_source import inline_text
from turncell.frames.transcript import mimebundle
from turncell.runtime.options import text
from turncell.runtime.secrets import redactor


def export_ipynb(runs: Shown, title: str = "Transcript", inside: Iterable[RunState] = ()) -> str:
    """The text of a notebook (.ipynb, format 4.5), without secrets: what it shows needs neither turncell nor a kernel.

    Run again, it asks again: the first cell loads the extension, and the tools are to be given by whoever runs it.
    `runs` are a Run, a Session or runs in their order. Runs of sub-agents stand under their calls: those of a Run or a
    Session, and those of runs that are given `inside`.
    """
    known = redactor()
    shown, within = to_show(runs, inside)
    title = known.text(text("title", title))
    cells: list[dict[str, Any]] = [
        _cell("markdown", "title", f"# {inline_text(title)}"),
        _cell("code", "load", "%load_ext turncell"),
    ]
    for number, run in enumerate(shown, 1):
        prompt = known.text(run.prompt.text) if run.prompt else ""
        cell = _cell("code", f"{number}-{_ODD.sub('-', run.run_id)}"[:64], f"%%agent\n{prompt}")
        cell["execution_count"] = number + 1
        data = {kind: text.splitlines(keepends=True) for kind, text in mimebundle(run, within).items()}
        cell["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]
        cells.append(cell)
    metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    # A lone surrogate is an escape in JSON, and nothing that a file in UTF-8 could have.
    book = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, ensure_ascii=True, indent=1) + "\n"


_ODD = re.compile(r"[^a-zA-Z0-9_-]")


def _cell(kind: str, cell_id: str, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": cell_id,
        "metadata": {},
        "source": source.splitlines(keepends=True),
    }
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell
