"""Where a history is read from: a run, a session, a store, files; and which of its runs.

What a store can leave out itself it is told to: first only how runs began and ended is read (two types of events), then
only the sessions that have a run which is wanted. These are read whole, because what follows damage must not be folded,
and one batch after the other, so that the turns that go on meanwhile are recorded in between.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from numbers import Number
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar

import pandas as pd

from turncell.core import codec
from turncell.core.events import RunStarted
from turncell.errors import UsageError
from turncell.frames.rows import LIVE_TEXT, RunRow, Source
from turncell.frames.schemas import RUN_STATUSES
from turncell.runtime import defaults, portable
from turncell.runtime.journal import Journal, read_whole
from turncell.runtime.owners import may_be_driven
from turncell.runtime.ports import Record, SessionInfo, Store
from turncell.runtime.run import Run
from turncell.runtime.secrets import redactor
from turncell.runtime.session import Session

Scope: TypeAlias = Run | Session | Journal | str | Path | Iterable[str | Path] | None
"""Whose history: a run's (live, while it goes on), a session's, that of a store or (None) of the store of the settings;
or of files: an exported session (.jsonl, .md), a store (.sqlite), a folder of these, several of them."""
When: TypeAlias = datetime | date | timedelta | str
T = TypeVar("T")
_AMOUNT = re.compile(r"\s*[\d.]+\s*[A-Za-z]")
_DAYS = re.compile(r"(?<=[\d\s])d\b")  # pandas is about to give up the short form
_BATCH_RUNS = 500
_SUFFIXES = (*portable.SUFFIXES, ".sqlite", ".db")


class Filters(TypedDict, total=False):
    """Which runs. All that are given must hold."""

    session: str | Session | Iterable[str | Session]
    project: str | Path
    """The folder that the session was begun in."""
    model: str | Iterable[str]
    """The model that was asked for first; `*` stands for anything: "openai/*"."""
    status: str | Iterable[str]
    since: When
    """Runs that began then or later. Without a zone a time is UTC; "7 days" or a timedelta is so long ago."""
    until: When
    """Runs that began before."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters, checked."""

    sessions: frozenset[str] | None = None
    project: str | None = None
    models: tuple[str, ...] | None = None
    statuses: frozenset[str] | None = None
    since: float | None = None
    until: float | None = None

    def may_hold(self, started: dict[str, Any]) -> bool:
        """Whether a run that began so can be among them, as long as nobody knows how it ended."""
        at = round(started["at"], 6)  # as the tables tell it, so that the time of a run in one of them finds it
        return (
            (self.sessions is None or started["session_id"] in self.sessions)
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
            and (self.models is None or any(fnmatchcase(started["model"], model) for model in self.models))
        )

    def holds(self, run: RunRow) -> bool:
        return self.may_hold(run.started) and (self.statuses is None or run.status() in self.statuses)

    def is_of(self, info: SessionInfo) -> bool:
        return (self.sessions is None or info.session_id in self.sessions) and (
            self.project is None or info.project == self.project
        )

    def may_have(self, info: SessionInfo) -> bool:
        return (
            self.is_of(info)
            and (self.since is None or round(info.updated_at, 6) >= self.since)
            and (self.until is None or round(info.created_at, 6) < self.until)
        )


def wanted(filters: Filters) -> Wanted:
    """UsageError for what is no filter, or no value of one."""
    known = Filters.__annotations__.keys()
    if odd := filters.keys() - known:
        raise UsageError(f"a history has no filter {sorted(odd)[0]!r}; use {', '.join(known)}")
    statuses = _several("status", filters.get("status"), str)
    if strange := set(statuses or ()) - set(RUN_STATUSES):
        raise UsageError(f"no run has the status {sorted(strange)[0]!r}; use {', '.join(RUN_STATUSES)}")
    sessions = _several("session", filters.get("session"), str | Session)
    return Wanted(
        None if sessions is None else frozenset(one.id if isinstance(one, Session) else one for one in sessions),
        _folder(filters.get("project")),
        _several("model", filters.get("model"), str),
        None if statuses is None else frozenset(statuses),
        _seconds("since", filters.get("since")),
        _seconds("until", filters.get("until")),
    )


