"""A turn in a cell: who is there to see and answer it, how it is shown while it goes on, and what stays.

Decided once per run, by what the kernel knows:
1. nobody can answer (`allow_stdin` is false: nbclient, papermill, nbval): the unattended policy, one static output;
2. a kernel's front end: a live view. If the view's hello has not come after HELLO_S, what waits is asked on the
   keyboard (the stdin channel), said in one line;
3. a terminal: live text and the keyboard.

At the end the static transcript stands in place of the view: a saved widget without its kernel shows an error.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from concurrent.futures import Future
from typing import Any, TextIO

from turncell import settings
from turncell.core.fold import RunState
from turncell.errors import AnswerRefused
from turncell.notebook.bridge import KernelBridge
from turncell.notebook.terminal import TextView, question
from turncell.runtime.run import Run

HELLO_S = 3.0
"""How long a view has to say hello before the keyboard is used instead."""


def run_turn(start: Callable[[bool, str | None], Run], *, keep_view: bool = False) -> Run:
    """Start a run by `start(is_attended, cell_id)`, show it, wait for its end. Raises TurnInterrupted."""
    bridge = KernelBridge.current()
    is_attended = bridge.allow_stdin()
    if not bridge.has_kernel:
        return _in_terminal(bridge, start, is_attended)
    if not is_attended:
        run = start(False, bridge.cell_id())
        try:
            _wait(bridge, run)
        finally:
            _show_static(run.state)
        return run
    return _with_view(bridge, start, keep_view)


def _with_view(bridge: KernelBridge, start: Callable[[bool, str | None], Run], keep_view: bool) -> Run:
    from IPython.display import display, update_display

    from turncell.notebook.widgets import RunView

    with bridge.listening():
        view = RunView()
        shown = display(
            {**view._repr_mimebundle_()[0], "text/plain": "agent turn (no live view here)"},
            raw=True, display_id=True,
        )  # fmt: skip
        run = start(True, bridge.cell_id())
        view.follow(run)
        keyboard = _Keyboard(bridge, run, view.link.hello)
        try:
            _wait(bridge, run)
        finally:
            keyboard.close()
            with suppress(TimeoutError):
                view.link.close().result(2)
            if not keep_view:
                update_display(_static(run.state), raw=True, display_id=shown.display_id)
                view.close()
    return run


def _in_terminal(bridge: KernelBridge, start: Callable[[bool, str | None], Run], is_attended: bool) -> Run:
    run = start(is_attended, None)
    run.subscribe(TextView(sys.stdout))
    here: Future[None] = Future()
    keyboard = _Keyboard(bridge, run, here, wait_s=0.0) if is_attended else None
    try:
        _wait(bridge, run)
    finally:
        if keyboard is not None:
            keyboard.close()
        run.drain()
    return run


def _wait(bridge: KernelBridge, run: Run) -> None:
    with _Echo(run):
        bridge.wait(run.done, on_interrupt=lambda: run.cancel("interrupted"))
    run.result()


class _Echo:
    """The text of the run in the file that the setting `echo` names."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        path = settings.current().echo
        if path:
            self._file = open(path, "a", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed in __exit__)
            self._run.subscribe(TextView(self._file))

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._run.drain()
            self._file.close()


class _Keyboard:
    """Asks what waits in a run through `input()`, unless a view has said hello in time."""

    def __init__(self, bridge: KernelBridge, run: Run, hello: Future[None], wait_s: float = HELLO_S) -> None:
        self._bridge, self._run, self._hello, self._wait_s = bridge, run, hello, wait_s
        self._is_closed = threading.Event()
        threading.Thread(target=self._main, name="turncell-keyboard", daemon=True).start()

    def close(self) -> None:
        self._is_closed.set()

    def _main(self) -> None:
        try:
            self._hello.result(self._wait_s)
            return  # a view is there, and what it sends arrives
        except TimeoutError:
            pass
        is_told = self._wait_s == 0.0
        while not self._is_closed.wait(0.05):
            for call in self._run.requests:
                if not is_told:
                    is_told = True
                    self._bridge.run_on_main(print, "No live view has answered here: approvals are asked on the keyboard.")
                assert call.request is not None
                try:
                    said = self._bridge.ask_line(question(call)).strip()
                except Exception:  # no keyboard after all, or interrupted: the time limit or the interrupt decides
                    return
                is_yes = said.lower() in ("y", "yes")
                reason = said.partition(" ")[2] if said.lower().split(" ")[0] in ("n", "no") else said
                answered = self._run.answer(
                    call.request.request_id, "approve" if is_yes else "deny", digest=call.digest, reason="" if is_yes else reason
                )
                with suppress(AnswerRefused):
                    answered.result()


def _static(state: RunState) -> dict[str, Any]:
    from turncell.frames.transcript import mimebundle

    return mimebundle(state)


def _show_static(state: RunState) -> None:
    from IPython.display import display

    display(_static(state), raw=True)


