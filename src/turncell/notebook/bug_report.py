"""`%agent doctor --report PATH`: one Markdown file for a bug report, to be read before it is sent.

It holds no prompt, no answer, no argument and no result of a call: only what was used, and how it went. All of it is
redacted as everything that leaves the program is.
"""

from __future__ import annotations

import platform
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

from turncell import settings
from turncell.core.fold import RunState
from turncell.frames.visible import visible
from turncell.notebook.bridge import KernelBridge
from turncell.notebook.doctor import report
from turncell.notebook.notebook import Notebook
from turncell.runtime import private_files
from turncell.runtime.secrets import redactor, refresh

_PACKAGES = (
    "turncell", "ipython", "ipykernel", "jupyter_client", "jupyterlab", "notebook", "ipywidgets", "anywidget", "comm", "pyzmq",
    "tornado", "litellm", "aiohttp", "pydantic", "orjson", "sqlalchemy", "pandas", "nest-asyncio", "mcp",
)  # fmt: skip
_RUNS = 20


def write_report(notebook: Notebook, path: Path) -> Path:
    """Write it, readable by nobody else; an existing file is not overwritten (FileExistsError)."""
    refresh()
    text = redactor().text("\n\n".join(_sections(notebook))) + "\n"
    with open(path, "x", encoding="utf-8", opener=private_files.opener) as file:
        file.write(text)
    return path.resolve()


def _sections(notebook: Notebook) -> list[str]:
    bridge = KernelBridge.current()
    front = "a kernel" if bridge.has_kernel else "a terminal or a script"
    session = notebook.session
    runs = session.runs[-_RUNS:] if session is not None else []
    return [
        "# turncell: report of a problem",
        "What I did, what I expected, and what happened instead:",
        "## Ready and missing",
        _fenced(report()),
        "## Where it runs",
        _fenced(
            f"{platform.platform()}, Python {sys.version.split()[0]}\n"
            f"{front}; tap {'available' if bridge.tap.available else 'not available'}; "
            f"somebody can answer: {'yes' if bridge.allow_stdin() else 'no'}\n"
            f"threads: {', '.join(sorted({_kind(one.name) for one in threading.enumerate()}))}"
        ),
        "## Packages",
        _fenced("\n".join(f"{name} {_version(name)}" for name in _PACKAGES)),
        "## Settings",
        _fenced(repr(settings.current())),
        "## The last runs of this notebook, without their texts",
        _fenced("\n".join(map(_told, runs)) or "none"),
    ]


def _told(run: RunState) -> str:
    calls = [f"{call.name}: {call.status}" for step in run.steps for call in step.calls]
    parts: list[Any] = [
        run.run_id, run.status, run.model, f"{len(run.steps)} steps",
        f"{run.error_kind or ''} {visible(run.error or '')}".strip(), "; ".join(calls),
    ]  # fmt: skip
    return " | ".join(str(part) for part in parts if part)


def _kind(name: str) -> str:
    """Threads of one pool are one kind."""
    return name.rstrip("0123456789").rstrip("-_")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
