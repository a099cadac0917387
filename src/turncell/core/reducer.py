"""The agent's loop as one pure reducer: `reduce(state, signal) -> Transition(state, events, commands, terminal)`.

The order inside a step

    CallModel -> Streamed* -> ModelFinished -> Judge -> Judged -> requests opened, allowed calls started
              -> Answered* / CallReturned* -> boundary: steered messages, reviewers -> next step, or the end

What must hold, whatever the order of the signals (tests/core/test_invariants.py plays any):

* a run has one terminal event, and nothing after it;
* a proposed call ends in exactly one CallFinished; a call starts only after it was validated, judged and, where
  the policy asks, approved by its digest;
* reads run side by side (MAX_PARALLEL), writes one after another in the order of the model's message, unless their
  tool declares them safe;
* a model call is tried again only while nothing of its answer was seen; a run that has been told something is never
  told it twice; a conversation that is too long for the provider is made shorter and sent again, a bounded number of
  times;
* a steered message is recorded when it comes and read once, at the next boundary: no call begins between the two;
* a signal that comes late (a result of a closed call, a second answer, a fragment of an ended stream) changes nothing;
* cancellation is one transition: it closes every open call, keeps the partial text and ends the run; whoever drives
  the machine then stops the tasks, and what they still bring is late;
* a run in which a write is in doubt ends only when that is decided: stopped before, it is left as the crash has left it.

No clock, no ids and no I/O here: `at` comes with each signal, ids are counted from the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from turncell.core import events as ev
from turncell.core.deltas import Assembly, Block, CallFragment, ImageFragment, ReasoningFragment, TextFragment
from turncell.core.fold import CallState, RunState, apply, at_rest
from turncell.core.nucleus import Transition
from turncell.core.parts import Image, Message, Reasoning, Text, Usage
from turncell.core.redaction import Open
from turncell.core.signals import (
    Answered,
    Asked,
    AskReviewers,
    Begin,
    CallModel,
    CallReturned,
    Chosen,
    Clock,
    Cut,
    Found,
    Judge,
    Judged,
    Judgement,
    ModelFailed,
    ModelFinished,
    Note,
    Progressed,
    Reply,
    Resume,
    Review,
    Reviewed,
    SetBudget,
    SetRules,
    Signal,
    StartCall,
    Steer,
    Stop,
    Streamed,
    Summarised,
    TellDenial,
    Traits,
)
from turncell.core.values import evolve, put

MAX_PARALLEL = 8
"""Calls that run side by side."""
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
BY: Mapping[str, str] = {
    "person": "the user",
    "unattended": "the unattended policy",
    "time limit": "the time limit",
}
RESTARTED = (
    "[The program was restarted in the middle of this turn. Variables and open connections of before are gone; what is in "
    "files and in this conversation is still there.]"
)
INTERRUPTED = "interrupted"
"""The error of a step in whose middle the program ended."""
IN_DOUBT_SKIPPED = (
    "The program ended while this call was running. It was not run again; whether its effect has happened is not known."
)
DAMAGED = "Part of the record of this call is missing. It was not run."
SKIPPED = "skipped: a new message arrived"
LAST_WORD = (
    "The limit of steps of this run is reached, and no tools are at hand any more. Say what was found out and done so far, "
    "and what is left to do."
)


@dataclass(frozen=True, slots=True)
class Saved:
    """How much of a block was read, and how much came of it in the journal: characters, without its secrets."""

    read_chars: int = 0
    chars: int = 0
    rest: Open = Open()


@dataclass(frozen=True)
class LoopState:
    """The run as its events tell it, and what is in flight besides."""

    run: RunState = field(default_factory=RunState)
    assembly: Assembly = Assembly()
    is_streaming: bool = False
    is_judging: bool = False
    saved: tuple[Saved, ...] = ()
    """What of each block is in the journal."""
    saved_at: float = 0.0
    thinking_since: float | None = None
    thought_s: float | None = None
    """Seconds of reasoning of this step that are over."""
    begin: Begin | None = None
    reviewing: Review | None = None
    """Who is being asked; nothing begins meanwhile."""
    cut_short: int = 0
    """Steps in whose middle the program has ended."""
    is_last_word: bool = False
    """The steps are used up and the model is writing a summary."""
    model: int = 0
    """Which of the models answers: a fallback is kept for the steps after it."""
    attempt: int = 1
    recoveries: int = 0
    """How often the conversation was too long for a provider."""
    traits: Mapping[str, Traits] = field(default_factory=dict)
    """Of the calls of this step."""
    denying: frozenset[str] = frozenset()
    """Denied calls whose tool is asked for the words."""
    asking: Mapping[str, int] = field(default_factory=dict)
    """The key of the open question of each running call that asks."""
    terminates: bool = False
    stop: Stop | None = None
    """A stop that came before the beginning: the run begins and ends without a model call."""
    is_left: bool = False
    """Nobody drives it any more, and it has not ended: it can be resumed again."""
    is_unanswered: bool = False
    """Resumed, and no model has said anything since."""
    early: tuple[Steer, ...] = ()
    """What came before the beginning and is said right after it."""

    def live(self) -> RunState:
        """The run with the text that is being written; one that nobody drives any more as its program would leave it."""
        run = self.run
        if self.is_left:
            last = run.steps[-1] if run.steps else None
            told = {} if last is None else {"error_kind": last.error_kind, "error": last.error}
            return evolve(at_rest(run), **told)
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
    if state.run.is_ended or state.is_left:
        return Transition(state, terminal=True)
    if not state.run.run_id and not isinstance(signal, Begin | Resume):
        if isinstance(signal, Steer):
            return Transition(evolve(state, early=(*state.early, signal)))
        return Transition(evolve(state, stop=signal) if isinstance(signal, Stop) else state)
    turn = _Turn(state, getattr(signal, "at", 0.0))
    _ON[type(signal)](turn, signal)
    after = turn.state
    if after.run is not turn.run:
        if after is state:
            after = evolve(state)
        put(after, run=turn.run)
    return Transition(
        after,
        tuple(turn.events),
        tuple(turn.commands),
        terminal=turn.run.is_ended or after.is_left,
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

    @property
    def begin(self) -> Begin:
        assert self.state.begin is not None
        return self.state.begin

    def finish(self, call: CallState, status: ev.CallEnd, content: str, **shown: Any) -> None:
        duration_s = None if call.started_at is None else max(0.0, self.at - call.started_at)
        self.record(
            ev.CallFinished, call_id=call.call_id, status=status, content=content, duration_s=duration_s, **shown
        )

    def deny(self, call: CallState, content: str, reason: str) -> None:
        """Close a denied call, or let its tool find the words first."""
        if self.state.traits.get(call.call_id, Traits()).answers_denial:
            self.set(denying=self.state.denying | {call.call_id})
            self.commands.append(TellDenial(call, content, reason))
        else:
            self.finish(call, "denied", content)

    def withdraw(self, call: CallState, by: ev.AnsweredBy, reason: str) -> None:
        """Take back the request of a call that waits, in the name of what came instead."""
        assert call.request is not None
        _record_answer(self, call, Answered(
            at=self.at, request_id=call.request.request_id, answer="deny", by=by, reason=reason,
        ))  # fmt: skip

    def end(
        self, status: ev.EndStatus, kind: str | None = None, message: str | None = None, text: str | None = None
    ) -> None:
        self.record(ev.RunEnded, status=status, kind=kind, message=message, text=text)


def _begin(turn: _Turn, s: Begin) -> None:
    if turn.run.run_id:
        return
    turn.set(begin=s)
    turn.events.append(s.started)
    turn.run = apply(RunState(), s.started)
    turn.record(ev.MessageAdded, message=s.message)
    for early in turn.state.early:
        turn.record(ev.Steered, input_id=early.input_id, message=early.message)
    if turn.state.stop is not None:
        turn.end(turn.state.stop.status, turn.state.stop.kind, turn.state.stop.message)
    else:
        _next_step(turn)


def _resume(turn: _Turn, s: Resume) -> None:
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
        _skip(turn)
    for call in turn.calls:
        if _is_damaged(call):
            turn.finish(call, "skipped", DAMAGED if call.started_at is None else IN_DOUBT_SKIPPED)
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
                description=asked.description, preview=asked.preview, expires_at=s.expires_at,
            )  # fmt: skip
        elif call.status == "proposed" and call.verdict == "deny":
            turn.finish(call, "denied", denial(call.name, call.judged_by, call.reason))
        elif call.status == "proposed" and call.request is not None and call.request.answer is not None:
            _close_answered(turn, call)
        elif call.status == "proposed" and call.problem is not None:
            turn.finish(call, "invalid", call.problem)
    unjudged = tuple(call for call in turn.calls if call.status == "proposed")
    if s.run.steps and all(added.by == "restart" for added in s.run.steps[-1].after):
        turn.set(terminates=any(call.terminates for call in turn.calls))
    if not turn.run.steps:
        _next_step(turn)
    elif unjudged:
        turn.set(is_judging=True)
        turn.commands.append(Judge(unjudged))
    elif not turn.calls and (last := turn.run.steps[-1]).message is not None and last.error_kind != INTERRUPTED:
        if last.message.is_partial:
            turn.end("truncated", "length", "the answer was cut at the model's output limit")
        else:
            _finish(turn)
    else:
        _advance(turn)


def _is_damaged(call: CallState) -> bool:
    """Part of its record is missing: nobody can say any more what would run, and it would stay open for ever."""
    if call.status == "proposed":
        return call.verdict == "ask" and call.request is None
    return call.is_open and call.digest is None


def _saved_part(block: Block) -> Text | Reasoning:
    return Text(block.text) if block.kind == "text" else Reasoning(block.text)


def _close_answered(turn: _Turn, call: CallState) -> None:
    """The answer is in the record, what followed from it is not."""
    asked = call.request
    assert asked is not None
    if asked.answer == "result":
        turn.finish(call, "ok", asked.result or "")
    elif asked.kind == "in_doubt":
        turn.finish(call, "skipped", IN_DOUBT_SKIPPED)
    else:
        turn.finish(call, "denied", denial(call.name, BY.get(asked.by or "", str(asked.by)), asked.reason))


def _next_step(turn: _Turn) -> None:
    step = len(turn.run.steps) + 1
    # A step that a crash has cut short is begun again, and does not count: else a run of one step could not be resumed.
    if 0 < turn.run.max_steps <= len(turn.run.steps) - turn.state.cut_short:
        _limit(turn, None)
    else:
        _call_model(turn, step)


def _limit(turn: _Turn, text: str | None) -> None:
    """The steps are used up: end with the words of a step policy, with a summary of the model's, or without."""
    if text is None and turn.begin.summarises and turn.run.steps:
        turn.record(ev.MessageAdded, message=Message("user", (Text(LAST_WORD),)), by="limit")
        turn.set(is_last_word=True)
        _call_model(turn, len(turn.run.steps) + 1)
    else:
        turn.end("max_steps", "max_steps", _used_up(turn), text)


