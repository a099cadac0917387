"""Deleting: nothing of the text is left, and nobody waits for it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runtime.pieces import until
from turncell import Agent, Session
from turncell.adapters.sql_store import SQLStore
from turncell.adapters.sql_store_schema import BUSY_TIMEOUT_S
from turncell.errors import StoreError
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Record
from turncell.testing import ScriptedModel

pytestmark = pytest.mark.feature("C9")


def all_bytes(path: Path) -> bytes:
    wal = Path(f"{path}-wal")
    return path.read_bytes() + (wal.read_bytes() if wal.exists() else b"")


def grow(store: SQLStore, name: str, count: int, chance: random.Random) -> None:
    last = len(list(store.read(session_id=name)))
    records = []
    for seq in range(last + 1, last + 1 + count):
        word = f"SECRET-{name}-{seq} ".encode()
        payload, blobs = b'"%s"' % (word * chance.choice([10, 20, 50, 150, 600])), {}
        if chance.random() < 0.1:
            data = word * chance.choice([100, 5000])
            blobs = {hashlib.sha256(data).hexdigest(): data}
            payload = b'{"text":{"$blob":"%s"}}' % next(iter(blobs)).encode()
        records.append(Record(name, seq, f"run_{name}", 1, "T", 1.0, payload, blobs))
    store.append(records, durable=False)


@pytest.mark.parametrize("seed", [1, 2])
def test_of_many_sessions_that_grew_side_by_side_and_are_deleted_one_by_one_nothing_is_left(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turncell.adapters.sql_store_erasing.MARGIN_ROWS", 100)  # so that rows are deleted, too
    monkeypatch.setattr("turncell.adapters.sql_store_erasing.PAUSE_S", 0)
    path, chance = tmp_path / "h.sqlite", random.Random(seed)
    store = SQLStore.sqlite(path)
    names = [f"ses_{chance.randbytes(8).hex()}" for _ in range(40)]
    for name in names:
        store.create_session(name, title=f"SECRET-{name}", project="", at=1.0)
    for at in range(0, 40, 4):
        for _ in range(15):
            for name in names[at : at + 4]:
                grow(store, name, 3, chance)
    chance.shuffle(names)
    gone, kept = names[:30], names[30:]
    for name in gone:
        store.delete([name])
        assert f"SECRET-{name}".encode() not in all_bytes(path)
        grow(store, chance.choice(kept), 3, chance)
        store.rename(chance.choice(kept), f"SECRET-{kept[0]} {'longer ' * chance.randrange(30)}")
    found = all_bytes(path)
    assert [name for name in gone if f"SECRET-{name}".encode() in found] == []
    assert all(len(list(store.read(session_id=name))) >= 45 and store.damage(name) is None for name in kept)
    assert store._connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    store.close()


WRITER = """
import os, sys, time
from turncell import Agent
from turncell.testing import ScriptedModel
session = Agent(ScriptedModel(["an answer"] * 100_000)).session("busy")
print("up", flush=True)
worst_s = runs = 0
while not os.path.exists(sys.argv[1]):
    begun = time.monotonic()
    session.send("go").result().raise_for_status()
    worst_s, runs = max(worst_s, time.monotonic() - begun), runs + 1
    open(sys.argv[2], "a").write("x")
    time.sleep(0.02)
print(runs, worst_s)
"""


def test_while_a_session_of_a_large_history_is_deleted_the_turns_of_another_kernel_go_on(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    store = SQLStore.sqlite(path)
    store.create_session("large", title="", project="", at=1.0)
    for seq in range(1, 101):
        data = os.urandom(500_000) + b"SECRET"
        digest = hashlib.sha256(data).hexdigest()
        payload = b'{"text":{"$blob":"%s"}}' % digest.encode()
        small = [
            Record("large", seq * 200 + n - 199, "r", 1, "T", 1.0, b'"%s"' % (b"SECRET" * 350)) for n in range(199)
        ]
        store.append([*small, Record("large", seq * 200, "r", 1, "T", 1.0, payload, {digest: data})], durable=False)
    assert path.stat().st_size > 90_000_000
    environment = os.environ | {"TURNCELL_STORE": str(path)}
    turns = tmp_path / "turns"
    command = [sys.executable, "-c", WRITER, tmp_path / "enough", turns]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert other.stdout is not None and other.stdout.readline() == "up\n"
    store.delete(["large"])
    until(lambda: other.poll() is not None or (turns.exists() and turns.stat().st_size > 5))
    assert other.poll() is None, "the other one must write all the while"
    (tmp_path / "enough").touch()
    said, errors = other.communicate(timeout=60)
    runs, worst_s = said.split()
    # Nobody was kept waiting for the lock as long as it takes to give up.
    assert int(runs) > 5 and float(worst_s) < BUSY_TIMEOUT_S and "Error" not in errors, (said, errors)
    store.delete([])
    assert b"SECRET" not in all_bytes(path)
    store.close()


@pytest.mark.feature("C7")
def test_a_lock_that_passes_fails_no_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3
    import threading

    for module in ("sql_store_schema", "sql_store_views"):
        monkeypatch.setattr(f"turncell.adapters.{module}.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "h.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    session = Agent(ScriptedModel(["one", "two"]), journal=journal).session()
    session.send("a").result().raise_for_status()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def leave() -> None:
        deadline = time.monotonic() + 60
        while "trying again" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        other.rollback()

    threading.Thread(target=leave).start()
    run = session.send("b")
    run.result().raise_for_status()
    assert "trying again" in caplog.text
    assert [run.text for run in Session.load(session.id, journal).runs] == ["one", "two"]
    journal.close()


def test_a_session_with_a_page_that_cannot_be_read_is_deleted_and_what_is_left_is_said(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    store = SQLStore.sqlite(path)
    for name in ("hurt", "well"):
        store.create_session(name, title="", project="", at=1.0)
        store.append(
            [Record(name, seq, "r", 1, "T", 1.0, b'"%s %d"' % (name.encode() * 100, seq)) for seq in range(1, 200)],
            durable=False,
        )
    store._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    data = bytearray(path.read_bytes())
    page = data.index(b'hurt 100"') // 4096
    data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(bytes(data))
    store = SQLStore.sqlite(path)
    assert 50 < len(list(store.read(session_id="hurt"))) < 100
    with pytest.raises(StoreError, match=r"deleted, but the text of \d+ records is still in damaged pages"):
        store.delete(["hurt"])
    assert [info.session_id for info in store.sessions()] == ["well"]
    assert all_bytes(path).count(b"hurthurt") < 100 * 15, "only what the page has"
    assert len(list(store.read(session_id="well"))) == 199
    store.close()
