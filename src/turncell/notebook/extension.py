"""`%load_ext turncell` and `%unload_ext turncell`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import TraitError

from turncell import settings
from turncell.errors import SettingError

IDLE_S = 1.0
"""How long nothing has run before LiteLLM is imported: two seconds of work that would slow the cell beside it."""
_RUN = ("turncell.runtime.run", "Run")
_FORMATS = ("text/markdown", "text/html")
_remove_completion: Callable[[], None] = lambda: None  # noqa: E731


def load(shell: InteractiveShell) -> None:
    """Register the magics, and how a Run looks in an output."""
    from turncell.notebook import completion
    from turncell.notebook.cell_errors import CellErrors
    from turncell.notebook.magics import TurncellMagics, without_comments_above
    from turncell.runtime.project import unaccepted_servers, use_project

    try:
        settings.current()
    except SettingError as error:  # nothing is loaded, for a mode that was meant to be stricter would not count
        raise UsageError(str(error)) from None
    if said := "\n".join(filter(None, (use_project(), unaccepted_servers()))):
        print(said)  # noqa: T201
    try:
        magics = TurncellMagics(shell)
    except TraitError as error:
        raise UsageError(f"{str(error).rstrip('.')}; correct c.TurncellMagics in IPython's configuration") from None
    _WarmUp.begin(shell)
    CellErrors.of(shell)
    shell.register_magics(magics)
    shell.input_transformers_cleanup.append(without_comments_above)
    global _remove_completion
    _remove_completion = completion.install(shell, lambda: magics.notebook, magics.cell.parser)
    for mime, formatter in _formatters(shell):
        formatter.for_type_by_name(*_RUN, lambda run, mime=mime: _render(run, mime))


def unload(shell: InteractiveShell) -> None:
    """Leave nothing behind."""
    from turncell.notebook.cell_errors import CellErrors
    from turncell.notebook.magics import without_comments_above

    _WarmUp.end(shell)
    with suppress(ValueError):
        shell.input_transformers_cleanup.remove(without_comments_above)
    _remove_completion()
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("agent", None)
    magics = shell.magics_manager.registry.pop("TurncellMagics", None)
    if magics in shell.configurables:
        shell.configurables.remove(magics)
    for _, formatter in _formatters(shell):
        formatter.deferred_printers.pop(_RUN, None)
        # IPython moves a printer here when the first object of its type is shown.
        for kind in [one for one in formatter.type_printers if (one.__module__, one.__name__) == _RUN]:
            formatter.type_printers.pop(kind)
    CellErrors.of(shell).close()
    if (servers := sys.modules.get("turncell.adapters.mcp_tools")) is not None:
        servers.close_servers()
    bridge = sys.modules.get("turncell.notebook.bridge")
    if bridge is not None:  # else no turn was ever run
        bridge.KernelBridge.current().close()


class _WarmUp:
    """Imports LiteLLM while the person reads or types, where the default model needs it.

    It begins when no cell has run for a second, so that Run All, and whoever is quick, does not pay for it.
    """

    _current: _WarmUp | None = None

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    @classmethod
    def begin(cls, shell: InteractiveShell) -> None:
        cls.end(shell)
        cls._current = made = cls()
        shell.events.register("pre_run_cell", made._busy)
        shell.events.register("post_run_cell", made._idle)

    @classmethod
    def end(cls, shell: InteractiveShell) -> None:
        old, cls._current = cls._current, None
        if old is not None:
            old._busy(None)
            for event, told in (("pre_run_cell", old._busy), ("post_run_cell", old._idle)):
                # A shell that was made anew in this process never knew of it.
                with suppress(ValueError):
                    shell.events.unregister(event, told)

    def _busy(self, info: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _idle(self, result: object) -> None:
        self._busy(None)
        if "litellm" not in sys.modules:
            self._timer = threading.Timer(IDLE_S, _warm_up)
            self._timer.daemon = True
            self._timer.start()


def _warm_up() -> None:
    # A setting or a name that is wrong is told where a model is asked, and not from here.
    with suppress(Exception):
        from turncell.notebook import cell  # noqa: F401  (with the whole runtime)
        from turncell.runtime import defaults

        model = defaults.model(None)
        if type(model).__name__ == "LiteLLMModel":
            from turncell.adapters.litellm_model import warm_up

            warm_up()


def _formatters(shell: InteractiveShell) -> list[tuple[str, Any]]:
    formatters = getattr(shell.display_formatter, "formatters", {})
    return [(mime, formatters[mime]) for mime in _FORMATS if mime in formatters]


def _render(run: Any, mime: str) -> str:
    from turncell.frames.transcript import mimebundle

    return mimebundle(run.state, run.inner_runs, (mime,))[mime]
