"""Sub-agents' sessions go where their session goes; what is read from outside has bounds; versions are named."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from turncell import Agent, Session, settings
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.sql_store import SQLStore
from turncell.core import upcast
from turncell.errors import SessionBusy, SettingError, StoreError
from turncell.runtime import portable
from turncell.runtime.journal import Journal
from turncell.runtime.ports import SessionInfo, Store
from turncell.testing import ScriptedModel, call

Open = Callable[[], Journal]


@pytest.fixture(params=["sqlite", "markdown"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a journal of the same store each time."""

    def store() -> Store:
        if request.param == "sqlite":
            return SQLStore.sqlite(tmp_path / "h.sqlite")
        return MarkdownStore(tmp_path / "documents")

    journals: list[Journal] = []

    def journal() -> Journal:
        journals.append(Journal(store))
        return journals[-1]

    yield journal
    for one in journals:
        one.close()


def with_a_sub_agent(journal: Journal) -> Session:
    inner = Agent(ScriptedModel(["INNER words"] * 3), name="writer", journal=journal)
    outer = Agent(
        ScriptedModel([call("writer", task="x"), "done", "later"]),
        tools=[inner.as_tool()],
        mode="auto",
        journal=journal,
    )
    session = outer.session("outer")
    session.send("go").result().raise_for_status()
    return session


def infos(journal: Journal) -> list[SessionInfo]:
    return journal.ask(lambda store: store.sessions())


def titles(journal: Journal) -> int:
    return len(infos(journal))


