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
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import BuiltinMethodType, MethodType
from typing import Any, TypeAlias

from turncell.core.events import (
    ArgumentsDelta,
    CallProgress,
    Event,
    ReasoningDelta,
    Said,
    TextBurst,
    TextDelta,
    one_by_one,
)
from turncell.runtime.threads import in_background

log = logging.getLogger("turncell")

BUFFER = 512
"""Events in a buffer before its deltas are merged; the text of one burst counts as one."""

_DELTAS = (TextDelta, ReasoningDelta, ArgumentsDelta)

Subscriber: TypeAlias = Callable[[Event], Any] | asyncio.Queue[Event] | queue.Queue[Event]


def merge_deltas(said: Sequence[Said]) -> list[Event]:
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

    for one in said:
        event = one.whole() if isinstance(one, TextBurst) else one
        kind = type(event)
        if kind in _DELTAS:
            if kind is type(last) and last.block == event.block and last.step == event.step:  # type: ignore[union-attr]
                pieces.append(event.text)  # type: ignore[union-attr, arg-type]
                last = event  # the latest piece knows the name of a call best
                continue
            close()
            last = event
            merged.append(event)
            pieces.append(event.text)  # type: ignore[union-attr, arg-type]
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


class _Buffer(ABC):
    """What one consumer has yet to get: filled on the run's loop, emptied wherever the consumer lives."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._events: list[Said] = []
        self._limit = BUFFER
        self.is_added = False
        """The bus knows of it: from then on the end of the run is its end too."""
        self._lock = threading.Lock()
        """The consumer may live in another thread: without it, what is being merged would be taken, and given twice."""

    def push(self, events: Sequence[Said]) -> None:
        """From the run's loop."""
        if not events:
            return
        with self._lock:
            is_asleep = not self._events
            self._events.extend(events)
            if len(self._events) > self._limit:
                self._events = [*merge_deltas(self._events)]
                self._limit = max(BUFFER, 2 * len(self._events))
        if is_asleep:  # else it was woken for what is still there
            self.wake()

    @abstractmethod
    def wake(self) -> None:
        """Have the consumer look at the buffer again; from the run's loop, returns at once."""

    def close(self) -> None:
        self._bus.drop(self)

    def move(self, bus: Bus) -> None:
        """To a bus of the same loop."""
        self._bus = bus

    def _take(self) -> list[Said] | None:
        """What is there; None when the run has ended and all was given."""
        is_over = self.is_added and self._bus.is_closed  # asked first: what came before the end must not be missed
        with self._lock:
            taken, self._events = self._events, []
            self._limit = BUFFER
        return None if is_over and not taken else taken


