"""Run a coroutine on a loop that is in the middle of a callback: the notebook's own, while a cell blocks it.

asyncio refuses this, because nothing else of the loop's state would be expected to change under the callback. Here
the callback is a cell that does nothing but wait for us. nest_asyncio does the same by replacing parts of asyncio for
the whole process and for good (its C tasks by Python ones, `asyncio.run`); stepping out of the running callback, and
back into it, needs a few lines and leaves nothing behind. The names are private: where one of them has gone, nest_asyncio is
applied, then and not before; where that cannot be done either (uvloop), the error says so.

One iteration of a loop runs as many callbacks as were ready when it began. Those that run here are missed out there, and
an iteration that finds none would end the loop with an IndexError: empty ones take their places. And no context can be
entered twice: what the loop wants to run in the context of the blocked callback (in ipykernel 7 the next message of the
shell channel, such as a queued cell) has to wait until we are back. asyncio would only log it, and the cell be lost.
"""

from __future__ import annotations

import asyncio
from asyncio import events, tasks
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from turncell.errors import say

T = TypeVar("T")

LEAVE_S = 2.0
"""How long a coroutine that was interrupted has to end."""


class CannotReenter(RuntimeError):
    """This loop cannot run a coroutine while it is blocked."""


def run_here(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to its end on a loop of this thread, running or not. What interrupts it cancels the coroutine and is raised."""
    if loop.is_running() and not _can_step_out(loop):
        _apply_nest_asyncio(loop, coroutine)
        return loop.run_until_complete(coroutine)
    with _stepped_out(loop):
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                with suppress(BaseException):
                    loop.run_until_complete(asyncio.wait([task], timeout=LEAVE_S))
            if task.done() and not task.cancelled():
                task.exception()  # it is raised here, and needs no complaint of asyncio
            raise


def _can_step_out(loop: asyncio.AbstractEventLoop) -> bool:
    names = [
        (events, "_get_running_loop"),
        (events, "_set_running_loop"),
        (tasks, "_leave_task"),
        (tasks, "_enter_task"),
    ]
    has_names = all(hasattr(module, name) for module, name in names)
    return has_names and getattr(loop, "_thread_id", None) is not None and hasattr(loop, "_ready")


def _apply_nest_asyncio(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        import nest_asyncio

        nest_asyncio.apply(loop)
    except Exception as error:
        coroutine.close()
        raise CannotReenter(
            f"the notebook's loop is {type(loop).__name__}, which cannot go on while a cell waits ({say(error)}); "
            "wait with 'await agent.run(...)' in the place of %%agent"
        ) from error


@contextmanager
def _stepped_out(loop: Any) -> Iterator[None]:
    if not loop.is_running():
        yield
        return
    thread_id, task, ready = loop._thread_id, asyncio.current_task(loop), len(loop._ready)
    handler, later = loop.get_exception_handler(), list[Any]()

    def failed(loop: Any, failure: dict[str, Any]) -> None:
        if (handle := failure.get("handle")) is not None and _is_entered(handle):
            later.append(handle)
        else:
            (handler or type(loop).default_exception_handler)(loop, failure)

    loop.set_exception_handler(failed)
    if task is not None:
        tasks._leave_task(loop, task)
    loop._thread_id = None
    events._set_running_loop(None)
    try:
        yield
    finally:
        loop._thread_id = thread_id
        events._set_running_loop(loop)
        loop.set_exception_handler(handler)
        loop._ready.extend(later)
        for _ in range(ready - len(loop._ready)):
            loop.call_soon(_nothing)
        if task is not None:
            tasks._enter_task(loop, task)


def _is_entered(handle: Any) -> bool:
    """Whether its callback has not run because its context is in use."""
    try:
        handle._context.run(_nothing)
    except RuntimeError:
        return True
    return False


def _nothing() -> None:
    """Takes the place of a callback that has run already."""
