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

from turncell.core.events import (
    Answer,
    AnsweredBy,
    CallProgress,
    Event,
    MessageAdded,
    PartialSaved,
    RequestKind,
    Scope,
)
from turncell.core.fold import CallState, RequestState, RunState, as_deltas
from turncell.core.parts import Json, Message, Usage
from turncell.core.policy import Rule
from turncell.core.signals import Answered, Steer
from turncell.errors import AnswerRefused, RunError, UsageError
from turncell.runtime.approvals import check_answer
from turncell.runtime.budget import Budget, limits_of
from turncell.runtime.bus import Subscriber, Subscription
from turncell.runtime.hooks import ToolUse
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.prompts import as_message, new_id
from turncell.runtime.rulebook import rulebook

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.driver import Driver
    from turncell.runtime.session import Session


class Run:
    """A run in progress or ended.

    `await run`, `run.result()` and `async for event in run` may be used together and more than once.
    """

    def __init__(self, run_id: str, session: Session, agent: Agent, driver: Driver, loop: BackgroundLoop) -> None:
        self.id = run_id
        self.session = session
        self._agent = agent
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
        """running, waiting (for a person), completed, failed, cancelled, max_steps, budget, timeout, truncated."""
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
    def output(self) -> Any:
        """The value of the type that was asked for with `output=`; None until the run has completed with one."""
        return self._driver.output if self.status == "completed" else None

    @property
    def is_tainted(self) -> bool:
        """The model has read what an untrusted tool returned."""
        return self.state.is_tainted

    @property
    def budget(self) -> Budget:
        """What the run and those inside it have spent, and may."""
        return self._driver.setup.budget

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

    def call_fragments(self, step: int | None = None) -> dict[str, str]:
        """The arguments of the calls of a step (the latest, if none is given) as far as they have arrived, by call id."""
        steps = self.state.steps
        chosen = steps[-1:] if step is None else [one for one in steps if one.step == step]
        return {call.call_id: call.arguments_text for one in chosen for call in one.calls}

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
        if not self.done.done():
            self._loop.check_process()
        self.done.result(timeout_s)
        return self

    def __await__(self) -> Generator[Any, None, Run]:
        async def wait() -> Run:
            if not self.done.done():
                self._loop.check_process()
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

    async def drained(self, timeout_s: float = 2.0) -> None:
        """`drain`, on any event loop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(self._loop.spawn(self._driver.bus.drain()))

    def attach(self, sink: Callable[[Sequence[Event]], None]) -> None:
        """A sink of our own views: called with each burst on the background loop; it must return at once."""
        self._loop.call(lambda: self._driver.bus.attach(sink)).result()

    def so_far(self) -> list[Event]:
        """What a newcomer must fold before the next burst: the record, and the text of each step as deltas. On the loop."""
        state = self.state
        steps = {step.step: step for step in state.steps}
        events: list[Event] = []
        for event in self._driver.recorded:
            if isinstance(event, MessageAdded) and event.message.role == "assistant" and event.step in steps:
                events += as_deltas(self.id, steps[event.step])
            if not isinstance(event, PartialSaved):
                events.append(event)
        if state.steps and state.steps[-1].message is None:
            events += as_deltas(self.id, state.steps[-1])
        events += [
            CallProgress(self.id, c.step, c.call_id, c.progress, c.progress_data)
            for c in state.calls
            if c.progress or c.progress_data
        ]
        return events

    # Steering it.

    def steer(self, message: str | Message) -> str:
        """Say something to the running agent: it reads it at its next boundary, and calls that have not begun are skipped.

        Recorded at once. Returns the id of the input. Raises UsageError where the run has ended.
        """
        said, input_id = as_message(message), new_id("inp")

        def take() -> None:
            if self._driver.is_over:
                raise UsageError(f"the run is {self.status}; use session.send(message) to go on")
            self._driver.feed(Steer(time.time(), input_id, said))

        self._loop.call(take).result()
        return input_id

    def follow_up(self, message: str | Message, **options: Any) -> Run:
        """A message for when the agent has stopped: a run of its own, with this one before it."""
        return self.session.send(message, agent=self._agent, **options)

    def set_budget(self, **limits: float | None) -> None:
        """Change the limits while it runs: `tokens`, `usd`, `seconds`, `steps`, `calls`; None lifts one. Recorded.

        Those of this run only: a Budget that it shares (`run.budget.parent`) holds besides, and is raised with its `set`.
        """
        self.budget.set(**limits)
        self._loop.call(lambda: self._driver.set_budget(limits_of(self.budget)))

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
        result: str | Sequence[str] | None = None,
        scope: Scope = "once",
        by: AnsweredBy = "person",
    ) -> Future[None]:
        """Answer a request. The future raises AnswerRefused where the answer cannot be taken; the first one wins.

        `digest` is that of what was shown; `arguments` (a dict or JSON text) go with "edit", `result` with "result":
        the answer to a question, or words in the tool's place. With `scope` "session" or "always" the decision holds
        for later calls of this tool too.
        """

        def take() -> Future[None] | None:
            """What is still to come of it, where the answer cannot be judged at once."""
            driver = self._driver
            if (mirrored := driver.mirrored(request_id)) is not None:
                inner, inner_id = mirrored
                inner_answer = inner.answer(
                    inner_id,
                    decision,
                    digest=digest,
                    arguments=arguments,
                    reason=reason,
                    result=result,
                    scope=scope,
                    by=by,
                )
                asked = next(c.request for c in self.state.calls if c.request and c.request.request_id == request_id)

                def inner_took() -> None:
                    if scope == "session" and by == "person":
                        # A sub-agent's own session ends with its task; "this session" is the one that the person is in.
                        rule = Rule(asked.name, "deny" if decision == "deny" else "allow", reason=reason)
                        self.session.remember(rule)

                if inner_answer.done():
                    inner_answer.result()
                    inner_took()
                    return None

                async def inner_judged() -> None:
                    await asyncio.wrap_future(inner_answer)
                    inner_took()

                return self._loop.spawn(inner_judged())
            call, signal = checked()
            if call is None or signal.answer != "edit":
                feed(call, signal)
                return None
            return self._loop.spawn(judged(call, signal))

        def checked() -> tuple[CallState | None, Answered]:
            call = next((c for c in self.state.calls if c.request and c.request.request_id == request_id), None)
            return call, check_answer(
                call, self._driver.setup.tools, at=time.time(), decision=decision, by=by, digest=digest,
                arguments=arguments, reason=reason, result=result, scope=scope,
            )  # fmt: skip

        async def judged(call: CallState, signal: Answered) -> None:
            """What denies the model's arguments denies a person's too: they were not seen when the call was judged."""
            setup = self._driver.setup
            use = ToolUse(call.call_id, call.name, signal.arguments or {}, call.effect)
            denied = await setup.policy.denial(setup.tools[call.name], use)
            if denied is not None:
                why = f": {denied.reason}" if denied.reason else ""
                raise AnswerRefused(f"{call.name} cannot run with these arguments, denied by {denied.by}{why}")
            feed(*checked())  # meanwhile somebody else may have answered

        def feed(call: CallState | None, signal: Answered) -> None:
            driver = self._driver
            if call is not None and signal.scope != "once" and by == "person":
                rule = Rule(call.name, "deny" if signal.answer == "deny" else "allow", reason=signal.reason)
                self._remember(rule, signal.scope)
                driver.note("rule", f"{rule}, {signal.scope}", call.call_id)
            driver.feed(signal)

        return _flat(self._loop.call(take))

    def _remember(self, rule: Rule, scope: Scope) -> None:
        if scope == "session":
            self.session.remember(rule)
        else:
            rulebook().remember(rule)

    def approve(
        self,
        call: CallState | None = None,
        *,
        arguments: Mapping[str, Json] | None = None,
        scope: Scope = "once",
    ) -> None:
        """Approve a call that waits (the first, if none is given), with other arguments if given."""
        request = self._request(call, "approval")
        decision: Answer = "approve" if arguments is None else "edit"
        answered = self.answer(request.request_id, decision, digest=request.digest, arguments=arguments, scope=scope)
        if self._loop.is_here and not answered.done():
            raise UsageError(
                "approve(arguments=...) would block the loop that judges them; "
                "use 'await asyncio.wrap_future(run.answer(...))'"
            )
        answered.result()

    def deny(self, reason: str = "", call: CallState | None = None, *, scope: Scope = "once") -> None:
        """Deny a call that waits (the first, if none is given), or decline a question; the model reads the reason."""
        request = self._request(call, None)
        self.answer(request.request_id, "deny", digest=request.digest, reason=reason, scope=scope).result()

    def reply(self, answer: str | Sequence[str], call: CallState | None = None) -> None:
        """Answer a question (of the first call that asks one, if none is given): a label, some labels, or a text."""
        request = self._request(call, "question")
        self.answer(request.request_id, "result", digest=request.digest, result=answer).result()

    def _request(self, call: CallState | None, kind: RequestKind | None) -> RequestState:
        open_ = [call] if call is not None else self.requests
        requests = [one.request for one in open_ if one.request is not None and kind in (None, one.request.kind)]
        if not requests:
            raise AnswerRefused(f"no {kind or 'request'} waits for an answer in this run; it is {self.status}")
        return requests[0]

    @property
    def is_stopped(self) -> bool:
        """It was cancelled while it waited for its turn."""
        return self._driver.loop_state.stop is not None

    def join(self, other: Run) -> None:
        """On the loop: become another handle of the run that this message was joined with.

        Who watches this one watches that one from now on.
        """
        mine, theirs = self._driver, other._driver
        self.id, self._driver = other.id, theirs
        theirs.bus.absorb(mine.bus)
        for early in mine.loop_state.early:
            theirs.feed(early)

        def finish(done: Future[RunState]) -> None:
            if self.done.done():
                return
            error = done.exception()
            if error is not None:
                self.done.set_exception(error)
            else:
                self.done.set_result(done.result())

        other.done.add_done_callback(finish)

    def withdraw(self) -> None:
        """End it, because its message was taken back before its turn."""

        def main() -> None:
            state = self._driver.withdrawn()
            if not self.done.done():
                self.done.set_result(state)

        self._loop.call(main)

    def __repr__(self) -> str:
        state = self.state
        text = state.text if len(state.text) <= 60 else state.text[:59] + "…"
        return f"<Run {state.status}, {len(state.steps)} step{'s' * (len(state.steps) != 1)}: {text!r}>"


def _flat(outer: Future[Future[None] | None]) -> Future[None]:
    """Done when both are."""
    done: Future[None] = Future()

    def finish(future: Future[Any]) -> None:
        error = future.exception() if not future.cancelled() else AnswerRefused("the loop was stopped")
        if error is not None:
            done.set_exception(error)
        elif (inner := future.result()) is not None:
            inner.add_done_callback(finish)
        else:
            done.set_result(None)

    outer.add_done_callback(finish)
    return done
