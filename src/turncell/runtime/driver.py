"""The driver: fulfils what the reducer wishes, and feeds it what came of it.

`feed` is the only way in. It runs on the background loop, never waits and never raises: a signal becomes events, which
go to the journal and to the bus in this order, and commands, which become coroutines: the first goes on in the task
that has fed the signal as its last act, so that a run whose calls come one by one is one task. Four rules:

* the intent of a write is on disk before the tool runs: its task waits for the record of its CallStarted;
* a task that is late (the run has ended, the call is closed) may still feed: the reducer ignores it;
* runs that were started inside a call of this one end with it;
* when the run has ended, every task is cancelled, the journal is written, and only then is the run done. A run that
  is not whole in the journal has failed, whatever its last event said.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

from turncell.core.events import CostBasis, Event, Latency, Recorded, RecordedEvent, RequestAnswered, Said, WarmingUp
from turncell.core.fold import CallState, RunState
from turncell.core.loop_state import LoopState
from turncell.core.nucleus import Nucleus
from turncell.core.parts import Usage
from turncell.core.policy import Rule
from turncell.core.reducer import reduce
from turncell.core.signals import (
    Answered,
    AskReviewers,
    Begin,
    CallModel,
    Clock,
    Judge,
    ModelFailed,
    Note,
    Reply,
    Resume,
    SetBudget,
    SetRules,
    Signal,
    StartCall,
    Stop,
    Streamed,
    TellDenial,
)
from turncell.core.values import evolve
from turncell.errors import StoreError, say
from turncell.runtime import model_call, review, tool_call, trace
from turncell.runtime.approvals import Policy
from turncell.runtime.asking import Asking
from turncell.runtime.budget import Budget
from turncell.runtime.bus import Bus
from turncell.runtime.hooks import HookFailed, HookSet, Vetoed
from turncell.runtime.journal import Journal
from turncell.runtime.loop import finished
from turncell.runtime.models import ModelSet
from turncell.runtime.output_type import OutputType
from turncell.runtime.questions import MAX_QUESTIONS
from turncell.runtime.room import Context, Known, Repeats, Telling
from turncell.runtime.session import Session
from turncell.runtime.sources import Source
from turncell.runtime.step_policy import StepPolicy
from turncell.runtime.telemetry import RunWatch, Watcher
from turncell.runtime.threads import in_context
from turncell.runtime.tools import Tool

log = logging.getLogger("turncell")

TICK_S = 0.25
STOPPED_S = 5.0
"""A tick that comes later than this: the process was stopped (SIGSTOP, a closed laptop), and heard nothing."""
LEAVE_S = 0.2
"""How long the end of a run waits for its tasks: a tool in a thread cannot be stopped, only left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one run works with."""

    models: ModelSet
    tools: Mapping[str, Tool]
    policy: Policy
    session: Session
    journal: Journal
    budget: Budget
    options: Mapping[str, Any] = field(default_factory=dict)
    hooks: HookSet = field(default_factory=HookSet)
    step_policy: StepPolicy | None = None
    output: OutputType | None = None
    output_attempts: int = 3
    max_questions: int = MAX_QUESTIONS
    context: Context = field(default_factory=Context)
    sources: tuple[Source, ...] = ()
    repeats: Repeats | None = None
    """The run whose record says what is found and cut, where it is played again."""
    silence_s: float = 600.0
    """A model that says nothing for so long has failed."""
    timeout_s: float | None = None
    """Seconds for the whole run."""
    has_latency: bool = False
    watchers: tuple[Watcher, ...] = ()
    chain: tuple[str, ...] = ()
    """The ids of the runs that this one was started inside, the outermost first."""
    is_tainted: bool = False
    """The run around it has read untrusted output, and may have passed it on."""
    writes: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the write that runs: shared by runs inside one another, which would else write at once."""
    outermost: ref[Driver] | None = None
    """Of the run that a person sees, where this one is inside it. Not held: it holds the runs inside it."""


