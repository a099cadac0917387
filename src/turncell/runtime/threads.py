"""Blocking code of other people, each call in a daemon thread of its own.

asyncio's default executor has a few threads and joins them at exit: a handful of calls that hang would stop every
other one and keep the process from ending. A thread costs some 50 µs, which nothing that is worth a thread notices.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from turncell.errors import say

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` in a new daemon thread with the caller's context. Raises what it raises, SystemExit included.

    Cancelling the waiting task leaves the thread behind: Python has no way to end it.
    """
    _, done = start_thread(fn, *args, **kwargs)
    return await asyncio.wrap_future(done)


def start_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> tuple[threading.Thread, Future[T]]:
    """The thread, begun, and what will come of it."""
    done: Future[T] = Future()
    # Running from the start: whoever stops waiting must not make the thread fail when it is done.
    done.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def main() -> None:
        try:
            result: Any = context.run(fn, *args, **kwargs)
        except BaseException as error:
            done.set_exception(_carried(error))
        else:
            done.set_result(result)

    thread = threading.Thread(target=main, name=f"turncell-{getattr(fn, '__name__', 'call')}", daemon=True)
    thread.start()
    return thread, done


def _carried(error: BaseException) -> BaseException:
    """What would end the coroutine that waits, instead of being raised in it, cannot cross a future."""
    if not isinstance(error, StopIteration | GeneratorExit):
        return error
    carried = RuntimeError(say(error))
    carried.__cause__ = error
    return carried
