"""The model's part of a step: the room made for it, what it streams, what of that is saved, how it ends or fails."""

from __future__ import annotations

from turncell.core import calls, steps
from turncell.core import events as ev
from turncell.core.deltas import NOTHING, CallFragment, ImageFragment, ReasoningFragment
from turncell.core.loop_state import Saved, Turn
from turncell.core.parts import Image, Message
from turncell.core.signals import CallModel, Chosen, Cut, Found, Judge, ModelFailed, ModelFinished, Streamed, Summarised
from turncell.core.values import evolve

SAVE_EVERY_S = 0.5
"""Text is put into the journal this often. It is there a second after it was shown: the driver's clock ticks every quarter
of a second, the journal lingers, and a disk takes its time."""
TRANSIENT = frozenset({"rate_limit", "overloaded", "connection", "timeout", "protocol"})
"""Failures of a model that trying again may mend."""
HOPELESS = frozenset({"bad_request", "context_length", "filter", "hook", "budget"})
"""Failures that another model would most likely share: no fallback for these."""
MAX_WAIT_S = 60.0
"""A provider that wants a longer pause than this is given up for now."""
BACKOFF_S = 0.5
"""The first pause before a model is tried again; each further one is twice as long."""


def streamed(turn: Turn, s: Streamed) -> None:
    state = turn.state
    if not state.is_streaming:
        return
    run_id, step = turn.run.run_id, len(turn.run.steps)
    assembly, events = state.assembly, turn.events
    pieces: list[str] = []
    for fragment in s.fragments:
        if isinstance(fragment, str):
            if fragment:
                pieces.append(fragment)
            continue
        if pieces:
            assembly, number = assembly.add("text", "".join(pieces))
            events.append(ev.TextBurst(run_id, step, number, pieces))
            pieces = []
        if isinstance(fragment, ReasoningFragment) and (fragment.text or fragment.signature):
            assembly, number = assembly.add("reasoning", fragment.text, fragment.signature)
            events.append(ev.ReasoningDelta(run_id, step, number, fragment.text))
        elif isinstance(fragment, CallFragment):
            assembly, number = assembly.join(fragment, f"{run_id}-{step}-")
            block = assembly.blocks[number]
            events.append(ev.ArgumentsDelta(run_id, step, number, fragment.arguments, block.call_id, block.name))
        elif isinstance(fragment, ImageFragment):
            assembly = assembly.show(fragment)
    if pieces:
        assembly, number = assembly.add("text", "".join(pieces))
        events.append(ev.TextBurst(run_id, step, number, pieces))
    is_thinking = bool(assembly.blocks) and assembly.blocks[-1].kind == "reasoning"
    if is_thinking == (state.thinking_since is not None):
        if assembly is not state.assembly:
            turn.set(assembly=assembly)
    elif is_thinking:
        turn.set(assembly=assembly, thinking_since=s.at)
    else:
        turn.set(assembly=assembly, thinking_since=None, thought_s=state.reasoning_s(s.at))
    if is_save_due(turn):
        save_partial(turn)


def is_save_due(turn: Turn) -> bool:
    # A clock that was set back must not stop the saving until it has caught up.
    return abs(turn.at - turn.state.saved_at) >= SAVE_EVERY_S


def save_partial(turn: Turn) -> None:
    """Put what is on the screen into the journal: one piece for each block that grew."""
    saved = list(turn.state.saved)
    redactor = turn.begin.redactor
    for number, block in enumerate(turn.state.assembly.blocks):
        if number == len(saved):
            saved.append(Saved())
        before = saved[number]
        if block.kind != "call" and sum(map(len, block.rope)) > before.read_chars:
            text = block.text
            clean, rest = redactor.feed(text[before.read_chars :], before.rest)
            if clean:
                turn.record(ev.PartialSaved, kind=block.kind, block=number, offset=before.chars, text=clean)
            saved[number] = Saved(len(text), before.chars + len(clean), rest)
    turn.set(saved=tuple(saved), saved_at=turn.at)


def keep_partial(turn: Turn) -> None:
    """The text so far as a partial message. Calls that were being written never happened: they were not proposed."""
    parts = turn.state.assembly.parts(with_calls=False)
    turn.set(is_streaming=False, assembly=NOTHING)
    if parts:
        turn.record(ev.MessageAdded, message=Message("assistant", parts, is_partial=True))


def chosen(turn: Turn, s: Chosen) -> None:
    step = turn.run.steps[-1] if turn.run.steps else None
    if turn.state.is_streaming and step is not None and (s.model, s.tier) != (step.model, step.tier):
        turn.record(ev.ModelChosen, model=s.model, tier=s.tier, reason=s.reason)


def _is_being_asked(turn: Turn) -> bool:
    """A model is about to be called for the open step, and has said nothing yet."""
    return turn.state.is_streaming and not turn.state.assembly.has_content


def found(turn: Turn, s: Found) -> None:
    if _is_being_asked(turn) and turn.run.retrieved is None:
        turn.record(ev.Retrieved, passages=s.passages, tokens=s.tokens)


def cut(turn: Turn, s: Cut) -> None:
    if not _is_being_asked(turn):
        return
    turn.record(
        ev.Pruned, call_ids=s.call_ids, head_chars=s.head_chars, passages=s.passages, tokens_before=s.tokens_before,
        tokens_after=s.tokens_after,
    )  # fmt: skip
    counts = ((len(s.call_ids), "tool result"), (len(s.passages), "passage"))
    cut = " and ".join(f"{number} {what}{'s' * (number != 1)}" for number, what in counts if number)
    _note_room(turn, f"{cut} cut", s)


