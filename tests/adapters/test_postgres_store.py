"""PostgreSQL, with a real server: what a team shares is as safe as a file of one's own."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.adapters.postgres_server import PASSWORD, PostgresServer
from turncell import Agent, StoreError, settings
from turncell.adapters.scripted_model import ScriptedModel
from turncell.adapters.sql_store import SQLStore
from turncell.runtime import defaults
from turncell.runtime.ports import Record, Writer

pytestmark = pytest.mark.feature("C8")


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The URL of a database of the test's own."""
    name = f"db_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:  # the server may have crashed since
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def record(seq: int, session: str = "s", payload: bytes = b"{}") -> Record:
    return Record(session, seq, "r", 1, "T", float(seq), payload)


def filled(url: str) -> SQLStore:
    store = SQLStore.postgres(url)
    store.create_session("s", title="A title", project="", at=0.5)
    store.append([record(1)], durable=False)
    return store


def test_agents_write_their_history_to_the_server_of_the_settings(database: str) -> None:
    settings.use(settings.Settings(store=database))
    run = Agent(ScriptedModel(["Hello."])).run_sync("go")
    assert run.status == "completed"
    defaults.journal().close()
    store = SQLStore.postgres(database)
    assert [found.type for found in store.read(run_id=run.id)] == [event.type for event in run.events]
    store.close()


@pytest.mark.parametrize("scheme", ["postgres://", "postgresql+psycopg://"])
def test_other_spellings_of_the_address_work(database: str, scheme: str) -> None:
    SQLStore.postgres(scheme + database.partition("://")[2]).close()


@pytest.mark.feature("C13")
@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        (PASSWORD, "wr0ng-w0rd", "password authentication failed"),
        ("/postgres", "/nowhere", 'database "nowhere" does not exist'),
        ("127.0.0.1", "127.0.0.2", "is the server there"),
        ("127.0.0.1:", "127.0.0.1:x", "use postgresql://user:password@host:5432/database"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_without_its_password(
    postgres_url: str, find: str, put: str, words: str
) -> None:
    url = postgres_url.replace(find, put)
    with pytest.raises(StoreError) as refused:
        SQLStore.postgres(url)
    everything = "".join(traceback.format_exception(refused.value))
    assert words in str(refused.value) and "tester:***@" in str(refused.value)
    assert PASSWORD not in everything and "wr0ng-w0rd" not in everything


@pytest.mark.feature("C13")
def test_no_message_and_no_repr_has_the_password(database: str) -> None:
    store = filled(database)
    with pytest.raises(StoreError) as refused:
        store.append([record(1)], durable=True)
    shown = settings.Settings(store=database)
    for text in (str(refused.value), repr(store), repr(shown), shown.store_name, repr(store._engine)):
        assert PASSWORD not in text
    assert "another process is writing this session" in str(refused.value)
    store.close()


def test_a_server_that_crashes_keeps_what_was_durable_and_the_store_connects_again(
    postgres_server: PostgresServer, database: str
) -> None:
    store = filled(database)
    store.append([record(2)], durable=True)
    postgres_server.crash()
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            store.append([record(3)], durable=True)
        with pytest.raises(StoreError, match="cannot be read"):
            store.read()
    finally:
        postgres_server.start()
    assert [found.seq for found in store.read()] == [1, 2], (
        "the first one, which was not durable, lies before a durable one"
    )
    store.append([record(3)], durable=True)
    assert [found.seq for found in store.read()] == [1, 2, 3]
    store.close()


def test_only_durable_appends_wait_for_the_disk(database: str) -> None:
    store = filled(database)
    for is_durable, expected in ((False, "off"), (True, "on"), (False, "off")):
        with store._writing("", is_durable=is_durable) as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == expected
    store.close()


def test_without_psycopg_one_is_told_what_to_install() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from turncell.adapters.sql_store import SQLStore
SQLStore.postgres(sys.argv[1])
"""
    url = f"postgresql://ada:{PASSWORD}@localhost/notes"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60)
    assert "StoreError: the history at postgresql://ada:***@localhost/notes needs psycopg" in done.stderr
    assert "pip install 'turncell[postgres]'" in done.stderr and PASSWORD not in done.stderr


def test_an_append_waits_for_a_claim_that_is_being_made_and_is_then_refused(database: str) -> None:
    """Otherwise it would be written after the new writer has read the session."""
    store = filled(database)
    code = """
import sys
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.ports import Record
store = SQLStore.postgres(sys.argv[1])
print("ready", flush=True)
store.append([Record("s", 2, "r", 1, "T", 0.0, b"{}")], durable=True, token="old")
"""
    store.claim("s", writer("old"))
    with store._writing("claim") as connection:
        assert store._lock(["s"]) == ["s"]
        other = subprocess.Popen(
            [sys.executable, "-c", code, database], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        time.sleep(0.3)
        assert other.poll() is None, "it waits"
        connection.exec_driver_sql("UPDATE writers SET token = 'new' WHERE session_id = 's'")
    _, errors = other.communicate(timeout=60)
    assert "SessionBusy: session s is written by process 7" in errors
    assert [found.seq for found in store.read()] == [1]
    store.close()


def writer(token: str) -> Writer:
    return Writer(token=token, host="here", pid=7, born_at=0.0, since=0.0)


def test_what_was_deleted_is_in_no_file_of_the_tables(postgres_server: PostgresServer, database: str) -> None:
    store = SQLStore.postgres(database)
    for name, word in (("kept", b"KEPT-NEEDLE"), ("gone", b"GONE-NEEDLE")):
        store.create_session(name, title=word.decode(), project="", at=0)
        store.append([record(seq, name, b'"%s %d"' % (word, seq)) for seq in range(1, 200)], durable=False)
    checkpoint(database)
    assert postgres_server.files_that_hold(b"GONE-NEEDLE")
    store.delete(["gone"])
    checkpoint(database)
    assert not postgres_server.files_that_hold(b"GONE-NEEDLE")
    assert postgres_server.files_that_hold(b"KEPT-NEEDLE")
    assert len(list(store.read())) == 199
    store.append([record(200, "kept")], durable=True)
    store.close()


def checkpoint(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def test_a_newer_database_can_only_be_read(database: str) -> None:
    filled(database).close()
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE meta SET value = '99'")
    store = SQLStore.postgres(database)
    assert [found.seq for found in store.read()] == [1]
    with pytest.raises(StoreError, match="schema version 99, this turncell writes up to 1"):
        store.append([record(2)], durable=True)
    store.close()
