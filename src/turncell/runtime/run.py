"""Run: one turn of a session, from a person's message to its end. What people hold in their hands.

Every method works from a script, from a cell, from inside any running event loop and from any thread: the run itself
lives on the background loop.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from turncell.core.events import (
    Answer,
    AnsweredBy,
    CallProgress,
    Event,
    MessageAdded,
    PartialSaved,
    RequestKind,
    Said,
    Scope,
)
from turncell.core.fold import CallState, RequestState, RunState, as_deltas
from turncell.core.parts import Json, Message, Usage
from turncell.core.policy import Rule
from turncell.core.signals import Steer
from turncell.core.values import copied, evolve
from turncell.errors import AnswerRefused, RunError, UsageError
from turncell.runtime import defaults
from turncell.runtime.answering import Answering, Given
from turncell.runtime.budget import Budget, limits_of
from turncell.runtime.bus import Events, Subscriber, Subscription
from turncell.runtime.loop import BackgroundLoop, finished
from turncell.runtime.options import number, text
from turncell.runtime.prompts import Prompt, as_message, new_id
from turncell.runtime.secrets import redactor

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.driver import Driver
    from turncell.runtime.ports import Model
    from turncell.runtime.session import Session
    from turncell.runtime.tools import Tool

BEGIN_S = 0.5
"""How long a run that was cancelled before it began is waited for, so that it begins and ends."""


class Run:
    """A run in progress or ended.

    `await run`, `run.result()` and `async for event in run` may be used together and more than once.
    """

    def __init__(
        self,
        run_id: str,
        session: Session,
        agent: Agent,
        driver: Driver,
        loop: BackgroundLoop,
        *,
        is_resumed: bool = False,
    ) -> None:
        self.id = run_id
        self.is_resumed = is_resumed
        """Whether this object goes on with what another program, or another cell, has begun."""
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
        """running, waiting (for a person), completed, failed, cancelled, max_steps, budget, timeout, truncated; interrupted
        where it was resumed and its model failed at once: it can be resumed again."""
        return self.state.status

    @property
    def error(self) -> str | None:
        """Why it did not end well, in words; None where it did, or has not ended."""
        return self.state.error

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
        """All tool calls so far: `name`, `arguments`, `status`, `content` (what the model read as the result)."""
        return tuple([_shown(call) if call.is_open else call for call in self.state.calls])

    @property
    def requests(self) -> tuple[CallState, ...]:
        """The calls that wait for a person; `call.request` says what is asked."""
        return tuple(map(_shown, self.state.open_requests))

    def call_fragments(self, step: int | None = None) -> dict[str, str]:
        """The arguments of the calls of a step (the latest, if none is given) as far as they have arrived, by call id."""
        steps = self.state.steps
        chosen = steps[-1:] if step is None else [one for one in steps if one.step == step]
        return {call.call_id: call.arguments_text for one in chosen for call in one.calls}

    @property
    def usage(self) -> Usage:
        """Tokens of all its model calls, summed; None where a provider did not say."""
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
        """Wait for the end; returns the run. TimeoutError after `timeout_s` seconds, while the run goes on."""
        if self._loop.is_here:
            raise UsageError("run.result() would block the loop that the run lives on; in async tools use 'await run'")
        if not self.done.done():
            self._loop.check_process()
        timeout_s = number("timeout_s", timeout_s, has_zero=True)
        try:
            self.done.result(timeout_s)
        except TimeoutError:
            if self.done.done():
                raise
            raise TimeoutError(
                f"the run is {self.status} and has not ended within {timeout_s:g} s; it goes on"
            ) from None
        return self

    def wait_request(self, timeout_s: float | None = None) -> tuple[CallState, ...]:
        """Wait until the run asks something, or has ended; returns `requests`, empty if it has ended.

        TimeoutError after `timeout_s` seconds, while the run goes on.
        """
        if self._loop.is_here:
            raise UsageError("run.wait_request() would block the loop that the run lives on; await run.next_request()")
        timeout_s = number("timeout_s", timeout_s, has_zero=True)

        async def wait() -> tuple[CallState, ...] | None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    return await self.next_request()
            return None

        found = self._loop.spawn(wait()).result() if not self.is_done else ()
        if found is None:
            raise TimeoutError(f"the run is {self.status} and nothing was asked within {timeout_s:g} s; it goes on")
        return found

    async def next_request(self) -> tuple[CallState, ...]:
        """`wait_request`, on any event loop."""
        if self.is_done:
            return ()
        subscription = Subscription(self._driver.bus)
        self._loop.call(lambda: self._driver.bus.add(subscription, ())).result()
        try:
            while not (found := self.requests) and await subscription.burst():
                pass
            return found
        finally:
            self._loop.call(subscription.close)

    def __await__(self) -> Generator[Any, None, Run]:
        async def wait() -> Run:
            if self.done.done():
                self.done.result()
            else:
                self._loop.check_process()
                await finished(self.done)
            return self

        return wait().__await__()

    def raise_for_status(self) -> Run:
        """Raise RunError unless the run has completed; returns the run."""
        state = self.state
        if state.status != "completed":
            raise RunError(state.status, state.error_kind, state.error or f"the run is {state.status}")
        return self

    # Watching it.

    def __aiter__(self) -> AsyncIterator[Event]:
        self._loop.check_process()
        subscription = Subscription(self._driver.bus)
        if not self._driver.bus.add_early(subscription):
            # Not waited for: it would block the caller's loop, and a subscription does not end before it is added.
            self._loop.call(lambda: self._driver.bus.add(subscription, self.so_far()))

        def end() -> None:
            if not self._driver.bus.is_closed:
                self._loop.call(subscription.close)

        return Events(subscription, end)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Send every event, from the run's first, to a function (sync or async) or a queue; returns a function that ends it.

        A function runs in a thread of its own, an async one on the loop; one that raises or stalls harms nobody. A `queue.Queue`
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
                await finished(self._loop.spawn(self._driver.bus.drain()))

    def attach(self, sink: Callable[[Sequence[Said]], None]) -> None:
        """A sink of our own views: called with each burst on the background loop; it must return at once."""
        self._loop.call(lambda: self._driver.bus.attach(sink)).result()

    @property
    def agent_name(self) -> str:
        """The name of its agent; empty where it has none."""
        return self._agent.name

    @property
    def inner_runs(self) -> tuple[RunState, ...]:
        """The runs of sub-agents that this process has started inside it, at any depth. Empty where there are none."""
        inner: list[RunState] = []
        for child in list(self._driver.asking.children):
            inner += (child.state, *child.inner_runs)
        return tuple(inner)

    def on_child(self, told: Callable[[Run, str], None]) -> None:
        """On the loop: `told(child, call_id)` of each run that is started inside a call of this one from now on."""
        self._driver.asking.adopted.append(told)

    def parameters(self, request: RequestState, call: CallState) -> dict[str, Json] | None:
        """The JSON Schema of the arguments that an approval is about; None where its tool is not known here."""
        tool = self._driver.setup.tools.get(call.name)
        if tool is not None and request.name:
            tool = tool.inside.get(request.name)
        return None if tool is None else tool.spec.schema

    def so_far(self) -> list[Event]:
        """For views that come late: the record, and the text of each step as deltas. On the loop."""
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

    def steer(self, message: Prompt) -> str:
        """Say something to the running agent. It reads it before its next step, and calls that have not begun are skipped.

        Recorded at once. Returns the id of the input. UsageError if the run has ended.
        """
        said, input_id = as_message(message), new_id("inp")

        def take() -> None:
            if self._driver.is_over:
                raise UsageError(f"the run is {self.status}; use session.send(message) to go on")
            self._driver.feed(Steer(time.time(), input_id, said))

        self._loop.call(take).result()
        return input_id

    def follow_up(self, message: Prompt, **options: Any) -> Run:
        """Say something when this run has ended: a run of its own, after this one. `options` are those of `Agent.start`."""
        return self.session.send(message, agent=self._agent, **options)

    def set_budget(self, **limits: float | None) -> None:
        """Change the limits while it runs: `tokens`, `usd`, `seconds`, `steps`, `calls`; None lifts one. Recorded.

        Only this run's own limits: a Budget that it shares with others (`run.budget.parent`) still holds; raise it with `set`.
        """
        self.budget.set(**limits)
        self._loop.call(lambda: self._driver.set_budget(limits_of(self.budget)))

    def take_rules(self, rules: tuple[Rule, ...]) -> bool:
        """On the loop: record what its session remembers now. False where it has not begun, or has ended."""
        if not self._driver.has_begun or self._driver.is_over:
            return False
        self._driver.set_rules(rules)
        return True

    def reask(
        self,
        step: int,
        model: str | Model,
        *,
        tools: Iterable[Tool | Callable[..., Any]] | None = None,
        **agent_options: Any,
    ) -> Run:
        """Run it again with another model from `step` (1, 2, ...) on; the steps before come from the record. Blocks.

        `tools` given here run for real from `step` on; without them, calls are answered from the record. Nothing is
        stored. `turncell.reask` does the same for a run of `session.runs`.
        """
        if self._loop.is_here:
            raise UsageError("run.reask() would block the loop that runs live on; call it from a thread of your own")
        return defaults.reask(self, step, model, tools, agent_options)

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """End the run as cancelled, from any thread; one that has ended is left alone.

        One that waits behind another ends at once and leaves no record, as with `session.queue.remove`; one that was about
        to be resumed stays interrupted. Any other begins and ends, without a model call, unless its session is held so
        that it cannot begin soon.
        """
        text("reason", reason)
        is_beginning = self.session.current is self and not self.is_resumed
        if is_beginning or not self.session.queue.take_back(self, reason):
            self._loop.call(lambda: self._stop(reason))

    def _stop(self, reason: str) -> None:
        self._driver.stop("cancelled", "cancelled", reason)
        if not self._driver.has_begun:
            self._loop.loop.call_later(BEGIN_S, self.session.queue.take_back, self, reason)

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
        where: Mapping[str, str] | None = None,
        by: AnsweredBy = "person",
    ) -> Future[None]:
        """Answer a request. The future raises AnswerRefused where the answer cannot be taken; the first one wins.

        `digest` is that of what was shown; `arguments` (a dict or JSON text) go with "edit", `result` with "result":
        the answer to a question, or words in the tool's place. With `scope` "session" or "always" the decision holds
        for later calls of this tool too, or only for those that `where` matches: names of arguments and globs over their
        text, which must match this call too. With "always" it counts when the rule is on disk.
        """
        given = Given(
            request_id=request_id, decision=decision, digest=digest, arguments=arguments, reason=reason, result=result,
            scope=scope, where=where, by=by,
        )  # fmt: skip
        done: Future[None] = Future()
        self._loop.call(lambda: Answering(self._driver, self._loop, given, done).begin())
        return done

    def hold(self, rule: Rule) -> None:
        """On the loop: a rule that a person has just made answers the open requests that it matches, here and inside."""
        self._driver.asking.hold(rule)

    def approve(
        self,
        call: CallState | None = None,
        *,
        arguments: Mapping[str, Json] | None = None,
        scope: Scope = "once",
        where: Mapping[str, str] | None = None,
    ) -> None:
        """Approve a call that waits: the first one, or `call`. With `arguments` it runs with these instead.

        With `scope="session"` or "always" later calls of the tool are approved too, or only those that `where` matches
        (`{"to": "*@home.example"}`: names of arguments and globs). A write in doubt runs again. AnswerRefused if it is too
        late, or the arguments are not valid.
        """
        request = self._request(call, "approval", "in_doubt")
        decision: Answer = "approve" if arguments is None else "edit"
        if arguments is not None and self._loop.is_here:
            raise UsageError(
                "approve(arguments=...) would block the loop that judges them; "
                "use 'await asyncio.wrap_future(run.answer(...))'"
            )
        self._wait(
            self.answer(
                request.request_id, decision, digest=request.digest, arguments=arguments, scope=scope, where=where
            )
        )

    def deny(
        self,
        reason: str = "",
        call: CallState | None = None,
        *,
        scope: Scope = "once",
        where: Mapping[str, str] | None = None,
    ) -> None:
        """Deny a call that waits, or decline a question: the first one, or `call`. The model reads the reason.

        `scope` and `where` are those of `approve`. A write in doubt is skipped.
        """
        request = self._request(call)
        self._wait(
            self.answer(request.request_id, "deny", digest=request.digest, reason=reason, scope=scope, where=where)
        )

    def reply(self, answer: str | Sequence[str], call: CallState | None = None) -> None:
        """Answer a question: the first one, or that of `call`, with a label, several labels, or a text.

        A write in doubt counts as done, with this answer as its result.
        """
        request = self._request(call, "question", "in_doubt")
        self._wait(self.answer(request.request_id, "result", digest=request.digest, result=answer))

    def _wait(self, answered: Future[None]) -> None:
        """On the loop, which must not wait, a rule for "always" may still be on its way to the disk."""
        if answered.done() or not self._loop.is_here:
            answered.result()

    def _request(self, call: CallState | None, *kinds: RequestKind) -> RequestState:
        if not isinstance(cast(object, call), CallState | None):
            raise UsageError(
                f"{call!r} is no call; use one of run.requests, or run.answer(request_id, decision, digest=...)"
            )
        open_ = [call] if call is not None else self.requests
        requests = [
            one.request for one in open_ if one.request is not None and (not kinds or one.request.kind in kinds)
        ]
        if not requests:
            raise AnswerRefused(
                f"no {kinds[0] if kinds else 'request'} waits for an answer in this run; it is {self.status}"
            )
        return requests[0]

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
            error = done.exception()
            self.finish(done.result() if error is None else error)

        other.done.add_done_callback(finish)

    def finish(self, what: RunState | BaseException) -> None:
        """On the loop: it is done, in this state or because of this error. The first one counts."""
        if self.done.done():
            return
        if isinstance(what, BaseException):
            self.done.set_exception(what)
        else:
            self.done.set_result(what)

    def withdraw(self, reason: str) -> None:
        """End it, because its message was taken back before its turn."""

        def main() -> None:
            self.finish(self._driver.withdrawn(reason))

        self._loop.call(main).result()

    def __repr__(self) -> str:
        state = self.state
        text = redactor().text(state.text)
        text = text if len(text) <= 60 else text[:59] + "…"
        return f"<Run {state.status}, {len(state.steps)} step{'s' * (len(state.steps) != 1)}: {text!r}>"

    def _repr_html_(self) -> str:
        return defaults.run_html(self.state, self.inner_runs)


def _shown(call: CallState) -> CallState:
    """To people, who may change its arguments and approve those: what was asked for stays as it is."""
    request = call.request
    if request is not None:
        request = evolve(request, arguments=copied(request.arguments))
    return evolve(call, arguments=copied(call.arguments), request=request)
