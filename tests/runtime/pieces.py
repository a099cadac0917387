"""What the tests of runs share: waiting without sleeping, a tool that can be held, a model that can be held."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from turncell import Run, Session, tool
from turncell.core.deltas import Fragment
from turncell.core.events import Event, RunEnded
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.ports import ModelRequest

LONG_S = 60.0
"""Far more than anything here takes, also on a loaded machine."""


def until(condition: Callable[[], Any], timeout_s: float = LONG_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def skip(seconds: float) -> None:
    """Let the loop that runs live on believe that so much time has passed: time limits within it are over now."""
    loop = BackgroundLoop.current().loop
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]
    loop.call_soon_threadsafe(lambda: None)  # it sleeps until what was the next moment


class Gate:
    """A point that is reached, and passed when it is opened; from a thread or from a coroutine."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(LONG_S), "nobody opened the gate"

    async def wait_async(self) -> None:
        self.reached.set()
        deadline = time.monotonic() + LONG_S
        while not self.opened.is_set():
            assert time.monotonic() < deadline, "nobody opened the gate"
            await asyncio.sleep(0.002)

    def was_reached(self) -> None:
        assert self.reached.wait(LONG_S), "the gate was not reached"

    def open(self) -> None:
        self.opened.set()

    def read_tool(self, name: str = "look") -> Any:
        """A read that waits at the gate."""

        @tool(effect="read", name=name)
        async def look() -> str:
            """Look."""
            await self.wait_async()
            return "seen"

        return look

    def say(self, *entry: Any) -> Callable[[ModelRequest], Any]:
        """An entry of a script that is given when the gate is opened."""

        async def answer(request: ModelRequest) -> Any:
            await self.wait_async()
            return list(entry)

        return answer


class Silent:
    """A provider that says nothing, or stops in the middle, until it is closed."""

    name = "silent"

    def __init__(self, first: str = "") -> None:
        self.first = first
        self.asked, self.closed = threading.Event(), threading.Event()

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        self.asked.set()
        try:
            if self.first:
                yield [self.first]
            await asyncio.sleep(60)
        finally:
            self.closed.set()


def told(model: Any, number: int) -> list[str]:
    """What a model was told in one of its requests: the texts of people, `name: result` of tools."""
    said = []
    for message in model.requests[number].messages:
        if message.role == "tool":
            said += [f"{part.name}: {part.content}" for part in message.parts]
        elif message.text:
            said.append(message.text)
    return said


def ends(run: Run) -> list[Event]:
    return [event for event in run.events if isinstance(event, RunEnded)]


def written(run: Run) -> tuple[Any, ...]:
    """The runs of its session as the journal has them."""
    return Session.load(run.session.id, run.session.journal).runs
