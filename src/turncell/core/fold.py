"""The fold: what a run looks like, from its events alone.

`apply(state, event)` is the only way a `RunState` changes. The loop decides which events happen (`core.reducer`) and
folds them with this function; resume, transcript and tables fold the same events from the journal, and the page
folds them in TypeScript (`js/src/fold.ts`), held equal by tests over shared journals. Therefore:

* the fold never fails on an order that the reducer can produce, and ignores what it does not know;
* passing deltas grow the blocks of the open step; `MessageAdded` replaces them by the message, so that leaving the
  deltas out changes nothing that lasts; `PartialSaved` says where its piece begins, so taking it twice is harmless.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from turncell.core import events as ev
from turncell.core.deltas import Block, rope_add
from turncell.core.parts import (
    MAX_DEPTH,
    Image,
    Json,
    Message,
    Part,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    depth,
    seen_images,
)
from turncell.core.policy import Effect, Verdict
from turncell.core.values import copied, evolve

RunStatus: TypeAlias = Literal["running", "waiting", "interrupted", "in_doubt"] | ev.EndStatus
CallStatus: TypeAlias = Literal["streaming", "proposed", "waiting", "allowed", "running", "in_doubt"] | ev.CallEnd
Edit: TypeAlias = ev.Pruned | ev.Compacted
"""A change of what the model is told: each breaks the prefix that the provider may have cached."""
OPEN_CALL: frozenset[CallStatus] = frozenset({"streaming", "proposed", "waiting", "allowed", "running", "in_doubt"})


@dataclass(frozen=True)
class RequestState:
    request_id: str
    digest: str
    description: str = ""
    preview: str | None = None
    expires_at: float | None = None
    opened_at: float = 0.0
    kind: ev.RequestKind = "approval"
    question: str = ""
    options: tuple[ev.Option, ...] = ()
    allows_text: bool = False
    allows_many: bool = False
    name: str = ""
    """The tool that would run, where it is a sub-agent's."""
    arguments: dict[str, Json] | None = None
    default_result: str | None = None
    answer: ev.Answer | None = None
    by: ev.AnsweredBy | None = None
    reason: str = ""
    result: str | None = None
    scope: ev.Scope = "once"
    answered_at: float | None = None


@dataclass(frozen=True)
class CallState:
    call_id: str
    step: int
    name: str
    arguments_text: str = ""
    arguments: dict[str, Json] | None = None
    """Validated; after an edit, the edited ones."""
    proposed_arguments: dict[str, Json] | None = None
    """What the model asked for, where a person or a hook changed it."""
    digest: str | None = None
    effect: Effect = "write"
    status: CallStatus = "streaming"
    problem: str | None = None
    verdict: Verdict | None = None
    judged_by: str = ""
    reason: str = ""
    request: RequestState | None = None
    """The latest: a running call may ask more than once."""
    requests: int = 0
    """How many there were."""
    waited_s: float = 0.0
    """Seconds that people took to answer."""
    is_trusted: bool = False
    terminates: bool = False
    """The run ends after it."""
    content: str | None = None
    details: Json = None
    files: tuple[ev.File, ...] = ()
    display: tuple[dict[str, Json], ...] = ()
    progress: str = ""
    progress_data: Json = None
    proposed_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float | None = None

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_CALL


@dataclass(frozen=True, slots=True)
class Added:
    """A message that came after a step: of a person who steers, of a hook, of the runtime."""

    message: Message
    by: ev.MessageBy


@dataclass(frozen=True)
class StepState:
    step: int
    model: str
    started_at: float
    tier: str | None = None
    after: tuple[Added, ...] = ()
    """What was said after it and before the next."""
    blocks: tuple[Block, ...] = ()
    calls: tuple[CallState, ...] = ()
    message: Message | None = None
    finish_reason: ev.FinishReason | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_basis: ev.CostBasis = "none"
    answered_by: str | None = None
    duration_s: float | None = None
    first_token_s: float | None = None
    reasoning_s: float | None = None
    longest_gap_s: float | None = None
    error_kind: str | None = None
    error: str | None = None

    def call(self, call_id: str) -> CallState | None:
        for call in self.calls:
            if call.call_id == call_id:
                return call
        return None


