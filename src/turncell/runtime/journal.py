"""The journal's writer: one thread that batches what all runs of this process record.

Recording never waits for the disk: records are queued and written in batches, each batch one transaction. The thread
sleeps up to LINGER_S over what nobody waits for, so that a step, or a hundred runs at once, cost one transaction and
not one for each signal: waking it costs as much as writing. The end of a run is written at once, and so is what a
person is asked. Only the intent of a write pays for an fsync: `record(..., durable=True)` is done when the records, and
all before them, survive a loss of power. A store that fails is a failure of the runs that need it, not of this thread:
the error goes to the futures of the batch.

A store that is locked by somebody else for a while fails nothing: the same is tried again for PATIENCE_S, and said in the log.

A record that could not be written leaves a hole. Nothing may follow a hole: a session read back would fold events
whose cause is missing. So a session whose records failed once is broken for this journal, and what comes later fails
with the first failure's words, though the store may be well again, until the session is claimed anew, and with that read
anew: what is stored has no hole. So it is where another process has taken a session over. Other sessions go on.

So it is with damage that reading comes across: the records before it are read, and the session is written no more until
it is read whole again. It is claimed before it is read and read before it is written, so none is written unseen.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar, cast

from turncell.core import codec
from turncell.core.events import SCHEMA_VERSION, Event, MessageAdded, Recorded, RecordedEvent
from turncell.core.upcast import upcast
from turncell.errors import SessionBusy, StoreBusy, StoreError, TurncellError, UsageError, say
from turncell.runtime import secrets
from turncell.runtime.ports import Damage, Record, Store
from turncell.runtime.process import has_ended, held_by, this_writer

log = logging.getLogger("turncell")
T = TypeVar("T")

LINGER_S = 0.05
"""Far below what a person notices, and below the second for which text may be on the screen only."""
PATIENCE_S = 120.0
"""A lock that is held for longer is taken for one that stays."""


_AT_ONCE = frozenset({"RunEnded", "RequestOpened"})
"""The types of events that somebody waits for."""

_at_store = threading.RLock()
"""Held while a journal talks to its store. A fork waits for it: SQLite has locks of its own for the whole process, and
one that is held by a thread which the child does not have would stop the child's store for ever."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_at_store.acquire, after_in_parent=_at_store.release, after_in_child=_at_store.release)


def to_record(event: Any) -> Record:
    """An event as a store keeps it: without secrets, and without what is large."""
    return to_records([event])[0]


def to_records(events: Sequence[Any]) -> list[Record]:
    """`to_record` of each. Secrets are first looked for in all together: there are hardly ever any."""
    payloads = [codec.encode(event) for event in events]
    known = secrets.redactor()
    is_clean = not known.may_be_in(payloads[0] if len(payloads) == 1 else b"\n".join(payloads))
    records = []
    for event, payload in zip(events, payloads, strict=True):
        if not is_clean or type(event) is MessageAdded:  # which may break off in a part of a secret
            clean = secrets.without_secrets(event, payload, is_clean=is_clean)
            if clean is not event:
                payload = codec.encode(clean)
        blobs = _NO_BLOBS
        if len(payload) > codec.BLOB_BYTES or b'"$blob"' in payload:
            payload, blobs = codec.outline(payload)
        records.append(
            _of_fields((
                event.session_id, event.seq, event.run_id, event.step, event.type, event.at, payload, blobs, SCHEMA_VERSION,
            ))
        )  # fmt: skip
    return records


_of_fields = partial(tuple.__new__, Record)
"""`Record._make` for a tuple of its fields, without a call of Python for each."""


_NO_BLOBS: Mapping[str, bytes] = MappingProxyType({})


def of_today(record: Record) -> Record:
    """A record of an older turncell, as this one would have written it. ValueError where that cannot be."""
    if record.version >= SCHEMA_VERSION:
        return record
    values = codec.decode_json(record.payload)
    if record.version < 1 or not isinstance(values, dict):
        raise ValueError(f"an event of schema version {record.version}")
    try:
        values = upcast(values, record.version)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an event of schema version {record.version} that cannot be read: {error!r}") from error
    return record._replace(payload=codec.encode(values), type=str(values.get("type")), version=SCHEMA_VERSION)


def to_event(record: Record) -> Event:
    """The event of a record. StoreError where its bytes are none: the disk, or somebody's editor, has changed them."""
    try:
        return _known_event(record)
    except ValueError as error:  # pydantic's too
        found = say(error).splitlines()[0]
        raise StoreError(str(Damage(session_id=record.session_id, seq=record.seq, found=found))) from error


def _known_event(record: Record) -> Event:
    last = getattr(_here, "last", None)
    return last[1] if last is not None and last[0] is record else codec.decode(of_today(record).payload)


