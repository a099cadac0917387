"""The history of a run, a session or the whole store, as DataFrames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from turncell.errors import UsageError
from turncell.frames import tables
from turncell.frames.columns import Backend
from turncell.runtime import defaults
from turncell.runtime.journal import read_whole
from turncell.runtime.ports import Store
from turncell.runtime.run import Run
from turncell.runtime.session import Session

if TYPE_CHECKING:
    import pandas as pd

Scope: TypeAlias = Run | Session | None
"""Whose history: a run's (live, while it goes on), a session's, or (None) everything in the store."""


def runs_df(of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable") -> pd.DataFrame:
    """One row per run: what was asked and answered, status, tokens, cost (`<NA>` where unknown), times.

    Without `has_copies` the runs that a fork has copied are left out here, as in the other two: their originals count.
    """
    return tables.runs_frame(_events(of), backend=backend, has_copies=has_copies)


def steps_df(of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable") -> pd.DataFrame:
    """One row per model call: the usage table. Joins `runs_df` on `run_id`."""
    return tables.steps_frame(_events(of), backend=backend, has_copies=has_copies)


def calls_df(of: Scope = None, *, has_copies: bool = False, backend: Backend = "numpy_nullable") -> pd.DataFrame:
    """One row per tool call, with what was decided about it, by whom, and what came of it."""
    return tables.calls_frame(_events(of), backend=backend, has_copies=has_copies)


def _events(of: Scope) -> Iterable[tables.Source]:
    if isinstance(of, Run):
        return of.events
    if isinstance(of, Session):
        session_id = of.id
        return of.journal.ask(lambda store: list(read_whole(store, session_id=session_id)))
    if of is None:
        return defaults.journal().ask(_everything)
    raise UsageError(f"a history is that of a Run, of a Session or (None) of everything; found {of!r}")


def _everything(store: Store) -> list[tables.Source]:
    return list(read_whole(store))
