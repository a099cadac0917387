"""The agent's loop as one pure reducer: `reduce(state, signal) -> Transition(state, events, commands, terminal)`.

The order inside a step

    CallModel -> Streamed* -> ModelFinished -> Judge -> Judged -> requests opened, allowed calls started
              -> Answered* / CallReturned* -> next step, or the end

What must hold, whatever the order of the signals (tests/core/test_invariants.py plays any):

* a run has one terminal event, and nothing after it;
* a proposed call ends in exactly one CallFinished; a call starts only after it was validated, judged and, where
  the policy asks, approved by its digest;
* reads run side by side (MAX_PARALLEL_READS), writes one after another in the order of the model's message;
* a signal that comes late (a result of a closed call, a second answer, a fragment of an ended stream) changes nothing;
* cancellation is one transition: it closes every open call, keeps the partial text and ends the run; whoever drives
  the machine then stops the tasks, and what they still bring is late.

No clock, no ids and no I/O here: `at` comes with each signal, ids are counted from the run's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from turncell.core import events as ev
from turncell.core.deltas import (
    Assembly,
    Block,
    CallFragment,
    Finished,
    Fragment,
    ReasoningFragment,
    TextFragment,
)
from turncell.core.fold import CallState, RunState, apply
from turncell.core.nucleus import Transition
from turncell.core.parts import Json, Message, Usage
from turncell.core.policy import Effect, Verdict
from turncell.core.values import evolve

MAX_PARALLEL_READS = 8
SAVE_EVERY_S = 1.0
"""Text on the screen for longer than this is in the journal."""


# Signals: all that the loop ever learns.


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    at: float
    session_id: str
    run_id: str
    seq: int
    """The last sequence number of the session so far."""
    message: Message
    model: str
    mode: str
    max_steps: int
    instructions: str = ""
    tools: tuple[str, ...] = ()
    is_attended: bool = True
    previous: str | None = None
    root_run_id: str = ""
    parent_run_id: str | None = None
    depth: int = 0
    cell_id: str | None = None


@dataclass(slots=True)
class Streamed:
    """A burst of fragments, in order."""

    at: float
    fragments: list[Fragment]


@dataclass(frozen=True, slots=True)
class ModelFinished:
    at: float
    finished: Finished
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelFailed:
    at: float
    kind: str
    message: str
    usage: Usage = Usage()
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One call, parsed, validated and judged. With a `problem` there is no verdict: the call is invalid."""

    call_id: str
    effect: Effect = "write"
    arguments: dict[str, Json] | None = None
    digest: str | None = None
    problem: str | None = None
    verdict: Verdict = "deny"
    by: str = ""
    reason: str = ""
    description: str = ""
    preview: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    at: float
    judgements: tuple[Judgement, ...]
    expires_at: float | None = None
    """Until when the requests of this step wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer to a request, already checked: the digest shown was right and edited arguments are valid."""

    at: float
    request_id: str
    answer: ev.Answer
    by: ev.AnsweredBy
    reason: str = ""
    arguments: dict[str, Json] | None = None
    digest: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class CallReturned:
    at: float
    call_id: str
    status: ev.CallEnd
    content: str
    details: Json = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run now, whatever it is doing."""

    at: float
    status: ev.EndStatus = "cancelled"
    kind: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Clock:
    at: float


Signal: TypeAlias = (
    Begin | Streamed | ModelFinished | ModelFailed | Judged | Answered | Progressed | CallReturned | Stop | Clock
)


# Commands: wishes, fulfilled by the driver.


@dataclass(frozen=True, slots=True)
class CallModel:
    step: int


@dataclass(frozen=True, slots=True)
class Judge:
    calls: tuple[CallState, ...]


@dataclass(frozen=True, slots=True)
class StartCall:
    call: CallState


@dataclass(frozen=True, slots=True)
class LoopState:
    """The run as its events tell it, and what is in flight besides."""

    run: RunState = field(default_factory=RunState)
    assembly: Assembly = Assembly()
    is_streaming: bool = False
    is_judging: bool = False
    saved: tuple[int, ...] = ()
    """How many characters of each block are in the journal."""
    saved_at: float = 0.0
    thinking_since: float | None = None
    thought_s: float | None = None
    """Seconds of reasoning of this step that are over."""
    stop: Stop | None = None
    """A stop that came before the beginning: the run begins and ends without a model call."""

    def live(self) -> RunState:
        """The run with the text that is being written."""
        run = self.run
        if not self.is_streaming or not run.steps:
            return run
        step = run.steps[-1]
        calls = tuple(CallState(b.call_id, step.step, b.name, b.text) for b in self.assembly.blocks if b.kind == "call")
        blocks = tuple(Block("call", (), b.call_id, b.name) if b.kind == "call" else b for b in self.assembly.blocks)
        return evolve(run, steps=(*run.steps[:-1], evolve(step, blocks=blocks, calls=calls)))

    def reasoning_s(self, at: float) -> float | None:
        """Seconds of reasoning of this step, up to `at`."""
        if self.thinking_since is None:
            return self.thought_s
        return (self.thought_s or 0.0) + max(0.0, at - self.thinking_since)


Result: TypeAlias = Transition[LoopState, ev.Event]


def reduce(state: LoopState, signal: Signal) -> Result:
    """One signal. Pure; raises nothing that a signal from outside could provoke."""
    if state.run.is_ended:
        return Transition(state, terminal=True)
    if not state.run.run_id and not isinstance(signal, Begin):
        return Transition(evolve(state, stop=signal) if isinstance(signal, Stop) else state)
    turn = _Turn(state, getattr(signal, "at", 0.0))
    _ON[type(signal)](turn, signal)
    return Transition(
        turn.state if turn.state.run is turn.run else evolve(turn.state, run=turn.run),
        tuple(turn.events),
        tuple(turn.commands),
        terminal=turn.run.is_ended,
    )


class _Turn:
    """One call of `reduce` in the making: collects events and folds each at once, so that later lines see it."""

    __slots__ = ("at", "commands", "events", "run", "state")

    def __init__(self, state: LoopState, at: float) -> None:
        self.state, self.run, self.at = state, state.run, at
        self.events: list[ev.Event] = []
        self.commands: list[object] = []

    def record(self, cls: Callable[..., Any], *, step: int | None = None, **values: Any) -> None:
        run = self.run
        event = cls(
            seq=run.seq + 1, session_id=run.session_id, run_id=run.run_id,
            step=len(run.steps) if step is None else step, at=self.at, **values,
        )  # fmt: skip
        self.events.append(event)
        self.run = apply(run, event)

    def set(self, **changes: Any) -> None:
        self.state = evolve(self.state, **changes)

    @property
    def calls(self) -> tuple[CallState, ...]:
        return self.run.steps[-1].calls if self.run.steps else ()

    def finish(self, call: CallState, status: ev.CallEnd, content: str, details: Json = None) -> None:
        duration_s = None if call.started_at is None else max(0.0, self.at - call.started_at)
        self.record(
            ev.CallFinished,
            call_id=call.call_id,
            status=status,
            content=content,
            details=details,
            duration_s=duration_s,
        )

    def end(self, status: ev.EndStatus, kind: str | None = None, message: str | None = None) -> None:
        self.record(ev.RunEnded, status=status, kind=kind, message=message)


def _begin(turn: _Turn, s: Begin) -> None:
    if turn.run.run_id:
        return
    turn.run = RunState(run_id=s.run_id, session_id=s.session_id, seq=s.seq)
    turn.record(
        ev.RunStarted, model=s.model, mode=s.mode, max_steps=s.max_steps, instructions=s.instructions, tools=s.tools,
        is_attended=s.is_attended, previous=s.previous, root_run_id=s.root_run_id or s.run_id,
        parent_run_id=s.parent_run_id, depth=s.depth, cell_id=s.cell_id,
    )  # fmt: skip
    turn.record(ev.MessageAdded, message=s.message)
    if turn.state.stop is not None:
        turn.end(turn.state.stop.status, turn.state.stop.kind, turn.state.stop.message)
    else:
        _next_step(turn)


def _next_step(turn: _Turn) -> None:
    step = len(turn.run.steps) + 1
    if step > turn.run.max_steps:
        limit = turn.run.max_steps
        turn.end("max_steps", "max_steps", f"stopped after {limit} step{'s' * (limit != 1)}, the limit of this run")
        return
    turn.record(ev.StepStarted, step=step, model=turn.run.model)
    turn.set(
        assembly=Assembly(),
        is_streaming=True,
        saved=(),
        saved_at=turn.at,
        thinking_since=None,
        thought_s=None,
    )
    turn.commands.append(CallModel(step))


def _streamed(turn: _Turn, s: Streamed) -> None:
    if not turn.state.is_streaming:
        return
    run_id, step = turn.run.run_id, len(turn.run.steps)
    assembly, events = turn.state.assembly, turn.events
    pending: list[str] = []
    number = -1
    for fragment in s.fragments:
        kind = type(fragment)
        if kind is TextFragment:
            text = fragment.text  # type: ignore[union-attr]
            if not text:
                continue
            if not pending:
                blocks = assembly.blocks
                number = len(blocks) - 1 if blocks and blocks[-1].kind == "text" else len(blocks)
            pending.append(text)
            events.append(ev.TextDelta(run_id, step, number, text))
            continue
        if pending:
            assembly, _ = assembly.add("text", "".join(pending))
            pending.clear()
        if isinstance(fragment, ReasoningFragment) and (fragment.text or fragment.signature):
            assembly, number = assembly.add("reasoning", fragment.text, fragment.signature)
            events.append(ev.ReasoningDelta(run_id, step, number, fragment.text))
        elif isinstance(fragment, CallFragment):
            assembly, number = assembly.join(fragment, f"{run_id}-{step}-")
            block = assembly.blocks[number]
            events.append(ev.ArgumentsDelta(run_id, step, number, fragment.arguments, block.call_id, block.name))
    if pending:
        assembly, _ = assembly.add("text", "".join(pending))
    is_thinking = bool(assembly.blocks) and assembly.blocks[-1].kind == "reasoning"
    if is_thinking == (turn.state.thinking_since is not None):
        turn.set(assembly=assembly)
    elif is_thinking:
        turn.set(assembly=assembly, thinking_since=s.at)
    else:
        turn.set(assembly=assembly, thinking_since=None, thought_s=turn.state.reasoning_s(s.at))
    if s.at - turn.state.saved_at >= SAVE_EVERY_S:
        _save_partial(turn)


def _save_partial(turn: _Turn) -> None:
    """Put what is on the screen into the journal: one piece for each block that grew."""
    saved = list(turn.state.saved)
    for number, block in enumerate(turn.state.assembly.blocks):
        if number == len(saved):
            saved.append(0)
        if block.kind != "call" and sum(map(len, block.rope)) > saved[number]:
            text = block.text
            turn.record(
                ev.PartialSaved,
                kind=block.kind,
                block=number,
                offset=saved[number],
                text=text[saved[number] :],
            )
            saved[number] = len(text)
    turn.set(saved=tuple(saved), saved_at=turn.at)


def _model_finished(turn: _Turn, s: ModelFinished) -> None:
    if not turn.state.is_streaming:
        return
    parts, step, end = turn.state.assembly.parts(), turn.run.steps[-1], s.finished
    turn.set(is_streaming=False, assembly=Assembly())
    message = Message("assistant", parts)
    is_cut = end.finish_reason == "length" and not message.calls
    if parts:
        turn.record(ev.MessageAdded, message=evolve(message, is_partial=is_cut))
    turn.record(
        ev.StepFinished, finish_reason=end.finish_reason, usage=end.usage, cost_usd=end.cost_usd, cost_basis=end.cost_basis,
        answered_by=end.answered_by, duration_s=max(0.0, s.at - step.started_at), first_token_s=s.first_token_s,
        reasoning_s=turn.state.reasoning_s(s.at),
    )  # fmt: skip
    if message.calls:
        turn.set(is_judging=True)
        turn.commands.append(Judge(turn.calls))
    elif is_cut:
        turn.end("truncated", "length", "the answer was cut at the model's output limit")
    elif not message.text.strip():
        turn.end("failed", "empty_reply", "the model ended its turn without a word and without a call")
    else:
        turn.end("completed")


def _model_failed(turn: _Turn, s: ModelFailed) -> None:
    if not turn.state.is_streaming:
        return
    started_at = turn.run.steps[-1].started_at
    _keep_partial(turn)
    turn.record(
        ev.StepFailed, kind=s.kind, message=s.message, usage=s.usage,
        duration_s=max(0.0, s.at - started_at), first_token_s=s.first_token_s,
        reasoning_s=turn.state.reasoning_s(s.at),
    )  # fmt: skip
    turn.end("failed", s.kind, s.message)


def _keep_partial(turn: _Turn) -> None:
    """The text so far as a partial message. Calls that were being written never happened: they were not proposed."""
    parts = turn.state.assembly.parts(with_calls=False)
    turn.set(is_streaming=False, assembly=Assembly())
    if parts:
        turn.record(ev.MessageAdded, message=Message("assistant", parts, is_partial=True))


def _judged(turn: _Turn, s: Judged) -> None:
    if not turn.state.is_judging:
        return
    turn.set(is_judging=False)
    judgements = {judgement.call_id: judgement for judgement in s.judgements}
    for call in turn.calls:
        j = judgements.setdefault(call.call_id, Judgement(call.call_id, problem="the call was not judged"))
        turn.record(
            ev.CallProposed, call_id=call.call_id, name=call.name, arguments=j.arguments, digest=j.digest,
            effect=j.effect, problem=j.problem,
        )  # fmt: skip
        if j.problem is None:
            turn.record(ev.CallJudged, call_id=call.call_id, verdict=j.verdict, by=j.by, reason=j.reason)
    for call in turn.calls:
        j = judgements[call.call_id]
        if call.problem is not None or j.digest is None:
            turn.finish(call, "invalid", call.problem or "the call has no digest")
        elif call.verdict == "deny":
            turn.finish(call, "denied", denial(call.name, j.by, j.reason))
        elif call.verdict == "ask":
            turn.record(
                ev.RequestOpened, request_id=f"{call.call_id}-ask", call_id=call.call_id, digest=j.digest,
                description=j.description, preview=j.preview, expires_at=s.expires_at,
            )  # fmt: skip
    _advance(turn)


def denial(name: str, by: str, reason: str) -> str:
    """What the model reads about a denied call."""
    return f"{name} was not run: denied by {by}" + (f": {reason}" if reason else ".")


def _answered(turn: _Turn, s: Answered) -> None:
    call = next((c for c in turn.calls if c.request is not None and c.request.request_id == s.request_id), None)
    if call is None or call.status != "waiting" or call.digest is None:
        return
    is_edit = s.answer == "edit" and s.arguments is not None and s.digest is not None
    turn.record(
        ev.RequestAnswered, request_id=s.request_id, call_id=call.call_id, answer=s.answer, by=s.by, reason=s.reason,
        arguments=s.arguments if is_edit else call.arguments, digest=s.digest if is_edit else call.digest, result=s.result,
    )  # fmt: skip
    if s.answer == "deny":
        by = {
            "person": "the user",
            "unattended": "the unattended policy",
            "time limit": "the time limit",
        }.get(s.by, s.by)
        turn.finish(call, "denied", denial(call.name, by, s.reason))
    elif s.answer == "result":
        turn.finish(call, "ok", s.result or "")
    _advance(turn)


def _advance(turn: _Turn) -> None:
    """Start what may start; when every call of the step is closed, go on to the next step."""
    if turn.run.is_ended or turn.state.is_judging or turn.state.is_streaming:
        return
    calls = turn.calls
    if not any(call.is_open for call in calls):
        _next_step(turn)
        return
    free = MAX_PARALLEL_READS - sum(call.status == "running" and call.effect == "read" for call in calls)
    is_write_open = False
    for call in calls:
        if call.effect == "read":
            may_start, free = (call.status == "allowed" and free > 0), free - (call.status == "allowed")
        else:
            may_start = call.status == "allowed" and not is_write_open
            is_write_open = is_write_open or call.is_open
        if may_start and call.digest is not None:
            turn.record(ev.CallStarted, call_id=call.call_id, digest=call.digest, effect=call.effect)
            turn.commands.append(StartCall(next(c for c in turn.calls if c.call_id == call.call_id)))


def _progressed(turn: _Turn, s: Progressed) -> None:
    if any(call.call_id == s.call_id and call.status == "running" for call in turn.calls):
        event = ev.CallProgress(turn.run.run_id, len(turn.run.steps), s.call_id, s.text)
        turn.events.append(event)
        turn.run = apply(turn.run, event)


def _call_returned(turn: _Turn, s: CallReturned) -> None:
    call = next((c for c in turn.calls if c.call_id == s.call_id), None)
    if call is None or call.status != "running":
        return
    turn.finish(call, s.status, s.content, s.details)
    _advance(turn)


def _stop(turn: _Turn, s: Stop) -> None:
    if turn.state.is_streaming:
        started_at = turn.run.steps[-1].started_at
        _keep_partial(turn)
        turn.record(
            ev.StepFailed, kind=s.kind or s.status, message=s.message or f"the run was {s.status}", usage=Usage(),
            duration_s=max(0.0, s.at - started_at), reasoning_s=turn.state.reasoning_s(s.at),
        )  # fmt: skip
    turn.set(is_judging=False)
    for call in turn.calls:
        if call.status == "waiting" and call.request is not None:
            turn.record(
                ev.RequestAnswered, request_id=call.request.request_id, call_id=call.call_id, answer="deny", by="cancel",
                reason=s.message or "", arguments=call.arguments, digest=call.digest,
            )  # fmt: skip
        if call.is_open:
            content = "The run was stopped before this call ran."
            if call.status == "running":
                content = "The run was stopped while this call was running; its effect may or may not have happened."
            turn.finish(call, "cancelled", content)
    turn.end(s.status, s.kind, s.message)


def _clock(turn: _Turn, s: Clock) -> None:
    if turn.state.is_streaming:
        if s.at - turn.state.saved_at >= SAVE_EVERY_S:
            _save_partial(turn)
        return
    for call in turn.run.open_requests:
        request = call.request
        if request is not None and request.expires_at is not None and s.at >= request.expires_at:
            _answered(
                turn,
                Answered(
                    at=s.at, request_id=request.request_id, answer="deny", by="time limit",
                    reason="nobody answered in time; do not take it for a refusal of the idea",
                ),
            )  # fmt: skip


_ON: dict[type, Callable[[_Turn, Any], None]] = {
    Begin: _begin,
    Streamed: _streamed,
    ModelFinished: _model_finished,
    ModelFailed: _model_failed,
    Judged: _judged,
    Answered: _answered,
    Progressed: _progressed,
    CallReturned: _call_returned,
    Stop: _stop,
    Clock: _clock,
}