_here = threading.local()
"""On a journal's thread: the `journal`, and the `last` record that was decoded, which is about to be asked for again."""


def read_whole(store: Store, **which: Any) -> Iterator[Record]:
    """The records that `store.read(**which)` finds, with their blobs put in; of a damaged session those before the damage.

    More can be wrong with a record than a store can see: a blob that is gone, an event that nobody knows. What is asked
    by `session_id` alone is decoded here, so that a session which can be read can also be folded.
    """
    is_session, is_all = which.keys() == {"session_id"}, not which
    damaged: dict[str, Damage] = {}
    seen: set[str] = {which["session_id"]} if is_session else set()
    for record in store.read(**which):
        if record.session_id in damaged:
            continue
        if is_all:
            seen.add(record.session_id)
        try:
            if b'"$blob"' in record.payload:
                record = record._replace(payload=codec.inline(record.payload, store.blob))
            record = of_today(record)
            if is_session:
                _here.last = (record, codec.decode(record.payload))
            elif record.type not in codec.recorded_types():
                raise ValueError(f"an event of type {record.type!r}, which this turncell does not know")
        except (StoreError, ValueError, RecursionError) as error:
            found = " ".join(say(error).split())[:300]
            newer = record.version if record.version > SCHEMA_VERSION else None
            damaged[record.session_id] = Damage(
                session_id=record.session_id, seq=record.seq, found=found, newer=newer
            )  # fmt: skip
            continue
        yield record
    _here.last = None
    journal = getattr(_here, "journal", None)
    for session_id in seen | damaged.keys():
        damage = damaged.get(session_id) or (store.damage(session_id) if session_id in seen else None)
        if journal is not None and (damage is not None or is_session):
            journal.found(session_id, damage)


@dataclass(slots=True)
class _Job:
    records: list[Record]
    done: Future[Any] | None
    """None where nobody waits for it."""
    failed: Callable[[Exception], object] | None = None
    is_durable: bool = False
    may_wait: bool = False
    call: Callable[[Store], Any] | None = None
    joins: bool = False
    """`call` makes a session, and may share the transaction of the records around it."""

    def fail(self, error: Exception) -> None:
        if self.done is not None:
            self.done.set_exception(error)
        if self.failed is not None:
            self.failed(error)


@dataclass(slots=True)
class _Making:
    """A session that is not in the store yet."""

    done: Future[Any] | None
    """None where nobody waits for it."""
    claims: bool = False
    """It is claimed as it is made."""


def as_journal(given: Any) -> Journal:
    """UsageError for what is none, such as the path of a file or a store."""
    if not isinstance(given, Journal):
        raise UsageError(f"journal is {given!r}; use a Journal, such as Journal(lambda: SQLStore.sqlite(path))")
    return given


