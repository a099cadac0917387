"""Asking: the questions of running calls, and the requests of runs inside them, which are shown and answered here.

A running call has one open request at a time: what it asks next waits for its turn. Who answers the mirror of a child's
request answers the child, which alone decides whether the answer counts.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from weakref import ref

from turncell.core.events import Answer, RequestAnswered, RequestOpened
from turncell.core.policy import Rule
from turncell.core.signals import Answered, Asked, Question, Reply
from turncell.core.values import evolve
from turncell.errors import Declined
from turncell.runtime.hooks import ToolUse

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver
    from turncell.runtime.run import Run


class Asking:
    """What one run asks. All but `ask` belongs to the background loop."""

    def __init__(self, driver: Driver) -> None:
        self.children: list[Run] = []
        """The runs that were started inside calls of this one."""
        self.adopted: list[Callable[[Run, str], None]] = []
        """Told of each of them and its call, on the loop; must return at once."""
        self._owner = ref(driver)
        self._asked = 0
        self._keys = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Answered]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._mirrors: dict[str, tuple[Run, str]] = {}

    @property
    def _driver(self) -> Driver:
        """Not held, since it holds this: who calls here holds it."""
        driver = self._owner()
        assert driver is not None
        return driver

    def reply(self, command: Reply) -> None:
        """Tell a running call what was answered."""
        reply = self._replies.pop(command.key, None)
        if reply is not None and not reply.done():
            reply.set_result(command.answered)

    def ask(self, call_id: str, question: Question, timeout_s: float | None) -> Future[str]:
        """From any thread: put a question to the person. The future has the answer or raises Declined.

        Cancelling it takes the question back: nobody is to answer what nobody waits for, and the next one has its turn.
        """
        done: Future[str] = Future()

        async def main() -> None:
            try:
                answered = await self._ask(call_id, question, timeout_s)
            except asyncio.CancelledError:
                if not done.cancelled():
                    raise
            except BaseException as error:
                end(error)
            else:
                is_answer = answered.answer == "result"
                end(
                    None if is_answer else Declined(answered.reason or "the person declined to answer"), answered.result
                )

        def end(error: BaseException | None, result: str | None = None) -> None:
            if done.done() or not done.set_running_or_notify_cancel():
                return
            if error is None:
                done.set_result(result or "")
            else:
                done.set_exception(error)

        driver = self._driver
        loop = driver.bus.loop

        def begin() -> None:
            task = driver.start(main())
            # Also where the task was cancelled before it had begun.
            task.add_done_callback(lambda _: end(Declined("the run was stopped")))
            # It keeps this for good, so that it must not be kept by it.
            done.add_done_callback(lambda future: future.cancelled() and loop.call_soon_threadsafe(task.cancel))

        loop.call_soon_threadsafe(begin)
        return done

    async def _ask(self, call_id: str, question: Question, timeout_s: float | None) -> Answered:
        policy = self._driver.setup.policy
        async with self._turns.setdefault(call_id, asyncio.Lock()):
            at = time.time()
            expires_at = at + (policy.request_timeout_s if timeout_s is None else timeout_s)
            reply = self._open(call_id, evolve(question, expires_at=expires_at))
            call = self._driver.call(call_id)
            request = call.request if call is not None else None
            if request is not None and not reply.done():
                known = self._driver.setup.session.answers.get(question.digest)
                answer: dict[str, Any] | None = None
                if known is not None:
                    answer = {"answer": "result", "by": "memory", "result": known}
                elif not policy.is_attended:
                    answer = _default(question, "unattended", "nobody is attending this run")
                elif self._asked >= self._driver.setup.max_questions:
                    answer = _default(
                        question, "limit", f"this run may ask {self._driver.setup.max_questions} questions"
                    )
                self._asked += answer is None
                if answer is not None:
                    self._driver.feed(Answered(at=time.time(), request_id=request.request_id, **answer))
            try:
                answered = await self._reply(call_id, reply)
            except asyncio.CancelledError:
                if request is not None:  # else it was never shown
                    self._driver.feed(Answered(
                        at=time.time(), request_id=request.request_id, answer="deny", by="cancel",
                        reason="the tool waits for no answer any more",
                    ))  # fmt: skip
                raise
            if answered.by == "person" and answered.result is not None:
                self._driver.setup.session.answers[question.digest] = answered.result
            return answered

    async def _reply(self, call_id: str, reply: asyncio.Future[Answered]) -> Answered:
        """Wait for it; the time that a person takes is not the tool's."""
        self._pause(call_id, True)
        try:
            return await reply
        finally:
            self._pause(call_id, False)

    def _pause(self, call_id: str, is_waiting: bool) -> None:
        if (pause := self._driver.pauses.get(call_id)) is not None:
            pause(is_waiting)

    def _open(self, call_id: str, question: Question) -> asyncio.Future[Answered]:
        key = next(self._keys)
        reply: asyncio.Future[Answered] = self._driver.bus.loop.create_future()
        self._replies[key] = reply
        if self._driver.is_over:
            reply.set_exception(Declined("the run has ended"))
        else:
            self._driver.feed(Asked(time.time(), call_id, key, question))
        return reply

    def adopt(self, child: Run, call_id: str) -> None:
        """On the loop: a run that was started inside a call of this one. Its requests are shown and answered here."""
        driver = self._driver
        self.children.append(child)
        if driver.is_over:
            child.cancel("the run that started it has ended")
            return
        for tell in self.adopted:
            tell(child, call_id)
        opened: dict[str, str] = {}

        def watch(events: Any) -> None:
            for event in events:
                if isinstance(event, RequestOpened):
                    driver.start(self._mirror(child, call_id, event, opened))
                elif isinstance(event, RequestAnswered) and (mirror := opened.pop(event.request_id, None)) is not None:
                    self._mirrors.pop(mirror, None)
                    driver.feed(Answered(
                        at=event.at, request_id=mirror, answer=event.answer, by=event.by, reason=event.reason,
                        arguments=event.arguments, digest=event.digest, result=event.result, scope=event.scope,
                    ))  # fmt: skip

        child.attach(watch)

    async def _mirror(self, child: Run, call_id: str, event: RequestOpened, opened: dict[str, str]) -> None:
        """Show a request of a child as one of the call that it runs in; who answers it, answers the child."""
        async with self._turns.setdefault(call_id, asyncio.Lock()):
            call = next((c for c in child.state.calls if c.call_id == event.call_id), None)
            if call is None or call.status != "waiting" or call.request is None:
                return
            if call.request.request_id != event.request_id:
                return  # answered meanwhile, and the call asks something else
            is_own = event.kind == "approval" and not event.name
            question = Question(
                event.digest, event.kind, event.question, event.options, event.allows_text, event.allows_many,
                event.description, event.preview, call.name if is_own else event.name,
                call.arguments if is_own else event.arguments, event.default_result, None,
            )  # fmt: skip
            reply = self._open(call_id, question)
            mine = self._driver.call(call_id)
            if reply.done() or mine is None or mine.request is None:
                why = "the run has ended" if reply.exception() else reply.result().reason
                child.answer(event.request_id, "deny", digest=event.digest, reason=why, by="steering")
                return
            opened[event.request_id] = mine.request.request_id
            self._mirrors[mine.request.request_id] = (child, event.request_id)
            answered = await self._reply(call_id, reply)
            if opened.pop(event.request_id, None) is not None:  # answered here: steered or stopped
                self._mirrors.pop(mine.request.request_id, None)
                child.answer(event.request_id, "deny", digest=event.digest, reason=answered.reason, by=answered.by)

    def hold(self, rule: Rule) -> None:
        """On the loop: what a person wants to hold from now on holds for what they are being asked at this moment, too."""
        self._driver.start(self._hold(rule))
        for child in self.children:
            child.hold(rule)

    async def _hold(self, rule: Rule) -> None:
        driver = self._driver
        for call in driver.loop_state.run.open_requests:
            tool, arguments, asked = driver.setup.tools.get(call.name), call.arguments or {}, call.request
            # What is in doubt, and what a running call asks, no rule decides.
            if tool is None or asked is None or asked.kind != "approval" or call.started_at is not None:
                continue
            if not rule.matches(call.name, arguments):
                continue
            # Judged again, because a rule in code, a check or the taint may still want the person's own word.
            use = ToolUse(call.call_id, call.name, arguments, call.effect)
            decision = await driver.setup.policy.judge(tool, use, driver.is_tainted)
            if decision.verdict != "ask":
                answer: Answer = "approve" if decision.verdict == "allow" else "deny"
                request_id = asked.request_id
                driver.feed(
                    Answered(at=time.time(), request_id=request_id, answer=answer, by="person", reason=rule.reason)
                )

    def mirrored(self, request_id: str) -> tuple[Run, str] | None:
        """The run whose request this really is, and its id there."""
        return self._mirrors.get(request_id)


def _default(question: Question, by: Any, why: str) -> dict[str, Any]:
    if question.default_result is not None:
        return {"answer": "result", "by": by, "result": question.default_result}
    return {"answer": "deny", "by": by, "reason": f"{why}; go on with your best assumption and say which"}
