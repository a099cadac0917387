"""Sessions as files, from one store into another, and out of it.

A JSON-lines file has a header line and then one event per line, whole and in order; then, in the same way, the sessions of
its sub-agents, and of theirs:

    {"turncell": "session", "version": 1, "session_id": "ses_...", "title": ..., "project": ..., "created_at": ..., "records": 57, "inside": 2}
    {"seq": 1, "session_id": "ses_...", "type": "RunStarted", ...}

`inside` is how many follow. A session that is damaged is exported up to the damage, and its header says so (`cut`).

Files are data from outside. One is read twice: first everything is checked, and only when nothing was found wrong is it
written, so that a file that is refused has left nothing behind. Neither holds more than a batch of it in memory, and no
line is parsed that is too long or has too many values. What is checked: the version, each event against its schema,
numbers without gaps, one session at a time, runs that begin once and before what belongs to them, runs that no other
session of this history has, times that are times, and that the fold of the whole does not fail.
A file must not allow anything: a run that has not ended in it is ended here, for what it says was allowed or approved
would begin without asking; what it says was answered to a question is asked again; and of the rules that were remembered
for its session only those that deny or ask hold here, which a record at its end says.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from turncell.runtime.inside import sessions_inside
from turncell.runtime.interrupted import ended
from turncell.runtime.journal import Journal, as_journal, of_today, to_record
from turncell.runtime.ports import Damage, Record, SessionInfo, Store
from turncell.runtime.prompts import new_id
from turncell.runtime.session import Session

log = logging.getLogger("turncell")

SUFFIXES = (".jsonl", ".md")
MAX_LINE_BYTES = 32 << 20
"""A record of more is neither written nor read: what is read must fit into memory, several times. A text of five million
characters fits, whatever they are."""
MAX_TITLE_CHARS = 500
_MAX_PATH_CHARS = 4096
_END_OF_TIME = 253_402_300_800.0
"""The year 10000, which no calendar of Python's has."""
_BATCH_BYTES = 4 << 20
_BATCH_RECORDS = 500
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")


# Out of a history.


def export(session: Session, path: Path, overwrite: bool = False) -> Path:
    """See `Session.export`."""
    path = path.expanduser()
    _check_suffix(path)
    if path.is_file() and not overwrite:
        raise UsageError(f"{path} is there already; use export(path, overwrite=True), or another path")
    journal = session.journal
    family = _family(journal, session.id)
    new = path.with_name(f".{path.name}.{new_id('new')}")
    try:
        with _failing(path, "written"):
            with open(new, "xb") as file:
                for info in family:
                    found, damage = _exported(journal, info.session_id)
                    records = (_inlined(record, journal) for record in found)
                    if path.suffix == ".md":
                        defaults.write_document(file, info, records, damage)
                    else:
                        inside = len(family) - 1 if info is family[0] else 0
                        file.writelines(_lines(info, len(found), inside, records, damage))
            os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    return path


def _lines(
    info: SessionInfo, count: int, inside: int, records: Iterable[Record], damage: Damage | None
) -> Iterator[bytes]:
    header = {"turncell": "session", "version": SCHEMA_VERSION, "session_id": info.session_id, "title": info.title}
    header |= {"project": info.project, "created_at": info.created_at, "records": count, "inside": inside}
    if damage is not None:
        header["cut"] = f"record {damage.seq} and what followed it could not be read ({damage.found})"
    yield codec.encode(header) + b"\n"
    for record in records:
        if len(record.payload) >= MAX_LINE_BYTES:
            raise StoreError(
                f"record {record.seq} takes {len(record.payload)} bytes; a line holds up to {MAX_LINE_BYTES}"
            )
        yield record.payload + b"\n"


def _stored(journal: Journal, session_id: str) -> tuple[list[Record], Damage | None]:
    """Its records with large texts still left out: those are fetched one by one. Of a damaged one those before the damage."""
    damage = journal.damage(session_id)
    records = journal.ask(lambda store: list(store.read(session_id=session_id)))
    return (records if damage is None else [record for record in records if record.seq < damage.seq]), damage


def _exported(journal: Journal, session_id: str) -> tuple[list[Record], Damage | None]:
    found, damage = _stored(journal, session_id)
    newer = max((record.version for record in found), default=SCHEMA_VERSION)
    newer = max(newer, (damage.newer if damage else None) or 0)
    if newer > SCHEMA_VERSION:
        raise StoreError(
            f"session {session_id} was written by a newer turncell: it has schema version {newer}, this one writes "
            f"version {SCHEMA_VERSION}; export it with that one"
        )
    return found, damage