class Journal:
    """A history: a store, and the thread that opens it, talks to it and closes it. `Agent(journal=...)` records in it.

    `open_store` is called on that thread: `Journal(lambda: SQLStore.sqlite("history.sqlite"))`."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        if not callable(open_store):
            raise UsageError(
                f"open_store is {open_store!r}; use a function that opens a store, such as lambda: SQLStore.sqlite(path)"
            )
        self._open_store = open_store
        self._store: Store | None = None
        self.pid = os.getpid()
        self.writer = this_writer()
        """Who this journal is to others; its token goes along with every record."""
        self._claimed: set[str] = set()
        self._new: dict[str, _Making] = {}
        self._naming = threading.Lock()
        self._has_written = self._joins = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._broken: dict[str, StoreError] = {}
        """The first failure of each session that has a hole."""
        self._damaged: dict[str, Damage] = {}
        self._lost: dict[str, SessionBusy] = {}
        """What was said when another process was found to write a session of ours."""
        self._thread = threading.Thread(target=self._main, name="turncell-journal", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a script that ends must not take along what it has recorded

    def record(self, events: Sequence[Event], *, durable: bool = False) -> Future[None]:
        """Queue the recorded ones among the events; returns at once. Done when written, fails with StoreError.

        Raises StoreError in a forked child, as all that needs the thread does. Has failed already where the session is
        damaged: nothing may be begun that cannot be recorded.
        """
        done = _begun()
        recorded = [event for event in events if isinstance(event, Recorded)]
        self._record(recorded, _Job([], done, None, durable, not durable))
        return done

    def queue(self, events: Sequence[RecordedEvent], failed: Callable[[Exception], object]) -> None:
        """`record` for what nobody waits for: `failed(error)` is called, on any thread, where it cannot be written."""
        self._record(events, _Job([], None, failed, False, True))

    def _record(self, events: Sequence[RecordedEvent], job: _Job) -> None:
        job.records = to_records(events)
        for record in job.records:
            if self._damaged and (damage := self._damaged.get(record.session_id)):
                job.fail(StoreError(str(damage)))
                return
            if record.type in _AT_ONCE:
                job.may_wait = False
        self._put(job)

    def _put(self, job: _Job) -> None:
        if self.pid != os.getpid():  # nobody would ever take it
            raise StoreError(
                f"this journal belongs to the parent process {self.pid}, and its thread does not live in a forked child; "
                "begin a new session in the child, with an Agent that was given no journal"
            )
        self._jobs.put(job)
        if not job.may_wait:
            self._hurry.set()

    def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
        """Queue a new session. It is written with what is recorded next, where the store can in one transaction."""

        def create(store: Store) -> None:
            with self._naming:
                self._new.pop(session_id, None)  # from here on it is too late for `claim_new`
            store.create_session(session_id, title=title, project=project, at=at)
            if making.claims:
                self._claim(store, session_id, takes_over=False)

        def failed(error: Exception) -> None:
            self._broken.setdefault(session_id, _as_store_error(error))

        making = self._new[session_id] = _Making(None if self._has_written else _begun())
        self._put(_Job([], making.done, failed, may_wait=True, call=create, joins=True))

    def claim_new(self, session_id: str) -> Future[None] | None:
        """Claim a session in the transaction that makes it; None where that was begun already: then ask `claim`.

        Nobody else can know of such a session, so that nothing has to be waited for. Only the first session of a journal
        is: it tells whether anything can be recorded. A store that fails later fails the records, as in any turn.
        """
        with self._naming:
            making = self._new.get(session_id)
            if making is None:
                return None
            making.claims = True
        if making.done is None:
            return _done(None)
        self._hurry.set()
        return making.done

    def claim(self, session_id: str, *, takes_over: bool = False) -> Future[None]:
        """Become the one writer of a session. Fails with SessionBusy, which says who is.

        A writer whose process has ended on this machine is replaced; any other only with `takes_over`.
        """
        return self.submit(lambda store: self._claim(store, session_id, takes_over))

    def _claim(self, store: Store, session_id: str, takes_over: bool) -> None:
        held = store.claim(session_id, self.writer)
        if held is not None and (takes_over or has_ended(held)):
            held = store.claim(session_id, self.writer, instead_of=held.token)
        if held is not None:
            raise SessionBusy(
                f"{held_by(session_id, held)}; "
                "read it, fork it (session.fork()), or take it over when that process is gone for good "
                "(session.take_over())"
            )
        self._claimed.add(session_id)
        # Whoever claims a session reads it next, and goes on after what is really there.
        self._broken.pop(session_id, None)
        self._lost.pop(session_id, None)

    def release(self, session_id: str) -> Future[None]:
        """Let others write the session."""
        self._claimed.discard(session_id)
        return self.submit(lambda store: store.release(session_id, self.writer.token))

    def damage(self, session_id: str) -> Damage | None:
        """Read a session, and say where it stops being whole; None where it does not. Blocks: not for the event loop."""

        def look(store: Store) -> Damage | None:
            for _ in read_whole(store, session_id=session_id):
                pass
            return self._damaged.get(session_id)

        return self.ask(look)

    def known_damage(self, session_id: str) -> Damage | None:
        """`damage`, as of when the session was last read."""
        return self._damaged.get(session_id)

    def found(self, session_id: str, damage: Damage | None) -> None:
        """What reading it has come across; on the journal's thread. Said once."""
        if damage is None:
            self._damaged.pop(session_id, None)
        elif self._damaged.get(session_id) != damage:
            self._damaged[session_id] = damage
            log.warning("%s", damage)

    def flush(self) -> None:
        """Wait until all that was recorded before is written. Blocks: not for the event loop."""
        done = _begun()
        self._put(_Job([], done))
        done.result()

    def submit(self, call: Callable[[Store], T]) -> Future[T]:
        """Have `call(store)` run after everything recorded before, on the journal's thread."""
        done = _begun()
        self._put(_Job([], done, call=call))
        return done

    def ask(self, call: Callable[[Store], T]) -> T:
        """`submit`, and wait for the result. Blocks: not for the event loop."""
        return self.submit(call).result()

    def close(self) -> None:
        """Write what is queued, close the store, end the thread."""
        if self.pid != os.getpid():
            return  # a forked child has no such thread, and the queue is its parent's business
        self._jobs.put(None)
        self._hurry.set()
        self._thread.join(10)

    def _main(self) -> None:
        _here.journal = self
        is_open = True
        while is_open:
            jobs = [self._jobs.get()]
            self._hurry.wait(LINGER_S)
            self._hurry.clear()  # first, then empty the queue: whoever sets it has put a job before
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            is_open = None not in jobs
            batch: list[_Job] = []
            for job in jobs:
                if job is None:
                    continue
                if job.call is None or job.joins:
                    batch.append(job)
                    if not job.is_durable:
                        continue
                self._write(batch)
                batch = []
                if job.call is not None:
                    self._do(job, job.call)
            self._write(batch)
        if self._store is not None:
            for session_id in self._claimed:
                with suppress(StoreError):  # whoever comes next sees that this process has ended
                    self._store.release(session_id, self.writer.token)
            self._store.close()

    def _write(self, batch: Sequence[_Job]) -> None:
        """One transaction for the new sessions and the records of the batch; only its last job may be durable."""
        batch = [job for job in batch if not self._is_refused(job)]
        if not batch:
            return
        calls = [job.call for job in batch if job.call is not None]
        if calls and len(batch) > 1 and not self._joins:
            for job in batch:
                if job.call is not None:
                    self._write([job])
            self._write([job for job in batch if job.call is None])
            return
        records = [record for job in batch for record in job.records]
        is_durable = batch[-1].is_durable

        def write(store: Store) -> None:
            for call in calls:
                call(store)
            if records:
                store.append(records, durable=is_durable, token=self.writer.token)

        try:
            if calls or records:
                with _at_store:
                    store: Any = self._opened()
                    write(store) if len(batch) == 1 or not calls else store.together(write, durable=is_durable)
                    self._has_written = True
        except Exception as error:
            if len(batch) > 1:  # one run's records must not take those of the others with them
                for job in batch:
                    self._write([job])
                return
            failure = _as_store_error(error)
            for record in records:
                if isinstance(failure, SessionBusy):  # nothing of ours is missing: what follows is another's
                    self._lost.setdefault(record.session_id, failure)
                    self._claimed.discard(record.session_id)
                else:
                    self._broken.setdefault(record.session_id, failure)
            batch[0].fail(failure)
        else:
            for job in batch:
                if job.done is not None:
                    job.done.set_result(None)

    def _is_refused(self, job: _Job) -> bool:
        if not self._lost and not self._broken:
            return False
        lost = next((self._lost[r.session_id] for r in job.records if r.session_id in self._lost), None)
        if lost is not None:
            job.fail(SessionBusy(str(lost)))
            return True
        first = next((self._broken[r.session_id] for r in job.records if r.session_id in self._broken), None)
        if first is None:
            return False
        refusal = StoreError(
            f"an earlier record of this session is not in the history ({first}); load it again to go on after the last "
            "record that is, or begin a new session"
        )
        refusal.__cause__ = first
        job.fail(refusal)
        return True

    def _do(self, job: _Job, call: Callable[[Store], Any]) -> None:
        try:
            with _at_store:
                result = call(self._opened())
        except Exception as error:
            job.fail(error if isinstance(error, TurncellError) else _as_store_error(error))
        else:
            if job.done is not None:
                job.done.set_result(result)

    def _opened(self) -> Store:
        if self._store is None:
            store = _patiently(self._open_store)
            self._joins = hasattr(store, "together")
            self._store = cast(Store, _Patient(store))
        return self._store