_NOT_STARTED = ev.RunStarted(seq=0, session_id="", run_id="", step=0, at=0.0, model="", mode="ask", max_steps=40)


@dataclass(frozen=True)
class RunState:
    """A run as its events tell it. What its beginning said (`started`) is read through the state: `run.mode`."""

    seq: int = 0
    status: RunStatus = "running"
    started: ev.RunStarted = _NOT_STARTED
    prompt: Message | None = None
    steps: tuple[StepState, ...] = ()
    told: tuple[tuple[Message, ...], ...] = ()
    """What each step but the last adds: nothing changes that any more, and a late step costs what an early one does."""
    retrieved: ev.Retrieved | None = None
    edits: tuple[Edit, ...] = ()
    """What this run has cut or summarised of the conversation, to make room (`core.context`)."""
    queued: tuple[ev.Steered, ...] = ()
    """Messages that came while the run was going on and that the model has not read yet."""
    notes: tuple[ev.Noted, ...] = ()
    budget: dict[str, Json] | None = None
    is_tainted: bool = False
    """The model has read what an untrusted tool returned."""
    failed: tuple[str, ...] = ()
    """The digests of the calls that failed, one for each time."""
    closing: str | None = None
    ended_at: float | None = None
    error_kind: str | None = None
    error: str | None = None
    run_id: str = field(init=False, default="", repr=False, compare=False)
    session_id: str = field(init=False, default="", repr=False, compare=False)
    """What `started` says, once more: nothing of a run is asked for as often."""

    def __post_init__(self) -> None:
        self.__dict__.update(run_id=self.started.run_id, session_id=self.started.session_id)

    def __repr__(self) -> str:
        """Short: the whole is a conversation, and would stand in a notebook."""
        return f"<RunState {self.run_id or 'of no run'}: {self.status}, {len(self.steps)} step{'s' * (len(self.steps) != 1)}>"

    @property
    def model(self) -> str:
        return self.started.model

    @property
    def mode(self) -> str:
        return self.started.mode

    @property
    def max_steps(self) -> int:
        """0 where a step policy decides instead."""
        return self.started.max_steps

    @property
    def instructions(self) -> str:
        return self.started.instructions

    @property
    def tools(self) -> tuple[str, ...]:
        return self.started.tools

    @property
    def is_attended(self) -> bool:
        return self.started.is_attended

    @property
    def previous(self) -> str | None:
        return self.started.previous

    @property
    def root_run_id(self) -> str:
        return self.started.root_run_id or self.started.run_id

    @property
    def parent_run_id(self) -> str | None:
        return self.started.parent_run_id

    @property
    def depth(self) -> int:
        return self.started.depth

    @property
    def cell_id(self) -> str | None:
        return self.started.cell_id

    @property
    def agent(self) -> str:
        return self.started.agent

    @property
    def started_at(self) -> float:
        return self.started.at

    @property
    def notices(self) -> tuple[str, ...]:
        """What tools had to say to the next message."""
        return tuple(note.message for note in self.notes if note.kind == "notice")

    @property
    def is_ended(self) -> bool:
        return self.ended_at is not None

    @property
    def calls(self) -> tuple[CallState, ...]:
        return tuple(call for step in self.steps for call in step.calls)

    @property
    def open_requests(self) -> tuple[CallState, ...]:
        """The calls that wait for a person."""
        last = self.steps[-1].calls if self.steps else ()
        return tuple(call for call in last if call.status == "waiting")

    @property
    def text(self) -> str:
        """The answer: the text of the last step that wrote any, or what a step policy or the call that ended the run has closed it with."""
        if self.closing is not None:
            return self.closing
        for step in reversed(self.steps):
            text = "".join(block.text for block in step.blocks if block.kind == "text")
            if text:
                return text
        return ""

    @property
    def summaries(self) -> tuple[ev.Compacted, ...]:
        """The compactions of this run that asked a model, also where its words were not taken."""
        found = (edit for edit in self.edits if isinstance(edit, ev.Compacted))
        return tuple(edit for edit in found if edit.model or edit.usage != Usage())

    @property
    def usage(self) -> Usage:
        """Tokens of all steps and summaries; a kind that none reported stays None."""
        return total_usage([*(step.usage for step in self.steps), *(summary.usage for summary in self.summaries)])

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all steps and summaries, None as soon as the cost of one is unknown."""
        costs = [*(step.cost_usd for step in self.steps), *(summary.cost_usd for summary in self.summaries)]
        return sum(cost for cost in costs if cost is not None) if costs and None not in costs else None

    def messages(self) -> tuple[Message, ...]:
        """The messages of this run, whole, as a provider accepts them: each call with exactly one result, in source order.

        What a model is told of them where room is short, `core.context` says.
        """
        last = step_messages(self.steps[-1]) if self.steps else ()
        heard = self.heard
        return (*((heard,) if heard else ()), *(message for step in self.told for message in step), *last)

    @property
    def heard(self) -> Message | None:
        """The prompt as the model reads it: notices, then passages, one part each, then what the person wrote."""
        prompt = self.prompt
        if prompt is None or not prompt.parts:
            return None
        if self.retrieved is None and not self.started.notices:
            return prompt
        before = [Text(f"[from {found.source}]\n{found.text}\n\n") for found in self.passages]
        if self.started.notices:
            notices = "\n".join(f"[notice] {notice}" for notice in self.started.notices)
            before.insert(0, Text(f"{notices}\n\n"))
        return Message("user", (*before, *prompt.parts)) if before else prompt

    @property
    def passages(self) -> tuple[ev.Passage, ...]:
        return self.retrieved.passages if self.retrieved is not None else ()


def step_messages(step: StepState) -> tuple[Message, ...]:
    """What a step adds to the conversation: the answer with its closed calls, their results, what was said after."""
    after = tuple([added.message for added in step.after]) if step.after else ()
    answer = step.message
    if answer is None:
        return after
    parts: list[Part] = []
    results: list[ToolResult] = []
    for part in answer.parts:
        if part.type != "tool_call":
            parts.append(part)
        elif (call := step.call(part.call_id)) is not None and call.status not in OPEN_CALL:
            images = seen_images(call.display) if call.display else ()
            parts.append(_as_run(part, call))
            results.append(
                ToolResult(part.call_id, part.name, call.content or "", call.status != "ok", part.provider_id, images)
            )
    told: list[Message] = []
    if parts:
        as_run = tuple(parts)
        told.append(answer if as_run == answer.parts else evolve(answer, parts=as_run))
    if results:
        told.append(Message("tool", tuple(results)))
    return (*told, *after)


def fold(events: Iterable[ev.Said], state: RunState | None = None) -> RunState:
    """Fold the events of one run, in order."""
    state = state or RunState()
    for event in events:
        state = apply(state, event)
    return state


def apply(state: RunState, event: ev.Said) -> RunState:
    """The state after one more event."""
    change = _CHANGES.get(type(event))
    if change is None:
        return state
    after: RunState = change(state, event)
    if isinstance(event, ev.Recorded):
        if after is state:
            after = evolve(state)
        made = after.__dict__  # of a moment ago: nobody else has it
        made["seq"] = event.seq
        if after.ended_at is None:
            status: RunStatus = "running"
            for call in after.steps[-1].calls if after.steps else ():
                if call.status == "waiting":
                    status = "waiting"
            made["status"] = status
    return after


def at_rest(state: RunState, doubtful: Container[str] = ()) -> RunState:
    """An open run that nobody drives: what the end of its program has left of it.

    A write that had begun is in doubt. Reads and idempotent calls that had begun may begin again, but for the `doubtful`
    ones, by their ids: those in which something else may have written. A call that waits for an approval still waits;
    one that was asking something itself is gone with its question.
    """
    if state.is_ended or not state.run_id:
        return state
    if state.steps:
        calls = state.steps[-1].calls
        state = _last(state, calls=tuple(_call_at_rest(call, call.call_id in doubtful) for call in calls))
    statuses = {call.status for call in (state.steps[-1].calls if state.steps else ())}
    status: RunStatus = "in_doubt" if "in_doubt" in statuses else "waiting" if "waiting" in statuses else "interrupted"
    return evolve(state, status=status)


def _call_at_rest(call: CallState, is_doubtful: bool) -> CallState:
    if not call.is_open:
        return call
    asked = call.request
    # What was in doubt is so until somebody has said.
    is_undecided = call.status == "in_doubt" or (
        asked is not None and asked.kind == "in_doubt" and asked.answer is None
    )
    if call.started_at is None and not is_undecided:
        return call
    rest: dict[str, Any] = {"progress": "", "progress_data": None}
    if call.effect == "write":
        return evolve(call, status="in_doubt", **rest)
    return evolve(call, status="in_doubt" if is_doubtful or is_undecided else "allowed", started_at=None, **rest)


def as_deltas(run_id: str, step: StepState) -> list[ev.Event]:
    """The blocks of a step as one delta each: what somebody who comes late would have seen."""
    deltas: list[ev.Event] = []
    for number, block in enumerate(step.blocks):
        if block.kind == "text":
            deltas.append(ev.TextDelta(run_id, step.step, number, block.text))
        elif block.kind == "reasoning":
            deltas.append(ev.ReasoningDelta(run_id, step.step, number, block.text))
        elif (call := step.call(block.call_id)) is not None:
            deltas.append(ev.ArgumentsDelta(run_id, step.step, number, call.arguments_text, call.call_id, call.name))
    return deltas


def total_usage(usages: Iterable[Usage]) -> Usage:
    total: dict[str, int | None] = {}
    is_estimated = False
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    for usage in usages:
        is_estimated = is_estimated or usage.is_estimated
        for name in names:
            value = getattr(usage, name)
            if value is not None:
                total[name] = (total.get(name) or 0) + value
    return Usage(**{name: total.get(name) for name in names}, is_estimated=is_estimated)


def snapshot(state: RunState) -> dict[str, Any]:
    """The state as JSON values, for the page: ropes joined, what only the model reads left out."""
    head = state.started
    return {
        "run_id": head.run_id, "session_id": head.session_id, "seq": state.seq, "status": state.status, "model": head.model,
        "mode": head.mode, "max_steps": head.max_steps, "tools": head.tools, "is_attended": head.is_attended,
        "previous": head.previous, "root_run_id": state.root_run_id, "parent_run_id": head.parent_run_id,
        "depth": head.depth, "cell_id": head.cell_id, "agent": head.agent, "is_imported": head.is_imported,
        "started_at": head.at,
        "prompt": state.prompt.text if state.prompt else "",
        "steps": [_step_snapshot(step) for step in state.steps],
        "queued": [{"input_id": steered.input_id, "text": steered.message.text} for steered in state.queued],
        "notes": [{"kind": n.kind, "message": n.message, "step": n.step, "call_id": n.call_id} for n in state.notes],
        "summaries": [{"step": s.step, "usage": s.usage, "cost_usd": s.cost_usd} for s in state.summaries],
        "budget": state.budget, "is_tainted": state.is_tainted, "closing": state.closing,
        "ended_at": state.ended_at, "error_kind": state.error_kind, "error": state.error,
    }  # fmt: skip


def _step_snapshot(step: StepState) -> dict[str, Any]:
    plain = {name: getattr(step, name) for name in _STEP_FIELDS}
    plain["blocks"] = [
        {"kind": b.kind, "text": "" if b.kind == "call" else b.text, "call_id": b.call_id} for b in step.blocks
    ]
    parts = step.message.parts if step.message is not None else ()
    plain["images"] = [{"media_type": p.media_type, "data": p.data} for p in parts if isinstance(p, Image)]
    plain["calls"] = list(step.calls)
    plain["after"] = [{"by": added.by, "text": added.message.text} for added in step.after]
    return plain


_STEP_FIELDS = tuple(f.name for f in fields(StepState) if f.name not in ("blocks", "calls", "message", "after"))


# One function for each event. `step` events change the last step only: earlier ones are closed.


_BEGUN = StepState(0, "", 0.0)
_PROPOSED = CallState("", 0, "", status="proposed")
"""What new steps and calls are copies of: to copy one costs a quarter of setting its fields."""


def _last(state: RunState, **changes: Any) -> RunState:
    steps = state.steps
    if not steps:
        return state
    return evolve(state, steps=(*steps[:-1], evolve(steps[-1], **changes)))


def _call(state: RunState, call_id: str, **changes: Any) -> RunState:
    steps = state.steps
    if not steps:
        return state
    calls = list(steps[-1].calls)
    for place, call in enumerate(calls):
        if call.call_id == call_id:
            calls[place] = evolve(call, **changes)
    return evolve(state, steps=(*steps[:-1], evolve(steps[-1], calls=tuple(calls))))


def _run_started(state: RunState, e: ev.RunStarted) -> RunState:
    return RunState(started=e, budget=e.budget)


def _steered(state: RunState, e: ev.Steered) -> RunState:
    return evolve(state, queued=(*state.queued, e))


def _message_added(state: RunState, e: ev.MessageAdded) -> RunState:
    if e.message.role == "user":
        if state.prompt is None:
            return evolve(state, prompt=e.message)
        if e.input_id is not None:
            state = evolve(state, queued=tuple(q for q in state.queued if q.input_id != e.input_id))
        return _last(state, after=(*state.steps[-1].after, Added(e.message, e.by))) if state.steps else state
    blocks, calls = [], []
    for part in e.message.parts:
        if part.type == "tool_call":
            blocks.append(Block("call", (), part.call_id, part.name))
            told = {"call_id": part.call_id, "name": part.name, "arguments_text": part.arguments_text}
            calls.append(evolve(_PROPOSED, step=e.step, proposed_at=e.at, **told))
        elif part.type == "text" or part.type == "reasoning":
            blocks.append(Block(part.type, (part.text,)))
    return _last(state, message=e.message, blocks=tuple(blocks), calls=tuple(calls))


def _step_started(state: RunState, e: ev.StepStarted) -> RunState:
    told = (*state.told, step_messages(state.steps[-1])) if state.steps else ()
    step = evolve(_BEGUN, step=e.step, model=e.model, started_at=e.at)
    return evolve(state, steps=(*state.steps, step), told=told)


def _model_chosen(state: RunState, e: ev.ModelChosen) -> RunState:
    return _last(state, model=e.model, tier=e.tier)


def _step_finished(state: RunState, e: ev.StepFinished) -> RunState:
    return _last(
        state, finish_reason=e.finish_reason, usage=e.usage, cost_usd=e.cost_usd, cost_basis=e.cost_basis,
        answered_by=e.answered_by, duration_s=e.duration_s, first_token_s=e.first_token_s,
        reasoning_s=e.reasoning_s, longest_gap_s=e.longest_gap_s,
    )  # fmt: skip


def _step_failed(state: RunState, e: ev.StepFailed) -> RunState:
    return _last(
        state, error_kind=e.kind, error=e.message, usage=e.usage, cost_usd=e.cost_usd, cost_basis=e.cost_basis,
        duration_s=e.duration_s, first_token_s=e.first_token_s,
        reasoning_s=e.reasoning_s, longest_gap_s=e.longest_gap_s,
    )  # fmt: skip


def _call_proposed(state: RunState, e: ev.CallProposed) -> RunState:
    changes: dict[str, Any] = {}
    if e.is_replaced and (call := state.steps[-1].call(e.call_id) if state.steps else None) is not None:
        changes = {"proposed_arguments": _object(call.arguments_text)}
    return _call(
        state, e.call_id, arguments=copied(e.arguments), digest=e.digest, effect=e.effect, problem=e.problem,
        is_trusted=e.is_trusted, **changes,
    )  # fmt: skip


def _call_judged(state: RunState, e: ev.CallJudged) -> RunState:
    status: CallStatus = "allowed" if e.verdict == "allow" else "proposed"
    return _call(state, e.call_id, verdict=e.verdict, judged_by=e.by, reason=e.reason, status=status)


def _request_opened(state: RunState, e: ev.RequestOpened) -> RunState:
    call = state.steps[-1].call(e.call_id) if state.steps else None
    if call is None:
        return state
    request = RequestState(
        e.request_id, e.digest, e.description, e.preview, e.expires_at, e.at, e.kind, e.question, tuple(e.options),
        e.allows_text, e.allows_many, e.name, copied(e.arguments), e.default_result,
    )  # fmt: skip
    return _call(state, e.call_id, request=request, requests=call.requests + 1, status="waiting")


def _request_answered(state: RunState, e: ev.RequestAnswered) -> RunState:
    call = state.steps[-1].call(e.call_id) if state.steps else None
    if call is None or call.request is None:
        return state
    request = evolve(
        call.request, answer=e.answer, by=e.by, reason=e.reason, result=e.result, scope=e.scope, answered_at=e.at
    )
    changes: dict[str, Any] = {"request": request, "waited_s": call.waited_s + max(0.0, e.at - request.opened_at)}
    if call.request.kind == "in_doubt":
        status = "allowed" if e.answer == "approve" else "proposed"
        return _call(state, e.call_id, status=status, started_at=None, **changes)
    if call.started_at is not None:  # asked by the running call: it goes on
        return _call(state, e.call_id, status="running", **changes)
    changes["status"] = "allowed" if e.answer in ("approve", "edit") else "proposed"
    if e.answer == "edit":
        # What the model asked for, also where a hook had changed it before the person did.
        asked_for = call.arguments if call.proposed_arguments is None else call.proposed_arguments
        changes |= {"arguments": copied(e.arguments), "digest": e.digest, "proposed_arguments": asked_for}
    return _call(state, e.call_id, **changes)


def _call_started(state: RunState, e: ev.CallStarted) -> RunState:
    return _call(state, e.call_id, status="running", started_at=e.at)


def _call_finished(state: RunState, e: ev.CallFinished) -> RunState:
    call = state.steps[-1].call(e.call_id) if state.steps else None
    if call is not None and call.started_at is not None and not call.is_trusted and not state.is_tainted:
        state = evolve(state, is_tainted=True)
    if call is not None and call.digest is not None and e.status in ("error", "timeout"):
        state = evolve(state, failed=(*state.failed, call.digest))
    return _call(
        state, e.call_id, status=e.status, content=e.content, details=e.details, duration_s=e.duration_s, ended_at=e.at,
        files=tuple(e.files), display=tuple(e.display), terminates=e.terminates, progress="", progress_data=None,
    )  # fmt: skip


def _noted(state: RunState, e: ev.Noted) -> RunState:
    return evolve(state, notes=(*state.notes, e))


def _resumed(state: RunState, e: ev.Resumed) -> RunState:
    return at_rest(state)


def _rules_changed(state: RunState, e: ev.RulesChanged) -> RunState:
    return state  # the session's; here it only takes its number


def _budget_changed(state: RunState, e: ev.BudgetChanged) -> RunState:
    return evolve(state, budget=e.budget)


def _retrieved(state: RunState, e: ev.Retrieved) -> RunState:
    is_tainted = state.is_tainted or not all(passage.is_trusted for passage in e.passages)
    return evolve(state, retrieved=e, is_tainted=is_tainted)


def _edited(state: RunState, e: Edit) -> RunState:
    return evolve(state, edits=(*state.edits, e))


def _run_ended(state: RunState, e: ev.RunEnded) -> RunState:
    return evolve(state, status=e.status, ended_at=e.at, error_kind=e.kind, error=e.message, closing=e.text)


def _grow(state: RunState, number: int, kind: Literal["text", "reasoning"], text: str) -> RunState:
    blocks = state.steps[-1].blocks
    if number < len(blocks):
        old = blocks[number]
        rope = rope_add(old.rope, text)
        grown = Block(old.kind, rope, old.call_id, old.name, old.signature, old.index, old.provider_id)
        return _last(state, blocks=(*blocks[:number], grown, *blocks[number + 1 :]))
    return _last(state, blocks=(*blocks, Block(kind, (text,))))


def _delta(state: RunState, e: ev.TextDelta | ev.ReasoningDelta) -> RunState:
    if not state.steps or state.steps[-1].message is not None:
        return state
    return _grow(state, e.block, "text" if isinstance(e, ev.TextDelta) else "reasoning", e.text)


def _text_burst(state: RunState, e: ev.TextBurst) -> RunState:
    return _delta(state, e.whole())


def _partial_saved(state: RunState, e: ev.PartialSaved) -> RunState:
    if not state.steps or state.steps[-1].message is not None:
        return state
    blocks = state.steps[-1].blocks
    have = sum(map(len, blocks[e.block].rope)) if e.block < len(blocks) else 0
    missing = e.text[max(0, have - e.offset) :]
    return _grow(state, e.block, e.kind, missing) if missing else state


def _arguments_delta(state: RunState, e: ev.ArgumentsDelta) -> RunState:
    if not state.steps or state.steps[-1].message is not None:
        return state
    step = state.steps[-1]
    if step.call(e.call_id) is None:
        call = CallState(e.call_id, e.step, e.name, e.text)
        return _last(state, calls=(*step.calls, call), blocks=(*step.blocks, Block("call", (), e.call_id, e.name)))
    call = step.call(e.call_id) or CallState(e.call_id, e.step, e.name)
    return _call(state, e.call_id, name=e.name, arguments_text=call.arguments_text + e.text)


def _call_progress(state: RunState, e: ev.CallProgress) -> RunState:
    return _call(state, e.call_id, progress=e.text, progress_data=e.data)


_CHANGES: dict[type, Any] = {
    ev.RunStarted: _run_started,
    ev.Steered: _steered,
    ev.MessageAdded: _message_added,
    ev.StepStarted: _step_started,
    ev.ModelChosen: _model_chosen,
    ev.StepFinished: _step_finished,
    ev.StepFailed: _step_failed,
    ev.CallProposed: _call_proposed,
    ev.CallJudged: _call_judged,
    ev.RequestOpened: _request_opened,
    ev.RequestAnswered: _request_answered,
    ev.CallStarted: _call_started,
    ev.CallFinished: _call_finished,
    ev.PartialSaved: _partial_saved,
    ev.Noted: _noted,
    ev.BudgetChanged: _budget_changed,
    ev.RulesChanged: _rules_changed,
    ev.Retrieved: _retrieved,
    ev.Pruned: _edited,
    ev.Compacted: _edited,
    ev.Resumed: _resumed,
    ev.RunEnded: _run_ended,
    ev.TextBurst: _text_burst,
    ev.TextDelta: _delta,
    ev.ReasoningDelta: _delta,
    ev.ArgumentsDelta: _arguments_delta,
    ev.CallProgress: _call_progress,
}


def _as_run(part: ToolCall, call: CallState) -> ToolCall:
    """A closed call as it ran: edited arguments instead of the model's, never text that is not a JSON object."""
    arguments = call.arguments
    if arguments is not None:
        is_as_written = call.proposed_arguments is None and part.arguments_text.strip()
        return part if is_as_written else evolve(part, arguments_text=json.dumps(arguments))
    return evolve(part, arguments_text=json.dumps(_object(part.arguments_text)), name=part.name or "unnamed")


def _object(text: str) -> dict[str, Json]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) and depth(value) <= MAX_DEPTH else {"unreadable_arguments": text}
