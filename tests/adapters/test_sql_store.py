"""The SQLite store: nothing lost, nothing twice, and clear words where it cannot be had."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from turncell import Agent, StoreError
from turncell.adapters.scripted_model import ScriptedModel
from turncell.adapters.sql_store import SQLStore
from turncell.core.events import RunEnded
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Record

pytestmark = pytest.mark.feature("C7", "C8")


def record(seq: int, session: str = "s", run: str = "r", type: str = "TextAdded") -> Record:
    return Record(session, seq, run, 1, type, float(seq), f'{{"seq":{seq}}}'.encode())


@pytest.fixture
def store(tmp_path: Path) -> SQLStore:
    store = SQLStore.sqlite(tmp_path / "deep" / "er" / "h.sqlite")
    store.create_session("s", title="A title", project="/somewhere", at=0.5)
    return store


def test_what_was_appended_is_read_in_order(store: SQLStore) -> None:
    store.append([record(1), record(2)], durable=False)
    store.append([record(3, run="r2", type="Other")], durable=True)
    assert [r.seq for r in store.read(session_id="s")] == [1, 2, 3]
    assert [r.seq for r in store.read(run_id="r2")] == [3]
    assert [r.seq for r in store.read(types=["Other"])] == [3]
    assert list(store.read(session_id="nobody")) == []


def test_two_writers_of_one_session_collide_instead_of_interleaving(store: SQLStore) -> None:
    store.append([record(1)], durable=False)
    with pytest.raises(StoreError, match="another process is writing this session"):
        store.append([record(2), record(1)], durable=False)
    assert [r.seq for r in store.read()] == [1], "all or none"


def test_sessions_are_listed_with_their_runs(store: SQLStore) -> None:
    store.append([record(1), record(2, run="r2")], durable=False)
    (info,) = store.sessions()
    assert (info.title, info.project, info.runs, info.created_at, info.updated_at) == (
        "A title",
        "/somewhere",
        2,
        0.5,
        2.0,
    )


def test_a_durable_append_is_synced_and_the_others_are_not(tmp_path: Path) -> None:
    store = SQLStore.sqlite(tmp_path / "h.sqlite")
    store.create_session("s", title="", project="", at=0)
    store.append([record(1)], durable=True)
    assert store._connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    SQLStore.sqlite(path).close()
    code = """
import sys
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.ports import Record
store = SQLStore.sqlite(sys.argv[1]); me = sys.argv[2]
store.create_session(me, title="", project="", at=0)
for seq in range(1, 201):
    store.append([Record(me, seq, "r", 1, "T", 0.0, b"{}")], durable=False)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), f"s{n}"]) for n in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(list(SQLStore.sqlite(path).read())) == 600


def test_a_newer_history_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    SQLStore.sqlite(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99'")
    with pytest.raises(StoreError, match="schema version 99, this turncell reads up to 1"):
        SQLStore.sqlite(path)


def test_a_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    path.write_text("this is a shopping list, not a database, and it is long enough to be read as one" * 20)
    with pytest.raises(StoreError, match=r"cannot be opened: file is not a database"):
        SQLStore.sqlite(path)


def test_a_run_that_cannot_be_recorded_fails_and_its_write_never_happens(own_history: Path) -> None:
    own_history.write_text("no database" * 1000)
    from turncell import tool
    from turncell.adapters.scripted_model import call

    written: list[str] = []

    @tool
    def save(text: str) -> str:
        """Save."""
        written.append(text)
        return "saved"

    run = Agent(ScriptedModel([call("save", text="x"), "Done."]), tools=[save], mode="auto").run_sync("go")
    assert run.status == "failed" and run.state.error_kind == "store" and not written
    assert "not a database" in (run.state.error or "")


def test_everything_a_run_recorded_is_on_disk_when_it_is_done(own_history: Path) -> None:
    run = Agent(ScriptedModel(["one"])).run_sync("go")
    with sqlite3.connect(own_history) as connection:
        rows = connection.execute("SELECT type FROM events ORDER BY seq").fetchall()
    assert [row[0] for row in rows] == [event.type for event in run.events]


def test_the_journal_of_many_threads_is_complete(own_history: Path) -> None:
    def work() -> None:
        for _ in range(5):
            Agent(ScriptedModel(["one"])).run_sync("go")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with sqlite3.connect(own_history) as connection:
        assert connection.execute("SELECT count(DISTINCT run_id) FROM events").fetchone() == (30,)
        assert connection.execute("SELECT count(*) FROM events WHERE type = 'RunEnded'").fetchone() == (30,)


def test_records_that_cannot_be_written_do_not_take_those_of_others_with_them(tmp_path: Path) -> None:
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    journal.ask(lambda store: store.create_session("good", title="", project="", at=0))
    events = [
        RunEnded(seq=1, session_id=name, run_id=name, step=0, at=0.0, status="completed") for name in ("good", "bad")
    ]
    futures = [journal.record([event]) for event in events]
    assert futures[0].exception(5) is None
    with pytest.raises(StoreError, match="has no such session"):
        futures[1].result(5)
    assert [r.session_id for r in journal.ask(lambda store: list(store.read()))] == ["good"]


def test_what_is_being_recorded_cannot_be_cancelled(tmp_path: Path) -> None:
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    created = journal.submit(lambda store: store.create_session("s", title="", project="", at=0))
    assert not created.cancel()
    written = journal.record([RunEnded(seq=1, session_id="s", run_id="r", step=0, at=0.0, status="completed")])
    assert not written.cancel()
    assert written.result(5) is None
    assert len(journal.ask(lambda store: list(store.read()))) == 1


def test_a_script_that_ends_keeps_what_it_has_recorded(own_history: Path) -> None:
    code = """
from turncell import Agent
from turncell.testing import ScriptedModel
run = Agent(ScriptedModel(["fine"])).start("go")
while run.status != "completed":
    pass
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    with sqlite3.connect(own_history) as connection:
        assert connection.execute("SELECT count(*) FROM events WHERE type = 'RunEnded'").fetchone() == (1,)