class _Patient:
    """A store whose methods wait for a lock that passes. None has changed anything where it says StoreBusy."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return partial(_patiently, getattr(self._store, name))


def _patiently(call: Callable[..., T], *args: Any, **options: Any) -> T:
    begun = time.monotonic()
    while True:
        try:
            return call(*args, **options)
        except StoreBusy as error:
            waited_s = time.monotonic() - begun
            if waited_s > PATIENCE_S:
                raise
            log.warning("waiting since %.0f s, and trying again: %s", waited_s, error)
            time.sleep(0.1)


def _as_store_error(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    failure = StoreError(f"the journal failed: {error!r}")
    failure.__cause__ = error
    return failure


class Unrecorded(Journal):
    """A journal that keeps nothing: for turns that nobody wants in the history."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def record(self, events: Sequence[Event], *, durable: bool = False) -> Future[None]:
        return _done(None)

    def queue(self, events: Sequence[RecordedEvent], failed: Callable[[Exception], object]) -> None:
        pass

    def submit(self, call: Callable[[Store], T]) -> Future[T]:
        return _done(None)

    def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
        pass

    def claim_new(self, session_id: str) -> Future[None] | None:
        return _done(None)

    def claim(self, session_id: str, *, takes_over: bool = False) -> Future[None]:
        return _done(None)

    def release(self, session_id: str) -> Future[None]:
        return _done(None)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _begun() -> Future[Any]:
    """Running from the start: a run that is cancelled while it waits must not cancel what is being written."""
    begun: Future[Any] = Future()
    begun.set_running_or_notify_cancel()
    return begun


def _done(value: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(value)
    return done
