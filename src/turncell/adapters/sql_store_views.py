"""Views of the SQLite store for whoever opens the file with other tools: `runs`, `steps` and `calls`.

They say less than the tables of `turncell.frames`, which fold the events: what one event or a plain sum over events tells.
Columns have the names they have there. The views are made when the file is opened, and made anew where this turncell would
make them otherwise; what a file cannot take (it is read-only, another process writes) is left for the next time. Not in
PostgreSQL: names as plain as these may be somebody else's there.

DuckDB reads a view by writing its SQL anew, so they are in words that survive that: `count(*)` would come back as
`count_star()`, which SQLite does not have.
"""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from turncell.adapters.sql_store_schema import BUSY_TIMEOUT_S


def _field(table: str, name: str) -> str:
    """A field of an event, which may stand among the blobs.

    By `json_extract`, and not by `->>`: an older SQLite could not open a file at all whose views it cannot parse.
    """
    value, digest = f"json_extract({table}.payload, '$.{name}')", f"json_extract({table}.payload, '$.{name}.\"$blob\"')"
    of_blob = f"(SELECT json_extract(CAST(content AS TEXT), '$') FROM blobs WHERE digest = {digest})"
    return f"CASE WHEN {digest} IS NULL THEN {value} ELSE {of_blob} END"


def _of(kind: str, field: str, where: str) -> str:
    """A field of the one event of a kind."""
    return f"(SELECT json_extract(e.payload, '$.{field}') FROM events e WHERE e.type = '{kind}' AND {where} LIMIT 1)"


def _time(seconds: str) -> str:
    return f"strftime('%Y-%m-%d %H:%M:%f', {seconds}, 'unixepoch')"


_SAME_RUN = "e.run_id = r.run_id"
_SAME_CALL = "e.run_id = p.run_id AND json_extract(e.payload, '$.call_id') = json_extract(p.payload, '$.call_id')"
_ENDS = "('StepFinished', 'StepFailed')"
_TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_PAID = f"e.type IN ('StepFinished', 'StepFailed') AND {_SAME_RUN}"
_SUMS = ", ".join(
    f"(SELECT sum(json_extract(e.payload, '$.usage.{name}')) FROM events e WHERE {_PAID}) AS {name}" for name in _TOKENS
)
_MESSAGE = _field("e", "message")
# The first message of a run is its prompt.
_PROMPT = (
    f"(SELECT group_concat(json_extract(part.value, '$.text'), '') FROM events e, json_each({_MESSAGE}, '$.parts') part "
    "WHERE e.type = 'MessageAdded' AND json_extract(part.value, '$.type') = 'text' AND e.session_id = r.session_id "
    "AND e.seq = (SELECT min(m.seq) FROM events m WHERE m.run_id = r.run_id AND m.type = 'MessageAdded'))"
)