def _used_up(turn: _Turn) -> str:
    if limit := turn.run.max_steps:
        return f"stopped after {limit} step{'s' * (limit != 1)}, the limit of this run"
    return "stopped by the step policy of this run"


def _call_model(turn: _Turn, step: int) -> None:
    turn.record(ev.StepStarted, step=step, model=turn.run.steps[-1].model if turn.run.steps else turn.run.model)
    turn.set(
        assembly=Assembly(),
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


def _streamed(turn: _Turn, s: Streamed) -> None:
    if not turn.state.is_streaming:
        return
    run_id, step = turn.run.run_id, len(turn.run.steps)
    assembly, events, delta = turn.state.assembly, turn.events, ev.TextDelta
    pending: list[str] = []
    number = -1
    for fragment in s.fragments:
        if type(fragment) is TextFragment:
            if text := fragment.text:
                if not pending:
                    blocks = assembly.blocks
                    number = len(blocks) - 1 if blocks and blocks[-1].kind == "text" else len(blocks)
                pending.append(text)
                events.append(delta(run_id, step, number, text))
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
        elif isinstance(fragment, ImageFragment):
            assembly = assembly.show(fragment)
    if pending:
        assembly, _ = assembly.add("text", "".join(pending))
    is_thinking = bool(assembly.blocks) and assembly.blocks[-1].kind == "reasoning"
    if is_thinking == (turn.state.thinking_since is not None):
        turn.set(assembly=assembly)
    elif is_thinking:
        turn.set(assembly=assembly, thinking_since=s.at)
    else:
        turn.set(assembly=assembly, thinking_since=None, thought_s=turn.state.reasoning_s(s.at))
    if _is_save_due(turn):
        _save_partial(turn)


def _is_save_due(turn: _Turn) -> bool:
    # A clock that was set back must not stop the saving until it has caught up.
    return abs(turn.at - turn.state.saved_at) >= SAVE_EVERY_S


def _save_partial(turn: _Turn) -> None:
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


def _chosen(turn: _Turn, s: Chosen) -> None:
    step = turn.run.steps[-1] if turn.run.steps else None
    if turn.state.is_streaming and step is not None and (s.model, s.tier) != (step.model, step.tier):
        turn.record(ev.ModelChosen, model=s.model, tier=s.tier, reason=s.reason)


def _is_being_asked(turn: _Turn) -> bool:
    """A model is about to be called for the open step, and has said nothing yet."""
    return turn.state.is_streaming and not turn.state.assembly.has_content


def _found(turn: _Turn, s: Found) -> None:
    if _is_being_asked(turn) and turn.run.retrieved is None:
        turn.record(ev.Retrieved, passages=s.passages, tokens=s.tokens)


def _cut(turn: _Turn, s: Cut) -> None:
    if not _is_being_asked(turn):
        return
    turn.record(
        ev.Pruned, call_ids=s.call_ids, head_chars=s.head_chars, passages=s.passages, tokens_before=s.tokens_before,
        tokens_after=s.tokens_after,
    )  # fmt: skip
    counts = ((len(s.call_ids), "tool result"), (len(s.passages), "passage"))
    cut = " and ".join(f"{number} {what}{'s' * (number != 1)}" for number, what in counts if number)
    _note_room(turn, f"{cut} cut", s)


def _summarised(turn: _Turn, s: Summarised) -> None:
    if not _is_being_asked(turn):
        return
    turn.record(
        ev.Compacted, upto_run_id=s.upto[0], upto_step=s.upto[1], covers=s.covers, summary=s.summary,
        tokens_before=s.tokens_before, tokens_after=s.tokens_after, model=s.model, usage=s.usage, cost_usd=s.cost_usd,
        cost_basis=s.cost_basis,
    )  # fmt: skip
    _note_room(turn, f"the conversation so far was summarised{f' by {s.model}' if s.model else ' without a model'}", s)


def _note_room(turn: _Turn, what: str, s: Cut | Summarised) -> None:
    turn.record(ev.Noted, kind="context", message=f"{what}: about {s.tokens_before:,} tokens became {s.tokens_after:,}")


def _model_finished(turn: _Turn, s: ModelFinished) -> None:
    if not turn.state.is_streaming:
        return
    step, end, is_last_word = turn.run.steps[-1], s.finished, turn.state.is_last_word
    message = s.message or Message("assistant", turn.state.assembly.parts(with_calls=not is_last_word))
    turn.set(is_streaming=False, assembly=Assembly(), is_unanswered=False)
    is_cut = end.finish_reason == "length" and not message.calls
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
        turn.end("max_steps", "max_steps", _used_up(turn))
    elif message.calls and turn.run.queued:
        for call in turn.calls:
            was_in_doubt = call.request is not None and call.request.kind == "in_doubt"
            turn.finish(call, "skipped", IN_DOUBT_SKIPPED if was_in_doubt else SKIPPED)
        _advance(turn)
    elif message.calls:
        turn.set(is_judging=True)
        turn.commands.append(Judge(turn.calls))
    elif is_cut and not turn.run.queued:
        turn.end("truncated", "length", "the answer was cut at the model's output limit")
    elif end.finish_reason == "filter" and not turn.run.queued:
        turn.end("failed", "filter", "the provider's filter has ended the answer")
    elif not message.text.strip() and not turn.run.queued and not any(isinstance(p, Image) for p in message.parts):
        turn.end("failed", "empty_reply", "the model ended its turn without a word and without a call")
    else:
        _finish(turn)


def _model_failed(turn: _Turn, s: ModelFailed) -> None:
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
    _keep_partial(turn)
    turn.record(
        ev.StepFailed, kind=s.kind, message=s.message, usage=s.usage, cost_usd=s.cost_usd, cost_basis=s.cost_basis,
        duration_s=max(0.0, s.at - started_at), first_token_s=s.first_token_s,
        reasoning_s=turn.state.reasoning_s(s.at), longest_gap_s=s.longest_gap_s,
    )  # fmt: skip
    if turn.state.is_last_word:
        turn.end("max_steps", "max_steps", _used_up(turn))
    elif turn.state.is_unanswered and is_untouched:
        # A key that is missing must not use up what was left of a turn: it stays interrupted, and can be resumed again.
        turn.set(is_left=True)
    else:
        turn.end("failed", s.kind, s.message)


def _try_again(turn: _Turn, s: ModelFailed) -> bool:
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


def _keep_partial(turn: _Turn) -> None:
    """The text so far as a partial message. Calls that were being written never happened: they were not proposed."""
    parts = turn.state.assembly.parts(with_calls=False)
    turn.set(is_streaming=False, assembly=Assembly())
    if parts:
        turn.record(ev.MessageAdded, message=Message("assistant", parts, is_partial=True))


def _judged(turn: _Turn, s: Judged) -> None:
    if not turn.state.is_judging:
        return
    judgements = {judgement.call_id: judgement for judgement in s.judgements}
    turn.set(is_judging=False, traits={**turn.state.traits, **{j.call_id: j.traits for j in s.judgements}})
    is_cut = turn.run.steps[-1].finish_reason == "length"
    unjudged = [call for call in turn.calls if call.status == "proposed" and call.verdict is None]
    for call in unjudged:
        j = judgements.setdefault(call.call_id, Judgement(call.call_id, problem="the call was not judged"))
        if is_cut and not call.arguments_text.strip():
            # Text that was cut is no JSON and is refused as such; text that was cut off before it began looks like none.
            j = Judgement(
                call.call_id, j.effect, problem="the call was cut off at the model's output limit; make it again"
            )
            judgements[call.call_id] = j
        turn.record(
            ev.CallProposed, call_id=call.call_id, name=call.name, arguments=j.arguments, digest=j.digest,
            effect=j.effect, problem=j.problem, is_replaced=j.is_replaced, is_trusted=j.is_trusted,
        )  # fmt: skip
        if j.problem is None:
            turn.record(ev.CallJudged, call_id=call.call_id, verdict=j.verdict, by=j.by, reason=j.reason)
    asked_about = {call.call_id for call in unjudged}
    for call in turn.calls:
        if call.call_id not in asked_about:
            continue
        j = judgements[call.call_id]
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
    _advance(turn)


def denial(name: str, by: str, reason: str) -> str:
    """What the model reads about a denied call."""
    return f"{name} was not run: denied by {by}" + (f": {reason}" if reason else ".")


def _asked(turn: _Turn, s: Asked) -> None:
    call = turn.run.steps[-1].call(s.call_id) if turn.run.steps else None
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


def _answered(turn: _Turn, s: Answered) -> None:
    call = next((c for c in turn.calls if c.request is not None and c.request.request_id == s.request_id), None)
    if call is None or call.status != "waiting" or call.digest is None:
        return
    _record_answer(turn, call, s)
    if call.request is not None and call.request.kind == "in_doubt":
        if s.answer != "approve":
            _close_answered(turn, next(c for c in turn.calls if c.call_id == call.call_id))
    elif call.started_at is None:
        if s.answer == "deny":
            turn.deny(call, denial(call.name, BY.get(s.by, s.by), s.reason), s.reason)
        elif s.answer == "result":
            turn.finish(call, "ok", s.result or "")
    _advance(turn)


def _record_answer(turn: _Turn, call: CallState, s: Answered) -> None:
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


def _advance(turn: _Turn) -> None:
    """Start what may start; when every call of the step is closed, the boundary is reached."""
    state = turn.state
    if turn.run.is_ended or state.is_judging or state.is_streaming or state.reviewing:
        return
    calls = turn.calls
    if not any(call.is_open for call in calls):
        _boundary(turn)
        return
    running = [call for call in calls if call.started_at is not None and call.is_open and not _is_in_doubt(call)]
    free = MAX_PARALLEL - len(running)
    of_tool: dict[str, int] = {}
    for call in running:
        of_tool[call.name] = of_tool.get(call.name, 0) + 1
    is_write_open = False
    for call in calls:
        traits = state.traits.get(call.call_id, _PLAIN)
        may_start = call.status == "allowed" and free > 0
        if traits.concurrency is not None and of_tool.get(call.name, 0) >= traits.concurrency:
            may_start = False
        if call.effect != "read" and not traits.is_parallel:
            may_start = may_start and not is_write_open
            is_write_open = is_write_open or call.is_open
        if may_start and call.digest is not None:
            free -= 1
            of_tool[call.name] = of_tool.get(call.name, 0) + 1
            turn.record(ev.CallStarted, call_id=call.call_id, digest=call.digest, effect=call.effect)
            turn.commands.append(StartCall(next(c for c in turn.calls if c.call_id == call.call_id)))


def _is_in_doubt(call: CallState) -> bool:
    asked = call.request
    return call.status == "in_doubt" or (asked is not None and asked.kind == "in_doubt" and asked.answer is None)


def _boundary(turn: _Turn) -> None:
    """All calls of the step are closed."""
    if _read_steering(turn):
        _next_step(turn)
    elif turn.state.terminates:
        _finish(turn)
    elif "step" in turn.begin.reviews:
        turn.set(reviewing="step")
        turn.commands.append(AskReviewers("step"))
    else:
        _next_step(turn)


def _finish(turn: _Turn) -> None:
    """The agent would stop here."""
    if _read_steering(turn):
        _next_step(turn)
    elif "finish" in turn.begin.reviews:
        turn.set(reviewing="finish")
        turn.commands.append(AskReviewers("finish"))
    else:
        turn.end("completed")


def _read_steering(turn: _Turn) -> bool:
    queued = turn.run.queued if turn.begin.reads_all else turn.run.queued[:1]
    for steered in queued:
        turn.record(ev.MessageAdded, message=steered.message, by="steering", input_id=steered.input_id)
    if queued:
        turn.set(terminates=False)
    return bool(queued)


def _reviewed(turn: _Turn, s: Reviewed) -> None:
    if turn.state.reviewing != s.review:
        return
    turn.set(reviewing=None)
    if s.failure is not None:
        turn.end("failed", *s.failure)
    elif _read_steering(turn):
        _next_step(turn)
    elif s.message is not None:
        turn.record(ev.MessageAdded, message=s.message, by=s.by)
        turn.set(terminates=False)
        _next_step(turn)
    elif s.review == "finish" or s.is_final:
        turn.end("completed")
    elif s.may_go_on:
        _next_step(turn)
    else:
        _limit(turn, s.text)


def _progressed(turn: _Turn, s: Progressed) -> None:
    if any(call.call_id == s.call_id and call.is_open and call.started_at is not None for call in turn.calls):
        event = ev.CallProgress(turn.run.run_id, len(turn.run.steps), s.call_id, s.text, s.data)
        turn.events.append(event)
        turn.run = apply(turn.run, event)


def _call_returned(turn: _Turn, s: CallReturned) -> None:
    call = next((c for c in turn.calls if c.call_id == s.call_id), None)
    if call is None or not call.is_open:
        return
    if s.call_id in turn.state.denying:
        turn.set(denying=turn.state.denying - {s.call_id})
        turn.finish(call, "denied", s.content)
    elif call.started_at is None:
        return
    else:
        if call.status == "waiting":  # it ended while it was asking: its time limit, or a task of its own
            turn.withdraw(call, "cancel", "the call ended before the answer came")
        is_last = s.terminates and s.status == "ok"
        turn.finish(call, s.status, s.content, details=s.details, files=s.files, display=s.display, terminates=is_last)
        if is_last:
            turn.set(terminates=True)
    _advance(turn)


def _steer(turn: _Turn, s: Steer) -> None:
    if any(steered.input_id == s.input_id for steered in turn.run.queued):
        return
    turn.record(ev.Steered, input_id=s.input_id, message=s.message)
    if turn.state.is_streaming or turn.state.is_judging or turn.state.reviewing:
        return
    _skip(turn)
    _advance(turn)


def _skip(turn: _Turn) -> None:
    """A message waits: no call begins and no question stays open before it is read. What is in doubt must be decided."""
    for call in turn.calls:
        if _is_in_doubt(call):
            continue
        if call.status == "waiting":
            turn.withdraw(call, "steering", "a new message arrived")
        if call.is_open and call.started_at is None:
            turn.set(denying=turn.state.denying - {call.call_id})
            turn.finish(call, "skipped", SKIPPED)


def _note(turn: _Turn, s: Note) -> None:
    turn.record(ev.Noted, kind=s.kind, message=s.message, call_id=s.call_id, data=s.data)


def _set_budget(turn: _Turn, s: SetBudget) -> None:
    turn.record(ev.BudgetChanged, budget=s.budget)


def _set_rules(turn: _Turn, s: SetRules) -> None:
    turn.record(ev.RulesChanged, rules=s.rules)


def _stop(turn: _Turn, s: Stop) -> None:
    if turn.state.is_streaming:
        started_at = turn.run.steps[-1].started_at
        _keep_partial(turn)
        turn.record(
            ev.StepFailed, kind=s.kind or s.status, message=s.message or f"the run was {s.status}",
            usage=s.usage, cost_usd=s.cost_usd, cost_basis=s.cost_basis,
            duration_s=max(0.0, s.at - started_at), reasoning_s=turn.state.reasoning_s(s.at),
        )  # fmt: skip
    turn.set(is_judging=False, reviewing=None)
    if any(call.status == "waiting" and _is_in_doubt(call) for call in turn.calls):
        # Nobody has said whether it has happened: no stop decides that, and the next resumption asks again.
        turn.set(is_left=True)
        return
    for call in turn.calls:
        if call.status == "waiting":
            turn.withdraw(call, "cancel", s.message or "")
        if call.is_open:
            content = "The run was stopped before this call ran."
            if call.started_at is not None and call.call_id not in s.not_begun:
                content = "The run was stopped while this call was running; its effect may or may not have happened."
            turn.finish(call, "cancelled", content)
    turn.end(s.status, s.kind, s.message)


def _clock(turn: _Turn, s: Clock) -> None:
    if turn.state.is_streaming:
        if _is_save_due(turn):
            _save_partial(turn)
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
            _answered(turn, late)


_PLAIN = Traits()
_ON: dict[type, Callable[[_Turn, Any], None]] = {
    Begin: _begin,
    Resume: _resume,
    Streamed: _streamed,
    ModelFinished: _model_finished,
    ModelFailed: _model_failed,
    Found: _found,
    Cut: _cut,
    Summarised: _summarised,
    Chosen: _chosen,
    Asked: _asked,
    Steer: _steer,
    Reviewed: _reviewed,
    Note: _note,
    SetBudget: _set_budget,
    SetRules: _set_rules,
    Judged: _judged,
    Answered: _answered,
    Progressed: _progressed,
    CallReturned: _call_returned,
    Stop: _stop,
    Clock: _clock,
}
