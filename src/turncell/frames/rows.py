"""Histories folded into rows: runs, model calls, messages and tool calls, from the events of any number of runs.

A history is often long and mostly text, so the events are read as dicts, in one pass, and folded here into rows that
are changed in place. What a row says must be what `core.fold` says of the same run: that fold is the reference, and
tests/frames/test_tables.py compares the two on every story the reducer can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import orjson

from turncell.core.codec import decode_json, encode
from turncell.core.events import Event, Recorded
from turncell.core.fold import OPEN_CALL
from turncell.core.parts import seen_images
from turncell.runtime.ports import Record

Source: TypeAlias = Record | Recorded | Event | dict[str, Any]
"""An event in any of its forms: as a store keeps it, as the loop made it, or as a line of JSON says it."""

LIVE_TEXT = "LiveText"
"""No event: the blocks of the step that is being written, as far as a living run knows them."""
TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")

# Rows in the making. Field by field what core.fold keeps, without what no table shows.


@dataclass(slots=True)
class _Busy:
    """Seconds in which at least one of several overlapping things was going on."""

    open: set[str] = field(default_factory=set)
    since: float = 0.0
    until: float = 0.0
    """When the latest ended."""
    total_s: float = 0.0

    def begin(self, name: str, at: float) -> None:
        if not self.open:
            self.since = at
        self.open.add(name)

    def end(self, name: str, at: float) -> None:
        if name in self.open:
            self.open.discard(name)
            self.until = at
            if not self.open:
                self.total_s += at - self.since

    def break_off(self) -> None:
        """The program ended: how long what was going on went on is not known, and it is not counted."""
        if self.open:
            self.open.clear()
            self.total_s += max(0.0, self.until - self.since)


@dataclass(slots=True)
class CallRow:
    call_id: str
    step: StepRow
    name: str
    proposed_at: float
    arguments_text: str
    effect: str = "write"
    status: str = "proposed"
    arguments: Any = None
    proposed_arguments: Any = None
    digest: str | None = None
    verdict: str | None = None
    judged_by: str | None = None
    reason: str = ""
    is_trusted: bool = False
    requests: int = 0
    asked: dict[str, Any] = field(default_factory=dict)
    """The latest RequestOpened."""
    answered: dict[str, Any] = field(default_factory=dict)
    """What was answered to it."""
    waited_s: float | None = None
    waits: list[tuple[float, float | None]] = field(default_factory=list)
    """From when to when each request was open; None: it is, or the program ended."""
    content: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float | None = None
    files: int = 0
    images: int = 0
    """What the model sees with the result."""

    @property
    def is_approved(self) -> bool:
        """A call that may later ask something else keeps no other trace of its own approval than that it ran."""
        is_answered = not self.asked.get("name") and self.answered.get("answer") in ("approve", "edit")
        has_begun = self.started_at is not None or self.asked.get("kind") == "in_doubt"
        return self.verdict == "ask" and (has_begun or is_answered)

    def rest(self) -> None:
        """What the end of its program has left of it; as `core.fold.at_rest`."""
        is_undecided = self.asked.get("kind") == "in_doubt" and not self.answered
        if self.status not in OPEN_CALL or (self.started_at is None and not is_undecided):
            return
        if self.effect != "write":
            self.started_at = None
        self.status = "in_doubt" if self.effect == "write" or is_undecided else "allowed"

    def row(self) -> tuple[Any, ...]:
        run, answered = self.step.run, self.answered
        return (
            self.call_id, run.run_id, run.session_id, self.step.step, self.name, self.effect, self.status,
            _json_text(self.arguments), _json_text(self.proposed_arguments), self.digest, self.verdict, self.judged_by,
            answered.get("answer"), answered.get("by"), answered.get("reason") or self.reason or None,
            answered.get("scope", "once") if answered else None, self.requests, self.asked.get("question") or None,
            answered.get("result"), self.waited_s, self.content, self.files,
            self.proposed_at, self.started_at, self.ended_at, self.duration_s,
        )  # fmt: skip

    def told(self) -> Told:
        return Told(
            self.step.step, "tool", "tool", self.content or "", at=self.ended_at, call_id=self.call_id,
            name=self.name, images=self.images, is_error=self.status != "ok",
        )  # fmt: skip


class Told(NamedTuple):
    """A message as its row tells it."""

    step: int
    role: str
    by: str
    text: str
    reasoning: str | None = None
    call_id: str | None = None
    name: str | None = None
    calls: int = 0
    images: int = 0
    is_partial: bool = False
    is_error: bool = False
    at: float | None = None


def told_of(e: dict[str, Any], by: str) -> Told:
    """Of a `MessageAdded`."""
    message = e["message"]
    kinds = [part["type"] for part in message["parts"]]
    thought = "\n\n".join(part["text"] for part in message["parts"] if part["type"] == "reasoning")
    return Told(
        e["step"], message["role"], by, _text_of(message), thought or None, at=e["at"], calls=kinds.count("tool_call"),
        images=kinds.count("image"), is_partial=message.get("is_partial", False),
    )  # fmt: skip


@dataclass(slots=True)
class StepRow:
    run: RunRow
    step: int
    model: str
    started_at: float
    calls: dict[str, CallRow] = field(default_factory=dict)
    message: dict[str, Any] | None = None
    """Its MessageAdded."""
    after: list[dict[str, Any]] = field(default_factory=list)
    """Those of what was said before the next step."""
    text: str = ""
    """Of the message. While there is none, `partial` holds what was saved: kind, pieces and length of each block."""
    partial: list[tuple[str, list[str], list[int]]] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    cost_usd: float | None = None
    cost_basis: str = "none"
    answered_by: str | None = None
    duration_s: float | None = None
    first_token_s: float | None = None
    longest_gap_s: float | None = None
    tier: str | None = None
    attempts: int = 1
    is_prefix_broken: bool = False
    error_kind: str | None = None
    error: str | None = None

    def answer(self) -> str:
        return self._saved("text") if self.message is None else self.text

    def _saved(self, kind: str) -> str:
        return "".join("".join(pieces) for found, pieces, _ in self.partial if found == kind)

    def told(self) -> Iterator[Told]:
        """What it adds to the conversation: the answer, what its closed calls returned, what was said after."""
        if self.message is not None:
            yield told_of(self.message, "model")
            yield from (call.told() for call in self.calls.values() if call.status not in OPEN_CALL)
        elif self.partial:
            yield Told(
                self.step, "assistant", "model", self._saved("text"), self._saved("reasoning") or None, is_partial=True
            )
        yield from (told_of(e, e.get("by", "person")) for e in self.after)

    def row(self) -> tuple[Any, ...]:
        usage = self.usage
        return (
            self.run.run_id, self.run.session_id, self.step, self.model, self.tier, self.answered_by, self.finish_reason,
            *(usage.get(name) for name in TOKENS), usage.get("is_estimated", False), self.cost_usd, self.cost_basis,
            self.started_at, self.duration_s, self.first_token_s, self.longest_gap_s, self.attempts, len(self.calls),
            self.is_prefix_broken, self.error_kind, self.error,
        )  # fmt: skip


class Summary(NamedTuple):
    step: int
    model: str
    started_at: float
    usage: dict[str, Any]
    cost_usd: float | None
    cost_basis: str


@dataclass(slots=True)
class RunRow:
    run_id: str
    session_id: str
    started: dict[str, Any]
    steps: list[StepRow] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    """Model calls that have summarised the conversation: they belong to no step."""
    asked: dict[str, Any] | None = None
    """The MessageAdded of the prompt."""
    waiting: _Busy = field(default_factory=_Busy)
    tools: _Busy = field(default_factory=_Busy)
    is_tainted: bool = False
    is_at_rest: bool = False
    ended_at: float | None = None
    end: dict[str, Any] = field(default_factory=dict)

    def status(self) -> str:
        if self.ended_at is not None:
            return str(self.end["status"])
        statuses = {call.status for call in self.steps[-1].calls.values()} if self.steps else set()
        if self.is_at_rest and "in_doubt" in statuses:
            return "in_doubt"
        return "waiting" if "waiting" in statuses else "interrupted" if self.is_at_rest else "running"

    @property
    def paid(self) -> list[StepRow | Summary]:
        """All model calls, those for summaries too."""
        return [*self.steps, *self.summaries]

    @property
    def prompt(self) -> str:
        return next((message[6] for message in self.messages()), "")

    def messages(self) -> Iterator[tuple[Any, ...]]:
        told = [] if self.asked is None else [told_of(self.asked, self.asked.get("by", "person"))]
        told += [one for step in self.steps for one in step.told()]
        for number, one in enumerate(told, 1):
            yield (
                self.run_id, self.session_id, one.step, number, one.role, one.by, one.text, one.reasoning, one.call_id,
                one.name, one.calls, one.images, one.is_partial, one.is_error, one.at,
            )  # fmt: skip

    def rest(self) -> None:
        if self.ended_at is None:
            self.tools.break_off()
            for call in self.steps[-1].calls.values() if self.steps else ():
                call.rest()

    def row(self) -> tuple[Any, ...]:
        started, steps = self.started, self.steps
        calls = [call for step in steps for call in step.calls.values()]
        paid = self.paid
        costs = [one.cost_usd for one in paid]
        cost_usd = sum(cost for cost in costs if cost is not None) if costs and None not in costs else None
        bases = {one.cost_basis for one in paid} if cost_usd is not None else {"none"}
        first = next((step for step in steps if step.first_token_s is not None), None)
        began_at = started["at"]
        provider, slash, _ = started["model"].partition("/")
        is_imported = started.get("is_imported", False)
        spent_s: tuple[float | None, ...] = (
            sum(step.duration_s or 0.0 for step in steps),
            self.tools.total_s,
            self.waiting.total_s,
        )
        if is_imported:  # what happened elsewhere took its time, and nobody knows which
            spent_s = (None, None, None)
        closing = self.end.get("text")
        text = next(filter(None, (s.answer() for s in reversed(steps))), "") if closing is None else closing
        return (
            self.run_id, self.session_id, started.get("previous"), started.get("copy_of"), is_imported, started.get("parent_run_id"),
            started.get("root_run_id") or self.run_id, started.get("depth", 0), started.get("agent", ""),
            self.status(), started["model"], provider if slash else "",
            next((step.tier for step in reversed(steps) if step.tier), ""), started["mode"],
            started.get("is_attended", True), self.is_tainted, None if self.asked is None else _text_of(self.asked["message"]), text,
            len(steps), len(calls), sum(call.is_approved for call in calls),
            sum(call.status == "denied" for call in calls),
            *(_total(one.usage.get(name) for one in paid) for name in TOKENS),
            any(one.usage.get("is_estimated", False) for one in paid), cost_usd,
            bases.pop() if len(bases) == 1 else "mixed", began_at, self.ended_at,
            None if self.ended_at is None or is_imported else self.ended_at - began_at,
            None if first is None else first.started_at - began_at + (first.first_token_s or 0.0), *spent_s,
            self.end.get("kind"), self.end.get("message"), started.get("cell_id"),
        )  # fmt: skip


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _json_text(value: Any) -> str | None:
    return None if value is None else encode(value).decode()


@dataclass(slots=True)
class EventRows:
    """Columns in the making: a history has many events, and a row of each would cost more than reading it."""

    records: list[Record] = field(default_factory=list)
    call_ids: list[str | None] = field(default_factory=list)
    request_ids: list[str | None] = field(default_factory=list)

    def columns(self) -> list[list[Any]]:
        records = self.records
        return [
            [r.session_id for r in records], [r.seq for r in records], [r.run_id for r in records],
            [r.step for r in records], [r.type for r in records], [r.at for r in records],
            self.call_ids, self.request_ids, [r.payload.decode() for r in records],
        ]  # fmt: skip

    def without(self, run_ids: Collection[str]) -> EventRows:
        kept = [n for n, record in enumerate(self.records) if record.run_id not in run_ids]
        return EventRows(
            [self.records[n] for n in kept], [self.call_ids[n] for n in kept], [self.request_ids[n] for n in kept]
        )


class Rows(NamedTuple):
    runs: list[RunRow]
    events: EventRows
    """Empty where they were not asked for."""


def read(
    records: Iterable[Source],
    *,
    alive: Collection[str] | None = None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
    has_events: bool = False,
    keeps: Callable[[RunRow], bool] | None = None,
) -> Rows:
    """All runs that the events tell of. `keeps` says of which runs there are to be rows; the rest as for `tables`."""
    runs: dict[str, RunRow] = {}
    events = EventRows()
    keep, keep_call, keep_request = events.records.append, events.call_ids.append, events.request_ids.append
    loads = orjson.loads
    for record in records:
        if type(record) is Record:
            on = _ON.get(record.type)
            if on is None and not has_events:
                continue
            try:
                event = loads(record.payload)
            except orjson.JSONDecodeError:
                event = decode_json(record.payload)
        else:
            event = record if type(record) is dict else None
            on = _ON.get(event["type"] if event is not None else record.type)  # type: ignore[union-attr]
            if on is None and not (has_events and (event is not None or isinstance(record, Recorded))):
                continue
            if event is None:
                event = decode_json(encode(record))
        if has_events and "seq" in event:
            keep(record if type(record) is Record else _as_record(event))
            keep_call(event.get("call_id"))
            keep_request(event.get("request_id"))
        if on is None:
            continue
        run = runs.get(event["run_id"])
        if on is _run_started:
            runs[event["run_id"]] = RunRow(event["run_id"], event["session_id"], event)
        elif run is not None:
            on(run, event)
    for run in runs.values():
        if alive is not None and run.ended_at is None and run.run_id not in alive:
            run.is_at_rest = True
            run.rest()
    kept = list(runs.values()) if has_copies else _without_copies(runs, elsewhere)
    kept = kept if keeps is None else [run for run in kept if keeps(run)]
    if len(kept) < len(runs):
        events = events.without(runs.keys() - {run.run_id for run in kept})
    return Rows(kept, events)


def _as_record(event: dict[str, Any]) -> Record:
    envelope = {name: event[name] for name in ("session_id", "seq", "run_id", "step", "type", "at")}
    return Record(**envelope, payload=encode(event))


def _without_copies(runs: dict[str, RunRow], elsewhere: Collection[str]) -> list[RunRow]:
    counted: set[str | None] = {*runs, *elsewhere}
    kept = []
    for run in runs.values():
        original = run.started.get("copy_of")
        if original is None or original not in counted:
            kept.append(run)
            counted.add(original)  # of several copies whose original is gone, the first one counts
    return kept


# Reading. One function for each event that a table shows; each changes the last step only, as in the fold.


def _run_started(run: RunRow, e: dict[str, Any]) -> None:
    """Handled by `read`: it is the event that makes the row."""


def _message_added(run: RunRow, e: dict[str, Any]) -> None:
    message = e["message"]
    if message["role"] == "user":
        if run.asked is None:
            run.asked = e
        elif run.steps:
            run.steps[-1].after.append(e)
    elif run.steps:
        step = run.steps[-1]
        step.message, step.text = e, _text_of(message)
        step.calls = {
            part["call_id"]: CallRow(part["call_id"], step, part["name"], e["at"], part["arguments_text"])
            for part in message["parts"]
            if part["type"] == "tool_call"
        }


def _object(text: str) -> Any:
    """What the model wrote, as the fold reads it."""
    try:
        value = decode_json(text.encode())
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"unreadable_arguments": text}


def _text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def _step_started(run: RunRow, e: dict[str, Any]) -> None:
    run.steps.append(StepRow(run, e["step"], e["model"], e["at"]))


def _model_chosen(run: RunRow, e: dict[str, Any]) -> None:
    if run.steps:
        run.steps[-1].model, run.steps[-1].tier = e["model"], e.get("tier")


def _noted(run: RunRow, e: dict[str, Any]) -> None:
    if run.steps and e["kind"] == "retry" and e.get("call_id") is None:
        run.steps[-1].attempts += 1


def _retrieved(run: RunRow, e: dict[str, Any]) -> None:
    run.is_tainted = run.is_tainted or not all(passage.get("is_trusted", False) for passage in e["passages"])


def _pruned(run: RunRow, e: dict[str, Any]) -> None:
    if run.steps:
        run.steps[-1].is_prefix_broken = True


def _compacted(run: RunRow, e: dict[str, Any]) -> None:
    _pruned(run, e)
    if e.get("model") or any(e["usage"].get(name) is not None for name in TOKENS):
        run.summaries.append(
            Summary(e["step"], e.get("model", ""), e["at"], e["usage"], e.get("cost_usd"), e.get("cost_basis", "none"))
        )


def _step_finished(run: RunRow, e: dict[str, Any]) -> None:
    if run.steps:
        step = run.steps[-1]
        step.finish_reason, step.answered_by = e.get("finish_reason"), e.get("answered_by")
        _settled(step, e)


def _step_failed(run: RunRow, e: dict[str, Any]) -> None:
    if run.steps:
        step = run.steps[-1]
        step.error_kind, step.error = e["kind"], e["message"]
        _settled(step, e)


def _settled(step: StepRow, e: dict[str, Any]) -> None:
    step.usage, step.cost_usd, step.cost_basis = e["usage"], e.get("cost_usd"), e.get("cost_basis", "none")
    step.duration_s, step.first_token_s = e["duration_s"], e.get("first_token_s")
    step.longest_gap_s = e.get("longest_gap_s")


def _partial_saved(run: RunRow, e: dict[str, Any]) -> None:
    if not run.steps or run.steps[-1].message is not None:
        return
    blocks, number = run.steps[-1].partial, e["block"]
    have = blocks[number][2][0] if number < len(blocks) else 0
    missing = e["text"][max(0, have - e["offset"]) :]
    if not missing:
        return
    if number < len(blocks):
        _, pieces, length = blocks[number]
        pieces.append(missing)
        length[0] += len(missing)
    else:
        blocks.append((e["kind"], [missing], [len(missing)]))


def _live_text(run: RunRow, e: dict[str, Any]) -> None:
    run.steps[-1].partial = [(kind, [text], [len(text)]) for kind, text in e["blocks"]]


def _of_call(change: Callable[[RunRow, CallRow, dict[str, Any]], None]) -> Callable[[RunRow, dict[str, Any]], None]:
    def on(run: RunRow, e: dict[str, Any]) -> None:
        call = run.steps[-1].calls.get(e["call_id"]) if run.steps else None
        if call is not None:
            change(run, call, e)

    return on


def _call_proposed(run: RunRow, call: CallRow, e: dict[str, Any]) -> None:
    if e.get("is_replaced"):
        call.proposed_arguments = _object(call.arguments_text)
    call.arguments, call.digest, call.effect = e["arguments"], e["digest"], e["effect"]
    call.is_trusted = e.get("is_trusted", False)


def _call_judged(run: RunRow, call: CallRow, e: dict[str, Any]) -> None:
    call.verdict, call.judged_by, call.reason = e["verdict"], e["by"], e.get("reason", "")
    call.status = "allowed" if e["verdict"] == "allow" else "proposed"


def _request_opened(run: RunRow, call: CallRow, e: dict[str, Any]) -> None:
    call.asked, call.answered, call.status = e, {}, "waiting"
    call.requests += 1
    call.waits.append((e["at"], None))
    run.waiting.begin(call.call_id, e["at"])


def _request_answered(run: RunRow, call: CallRow, e: dict[str, Any]) -> None:
    if not call.asked:
        return
    run.waiting.end(call.call_id, e["at"])
    call.answered = e
    call.waits[-1] = (call.waits[-1][0], e["at"])
    call.waited_s = (call.waited_s or 0.0) + max(0.0, e["at"] - call.asked["at"])
    if call.asked.get("kind") == "in_doubt":
        call.status, call.started_at = "allowed" if e["answer"] == "approve" else "proposed", None
        return
    if call.started_at is not None:  # asked by the running call: it goes on
        call.status = "running"
        return
    call.status = "allowed" if e["answer"] in ("approve", "edit") else "proposed"
    if e["answer"] == "edit":
        # What the model asked for, also where a hook had changed it before the person did.
        if call.proposed_arguments is None:
            call.proposed_arguments = call.arguments
        call.arguments, call.digest = e["arguments"], e["digest"]


def _call_started(run: RunRow, call: CallRow, e: dict[str, Any]) -> None:
    call.status, call.started_at = "running", e["at"]
    run.tools.begin(call.call_id, e["at"])


def _call_finished(run: RunRow, call: CallRow, e: dict[str, Any]) -> None:
    call.status, call.content, call.duration_s, call.ended_at = (
        e["status"],
        e["content"],
        e.get("duration_s"),
        e["at"],
    )
    call.files = len(e.get("files", ()))
    call.images = len(seen_images(e["display"])) if e.get("display") else 0
    run.is_tainted = run.is_tainted or (call.started_at is not None and not call.is_trusted)
    run.tools.end(call.call_id, e["at"])
    run.waiting.end(call.call_id, e["at"])


def _resumed(run: RunRow, e: dict[str, Any]) -> None:
    run.waiting.break_off()  # what waits still is asked anew
    run.rest()


def _run_ended(run: RunRow, e: dict[str, Any]) -> None:
    run.ended_at, run.end = e["at"], e


_ON: dict[str, Callable[[RunRow, dict[str, Any]], None]] = {
    "RunStarted": _run_started,
    "MessageAdded": _message_added,
    "StepStarted": _step_started,
    "ModelChosen": _model_chosen,
    "Noted": _noted,
    "Retrieved": _retrieved,
    "Pruned": _pruned,
    "Compacted": _compacted,
    "StepFinished": _step_finished,
    "StepFailed": _step_failed,
    "PartialSaved": _partial_saved,
    "CallProposed": _of_call(_call_proposed),
    "CallJudged": _of_call(_call_judged),
    "RequestOpened": _of_call(_request_opened),
    "RequestAnswered": _of_call(_request_answered),
    "CallStarted": _of_call(_call_started),
    "CallFinished": _of_call(_call_finished),
    "Resumed": _resumed,
    "RunEnded": _run_ended,
    LIVE_TEXT: _live_text,
}
EVENT_TYPES = tuple(name for name in _ON if name != LIVE_TEXT)
"""The types that all tables but that of the events read."""
