"""Telemetry: one record for each run, whatever became of it.

A record is a fold of the journal like everything else: what it says of a run is what `runs_df` says, under the same
names (a test compares the two).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from turncell.core.codec import encode
from turncell.core.events import RunStarted, Said
from turncell.core.fold import CallState, RequestState, RunState
from turncell.runtime.ports import Model, ModelRequest
from turncell.runtime.private_files import make_folder

log = logging.getLogger("turncell")


CallRecord: TypeAlias = tuple[str, str, float | None]
"""One tool call: its name, its status and the seconds that it ran, None if it never did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What telemetry writers are told of a run. None is unknown, which is not zero.

    Fields are those of `runs_df` (docs/frames.md): costs in US dollars, `started_at` in seconds since 1970, durations in
    seconds. `tool_calls` has one CallRecord for each call.
    """

    run_id: str
    session_id: str
    root_run_id: str
    parent_run_id: str | None
    depth: int
    agent: str
    model: str
    provider: str
    """The part of the model's name before the slash, "" where there is none."""
    tier: str
    status: str
    error_kind: str | None
    steps: int
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    cost_basis: str
    """As of the steps; "mixed" if they differ, "none" if the cost is unknown."""
    started_at: float
    """Seconds since 1970-01-01 UTC."""
    duration_s: float | None
    first_token_s: float | None
    """Seconds from the start of the run to the first token of a model."""
    model_s: float
    """Seconds spent on model calls."""
    tools_s: float
    """Seconds in which at least one tool ran."""
    waiting_s: float
    """Seconds in which at least one request waited for an answer."""
    tool_calls: tuple[CallRecord, ...]


def record_of(state: RunState, *, tier: str = "", agent: str = "") -> RunRecord:
    """The record of a run, ended or not.

    >>> record_of(RunState(status="cancelled")).status
    'cancelled'
    """
    usage, steps, calls = state.usage, state.steps, state.calls
    provider, slash, _ = state.model.partition("/")
    first_token_s = next(
        (step.started_at - state.started_at + step.first_token_s for step in steps if step.first_token_s is not None),
        None,
    )
    bases = (
        {*(s.cost_basis for s in steps), *(s.cost_basis for s in state.summaries)}
        if state.cost_usd is not None
        else {"none"}
    )
    requests = [(call, call.request) for call in calls if call.request is not None]
    return RunRecord(
        run_id=state.run_id,
        session_id=state.session_id,
        root_run_id=state.root_run_id or state.run_id,
        parent_run_id=state.parent_run_id,
        depth=state.depth,
        agent=agent or getattr(state, "agent", ""),
        model=state.model,
        provider=provider if slash else "",
        tier=tier or next((step.tier for step in reversed(steps) if step.tier), ""),
        status=state.status,
        error_kind=state.error_kind,
        steps=len(steps),
        calls=len(calls),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=state.cost_usd,
        cost_basis=str(bases.pop()) if len(bases) == 1 else "mixed",
        started_at=state.started_at,
        duration_s=None if state.ended_at is None else state.ended_at - state.started_at,
        first_token_s=first_token_s,
        model_s=sum(step.duration_s or 0.0 for step in steps),
        tools_s=_covered_s((call.started_at, call.ended_at) for call in calls),
        # A request that nobody answered waited until its call was closed.
        waiting_s=_covered_s(
            (request.opened_at, call.ended_at if request.answered_at is None else request.answered_at)
            for call, request in requests
        )
        + sum(_earlier_s(call, request) for call, request in requests),
        tool_calls=tuple((call.name, call.status, call.duration_s) for call in calls),
    )


def _earlier_s(call: CallState, latest: RequestState) -> float:
    """Seconds that the requests of a call before its latest one waited: the state keeps their sum."""
    latest_s = 0.0 if latest.answered_at is None else max(0.0, latest.answered_at - latest.opened_at)
    return max(0.0, call.waited_s - latest_s)


WRITER_S = 5.0
"""How long a run that has ended waits for its writers: a service that does not answer must not hold up a cell."""


