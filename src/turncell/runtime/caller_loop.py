"""The event loop that a run was started from, for tools with `loop="caller"`.

Objects of asyncio belong to one loop: an HTTP session or a database pool that was opened in a cell, or in a script's
`main`, fails on the loop that runs live on. A coroutine that needs such an object is handed over to the loop of
whoever started the run. That loop may be blocked meanwhile, by a cell that waits for this very run: whoever blocks it
asks `has_work` and lets it go on (the bridge of the notebook does).
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from turncell.errors import say
from turncell.runtime.loop import BackgroundLoop

BEGIN_S = 30.0
"""How long a coroutine waits for its loop to come to it."""

_loop: contextvars.ContextVar[asyncio.AbstractEventLoop | None] = contextvars.ContextVar(
    "turncell_caller", default=None
)
_open: dict[object, asyncio.AbstractEventLoop] = {}
"""What has been handed over and is not done, with its loop."""
_lock = threading.Lock()


class LoopNotServed(RuntimeError):
    """The loop that has started the run did not come to a coroutine; nothing of it has run."""


class called_from:
    """Runs started in this block are started from this loop; None leaves it as it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._caller = loop
        self._token: contextvars.Token[asyncio.AbstractEventLoop | None] | None = None

    def __enter__(self) -> None:
        if self._caller is not None and self._caller is not BackgroundLoop.current().loop:
            self._token = _loop.set(self._caller)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _loop.reset(self._token)


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def has_work(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether a coroutine waits for this loop to go on. Any thread."""
    with _lock:
        return loop is not None and any(other is loop for other in _open.values())


async def on_caller_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await the coroutine on the loop that the run was started from; where none was running, here.

    Cancelling cancels it there. Raises LoopNotServed where that loop is closed or does not come to it.
    """
    loop = _loop.get()
    if loop is None:
        return await coroutine
    done: Future[Any] = Future()
    begun: Future[None] = Future()
    token = object()
    tasks: list[asyncio.Task[Any]] = []

    def finish(task: asyncio.Task[Any]) -> None:
        _forget(token)
        if task.cancelled():
            done.cancel()
        elif not done.cancelled():
            error = task.exception()
            if error is None:
                done.set_result(task.result())
            else:
                done.set_exception(error)

    def start() -> None:
        if done.cancelled():
            coroutine.close()
            _forget(token)
            return
        begun.set_result(None)
        task = loop.create_task(_contained(coroutine))
        tasks.append(task)
        task.add_done_callback(finish)

    with _lock:
        _open[token] = loop
    try:
        loop.call_soon_threadsafe(start)
    except RuntimeError as closed:
        _forget(token)
        coroutine.close()
        raise LoopNotServed("the event loop that started this run is closed; its objects cannot be used") from closed
    try:
        await asyncio.wait([asyncio.wrap_future(begun)], timeout=BEGIN_S)
        if not begun.done():
            done.cancel()
            if not begun.done():
                raise LoopNotServed(
                    f"the event loop that started this run was blocked for {BEGIN_S:g} s, and the tool has not begun; "
                    "wait for the run with %%agent or 'await agent.run(...)', not with run_sync or run.result()"
                )
        return await asyncio.shield(asyncio.wrap_future(done))
    except asyncio.CancelledError:
        if not begun.done():
            done.cancel()
        for task in tasks:
            with suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        if not begun.done():
            _forget(token)


def _forget(token: object) -> None:
    with _lock:
        _open.pop(token, None)


async def _contained(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as stop:  # either would end the loop, which is not ours
        raise RuntimeError(f"the tool ended with {say(stop)}") from stop
