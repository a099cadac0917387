"""The bus: hands the events of a run to those who watch, in bursts, and is harmed by none of them.

Each subscription has a buffer of its own. Publishing appends to the buffers and wakes each consumer once per burst;
it never waits. When a consumer is slower than the run, neighbouring deltas of its buffer are merged into one, so the
buffer is bounded by what must not be lost: recorded events are never dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from turncell.core.events import ArgumentsDelta, CallProgress, Event, ReasoningDelta, TextDelta

log = logging.getLogger("turncell")

BUFFER = 512
"""Events in a buffer before its deltas are merged."""

_DELTAS = (TextDelta, ReasoningDelta, ArgumentsDelta)

Subscriber: TypeAlias = Callable[[Event], Any] | asyncio.Queue[Event] | queue.Queue[Event]


def merge_deltas(events: Sequence[Event]) -> list[Event]:
    """Join neighbouring deltas of the same block; the text they carry is the same, their number is not.

    >>> merge_deltas([TextDelta("r", 1, 0, "a"), TextDelta("r", 1, 0, "b")])
    [TextDelta(run_id='r', step=1, block=0, text='ab', type='TextDelta')]
    """
    merged: list[Event] = []
    pieces: list[str] = []
    last: Any = None
    """The latest piece of the delta that grows, which is the last one of `merged`."""

    def close() -> None:
        if len(pieces) > 1:
            merged[-1] = replace(last, text="".join(pieces))
        pieces.clear()

    for event in events:
        kind = type(event)
        if kind in _DELTAS:
            if kind is type(last) and last.block == event.block and last.step == event.step:  # type: ignore[union-attr]
                pieces.append(event.text)  # type: ignore[union-attr]
                last = event  # the latest piece knows the name of a call best
                continue
            close()
            last = event
            merged.append(event)
            pieces.append(event.text)  # type: ignore[union-attr]
        else:
            close()
            last = None
            if isinstance(event, CallProgress) and merged and _same_progress(merged[-1], event):
                merged[-1] = event
            else:
                merged.append(event)
    close()
    return merged


def _same_progress(last: Event, event: CallProgress) -> bool:
    return isinstance(last, CallProgress) and last.call_id == event.call_id


class Subscription:
    """A buffer between the run's loop and one consumer on any loop.

    `async for event in subscription` gives every event until the run has ended. Leaving the loop early costs the run
    nothing; `close()` ends the subscription.
    """

    def __init__(self, bus: Bus, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._bus = bus
        self._buffer: list[Event] = []
        self._ready = asyncio.Event()
        self._loop = loop or asyncio.get_running_loop()
        self._limit = BUFFER
        self._lock = threading.Lock()
        """The consumer may live in another thread: without it, what is being merged would be taken, and given twice."""

    def push(self, events: Sequence[Event]) -> None:
        """From the run's loop."""
        with self._lock:
            is_asleep = not self._buffer
            self._buffer.extend(events)
            if len(self._buffer) > self._limit:
                self._buffer = merge_deltas(self._buffer)
                self._limit = max(BUFFER, 2 * len(self._buffer))
        if is_asleep:  # else it was woken for what is still there
            self.wake()

    def wake(self) -> None:
        if self._loop is self._bus.loop:
            self._ready.set()
        else:
            with contextlib.suppress(RuntimeError):  # the consumer's loop was closed: nobody is there to wake
                self._loop.call_soon_threadsafe(self._ready.set)

    async def burst(self) -> list[Event]:
        """The next events, as many as there are; an empty list when the run has ended and all was given."""
        while True:
            self._ready.clear()
            is_over = self._bus.is_closed  # asked first: what came before the end must not be missed
            with self._lock:
                taken, self._buffer = self._buffer, []
                self._limit = BUFFER
            if taken:
                return taken
            if is_over:
                return []
            await self._ready.wait()

    def close(self) -> None:
        self._bus.drop(self)

    async def __aiter__(self) -> Any:
        try:
            while events := await self.burst():
                for event in events:
                    yield event
        finally:
            self.close()


class Bus:
    """Publishes on the run's loop. Every method belongs to that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_closed = False
        self._subscriptions: list[Subscription] = []
        self._sinks: list[Callable[[Sequence[Event]], None]] = []
        self._pumps: dict[Any, asyncio.Task[None]] = {}

    def attach(self, sink: Callable[[Sequence[Event]], None]) -> None:
        """A sink of our own (journal, view): called with each burst, on the loop; it must return at once."""
        self._sinks.append(sink)

    def publish(self, events: Sequence[Event]) -> None:
        for sink in self._sinks:
            try:
                sink(events)
            except Exception:
                log.exception("a sink of the bus raised: %r", sink)
        for subscription in tuple(self._subscriptions):
            subscription.push(events)

    def add(self, subscription: Subscription, so_far: Sequence[Event]) -> None:
        """From now on, after `so_far`."""
        self._subscriptions.append(subscription)
        subscription.push(so_far)

    def drop(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def drain(self) -> None:
        """Wait until every callable and queue has got everything; the run must have ended."""
        await asyncio.gather(*self._pumps.values(), return_exceptions=True)

    def close(self) -> None:
        """The run has ended: consumers get what is left and then the end."""
        self.is_closed = True
        for subscription in tuple(self._subscriptions):
            subscription.wake()

    def pump(
        self, subscriber: Subscriber, queue_loop: asyncio.AbstractEventLoop | None, so_far: Sequence[Event]
    ) -> None:
        """Feed a callable or a queue from a task of its own, so that one that stalls stalls alone."""
        subscription = Subscription(self, self.loop)
        self.add(subscription, so_far)
        self._pumps[_key(subscriber)] = self.loop.create_task(_pump(subscription, subscriber, queue_loop))

    def unpump(self, subscriber: Subscriber) -> None:
        task = self._pumps.pop(_key(subscriber), None)
        if task is not None:
            task.cancel()


def _key(subscriber: Subscriber) -> Any:
    return subscriber if inspect.ismethod(subscriber) else id(subscriber)


async def _pump(
    subscription: Subscription, subscriber: Subscriber, queue_loop: asyncio.AbstractEventLoop | None
) -> None:
    try:
        while events := await subscription.burst():
            if isinstance(subscriber, asyncio.Queue):
                await _put_async(subscriber, events, queue_loop)
            elif isinstance(subscriber, queue.Queue):
                await asyncio.to_thread(_call_each, subscriber.put, events)
            elif inspect.iscoroutinefunction(subscriber):
                for event in events:
                    try:
                        await subscriber(event)
                    except Exception:
                        log.exception("subscriber %r raised on %s", subscriber, event.type)
            else:
                await asyncio.to_thread(_call_each, subscriber, events)
    finally:
        subscription.close()


async def _put_async(target: asyncio.Queue[Event], events: list[Event], loop: asyncio.AbstractEventLoop | None) -> None:
    async def put() -> None:
        for event in events:
            await target.put(event)

    if loop is None or loop is asyncio.get_running_loop():
        await put()
    elif not loop.is_closed():
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(put(), loop))


def _call_each(call: Callable[[Event], Any], events: list[Event]) -> None:
    for event in events:
        try:
            call(event)
        except BaseException:  # SystemExit too: it would end the loop of all runs
            log.exception("subscriber %r raised on %s", call, event.type)