@runtime_checkable
class TelemetryWriter(Protocol):
    """Where records go.

    `write` is called once for each run that has begun and ended, whatever its status, in a thread of its own; the run
    is done when it has returned, or after WRITER_S, and the writer goes on. It should not raise: a record that cannot be
    written is no reason for a run to fail.
    """

    def write(self, record: RunRecord) -> None: ...


class RunWatch(Protocol):
    """Telemetry of one run, while it goes on. Called on the background loop: must return at once, and should not raise.

    What it raises is logged, and the run goes on.
    """

    def see(self, events: Sequence[Said]) -> None:
        """Each burst of its events, after its first words (`RunStarted`) too. Its text is one `TextBurst`."""
        ...

    def asking(self, model: Model, request: ModelRequest) -> AbstractContextManager[Any]:
        """Around the stream of a model, each try of it: context variables that are set on entering hold there."""
        ...

    def calling(self, call: CallState) -> AbstractContextManager[Any]:
        """Around a call that runs, with all its tries: context variables that are set on entering hold in the tool."""
        ...

    def end(self, state: RunState) -> None:
        """Last, once: it has ended, or rests where a resumed run found no model."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """What is told of runs while they go on: stands in `Agent(telemetry=...)` beside the writers, or in `everywhere`.

    `watch` is called on the background loop when a run begins or is resumed, in the context of whoever started it.
    Context variables that it sets hold in all code of the run: models, tools, hooks, the runs inside.
    """

    def watch(self, started: RunStarted) -> RunWatch: ...


everywhere: list[Watcher] = []
"""Watchers of all runs of this process that begin from now on."""


def watchers_of(telemetry: Sequence[object]) -> tuple[Watcher, ...]:
    """Those of an agent, then those of the process; each once."""
    if not telemetry:
        return tuple(everywhere)
    found = [one for one in telemetry if isinstance(one, Watcher)]
    return (*found, *(one for one in everywhere if not any(one is own for own in found)))


@contextmanager
def inside(watches: Iterable[RunWatch], around: Callable[[RunWatch], AbstractContextManager[Any]]) -> Iterator[None]:
    """Within what each watch puts around. What came of it the events tell; a watch that fails harms nobody."""
    entered: list[AbstractContextManager[Any]] = []
    for watch in watches:
        try:
            context = around(watch)
            context.__enter__()
        except Exception:
            log.exception("telemetry: %r raised", watch)
        else:
            entered.append(context)
    try:
        yield
    finally:
        for context in reversed(entered):
            try:
                context.__exit__(None, None, None)
            except Exception:
                log.exception("telemetry: %r raised", context)


class MemoryWriter:
    """Keeps the records in a list, oldest first.

    >>> writer = MemoryWriter()
    >>> writer.write(record_of(RunState(status="cancelled")))
    >>> [record.status for record in writer.records]
    ['cancelled']
    """

    def __init__(self) -> None:
        self.records: list[RunRecord] = []

    def write(self, record: RunRecord) -> None:
        """Keep a record."""
        self.records.append(record)


class JsonLinesWriter:
    """Appends each record as one line of JSON; any number of processes may share the file.

    A line is written by one `write` to a file opened for appending, which POSIX puts at the end as a whole. What fails
    is logged, never raised. The file and its folder are made when first needed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()

    def write(self, record: RunRecord) -> None:
        """Append a record."""
        try:
            line = encode(record) + b"\n"
            with self._lock:
                self._append(line)
        except Exception:
            log.exception("telemetry: the record of run %r could not be written to %s", record.run_id, self.path)

    def _append(self, line: bytes) -> None:
        make_folder(self.path.parent)
        file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            written = os.write(file, line)
        finally:
            os.close(file)
        if written < len(line):
            raise OSError(f"only {written} of {len(line)} bytes were written; is the disk full?")


def _covered_s(spans: Iterable[tuple[float | None, float | None]]) -> float:
    """Seconds that at least one span covers; one that is still open counts nothing."""
    total_s, until = 0.0, float("-inf")
    for begin, end in sorted((begin, end) for begin, end in spans if begin is not None and end is not None):
        total_s += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total_s
