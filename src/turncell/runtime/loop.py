"""The one background event loop of this process, in a daemon thread of its own.

All runs live here, so that a run goes on whatever the user's thread does: it never needs a loop of the caller's, and
never meets "event loop already running". After a fork the child has no such thread; it gets a loop of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from turncell.errors import UsageError

log = logging.getLogger("turncell")

T = TypeVar("T")


async def finished(future: Future[T]) -> T:
    """Wait on any event loop for what another thread brings to its end. Whoever stops waiting leaves the future alone.

    It is `shield(wrap_future(future))` in one turn of the loop instead of three, and in none where the future is done.
    """
    if not future.done():
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def go_on() -> None:
            if not waiting.done():
                waiting.set_result(None)

        def wake(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(go_on)

        future.add_done_callback(wake)
        await waiting
    try:
        return future.result()
    except CancelledError as error:  # which is an error like any other, unlike that of asyncio
        raise asyncio.CancelledError from error


class BackgroundLoop:
    """An event loop in a thread. Every method may be called from any thread."""

    _current: BackgroundLoop | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._is_running = True
        """Until its thread is about to end."""
        self._thread = threading.Thread(target=self._main, name="turncell", daemon=True)
        self._thread.start()
        atexit.register(self._leave)

    @classmethod
    def current(cls) -> BackgroundLoop:
        """The loop of this process, started when first needed."""
        current = cls._current
        if current is not None and current._is_running and current.pid == os.getpid():
            return current
        with cls._lock:
            current = cls._current
            if current is None or not current._is_running or current.pid != os.getpid():
                current = cls._current = cls()
            return current

    @property
    def is_here(self) -> bool:
        """Whether the caller is on this loop's thread."""
        return threading.current_thread() is self._thread

    def call(self, fn: Callable[[], T]) -> Future[T]:
        """Run `fn()` on the loop, soon; at once if the caller is there already. The caller's context goes along."""
        self.check_process()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(fn())
            except BaseException as error:
                done.set_exception(error)

        if self.is_here:
            run()
        else:
            self.loop.call_soon_threadsafe(run, context=contextvars.copy_context())
        return done

    def begin(self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context) -> None:
        """Run a coroutine on the loop that says itself what becomes of it, in this context."""
        self._check(coroutine)
        self.loop.call_soon_threadsafe(partial(self.loop.create_task, coroutine, context=context), context=context)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, in a copy of the caller's context."""
        self._check(coroutine)
        context = contextvars.copy_context()
        done: Future[T] = Future()

        def finish(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                done.cancel()
                done.set_running_or_notify_cancel()
            elif (error := task.exception()) is not None:
                done.set_exception(error)
            else:
                done.set_result(task.result())

        def start() -> None:
            self.loop.create_task(coroutine, context=context).add_done_callback(finish)

        self.loop.call_soon_threadsafe(start)
        return done

    def _check(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            self.check_process()
        except UsageError:
            coroutine.close()
            raise

    def check_process(self) -> None:
        """Raises UsageError in a forked child."""
        if self.pid != os.getpid():  # nobody would ever run it
            raise UsageError(
                f"this run lives in the parent process {self.pid}, whose loop does not live in a forked child; "
                "begin a new run in the child"
            )

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            while True:
                try:
                    self.loop.run_forever()
                except (SystemExit, KeyboardInterrupt):
                    # asyncio lets these two through, of a task as of a callback; the other runs have no part in it.
                    log.exception("code on the background loop wanted to end the program; the loop goes on")
                else:
                    return
        finally:
            self._is_running = False

    def _leave(self) -> None:
        """The program ends: whatever is in the middle stays as it is in the record, and does not complain."""
        if self.pid != os.getpid() or not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1.0)
        for task in asyncio.all_tasks(self.loop):
            # As asyncio's own gather does; what asyncio says of a pending task is for a programmer who forgot it.
            task._log_destroy_pending = False  # type: ignore[attr-defined]


_left: list[Any] = []
"""The parent's loop and tasks, kept for ever in a forked child: collected, they would run their `finally` and complain."""


def _after_fork() -> None:
    BackgroundLoop._lock = threading.Lock()  # it may be held by a thread that does not exist in the child
    parents = BackgroundLoop._current
    if parents is not None:
        _left.append((parents, asyncio.all_tasks(parents.loop)))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