def summarised(turn: Turn, s: Summarised) -> None:
    if not _is_being_asked(turn):
        return
    turn.record(
        ev.Compacted, upto_run_id=s.upto[0], upto_step=s.upto[1], covers=s.covers, summary=s.summary,
        tokens_before=s.tokens_before, tokens_after=s.tokens_after, model=s.model, usage=s.usage, cost_usd=s.cost_usd,
        cost_basis=s.cost_basis,
    )  # fmt: skip
    _note_room(turn, f"the conversation so far was summarised{f' by {s.model}' if s.model else ' without a model'}", s)


def _note_room(turn: Turn, what: str, s: Cut | Summarised) -> None:
    turn.record(ev.Noted, kind="context", message=f"{what}: about {s.tokens_before:,} tokens became {s.tokens_after:,}")


def model_finished(turn: Turn, s: ModelFinished) -> None:
    state = turn.state
    if not state.is_streaming:
        return
    step, end, is_last_word = turn.run.steps[-1], s.finished, state.is_last_word
    message = s.message or Message("assistant", state.assembly.parts(with_calls=not is_last_word))
    asked_for = message.calls
    turn.set(is_streaming=False, assembly=NOTHING, is_unanswered=False)
    is_cut = end.finish_reason == "length" and not asked_for
    if message.parts or s.message is not None:  # a hook may have left nothing of it
        turn.record(
            ev.MessageAdded, message=message if message.is_partial == is_cut else evolve(message, is_partial=is_cut)
        )
    turn.record(
        ev.StepFinished, finish_reason=end.finish_reason, usage=end.usage, cost_usd=end.cost_usd, cost_basis=end.cost_basis,
        answered_by=end.answered_by, duration_s=max(0.0, s.at - step.started_at), first_token_s=s.first_token_s,
        reasoning_s=turn.state.reasoning_s(s.at), longest_gap_s=s.longest_gap_s,
    )  # fmt: skip
    if is_last_word:
        steps.end_at_limit(turn)
    elif asked_for and turn.run.queued:
        for call in turn.calls:
            was_in_doubt = call.request is not None and call.request.kind == "in_doubt"
            turn.finish(call, "skipped", calls.IN_DOUBT_SKIPPED if was_in_doubt else calls.SKIPPED)
        calls.advance(turn)
    elif asked_for:
        turn.set(is_judging=True)
        turn.commands.append(Judge(turn.calls))
    elif is_cut and not turn.run.queued:
        turn.end("truncated", "length", "the answer was cut at the model's output limit")
    elif end.finish_reason == "paused":
        steps.go_on(turn)
    elif end.finish_reason == "filter" and not turn.run.queued:
        turn.end("failed", "filter", "the provider's filter has ended the answer")
    elif not message.text.strip() and not turn.run.queued and not any(isinstance(p, Image) for p in message.parts):
        turn.end("failed", "empty_reply", "the model ended its turn without a word and without a call")
    else:
        steps.finish(turn)


def model_failed(turn: Turn, s: ModelFailed) -> None:
    if not turn.state.is_streaming:
        return
    is_untouched = not turn.state.assembly.has_content and not s.is_final
    if is_untouched and s.kind == "context_length" and turn.state.recoveries < turn.begin.recoveries:
        turn.set(recoveries=turn.state.recoveries + 1)
        step, state = len(turn.run.steps), turn.state
        turn.commands.append(CallModel(step, state.model, 0.0, state.is_last_word, s.message))
        return
    if is_untouched and not turn.state.is_last_word and _try_again(turn, s):
        return
    started_at = turn.run.steps[-1].started_at
    keep_partial(turn)
    turn.record(
        ev.StepFailed, kind=s.kind, message=s.message, usage=s.usage, cost_usd=s.cost_usd, cost_basis=s.cost_basis,
        duration_s=max(0.0, s.at - started_at), first_token_s=s.first_token_s,
        reasoning_s=turn.state.reasoning_s(s.at), longest_gap_s=s.longest_gap_s,
    )  # fmt: skip
    if turn.state.is_last_word:
        steps.end_at_limit(turn)
    elif turn.state.is_unanswered and is_untouched:
        # A key that is missing must not use up what was left of a turn: it stays interrupted, and can be resumed again.
        turn.set(is_left=True)
    else:
        turn.end("failed", s.kind, s.message)


def _try_again(turn: Turn, s: ModelFailed) -> bool:
    """The same model after a pause, else the next one; what happened is noted."""
    begin, state = turn.begin, turn.state
    if s.kind in HOPELESS:
        return False
    wait_s = s.retry_after_s if s.retry_after_s is not None else BACKOFF_S * 2 ** (state.attempt - 1)
    if s.kind in TRANSIENT and state.attempt < begin.attempts and wait_s <= MAX_WAIT_S:
        turn.set(attempt=state.attempt + 1)
        plan = f"trying again in {wait_s:g} s"
    elif state.model + 1 < begin.models:
        turn.set(attempt=1, model=state.model + 1)
        wait_s, plan = 0.0, "trying the next model"
    else:
        return False
    data = {"kind": s.kind, "attempt": turn.state.attempt, "model": turn.state.model, "wait_s": wait_s}
    turn.record(ev.Noted, kind="retry", message=f"{s.kind}: {s.message}; {plan}", data=data)
    turn.commands.append(CallModel(len(turn.run.steps), turn.state.model, wait_s))
    return True
