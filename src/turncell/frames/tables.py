"""Histories as DataFrames: runs, model calls and tool calls, from the events of any number of runs.

A history is often long and mostly text, so the events are read as dicts, in one pass, and folded here into rows that
are changed in place. What a row says must be what `core.fold` says of the same run: that fold is the reference, and
tests/frames/test_tables.py compares the two on every story the reducer can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import orjson
import pandas as pd

from turncell.core.codec import decode_json, encode
from turncell.core.events import Event, Recorded
from turncell.core.fold import OPEN_CALL
from turncell.frames.columns import Backend, frame_of
from turncell.frames.schemas import schema_table
from turncell.runtime.ports import Record

Source: TypeAlias = Record | Recorded | Event | dict[str, Any]
"""An event in any of its forms: as a store keeps it, as the loop made it, or as a line of JSON says it."""

TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


class Tables(NamedTuple):
    """All three, from one pass over the events."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    calls: pd.DataFrame


def tables(
    records: Iterable[Source],
    *,
    backend: Backend = "numpy_nullable",
    alive: Collection[str] | None = None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
) -> Tables:
    """Runs, steps and calls, one row each, in the order in which they began.

    `records` holds the events of each run in order; runs may be interleaved. Passing events change nothing.
    `alive` names the runs that some process still drives. An open run that is not among them is at rest: a write that
    had begun is `in_doubt`, and so is the run; else the run is `waiting` for a person, or `interrupted`. Without it an
    open run is `running` or `waiting`, as its events tell, since no journal knows of a crash.
    Without `has_copies` the runs that a fork has copied are left out, with their steps and calls, where the originals are
    among the records or `elsewhere`: what was spent counts once, also when the original has been deleted.
    """
    runs = _read(records, alive, has_copies, elsewhere)
    steps = [step for run in runs for step in run.steps]
    calls = [call for step in steps for call in step.calls.values()]
    return Tables(
        frame_of("runs", [run.row() for run in runs], backend),
        frame_of("steps", [step.row() for step in steps], backend),
        frame_of("calls", [call.row() for call in calls], backend),
    )


def runs_frame(
    records: Iterable[Source],
    *,
    backend: Backend = "numpy_nullable",
    alive: Collection[str] | None = None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
) -> pd.DataFrame:
    """One row per run. Arguments as for `tables`."""
    return frame_of("runs", [run.row() for run in _read(records, alive, has_copies, elsewhere)], backend)


def steps_frame(
    records: Iterable[Source],
    *,
    backend: Backend = "numpy_nullable",
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
) -> pd.DataFrame:
    """One row per model call: the usage table. Arguments as for `tables`."""
    return frame_of(
        "steps", [step.row() for run in _read(records, None, has_copies, elsewhere) for step in run.steps], backend
    )


def calls_frame(
    records: Iterable[Source],
    *,
    backend: Backend = "numpy_nullable",
    alive: Collection[str] | None = None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
) -> pd.DataFrame:
    """One row per tool call, with what was decided about it and by whom. Arguments as for `tables`."""
    found = _read(records, alive, has_copies, elsewhere)
    rows = [call.row() for run in found for step in run.steps for call in step.calls.values()]
    return frame_of("calls", rows, backend)


for _table, _function in (("runs", runs_frame), ("steps", steps_frame), ("calls", calls_frame)):
    _function.__doc__ = f"{_function.__doc__}\n\n{schema_table(_table)}\n"  # type: ignore[arg-type]


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
class _Call:
    call_id: str
    step: _Step
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
    content: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float | None = None
    files: int = 0

    @property
    def is_approved(self) -> bool:
        """A call that may later ask something else keeps no other trace of its own approval than that it ran."""
        is_answered = not self.asked.get("name") and self.answered.get("answer") in ("approve", "edit")
        has_begun = self.started_at is not None or self.asked.get("kind") == "in_doubt"
        return self.verdict == "ask" and (has_begun or is_answered)

    def rest(self) -> None:
        """What the end of its program has left of it; as `core.fold.at_rest`."""
        if self.status not in OPEN_CALL or self.started_at is None:
            return
        if self.effect == "write":
            self.status = "in_doubt"
        else:
            self.status, self.started_at = "allowed", None

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


@dataclass(slots=True)
class _Step:
    run: _Run
    step: int
    model: str
    started_at: float
    calls: dict[str, _Call] = field(default_factory=dict)
    has_message: bool = False
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
        if self.has_message:
            return self.text
        return "".join("".join(pieces) for kind, pieces, _ in self.partial if kind == "text")

    def row(self) -> tuple[Any, ...]:
        usage = self.usage
        return (
            self.run.run_id, self.run.session_id, self.step, self.model, self.tier, self.answered_by, self.finish_reason,
            *(usage.get(name) for name in TOKENS), usage.get("is_estimated", False), self.cost_usd, self.cost_basis,
            self.started_at, self.duration_s, self.first_token_s, self.longest_gap_s, self.attempts, len(self.calls),
            self.is_prefix_broken, self.error_kind, self.error,
        )  # fmt: skip


