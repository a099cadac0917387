"""Histories as DataFrames: five tables, from the events of any number of runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from turncell.frames.columns import Backend, frame_of
from turncell.frames.rows import EVENT_TYPES, EventRows, RunRow, Source, read
from turncell.frames.schemas import Table

__all__ = ["EVENT_TYPES", "Source", "Tables", "calls_frame", "events_frame", "messages_frame", "runs_frame",
           "steps_frame", "tables"]  # fmt: skip


class Tables(NamedTuple):
    """All five, from one pass over the events."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    messages: pd.DataFrame
    calls: pd.DataFrame
    events: pd.DataFrame


def tables(
    records: Iterable[Source],
    *,
    backend: Backend = "numpy_nullable",
    otel: bool = False,
    alive: Collection[str] | None = None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
    keeps: Callable[[RunRow], bool] | None = None,
) -> Tables:
    """Runs, steps, messages and calls, one row each, in the order in which the runs began; events as they come.

    `records` holds the events of each run in order; runs may be interleaved. Passing events change nothing.
    `alive` names the runs that some process still drives. An open run that is not among them is at rest: a write that
    had begun is `in_doubt`, and so is the run; else the run is `waiting` for a person, or `interrupted`. Without it an
    open run is `running` or `waiting`, as its events tell, since no journal knows of a crash.
    Without `has_copies` the runs that a fork has copied are left out, with all that is theirs, where the originals are
    among the records or `elsewhere`: what was spent counts once, also when the original has been deleted.
    `keeps` says of which runs there are to be rows. With `otel` columns have the names of OpenTelemetry.
    """
    runs, events = read(
        records, alive=alive, has_copies=has_copies, elsewhere=elsewhere, has_events=True, keeps=keeps
    )  # fmt: skip
    return Tables(*(frame_of(name, _columns(name, runs, events), backend, otel) for name in Tables._fields))  # type: ignore[arg-type]


def table(
    name: Table,
    records: Iterable[Source],
    *,
    backend: Backend = "numpy_nullable",
    otel: bool = False,
    alive: Collection[str] | None = None,
    has_copies: bool = True,
    elsewhere: Collection[str] = (),
    keeps: Callable[[RunRow], bool] | None = None,
) -> pd.DataFrame:
    """One of them. Arguments as for `tables`."""
    has_events = name == "events"
    runs, events = read(
        records, alive=alive, has_copies=has_copies, elsewhere=elsewhere, has_events=has_events, keeps=keeps
    )  # fmt: skip
    return frame_of(name, _columns(name, runs, events), backend, otel)


def _columns(name: Table, runs: list[RunRow], events: EventRows) -> Iterable[Sequence[object]]:
    if name == "events":
        return events.columns()
    if name == "runs":
        rows = [run.row() for run in runs]
    elif name == "steps":
        rows = [step.row() for run in runs for step in run.steps]
    elif name == "messages":
        rows = [row for run in runs for row in run.messages()]
    else:
        rows = [call.row() for run in runs for step in run.steps for call in step.calls.values()]
    return zip(*rows, strict=True)


def runs_frame(records: Iterable[Source], **options: object) -> pd.DataFrame:
    """One row per run. Arguments as for `tables`."""
    return table("runs", records, **options)  # type: ignore[arg-type]


def steps_frame(records: Iterable[Source], **options: object) -> pd.DataFrame:
    """One row per model call: the usage table. Arguments as for `tables`."""
    return table("steps", records, **options)  # type: ignore[arg-type]


def messages_frame(records: Iterable[Source], **options: object) -> pd.DataFrame:
    """One row per message of a conversation. Arguments as for `tables`."""
    return table("messages", records, **options)  # type: ignore[arg-type]


def calls_frame(records: Iterable[Source], **options: object) -> pd.DataFrame:
    """One row per tool call, with what was decided about it and by whom. Arguments as for `tables`."""
    return table("calls", records, **options)  # type: ignore[arg-type]


def events_frame(records: Iterable[Source], **options: object) -> pd.DataFrame:
    """One row per recorded event: the journal itself. Arguments as for `tables`."""
    return table("events", records, **options)  # type: ignore[arg-type]
