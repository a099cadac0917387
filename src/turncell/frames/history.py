"""The history of a run, a session or the whole store, as DataFrames."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from turncell.core import codec
from turncell.core.events import RunStarted
from turncell.errors import UsageError
from turncell.frames import tables
from turncell.frames.columns import Backend
from turncell.runtime import defaults
from turncell.runtime.journal import read_whole
from turncell.runtime.ports import Record, Store
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.session import Session, may_be_driven

if TYPE_CHECKING:
    import pandas as pd

Scope: TypeAlias = Run | Session | None
"""Whose history: a run's (live, while it goes on), a session's, or (None) everything in the store."""


def runs_df(of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable") -> pd.DataFrame:
    """One row per run: what was asked and answered, status, tokens, cost (`<NA>` where unknown), times.

    Without `has_copies` the runs that a fork has copied are left out here, as in the other two: their originals count,
    as long as there are any.
    """
    records, alive, elsewhere = _history(of)
    return tables.runs_frame(records, backend=backend, alive=alive, has_copies=has_copies, elsewhere=elsewhere)


def steps_df(of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable") -> pd.DataFrame:
    """One row per model call: the usage table. Joins `runs_df` on `run_id`."""
    records, _, elsewhere = _history(of)
    return tables.steps_frame(records, backend=backend, has_copies=has_copies, elsewhere=elsewhere)


def calls_df(of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable") -> pd.DataFrame:
    """One row per tool call, with what was decided about it, by whom, and what came of it."""
    records, alive, elsewhere = _history(of)
    return tables.calls_frame(records, backend=backend, alive=alive, has_copies=has_copies, elsewhere=elsewhere)


History: TypeAlias = tuple[Sequence[tables.Source], Collection[str] | None, Collection[str]]
"""The events, the open runs among them that a living process writes (None: all of them), and the originals of copied
runs that are not among them but in the store."""


def _history(of: Scope) -> History:
    if isinstance(of, Run):
        run, events = of, of.events
        if not events or isinstance(events[0], RunStarted):
            return redactor().value(list(events)), None, ()
        # It goes on after a restart: its beginning was another process's.
        which = {"session_id": run.session.id, "run_id": run.id}
        return run.session.journal.ask(lambda store: list(read_whole(store, **which))), None, ()
    if isinstance(of, Session):
        session_id = of.id
        return of.journal.ask(lambda store: _read(store, session_id=session_id))
    if of is None:
        return defaults.journal().ask(_read)
    raise UsageError(f"a history is that of a Run, of a Session or (None) of everything; found {of!r}")


def _read(store: Store, **which: str) -> History:
    records = list(read_whole(store, **which))
    open_runs = {record.run_id: record.session_id for record in records if record.type == "RunStarted"}
    for record in records:
        if record.type == "RunEnded":
            open_runs.pop(record.run_id, None)
    living = {session_id for session_id in set(open_runs.values()) if may_be_driven(store, session_id)}
    alive = {run_id for run_id, session_id in open_runs.items() if session_id in living}
    return records, alive, _originals(store, records) if which else ()


def _originals(store: Store, records: Iterable[Record]) -> set[str]:
    began = (codec.decode_json(record.payload) for record in records if record.type == "RunStarted")
    copied = {event["copy_of"] for event in began if event.get("copy_of")}
    return {run_id for run_id in copied if any(True for _ in store.read(run_id=run_id, types=("RunStarted",)))}