def _family(journal: Journal, session_id: str) -> list[SessionInfo]:
    """A session, and then those of its sub-agents."""
    return [_info(journal, session_id), *journal.ask(lambda store: sessions_inside(store, session_id))]


def _inlined(record: Record, journal: Journal) -> Record:
    if b'"$blob"' in record.payload:
        record = record._replace(payload=codec.inline(record.payload, _blobs(journal)))
    return of_today(record)


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
        infos = _checked(file, path.suffix, journal)
        file.seek(0)
        written: list[str] = []
        try:
            for info, part in zip(infos, _parsed(file, path.suffix), strict=True):
                _write(journal, info, (to_record(event) for event in _without_allows(_ended(_as_said(part.events)))))
                written.append(info.session_id)
        except BaseException:
            with suppress(StoreError):
                journal.ask(lambda store: store.delete(written))
            raise
    return infos[0].session_id


def read_file(path: Path) -> Iterator[tuple[SessionInfo, Iterator[Recorded]]]:
    """The sessions of an exported file as it has them, imported nowhere; each is read before the next is asked for.

    StoreError for what is no event. Whether the events follow from each other is not looked at.
    """
    path = path.expanduser()
    _check_suffix(path)
    with _reading(path) as file, _said_of(path, "read"):
        for part in _parsed(file, path.suffix):
            yield part.info, part.events


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


@dataclass(frozen=True, slots=True)
class _Part:
    """A session of a file. Its events are read before the next part is asked for."""

    info: SessionInfo
    events: Iterator[Any]
    records: int | None
    """How many there must be (None: not said)."""
    inside: int | None
    """How many parts must follow the first one (None: not said)."""
    cut: str


def _checked(file: BinaryIO, suffix: str, journal: Journal) -> list[SessionInfo]:
    """Read everything, keep nothing. StoreError for the first thing that is wrong."""
    there = {one.session_id for one in journal.ask(lambda store: store.sessions())}
    taken = {record.run_id for record in journal.ask(lambda store: list(store.read(types=("RunStarted",))))}
    infos: list[SessionInfo] = []
    outer: set[str] = set()
    inside: int | None = None
    for part in _parsed(file, suffix):
        info = part.info
        if not _ID.fullmatch(info.session_id):
            raise StoreError(f"its session id is {info.session_id[:80]!r}; use ASCII letters, digits, '-', '_' and '.'")
        if info.session_id in there:
            raise StoreError(
                f"session {info.session_id} is in this history already; load it with Session.load(session_id), "
                "or delete it first"
            )
        there.add(info.session_id)
        if part.cut:
            log.warning("session %s was damaged when it was exported, and is not whole: %s", info.session_id, part.cut)
        begun, root_run_id = _check_part(part, taken)
        if not infos:
            outer, inside = begun, part.inside
        elif root_run_id not in outer:
            raise StoreError(f"session {info.session_id} is not one of a sub-agent of {infos[0].session_id}")
        taken |= begun
        infos.append(info)
    if inside is not None and inside != len(infos) - 1:
        raise StoreError(f"it has {len(infos) - 1} sessions of sub-agents, its first line says {inside}; it was cut")
    return infos


def _check_part(part: _Part, taken: set[str]) -> tuple[set[str], str]:
    """The runs of a session, and the run around it where it is a sub-agent's."""
    info, expected, root_run_id = part.info, part.records, ""
    begun: set[str] = set()
    open_runs: dict[str, RunState] = {}
    count = 0
    for count, event in enumerate(part.events, 1):
        where = f"record {count}"
        _check_time(event.at, where)
        if event.seq != count:
            raise StoreError(f"{where} has the number {event.seq}; numbers are 1, 2, 3 ... without gaps")
        if event.session_id != info.session_id:
            raise StoreError(f"{where} belongs to session {event.session_id[:80]!r}, the file to {info.session_id}")
        if isinstance(event, RunStarted):
            if event.run_id in begun or event.run_id in taken or not _ID.fullmatch(event.run_id):
                raise StoreError(f"{where} begins run {event.run_id[:80]!r}, which has begun already or is no id")
            begun.add(event.run_id)
            if count == 1 and event.depth:
                root_run_id = event.root_run_id or ""
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
    return begun, root_run_id


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


def _parsed(file: BinaryIO, suffix: str) -> Iterator[_Part]:
    if suffix == ".md":
        for version, info, cut, records in defaults.read_document(file):
            _check_version(version)
            payloads = (record.payload for record in records)
            events = (_event(payload, version, number) for number, payload in enumerate(payloads, 1))
            yield _Part(_limited(info), events, None, None, cut)
        return
    is_first = True
    while is_first or file.peek(1):  # type: ignore[attr-defined]
        info, version, count, inside, cut = _header(file)
        events = (_event(line, version, number) for number, line in enumerate(_payloads(file, count), 1))
        yield _Part(_limited(info), events, count, inside, cut)
        is_first = False


