"""Erasing in SQLite, so that nothing of a deleted text is left in the file, and nobody else waits for long.

`secure_delete` overwrites what is deleted, but where rows are moved to other pages copies of them stay in the gaps of the
old ones, and only a rebuilt file (VACUUM) would be rid of them: 85 s for 4.5 GB, in which nobody can write. So texts never
move. They are in tables whose rows are only ever added at the end: a full page there gets an empty neighbour, and keeps its
rows. And they are not deleted but made empty, which happens in the page where they are, and frees the pages of long ones.

An empty row takes 20 bytes. Deleting it could make SQLite merge its page with the next ones, and move rows that live. So
empty rows are deleted only in the middle of many of them, MARGIN_ROWS away from what lives: a merge takes three pages, and
a page holds up to 350 of them. What is freed is reused; the file does not become smaller.

The table of sessions is the exception: its rows change, and move. It is small, and written anew as a whole.

All of this is done in transactions of STEP_S, with a pause after each, in which others get their turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from turncell.adapters import sql_store_schema as schema

MARGIN_ROWS = 1200
STEP_S = 0.02
PAUSE_S = 0.04
"""Who waits for SQLite's lock sleeps up to 0.1 s between two tries: the pauses must be most of the time."""

_EMPTY = {
    "events": "session_id = '', seq = rowid, run_id = '', step = 0, type = '', at = 0.0, payload = '', check_sum = NULL, version = 1",
    "blobs": "digest = '~' || rowid, content = x''",
}
_IS_EMPTY = {"events": "session_id = ''", "blobs": "digest < '~~' AND digest >= '~'"}
_DOOMED = {
    "events": "session_id > '' AND session_id NOT IN (SELECT session_id FROM sessions)",
    "blobs": "digest < '~' AND digest NOT IN (SELECT digest FROM blob_uses)",
}
"""What no session has any more; also what an erasing that was interrupted has left."""


def forget_sessions(connection: sa.Connection, session_ids: Sequence[str]) -> None:
    """Within the caller's transaction: from here on they are gone for everybody, and their texts are waste."""
    connection.exec_driver_sql("CREATE TEMP TABLE doomed (session_id TEXT PRIMARY KEY)")
    for one in session_ids:
        connection.exec_driver_sql("INSERT INTO doomed VALUES (?)", (one,))
    gone = "session_id IN (SELECT session_id FROM temp.doomed)"
    for table in ("writers", "blob_uses"):
        connection.exec_driver_sql(f"DELETE FROM {table} WHERE {gone}")
    # Without a WHERE all pages of the table are cleared, gaps included.
    connection.exec_driver_sql(f"CREATE TEMP TABLE kept AS SELECT * FROM sessions WHERE NOT {gone} ORDER BY rowid")
    connection.exec_driver_sql("DELETE FROM sessions")
    connection.exec_driver_sql("INSERT INTO sessions SELECT * FROM temp.kept")
    for table in ("kept", "doomed"):
        connection.exec_driver_sql(f"DROP TABLE temp.{table}")


def erase_waste(connection: sa.Connection) -> int:
    """Make empty what no session has any more. Returns how many rows a damaged page keeps."""
    left = 0
    for table in ("events", "blobs"):
        rows = _rowids(connection, table, _DOOMED[table])
        left += _in_steps(connection, f"UPDATE {table} SET {_EMPTY[table]} WHERE rowid = ?", rows)
        if rows:
            middle = [row for run in _runs(connection, table) for row in run[MARGIN_ROWS:-MARGIN_ROWS]]
            _in_steps(connection, f"DELETE FROM {table} WHERE rowid = ?", middle)
    return left


def _rowids(connection: sa.Connection, table: str, where: str) -> list[int]:
    # The key's index has the row ids: a damaged page of the table must not matter, and so it must not be asked to sort.
    query = f"SELECT rowid FROM {table} INDEXED BY sqlite_autoindex_{table}_1 WHERE {where}"
    found = sorted(row[0] for row in connection.exec_driver_sql(query))
    connection.rollback()
    return found


def _runs(connection: sa.Connection, table: str) -> Iterator[list[int]]:
    """Empty rows with nothing else between them."""
    run: list[int] = []
    for row in _rowids(connection, table, _IS_EMPTY[table]):
        if run and row != run[-1] + 1 and _is_any_between(connection, table, run[-1], row):
            yield run
            run = []
        run.append(row)
    yield run


def _is_any_between(connection: sa.Connection, table: str, first: int, last: int) -> bool:
    query = f"SELECT 1 FROM {table} WHERE rowid > ? AND rowid < ? LIMIT 1"
    try:
        return connection.exec_driver_sql(query, (first, last)).first() is not None
    except DBAPIError as error:
        if not schema.is_corrupt(error):
            raise
        return True
    finally:
        connection.rollback()


def _in_steps(connection: sa.Connection, statement: str, rows: Sequence[int]) -> int:
    """Many rows in a transaction. Returns how many could not be reached."""
    left, at = 0, 0
    while at < len(rows):
        end = at
        try:
            with _step(connection) as is_over:
                while end < len(rows) and not is_over():
                    connection.exec_driver_sql(statement, (rows[end],))
                    end += 1
        except DBAPIError as error:
            if not schema.is_corrupt(error):
                raise
            # Such an error may take the whole transaction with it.
            end = min(end + 1, len(rows))
            left += sum(not _is_done(connection, statement, row) for row in rows[at:end])
        at = end
        time.sleep(PAUSE_S)
    return left


def _is_done(connection: sa.Connection, statement: str, row: int) -> bool:
    try:
        with _step(connection):
            connection.exec_driver_sql(statement, (row,))
    except DBAPIError as error:
        if not schema.is_corrupt(error):
            raise
        return False
    return True


@contextmanager
def _step(connection: sa.Connection) -> Iterator[Callable[[], bool]]:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    until = time.monotonic() + STEP_S
    try:
        yield lambda: time.monotonic() > until
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def truncate_wal(connection: sa.Connection, patience_s: float) -> bool:
    """Whether the WAL is empty now; not where somebody reads what is in it all the while."""
    until = time.monotonic() + patience_s

    def pragma(text: str) -> bool:
        row = connection.exec_driver_sql(f"PRAGMA {text}").first()
        connection.rollback()
        return row is not None and not row[0]

    # Most of it is copied without a lock that others need; the rest keeps writers out, so it must not wait for readers.
    pragma("wal_checkpoint(PASSIVE)")
    timeout_ms = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    pragma("busy_timeout=100")
    try:
        while not pragma("wal_checkpoint(TRUNCATE)"):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True
    finally:
        pragma(f"busy_timeout={timeout_ms}")