def _several(name: str, given: Any, kind: Any) -> tuple[Any, ...] | None:
    """One of these, or several; None where nothing is said. None of them (an empty list) holds for no run."""
    if given is None or isinstance(given, kind):
        return None if given is None else (given,)
    several = tuple(given) if isinstance(given, Iterable) else None
    if several is None or not all(isinstance(one, kind) for one in several):
        known = "a Session, its id" if name == "session" else "a name"
        raise UsageError(f"{name} is {given!r}; use {known}, or a list of several")
    return several


def _folder(project: Any) -> str | None:
    if project is not None and (not isinstance(project, str | os.PathLike) or not os.fspath(project)):
        raise UsageError(f"project is {project!r}; use the path of a folder")
    return None if project is None else os.path.abspath(Path(project).expanduser())


def _seconds(name: str, when: When | None) -> float | None:
    if when is None:
        return None
    at = _moment(when)
    if at is None or pd.isna(at):
        raise UsageError(
            f"{name} is {when!r}; use a datetime, a date, '2026-11-21 08:00' (UTC), or how long ago: '7 days', '3 h'"
        )
    at = at.tz_localize("UTC") if at.tzinfo is None else at
    return round(float(at.timestamp()), 6)


def _moment(when: Any) -> pd.Timestamp | None:
    """None for what is no time. Of "3h" or "8am" pandas would make a time in year 1, and of a number one in 1970."""
    try:
        ago = _ago(when)
        if ago is not None:
            return pd.Timestamp.now("UTC") - ago if ago >= pd.Timedelta(0) else None
        names_no_year = isinstance(when, str) and not re.search(r"\d{4}", when)
        return None if names_no_year or isinstance(when, Number) else pd.Timestamp(when)
    except (ValueError, TypeError, OverflowError):
        return None


def _ago(when: Any) -> pd.Timedelta | None:
    if isinstance(when, timedelta):
        return pd.Timedelta(when)
    if not isinstance(when, str) or not _AMOUNT.match(when):
        return None
    try:
        return pd.Timedelta(_DAYS.sub("days", when))
    except ValueError:
        return None  # "21 Nov 2026"


@dataclass(frozen=True, slots=True)
class Found:
    """What was read. `alive`: the open runs that a living process writes (None: all of them). `elsewhere`: the originals
    of copied runs that are not among the records, but in the store."""

    records: list[Source]
    alive: Collection[str] | None = None
    elsewhere: Collection[str] = ()


def read_all(of: Scope, which: Wanted) -> Found:
    """StoreError for a file that cannot be read."""
    if isinstance(of, Run):
        return _of_run(of)
    if isinstance(of, Session):
        session_id = of.id
        return _of_journal(of.journal, which, lambda info: info.session_id == session_id)
    if of is None or isinstance(of, Journal):
        return _of_journal(defaults.journal(of), which)
    paths: list[Any] = list(of) if isinstance(of, Iterable) and not isinstance(of, str) else [of]
    if not all(isinstance(path, str | Path) for path in paths):
        raise UsageError(
            f"a history is that of a Run, a Session, a Journal, a file, or (None) of everything; found {of!r}"
        )
    return _of_files(paths, which)


def _of_run(run: Run) -> Found:
    state, events = run.state, run.events
    if events and not isinstance(events[0], RunStarted):
        # It goes on after a restart: its beginning was another process's.
        session_id, run_id = run.session.id, run.id
        records = run.session.journal.ask(lambda store: list(read_whole(store, session_id=session_id, run_id=run_id)))
        return Found(list(records))
    found: list[Any] = list(events)
    if not state.is_ended and state.steps and state.steps[-1].message is None:
        # What is on the screen: it is recorded once a second only.
        blocks = [[block.kind, block.text] for block in state.steps[-1].blocks if block.kind != "call"]
        found.append({"type": LIVE_TEXT, "run_id": run.id, "blocks": blocks})
    return Found(redactor().value(found))


def _of_journal(journal: Journal, which: Wanted, more: Callable[[SessionInfo], bool] | None = None) -> Found:
    def chosen(store: Store) -> list[SessionInfo]:
        infos = [info for info in store.sessions() if which.may_have(info) and (more is None or more(info))]
        if (which.models, which.statuses, which.since, which.until) != (None, None, None, None):
            only = infos[0].session_id if len(infos) == 1 else None
            known = _sessions_with(store, which, only)
            infos = [info for info in infos if info.session_id in known]
        return sorted(infos, key=lambda info: (info.created_at, info.session_id))

    infos = journal.ask(chosen) or []  # a journal that keeps nothing answers nothing
    records: list[Record] = []
    with progress(sum(info.runs for info in infos), "runs") as advance:
        for batch in _batches(infos):
            ids = [info.session_id for info in batch]
            records += journal.ask(lambda store, ids=ids: list(read_whole(_Only(store, ids))))  # type: ignore[misc, arg-type]
            advance(sum(info.runs for info in batch))
    return journal.ask(lambda store: _described(store, records)) if records else Found([])


