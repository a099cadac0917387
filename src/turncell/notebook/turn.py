"""A turn in a cell: who is there to see and answer it, how it is shown while it goes on, and what stays.

Decided once per run, by what the kernel knows:
1. nobody can answer (`allow_stdin` is false: nbclient, papermill, nbval): the unattended policy, one static output;
2. a kernel's front end: a live view. If the view's hello has not come after HELLO_S, what waits is asked on the
   keyboard (the stdin channel), said in one line;
3. a terminal: live text and the keyboard.

At the end the static transcript stands in place of the view: a saved widget without its kernel shows an error.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias, cast

from turncell import settings
from turncell.core.events import Event, RequestOpened, RunEnded
from turncell.core.fold import CallState
from turncell.errors import AnswerRefused, SettingError, UsageError
from turncell.notebook.bridge import ASK_POLL_S, KernelBridge, QuestionGone, TurnInterrupted
from turncell.notebook.host import LIMITS, NO_PAGE_YET, host
from turncell.notebook.line import edit_text, editor
from turncell.notebook.terminal import Said, TextView, question, read_arguments, read_line_as, view_for
from turncell.runtime.agent import Agent
from turncell.runtime.approvals import UNATTENDED
from turncell.runtime.prompts import Prompt
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor

if TYPE_CHECKING:
    from turncell.notebook.live_text import LiveText

View: TypeAlias = Literal["live", "keep", "text", "none"]
NO_VIEW = "No live view answers here: what waits is asked on the keyboard."
"""Said with what is known of the host (`LIMITS`), where that is anything."""
NO_KEYBOARD = "no keyboard"
HELLO_S = 3.0
"""How long a view has to say hello before the keyboard is used instead."""


def run_turn(start: Callable[[bool], Run], *, view: View = "live", detach: bool = False) -> Run:
    """Start a run by `start(is_attended)`, show it, wait for its end. Raises TurnInterrupted.

    `view` is how it is shown: "live", "keep" (live, and the view stays), "text" (printed), "none". With `detach` it goes
    on when this returns, if somebody attends: what nobody looks at has to be complete when the cell ends.
    """
    bridge = KernelBridge.current()
    is_attended = bridge.allow_stdin()
    with _Echo() as echo, nullcontext() if detach else bridge.holding_interrupts():

        def begin(is_attended: bool) -> Run:
            run = start(is_attended)
            echo.follow(run)
            return run

        if detach and is_attended:
            return _detached(bridge, begin, view)
        if not bridge.has_kernel or view in ("text", "none"):
            return _in_terminal(bridge, begin, is_attended, view)
        if not is_attended:
            return _unattended(bridge, begin)
        return _with_view(bridge, begin, view == "keep")


def show(what: Agent | Run, prompt: Prompt | None = None, **options: Any) -> Run:
    """Ask an agent, or take a run that is going on, and show it live here until it has ended; returns the run.

    What the run asks is asked on the keyboard in a terminal, and on a card in a notebook. `options` are those of
    `agent.start`. Ctrl-C ends the run; pressed twice it raises KeyboardInterrupt.
    """
    started: list[Run] = []
    if isinstance(what, Run):
        if prompt is not None or options:
            raise UsageError(
                "show(run) takes nothing else; to say more in its session: show(agent, prompt, session=...)"
            )
        started.append(what)
    elif not isinstance(cast(object, what), Agent):
        raise UsageError(f"show takes an Agent and a prompt, or a Run; found {what!r}")
    elif prompt is None:
        raise UsageError("show(agent, prompt) needs a prompt")

    def start(is_attended: bool) -> Run:
        if not isinstance(what, Run):
            assert prompt is not None
            started.append(what.start(prompt, **{"is_attended": is_attended, **options}))
        return started[0]

    try:
        run_turn(start)
    except TurnInterrupted:
        if not started or not started[0].is_done:
            raise
    return started[0]


def show_again(run: Run) -> None:
    """Draw a run that is going on once more, live, in the running cell; a terminal waits for it."""
    bridge = KernelBridge.current()
    if bridge.has_kernel:
        _settle_later(bridge, run, _Shown(bridge, run, is_detached=True), is_kept=False)
    else:  # to the front: nobody else draws it
        _in_terminal(bridge, lambda _: run, run.state.is_attended, "live")


def _unattended(bridge: KernelBridge, start: Callable[[bool], Run]) -> Run:
    from IPython.display import display

    run = start(False)
    try:
        _wait(bridge, run)
    finally:
        display(_static(run), raw=True)
    if host() == "voila" and any(call.judged_by == UNATTENDED.by for call in run.tool_calls):
        print(NO_PAGE_YET)  # noqa: T201
    return run


def _with_view(bridge: KernelBridge, start: Callable[[bool], Run], is_kept: bool) -> Run:
    with bridge.listening():
        run = start(True)
        with _not_unseen(bridge, run):
            shown = _Shown(bridge, run)
            try:
                with _Keyboard(bridge, run, shown.view.link.hello, wait_s=HELLO_S):
                    _wait(bridge, run)
            finally:
                shown.settle(is_kept)
    return run


def _detached(bridge: KernelBridge, start: Callable[[bool], Run], view: View) -> Run:
    run = start(True)
    if not bridge.has_kernel or view in ("text", "none"):
        print(f"{run.id} goes on; %agent requests tells what it waits for, %agent stop ends it")  # noqa: T201
        if view != "none":
            run.subscribe(_Notices())
        return run
    with _not_unseen(bridge, run):
        _settle_later(bridge, run, _Shown(bridge, run, is_detached=True), is_kept=view == "keep")
    return run


class _Shown:
    """A live view in an output of the running cell; when its run has ended, the static transcript stands there."""

    def __init__(self, bridge: KernelBridge, run: Run, *, is_detached: bool = False) -> None:
        from IPython.display import display

        from turncell.notebook.widgets import RunView

        self.view, self._run, self._bridge, self._is_detached = RunView(), run, bridge, is_detached
        bundle = {
            **self.view.mimebundle(),
            "text/plain": "A turn in progress; this front end shows no live view.",
        }
        self._display = display(bundle, raw=True, display_id=True)
        self.view.follow(run)

    def settle(self, is_kept: bool) -> None:
        from IPython.display import update_display

        with suppress(TimeoutError):
            self.view.link.close().result(2)
        if not is_kept:
            update_display(_static(self._run), raw=True, display_id=self._display.display_id)
            # A page that has come since knows nothing of this display, and one that is closed hears nothing: there the
            # file has the view, which without its model would be an error.
            if self._is_detached or self.view.link.pages > 1:
                self._bridge.keep(self.view.close)
            else:
                self.view.close()


def _settle_later(bridge: KernelBridge, run: Run, shown: _Shown, *, is_kept: bool) -> None:
    """When the run has ended, whatever cell is running then. Clicks arrive until then, also beside another cell."""
    leave = bridge.take_clicks()

    def settle() -> None:
        concurrent.futures.wait([run.done])
        leave()
        shown.settle(is_kept)

    # In a copy of the cell's context, so that what is shown lands in this cell.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(settle,), name="turncell-detached", daemon=True).start()


class _Notices:
    """Says in a line when a run that goes on without a view asks for something, and when it ends."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, RequestOpened):
            print(f"{event.run_id} waits for an answer; %agent requests shows it")  # noqa: T201
        elif isinstance(event, RunEnded):
            print(f"{event.run_id} is {event.status}; %agent show draws it")  # noqa: T201


