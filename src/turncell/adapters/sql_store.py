"""Journals in a SQL database, on SQLAlchemy Core: SQLite (one file, several processes at once) or PostgreSQL.

SQLite runs in WAL mode with `synchronous=NORMAL`: a commit survives the death of the process and costs no fsync. A
durable append switches to FULL for its one transaction, whose fsync covers all commits before it. PostgreSQL does the
same by `synchronous_commit`.

`(session_id, seq)` is the primary key: two writers of one session collide instead of interleaving. That alone would
let the wrong one win, so a claim is checked in the transaction that writes. SQLite has one writer at a time, from
BEGIN IMMEDIATE on; in PostgreSQL whoever writes, claims or erases a session holds the lock of its row in `sessions`.

Erasing: for SQLite see sql_store_erasing. In PostgreSQL the tables are rewritten (VACUUM FULL), for which others wait; the
server's own WAL, replicas and backups are its administrator's.

Damage: neither database tells of every bit that flips, so a record has a check sum, compared when it is read. Where a
page cannot be read, the rows are fetched in smaller and smaller pieces up to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from turncell.adapters import sql_store_erasing as erasing
from turncell.adapters import sql_store_schema as schema
from turncell.adapters import store_text
from turncell.adapters.sql_store_schema import BUSY_TIMEOUT_S, blob_uses, blobs, events, failure, sessions, writers
from turncell.adapters.sql_store_views import make_views
from turncell.core import codec
from turncell.core.events import SCHEMA_VERSION
from turncell.errors import StoreError
from turncell.runtime.ports import Damage, Record, SessionInfo, Writer, root_run_of
from turncell.settings import without_secrets

T = TypeVar("T")

# For both databases. "?" is a place in SQLite's words.
_NEW_SESSION = (
    "INSERT INTO sessions (session_id, title, project, created_at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (session_id) DO NOTHING RETURNING session_id"
)
_NEW_EVENT = (
    "INSERT INTO events (session_id, seq, run_id, step, type, at, payload, check_sum, version) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEWS_OF_SESSION = (
    "UPDATE sessions SET updated_at = CASE WHEN updated_at > ? THEN updated_at ELSE ? END, runs = runs + ?, "
    "root_run_id = CASE WHEN ? = '' THEN root_run_id ELSE ? END WHERE session_id = ?"
)
_WRITER = (
    "SELECT w.token, w.host, w.pid, w.born_at, w.since FROM sessions s LEFT JOIN writers w "
    "ON w.session_id = s.session_id WHERE s.session_id = ?"
)
_CLAIM = (
    "INSERT INTO writers (session_id, token, host, pid, born_at, since) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (session_id) DO UPDATE SET token = excluded.token, host = excluded.host, pid = excluded.pid, "
    "born_at = excluded.born_at, since = excluded.since"
)
_COLUMNS = ("session_id", "seq", "run_id", "step", "type", "at", "payload", "check_sum", "version")
_MANY = 500
"""How many values one IN list takes; SQLite's old limit for all parameters of a statement is 999."""


