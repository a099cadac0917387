"""The journal where it cannot go on: a store that fails, a process that was forked."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from turncell import Agent, SessionBusy, StoreError
from turncell.adapters.scripted_model import ScriptedModel, say
from turncell.adapters.sql_store import SQLStore
from turncell.core.events import RunEnded
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Record
from turncell.runtime.session import Session

pytestmark = pytest.mark.feature("C7", "C8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def seqs(journal: Journal, session: Session) -> list[int]:
    return [record.seq for record in journal.ask(lambda store: list(store.read(session_id=session.id)))]


class TestAHole:
    def test_nothing_follows_a_hole_though_the_store_is_well_again(self, path: Path) -> None:
        journal = Journal(lambda: SQLStore.sqlite(path))
        slow = say("a slow answer", delay_s=0.1)  # so that the failure is known before the end
        agent = Agent(ScriptedModel(["one", slow, slow, "elsewhere"]), journal=journal)
        session = agent.session()
        agent.run_sync("first", session=session)
        before = seqs(journal, session)
        with sqlite3.connect(path) as database:
            database.execute("ALTER TABLE events RENAME TO lost")
        failed = agent.run_sync("second", session=session)
        with sqlite3.connect(path) as database:
            database.execute("ALTER TABLE lost RENAME TO events")
        later = agent.run_sync("third", session=session)

        assert (failed.status, later.status) == ("failed", "failed")
        assert "no such table" in (failed.state.error or "")
        assert re.search("an earlier record of this session .*no such table.*new session", later.state.error or "")
        assert seqs(journal, session) == before
        assert agent.run_sync("fourth").status == "completed", "another session goes on"
        journal.close()

    def test_a_failure_in_one_session_leaves_the_others_of_the_same_batch_alone(self, path: Path) -> None:
        class Flaky(SQLStore):
            """Refuses one session's second append."""

            refused = ""

            def append(self, records: Sequence[Record], *, durable: bool, token: str | None = None) -> None:
                if any(r.session_id == self.refused and r.seq == 2 for r in records):
                    raise OSError("the disk is gone")
                super().append(records, durable=durable, token=token)

        journal = Journal(lambda: Flaky.sqlite(path))
        agent = Agent(ScriptedModel([say("some text", delay_s=0.1)] * 4), journal=journal)
        bad, good = agent.session("bad"), agent.session("good")
        Flaky.refused = bad.id
        runs = [agent.start("go", session=session) for session in (bad, good, bad, good)]
        for run in runs:
            run.result(60)
        assert [run.status for run in runs] == ["failed", "completed", "failed", "completed"]
        assert "the disk is gone" in (runs[2].state.error or "")
        assert seqs(journal, bad) in ([], [1])
        assert len(journal.ask(lambda store: list(store.read(session_id=good.id, types=["RunEnded"])))) == 2
        journal.close()

    def test_what_asks_the_store_and_fails_does_not_write_the_records_before_it_twice(self, path: Path) -> None:
        journal = Journal(lambda: SQLStore.sqlite(path))
        session = Agent(ScriptedModel([]), journal=journal).session()

        def fail(store: Any) -> None:
            raise LookupError("no such thing")

        end = RunEnded(seq=1, session_id=session.id, run_id="run", step=0, at=0.0, status="completed")
        written = journal.record([end])
        asked = journal.submit(fail)
        with pytest.raises(StoreError, match="no such thing"):
            asked.result(60)
        assert written.result(60) is None and seqs(journal, session) == [1]
        journal.close()


