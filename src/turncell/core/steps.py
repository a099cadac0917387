"""From one step to the next: the boundary, steered messages, reviewers, the limit of steps, the end."""

from __future__ import annotations

import json

from turncell.core import events as ev
from turncell.core.deltas import NOTHING
from turncell.core.fold import RunState
from turncell.core.loop_state import LoopState, Turn
from turncell.core.parts import Message, Text
from turncell.core.signals import AskReviewers, CallModel, Reviewed, Traits

LAST_WORD = (
    "The limit of steps of this run is reached, and no tools are at hand any more. Say what was found out and done so far, "
    "and what is left to do."
)

MAX_PAUSES = 10
"""How often in a row a provider may pause an answer. Each costs as much as a step, which it is."""


def next_step(turn: Turn) -> None:
    run = turn.run
    steps = len(run.steps)
    # A step that a crash has cut short is begun again, and does not count: else a run of one step could not be resumed.
    if 0 < run.started.max_steps <= steps - turn.state.cut_short:
        _limit(turn, None)
    else:
        _call_model(turn, steps + 1)


def _limit(turn: Turn, text: str | None) -> None:
    """The steps are used up: end with the words of a step policy, with a summary of the model's, or without."""
    if text is None and turn.begin.summarises and turn.run.steps:
        turn.record(ev.MessageAdded, message=Message("user", (Text(LAST_WORD),)), by="limit")
        turn.set(is_last_word=True)
        _call_model(turn, len(turn.run.steps) + 1)
    else:
        end_at_limit(turn, text)


def end_at_limit(turn: Turn, text: str | None = None) -> None:
    message = "stopped by the step policy of this run"
    if limit := turn.run.max_steps:
        message = f"stopped after {limit} step{'s' * (limit != 1)}, the limit of this run"
    turn.end("max_steps", "max_steps", message, text)


def _call_model(turn: Turn, step: int) -> None:
    turn.record(ev.StepStarted, step=step, model=turn.run.steps[-1].model if turn.run.steps else turn.run.model)
    turn.set(
        assembly=NOTHING,
        is_streaming=True,
        saved=(),
        saved_at=turn.at,
        thinking_since=None,
        thought_s=None,
        attempt=1,
        traits={},
        denying=frozenset(),
        asking={},
    )
    turn.commands.append(CallModel(step, turn.state.model, 0.0, turn.state.is_last_word))


def boundary(turn: Turn) -> None:
    """All calls of the step are closed."""
    if turn.run.queued:
        _read_steering(turn)
        next_step(turn)
    elif turn.state.terminates:
        finish(turn)
    elif "step" in turn.begin.reviews:
        turn.set(reviewing="step")
        turn.commands.append(AskReviewers("step"))
    else:
        next_step(turn)


def go_on(turn: Turn) -> None:
    """The provider has paused its answer: it goes on in the next step, which begins with what was said."""
    pauses = 0
    for step in reversed(turn.run.steps):
        if step.finish_reason != "paused":
            break
        pauses += 1
    if pauses > MAX_PAUSES and not turn.run.queued:
        turn.end("truncated", "paused", f"the provider has paused the answer {pauses} times in a row")
    else:
        boundary(turn)


def finish(turn: Turn) -> None:
    """The agent would stop here."""
    if turn.run.queued:
        _read_steering(turn)
        next_step(turn)
    elif "finish" in turn.begin.reviews:
        turn.set(reviewing="finish")
        turn.commands.append(AskReviewers("finish"))
    else:
        turn.end("completed", text=said_by_calls(turn.state, turn.run))


def said_by_calls(state: LoopState, run: RunState) -> str | None:
    """The answer of a run that its calls have ended: what they returned. Of a value the JSON, where the model gave it
    without a word."""
    last = run.steps[-1] if run.steps else None
    calls = [call for call in last.calls if call.terminates] if last is not None else []
    for call in calls:
        if state.traits.get(call.call_id, Traits()).is_answer:
            has_words = last is not None and last.message is not None and last.message.text.strip()
            value = call.arguments if call.details is None else call.details
            return None if has_words else json.dumps(value, ensure_ascii=False)
    return "\n\n".join(call.content for call in calls if call.content) or None


def _read_steering(turn: Turn) -> None:
    queued = turn.run.queued
    for steered in queued if turn.begin.reads_all else queued[:1]:
        turn.record(ev.MessageAdded, message=steered.message, by="steering", input_id=steered.input_id)
    turn.set(terminates=False)


def reviewed(turn: Turn, s: Reviewed) -> None:
    if turn.state.reviewing != s.review:
        return
    turn.set(reviewing=None)
    if s.failure is not None:
        turn.end("failed", *s.failure)
    elif turn.run.queued:
        _read_steering(turn)
        next_step(turn)
    elif s.message is not None:
        turn.record(ev.MessageAdded, message=s.message, by=s.by)
        turn.set(terminates=False)
        next_step(turn)
    elif s.review == "finish" or s.is_final:
        turn.end("completed", text=said_by_calls(turn.state, turn.run))
    elif s.may_go_on:
        next_step(turn)
    else:
        _limit(turn, s.text)
