"""The tables of the SQL store, how a database of it is opened, and what its errors mean."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from turncell.core.events import SCHEMA_VERSION
from turncell.errors import SessionBusy, StoreBusy, StoreError
from turncell.runtime.ports import Record, root_run_of
from turncell.runtime.private_files import make_folder, opener
from turncell.settings import without_secrets

BUSY_TIMEOUT_S = 10.0
OPENING_LOCK = 0x7475726E
"""The key of PostgreSQL's advisory lock for making the tables."""
BLOBS_LOCK = 0x7475726F
"""Shared by those who add a use of a blob, held alone by who erases: a blob must not go while a use of it arrives."""

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
    # What a list shows, kept here by each append: a list must not cost a walk through all events.
    sa.Column("updated_at", sa.Float),
    sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
    sa.Column("root_run_id", sa.Text, nullable=False, server_default=""),
)
events = sa.Table(
    "events",
    metadata,
    # No foreign key: in SQLite what was erased leaves empty rows (see sql_store_erasing), and `append` looks for the session.
    sa.Column("session_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    # See store_text.check_sum. Without one: written before there were any.
    sa.Column("check_sum", sa.BigInteger),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),
)
ADDED = (
    ("events", "check_sum", "BIGINT"),
    ("events", "version", "INTEGER DEFAULT 1 NOT NULL"),
    ("sessions", "updated_at", "FLOAT"),
    ("sessions", "runs", "INTEGER DEFAULT 0 NOT NULL"),
    ("sessions", "root_run_id", "TEXT DEFAULT '' NOT NULL"),
)
"""The columns that tables of before may not have."""
writers = sa.Table(
    "writers",
    metadata,
    sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.session_id"), primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("born_at", sa.Float, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
# No foreign key to blobs: a payload may name one that nobody has brought.
blob_uses = sa.Table(
    "blob_uses",
    metadata,
    sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.session_id"), primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True, index=True),
    sqlite_with_rowid=False,
)


def sqlite_engine(path: Path | str) -> sa.Engine:
    """An engine of one connection, in the driver's autocommit mode: transactions are begun by name (see SQLStore)."""
    if str(path) != ":memory:":
        path = Path(path)
        try:
            make_folder(path.parent)
        except OSError as error:
            raise StoreError(f"the folder {path.parent} for the history cannot be made: {error.strerror}") from error
        if path.is_dir():
            raise StoreError(
                f"{path} is a folder, and the history is one SQLite file: name a file in it, or write "
                f"'markdown:{path}' for a folder of Markdown documents"
            )
        with suppress(OSError), open(path, "xb", opener=opener):  # where that fails, SQLite says why
            pass
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.StaticPool,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None},
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        _use_wal(cursor)
        for pragma in ("synchronous=NORMAL", "secure_delete=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _use_wal(cursor: Any) -> None:
    """SQLite does not wait for others where it changes the journal mode of a new file: two who make it at once collide."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") and time.monotonic() < until:
                time.sleep(0.01)
                continue
            raise
        return


def postgres_engine(url: str) -> sa.Engine:
    """An engine for `postgresql://user:password@host:port/database`, through psycopg 3."""
    shown = without_secrets(url)
    try:
        parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(
            parsed,
            # Whoever has waited for the lock of a session must see the claim that was made meanwhile.
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": int(BUSY_TIMEOUT_S)},
        )
    except (ArgumentError, ValueError):  # its text may quote the URL, and with it the password
        raise StoreError(f"the history's address {shown!r} cannot be read; use postgresql://user:password@host:5432/database") from None  # fmt: skip
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            f"the history at {shown} needs psycopg, which is not installed ({error}); pip install 'turncell[postgres]'"
        ) from error
    return engine


def prepare(connection: sa.Connection, where: str) -> str | None:
    """Make the tables that are missing. Returns the version of a newer turncell's database, which is left as it is."""
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite and _is_ready(connection):
        return None
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({OPENING_LOCK})")
    there = set(sa.inspect(connection).get_table_names())
    found: str | None = None
    if "meta" in there:
        found = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
    elif there and is_sqlite:  # in PostgreSQL, sharing a database with others is usual
        raise StoreError(
            f"the file {where} is a database of another program (tables {', '.join(sorted(there))}); "
            "set TURNCELL_STORE to another file"
        )
    if found is not None and not found.isdigit():
        raise StoreError(f"the history at {where} has schema version {found!r}, which is no number; it is damaged")
    if found is not None and int(found) > SCHEMA_VERSION:
        connection.rollback()
        return found
    columns = _columns(connection) if "events" in there else {(table, name) for table, name, _ in ADDED}
    for table, name, kind in ADDED:
        if (table, name) not in columns:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    metadata.create_all(connection)
    if ("sessions", "root_run_id") not in columns:
        _fill_sessions(connection)
    if found is None:
        connection.execute(sa.insert(meta).values(key="schema_version", value=str(SCHEMA_VERSION)))
    connection.commit()
    if is_sqlite and not _has_rowids(connection):
        _give_rowids(connection)
    return None


def mark(connection: sa.Connection) -> None:
    """Within the caller's transaction: from here on an older turncell is refused."""
    change = sa.update(meta).where(meta.c.key == "schema_version", meta.c.value != str(SCHEMA_VERSION))
    connection.execute(change.values(value=str(SCHEMA_VERSION)))


def _columns(connection: sa.Connection) -> set[tuple[str, str]]:
    seen = sa.inspect(connection)
    return {(table, column["name"]) for table in ("events", "sessions") for column in seen.get_columns(table)}


def _fill_sessions(connection: sa.Connection) -> None:
    of_session = "FROM events WHERE events.session_id = sessions.session_id"
    with suppress(DBAPIError), connection.begin_nested():  # on a damaged page: then lists know less
        connection.exec_driver_sql(
            f"UPDATE sessions SET updated_at = (SELECT max(at) {of_session}), "
            f"runs = (SELECT count(*) {of_session} AND type = 'RunStarted')"
        )
        first = sa.select(
            *(events.c[name] for name in ("session_id", "seq", "run_id", "step", "type", "at", "payload"))
        )
        for row in connection.execute(first.where(events.c.seq == 1, events.c.type == "RunStarted")).all():
            payload = str(row.payload).encode("utf-8", "replace")
            if root := root_run_of(Record(row.session_id, 1, row.run_id, row.step, row.type, row.at, payload)):
                change = sa.update(sessions).where(sessions.c.session_id == row.session_id)
                connection.execute(change.values(root_run_id=root))


def _has_rowids(connection: sa.Connection) -> bool:
    found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'events'").scalar()
    connection.rollback()
    return "WITHOUT ROWID" not in str(found).upper()


def _give_rowids(connection: sa.Connection) -> None:
    """Tables of before had the texts in the order of their keys, so that they moved (see sql_store_erasing)."""
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        names = ", ".join(column.name for column in events.columns)
        connection.exec_driver_sql("DROP INDEX IF EXISTS ix_events_run_id")
        connection.exec_driver_sql("ALTER TABLE events RENAME TO events_of_before")
        metadata.create_all(connection)
        connection.exec_driver_sql(
            f"INSERT INTO events ({names}) SELECT {names} FROM events_of_before ORDER BY session_id, seq"
        )
        connection.exec_driver_sql("DROP TABLE events_of_before")
        connection.commit()
    except DBAPIError as error:
        connection.rollback()
        if not is_corrupt(error):
            raise


def _is_ready(connection: sa.Connection) -> bool:
    """Whether nothing is to be made: found without the lock, which a process stopped in its transaction may hold for long."""
    try:
        if not set(metadata.tables) <= set(sa.inspect(connection).get_table_names()):
            return False
        if not {(table, name) for table, name, _ in ADDED} <= _columns(connection) or not _has_rowids(connection):
            return False
        found = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
        return found is not None and found.isdigit() and int(found) <= SCHEMA_VERSION
    finally:
        connection.rollback()


_SQLITE_ADVICE = {
    "SQLITE_BUSY": f"another program has locked it for {BUSY_TIMEOUT_S:g} s; end that one or try again",
    "SQLITE_LOCKED": "it is in use; try again",
    "SQLITE_FULL": "make room on the disk",
    "SQLITE_READONLY": "the file or its folder may not be written by this user; change that or set TURNCELL_STORE",
    "SQLITE_CANTOPEN": "is the folder there and writable by this user?",
    "SQLITE_NOTADB": "it is something else; set TURNCELL_STORE to another file",
    "SQLITE_CORRUPT": "part of the file is damaged; what is not can still be read, `sqlite3 FILE .recover` saves it",
    "SQLITE_IOERR": "the disk failed; is there room, and is it still there?",
    "SQLITE_PERM": "this user may not use the file",
}

_POSTGRES_BUSY = ("55P03", "40001", "40P01")
"""lock_not_available, serialization_failure, deadlock_detected"""


def failure(error: Exception, where: str, doing: str, what: str = "") -> StoreError:
    """What a database's error means, in words. `doing` is "opened", "read" or "written"."""
    what = f" ({what})" if what else ""
    original = getattr(error, "orig", None) or error
    words = str(original).strip().split("\n")[0]
    if is_integrity(error):
        if _is_duplicate_record(original):
            return SessionBusy(
                f"the history at {where} already has these records{what}: another process is writing this session; "
                "load it again to go on with it"
            )
        return StoreError(f"the history at {where} refuses this{what}: {words}")
    if isinstance(error, UnicodeEncodeError):
        return StoreError(f"the history at {where} cannot hold this text{what}: {error}")
    code = getattr(original, "sqlite_errorname", "")
    advice = next((words for name, words in _SQLITE_ADVICE.items() if code.startswith(name)), None)
    if advice is None and isinstance(error, sa.exc.OperationalError) and not code:
        advice = "is the server there, and may this user in?"
    is_busy = code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or getattr(original, "sqlstate", None) in _POSTGRES_BUSY
    kind = StoreBusy if is_busy else StoreError
    return kind(f"the history at {where} cannot be {doing}{what}: {words}{'; ' + advice if advice else ''}")


def is_integrity(error: Exception) -> bool:
    return isinstance(error, IntegrityError)


def is_corrupt(error: Exception) -> bool:
    original = getattr(error, "orig", None)
    if getattr(original, "sqlstate", None) in ("XX001", "XX002"):
        return True
    return isinstance(error, DBAPIError) and getattr(original, "sqlite_errorname", "").startswith("SQLITE_CORRUPT")


def is_no_text(error: Exception) -> bool:
    """SQLite keeps whatever bytes a text has; Python's driver then fails for all rows of the query."""
    return isinstance(error, sa.exc.OperationalError) and "Could not decode to UTF-8" in str(error.orig)


def _is_duplicate_record(original: Any) -> bool:
    if getattr(original, "sqlstate", None) == "23505":
        return getattr(original.diag, "table_name", None) == events.name
    name = getattr(original, "sqlite_errorname", "")
    return name in ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE") and f"{events.name}.seq" in str(
        original
    )