class Subscription(_Buffer):
    """A buffer between the run's loop and one consumer on any loop; `close()` ends it."""

    def __init__(self, bus: Bus, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(bus)
        self._loop = loop or asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._loop is self._bus.loop:
            self._go_on()
            return
        try:
            self._loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:
            log.debug("the loop of a consumer was closed: nobody is there to wake")

    def _go_on(self) -> None:
        """On the consumer's loop: what wakes it before it waits has come before it looked, or it would be waiting."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def burst(self) -> list[Said]:
        """The next events, as many as there are; an empty list when the run has ended and all was given.

        Whoever is cancelled while he waits has missed nothing, and may ask again.
        """
        while True:
            taken = self._take()
            if taken is None:
                return []
            if taken:
                return taken
            if self._waiting is not None and not self._waiting.done():
                raise RuntimeError("somebody waits for the next event of this iterator already; give each its own")
            self._waiting = self._loop.create_future()
            await self._waiting


class Events(AsyncIterator[Event]):
    """The events of a subscription one by one. No generator: that would be at its end when a wait for an event times out.

    `end` is called when nobody reads any more: after the last event, by `aclose`, or when this is let go of.
    """

    def __init__(self, subscription: Subscription, end: Callable[[], object]) -> None:
        self._subscription: Subscription | None = subscription
        self._end = end
        self._rest: Iterator[Event] = iter(())

    async def __anext__(self) -> Event:
        while True:
            for event in self._rest:
                return event
            events = [] if self._subscription is None else await self._subscription.burst()
            if not events:
                self._close()
                raise StopAsyncIteration
            self._rest = one_by_one(events)

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._subscription is not None:
            self._subscription, self._rest = None, iter(())
            self._end()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # in a forked child there is no loop to tell
            self._close()


class _ThreadSubscription(_Buffer):
    """A buffer between the run's loop and one thread."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self._ready = threading.Event()
        self._closed = threading.Event()

    def wake(self) -> None:
        self._ready.set()

    def close(self) -> None:
        super().close()
        self._closed.set()
        self.wake()

    def feed(self, take: Callable[[Event], Any]) -> None:
        """`take(event)` for each event until the run has ended or the subscription is closed; on the thread."""
        while not self._closed.is_set():
            self._ready.clear()
            taken = self._take()
            if taken is None:
                return
            for event in one_by_one(taken):
                if self._closed.is_set():
                    return
                try:
                    take(event)
                except BaseException:
                    log.exception("subscriber %r raised on %s", take, event.type)
            if not taken:
                self._ready.wait()

    def put(self, target: queue.Queue[Event], event: Event) -> None:
        """Wait for a full queue, but not for ever where nobody subscribes any more."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                target.put(event, timeout=0.5)
                return


@dataclass(slots=True, eq=False)
class _Pump:
    """What feeds one callable or queue."""

    subscriber: Subscriber
    done: asyncio.Future[None]
    end: Callable[[], Any]


class Bus:
    """Publishes on the run's loop. Every method belongs to that loop's thread, but `add_early`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_closed = False
        self._is_silent = True
        """Nothing was said yet, and nobody who listens has moved elsewhere."""
        self._silence = threading.Lock()
        self._subscriptions: list[_Buffer] = []
        self._sinks: tuple[Callable[[Sequence[Said]], None], ...] = ()
        self._pumps: list[_Pump] = []

    def attach(self, sink: Callable[[Sequence[Said]], None]) -> None:
        """A sink of our own (journal, view): called with each burst, on the loop; it must return at once."""
        if not self.is_closed:
            self._sinks += (sink,)

    def publish(self, events: Sequence[Said]) -> None:
        if self._is_silent:
            self._end_silence()
        for sink in self._sinks:
            try:
                sink(events)
            except Exception:
                log.exception("a sink of the bus raised: %r", sink)
        for subscription in tuple(self._subscriptions):
            subscription.push(events)

    def add_early(self, subscription: _Buffer) -> bool:
        """`add` from any thread, for who comes before the first word. False where it is too late for that."""
        with self._silence:
            if self._is_silent:
                subscription.move(self)
                subscription.is_added = True
                self._subscriptions.append(subscription)
            return self._is_silent

    def _end_silence(self) -> None:
        with self._silence:
            self._is_silent = False

    def add(self, subscription: _Buffer, so_far: Sequence[Said]) -> None:
        """From now on, after `so_far`."""
        subscription.move(self)  # its run may have been joined with another since it was made
        subscription.push(so_far)
        subscription.is_added = True
        if self.is_closed:
            subscription.wake()
        else:
            self._subscriptions.append(subscription)

    def absorb(self, other: Bus) -> None:
        """Whoever listens to another bus, on which nothing was said yet, listens to this one from now on."""
        other._end_silence()
        for subscription in other._subscriptions:
            subscription.move(self)
        self._subscriptions += other._subscriptions
        self._sinks += other._sinks
        self._pumps += other._pumps
        other._subscriptions, other._sinks, other._pumps = [], (), self._pumps

    def drop(self, subscription: _Buffer) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def drain(self) -> None:
        """Wait until every callable and queue has got everything; the run must have ended."""
        await asyncio.gather(*(pump.done for pump in self._pumps), return_exceptions=True)

    def close(self) -> None:
        """The run has ended: consumers get what is left and then the end.

        They are woken in the next turn of the loop: by then the run is done, and who waits for that next need not be
        woken for it.
        """
        self._end_silence()
        self.is_closed = True
        self._sinks = ()  # which hold who watches, and what that holds
        if self._subscriptions:
            self.loop.call_soon(_wake, self._subscriptions)
            self._subscriptions = []

    def pump(
        self, subscriber: Subscriber, queue_loop: asyncio.AbstractEventLoop | None, so_far: Sequence[Said]
    ) -> Callable[[], None]:
        """Feed a callable or a queue from a task or a daemon thread of its own, so that one that stalls stalls alone.

        Returns what ends it, on the loop. The same subscriber may be fed more than once; each time is a pump of its own.
        """
        if isinstance(subscriber, asyncio.Queue) or _is_async(subscriber):
            subscription = Subscription(self, self.loop)
            self.add(subscription, so_far)
            task = self.loop.create_task(_pump(subscription, subscriber, queue_loop))
            pump = _Pump(subscriber, task, task.cancel)
        else:
            blocking = _ThreadSubscription(self)
            self.add(blocking, so_far)
            take = partial(blocking.put, subscriber) if isinstance(subscriber, queue.Queue) else subscriber
            done = in_background(blocking.feed, take)
            pump = _Pump(subscriber, asyncio.wrap_future(done, loop=self.loop), blocking.close)
        self._pumps.append(pump)
        pump.done.add_done_callback(lambda _: self._forget(pump))
        return lambda: self._end(pump)

    def unpump(self, subscriber: Subscriber) -> None:
        """End every pump of this subscriber."""
        # A method is a new object each time it is looked up, and equal to itself.
        is_method = isinstance(subscriber, MethodType | BuiltinMethodType)
        for pump in tuple(self._pumps):
            if pump.subscriber is subscriber or (is_method and pump.subscriber == subscriber):
                self._end(pump)

    def _end(self, pump: _Pump) -> None:
        if self._forget(pump):
            pump.end()

    def _forget(self, pump: _Pump) -> bool:
        """Whether it was known."""
        is_known = pump in self._pumps
        if is_known:
            self._pumps.remove(pump)
        return is_known


def _wake(subscriptions: Sequence[_Buffer]) -> None:
    for subscription in subscriptions:
        subscription.wake()


def _is_async(call: Any) -> bool:
    while isinstance(call, partial):
        call = call.func
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


async def _pump(subscription: Subscription, subscriber: Any, queue_loop: asyncio.AbstractEventLoop | None) -> None:
    try:
        while events := await subscription.burst():
            if isinstance(subscriber, asyncio.Queue):
                await _put_async(subscriber, events, queue_loop)
                continue
            for event in one_by_one(events):
                try:
                    await subscriber(event)
                except BaseException as error:  # SystemExit too: it would end the loop of all runs
                    task = asyncio.current_task()
                    is_ended = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
                    if is_ended or isinstance(error, GeneratorExit):
                        raise
                    log.exception("subscriber %r raised on %s", subscriber, event.type)
    finally:
        subscription.close()


async def _put_async(target: asyncio.Queue[Event], events: list[Said], loop: asyncio.AbstractEventLoop | None) -> None:
    async def put() -> None:
        for event in one_by_one(events):
            await target.put(event)

    if loop is None or loop is asyncio.get_running_loop():
        await put()
    elif not loop.is_closed():
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(put(), loop))
