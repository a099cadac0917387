"""Run: one turn of a session, from a person's message to its end. What people hold in their hands.

Every method works from a script, from a cell, from inside any running event loop and from any thread: the run itself
lives on the background loop.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from turncell.core.events import Answer, AnsweredBy, CallProgress, Event, MessageAdded, PartialSaved
from turncell.core.fold import CallState, RunState, as_deltas
from turncell.core.parts import Json, Message, Usage
from turncell.errors import AnswerRefused, RunError, UsageError
from turncell.runtime.approvals import check_answer
from turncell.runtime.bus import Subscriber, Subscription
from turncell.runtime.loop import BackgroundLoop

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver
    from turncell.runtime.session import Session


class Run:
    """A run in progress or ended.

    `await run`, `run.result()` and `async for event in run` may be used together and more than once.
    """

    def __init__(self, run_id: str, session: Session, driver: Driver, loop: BackgroundLoop) -> None:
        self.id = run_id
        self.session = session
        self._driver = driver
        self._loop = loop
        self.done: Future[RunState] = Future()
        """Done when the run has ended and is in the journal."""

    # What it is.

    @property
    def state(self) -> RunState:
        """Everything that is known, as an immutable value; with the text that is being written right now."""
        return self._driver.state

    @property
    def status(self) -> str:
        """running, waiting (for a person), completed, failed, cancelled, max_steps, timeout, truncated."""
        return self.state.status

    @property
    def is_done(self) -> bool:
        """Ended, and in the journal."""
        return self.done.done()

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.state.text

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of this run as the model sees them."""
        return self.state.messages()

    @property
    def tool_calls(self) -> tuple[CallState, ...]:
        return self.state.calls

    @property
    def requests(self) -> tuple[CallState, ...]:
        """The calls that wait for an answer; `call.request` says what is asked."""
        return self.state.open_requests

    @property
    def usage(self) -> Usage:
        return self.state.usage

    @property
    def cost_usd(self) -> float | None:
        """US dollars; None where the cost of a step is not known."""
        return self.state.cost_usd

    @property
    def events(self) -> tuple[Event, ...]:
        """The recorded events so far."""
        return tuple(self._driver.recorded)

    # Waiting for it.

    def result(self, timeout_s: float | None = None) -> Run:
        """Wait for the end. Raises TimeoutError when `timeout_s` seconds have passed; the run goes on."""
        if self._loop.is_here:
            raise UsageError("run.result() would block the loop that the run lives on; in async tools use 'await run'")
        self.done.result(timeout_s)
        return self

    def __await__(self) -> Generator[Any, None, Run]:
        async def wait() -> Run:
            await asyncio.shield(asyncio.wrap_future(self.done))
            return self

        return wait().__await__()

    def raise_for_status(self) -> Run:
        """Raise RunError unless the run has completed; returns the run."""
        state = self.state
        if state.status != "completed":
            raise RunError(state.status, state.error_kind, state.error or f"the run is {state.status}")
        return self

    # Watching it.

    async def __aiter__(self) -> AsyncIterator[Event]:
        subscription = Subscription(self._driver.bus)
        self._loop.call(lambda: self._driver.bus.add(subscription, self.so_far())).result()
        async for event in subscription:
            yield event

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Send every event, from the run's first, to a callable (sync or async) or a queue; returns what ends it.

        A callable runs in a thread of its own, an async one on the loop; one that raises or stalls harms nobody. A `queue.Queue`
        or `asyncio.Queue` that is full is waited for; meanwhile deltas are merged, nothing else is.
        """
        try:
            queue_loop = asyncio.get_running_loop()
        except RuntimeError:
            queue_loop = None
        if not callable(subscriber) and not isinstance(subscriber, asyncio.Queue | queue.Queue):
            raise UsageError(f"a subscriber is a callable, a queue.Queue or an asyncio.Queue; found {subscriber!r}")
        end = self._loop.call(lambda: self._driver.bus.pump(subscriber, queue_loop, self.so_far())).result()
        return lambda: self._loop.call(end).result()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End every subscription of this subscriber."""
        self._loop.call(lambda: self._driver.bus.unpump(subscriber)).result()

    def drain(self, timeout_s: float = 2.0) -> None:
        """After the end: wait until the subscribers have got everything, at most `timeout_s` seconds."""
        with suppress(TimeoutError):
            self._loop.spawn(self._driver.bus.drain()).result(timeout_s)

    def attach(self, sink: Callable[[Sequence[Event]], None]) -> None:
        """A sink of our own views: called with each burst on the background loop; it must return at once."""
        self._loop.call(lambda: self._driver.bus.attach(sink)).result()

    def so_far(self) -> list[Event]:
        """What a newcomer must fold before the next burst: the record, and the text of each step as deltas. On the loop."""
        state = self.state
        steps = {step.step: step for step in state.steps}
        events: list[Event] = []
        for event in self._driver.recorded:
            if isinstance(event, MessageAdded) and event.step in steps:
                events += as_deltas(self.id, steps[event.step])
            if not isinstance(event, PartialSaved):
                events.append(event)
        if state.steps and state.steps[-1].message is None:
            events += as_deltas(self.id, state.steps[-1])
        events += [CallProgress(self.id, c.step, c.call_id, c.progress) for c in state.calls if c.progress]
        return events

    # Steering it.

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """End the run as cancelled, from any thread; one that has ended is left alone."""
        self._loop.call(lambda: self._driver.stop("cancelled", "cancelled", reason))

    def answer(
        self,
        request_id: str,
        decision: Answer,
        *,
        digest: str | None,
        arguments: str | Mapping[str, Json] | None = None,
        reason: str = "",
        result: str | None = None,
        by: AnsweredBy = "person",
    ) -> Future[None]:
        """Answer a request. The future raises AnswerRefused where the answer cannot be taken; the first one wins.

        `digest` is that of the arguments that were shown; `arguments` (a dict or JSON text) go with "edit",
        `result` with "result".
        """

        def take() -> None:
            call = next((c for c in self.state.calls if c.request and c.request.request_id == request_id), None)
            signal = check_answer(
                call, self._driver.tools, at=time.time(), decision=decision, by=by, digest=digest,
                arguments=arguments, reason=reason, result=result,
            )  # fmt: skip
            self._driver.feed(signal)

        return self._loop.call(take)

    def approve(self, call: CallState | None = None, *, arguments: Mapping[str, Json] | None = None) -> None:
        """Approve a call that waits (the first, if none is given), with other arguments if given."""
        call = call or self._first_request()
        assert call.request is not None
        decision: Answer = "approve" if arguments is None else "edit"
        self.answer(call.request.request_id, decision, digest=call.digest, arguments=arguments).result()

    def deny(self, reason: str = "", call: CallState | None = None) -> None:
        """Deny a call that waits (the first, if none is given); the model reads the reason."""
        call = call or self._first_request()
        assert call.request is not None
        self.answer(call.request.request_id, "deny", digest=call.digest, reason=reason).result()

    def _first_request(self) -> CallState:
        requests = self.requests
        if not requests:
            raise AnswerRefused(f"nothing waits for an answer in this run; it is {self.status}")
        return requests[0]

    def __repr__(self) -> str:
        state = self.state
        text = state.text if len(state.text) <= 60 else state.text[:59] + "…"
        return f"<Run {state.status}, {len(state.steps)} step{'s' * (len(state.steps) != 1)}: {text!r}>"
