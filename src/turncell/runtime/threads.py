"""Blocking code of other people, each call in a daemon thread that runs nothing else meanwhile.

asyncio's default executor has a few threads and joins them at exit: a handful of calls that hang would stop every
other one and keep the process from ending. Here a call never waits for a thread: one that is idle takes it, and where
there is none a new one is made. An idle thread ends after IDLE_S seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar, cast

from turncell.errors import say

P = ParamSpec("P")
T = TypeVar("T")

IDLE_S = 10.0


async def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` in a daemon thread with the caller's context. Raises what it raises, SystemExit included.

    Cancelling the waiting task leaves the thread behind: Python has no way to end it.
    """
    return await asyncio.wrap_future(in_background(fn, *args, **kwargs))


def in_background(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """What will come of `fn`, which has begun in a daemon thread with the caller's context."""
    done: Future[T] = Future()
    # Running from the start: whoever stops waiting must not make the thread fail when it is done.
    done.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def job() -> None:
        try:
            result: Any = context.run(fn, *args, **kwargs)
        except BaseException as error:
            done.set_exception(_carried(error))
        else:
            done.set_result(result)

    try:
        worker = _idle.pop()  # the latest: the others may grow old and end
    except IndexError:
        worker = _Worker()
        worker.start()
    worker.jobs.put(job)
    return done


async def in_context(context: contextvars.Context, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in a context of its own, in the task that is there already."""
    try:
        awaited = context.run(coroutine.send, None)
    except StopIteration as end:
        return cast(T, end.value)
    return await _rest(coroutine, awaited, context.run)


async def within(limit_s: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await it for at most so many seconds, else TimeoutError. What never waits (most checks only look) costs no timer."""
    try:
        awaited = coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    async with asyncio.timeout(limit_s):
        return await _rest(coroutine, awaited)


@types.coroutine
def _rest(
    coroutine: Coroutine[Any, Any, T], awaited: Any, run: Callable[..., Any] = lambda step, given: step(given)
) -> Generator[Any, Any, T]:
    """What is left of a coroutine that waits for something already; `run` takes each step of it."""
    resume: Callable[[Any], Any] = coroutine.send
    given: Any = None
    while True:
        try:
            given = yield awaited
            resume = coroutine.send
        except BaseException as error:
            given, resume = error, coroutine.throw
        try:
            awaited = run(resume, given)
        except StopIteration as end:
            return cast(T, end.value)


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="turncell-call", daemon=True)
        self.jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=IDLE_S)
            except queue.Empty:
                try:
                    _idle.remove(self)
                except ValueError:
                    continue  # somebody has just taken it: its job is about to come
                return
            job()
            del job  # what it holds is not this thread's
            _idle.append(self)


_idle: list[_Worker] = []
"""Threads without a job. Taking from a list and adding to it are atomic."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they do not live in the child


def _carried(error: BaseException) -> BaseException:
    """What would end the coroutine that waits, instead of being raised in it, cannot cross a future."""
    if not isinstance(error, StopIteration | GeneratorExit):
        return error
    carried = RuntimeError(say(error))
    carried.__cause__ = error
    return carried
