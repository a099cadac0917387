"""The history tells runs that go on from those whose program is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.journals.killed import Killed
from turncell import Agent, Session, calls_df, runs_df, steps_df, tool
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.journal import Journal
from turncell.testing import ScriptedModel


@tool
def mail(to: str) -> str:
    """Send a mail."""
    return "sent"


@pytest.mark.feature("B6", "B11", "C11", "E1")
@pytest.mark.parametrize(
    ("is_writing", "going_on", "left"), [(True, "running", "in_doubt"), (False, "waiting", "waiting")]
)
def test_a_run_whose_program_was_killed_is_at_rest_until_it_is_resumed(
    tmp_path: Path, is_writing: bool, going_on: str, left: str
) -> None:
    program = Killed(tmp_path / "h.sqlite", is_writing=is_writing)
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    try:
        session = Session.load(program.session_id, journal)
        assert [*runs_df(session).status, *calls_df(session).status] == [going_on, going_on]
        program.kill()
        assert [*runs_df(session).status, *calls_df(session).status] == [left, left]

        run = session.resume(agent=Agent(ScriptedModel(["Ana has it."]), tools=[mail]), is_attended=True)
        deadline = time.monotonic() + 10
        while not run.requests and time.monotonic() < deadline:
            time.sleep(0.005)
        assert list(runs_df(session).status) == ["waiting"]
        asked = run.requests[0].request
        assert asked is not None
        run.answer(asked.request_id, "approve", digest=asked.digest).result(5)
        run.result(10)
        # Also of the run itself, whose beginning another process has recorded.
        for of in (session, run):
            assert list(runs_df(of).status) == ["completed"] and list(runs_df(of).prompt) == ["Mail Ana."]
            assert list(calls_df(of).content) == ["sent"] and len(steps_df(of)) == 2
    finally:
        program.kill()
        journal.close()