class _Summary(NamedTuple):
    usage: dict[str, Any]
    cost_usd: float | None
    cost_basis: str


@dataclass(slots=True)
class _Run:
    run_id: str
    session_id: str
    started: dict[str, Any]
    steps: list[_Step] = field(default_factory=list)
    summaries: list[_Summary] = field(default_factory=list)
    """Model calls that have summarised the conversation: they belong to no step."""
    prompt: str | None = None
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

    def rest(self) -> None:
        if self.ended_at is None:
            self.tools.break_off()
            for call in self.steps[-1].calls.values() if self.steps else ():
                call.rest()

    def row(self) -> tuple[Any, ...]:
        started, steps = self.started, self.steps
        calls = [call for step in steps for call in step.calls.values()]
        paid: list[_Step | _Summary] = [*steps, *self.summaries]
        costs = [one.cost_usd for one in paid]
        cost_usd = sum(cost for cost in costs if cost is not None) if costs and None not in costs else None
        bases = {one.cost_basis for one in paid} if cost_usd is not None else {"none"}
        first = next((step for step in steps if step.first_token_s is not None), None)
        began_at = started["at"]
        provider, slash, _ = started["model"].partition("/")
        closing = self.end.get("text")
        text = next(filter(None, (s.answer() for s in reversed(steps))), "") if closing is None else closing
        return (
            self.run_id, self.session_id, started.get("previous"), started.get("copy_of"), started.get("parent_run_id"),
            started.get("root_run_id") or self.run_id, started.get("depth", 0), started.get("agent", ""),
            self.status(), started["model"], provider if slash else "",
            next((step.tier for step in reversed(steps) if step.tier), ""), started["mode"],
            started.get("is_attended", True), self.is_tainted, self.prompt, text,
            len(steps), len(calls), sum(call.is_approved for call in calls),
            sum(call.status == "denied" for call in calls),
            *(_total(one.usage.get(name) for one in paid) for name in TOKENS),
            any(one.usage.get("is_estimated", False) for one in paid), cost_usd,
            bases.pop() if len(bases) == 1 else "mixed", began_at, self.ended_at,
            None if self.ended_at is None else self.ended_at - began_at,
            None if first is None else first.started_at - began_at + (first.first_token_s or 0.0),
            sum(step.duration_s or 0.0 for step in steps), self.tools.total_s, self.waiting.total_s,
            self.end.get("kind"), self.end.get("message"), started.get("cell_id"),
        )  # fmt: skip


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _json_text(value: Any) -> str | None:
    return None if value is None else encode(value).decode()


# Reading. One function for each event that a table shows; each changes the last step only, as in the fold.


def _read(
    records: Iterable[Source],
    alive: Collection[str] | None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
) -> list[_Run]:
    runs: dict[str, _Run] = {}
    loads = orjson.loads
    for record in records:
        if type(record) is Record:
            on = _ON.get(record.type)
            if on is None:
                continue
            try:
                event = loads(record.payload)
            except orjson.JSONDecodeError:
                event = decode_json(record.payload)
        else:
            event = record if type(record) is dict else None
            on = _ON.get(event["type"] if event is not None else record.type)  # type: ignore[union-attr]
            if on is None:
                continue
            if event is None:
                event = decode_json(encode(record))
        run = runs.get(event["run_id"])
        if on is _run_started:
            runs[event["run_id"]] = _Run(event["run_id"], event["session_id"], event)
        elif run is not None:
            on(run, event)
    for run in runs.values():
        if alive is not None and run.ended_at is None and run.run_id not in alive:
            run.is_at_rest = True
            run.rest()
    if has_copies:
        return list(runs.values())
    counted: set[str | None] = {*runs, *elsewhere}
    kept = []
    for run in runs.values():
        original = run.started.get("copy_of")
        if original is None or original not in counted:
            kept.append(run)
            counted.add(original)  # of several copies whose original is gone, the first one counts
    return kept


def _run_started(run: _Run, e: dict[str, Any]) -> None:
    """Handled by `_read`: it is the event that makes the row."""


