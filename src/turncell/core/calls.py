"""What becomes of the calls of a step: judged, asked about, started, finished, or taken back."""

from __future__ import annotations

from collections.abc import Mapping

from turncell.core import events as ev
from turncell.core import steps
from turncell.core.fold import OPEN_CALL, CallState, apply
from turncell.core.loop_state import Turn
from turncell.core.signals import Answered, Asked, CallReturned, Judged, Judgement, Progressed, Reply, StartCall, Traits

MAX_PARALLEL = 8
"""Calls that run side by side."""
BY: Mapping[str, str] = {
    "person": "the user",
    "unattended": "the unattended policy",
    "time limit": "the time limit",
}
IN_DOUBT_SKIPPED = (
    "The program ended while this call was running. It was not run again; whether its effect has happened is not known."
)
SKIPPED = "skipped: a new message arrived"
ANSWERED = "skipped: the answer was given by an earlier call of this step"
_PLAIN = Traits()
_CUT_OFF = {"length": "at the model's output limit", "filter": "by the provider's filter"}
"""What may end an answer in the middle of a call, by its finish reason."""


def judged(turn: Turn, s: Judged) -> None:
    if not turn.state.is_judging:
        return
    said: dict[str, Judgement] = {}
    traits = dict(turn.state.traits)
    for judgement in s.judgements:
        said[judgement.call_id] = judgement
        traits[judgement.call_id] = judgement.traits
    turn.set(is_judging=False, traits=traits)
    step = turn.run.steps[-1]
    cut_off = _CUT_OFF.get(step.finish_reason or "")
    judgements: dict[str, Judgement] = {}
    for call in step.calls:
        if call.status != "proposed" or call.verdict is not None:
            continue
        j = said.get(call.call_id) or Judgement(call.call_id, problem="the call was not judged")
        if cut_off is not None and not call.arguments_text.strip():
            # Text that was cut is no JSON and is refused as such; text that was cut off before it began looks like none.
            j = Judgement(call.call_id, j.effect, problem=f"the call was cut off {cut_off}; make it again")
        judgements[call.call_id] = j
        turn.record(
            ev.CallProposed, call_id=call.call_id, name=call.name, arguments=j.arguments, digest=j.digest,
            effect=j.effect, problem=j.problem, is_replaced=j.is_replaced, is_trusted=j.is_trusted,
        )  # fmt: skip
        if j.problem is None:
            turn.record(ev.CallJudged, call_id=call.call_id, verdict=j.verdict, by=j.by, reason=j.reason)
    for call in turn.calls:
        found = judgements.get(call.call_id)
        if found is None:
            continue
        j = found
        if call.problem is not None or j.digest is None:
            turn.finish(call, "invalid", call.problem or "the call has no digest")
        elif turn.run.queued:
            turn.finish(call, "skipped", SKIPPED)
        elif call.verdict == "deny":
            turn.deny(call, denial(call.name, j.by, j.reason), j.reason)
        elif call.verdict == "ask":
            turn.record(
                ev.RequestOpened, request_id=f"{call.call_id}-ask", call_id=call.call_id, digest=j.digest,
                description=j.description, preview=j.preview, expires_at=s.expires_at,
            )  # fmt: skip
    advance(turn)


def denial(name: str, by: str, reason: str) -> str:
    """What the model reads about a denied call."""
    return f"{name} was not run: denied by {by}" + (f": {reason}" if reason else ".")


def asked(turn: Turn, s: Asked) -> None:
    call = turn.call(s.call_id)
    q = s.question
    if call is None or call.status != "running" or turn.run.queued:
        reason = "a new message arrived" if turn.run.queued else "the call is not running"
        refused = Answered(at=s.at, request_id="", answer="deny", by="steering", reason=reason)
        turn.commands.append(Reply(s.call_id, s.key, refused))
        return
    turn.set(asking={**turn.state.asking, call.call_id: s.key})
    turn.record(
        ev.RequestOpened, request_id=f"{call.call_id}-ask-{call.requests + 1}", call_id=call.call_id, digest=q.digest,
        kind=q.kind, question=q.question, options=q.options, allows_text=q.allows_text, allows_many=q.allows_many,
        description=q.description, preview=q.preview, name=q.name, arguments=q.arguments,
        default_result=q.default_result, default="deny" if q.default_result is None else "result",
        expires_at=q.expires_at,
    )  # fmt: skip


def answered(turn: Turn, s: Answered) -> None:
    call = next((c for c in turn.calls if c.request is not None and c.request.request_id == s.request_id), None)
    if call is None or call.status != "waiting" or call.digest is None:
        return
    _record_answer(turn, call, s)
    if call.request is not None and call.request.kind == "in_doubt":
        if s.answer != "approve":
            close_answered(turn, next(c for c in turn.calls if c.call_id == call.call_id))
    elif call.started_at is None:
        if s.answer == "deny":
            turn.deny(call, denial(call.name, BY.get(s.by, s.by), s.reason), s.reason)
        elif s.answer == "result":
            turn.finish(call, "ok", s.result or "")
    advance(turn)