class SQLStore:
    """A history in SQLite or PostgreSQL: `Journal(lambda: SQLStore.sqlite(path))`. Made by `sqlite` or `postgres`.

    Fulfils `runtime.ports.Store`. Use it from the thread that made it; a Journal does."""

    def __init__(self, engine: sa.Engine, where: str) -> None:
        """`where` stands in every message: no secrets in it."""
        self._engine = engine
        self._where = where
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._damaged: dict[str, Damage] = {}
        self._is_marked = False
        self._is_together = False
        self._holders: dict[str, Writer | None] = {}
        """Who may write the sessions that this transaction has made or claimed: no need to look."""
        try:
            self._connection = engine.connect()
            self._newer = schema.prepare(self._connection, where)
            if self._newer is None:
                make_views(self._connection)
        except DBAPIError as error:
            engine.dispose()
            raise failure(error, where, "opened") from error
        except BaseException:
            engine.dispose()
            raise

    @classmethod
    def sqlite(cls, path: Path | str) -> SQLStore:
        """Open or make the SQLite file at `path`; ":memory:" keeps everything in this process."""
        return cls(schema.sqlite_engine(path), str(path))

    @classmethod
    def postgres(cls, url: str) -> SQLStore:
        """Open the database at `postgresql://user:password@host:port/database`, and make our tables in it."""
        return cls(schema.postgres_engine(url), without_secrets(url))

    def __repr__(self) -> str:
        return f"<SQLStore at {self._where}>"

    # Writing

    def together(self, write: Callable[[SQLStore], T], *, durable: bool = False) -> T:
        """Call `write` with this store: what it writes is one transaction, and nothing of it where it raises."""
        with self._writing("several sessions", is_durable=durable):
            self._is_together = True
            try:
                return write(self)
            finally:
                self._is_together = False

    def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
        values = (session_id, store_text.storable(title), store_text.storable(project), at)
        with self._writing(f"session {session_id!r}"):
            if self._first(_NEW_SESSION, values) is None:
                raise StoreError(f"the history at {self._where} already has a session {session_id!r}; use another id")
            self._holders[session_id] = None

    def append(self, records: Sequence[Record], *, durable: bool, token: str | None = None) -> None:
        if not records:
            return
        store_text.check_order(records)
        for record in records if self._damaged else ():
            store_text.check_damage(self._damaged.get(record.session_id))
        rows = [
            (*record[:6], store_text.payload_text(record), store_text.check_sum(record), record.version)
            for record in records
        ]
        large = [one for one in records if one.blobs or b'"$blob"' in one.payload]
        contents = store_text.contents(large)
        uses = {(one.session_id, digest) for one in large for digest in store_text.blob_digests(one)}
        what = f"session {records[0].session_id!r}, from record {records[0].seq}"
        with self._writing(what, is_durable=durable):
            for session_id, writer in self._claims({record.session_id for record in records}).items():
                store_text.check_writer(session_id, writer, token)
            self._run(_NEW_EVENT, rows)
            self._run(_NEWS_OF_SESSION, self._news(records))
            if uses:
                self._put_blobs(contents, sorted(uses))

    def _news(self, records: Sequence[Record]) -> Any:
        """What these records change in the table of sessions, one tuple for each."""
        found: dict[str, tuple[float, int, str]] = {}
        for record in records:
            known = found.get(record.session_id)
            if known is not None and record.at <= known[0] and record.type != "RunStarted":
                continue
            at, runs, root = known or (record.at, 0, "")
            root = root_run_of(record) if record.seq == 1 else root
            found[record.session_id] = (max(at, record.at), runs + (record.type == "RunStarted"), root)
        return [(at, at, runs, root, root, session_id) for session_id, (at, runs, root) in found.items()]

    def _claims(self, session_ids: Iterable[str]) -> dict[str, Writer | None]:
        """Who may write these sessions. StoreError for one that there is not."""
        known = self._holders
        if ids := sorted({*session_ids} - known.keys()):
            if not self._is_sqlite:
                self._lock(ids)  # and look at the claims after that, in a statement of its own
            for session_id in ids:
                row = self._first(_WRITER, (session_id,))
                if row is None:
                    raise store_text.no_session(session_id, self._where)
                known[session_id] = _holder(row)
        return {session_id: known[session_id] for session_id in session_ids}

    def _put_blobs(self, contents: dict[str, bytes], uses: Sequence[tuple[str, str]]) -> None:
        connection = self._connection
        if not self._is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({schema.BLOBS_LOCK})")
        there = {row[0] for row in self._in(sa.select(blobs.c.digest), blobs.c.digest, sorted(contents))}
        for digest in sorted(contents.keys() - there):
            new = self._upsert(blobs).values(digest=digest, content=contents[digest])
            connection.execute(new.on_conflict_do_nothing())
        named = [{"session_id": session_id, "digest": digest} for session_id, digest in uses]
        connection.execute(self._upsert(blob_uses).on_conflict_do_nothing(), named)

    def claim(self, session_id: str, writer: Writer, *, instead_of: str | None = None) -> Writer | None:
        host = store_text.storable(writer.host)
        with self._writing(f"claim of session {session_id!r}"):
            found = self._claims([session_id])[session_id]
            if found is not None and found.token not in (writer.token, instead_of):
                return found
            self._run(_CLAIM, [(session_id, writer.token, host, writer.pid, writer.born_at, writer.since)])
            self._holders[session_id] = writer
            return None

    def release(self, session_id: str, token: str) -> None:
        with self._writing(f"claim of session {session_id!r}"):
            self._run("DELETE FROM writers WHERE session_id = ? AND token = ?", [(session_id, token)])

    def rename(self, session_id: str, title: str) -> None:
        with self._writing(f"title of session {session_id!r}") as connection:
            change = sa.update(sessions).where(sessions.c.session_id == session_id)
            if not connection.execute(change.values(title=store_text.storable(title))).rowcount:
                raise store_text.no_session(session_id, self._where)

    def delete(self, session_ids: Sequence[str]) -> None:
        ids = sorted(set(session_ids))
        for session_id in ids:
            self._damaged.pop(session_id, None)
        if self._is_sqlite:
            with self._writing("deleting") as connection:
                erasing.forget_sessions(connection, ids)
        else:
            self._delete_from_postgres(ids)
        self._erase()

    def _delete_from_postgres(self, ids: Sequence[str]) -> None:
        with self._writing("deleting") as connection:
            self._lock(ids)
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({schema.BLOBS_LOCK})")
            digests = {row[0] for row in self._in(sa.select(blob_uses.c.digest), blob_uses.c.session_id, ids)}
            for table in (events, writers, blob_uses, sessions):
                for some in _pieces(ids):
                    connection.execute(sa.delete(table).where(table.c.session_id.in_(some)))
            in_use = sa.exists().where(blob_uses.c.digest == blobs.c.digest)
            for some in _pieces(sorted(digests)):
                connection.execute(sa.delete(blobs).where(blobs.c.digest.in_(some), ~in_use))

    def _erase(self) -> None:
        """Make what was deleted unreadable also in the files; for rows that were deleted before, too."""
        try:
            if self._is_sqlite:
                left = erasing.erase_waste(self._connection)
                if not erasing.truncate_wal(self._connection, BUSY_TIMEOUT_S):
                    raise StoreError(
                        f"the sessions are deleted, but another process reads {self._where}, so that their text is "
                        "still in its -wal file; end that process and delete again"
                    )
                if left:
                    raise StoreError(
                        f"the sessions are deleted, but the text of {left} records is still in damaged pages of "
                        f"{self._where}; save the rest with `sqlite3 FILE .recover` into a new file, and remove this one"
                    )
            else:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"SET lock_timeout = '{BUSY_TIMEOUT_S:g}s'")
                    for table in (events, sessions, writers, blob_uses, blobs):
                        connection.exec_driver_sql(f"VACUUM (FULL) {table.name}")
                    connection.exec_driver_sql("SET lock_timeout = 0")
        except DBAPIError as error:
            self._roll_back()
            found = failure(error, self._where, "cleaned")
            raise type(found)(f"the sessions are deleted, but their text may still be in the files: {found}") from error

    # Reading

    def read(
        self, *, session_id: str | None = None, run_id: str | None = None, types: Sequence[str] | None = None
    ) -> Iterable[Record]:
        columns = sa.select(*(events.c[name] for name in _COLUMNS))
        if run_id is not None or types is not None:
            return self._filtered(columns, session_id, run_id, types)
        if session_id is not None:
            query = columns.where(events.c.session_id == session_id).order_by(events.c.seq)
            try:
                rows = self._rows(query)
            except _Damaged as error:
                return self._whole(session_id, *self._up_to_damage(session_id, error))
            return self._whole(session_id, rows)
        query = columns.join(sessions, sessions.c.session_id == events.c.session_id).order_by(
            sessions.c.created_at, sessions.c.session_id, events.c.seq
        )
        try:
            rows = self._rows(query)
        except _Damaged:
            return [record for one in self._session_ids() for record in self.read(session_id=one)]
        by_session = groupby(rows, key=lambda row: row[0])
        return [record for one, its_rows in by_session for record in self._whole(one, its_rows)]

    def _filtered(
        self, columns: Any, session_id: str | None, run_id: str | None, types: Sequence[str] | None
    ) -> list[Record]:
        query = columns.join(sessions, sessions.c.session_id == events.c.session_id).order_by(
            sessions.c.created_at, sessions.c.session_id, events.c.seq
        )
        if session_id is not None:
            query = query.where(events.c.session_id == session_id)
        if run_id is not None:
            query = query.where(events.c.run_id == run_id)
        if types is not None:
            query = query.where(events.c.type.in_(types))
        try:
            records = [self._record(row)[0] for row in self._rows(query)]
        except _Damaged:
            records = list(self.read(session_id=session_id))
        return [
            one
            for one in records
            if one is not None and run_id in (None, one.run_id) and (types is None or one.type in types)
        ]

    def _whole(self, session_id: str, rows: Iterable[Any], why: str = "") -> list[Record]:
        """The records of a session up to the first that is not whole. `why` there are no more rows, where that is damage."""
        records: list[Record] = []
        found = why
        for row in rows:
            record, wrong = self._record(row)
            if record is not None and record.seq != len(records) + 1:
                wrong = f"it is missing, the next one is {record.seq}"
            if wrong or record is None:
                found = wrong
                break
            records.append(record)
        self._damaged.pop(session_id, None)
        if found:
            damage = Damage(session_id=session_id, seq=len(records) + 1, found=f"{found}; in {self._where}")
            self._damaged[session_id] = damage
        return records

    def _record(self, row: Any) -> tuple[Record | None, str]:
        """The record of a row, or None, and what is wrong with it."""
        session_id, seq, run_id, step, kind, at, payload, check_sum, version = row
        if not (
            type(seq) is type(step) is type(version) is int
            and type(payload) is type(run_id) is type(kind) is str
            and type(at) is float
        ):
            return None, f"a column has another type: {[type(value).__name__ for value in row]}"
        record = Record(
            session_id, seq, run_id, step, kind, at, payload.encode("utf-8", "replace"), version=version
        )  # fmt: skip
        if check_sum is not None:
            is_whole = store_text.check_sum(record) == check_sum
            return (self._of_store(record), "") if is_whole else (None, "its check sum is another")
        try:
            codec.decode_json(record.payload)
        except (ValueError, RecursionError) as error:
            return None, f"it is no JSON: {str(error)[:120]}"
        return self._of_store(record), ""

    def _of_store(self, record: Record) -> Record:
        """What a newer turncell has marked may be newer in ways that its columns do not tell."""
        return record if self._newer is None else record._replace(version=max(record.version, int(self._newer)))

    def _up_to_damage(self, session_id: str, why: Exception) -> tuple[list[Any], str]:
        """The rows of a session before the first that its page hides, and what the database says of that one."""
        query = sa.select(*(events.c[name] for name in _COLUMNS)).where(events.c.session_id == session_id)
        query = query.order_by(events.c.seq)
        rows: list[Any] = []
        count = _MANY
        while True:
            try:
                # By the index: a walk through the whole table would come across the damaged page whatever is asked.
                some = self._rows(query.where(events.c.seq > len(rows)).limit(count), by_index=True)
            except _Damaged as error:
                if count == 1:
                    return rows, str(error)
                count = max(1, count // 8)
                continue
            rows += some
            if not some:
                return rows, str(why)  # the page of what follows cannot even be looked for
            if some[-1].seq != len(rows):
                return rows, ""  # a number is missing, which is found by whoever counts

    def damage(self, session_id: str) -> Damage | None:
        return self._damaged.get(session_id)

    def sessions(self) -> list[SessionInfo]:
        names = ("session_id", "title", "project", "created_at")
        query = sa.select(
            *(sessions.c[name] for name in names),
            sa.func.coalesce(sessions.c.updated_at, sessions.c.created_at).label("updated_at"),
            sessions.c.runs,
            sessions.c.root_run_id,
        ).order_by(sa.desc("updated_at"), sessions.c.created_at.desc(), sessions.c.session_id.desc())
        return [SessionInfo(*row) for row in self._rows(query)]

    def _session_ids(self) -> list[str]:
        query = sa.select(sessions.c.session_id).order_by(sessions.c.created_at, sessions.c.session_id)
        return [row[0] for row in self._rows(query)]

    def blob(self, digest: str) -> bytes:
        if not store_text.is_digest(digest):
            raise StoreError(f"a blob is named by its SHA-256 in hex; found {digest!r}")
        rows = self._rows(sa.select(blobs.c.content).where(blobs.c.digest == digest))
        if not rows:
            raise StoreError(f"the history at {self._where} has no blob {digest!r}; was its session deleted?")
        data = bytes(rows[0][0])
        store_text.check_blob(digest, data, self._where)
        return data

    def writer(self, session_id: str) -> Writer | None:
        with self._reading():
            row = self._first(_WRITER, (session_id,))
        return None if row is None else _holder(row)

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    # How

    def _upsert(self, table: sa.Table) -> Any:
        return sqlite.insert(table) if self._is_sqlite else postgresql.insert(table)

    def _in(self, query: Any, column: Any, values: Sequence[str]) -> Iterator[Any]:
        for some in _pieces(values):
            yield from self._connection.execute(query.where(column.in_(some)))

    def _lock(self, session_ids: Sequence[str]) -> list[str]:
        """Those that exist, in PostgreSQL locked until the transaction ends; in order, so that nobody waits in a circle."""
        query = sa.select(sessions.c.session_id).order_by(sessions.c.session_id)
        return [row[0] for row in self._in(query.with_for_update(), sessions.c.session_id, session_ids)]

    def _run(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """The same for each row, within a transaction."""
        if self._is_sqlite:
            self._directly("executemany", statement, rows)
        else:
            self._connection.exec_driver_sql(statement.replace("?", "%s"), list(rows))

    def _first(self, statement: str, values: tuple[Any, ...]) -> Any:
        if self._is_sqlite:
            return self._directly("execute", statement, values).fetchone()
        return self._connection.exec_driver_sql(statement.replace("?", "%s"), values).first()

    def _directly(self, method: str, statement: str, values: Any = ()) -> Any:
        """By SQLite's driver itself, with the errors of SQLAlchemy: its way through a statement costs more than SQLite's."""
        driver: Any = self._connection.connection.dbapi_connection
        try:
            return getattr(driver, method)(statement, values)
        except sqlite3.Error as error:
            raise DBAPIError.instance(statement, None, error, sqlite3.Error, dialect=self._engine.dialect) from error

    def _rows(self, query: Any, *, by_index: bool = False) -> Sequence[Any]:
        try:
            with self._reading():
                if by_index and not self._is_sqlite:
                    self._connection.exec_driver_sql(
                        "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
                    )
                return self._connection.execute(query).all()
        except _NoText:  # from here on, what is no UTF-8 is read as something else, and its check sum says so
            driver: Any = self._connection.connection.dbapi_connection
            driver.text_factory = lambda data: data.decode("utf-8", "replace")
            return self._rows(query)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, UnicodeEncodeError) as error:
            found = failure(error, self._where, "read")
            if schema.is_no_text(error):
                raise _NoText(str(found)) from error
            raise (_Damaged(str(found)) if schema.is_corrupt(error) else found) from error
        finally:
            self._roll_back()

    @contextmanager
    def _writing(self, what: str, *, is_durable: bool = False) -> Iterator[sa.Connection]:
        """One transaction, alone from its begin; rolled back by any exception. Within `together` a part of that one."""
        if self._is_together:
            try:
                yield self._connection
            except (DBAPIError, UnicodeEncodeError) as error:
                raise failure(error, self._where, "written", what) from error
            return
        if self._newer is not None:
            raise StoreError(
                f"the history at {self._where} has schema version {self._newer}, this turncell writes up to "
                f"{SCHEMA_VERSION}, so that it can only be read; upgrade turncell or set TURNCELL_STORE to another place"
            )
        self._holders.clear()
        try:
            if self._is_sqlite:
                if is_durable:
                    self._directly("execute", "PRAGMA synchronous=FULL")
                self._directly("execute", "BEGIN IMMEDIATE")
            else:
                self._connection.exec_driver_sql(f"SET LOCAL synchronous_commit = {'on' if is_durable else 'off'}")
            if not self._is_marked:
                schema.mark(self._connection)
            yield self._connection
            self._commit()
            self._is_marked = True
        except (DBAPIError, UnicodeEncodeError) as error:
            self._roll_back()
            raise failure(error, self._where, "written", what) from error
        except BaseException:
            self._roll_back()
            raise
        finally:
            if is_durable and self._is_sqlite:
                with suppress(DBAPIError):  # then the next ones are durable, too
                    self._directly("execute", "PRAGMA synchronous=NORMAL")

    def _commit(self) -> None:
        if self._connection.in_transaction():  # as SQLAlchemy sees it: a statement has gone through it
            self._connection.commit()
        else:
            self._directly("execute", "COMMIT")

    def _roll_back(self) -> None:
        try:
            self._connection.rollback()
            if self._is_sqlite:
                self._connection.connection.rollback()  # what SQLAlchemy does not know of
        except DBAPIError:  # the server has gone, and the transaction with it; the next use connects anew
            self._connection.invalidate()


class _Damaged(StoreError):
    """A page of the file cannot be read; other sessions may be well."""


class _NoText(StoreError):
    """The bytes of a text are no UTF-8."""


def _holder(row: Any) -> Writer | None:
    token, host, pid, born_at, since = row
    return None if token is None else Writer(token=token, host=host, pid=pid, born_at=born_at, since=since)


def _pieces(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[at : at + _MANY] for at in range(0, len(values), _MANY))
