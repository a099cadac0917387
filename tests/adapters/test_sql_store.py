"""The SQLite store: nothing lost, nothing twice, and clear words where it cannot be had."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turncell import Agent, Session, StoreError, tool
from turncell.adapters.scripted_model import ScriptedModel, call
from turncell.adapters.sql_store import SQLStore
from turncell.core import codec
from turncell.core.events import RunEnded
from turncell.core.fold import fold
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Record, Writer

pytestmark = pytest.mark.feature("C7", "C8")


def record(seq: int, session: str = "s", run: str = "r", type: str = "TextAdded") -> Record:
    return Record(session, seq, run, 1, type, float(seq), f'{{"seq":{seq}}}'.encode())


SAMPLES = Path(__file__).parent / "samples"
WRITER = Writer(token="t", host="here", pid=1, born_at=0.0, since=0.0)


def filled(path: Path) -> SQLStore:
    store = SQLStore.sqlite(path)
    store.create_session("s", title="A title", project="/somewhere", at=0.5)
    store.append([record(1)], durable=False)
    return store


def files_with(folder: Path, text: bytes) -> list[str]:
    return [one.name for one in folder.iterdir() if text in one.read_bytes()]


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
    with pytest.raises(StoreError, match="another process"):
        store.append([record(2), record(1)], durable=False)
    assert [r.seq for r in store.read()] == [1], "all or none"


def test_sessions_are_listed_with_their_runs(store: SQLStore) -> None:
    begun = [Record("s", seq, run, 1, "RunStarted", float(seq), b"{}") for seq, run in ((1, "r"), (2, "r2"))]
    store.append(begun, durable=False)
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


def test_a_newer_history_can_be_read_and_is_refused_to_writers_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    filled(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99'")
        connection.execute("DROP TABLE writers")
        tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    store = SQLStore.sqlite(path)
    assert [r.seq for r in store.read(session_id="s")] == [1] and store.sessions()[0].title == "A title"
    writes: list[Callable[[], object]] = [
        lambda: store.append([record(2)], durable=True),
        lambda: store.create_session("t", title="", project="", at=0),
        lambda: store.rename("s", "x"),
        lambda: store.delete(["s"]),
        lambda: store.claim("s", WRITER),
        lambda: store.release("s", "t"),
    ]
    for write in writes:
        with pytest.raises(StoreError, match="schema version 99, this turncell writes up to 1"):
            write()
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == tables


def test_a_history_of_the_first_schema_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript((SAMPLES / "history_schema_1.sql").read_text())
    store = SQLStore.sqlite(path)
    infos = store.sessions()
    assert [info.title for info in infos] == ["Greet", "Thanks", "Save the first\nline"]
    events = [codec.decode(found.payload) for found in store.read(session_id=infos[2].session_id)]
    assert isinstance(events[-1], RunEnded) and [event.seq for event in events] == list(range(1, 14))
    assert fold(events).text == "Saved: é 漢字 <b>--></b>"
    store.claim(infos[2].session_id, WRITER)
    data = b"x" * 1000
    digest = hashlib.sha256(data).hexdigest()
    new = Record(infos[2].session_id, 14, "r", 1, "T", 0.0, b"{}", {digest: data})
    store.append([new], durable=True, token=WRITER.token)
    assert store.blob(digest) == data and len(list(store.read())) == 26
    store.close()


def test_what_was_deleted_is_in_none_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    store = SQLStore.sqlite(path)
    other = SQLStore.sqlite(path)  # keeps the -wal and -shm files there
    kept, secret = b"KEPT-" * 30, b"SECRET-" * 30
    for name, word in (("kept", kept), ("gone", secret)):
        store.create_session(name, title=f"title {word.decode()}", project=word.decode(), at=0)
    for seq in range(1, 300):  # in turns, so that pages are split and rows move
        for name, word in (("kept", kept), ("gone", secret)):
            data = word * seq
            blob = {hashlib.sha256(data).hexdigest(): data} if seq % 50 == 0 else {}
            store.append([Record(name, seq, "r", 1, "T", 0.0, b'"%s"' % (word * (seq % 7)), blob)], durable=False)
    assert files_with(tmp_path, secret)
    store.delete(["gone"])
    assert {one.name for one in tmp_path.iterdir()} == {"h.sqlite", "h.sqlite-wal", "h.sqlite-shm"}
    assert not files_with(tmp_path, b"SECRET") and files_with(tmp_path, kept)
    assert len(list(other.read())) == 299


def test_deleting_while_another_process_reads_says_what_is_left_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turncell.adapters.sql_store.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "h.sqlite"
    store = filled(path)
    store._connection.exec_driver_sql("PRAGMA busy_timeout=200")
    store._connection.rollback()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    with pytest.raises(StoreError, match=r"the sessions are deleted, but .* still"):
        store.delete(["s"])
    assert list(store.read()) == []
    reader.execute("COMMIT")
    store.delete(["s"])
    assert not files_with(tmp_path, b"A title")


def test_a_locked_history_says_so(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    store = filled(path)
    store._connection.exec_driver_sql("PRAGMA busy_timeout=50")
    store._connection.rollback()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked; another program has locked it"):
            store.append([record(2)], durable=True)
        other.execute("ROLLBACK")
    store.append([record(2)], durable=True)
    assert [r.seq for r in store.read()] == [1, 2]


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    store = filled(tmp_path / "h.sqlite")
    store._connection.exec_driver_sql("PRAGMA max_page_count=1")  # SQLite takes the pages that there are
    store._connection.rollback()
    big = Record("s", 2, "r", 1, "T", 0.0, b'"%s"' % (b"x" * 1_000_000))
    with pytest.raises(StoreError, match="full; make room on the disk"):
        store.append([big], durable=True)
    assert [r.seq for r in store.read()] == [1]


def test_a_folder_that_may_not_be_written_is_said() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h.sqlite"
        filled(path).close()
        path.chmod(0o644)
        Path(folder).chmod(0o555)
        code = """