def aged(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a file of ten days ago."""
    return line | {name: line[name] - 10 * 86_400 for name in ("at", "created_at") if name in line}


@pytest.mark.feature("C9")
def test_prune_leaves_the_sub_agents_of_a_session_that_is_in_use_and_takes_them_with_it(
    opened: Open, tmp_path: Path
) -> None:
    journal = opened()
    young = with_a_sub_agent(journal)
    path = young.export(tmp_path / "young.jsonl")
    young.delete()
    path.write_text("".join(f"{json.dumps(aged(json.loads(line)))}\n" for line in path.read_text().splitlines()))
    session = Session.import_file(path, journal)
    session.agent = young.agent
    assert [round(info.updated_at / 86_400 - time.time() / 86_400) for info in infos(journal)] == [-10, -10]
    session.send("today").result().raise_for_status()
    session.close()
    assert portable.prune(5, journal) == () and titles(journal) == 2
    assert [info.session_id for info in portable.prune(0, journal)] == [session.id] and titles(journal) == 0


@pytest.mark.feature("C9")
@pytest.mark.parametrize("suffix", [".jsonl", ".md"])
def test_sub_agents_are_in_the_exported_file_and_come_back_with_it(opened: Open, tmp_path: Path, suffix: str) -> None:
    journal, elsewhere = opened(), Journal(lambda: SQLStore.sqlite(tmp_path / "other.sqlite"))
    session = with_a_sub_agent(journal)
    path = session.export(tmp_path / f"whole{suffix}")
    there = Session.import_file(path, elsewhere)
    assert titles(elsewhere) == 2 and len(Session.list(elsewhere)) == 1
    assert there.export(tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()
    there.delete()
    assert titles(elsewhere) == 0
    if suffix == ".jsonl":
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: 1 + json.loads(lines[0])["records"]]))
        with pytest.raises(StoreError, match="0 sessions of sub-agents, its first line says 1"):
            Session.import_file(path, elsewhere)
    elsewhere.close()


@pytest.mark.feature("C9")
def test_sub_agents_move_with_their_session_and_delete_takes_all(opened: Open, tmp_path: Path) -> None:
    journal, elsewhere = opened(), Journal(lambda: SQLStore.sqlite(tmp_path / "other.sqlite"))
    session = with_a_sub_agent(journal)
    session.close()
    there = portable.move(session.id, journal, elsewhere)
    assert titles(journal) == 0 and titles(elsewhere) == 2
    there.delete()
    assert titles(elsewhere) == 0
    elsewhere.close()


@pytest.mark.feature("C7")
def test_events_of_before_are_made_those_of_today_and_the_store_is_marked_when_it_is_written(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = opened()
    session = Agent(ScriptedModel(["one"]), journal=journal).run_sync("go").session
    session.close()

    def marked(event: dict[str, object]) -> dict[str, object]:
        return event | ({"text": "from version 1"} if event["type"] == "RunEnded" else {})

    def as_of_version(version: int) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("turncell.") and hasattr(module, "SCHEMA_VERSION"):
                monkeypatch.setattr(module, "SCHEMA_VERSION", version)

    as_of_version(2)
    monkeypatch.setattr(upcast, "UPCASTERS", {1: marked})
    newer = opened()
    found = Session.load(session.id, newer)
    assert found.runs[0].text == "from version 1"
    path = found.export(tmp_path / "two.jsonl")
    assert b"from version 1" in path.read_bytes() and json.loads(path.read_bytes().splitlines()[0])["version"] == 2
    Agent(ScriptedModel(["two"]), journal=newer).start("more", session=found).result().raise_for_status()
    found.close()
    assert [run.text for run in Session.load(session.id, newer).runs] == ["from version 1", "two"]
    as_of_version(1)
    older = opened()
    left = Session.load(session.id, older)
    assert left.runs[0].text == "one"
    with pytest.raises(StoreError, match="schema version 2, this turncell writes up to 1"):
        left.undo()
    with pytest.raises(StoreError, match="schema version 2, this one writes version 1"):
        left.export(tmp_path / "relabelled.jsonl")


@pytest.mark.feature("C7")
def test_an_unknown_event_of_a_newer_turncell_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    session = Agent(ScriptedModel(["one"]), journal=journal).run_sync("go").session
    session.close()
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '2'")
        connection.execute(
            "UPDATE events SET type = 'Folded', payload = replace(payload, 'MessageAdded', 'Folded'), check_sum = NULL WHERE seq = 4"
        )
    journal = Journal(lambda: SQLStore.sqlite(path))
    damage = journal.damage(session.id)
    assert damage is not None and damage.seq == 4 and "damaged" not in str(damage)
    assert "written by a newer turncell: record 4 has schema version 2, this one reads up to 1" in str(damage)
    assert len(Session.load(session.id, journal).all_runs) == 1
    journal.close()


@pytest.mark.feature("C9")
def test_an_exported_file_says_that_it_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "h.sqlite"
    journal = Journal(lambda: SQLStore.sqlite(path))
    session = Agent(ScriptedModel(["one"]), journal=journal).run_sync("go").session
    journal.flush()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET payload = 'x' || payload WHERE seq = 5")
    for suffix in (".jsonl", ".md"):
        file = session.export(tmp_path / f"cut{suffix}")
        assert b'"cut":"' in file.read_bytes().splitlines()[0]
        caplog.clear()
        elsewhere = Journal(lambda suffix=suffix: SQLStore.sqlite(tmp_path / f"{suffix[1:]}.sqlite"))  # type: ignore[misc]
        assert len(Session.import_file(file, elsewhere).all_runs) == 1
        assert "was damaged when it was exported, and is not whole" in caplog.text
        elsewhere.close()
    assert "**Cut: record 5 and what followed it could not be read" in file.read_text()
    journal.close()


HOSTILE = """
import resource, sys
from turncell import Session
from turncell.adapters.cassette_file import read_cassette
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_cassette(sys.argv[1]) if sys.argv[1].endswith("cassette") else Session.import_file(sys.argv[1])
except Exception as error:
    print(type(error).__name__, str(error)[:300])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)