def _in_terminal(bridge: KernelBridge, start: Callable[[bool], Run], is_attended: bool, view: View) -> Run:
    run = start(is_attended)
    with _not_unseen(bridge, run), _printed(view) as shown:
        leave = run.subscribe(shown) if shown is not None else None
        try:
            with _Keyboard(bridge, run, Future(), wait_s=0.0, shown=shown) if is_attended else nullcontext():
                _wait(bridge, run)
        finally:
            run.drain()
            if leave is not None:
                leave()
    return run


def _printed(view: View) -> AbstractContextManager[TextView | LiveText | None]:
    if view == "none":
        return nullcontext()
    return TextView(sys.stdout) if view == "text" else view_for(sys.stdout)


def _wait(bridge: KernelBridge, run: Run) -> None:
    with _not_unseen(bridge, run):
        bridge.wait(run.done, on_interrupt=lambda: run.cancel("interrupted"))
        run.result()


@contextmanager
def _not_unseen(bridge: KernelBridge, run: Run) -> Iterator[None]:
    """However this is left, the run does not go on where nobody sees it; one that ends with its kernel can be resumed."""
    try:
        yield
    except BaseException:
        if not bridge.is_ending:
            run.cancel("interrupted")
        raise


def _static(run: Run) -> dict[str, Any]:
    from turncell.frames.transcript import mimebundle

    return mimebundle(run.state, run.inner_runs)


