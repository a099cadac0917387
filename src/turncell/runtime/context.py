"""What a running tool may want besides its arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

from turncell.core.events import Option
from turncell.core.parts import Json
from turncell.core.signals import Question
from turncell.errors import UsageError
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.options import number
from turncell.runtime.questions import make_question, read_answer

P = ParamSpec("P")
T = TypeVar("T")

Shown: TypeAlias = str | Mapping[str, Json]
"""A line of text, or a mime bundle such as `{"image/png": "<base64>", "text/plain": "a plot"}`."""


def _nowhere(_: object) -> None:
    """Where nobody listens: a tool that is called by hand."""


def _nobody(question: Question, timeout_s: float | None) -> Future[str]:
    raise UsageError(f"{question.question!r} can only be asked while a run calls the tool")


def _blocking(ask: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The same for tools that are not async: it waits for the answer."""

    @wraps(ask)
    def ask_blocking(*args: P.args, **options: P.kwargs) -> T:
        loop = BackgroundLoop.current()
        if loop.is_here:
            raise UsageError("ask_blocking would block the loop that runs live on; use 'await context.ask(...)'")
        return loop.spawn(ask(*args, **options)).result()

    ask_blocking.__doc__ = "`ask` for tools that are not async."
    return ask_blocking


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a running tool can use besides its arguments: annotate a parameter with this type to get it.

    progress(shown)  show a line of text, or a mime bundle, on the card; from any thread
    is_cancelled()   whether the run was stopped, or this attempt has passed its time limit
    notice(text)     tell the model something with the person's next message
    file(path)       list a file that the call has produced
    ask(question)    ask the person who attends the run; `ask_blocking` in a tool that is not async
    call_id, run_id, session_id, idempotency_key
    """

    call_id: str
    run_id: str
    session_id: str
    progress: Callable[[Shown], None] = _nowhere
    is_cancelled: Callable[[], bool] = lambda: False
    notice: Callable[[str], None] = _nowhere
    file: Callable[[str], None] = _nowhere
    put: Callable[[Question, float | None], Future[str]] = _nobody
    """How a question reaches a person; `ask` and `ask_blocking` are made of it."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this call, and for no other call: for services that take such a key."""
        return self.call_id

    async def ask(
        self,
        question: str,
        options: Iterable[str | Option] = (),
        *,
        allows_text: bool | None = None,
        allows_many: bool = False,
        default: str | None = None,
        timeout_s: float | None = None,
    ) -> str | list[str]:
        """Ask the person who attends the run; gives the answer, with `allows_many` the list of answers.

        Without options any text is an answer; with options only their labels are, unless `allows_text`. After
        `timeout_s` seconds (None: the run's limit for requests), or where nobody attends, `default` is the answer.
        Raises Declined where there is none: nobody was there, nobody answered in time, or the person declined.
        """
        number("timeout_s", timeout_s)
        asked = make_question(question, options, allows_text, allows_many, default)
        return read_answer(await asyncio.wrap_future(self.put(asked, timeout_s)), allows_many)

    ask_blocking = _blocking(ask)
