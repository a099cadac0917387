"""Which notebook shows this kernel's cells, as far as anything here says so. docs/hosts.md has what was tested in each.

What a turn does never depends on a guess: the view's hello decides (see turn.py). The host decides only what is said
where no view answers, and in marimo how the page gets its code and whose requests are shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from turncell.notebook.bridge import running_shell

Host: TypeAlias = Literal["colab", "marimo", "voila", "vscode", "jupyter", "python"]
"""`jupyter` is every front end of a kernel that does not say what it is; `python` has no kernel."""

LIMITS: Mapping[str, str] = {
    "vscode": "VS Code may hold back what a view sends while a cell runs; %%agent --detach ends the cell at once.",
    "colab": "Colab may hold back what a view sends while a cell runs, or want "
    "google.colab.output.enable_custom_widget_manager() first.",
}
"""What to know of a host where no view has answered."""
NO_PAGE_YET = (
    "Voilà runs the cells before there is a page, so nobody was asked: turncell.widgets.Chat asks where it is shown."
)


def host(environment: Mapping[str, str] = os.environ, modules: Mapping[str, Any] = sys.modules) -> Host:
    """The host of this process."""
    if is_marimo(modules):
        return "marimo"
    kernel = getattr(running_shell(), "kernel", None)
    if "google.colab" in modules:
        return "colab"
    if environment.get("SERVER_SOFTWARE", "").startswith("voila/"):
        return "voila"
    if kernel is not None and ("VSCODE_PID" in environment or "VSCODE_CWD" in environment):
        return "vscode"
    return "jupyter" if kernel is not None else "python"


def is_marimo(modules: Mapping[str, Any] = sys.modules) -> bool:
    """Whether this is a marimo notebook or app: it has no IPython, and is there before the first cell runs."""
    return "marimo" in modules and running_shell() is None


def has_many_people() -> bool:
    """Whether other people's sessions share this process: `marimo run` gives each page a thread of one process."""
    if not is_marimo():
        return False
    import marimo

    return bool(marimo.app_meta().mode == "run")