class _Echo:
    """The text of a run in the file that the setting `echo` names, opened before there is a run that it could fail."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._run: Run | None = None

    def __enter__(self) -> _Echo:
        path = settings.current().echo
        if path:
            try:
                self._file = open(path, "a", encoding="utf-8", errors="replace")
            except OSError as error:
                raise SettingError(f"TURNCELL_ECHO is {path!r}, which cannot be written: {error.strerror}") from error
        return self

    def follow(self, run: Run) -> None:
        if self._file is not None:
            self._run = run
            self._leave = run.subscribe(TextView(self._file))

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.drain()
            self._leave()
        if self._file is not None:
            self._file.close()


class _Keyboard:
    """Asks what waits in a run through `input()`, unless a view says hello within `wait_s` seconds."""

    def __init__(
        self,
        bridge: KernelBridge,
        run: Run,
        hello: Future[None],
        *,
        wait_s: float,
        shown: TextView | LiveText | None = None,
    ) -> None:
        self._bridge, self._run, self._hello, self._wait_s, self._shown = bridge, run, hello, wait_s, shown
        self._over: Future[None] = Future()

    def __enter__(self) -> None:
        # In a copy of the cell's context, so that what is asked lands in this cell.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._main,), name="turncell-keyboard", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set_result(None)

    def _main(self) -> None:
        either = concurrent.futures.wait([self._hello, self._over], self._wait_s, concurrent.futures.FIRST_COMPLETED)
        if either.done:
            return  # a view is there, and what it sends arrives; or nothing is left to ask
        has_told = not self._wait_s
        while not concurrent.futures.wait([self._over], ASK_POLL_S).done:
            for call in self._run.requests:
                if not self._is_open(call):  # answered elsewhere while another was asked
                    continue
                if not has_told:  # only now: a turn that asks nothing needs no keyboard
                    has_told = True
                    self._tell(" ".join((NO_VIEW, *filter(None, [LIMITS.get(host())]))))
                try:
                    with self._asking(call) as asked:
                        said = self._bridge.ask_line(asked, partial(self._is_open, call))
                    answer = self._read(call, said.strip())
                except QuestionGone:
                    continue
                except EOFError:  # Ctrl-D, or a terminal that is gone: nobody will answer by its time limit
                    if call.request is not None and call.request.kind == "in_doubt":
                        self._run.cancel(NO_KEYBOARD)  # it stays in doubt
                        return
                    self._answer(call, Said("deny", reason=NO_KEYBOARD))
                except Exception:  # no stdin channel, where a view may still come; or interrupted, and the run ends
                    return
                else:
                    if isinstance(answer, str):
                        self._tell(answer)
                    else:
                        self._answer(call, answer)

    def _asking(self, call: CallState) -> AbstractContextManager[str]:
        return self._shown.asking(call) if self._shown is not None else nullcontext(redactor().text(question(call)))

    def _is_open(self, call: CallState) -> bool:
        return not self._over.done() and any(other.request == call.request for other in self._run.requests)

    def _tell(self, text: str) -> None:
        if not self._bridge.has_kernel:
            print(text)  # noqa: T201
            return
        told = self._bridge.run_on_main(print, text)
        with suppress(Exception):
            told.result(5)
        told.cancel()  # else it would stand in a later cell

    def _read(self, call: CallState, line: str) -> Said | str:
        """The answer that a line is, where it asks for an editor with what comes out of that; or why it is none."""
        assert call.request is not None
        answer = read_line_as(call.request, line)
        if isinstance(answer, str) or answer.decision != "edit":
            return answer
        inner = call.request.name != ""
        arguments = (call.request.arguments if inner else call.arguments) or {}
        shown = redactor().value(arguments)
        if answer.arguments is None:
            if self._bridge.has_kernel or not editor():
                return 'write the arguments behind it, e {"name": value}; a terminal opens $EDITOR where that is set'
            text = json.dumps(shown, ensure_ascii=False, indent=2) + "\n"
            with self._asking(call):
                try:
                    edited = self._bridge.ask(partial(edit_text, text, ".json"), partial(self._is_open, call))
                except OSError as error:
                    return f"the editor could not be used: {error}"
            answer = read_arguments(edited)
            if isinstance(answer, str) or answer.arguments is None:
                return answer
        if answer.arguments == shown:
            return "nothing was changed"
        # What was hidden from the screen and left as it is, is meant as it is.
        kept = {n: arguments[n] if n in arguments and v == shown[n] else v for n, v in answer.arguments.items()}
        return replace(answer, arguments=kept)

    def _answer(self, call: CallState, said: Said) -> None:
        asked = call.request
        assert asked is not None
        try:
            self._run.answer(
                asked.request_id, said.decision, digest=asked.digest, reason=said.reason, result=said.result,
                scope=said.scope, arguments=said.arguments,
            ).result()  # fmt: skip
        except AnswerRefused as error:
            if self._is_open(call):  # else answered elsewhere meanwhile
                self._tell(str(error))