"""


@pytest.mark.feature("C9")
@pytest.mark.parametrize("kind", ["jsonl", "cassette"])
def test_a_line_of_many_small_values_is_refused_before_it_is_parsed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"big.{kind}"
    header: dict[str, object] = {"turncell": "session", "version": 1, "session_id": "ses_x", "title": "", "project": ""}
    header |= {"created_at": 1.0, "records": 1}
    first = header if kind == "jsonl" else {"turncell_cassette": 1}
    path.write_text(json.dumps(first) + '\n{"seq":1,"x":[' + ",".join(["{}"] * 9_000_000) + "]}\n")
    done = subprocess.run([sys.executable, "-c", HOSTILE, str(path)], capture_output=True, text=True, timeout=60)
    said, more_mb = done.stdout.strip().splitlines()
    assert "StoreError" in said and ("more than 500000 values" in said), (said, done.stderr)
    assert int(more_mb) < 250


@pytest.mark.feature("C9")
@pytest.mark.parametrize("at", [1e300, 1e18, -1.0])
def test_a_file_with_a_time_that_is_none_is_refused_and_a_long_title_is_cut(tmp_path: Path, at: float) -> None:
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    header: dict[str, object] = {
        "turncell": "session",
        "version": 1,
        "session_id": "ses_t",
        "project": "",
        "records": 0,
    }
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(header | {"title": "t", "created_at": at}) + "\n")
    with pytest.raises(StoreError, match="a time is in seconds since 1970"):
        Session.import_file(path, journal)
    path.write_text(json.dumps(header | {"title": "t" * 900_000, "created_at": 1.0}) + "\n")
    assert len(Session.import_file(path, journal).title) == portable.MAX_TITLE_CHARS
    journal.close()


@pytest.mark.feature("C7")
def test_whoever_was_taken_over_is_told_by_whom_and_goes_on_when_it_is_loaded_again(opened: Open) -> None:
    mine, theirs = opened(), opened()
    session = Agent(ScriptedModel(["one", "refused", "refused", "three"]), journal=mine).session()
    session.send("a").result().raise_for_status()
    other = Session.load(session.id, theirs)
    other.take_over()
    for _ in range(2):
        run = session.send("b")
        run.result()
        assert run.status == "failed" and "is written by process" in str(run.state.error), run.state.error
    with pytest.raises(SessionBusy, match=rf"is written by process {os.getpid()} on .* since "):
        Session.load(session.id, mine).hold()
    Agent(ScriptedModel(["two"]), journal=theirs).start("b", session=other).result().raise_for_status()
    other.close()
    again = Session.load(session.id, mine)
    again.agent = session.agent
    again.send("c").result().raise_for_status()
    assert [run.text for run in Session.load(session.id, theirs).runs][:2] == ["one", "two"]
    assert Session.load(session.id, theirs).seq == again.seq


@pytest.mark.feature("C8")
def test_a_link_is_in_the_folder_of_the_session_and_a_mark_before_the_first_line_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "w1", tmp_path / "w2"
    first.mkdir(), second.mkdir()
    monkeypatch.setattr(
        settings, "_current", settings.Settings(store=f"markdown:{tmp_path / 'root'}", meta_dirname=".n")
    )
    for folder in (first, second):
        monkeypatch.chdir(folder)
        session = Agent(ScriptedModel(["x"])).run_sync("go").session
        session.close()
        assert [one.stem for one in (folder / ".n" / "sessions").iterdir()] == [session.id]
    document = next((tmp_path / "root").glob(f"*/{session.id}.md"))
    assert stat.S_IMODE(document.stat().st_mode) == 0o600 and stat.S_IMODE(document.parent.stat().st_mode) == 0o700
    document.write_bytes(b"\xef\xbb\xbf" + document.read_bytes())
    assert [run.text for run in Session.load(session.id).runs] == ["x"] and len(Session.list()) == 1


@pytest.mark.feature("C8")
def test_a_history_in_sqlite_is_its_owners_alone(tmp_path: Path) -> None:
    store = SQLStore.sqlite(tmp_path / "new" / "h.sqlite")
    store.create_session("s", title="", project="", at=1.0)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "new").iterdir()} == {0o600}
    store.close()
    with pytest.raises(StoreError, match="is a folder, and the history is one SQLite file"):
        SQLStore.sqlite(tmp_path)


@pytest.mark.feature("C8")
def test_a_store_of_an_unknown_kind_makes_no_file() -> None:
    for wrong, meant in (
        ("Markdown:/x", "'markdown:<folder>'"),
        ("postgres:host", "'postgresql://"),
        ("markdown", "'markdown:<folder>'"),
        ("mysql://host", "a path"),
    ):
        with pytest.raises(SettingError, match="setting 'store' begins with") as refused:
            settings.Settings(store=wrong)
        assert meant in str(refused.value)
    for right, path in (
        ("sqlite:/x/y", "/x/y"),
        ("sqlite:////x/y", "/x/y"),
        ("./markdown", "markdown"),
        ("C:/x", "C:/x"),
    ):
        assert settings.Settings(store=right).store_path == Path(path)