def _limited(info: SessionInfo) -> SessionInfo:
    """What is shown in lists must not break them."""
    _check_time(info.created_at, "its first line")
    return evolve(info, title=info.title[:MAX_TITLE_CHARS], project=info.project[:_MAX_PATH_CHARS])


def _check_time(at: float, where: str) -> None:
    if not 0 <= at < _END_OF_TIME:
        raise StoreError(f"{where} has the time {at!r}; a time is in seconds since 1970, and before the year 10000")


def _payloads(file: BinaryIO, count: int) -> Iterator[bytes]:
    number = 0
    while number < count and (length := _length_of_line(file)):
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


def _header(file: BinaryIO) -> tuple[SessionInfo, int, int, int, str]:
    values = _json(file.readline(1 << 20), "its first line")
    if values.get("turncell") != "session":
        raise StoreError('its first line is not that of a session: it has no "turncell": "session"')
    version, count, inside = values.get("version"), values.get("records"), values.get("inside", 0)
    cut = values.get("cut", "")
    _check_version(version)
    texts = [values.get(name) for name in ("session_id", "title", "project")]
    at = values.get("created_at")
    is_time = isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at)
    is_counted = type(version) is type(count) is type(inside) is int
    if not is_counted or not is_time or not all(isinstance(text, str) for text in (*texts, cut)):
        raise StoreError("a value of its first line is missing or has another type")
    session_id, title, project = (str(text) for text in texts)
    return SessionInfo(session_id, title, project, float(at), float(at), 0), version, count, inside, cut  # type: ignore[arg-type,return-value]


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
        values = codec.decode_foreign(line)
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
    """Move a session, with those of its sub-agents, into another history; returns it there.

    It is deleted here only when all of it is on disk there. SessionBusy if somebody writes it; StoreError if the other
    history has a session of this id, or if the session is damaged, because what follows the damage may still be repaired.
    """
    as_journal(to_journal)
    session = Session.load(session_id, as_journal(from_journal))
    session.hold()
    family = _family(from_journal, session_id)
    written: list[str] = []
    try:
        for info in family:
            found, damage = _stored(from_journal, info.session_id)
            if damage is not None:
                raise StoreError(str(damage))
            _write(to_journal, info, (_with_blobs(record, from_journal) for record in found))
            written.append(info.session_id)
    except BaseException:
        with suppress(StoreError):
            to_journal.ask(lambda store: store.delete(written))
        raise
    from_journal.ask(lambda store: store.delete([info.session_id for info in family]))
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
    return record._replace(blobs=found)


def prune(older_days: float, journal: Journal | None = None, *, everywhere: bool = False) -> tuple[SessionInfo, ...]:
    """Erase the sessions of this folder (or of all) that nobody has used for `older_days`; returns what they were.

    Those that a process is writing are kept. The sessions of their sub-agents go with them, and are not counted.
    """
    if type(older_days) not in (int, float) or not 0 <= older_days < math.inf:
        raise UsageError(f"older_days is {older_days!r}; use a number of days, 0 or more")
    journal = defaults.journal(journal)
    before, here = time.time() - older_days * 86_400, os.getcwd()
    known = journal.ask(_all_sessions)
    people = [info for info in known if not info.root_run_id]
    old = [info for info in people if info.updated_at < before and (everywhere or info.project == here)]
    gone = []
    for info in old:
        if Session.is_held(info.session_id, journal):
            continue
        with suppress(SessionBusy):
            journal.claim(info.session_id).result()
            gone.append(info)
    inner = [info for info in known if info.root_run_id]
    if gone or inner:
        journal.ask(lambda store: _erase(store, gone, inner, before))
    return tuple(gone)


def _erase(store: Store, gone: list[SessionInfo], inner: list[SessionInfo], before: float) -> None:
    """With the sessions inside them, and those that have lost what was around them long ago."""
    doomed = {info.session_id for info in gone}
    if inner:
        outer = {record.run_id: record.session_id for record in store.read(types=("RunStarted",))}
        of_gone = {info.session_id for info in inner if outer.get(info.root_run_id) in doomed}
        doomed |= of_gone | {
            one.session_id for one in inner if one.root_run_id not in outer and one.updated_at < before
        }
    if doomed:
        store.delete(sorted(doomed))


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
def _said_of(path: Path, doing: str = "imported") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except StoreError as error:
        raise StoreError(f"{path} is not {doing}: {error}") from error