def _record_answer(turn: Turn, call: CallState, s: Answered) -> None:
    """The one answer to an open request; a running call that asked is told."""
    is_edit = s.answer == "edit" and s.arguments is not None and s.digest is not None
    asked = call.request
    is_own = call.started_at is None or asked is None or asked.kind == "in_doubt"
    turn.record(
        ev.RequestAnswered, request_id=s.request_id, call_id=call.call_id, answer=s.answer, by=s.by, reason=s.reason,
        arguments=s.arguments if is_edit else call.arguments if is_own else asked.arguments,  # type: ignore[union-attr]
        digest=s.digest if is_edit else call.digest if is_own else asked.digest,  # type: ignore[union-attr]
        result=s.result, scope=s.scope,
    )  # fmt: skip
    key = turn.state.asking.get(call.call_id)
    if not is_own and key is not None:
        turn.set(asking={i: k for i, k in turn.state.asking.items() if i != call.call_id})
        turn.commands.append(Reply(call.call_id, key, s))


def withdraw(turn: Turn, call: CallState, by: ev.AnsweredBy, reason: str) -> None:
    """Take back the request of a call that waits, in the name of what came instead."""
    assert call.request is not None
    _record_answer(turn, call, Answered(
        at=turn.at, request_id=call.request.request_id, answer="deny", by=by, reason=reason,
    ))  # fmt: skip


def close_answered(turn: Turn, call: CallState) -> None:
    """The answer is in the record, what followed from it is not."""
    asked = call.request
    assert asked is not None
    if asked.answer == "result":
        turn.finish(call, "ok", asked.result or "")
    elif asked.kind == "in_doubt":
        turn.finish(call, "skipped", IN_DOUBT_SKIPPED)
    else:
        turn.finish(call, "denied", denial(call.name, BY.get(asked.by or "", str(asked.by)), asked.reason))


def advance(turn: Turn) -> None:
    """Start what may start; when every call of the step is closed, the boundary is reached."""
    state = turn.state
    if turn.run.ended_at is not None or state.is_judging or state.is_streaming or state.reviewing:
        return
    _skip_answers(turn)
    calls = [call for call in turn.calls if call.status in OPEN_CALL]
    if not calls:
        steps.boundary(turn)
        return
    is_answer_next = all(state.traits.get(call.call_id, _PLAIN).is_answer for call in calls)
    free = MAX_PARALLEL
    of_tool: dict[str, int] = {}
    for call in calls:
        if call.started_at is not None and not is_in_doubt(call):
            free -= 1
            of_tool[call.name] = of_tool.get(call.name, 0) + 1
    is_write_open = False
    for call in calls:
        traits = state.traits.get(call.call_id, _PLAIN)
        may_start = call.status == "allowed" and free > 0
        if traits.concurrency is not None and of_tool.get(call.name, 0) >= traits.concurrency:
            may_start = False
        if traits.is_answer and not (is_answer_next and call is calls[0]):
            may_start = False
        if call.effect != "read" and not traits.is_parallel:
            may_start = may_start and not is_write_open
            is_write_open = True
        if may_start and call.digest is not None:
            free -= 1
            of_tool[call.name] = of_tool.get(call.name, 0) + 1
            turn.record(ev.CallStarted, call_id=call.call_id, digest=call.digest, effect=call.effect)
            started = turn.call(call.call_id)
            assert started is not None
            turn.commands.append(StartCall(started))


def _skip_answers(turn: Turn) -> None:
    """The value of a run is taken last in its step: not beside a call whose failure nobody has read yet, and once."""
    traits = turn.state.traits
    answers = [call for call in turn.calls if traits.get(call.call_id, _PLAIN).is_answer]
    waiting = [call for call in answers if call.status == "allowed"]
    if not waiting:
        return
    others = [call for call in turn.calls if call not in answers]
    if any(call.is_open for call in others):
        return
    failed = dict.fromkeys(call.name for call in others if call.status != "ok")
    if failed:
        reason = f"skipped: {', '.join(failed)} did not succeed; read why, then give the answer again"
    elif any(call.status == "ok" for call in answers):
        reason = ANSWERED
    else:
        return
    for call in waiting:
        turn.finish(call, "skipped", reason)


def progressed(turn: Turn, s: Progressed) -> None:
    if any(call.call_id == s.call_id and call.is_open and call.started_at is not None for call in turn.calls):
        event = ev.CallProgress(turn.run.run_id, len(turn.run.steps), s.call_id, s.text, s.data)
        turn.events.append(event)
        turn.run = apply(turn.run, event)


def call_returned(turn: Turn, s: CallReturned) -> None:
    call = turn.call(s.call_id)
    if call is None or call.status not in OPEN_CALL:
        return
    if s.call_id in turn.state.denying:
        turn.set(denying=turn.state.denying - {s.call_id})
        turn.finish(call, "denied", s.content)
    elif call.started_at is None:
        return
    else:
        if call.status == "waiting":  # it ended while it was asking: its time limit, or a task of its own
            withdraw(turn, call, "cancel", "the call ended before the answer came")
        is_last = s.terminates and s.status == "ok"
        turn.finish(call, s.status, s.content, details=s.details, files=s.files, display=s.display, terminates=is_last)
        if is_last:
            turn.set(terminates=True)
    advance(turn)


def skip(turn: Turn) -> None:
    """A message waits: no call begins and no question stays open before it is read. What is in doubt must be decided."""
    for call in turn.calls:
        if is_in_doubt(call):
            continue
        if call.status == "waiting":
            withdraw(turn, call, "steering", "a new message arrived")
        if call.is_open and call.started_at is None:
            turn.set(denying=turn.state.denying - {call.call_id})
            turn.finish(call, "skipped", SKIPPED)


def is_in_doubt(call: CallState) -> bool:
    asked = call.request
    return call.status == "in_doubt" or (asked is not None and asked.kind == "in_doubt" and asked.answer is None)