class Driver:
    """Drives one run on the background loop."""

    def __init__(self, setup: Setup, bus: Bus) -> None:
        self.setup, self.bus = setup, bus
        self.recorded: list[Event] = []
        self.specs = tuple(tool.spec for tool in setup.tools.values())
        self.output: Any = None
        self.misfits = 0
        """How often the output did not fit its type."""
        self.chain_inside: tuple[str, ...] = ()
        """`chain` and this run: the chain of what is started in its calls."""
        self.heard_at: float | None = None
        """When the open stream was last heard of, by the monotonic clock."""
        self.stream_task: asyncio.Task[Any] | None = None
        """The model call that counts; an earlier one that does not end must not be heard any more."""
        self.stream: model_call.Stream | None = None
        """What it reads, while it does."""
        self.picked = 0
        """How many models were given up when the last one was picked."""
        self.given_up: list[str] = []
        """The labels of the models that have failed."""
        self.label = ""
        """Of the model that was picked last."""
        self.pauses: dict[str, Callable[[bool], None]] = {}
        """By running call: stops the clock of its time limit while a person is asked, and starts it again."""
        self.not_begun: set[str] = set()
        """Calls whose start is an event already, while they wait for their record, a laggard or the budget."""
        self.watches: list[RunWatch] = []
        """What telemetry has to do with this run."""
        self._telling: Telling | None = None
        self._complained: set[str] = set()
        self.loop_state = LoopState()
        """After the last signal."""
        self._nucleus: Nucleus[LoopState, Signal, Said] = Nucleus(self.loop_state, reduce)
        self._inbox: deque[Signal] = deque()
        self._is_feeding = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[Any]] = set()
        """Those that were cancelled here while the run goes on."""
        self._is_leaving = False
        """The run is over, and all its tasks are cancelled."""
        self._ending: asyncio.Task[None] | None = None
        """The task that has nothing more to do than what it feeds now."""
        self._next: Coroutine[Any, Any, None] | None = None
        """What that task goes on with."""
        self._context = contextvars.copy_context()
        self._written: Future[None] | None = None
        """The latest record that is waited for."""
        self._is_written_last = True
        """`_written` is of the latest record: the journal writes in order, so that all before it are there too."""
        self._unwritten: BaseException | None = None
        """Why a record could not be made."""
        self._is_looked_at = setup.hooks.has("before_journal") or setup.hooks.has("after_journal")
        """Hooks want to see what is recorded."""
        self._unrecorded: RunState | None = None
        self._ended: asyncio.Future[None] = bus.loop.create_future()
        self.told_to_stop: asyncio.Future[None] = bus.loop.create_future()
        """Also before it has begun: who makes things ready for it may leave that."""
        self._ticking: asyncio.TimerHandle | None = None
        self.asking = Asking(self)

    def offer(self, tools: Mapping[str, Tool]) -> None:
        """Take the tools that were not known when the run was asked for. Before it begins."""
        self.setup = replace(self.setup, tools=tools)
        self.specs = tuple(tool.spec for tool in tools.values())

    @property
    def state(self) -> RunState:
        """The run with what is being written right now. Any thread."""
        return self._unrecorded or self.loop_state.live()

    @property
    def chain(self) -> tuple[str, ...]:
        return self.setup.chain

    @property
    def outermost(self) -> Driver | None:
        """That of the run which a person sees, where this one is inside it."""
        return None if self.setup.outermost is None else self.setup.outermost()

    @property
    def is_tainted(self) -> bool:
        """Whether the model may be speaking for somebody outside."""
        return self.loop_state.run.is_tainted or self.setup.session.is_tainted or self.setup.is_tainted

    @property
    def has_begun(self) -> bool:
        """Not waiting for its turn, nor withdrawn before it."""
        return bool(self.loop_state.run.run_id)

    @property
    def is_over(self) -> bool:
        return self._nucleus.is_terminal or self._unrecorded is not None

    @property
    def telling(self) -> Telling:
        """What the model is told. Made when first needed: only then it is known which runs came before."""
        if self._telling is None:
            session = self.setup.session
            session.known = session.known or Known()
            self._telling = Telling(session.before, session.known)
        return self._telling

    async def drive(self, begin: Begin | Resume) -> RunState:
        """From the first signal to the last record on disk."""
        chain = self.chain_inside = (*self.chain, begin.run_id)
        self._context.run(trace.running.set, chain)
        # Rules, checks, previews and hooks may start runs too: children of this run, in none of its calls.
        self._context.run(trace.current.set, trace.Trace(chain, "", self, self.setup.writes))
        for watcher in self.setup.watchers:
            self._context.run(self._be_watched, watcher, begin)
        self.feed(begin)
        if not self.is_over and (rules := self.setup.session.take_new_rules()):
            self.set_rules(rules)
        if isinstance(begin, Resume) and not self.setup.policy.is_attended:
            self._answer_for_nobody()
        self._ticking = self.bus.loop.call_later(TICK_S, self._tick, time.monotonic())
        limit = self._limit_time()
        try:
            await self._ended
        finally:
            self._ticking.cancel()
            if limit is not None:
                limit.cancel()
            self._is_leaving = True
            for child in self.asking.children:
                child.cancel("the run that started it has ended")
            for task in self._tasks:
                task.cancel()
            children = (asyncio.wrap_future(child.done) for child in self.asking.children if not child.is_done)
            leaving: list[asyncio.Future[Any]] = [*(task for task in self._tasks if not task.done()), *children]
            if leaving:
                await asyncio.wait(leaving, timeout=LEAVE_S)
            await self._settle()
            self.bus.close()
            for watch in self.watches:
                try:
                    watch.end(self.state)
                except Exception:
                    log.exception("telemetry: %r raised", watch)
            self._let_go()
        return self.state

    def _let_go(self) -> None:
        """Of what holds this driver, or that of a run around it: what nobody has any more is gone then, without Python's
        having to look for cycles, which takes as long as a hundred turns."""
        self._context, self._ticking, self.stream_task = contextvars.Context(), None, None
        self._given_up.clear()
        self.asking.adopted.clear()

    def _be_watched(self, watcher: Watcher, begin: Begin | Resume) -> None:
        try:
            watch = watcher.watch(begin.started if isinstance(begin, Begin) else begin.begin.started)
        except Exception:
            log.exception("telemetry: %r raised", watcher)
        else:
            self.watches.append(watch)
            self.bus.attach(watch.see)

    def _answer_for_nobody(self) -> None:
        """What waited for a person when the program ended, where nobody attends now."""
        for call in self.loop_state.run.open_requests:
            if call.request is not None:
                self.feed(Answered(
                    at=time.time(), request_id=call.request.request_id, answer="deny", by="unattended",
                    reason="nobody is attending this run",
                ))  # fmt: skip

    def withdrawn(self, reason: str, *, is_refused: bool = False) -> RunState:
        """Taken back before its turn, or refused: nothing has happened and nothing is recorded."""
        if self._unrecorded is None:
            self._unrecorded = RunState(
                status="failed" if is_refused else "cancelled", ended_at=time.time(),
                error_kind="store" if is_refused else "cancelled", error=reason,
            )  # fmt: skip
            self.bus.close()
        return self._unrecorded

    def failed(self, error: BaseException) -> RunState:
        """It could not be driven to its end: whatever was recorded, it has not ended well."""
        self._unrecorded = evolve(
            self.loop_state.run, status="failed", ended_at=time.time(), error_kind="internal", error=say(error)
        )
        self.bus.close()
        return self._unrecorded

    async def _settle(self) -> None:
        """Wait for the disk. What is not recorded has not ended well, whatever its last event said."""
        try:
            if not self._is_written_last:
                self._written = self.setup.journal.submit(lambda _: None)
            if self._written is not None:
                await finished(self._written)
            if self._unwritten is not None:
                raise self._unwritten
        except StoreError as error:
            log.error("a run is not whole in the history: %s", error)
            run = self.loop_state.run
            self._unrecorded = evolve(run, status="failed", error_kind="store", error=str(error))

    def feed(self, signal: Signal) -> None:
        """Take a signal. On the loop's thread."""
        self._inbox.append(signal)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._inbox:
                self._step(self._inbox.popleft())
        finally:
            self._is_feeding = False

    def stop(self, status: Any = "cancelled", kind: str | None = None, message: str | None = None) -> None:
        if not self.told_to_stop.done():
            self.told_to_stop.set_result(None)
        self.feed(Stop(time.time(), status, kind, message, frozenset(self.not_begun), *self._spent_in_vain()))

    def _spent_in_vain(self) -> tuple[Usage, float | None, CostBasis]:
        """What the model call has taken that is broken off now."""
        stream = self.stream
        return stream.spent() if stream is not None and self.loop_state.is_streaming else (Usage(), None, "none")

    def note(self, kind: Any, message: str, call_id: str | None = None, data: Any = None) -> None:
        self.feed(Note(time.time(), kind, message, call_id, data))

    def tell_latency(self, kind: Any, seconds: float, call_id: str = "") -> None:
        """A passing event for those who asked for it."""
        if self.setup.has_latency and not self.is_over:
            run = self.loop_state.run
            self.bus.publish([Latency(run.run_id, len(run.steps), kind, seconds, call_id)])

    def tell_warming_up(self) -> None:
        if not self.is_over:
            run = self.loop_state.run
            self.bus.publish([WarmingUp(run.run_id, len(run.steps))])

    def _tell_waiting(self, events: Iterable[Said]) -> None:
        for event in events:
            if not isinstance(event, RequestAnswered):
                continue
            call = self.call(event.call_id)
            if call is not None and call.request is not None:
                self.tell_latency("waiting", max(0.0, event.at - call.request.opened_at), call.call_id)

    def _step(self, signal: Signal) -> None:
        if self._nucleus.is_terminal:
            return
        try:
            transition = self._nucleus.step(signal)
            self.loop_state = transition.state
        except Exception as error:
            log.exception("the loop failed on %s", type(signal).__name__)
            if not isinstance(signal, Stop):
                self._inbox.appendleft(Stop(time.time(), "failed", "internal", f"{type(error).__name__}: {error}"))
            else:
                self._end()
            return
        written: Future[None] | None = None
        if transition.events:
            recorded: list[Any] = []
            # Of a burst only what is saved at its end is recorded, now and then.
            if not isinstance(signal, Streamed) or isinstance(transition.events[-1], Recorded):
                recorded = [event for event in transition.events if isinstance(event, Recorded)]
            if recorded:
                is_intent = False
                for command in transition.commands:
                    is_intent = is_intent or (type(command) is StartCall and command.call.effect != "read")
                written = self._record(recorded, is_intent, transition.terminal)
                self.recorded.extend(recorded)
            self.bus.publish(transition.events)
            if self.setup.has_latency:
                self._tell_waiting(transition.events)
        for command in transition.commands:
            self._fulfil(command, written)
        if transition.terminal:
            self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _record(self, recorded: list[Any], is_intent: bool, is_last: bool) -> Future[None] | None:
        """Only the intent of a write and the end of the run are waited for: they give what is done when they are written."""
        kept: list[Any] = recorded
        if self._is_looked_at:
            hooks = self.setup.hooks
            try:
                kept = [_same_envelope(event, hooks.ask_now("before_journal", event, Recorded)) for event in recorded]
            except (HookFailed, Vetoed) as error:
                log.error("an event is kept from the journal: %s", error)
                return self._refused(StoreError(f"the record was refused: {error}"))
        written: Future[None] | None = None
        try:
            if is_intent or is_last:
                written = self._written = self.setup.journal.record(kept, durable=is_intent)
                if not is_last:  # whose failure `_settle` sees
                    written.add_done_callback(self._fail_soon)
            else:
                self.setup.journal.queue(kept, self._cannot_record)
        except Exception as error:  # what JSON cannot hold, or a journal of another process
            log.exception("events cannot be recorded")
            written = self._refused(error if isinstance(error, StoreError) else StoreError(f"no record: {say(error)}"))
        self._is_written_last = written is not None
        if self._is_looked_at:
            self._show_recorded(kept)
        return written

    def _show_recorded(self, kept: list[Any]) -> None:
        hooks = self.setup.hooks
        for event in kept:
            try:
                hooks.ask_now("after_journal", event, Recorded)
            except HookFailed as error:
                log.error("%s", error)
                if str(error) not in self._complained:  # once: the note is an event, and the hook will see it too
                    self._complained.add(str(error))
                    self.note("hook", str(error))

    def _refused(self, error: StoreError) -> Future[None]:
        refused = self._written = Future()
        refused.set_exception(error)
        self._cannot_record(error)
        return refused

    def _fail_soon(self, written: Future[None]) -> None:
        error = written.exception()
        if error is not None:
            self._cannot_record(error)

    def _cannot_record(self, error: BaseException) -> None:
        """On any thread. What cannot be recorded must not go on."""
        self._unwritten = error
        self.bus.loop.call_soon_threadsafe(self.stop, "failed", "store", str(error))

    def _fulfil(self, command: object, written: Future[None] | None) -> None:
        if isinstance(command, CallModel):
            self.stream_task = self._go_on(model_call.call_model(self, command))
        elif isinstance(command, Judge):
            self._go_on(tool_call.judge_calls(self, command))
        elif isinstance(command, StartCall):
            self.not_begun.add(command.call.call_id)
            self._go_on(tool_call.run_call(self, command.call, written if command.call.effect != "read" else None))
        elif isinstance(command, Reply):
            self.asking.reply(command)
        elif isinstance(command, TellDenial):
            self._go_on(tool_call.tell_denial(self, command))
        elif isinstance(command, AskReviewers):
            self._go_on(review.review(self, command.review))
        else:
            raise AssertionError(f"no way to fulfil {command!r}")

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.bus.loop.create_task(self._guard(coroutine), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step never comes to the coroutine, and Python would warn of it.
        task.add_done_callback(lambda _: coroutine.close())
        return task

    def _go_on(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start it in the task that asks for it and is at its end, if there is one: a task less, and a turn of the loop."""
        task = self._ending
        if task is None or task.cancelling():
            return self.start(coroutine)
        self._ending, self._next = None, coroutine
        return task

    def feed_last(self, signal: Signal) -> None:
        """`feed`, as the last thing that a task does: it must not await anything after it."""
        self._ending = asyncio.current_task()
        try:
            self.feed(signal)
        finally:
            self._ending = None

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A task that fails ends its run; SystemExit and KeyboardInterrupt must not end the loop of all runs."""
        try:
            await coroutine
            while (following := self._next) is not None:
                self._next = None
                await in_context(self._context.copy(), following)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_leaving or task in self._given_up:
                return  # a task that ends as cancelled keeps the frames in which it was
            # Code of other people: a hook that cancels the task it runs in must not leave a run that never ends.
            self.stop("failed", "internal", "a task of the run was cancelled from outside")
        except BaseException as error:
            log.exception("a task of the run failed")
            self.stop("failed", "internal", say(error))

    def _limit_time(self) -> asyncio.TimerHandle | None:
        limit_s = self.setup.timeout_s
        if limit_s is None:
            return None
        message = f"stopped after {limit_s:g} s, the time limit of this run"
        return self.bus.loop.call_later(limit_s, self.stop, "timeout", "timeout", message)

    def _tick(self, before: float) -> None:
        """Look at the clock, and again after TICK_S seconds."""
        now = time.monotonic()
        self._ticking = self.bus.loop.call_later(TICK_S, self._tick, now)
        self.feed(Clock(time.time()))
        if now - before > STOPPED_S and self.heard_at is not None:
            self.heard_at = now  # what the model said meanwhile has not been read yet
        if overrun := self.setup.budget.overrun():
            self.stop("budget", "budget", overrun)
        elif self.heard_at is not None and now - self.heard_at >= self.setup.silence_s:
            self.heard_at = None
            if self.stream_task is not None:
                self._given_up.add(self.stream_task)
                self.stream_task.cancel()
            text = f"the model has said nothing for {self.setup.silence_s:g} s"
            usage, cost_usd, basis = self._spent_in_vain()
            self.feed(ModelFailed(time.time(), "timeout", text, usage, cost_usd=cost_usd, cost_basis=basis))

    def call(self, call_id: str) -> CallState | None:
        steps = self.loop_state.run.steps
        return steps[-1].call(call_id) if steps else None

    def set_budget(self, limits: dict[str, Any]) -> None:
        self.feed(SetBudget(time.time(), limits))

    def set_rules(self, rules: tuple[Rule, ...]) -> None:
        self.feed(SetRules(time.time(), rules))


def _same_envelope(event: RecordedEvent, kept: Any) -> Any:
    envelope = ("type", "seq", "session_id", "run_id", "step", "at")
    if any(getattr(event, name) != getattr(kept, name) for name in envelope):
        raise HookFailed(f"the hook before_journal returned an event of another place: {kept!r}")
    return kept