def _message_added(run: _Run, e: dict[str, Any]) -> None:
    message = e["message"]
    if message["role"] == "user":
        if run.prompt is None:
            run.prompt = _text_of(message)
    elif run.steps:
        step = run.steps[-1]
        step.has_message, step.text = True, _text_of(message)
        step.calls = {
            part["call_id"]: _Call(part["call_id"], step, part["name"], e["at"], part["arguments_text"])
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


def _step_started(run: _Run, e: dict[str, Any]) -> None:
    run.steps.append(_Step(run, e["step"], e["model"], e["at"]))


def _model_chosen(run: _Run, e: dict[str, Any]) -> None:
    if run.steps:
        run.steps[-1].model, run.steps[-1].tier = e["model"], e.get("tier")


def _noted(run: _Run, e: dict[str, Any]) -> None:
    if run.steps and e["kind"] == "retry" and e.get("call_id") is None:
        run.steps[-1].attempts += 1


def _retrieved(run: _Run, e: dict[str, Any]) -> None:
    run.is_tainted = run.is_tainted or not all(passage.get("is_trusted", False) for passage in e["passages"])


def _pruned(run: _Run, e: dict[str, Any]) -> None:
    if run.steps:
        run.steps[-1].is_prefix_broken = True


def _compacted(run: _Run, e: dict[str, Any]) -> None:
    _pruned(run, e)
    if e.get("model") or any(e["usage"].get(name) is not None for name in TOKENS):
        run.summaries.append(_Summary(e["usage"], e.get("cost_usd"), e.get("cost_basis", "none")))


def _step_finished(run: _Run, e: dict[str, Any]) -> None:
    if run.steps:
        step = run.steps[-1]
        step.finish_reason, step.answered_by = e.get("finish_reason"), e.get("answered_by")
        _settled(step, e)


def _step_failed(run: _Run, e: dict[str, Any]) -> None:
    if run.steps:
        step = run.steps[-1]
        step.error_kind, step.error = e["kind"], e["message"]
        _settled(step, e)


def _settled(step: _Step, e: dict[str, Any]) -> None:
    step.usage, step.cost_usd, step.cost_basis = e["usage"], e.get("cost_usd"), e.get("cost_basis", "none")
    step.duration_s, step.first_token_s = e["duration_s"], e.get("first_token_s")
    step.longest_gap_s = e.get("longest_gap_s")


def _partial_saved(run: _Run, e: dict[str, Any]) -> None:
    if not run.steps or run.steps[-1].has_message:
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


def _of_call(change: Callable[[_Run, _Call, dict[str, Any]], None]) -> Callable[[_Run, dict[str, Any]], None]:
    def on(run: _Run, e: dict[str, Any]) -> None:
        call = run.steps[-1].calls.get(e["call_id"]) if run.steps else None
        if call is not None:
            change(run, call, e)

    return on


def _call_proposed(run: _Run, call: _Call, e: dict[str, Any]) -> None:
    if e.get("is_replaced"):
        call.proposed_arguments = _object(call.arguments_text)
    call.arguments, call.digest, call.effect = e["arguments"], e["digest"], e["effect"]
    call.is_trusted = e.get("is_trusted", False)


def _call_judged(run: _Run, call: _Call, e: dict[str, Any]) -> None:
    call.verdict, call.judged_by, call.reason = e["verdict"], e["by"], e.get("reason", "")
    call.status = "allowed" if e["verdict"] == "allow" else "proposed"


def _request_opened(run: _Run, call: _Call, e: dict[str, Any]) -> None:
    call.asked, call.answered, call.status = e, {}, "waiting"
    call.requests += 1
    run.waiting.begin(call.call_id, e["at"])


def _request_answered(run: _Run, call: _Call, e: dict[str, Any]) -> None:
    if not call.asked:
        return
    run.waiting.end(call.call_id, e["at"])
    call.answered = e
    call.waited_s = (call.waited_s or 0.0) + max(0.0, e["at"] - call.asked["at"])
    if call.asked.get("kind") == "in_doubt":
        call.status, call.started_at = "allowed" if e["answer"] == "approve" else "proposed", None
        return
    if call.started_at is not None:  # asked by the running call: it goes on
        call.status = "running"
        return
    call.status = "allowed" if e["answer"] in ("approve", "edit") else "proposed"
    if e["answer"] == "edit":
        call.arguments, call.proposed_arguments, call.digest = e["arguments"], call.arguments, e["digest"]


def _call_started(run: _Run, call: _Call, e: dict[str, Any]) -> None:
    call.status, call.started_at = "running", e["at"]
    run.tools.begin(call.call_id, e["at"])


def _call_finished(run: _Run, call: _Call, e: dict[str, Any]) -> None:
    call.status, call.content, call.duration_s, call.ended_at = (
        e["status"],
        e["content"],
        e.get("duration_s"),
        e["at"],
    )
    call.files = len(e.get("files", ()))
    run.is_tainted = run.is_tainted or (call.started_at is not None and not call.is_trusted)
    run.tools.end(call.call_id, e["at"])
    run.waiting.end(call.call_id, e["at"])


def _resumed(run: _Run, e: dict[str, Any]) -> None:
    run.waiting.break_off()  # what waits still is asked anew
    run.rest()


def _run_ended(run: _Run, e: dict[str, Any]) -> None:
    run.ended_at, run.end = e["at"], e


_ON: dict[str, Callable[[_Run, dict[str, Any]], None]] = {
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
}
EVENT_TYPES = tuple(_ON)
"""The types that the tables read: what to ask a store for."""
