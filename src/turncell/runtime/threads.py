"""Blocking code of other people, each call in a daemon thread that runs nothing else meanwhile.

asyncio's default executor has a few threads and joins them at exit: a handful of calls that hang would stop every
other one and keep the process from ending. Here a call never waits for a thread: one that is idle takes it, and where
there is none a new one is made. An idle thread ends after IDLE_S seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import operator
import os
import queue
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar

from turncell.errors import say

P = ParamSpec("P")
T = TypeVar("T")

IDLE_S = 10.0


async def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` in a daemon thread with the caller's context. Raises what it raises, SystemExit included.

    Cancelling the waiting task leaves the thread behind: Python has no way to end it.
    """
    work: Work[T] = Work(asyncio.get_running_loop())
    return await work.begin(fn, *args, **kwargs)


class Work(Generic[T]):
    """A call in a thread that one task waits for, which costs a fraction of a `concurrent.futures.Future` chained to it."""

    __slots__ = ("_is_over", "_landing", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._landing: asyncio.Future[T] | None = None
        self._is_over = False

    def done(self) -> bool:
        """Whether the thread is through with it, also where nobody waits any more."""
        return self._is_over

    def begin(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> asyncio.Future[T]:
        """What will come of `fn(*args, **kwargs)`. On the loop."""
        context = contextvars.copy_context()

        def job() -> None:
            try:
                result: Any = context.run(fn, *args, **kwargs)
            except BaseException as error:
                landed: tuple[Any, BaseException | None] = None, _carried(error)
            else:
                landed = result, None
            self._is_over = True
            with suppress(RuntimeError):  # the loop was closed: nobody is there to be told
                self._loop.call_soon_threadsafe(self._land, *landed)
            del landed  # an error knows this frame

        landing = self._landing = self._loop.create_future()
        _hand(job)
        return landing

    def _land(self, result: T, error: BaseException | None) -> None:
        landing, self._landing = self._landing, None  # which would hold an error that knows this work
        if landing is None or landing.cancelled():
            return
        if error is not None:
            landing.set_exception(error)
        else:
            landing.set_result(result)


def in_background(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """What will come of `fn`, which has begun in a daemon thread with the caller's context. From any thread."""
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

    _hand(job)
    return done


def _hand(job: Callable[[], None]) -> None:
    try:
        worker = _idle.pop()  # the latest: the others may grow old and end
    except IndexError:
        worker = _Worker()
        worker.start()
    worker.jobs.put(job)


async def in_context(context: contextvars.Context, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in a context of its own, in the task that is there already."""
    try:
        rest = _rest(coroutine, context.run(coroutine.send, None), context.run)
    except StopIteration as end:
        value: T = end.value
        return value
    return await rest


async def within(limit_s: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await it for at most so many seconds, else TimeoutError. What never waits (most checks only look) costs no timer."""
    try:
        rest = _rest(coroutine, coroutine.send(None))
    except StopIteration as end:
        value: T = end.value
        return value
    async with asyncio.timeout(limit_s):
        return await rest


@types.coroutine
def _rest(
    coroutine: Coroutine[Any, Any, T], awaited: Any, run: Callable[..., Any] = operator.call
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
        # An error knows this frame, which must not know the error, nor what has it.
        awaited = None
        try:
            awaited = run(resume, given)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            given = None


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
