"""Journals in a SQL database, on SQLAlchemy Core; SQLite by default: one file, several processes at once.

SQLite runs in WAL mode with `synchronous=NORMAL`: a commit survives the death of the process and costs no fsync. A
durable append switches to FULL for its one transaction, whose fsync covers all commits before it.
`(session_id, seq)` is the primary key: two writers of one session collide instead of interleaving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from turncell.core.events import SCHEMA_VERSION
from turncell.errors import StoreError
from turncell.runtime.ports import Record, SessionInfo

BUSY_TIMEOUT_S = 10.0

metadata = sa.MetaData()
meta = sa.Table(
    "meta", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.session_id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
_COLUMNS = ("session_id", "seq", "run_id", "step", "type", "at", "payload")


class SQLStore:
    """Fulfils `runtime.ports.Store`. Use it from the thread that made it."""

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self._engine = engine
        self._where = where
        # Compiled once, for the driver itself: SQLAlchemy's way through a statement costs more than SQLite's.
        self._insert = sa.insert(events).compile(dialect=engine.dialect)
        try:
            self._connection = engine.connect()
            self._prepare()
        except DBAPIError as error:
            raise StoreError(
                f"the history at {where} cannot be opened: {error.orig}. Is the folder writable?"
            ) from error

    @classmethod
    def sqlite(cls, path: Path | str) -> SQLStore:
        """Open or make the SQLite file at `path`; ":memory:" keeps everything in this process."""
        if str(path) != ":memory:":
            path = Path(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"the folder {path.parent} for the history cannot be made: {error.strerror}"
                ) from error
        engine = sa.create_engine(
            f"sqlite:///{path}",
            poolclass=sa.StaticPool,
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        return cls(engine, str(path))

    def _prepare(self) -> None:
        metadata.create_all(self._connection)
        found = self._connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
        if found is None:
            self._connection.execute(sa.insert(meta).values(key="schema_version", value=str(SCHEMA_VERSION)))
        elif int(found) > SCHEMA_VERSION:
            raise StoreError(
                f"the history at {self._where} has schema version {found}, this turncell reads up to {SCHEMA_VERSION}; "
                "upgrade turncell or set TURNCELL_STORE to another file"
            )
        self._connection.commit()

    def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
        values = {"session_id": session_id, "title": title, "project": project, "created_at": at}
        self._write(lambda: self._connection.execute(sa.insert(sessions), [values]), f"session {session_id!r}")

    def append(self, records: Sequence[Record], *, durable: bool) -> None:
        rows: list[Any] = [
            (r.session_id, r.seq, r.run_id, r.step, r.type, r.at, r.payload.decode("utf-8")) for r in records
        ]
        if not self._insert.positional:
            rows = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        is_sqlite = durable and self._engine.dialect.name == "sqlite"
        if is_sqlite:
            self._pragma("synchronous=FULL")
        try:
            first = f"session {records[0].session_id!r}, from record {records[0].seq}"
            self._write(lambda: self._connection.exec_driver_sql(str(self._insert), rows), first)
        finally:
            if is_sqlite:
                self._pragma("synchronous=NORMAL")

    def read(
        self, *, session_id: str | None = None, run_id: str | None = None, types: Sequence[str] | None = None
    ) -> Iterable[Record]:
        query = sa.select(*(events.c[name] for name in _COLUMNS))
        query = query.join(sessions).order_by(sessions.c.created_at, sessions.c.session_id, events.c.seq)
        if session_id is not None:
            query = query.where(events.c.session_id == session_id)
        if run_id is not None:
            query = query.where(events.c.run_id == run_id)
        if types is not None:
            query = query.where(events.c.type.in_(types))
        return list(self._rows(query))

    def _rows(self, query: Any) -> Iterator[Record]:
        try:
            for row in self._connection.execute(query):
                yield Record(row[0], row[1], row[2], row[3], row[4], row[5], row[6].encode("utf-8"))
        except DBAPIError as error:
            raise StoreError(f"the history at {self._where} cannot be read: {error.orig}") from error
        finally:
            self._connection.rollback()

    def sessions(self) -> list[SessionInfo]:
        query = (
            sa.select(
                sessions,
                sa.func.coalesce(sa.func.max(events.c.at), sessions.c.created_at).label("updated_at"),
                sa.func.count(sa.distinct(events.c.run_id)).label("runs"),
            )
            .outerjoin(events, events.c.session_id == sessions.c.session_id)
            .group_by(sessions.c.session_id)
            .order_by(sa.desc("updated_at"))
        )
        try:
            return [
                SessionInfo(r.session_id, r.title, r.project, r.created_at, r.updated_at, r.runs)
                for r in self._connection.execute(query)
            ]
        finally:
            self._connection.rollback()

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _pragma(self, text: str) -> None:
        self._connection.exec_driver_sql(f"PRAGMA {text}")
        self._connection.rollback()

    def _write(self, execute: Callable[[], Any], first: str) -> None:
        try:
            execute()
            self._connection.commit()
        except IntegrityError as error:
            self._connection.rollback()
            if "FOREIGN KEY" in str(error.orig):
                raise StoreError(
                    f"the history at {self._where} has no such session ({first}); was it deleted?"
                ) from error
            raise StoreError(
                f"the history at {self._where} already has these records ({first}): another process is writing this session"
            ) from error
        except DBAPIError as error:
            self._connection.rollback()
            raise StoreError(f"the history at {self._where} cannot be written: {error.orig}") from error
