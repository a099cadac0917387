"""The agent's loop as one pure reducer: `reduce(state, signal) -> Transition(state, events, commands, terminal)`.

The order inside a step

    CallModel -> Streamed* -> ModelFinished -> Judge -> Judged -> requests opened, allowed calls started
              -> Answered* / CallReturned* -> boundary: steered messages, reviewers -> next step, or the end

What must hold, whatever the order of the signals (tests/core/test_invariants.py plays any):

* a run has one terminal event, and nothing after it;
* a proposed call ends in exactly one CallFinished; a call starts only after it was validated, judged and, where
  the policy asks, approved by its digest;
* reads run side by side (MAX_PARALLEL), writes one after another in the order of the model's message, unless their
  tool declares them safe; the value of the run is taken last, and only where no other call of the step has failed;
* a model call is tried again only while nothing of its answer was seen; a run that has been told something is never
  told it twice; a conversation that is too long for the provider is made shorter and sent again, a bounded number of
  times;
* an answer that the provider has paused goes on in the next step, a bounded number of times in a row;
* a steered message is recorded when it comes and read once, at the next boundary: no call begins between the two;
* a signal that comes late (a result of a closed call, a second answer, a fragment of an ended stream) changes nothing;
* cancellation is one transition: it closes every open call, keeps the partial text and ends the run; whoever drives
  the machine then stops the tasks, and what they still bring is late;
* a run in which a write is in doubt ends only when that is decided: stopped before, it is left as the crash has left it.

Here are the beginning, the end and what may come at any time. What the model says is taken by `streaming`, which leads on
to `calls`, and those to `steps`, which says what comes next; all of them work on a `loop_state.Turn`.

No clock, no ids and no I/O here: `at` comes with each signal, ids are counted from the run's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from turncell.core import calls, steps, streaming
from turncell.core import events as ev
from turncell.core.deltas import Block
from turncell.core.fold import CallState, apply
from turncell.core.loop_state import LoopState, Turn
from turncell.core.nucleus import Transition
from turncell.core.parts import Message, Reasoning, Text, Usage
from turncell.core.signals import (
    Answered,
    Asked,
    Begin,
    CallReturned,
    Chosen,
    Clock,
    Cut,
    Found,
    Judge,
    Judged,
    ModelFailed,
    ModelFinished,
    Note,
    Progressed,
    Resume,
    Reviewed,
    SetBudget,
    SetRules,
    Signal,
    Steer,
    Stop,
    Streamed,
    Summarised,
)
from turncell.core.values import evolve

RESTARTED = (
    "[The program was restarted in the middle of this turn. Variables and open connections of before are gone; what is in "
    "files and in this conversation is still there.]"
)
INTERRUPTED = "interrupted"
"""The error of a step in whose middle the program ended."""
DAMAGED = "Part of the record of this call is missing. It was not run."


def reduce(state: LoopState, signal: Signal) -> Transition[LoopState, ev.Said]:
    """One signal. Pure; raises nothing that a signal from outside could provoke."""
    if state.run.ended_at is not None or state.is_left:
        return Transition(state, terminal=True)
    if not state.run.run_id and not isinstance(signal, Begin | Resume):
        if isinstance(signal, Steer):
            return Transition(evolve(state, early=(*state.early, signal)))
        return Transition(evolve(state, stop=signal) if isinstance(signal, Stop) else state)
    turn = Turn(state, getattr(signal, "at", 0.0))
    _ON[type(signal)](turn, signal)
    run = turn.run
    if run is not state.run:
        turn.set(run=run)
    after = turn.state
    return Transition(after, tuple(turn.events), tuple(turn.commands), run.ended_at is not None or after.is_left)


def _begin(turn: Turn, s: Begin) -> None:
    if turn.run.run_id:
        return
    turn.set(begin=s)
    turn.events.append(s.started)
    turn.run = apply(turn.run, s.started)
    turn.record(ev.MessageAdded, message=s.message)
    for early in turn.state.early:
        turn.record(ev.Steered, input_id=early.input_id, message=early.message)
    if turn.state.stop is not None:
        turn.end(turn.state.stop.status, turn.state.stop.kind, turn.state.stop.message)
    else:
        steps.next_step(turn)


def _resume(turn: Turn, s: Resume) -> None:
    """Go on where the record ends. Nothing that is finished is done again."""
    if turn.run.run_id:
        return
    stop, early = turn.state.stop, turn.state.early
    turn.set(begin=s.begin, traits=s.traits, stop=None)
    turn.run = evolve(s.run, seq=s.seq)
    if stop is not None and stop.kind != INTERRUPTED and turn.run.status == "in_doubt":
        turn.set(is_left=True)
        return
    turn.record(ev.Resumed)
    for steered in early:
        turn.record(ev.Steered, input_id=steered.input_id, message=steered.message)
    if turn.run.steps and turn.run.steps[-1].message is None and not turn.run.steps[-1].error_kind:
        parts = tuple(_saved_part(block) for block in turn.run.steps[-1].blocks if block.kind != "call" and block.text)
        if parts:
            turn.record(ev.MessageAdded, message=Message("assistant", parts, is_partial=True))
        turn.record(ev.StepFailed, kind=INTERRUPTED, message="the program ended while the model was writing",
                    usage=Usage(), duration_s=0.0)  # fmt: skip
    # A step that has failed and not ended its run was the first of an earlier resumption.
    turn.set(cut_short=sum(step.error_kind is not None for step in turn.run.steps), is_unanswered=True)
    if stop is not None:
        _stop(turn, evolve(stop, at=s.at))
        return
    turn.record(ev.MessageAdded, message=Message("user", (Text(RESTARTED),)), by="restart")
    if turn.run.queued:
        calls.skip(turn)
    for call in turn.calls:
        _take_up(turn, call, s.expires_at)
    unjudged = tuple(call for call in turn.calls if call.status == "proposed")
    if s.run.steps and all(added.by == "restart" for added in s.run.steps[-1].after):
        turn.set(terminates=any(call.terminates for call in turn.calls))
    if not turn.run.steps:
        steps.next_step(turn)
    elif unjudged:
        turn.set(is_judging=True)
        turn.commands.append(Judge(unjudged))
    elif not turn.calls and turn.run.steps[-1].finish_reason == "paused":
        steps.go_on(turn)
    elif not turn.calls and (last := turn.run.steps[-1]).message is not None and last.error_kind != INTERRUPTED:
        if last.message.is_partial:
            turn.end("truncated", "length", "the answer was cut at the model's output limit")
        else:
            steps.finish(turn)
    else:
        calls.advance(turn)


def _take_up(turn: Turn, call: CallState, expires_at: float | None) -> None:
    """Ask again what was asked, and close what only had to be closed; what may run is started later."""
    if _is_damaged(call):
        turn.finish(call, "skipped", DAMAGED if call.started_at is None else calls.IN_DOUBT_SKIPPED)
    elif call.status == "in_doubt":
        turn.record(
            ev.RequestOpened, request_id=f"{call.call_id}-doubt-{call.requests + 1}", call_id=call.call_id,
            digest=call.digest, kind="in_doubt", expires_at=None,
            description="It had begun when the program ended; whether it has happened is not known.",
        )  # fmt: skip
    elif call.status == "waiting" and call.request is not None:
        asked = call.request
        turn.record(
            ev.RequestOpened, request_id=asked.request_id, call_id=call.call_id, digest=asked.digest,
            description=asked.description, preview=asked.preview, expires_at=expires_at,
        )  # fmt: skip
    elif call.status == "proposed" and call.verdict == "deny":
        turn.finish(call, "denied", calls.denial(call.name, call.judged_by, call.reason))
    elif call.status == "proposed" and call.request is not None and call.request.answer is not None:
        calls.close_answered(turn, call)
    elif call.status == "proposed" and call.problem is not None:
        turn.finish(call, "invalid", call.problem)


def _is_damaged(call: CallState) -> bool:
    """Part of its record is missing: nobody can say any more what would run, and it would stay open for ever."""
    if call.status == "proposed":
        return call.verdict == "ask" and call.request is None
    return call.is_open and call.digest is None


def _saved_part(block: Block) -> Text | Reasoning:
    return Text(block.text) if block.kind == "text" else Reasoning(block.text)


def _steer(turn: Turn, s: Steer) -> None:
    if any(steered.input_id == s.input_id for steered in turn.run.queued):
        return
    turn.record(ev.Steered, input_id=s.input_id, message=s.message)
    if turn.state.is_streaming or turn.state.is_judging or turn.state.reviewing:
        return
    calls.skip(turn)
    calls.advance(turn)


def _note(turn: Turn, s: Note) -> None:
    turn.record(ev.Noted, kind=s.kind, message=s.message, call_id=s.call_id, data=s.data)


def _set_budget(turn: Turn, s: SetBudget) -> None:
    turn.record(ev.BudgetChanged, budget=s.budget)


def _set_rules(turn: Turn, s: SetRules) -> None:
    turn.record(ev.RulesChanged, rules=s.rules)


def _stop(turn: Turn, s: Stop) -> None:
    if turn.state.is_streaming:
        started_at = turn.run.steps[-1].started_at
        streaming.keep_partial(turn)
        turn.record(
            ev.StepFailed, kind=s.kind or s.status, message=s.message or f"the run was {s.status}",
            usage=s.usage, cost_usd=s.cost_usd, cost_basis=s.cost_basis,
            duration_s=max(0.0, s.at - started_at), reasoning_s=turn.state.reasoning_s(s.at),
        )  # fmt: skip
    turn.set(is_judging=False, reviewing=None)
    if any(call.status == "waiting" and calls.is_in_doubt(call) for call in turn.calls):
        # Nobody has said whether it has happened: no stop decides that, and the next resumption asks again.
        turn.set(is_left=True)
        return
    for call in turn.calls:
        if call.status == "waiting":
            calls.withdraw(turn, call, "cancel", s.message or "")
        if call.is_open:
            content = "The run was stopped before this call ran."
            if call.started_at is not None and call.call_id not in s.not_begun:
                content = "The run was stopped while this call was running; its effect may or may not have happened."
            turn.finish(call, "cancelled", content)
    turn.end(s.status, s.kind, s.message)


def _clock(turn: Turn, s: Clock) -> None:
    if turn.state.is_streaming:
        if streaming.is_save_due(turn):
            streaming.save_partial(turn)
        return
    for call in turn.run.open_requests:
        request = call.request
        if request is not None and request.expires_at is not None and s.at >= request.expires_at:
            has_default = request.default_result is not None
            late = Answered(
                at=s.at, request_id=request.request_id, answer="result" if has_default else "deny", by="time limit",
                reason="" if has_default else "nobody answered in time; do not take it for a refusal of the idea",
                result=request.default_result,
            )  # fmt: skip
            calls.answered(turn, late)


_ON: dict[type, Callable[[Turn, Any], None]] = {
    Begin: _begin,
    Resume: _resume,
    Streamed: streaming.streamed,
    ModelFinished: streaming.model_finished,
    ModelFailed: streaming.model_failed,
    Found: streaming.found,
    Cut: streaming.cut,
    Summarised: streaming.summarised,
    Chosen: streaming.chosen,
    Asked: calls.asked,
    Steer: _steer,
    Reviewed: steps.reviewed,
    Note: _note,
    SetBudget: _set_budget,
    SetRules: _set_rules,
    Judged: calls.judged,
    Answered: calls.answered,
    Progressed: calls.progressed,
    CallReturned: calls.call_returned,
    Stop: _stop,
    Clock: _clock,
}
