"""A damaged record costs what comes after it in its session, and nothing else; whoever looks is told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.adapters.conftest import Make
from tests.adapters.postgres_server import PostgresServer
from turncell import Agent, Session, StoreError, runs_df, tool
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.scripted_model import ScriptedModel, call, say
from turncell.adapters.sql_store import SQLStore
from turncell.core import codec
from turncell.core.events import RunStarted
from turncell.runtime import portable
from turncell.runtime.journal import Journal, read_whole
from turncell.runtime.ports import Record
from turncell.testing import check_damage

pytestmark = pytest.mark.feature("C7", "C8")

Spoil = Callable[[str, int], None]


def sql_of(where: str, statement: str, *values: Any) -> None:
    """Behind the store's back; `?` stands for a value."""
    if where.startswith("postgresql:"):
        with psycopg.connect(where) as connection:
            connection.execute(statement.replace("?", "%s"), values)
        return
    with closing(sqlite3.connect(where, isolation_level=None)) as connection:
        connection.execute(statement, values)


@pytest.fixture
def where(make: Make, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The place of the store that `make` opens."""
    kind = request.node.callspec.params["make"]
    if kind == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return str(tmp_path / ("store.sqlite" if kind == "sqlite" else "sessions"))


def document(where: str, session_id: str) -> Path:
    return next(Path(where).rglob(f"{session_id}.md"))


@pytest.fixture
def spoil(where: str) -> Spoil:
    """Changes one letter of a record."""

    def change(session_id: str, seq: int) -> None:
        if where.endswith("sessions"):
            path = document(where, session_id)
            before, mark, after = path.read_bytes().partition(b'"seq":%d,' % seq)
            assert mark and b'"payload"' in after
            path.write_bytes(before + mark + after.replace(b'"payload"', b'"pbyload"', 1))
        else:
            text = "UPDATE events SET payload = replace(payload, 'e', 'f') WHERE session_id = ? AND seq = ?"
            sql_of(where, text, session_id, seq)

    return change


def test_every_store_keeps_what_is_before_the_damage(make: Make, spoil: Spoil) -> None:
    check_damage(make, spoil)


@pytest.fixture
def journal(make: Make) -> Iterator[Journal]:
    journal = Journal(make)
    yield journal
    journal.close()


def talk(journal: Journal, *answers: Any) -> Session:
    """A session of runs that have each begun with a look."""

    @tool(effect="read")
    def look(at: str) -> str:
        """Look."""
        return f"nothing at {at}"

    script = [entry for answer in answers for entry in ([call("look", at="here")], answer)]
    session = Agent(ScriptedModel(script), tools=[look], mode="auto", journal=journal).session("Damaged")
    for number, _ in enumerate(answers):
        session.send(f"say {number}").result()
    session.close()
    return session


def events_of(session: Session) -> list[Any]:
    session_id = session.id
    return session.journal.ask(
        lambda store: [codec.decode(r.payload) for r in read_whole(store, session_id=session_id)]
    )


def begin_of_run(session: Session, number: int) -> int:
    return [event.seq for event in events_of(session) if isinstance(event, RunStarted)][number]


def test_a_damaged_session_is_read_shown_exported_and_gone_on_with_in_a_copy(
    journal: Journal, spoil: Spoil, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session, other = talk(journal, "one", "two", "three"), talk(journal, "untouched")
    hurt = begin_of_run(session, 2)
    spoil(session.id, hurt)
    said = f"session '{session.id}' is damaged: record {hurt} cannot be read"
    found = Session.load(session.id, journal)
    assert [run.text for run in found.runs] == ["one", "two"] and found.seq == hurt - 1
    assert said in caplog.text and "go on in a copy, session.fork()" in caplog.text
    assert session.id in {info.session_id for info in Session.list(journal, everywhere=True)}
    assert list(runs_df(found).text) == ["one", "two"]
    assert [run.text for run in Session.load(other.id, journal).runs] == ["untouched"]
    for suffix in (".jsonl", ".md"):
        path = found.export(tmp_path / f"damaged{suffix}")
        with pytest.raises(StoreError, match="is in this history already"):
            Session.import_file(path, journal)
        elsewhere = Journal(lambda at=tmp_path / f"else{suffix}.sqlite": SQLStore.sqlite(at))  # type: ignore[misc]
        assert [run.text for run in Session.import_file(path, elsewhere).runs] == ["one", "two"]
        elsewhere.close()
    fork = found.fork()
    assert [run.text for run in fork.runs] == ["one", "two"]
    model = ScriptedModel(["on"])
    assert Agent(model, journal=journal).start("go on", session=fork).result().text == "on"
    assert [message.text for message in model.requests[0].messages if message.role == "user"] == [
        "say 0",
        "say 1",
        "go on",
    ]


def test_a_damaged_session_is_not_written_and_no_tool_is_called(journal: Journal, spoil: Spoil) -> None:
    world: list[str] = []

    @tool
    def put(line: str) -> str:
        """Write a line."""
        world.append(line)
        return "done"

    session = talk(journal, "one", "two")
    hurt = begin_of_run(session, 1) + 1
    spoil(session.id, hurt)
    found = Session.load(session.id, journal)
    model = ScriptedModel([[call("put", line="a")], "never said"])
    run = Agent(model, tools=[put], mode="auto", journal=journal).start("go on", session=found).result()
    assert run.status == "failed" and run.state.error_kind == "store" and world == []
    assert f"record {hurt} cannot be read" in str(run.state.error)
    with pytest.raises(StoreError, match=f"record {hurt} cannot be read"):
        found.undo()
    elsewhere = Journal(lambda: SQLStore.sqlite(":memory:"))
    with pytest.raises(StoreError, match=f"record {hurt} cannot be read"):
        portable.move(session.id, journal, elsewhere)
    elsewhere.close()
    found.delete()
    assert session.id not in {info.session_id for info in Session.list(journal, everywhere=True)}


def test_damage_that_comes_while_nobody_looks_is_found_before_the_next_record(journal: Journal, spoil: Spoil) -> None:
    session = talk(journal, "one")
    spoil(session.id, 2)
    run = Agent(ScriptedModel(["never said"]), journal=journal).start("go on", session=session).result()
    assert run.status == "failed" and "record 2 cannot be read" in str(run.state.error)


def test_a_run_is_never_folded_over_a_hole(journal: Journal, spoil: Spoil) -> None:
    session = talk(journal, "one", "two")
    spoil(session.id, next(event.seq for event in events_of(session) if event.type == "CallFinished"))
    (run,) = Session.load(session.id, journal).all_runs
    assert not run.is_ended and run.calls[0].status != "ok" and run.text == ""


@pytest.mark.parametrize("what", ["type", "json", "shape"])
def test_a_record_that_no_store_can_know_to_be_wrong_ends_the_session_too(make: Make, what: str) -> None:
    journal = Journal(make)
    session = talk(journal, "one")
    payload, kind = {
        "type": (b'{"type":"Unheard"}', "Unheard"),
        "json": (b'{"type":"RunEnd', "RunEnded"),
        "shape": (b'{"type":"RunEnded","seq":"x"}', "RunEnded"),
    }[what]
    seq = session.seq + 1
    foreign = Record(session.id, seq, "run_x", 0, kind, 1.0, payload)
    journal.ask(lambda store: store.append([foreign], durable=False))
    found = Session.load(session.id, journal)
    assert [run.text for run in found.runs] == ["one"]
    damage = journal.damage(session.id)
    assert damage is not None and damage.seq == seq
    journal.close()


def test_a_record_that_is_gone_ends_the_session(journal: Journal, where: str) -> None:
    session = talk(journal, "one", "two")
    gone = begin_of_run(session, 1)
    if where.endswith("sessions"):
        path = document(where, session.id)
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [one for one in lines if not (one.startswith(b"<!-- turncell record") and b'"seq":%d,' % gone in one)]
        path.write_bytes(b"".join(kept))
    else:
        sql_of(where, "DELETE FROM events WHERE session_id = ? AND seq = ?", session.id, gone)
    found = Session.load(session.id, journal)
    damage = journal.damage(session.id)
    assert [run.text for run in found.runs] == ["one"] and damage is not None and damage.seq == gone


@pytest.mark.parametrize("is_gone", [False, True], ids=["changed", "gone"])
def test_a_blob_that_is_not_what_it_was_ends_the_session_where_it_is_named(
    journal: Journal, where: str, is_gone: bool
) -> None:
    large = "large " * 20_000
    session = talk(journal, "one", say(large, chunk=len(large)))
    before = begin_of_run(session, 1)
    if where.endswith("sessions"):
        (path,) = (
            one for one in (Path(where) / "blobs").rglob("*") if one.is_file() and b"large large" in one.read_bytes()
        )
        path.unlink() if is_gone else path.write_bytes(path.read_bytes().replace(b"large", b"lorge", 1))
    else:
        mine = "digest IN (SELECT digest FROM blob_uses WHERE session_id = ?)"
        sql_of(where, f"DELETE FROM blobs WHERE {mine}" if is_gone else f"UPDATE blobs SET content = ? WHERE {mine}",
               *([] if is_gone else [b'"lorge"']), session.id)  # fmt: skip
    found = Session.load(session.id, journal)
    damage = journal.damage(session.id)
    assert damage is not None and damage.seq > before and ("no blob" if is_gone else "has other bytes") in damage.found
    assert found.runs[0].text == "one" and not found.runs[-1].is_ended


def test_a_session_that_was_repaired_is_written_again(tmp_path: Path) -> None:
    journal = Journal(lambda: MarkdownStore(tmp_path))
    session = talk(journal, "one", "two")
    path = document(str(tmp_path), session.id)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"payload"', b'"pbyload"', 1))
    assert Session.load(session.id, journal).runs == ()
    path.write_bytes(whole)
    found = Session.load(session.id, journal)
    assert Agent(ScriptedModel(["three"]), journal=journal).start("go on", session=found).result().text == "three"
    journal.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payload", b"\xff\xfe no text"),
        ("payload", None),
        ("payload", "no json"),
        ("run_id", "run_of_another"),
        ("step", "one"),
        ("at", "noon"),
        ("type", 7),
        ("at", 9.0),
    ],
)
def test_whatever_a_column_of_sqlite_holds_costs_only_what_follows(tmp_path: Path, column: str, value: Any) -> None:
    path = tmp_path / "h.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    session, other = talk(journal, "one", "two"), talk(journal, "untouched")
    hurt = begin_of_run(session, 1)
    journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'events'")
    bits = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"  # bytes that are no UTF-8, kept as text
    sql_of(str(path), f"UPDATE events SET {column} = {bits} WHERE session_id = ? AND seq = ?", value, session.id, hurt)
    journal = Journal(lambda: SQLStore.sqlite(path))
    assert {info.session_id for info in Session.list(journal, everywhere=True)} == {session.id, other.id}
    assert [run.text for run in Session.load(session.id, journal).runs] == ["one"]
    assert [run.text for run in Session.load(other.id, journal).runs] == ["untouched"]
    damage = journal.damage(session.id)
    assert damage is not None and damage.seq == hurt and str(path) in damage.found
    journal.close()


def test_a_history_of_before_check_sums_gets_them_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "samples" / "history_schema_1.sql").read_text())
        last = connection.execute("SELECT session_id, max(seq) FROM events GROUP BY session_id").fetchall()
    journal = Journal(lambda: SQLStore.sqlite(path))
    session_id, seq = last[0]
    found = Session.load(session_id, journal)
    assert journal.damage(session_id) is None
    assert Agent(ScriptedModel(["on"]), journal=journal).start("go on", session=found).result().text == "on"
    journal.close()
    text = "SELECT count(*), count(check_sum) FROM events WHERE session_id = ? AND seq "
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"{text} <= ?", (session_id, seq)).fetchone() == (seq, 0)
        new, summed = connection.execute(f"{text} > ?", (session_id, seq)).fetchone()
        assert new == summed > 0
        connection.execute("UPDATE events SET payload = '{' WHERE session_id = ? AND seq = 2", (session_id,))
        connection.commit()
    journal = Journal(lambda: SQLStore.sqlite(path))
    damage = journal.damage(session_id)
    assert damage is not None and damage.seq == 2 and "it is no JSON" in damage.found
    journal.close()


def test_deleting_another_session_keeps_the_blobs_behind_damage(tmp_path: Path) -> None:
    journal = Journal(lambda: MarkdownStore(tmp_path))
    large = "large " * 20_000
    session, other = talk(journal, "one", say(large, chunk=len(large))), talk(journal, "two")
    path = document(str(tmp_path), session.id)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"payload"', b'"pbyload"', 1))
    other.delete()
    path.write_bytes(whole)
    assert Session.load(session.id, journal).runs[-1].text == large
    journal.close()


def test_what_an_export_of_a_damaged_session_holds_is_said_in_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    session = talk(journal, "one", "two")
    hurt = begin_of_run(session, 1)
    sql_of(str(path), "UPDATE events SET payload = 'x' WHERE session_id = ? AND seq = ?", session.id, hurt)
    header, *events = session.export(tmp_path / "it.jsonl").read_text().splitlines()
    assert json.loads(header)["records"] == len(events) == hurt - 1
    journal.close()


def test_a_damaged_page_of_postgres_takes_only_the_rest_of_its_session_with_it(postgres_server: PostgresServer) -> None:
    store = SQLStore.postgres(postgres_server.url)
    names = [f"ses_page_{number}" for number in range(3)]
    for name in names:
        store.create_session(name, title=name, project="", at=1.0)
        text = b'{"text":"%s"}' % (b"x" * 500)
        store.append([Record(name, seq, "r", 1, "T", 1.0, text) for seq in range(1, 201)], durable=True)
    store.close()
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        asked = "SELECT pg_relation_filepath('events'), ctid::text FROM events WHERE session_id = %s AND seq = 100"
        row = connection.execute(asked, (names[1],)).fetchone()
        assert row is not None
    page = int(row[1].strip("()").split(",")[0])
    postgres_server.crash()
    try:
        with postgres_server.file(row[0]).open("r+b") as file:
            file.seek(page * 8192)
            whole = file.read(8192)
            file.seek(page * 8192)
            file.write(b"\xff" * 64)
        postgres_server.start()
        store = SQLStore.postgres(postgres_server.url)
        assert len(list(store.read(session_id=names[0]))) == len(list(store.read(session_id=names[2]))) == 200
        kept = [record.seq for record in store.read(session_id=names[1])]
        damage = store.damage(names[1])
        assert 50 < len(kept) < 100 and kept == list(range(1, len(kept) + 1))
        assert damage is not None and damage.seq == len(kept) + 1 and "invalid page" in damage.found
        assert set(names) <= {info.session_id for info in store.sessions()}
        store.close()
    finally:
        postgres_server.crash()
        with postgres_server.file(row[0]).open("r+b") as file:
            file.seek(page * 8192)
            file.write(whole)
        postgres_server.start()
