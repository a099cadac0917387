"""Sessions as files, from one store into another, and out of it.

A JSON-lines file has a header line and then one event per line, whole and in order:

    {"turncell": "session", "version": 1, "session_id": "ses_...", "title": ..., "project": ..., "created_at": ..., "records": 57}
    {"seq": 1, "session_id": "ses_...", "type": "RunStarted", ...}

Files are data from outside. One is read twice: first everything is checked, and only when nothing was found wrong is it
written, so that a file that is refused has left nothing behind. Neither holds more than a batch of it in memory. What
is checked: the version, each event against its schema, numbers without gaps, one session, runs that begin once and
before what belongs to them, runs that no other session of this history has, and that the fold of the whole does not fail.
A file must not allow anything: a run that has not ended in it is ended here, for what it says was allowed or approved
would begin without asking; what it says was answered to a question is asked again; and of the rules that were remembered for its session only those that deny or ask hold here,
which a record at its end says.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from turncell.core import codec
from turncell.core.events import (
    SCHEMA_VERSION,
    Arranged,
    Recorded,
    RequestAnswered,
    RequestOpened,
    RulesChanged,
    RunStarted,
)
from turncell.core.fold import RunState, apply, at_rest
from turncell.core.upcast import upcast
from turncell.core.values import evolve
from turncell.errors import SessionBusy, StoreError, UsageError
from turncell.runtime import defaults
from turncell.runtime.journal import Journal, to_record
from turncell.runtime.ports import Record, SessionInfo, Store
from turncell.runtime.prompts import new_id
from turncell.runtime.session import Session, ended

SUFFIXES = (".jsonl", ".md")
MAX_LINE_BYTES = 96 << 20
"""A record of more is neither written nor read: what is read must fit into memory."""
_BATCH_BYTES = 4 << 20
_BATCH_RECORDS = 500
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")


# Out of a history.


def export(session: Session, path: Path) -> Path:
    """See `Session.export`."""
    path = path.expanduser()
    _check_suffix(path)
    journal, session_id = session.journal, session.id
    info = _info(journal, session_id)
    found = _stored(journal, session_id)
    records = (_inlined(record, journal) for record in found)
    new = path.with_name(f".{path.name}.{new_id('new')}")
    try:
        with _failing(path, "written"):
            with open(new, "xb") as file:
                if path.suffix == ".md":
                    defaults.write_document(file, info, records)
                else:
                    file.writelines(_lines(info, len(found), records))
            os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    return path


def _lines(info: SessionInfo, count: int, records: Iterable[Record]) -> Iterator[bytes]:
    header = {"turncell": "session", "version": SCHEMA_VERSION, "session_id": info.session_id, "title": info.title}
    header |= {"project": info.project, "created_at": info.created_at, "records": count}
    yield codec.encode(header) + b"\n"
    for record in records:
        if len(record.payload) >= MAX_LINE_BYTES:
            raise StoreError(
                f"record {record.seq} takes {len(record.payload)} bytes; a line holds up to {MAX_LINE_BYTES}"
            )
        yield record.payload + b"\n"


def _stored(journal: Journal, session_id: str) -> list[Record]:
    """Its records with large texts still left out: those are fetched one by one. Of a damaged one those before the damage."""
    damage = journal.damage(session_id)
    records = journal.ask(lambda store: list(store.read(session_id=session_id)))
    return records if damage is None else [record for record in records if record.seq < damage.seq]


def _inlined(record: Record, journal: Journal) -> Record:
    if b'"$blob"' not in record.payload:
        return record
    return evolve(record, payload=codec.inline(record.payload, _blobs(journal)))


def _blobs(journal: Journal) -> Callable[[str], bytes]:
    return lambda digest: journal.ask(lambda store: store.blob(digest))


def _info(journal: Journal, session_id: str) -> SessionInfo:
    found = next((info for info in journal.ask(lambda store: store.sessions()) if info.session_id == session_id), None)
    if found is None:
        raise UsageError(f"there is no session {session_id!r} in this history")
    return found


# Into a history.


def import_file(path: Path, journal: Journal) -> Session:
    """See `Session.import_file`."""
    return Session.load(copy_in(path, journal), journal)


def copy_in(path: Path, journal: Journal) -> str:
    """Import a file without loading it; returns the session's id. What this holds does not depend on the file's size."""
    path = path.expanduser()
    _check_suffix(path)
    with _reading(path) as file, _said_of(path):
        info = _checked(file, path.suffix, journal)
        file.seek(0)
        _, _, events = _parsed(file, path.suffix)
        _write(journal, info, (to_record(event) for event in _without_allows(_ended(_as_said(events)))))
    return info.session_id


def _as_said(events: Iterable[Any]) -> Iterator[Any]:
    """What a file says that a person has answered is not remembered as an answer: by "file", and asked again."""
    questions: set[str] = set()
    for event in events:
        if isinstance(event, RequestOpened) and event.kind == "question":
            questions.add(event.request_id)
        is_answer = isinstance(event, RequestAnswered) and event.request_id in questions and event.by == "person"
        yield evolve(event, by="file") if is_answer else event


def _ended(events: Iterable[Any]) -> Iterator[Any]:
    """The events, and the end of each run that is open: what a file says was allowed or approved must not begin here."""
    open_runs: dict[str, RunState] = {}
    seq = 0
    for event in events:
        seq = event.seq
        if isinstance(event, RunStarted):
            open_runs[event.run_id] = RunState()
        if event.run_id in open_runs:
            run = open_runs[event.run_id] = apply(open_runs[event.run_id], event)
            if run.is_ended:
                del open_runs[event.run_id]
        yield event
    for run in open_runs.values():
        left, closing = ended(at_rest(run), seq, time.time())
        seq = left.seq
        yield from (event for event in closing if isinstance(event, Recorded))


def _without_allows(events: Iterable[Recorded]) -> Iterator[Recorded]:
    """The events, and at the end one more where a rule would allow something."""
    changed: RulesChanged | None = None
    last: Recorded | None = None
    for last in events:
        if isinstance(last, RulesChanged):
            changed = last
        yield last
    if changed is None or last is None:
        return
    kept = tuple(rule for rule in changed.rules if rule.verdict != "allow")
    if kept != tuple(changed.rules):
        yield evolve(changed, seq=last.seq + 1, at=time.time(), rules=kept)


def _checked(file: BinaryIO, suffix: str, journal: Journal) -> SessionInfo:
    """Read everything, keep nothing. StoreError for the first thing that is wrong."""
    info, expected, events = _parsed(file, suffix)
    if not _ID.fullmatch(info.session_id):
        raise StoreError(f"its session id is {info.session_id[:80]!r}; use ASCII letters, digits, '-', '_' and '.'")
    if info.session_id in {one.session_id for one in journal.ask(lambda store: store.sessions())}:
        raise StoreError(
            f"session {info.session_id} is in this history already; load it with Session.load(session_id), "
            "or delete it first"
        )
    taken = {record.run_id for record in journal.ask(lambda store: list(store.read(types=("RunStarted",))))}
    begun: set[str] = set()
    open_runs: dict[str, RunState] = {}
    count = 0
    for count, event in enumerate(events, 1):
        where = f"record {count}"
        if event.seq != count:
            raise StoreError(f"{where} has the number {event.seq}; numbers are 1, 2, 3 ... without gaps")
        if event.session_id != info.session_id:
            raise StoreError(f"{where} belongs to session {event.session_id[:80]!r}, the file to {info.session_id}")
        if isinstance(event, RunStarted):
            if event.run_id in begun or event.run_id in taken or not _ID.fullmatch(event.run_id):
                raise StoreError(f"{where} begins run {event.run_id[:80]!r}, which has begun already or is no id")
            begun.add(event.run_id)
            open_runs[event.run_id] = RunState()
        elif event.run_id not in begun:
            raise StoreError(f"{where} ({event.type}) belongs to run {event.run_id[:80]!r}, which has not begun")
        if isinstance(event, Arranged):
            if not begun.issuperset(event.path) or len(set(event.path)) != len(event.path):
                raise StoreError(f"{where} arranges runs that have not begun, or one of them twice")
        elif event.run_id in open_runs:
            _fold(open_runs, event, where)
        elif not isinstance(event, RulesChanged):
            raise StoreError(f"{where} ({event.type}) comes after the end of run {event.run_id}")
    if expected is not None and count != expected:
        raise StoreError(f"it has {count} records, its first line says {expected}; it was cut")
    return info


def _fold(open_runs: dict[str, RunState], event: Any, where: str) -> None:
    """What could not be folded could not be loaded. Only runs that have not ended are kept."""
    run_id = event.run_id
    try:
        run = apply(open_runs[run_id], event)
        if run.is_ended:
            run.messages()
            del open_runs[run_id]
        else:
            at_rest(run)
            open_runs[run_id] = run
    except Exception as error:
        raise StoreError(f"{where} ({event.type}) does not follow from what was before it: {error!r}") from error


def _parsed(file: BinaryIO, suffix: str) -> tuple[SessionInfo, int | None, Iterator[Any]]:
    """The session, how many records there must be (None: not said), and the events."""
    if suffix == ".md":
        version, info, records = defaults.read_document(file)
        _check_version(version)
        payloads = (record.payload for record in records)
        return info, None, (_event(payload, version, number) for number, payload in enumerate(payloads, 1))
    info, version, count = _header(file)
    return info, count, (_event(line, version, number) for number, line in enumerate(_payloads(file), 1))


def _payloads(file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while length := _length_of_line(file):
        number += 1
        if length > MAX_LINE_BYTES:
            raise StoreError(f"record {number} is longer than {MAX_LINE_BYTES} bytes")
        line = file.read(length)
        if not line.endswith(b"\n"):
            raise StoreError(f"it ends in the middle of record {number}")
        yield line


def _length_of_line(file: BinaryIO) -> int:
    """Of the line that comes, up to somewhat more than MAX_LINE_BYTES: measured before it is held."""
    begin, length = file.tell(), 0
    while length <= MAX_LINE_BYTES and (piece := file.readline(1 << 16)):
        length += len(piece)
        if piece.endswith(b"\n"):
            break
    file.seek(begin)
    return length


def _header(file: BinaryIO) -> tuple[SessionInfo, int, int]:
    values = _json(file.readline(1 << 20), "its first line")
    if values.get("turncell") != "session":
        raise StoreError('its first line is not that of a session: it has no "turncell": "session"')
    version, count = values.get("version"), values.get("records")
    _check_version(version)
    texts = [values.get(name) for name in ("session_id", "title", "project")]
    at = values.get("created_at")
    is_time = isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at)
    if type(version) is not int or type(count) is not int or not is_time or not all(isinstance(t, str) for t in texts):
        raise StoreError("a value of its first line is missing or has another type")
    session_id, title, project = (str(text) for text in texts)
    return SessionInfo(session_id, title, project, float(at), float(at), 0), version, count  # type: ignore[arg-type]


def _check_version(version: Any) -> None:
    if type(version) is not int or version < 1:
        raise StoreError(f"its schema version is {str(version)[:80]!r}; it is a whole number, 1 or more")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"it has schema version {version}, this turncell reads up to {SCHEMA_VERSION}; upgrade turncell to import it"
        )


def _event(payload: bytes, version: int, number: int) -> Recorded:
    values = upcast(_json(payload, f"record {number}"), version)
    try:
        event = codec.event_adapter().validate_python(values)
    except (ValueError, RecursionError) as error:
        kind = str(values.get("type"))[:80]
        why = codec.why_refused(error)
        raise StoreError(f"record {number} is no event of type {kind!r} that this turncell knows: {why}") from error
    if not isinstance(event, Recorded):
        raise StoreError(f"record {number} is a {event.type}, which is never recorded")
    return event


def _json(line: bytes, what: str) -> dict[str, Any]:
    try:
        values = codec.decode_json(line)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is no JSON: {str(error)[:120]}") from error
    if not isinstance(values, dict):
        raise StoreError(f"{what} is no JSON object")
    return values


def _write(journal: Journal, info: SessionInfo, records: Iterable[Record]) -> None:
    """Make the session and append all records; on a failure nothing of it stays. The journal serves others in between."""
    session_id, token = info.session_id, journal.writer.token
    journal.ask(
        lambda store: store.create_session(session_id, title=info.title, project=info.project, at=info.created_at)
    )
    try:
        journal.claim(session_id).result()
        for batch in _batches(records):
            journal.ask(lambda store, batch=batch: store.append(batch, durable=True, token=token))  # type: ignore[misc]
        journal.release(session_id).result()
    except BaseException:
        with suppress(StoreError):
            journal.ask(lambda store: store.delete([session_id]))
        raise


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.payload) + sum(len(blob) for blob in record.blobs.values())
        if size > _BATCH_BYTES or len(batch) >= _BATCH_RECORDS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# Between stores.


def move(session_id: str, from_journal: Journal, to_journal: Journal) -> Session:
    """Put a session into another history and take it out of this one; returns it there, byte for byte.

    It is deleted here only when all of it is on disk there. SessionBusy where somebody writes it, StoreError where the
    other history has one of this id, and where it is damaged: what is behind the damage may still be repaired here.
    Sessions of its sub-agents stay.
    """
    session = Session.load(session_id, from_journal)
    session.hold()
    damage = from_journal.damage(session_id)
    if damage is not None:
        raise StoreError(str(damage))
    info = _info(from_journal, session_id)
    _write(to_journal, info, (_with_blobs(record, from_journal) for record in _stored(from_journal, session_id)))
    from_journal.ask(lambda store: store.delete([session_id]))
    return Session.load(session_id, to_journal)


def _with_blobs(record: Record, journal: Journal) -> Record:
    if b'"$blob"' not in record.payload:
        return record
    found: dict[str, bytes] = {}
    blob = _blobs(journal)

    def fetch(digest: str) -> bytes:
        found[digest] = blob(digest)
        return found[digest]

    codec.inline(record.payload, fetch)
    return evolve(record, blobs=found)


def prune(older_days: float, journal: Journal | None = None, *, everywhere: bool = False) -> tuple[SessionInfo, ...]:
    """Erase the sessions of this folder (or of all) that nobody has used for so many days; returns what they were.

    Those that some process still writes, or holds here, are kept.
    """
    if type(older_days) not in (int, float) or not 0 <= older_days < math.inf:
        raise UsageError(f"older_days is {older_days!r}; use a number of days, 0 or more")
    journal = journal or defaults.journal()
    before, here = time.time() - older_days * 86_400, os.getcwd()
    known = journal.ask(_all_sessions)
    old = [info for info in known if info.updated_at < before and (everywhere or info.project == here)]
    gone = []
    for info in old:
        if Session.is_held(info.session_id, journal):
            continue
        with suppress(SessionBusy):
            journal.claim(info.session_id).result()
            gone.append(info)
    if gone:
        journal.ask(lambda store: store.delete([info.session_id for info in gone]))
    return tuple(gone)


def _all_sessions(store: Store) -> list[SessionInfo]:
    return store.sessions()


# Files.


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{str(path)!r} ends with {path.suffix!r}; use .jsonl (JSON lines) or .md (Markdown)")


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    with _failing(path, "read"):
        if path.exists() and not path.is_file():  # a pipe would keep us waiting for ever
            raise StoreError(f"{path} is no file")
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


@contextmanager
def _failing(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be {doing}: {error.strerror or error}") from error


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except StoreError as error:
        raise StoreError(f"{path} is not imported: {error}") from error