import os, sys
from turncell.adapters.sql_store import SQLStore
from turncell.errors import StoreError
SQLStore.sqlite(":memory:").close()
if os.getuid() == 0:  # who may write everywhere; changed here, because others may not start root's Python
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for name in sys.argv[1:]:
    try:
        SQLStore.sqlite(name).create_session("t", title="", project="", at=0)
    except StoreError as error:
        print(error)
"""
        program = [sys.executable, "-c", code, str(path), f"{folder}/new.sqlite", f"{folder}/deep/h.sqlite"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd="/")
        Path(folder).chmod(0o755)
    first, second, third = done.stdout.splitlines()
    assert "cannot be opened" in first and "by this user" in first, first
    assert "unable to open database file; is the folder there and writable by this user?" in second
    assert "for the history cannot be made: Permission denied" in third


def test_a_damaged_page_takes_only_the_rest_of_its_own_session_with_it(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    store = SQLStore.sqlite(path)
    for name in ("a", "b", "c"):
        store.create_session(name, title=name, project="", at=ord(name))
        records = [record(seq, name) for seq in range(1, 400)]
        if name == "b":  # in the middle, so that its page holds nobody else's rows
            records[199] = Record("b", 200, "r", 1, "T", 0.0, b'"needle %s"' % (b"x" * 500))
        store.append(records, durable=False)
    store._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    data = bytearray(path.read_bytes())
    page = data.index(b"needle") // 4096
    data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(bytes(data))
    store = SQLStore.sqlite(path)
    before = [found.seq for found in store.read(session_id="b")]
    assert 100 < len(before) < 200 and before == list(range(1, len(before) + 1))
    damage = store.damage("b")
    assert damage is not None and damage.seq == len(before) + 1
    assert "malformed; part of the file is damaged" in damage.found and str(path) in damage.found
    with pytest.raises(StoreError, match=f"session 'b' is damaged: record {damage.seq} cannot be read"):
        store.append([record(400, "b")], durable=False)
    store.append([record(400, "a")], durable=False)
    assert len(list(store.read(session_id="a"))) == 400 and len(list(store.read(session_id="c"))) == 399
    assert len(list(store.read())) == 799 + len(before)
    assert {info.session_id for info in store.sessions()} == {"a", "b", "c"}
    assert store.damage("a") is None
    store.close()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreError, match=r"a database of another program \(tables bookmarks\)"):
        SQLStore.sqlite(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_only_a_number_that_is_taken_is_another_process(tmp_path: Path) -> None:
    store = filled(tmp_path / "h.sqlite")
    empty: Any = None
    with pytest.raises(StoreError, match=r"NOT NULL constraint failed: events\.run_id") as refused:
        store.append([Record("s", 2, empty, 1, "T", 0.0, b"{}")], durable=False)
    assert "another process" not in str(refused.value)
    with pytest.raises(StoreError, match="another process"):
        store.append([record(1)], durable=False)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.full)])
def test_two_processes_lose_and_double_nothing(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "h.sqlite"
    code = """
import sys, time
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.ports import Record
store = SQLStore.sqlite(sys.argv[1]); me = sys.argv[2]
store.create_session(me, title="", project="", at=0)
until = time.monotonic() + float(sys.argv[3]); seq = 0
while time.monotonic() < until or seq <= 50:
    batch = [Record(me, seq + n, "r", 1, "T", 0.0, b'{"n":%d}' % (seq + n)) for n in range(1, 1 + seq % 5 + 1)]
    store.append(batch, durable=seq % 50 < 3)
    seq += len(batch)
print(seq)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name, str(seconds)], stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")  # both make the file
    ]
    counts = {
        name: int(process.communicate(timeout=90)[0]) for name, process in zip(("one", "two"), started, strict=True)
    }
    store = SQLStore.sqlite(path)
    for name, count in counts.items():
        assert count > 50
        found = list(store.read(session_id=name))
        assert [r.seq for r in found] == list(range(1, count + 1))
        assert all(r.payload == b'{"n":%d}' % r.seq for r in found)


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
        thread.join(60)
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
    assert futures[0].exception(60) is None
    with pytest.raises(StoreError, match="has no such session"):
        futures[1].result(60)
    assert [r.session_id for r in journal.ask(lambda store: list(store.read()))] == ["good"]


def test_what_is_being_recorded_cannot_be_cancelled(tmp_path: Path) -> None:
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    created = journal.submit(lambda store: store.create_session("s", title="", project="", at=0))
    assert not created.cancel()
    written = journal.record([RunEnded(seq=1, session_id="s", run_id="r", step=0, at=0.0, status="completed")])
    assert not written.cancel()
    assert written.result(60) is None
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


@pytest.mark.feature("C7", "B4")
def test_a_large_result_is_kept_whole_and_once_however_often_a_tool_returns_it(tmp_path: Path) -> None:
    text = "".join(f"row {number}\n" for number in range(20_000))

    @tool(effect="read")
    def read() -> str:
        """Read a large file."""
        return text

    path = tmp_path / "history.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    run = Agent(
        ScriptedModel([call("read"), call("read"), call("read"), "Done."]), tools=[read], journal=journal
    ).run_sync("go")
    loaded = Session.load(run.session.id, journal)
    assert all(one.details == {"text": text} and "cut here" in (one.content or "") for one in loaded.runs[0].calls)
    journal.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM blobs WHERE length(content) > 200000").fetchone() == (1,)
