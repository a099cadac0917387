"""`%load_ext turncell` and `%unload_ext turncell`."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from turncell.notebook.bridge import KernelBridge

_RUN = ("turncell.runtime.run", "Run")
_FORMATS = ("text/markdown", "text/html")


def load(shell: InteractiveShell) -> None:
    """Register the magics, and how a Run looks in an output."""
    from turncell.notebook.magics import AgentMagics

    shell.register_magics(AgentMagics(shell))
    for mime, formatter in _formatters(shell):
        formatter.for_type_by_name(*_RUN, lambda run, mime=mime: _render(run, mime))


def unload(shell: InteractiveShell) -> None:
    """Leave nothing behind."""
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("agent", None)
    magics = shell.magics_manager.registry.pop("AgentMagics", None)
    if magics in shell.configurables:
        shell.configurables.remove(magics)
    for _, formatter in _formatters(shell):
        formatter.deferred_printers.pop(_RUN, None)
        # IPython moves a printer here when the first object of its type is shown.
        for kind in [one for one in formatter.type_printers if (one.__module__, one.__name__) == _RUN]:
            formatter.type_printers.pop(kind)
    KernelBridge.current().close()


def _formatters(shell: InteractiveShell) -> list[tuple[str, Any]]:
    formatters = getattr(shell.display_formatter, "formatters", {})
    return [(mime, formatters[mime]) for mime in _FORMATS if mime in formatters]


def _render(run: Any, mime: str) -> str:
    from turncell.frames.transcript import mimebundle

    return str(mimebundle(run.state)[mime])