def _sessions_with(store: Store, which: Wanted, only: str | None) -> set[str]:
    begun: dict[str, str] = {}
    is_ended: dict[str, str] = {}
    types = ("RunStarted", "RunEnded") if which.statuses is not None else ("RunStarted",)
    for record in store.read(session_id=only, types=types):
        try:
            event = codec.decode_json(record.payload)
            if record.type == "RunEnded":
                is_ended[record.run_id] = event["status"]
            elif which.may_hold(event):
                begun[record.run_id] = record.session_id
        except (ValueError, KeyError, TypeError):
            begun[record.run_id] = record.session_id  # who reads it whole finds out
    # What has not ended may have any other status: that is known when it is folded.
    return {
        session
        for run, session in begun.items()
        if which.statuses is None or run not in is_ended or is_ended[run] in which.statuses
    }


def _batches(infos: Iterable[SessionInfo]) -> Iterator[list[SessionInfo]]:
    batch: list[SessionInfo] = []
    for info in infos:
        batch.append(info)
        if sum(one.runs for one in batch) >= _BATCH_RUNS:
            yield batch
            batch = []
    if batch:
        yield batch


class _Only:
    """A store of which only some sessions are read, each up to its damage."""

    def __init__(self, store: Store, session_ids: list[str]) -> None:
        self._store, self._session_ids = store, session_ids
        self.blob, self.damage = store.blob, store.damage

    def read(self) -> Iterator[Record]:
        for session_id in self._session_ids:
            yield from self._store.read(session_id=session_id)


def _described(store: Store, records: list[Record]) -> Found:
    begun = [record for record in records if record.type == "RunStarted"]
    ended = {record.run_id for record in records if record.type == "RunEnded"}
    open_runs = {record.run_id: record.session_id for record in begun if record.run_id not in ended}
    living = {session_id for session_id in set(open_runs.values()) if may_be_driven(store, session_id)}
    alive = {run_id for run_id, session_id in open_runs.items() if session_id in living}
    copied = {
        original
        for record in begun
        if b'"copy_of"' in record.payload and (original := codec.decode_json(record.payload).get("copy_of"))
    }
    missing = copied - {record.run_id for record in begun}
    elsewhere = {run_id for run_id in missing if any(True for _ in store.read(run_id=run_id, types=("RunStarted",)))}
    return Found(list(records), alive, elsewhere)


def _of_files(paths: Iterable[str | Path], which: Wanted) -> Found:
    files: list[Path] = []
    for path in map(Path, paths):
        path = path.expanduser()
        is_folder = path.is_dir()
        files += sorted(one for one in path.iterdir() if one.suffix in portable.SUFFIXES) if is_folder else [path]
    records: list[Source] = []
    alive: set[str] = set()
    elsewhere: set[str] = set()
    with progress(len(files), "files") as advance:
        for path in files:
            found = _of_file(path, which)
            records += found.records
            alive.update(found.alive or ())
            elsewhere.update(found.elsewhere)
            advance(1)
    return Found(records, alive, elsewhere)


def _of_file(path: Path, which: Wanted) -> Found:
    if path.suffix in portable.SUFFIXES:
        sessions = ((which.is_of(info), list(events)) for info, events in portable.read_file(path))
        return Found(redactor().value([event for is_wanted, events in sessions if is_wanted for event in events]), ())
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"{str(path)!r} ends with {path.suffix!r}; use an exported session (.jsonl, .md) or a .sqlite")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    from turncell.adapters.sql_store import SQLStore

    journal = Journal(lambda: SQLStore.sqlite(path))
    try:
        return _of_journal(journal, which)
    finally:
        journal.close()


@contextmanager
def progress(total: int, unit: str, what: str = "reading the history") -> Iterator[Callable[[int], object]]:
    """A bar where it takes longer than two seconds, gone when it is done; nothing where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    with tqdm(total=total, unit=f" {unit}", desc=what, delay=2.0, leave=False) as bar:
        yield bar.update