class TestANewSession:
    class Told(SQLStore):
        """Tells what is asked of it."""

        asked: ClassVar[list[str]] = []

        def together(self, write: Any, *, durable: bool = False) -> Any:
            self.asked.append("together")
            return super().together(write, durable=durable)

        def create_session(self, session_id: str, **about: Any) -> None:
            self.asked.append("create_session")
            super().create_session(session_id, **about)

        def claim(self, session_id: str, writer: Any, *, instead_of: str | None = None) -> Any:
            self.asked.append("claim")
            return super().claim(session_id, writer, instead_of=instead_of)

        def append(self, records: Sequence[Record], *, durable: bool, token: str | None = None) -> None:
            self.asked.append("append")
            super().append(records, durable=durable, token=token)

    def test_it_is_made_and_claimed_and_its_turn_recorded_in_one_transaction(self, path: Path) -> None:
        told = self.Told
        told.asked = []
        journal = Journal(lambda: told.sqlite(path))
        agent = Agent(ScriptedModel(["one", "two", "three"]), journal=journal)
        agent.run_sync("whether anything can be recorded is asked before the model of the first is")
        assert told.asked == ["create_session", "claim", "append"]
        told.asked.clear()
        run = agent.run_sync("in another session")
        assert told.asked == ["together", "create_session", "claim", "append"]
        agent.run_sync("and once more", session=run.session)
        assert told.asked[4:] == ["append"]

        other = Journal(lambda: SQLStore.sqlite(path))
        with pytest.raises(SessionBusy):
            other.claim(run.session.id).result(60)
        other.close()
        journal.close()

    def test_no_model_is_asked_in_the_first_where_nothing_can_be_recorded(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        journal = Journal(lambda: SQLStore.sqlite(tmp_path / "file" / "journal.sqlite"))
        model = ScriptedModel(["one"])
        run = Agent(model, journal=journal).run_sync("go")
        assert run.status == "failed" and "cannot be made" in (run.state.error or "")
        assert not model.requests
        journal.close()

    def test_one_that_cannot_be_made_later_fails_its_own_run_and_no_other(self, path: Path) -> None:
        class Flaky(SQLStore):
            refused = ""

            def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
                if title == self.refused:
                    raise OSError("the disk is gone")
                super().create_session(session_id, title=title, project=project, at=at)

        journal = Journal(lambda: Flaky.sqlite(path))
        agent = Agent(ScriptedModel([say("some text", delay_s=0.1)] * 4), journal=journal)
        agent.run_sync("first")
        Flaky.refused = "bad"
        bad, good = agent.session("bad"), agent.session("good")
        runs = [agent.start("go", session=session) for session in (bad, good)]
        assert [run.result(60).status for run in runs] == ["failed", "completed"]
        assert "the disk is gone" in (runs[0].state.error or "")
        assert len(seqs(journal, good)) == len(runs[1].events) - sum("Delta" in e.type for e in runs[1].events)
        journal.close()

    def test_it_waits_for_no_run_to_be_seen_by_others(self, path: Path) -> None:
        journal, other = (Journal(lambda: SQLStore.sqlite(path)) for _ in range(2))
        session = Agent(ScriptedModel(["one"]), journal=journal).session("seen")
        deadline = time.monotonic() + 10
        while session.id not in [info.session_id for info in other.ask(lambda store: store.sessions())]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        other.claim(session.id).result(60)
        with pytest.raises(SessionBusy):
            session.send("x", agent=Agent(ScriptedModel(["one"]), journal=journal)).result(60)
        other.close()
        journal.close()


FORK = """
import os, sys
from turncell import Agent, StoreError
from turncell.adapters.scripted_model import ScriptedModel
agent = Agent(ScriptedModel(["parent", "child", "child"]))
session = agent.session()
assert agent.run_sync("x", session=session).text == "parent"
pid = os.fork()
if pid == 0:
    for attempt in (lambda: agent.run_sync("x", session=session), lambda: session.journal.flush()):
        try:
            attempt()
        except StoreError as error:
            print(error, flush=True)
    print(agent.run_sync("x").text, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.feature("A18")
def test_a_session_of_the_parent_is_refused_in_a_forked_child_instead_of_hanging() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=100, capture_output=True, text=True)
    *refusals, last = done.stdout.splitlines()
    assert done.returncode == 0 and last == "child", done.stderr
    assert len(refusals) == 2
    assert all("belongs to the parent process" in line and "begin a new session" in line for line in refusals)