VIEWS = {
    "runs": (
        "SELECT r.run_id, r.session_id, s.title, s.project, json_extract(r.payload, '$.model') AS model, "
        f"json_extract(r.payload, '$.agent') AS agent, coalesce({_of('RunEnded', 'status', _SAME_RUN)}, 'open') AS status, "
        f"{_PROMPT} AS prompt, "
        f"(SELECT count(e.seq) FROM events e WHERE e.type = 'StepStarted' AND {_SAME_RUN}) AS steps, "
        f"(SELECT count(e.seq) FROM events e WHERE e.type = 'CallProposed' AND {_SAME_RUN}) AS calls, {_SUMS}, "
        "(SELECT CASE WHEN count(e.seq) = count(json_extract(e.payload, '$.cost_usd')) THEN sum(json_extract(e.payload, '$.cost_usd')) END "
        f"FROM events e WHERE {_PAID}) AS cost_usd, "
        f"{_time('r.at')} AS started_at, "
        f"(SELECT {_time('e.at')} FROM events e WHERE e.type = 'RunEnded' AND {_SAME_RUN}) AS ended_at, "
        f"(SELECT e.at - r.at FROM events e WHERE e.type = 'RunEnded' AND {_SAME_RUN} "
        "AND NOT coalesce(json_extract(r.payload, '$.is_imported'), 0)) AS duration_s, "
        f"{_of('RunEnded', 'message', _SAME_RUN)} AS error, json_extract(r.payload, '$.parent_run_id') AS parent_run_id, "
        "json_extract(r.payload, '$.copy_of') AS copy_of "
        "FROM events r JOIN sessions s ON s.session_id = r.session_id WHERE r.type = 'RunStarted'"
    ),
    "steps": (
        "SELECT b.run_id, b.session_id, b.step, json_extract(b.payload, '$.model') AS model, "
        "json_extract(e.payload, '$.answered_by') AS answered_by, json_extract(e.payload, '$.finish_reason') AS finish_reason, "
        + "".join(f"json_extract(e.payload, '$.usage.{name}') AS {name}, " for name in _TOKENS)
        + "json_extract(e.payload, '$.cost_usd') AS cost_usd, coalesce(json_extract(e.payload, '$.cost_basis'), 'none') AS cost_basis, "
        f"{_time('b.at')} AS started_at, json_extract(e.payload, '$.duration_s') AS duration_s, "
        "json_extract(e.payload, '$.first_token_s') AS first_token_s, json_extract(e.payload, '$.kind') AS error_kind "
        "FROM events b LEFT JOIN events e ON e.run_id = b.run_id AND e.step = b.step "
        f"AND e.type IN {_ENDS} WHERE b.type = 'StepStarted'"
    ),
    "calls": (
        "SELECT json_extract(p.payload, '$.call_id') AS call_id, p.run_id, p.session_id, p.step, json_extract(p.payload, '$.name') AS name, "
        "json_extract(p.payload, '$.effect') AS effect, "
        f"coalesce({_of('CallFinished', 'status', _SAME_CALL)}, 'open') AS status, "
        f"{_field('p', 'arguments')} AS arguments, {_of('CallJudged', 'verdict', _SAME_CALL)} AS verdict, "
        f"{_of('CallJudged', 'by', _SAME_CALL)} AS judged_by, {_of('RequestAnswered', 'answer', _SAME_CALL)} AS answer, "
        f"{_of('RequestAnswered', 'by', _SAME_CALL)} AS answered_by, "
        f"(SELECT {_field('e', 'content')} FROM events e WHERE e.type = 'CallFinished' AND {_SAME_CALL} LIMIT 1) AS content, "
        f"{_time('p.at')} AS at, "
        f"{_of('CallFinished', 'duration_s', _SAME_CALL)} AS duration_s "
        "FROM events p WHERE p.type = 'CallProposed'"
    ),
}  # fmt: skip


def make_views(connection: sa.Connection) -> None:
    """Make those that are missing or older. Nothing happens to a file that has them, and no failure is one of opening."""
    if connection.dialect.name != "sqlite":
        return
    wanted = {name: f"CREATE VIEW {name} AS {query}" for name, query in VIEWS.items()}
    try:
        rows = connection.exec_driver_sql(
            f"SELECT name, type, sql FROM sqlite_master WHERE name IN ({', '.join(map(repr, VIEWS))})"
        ).all()
        found = {name: (kind, text) for name, kind, text in rows}
        connection.rollback()
        if {name: ("view", text) for name, text in wanted.items()} == found:
            return
        connection.exec_driver_sql("PRAGMA busy_timeout=0")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        for name, text in wanted.items():
            kind, old = found.get(name, ("view", None))
            if kind != "view" or old == text:
                continue
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
            connection.exec_driver_sql(text)
        connection.commit()
    except DBAPIError:
        with suppress(DBAPIError):
            connection.rollback()
    finally:
        with suppress(DBAPIError):
            connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000:.0f}")
            connection.rollback()
