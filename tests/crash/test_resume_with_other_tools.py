"""A run that was begun by an agent with other tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.scene import Scene, Template, approve, attend, open_store, wait_for_end
from turncell import Agent
from turncell.adapters.scripted_model import ScriptedModel
from turncell.runtime.journal import Journal
from turncell.runtime.session import Session


@pytest.mark.feature("C11")
def test_a_call_whose_tool_is_gone_is_an_error_that_the_model_reads(template: Template, tmp_path: Path) -> None:
    for nth in range(5, 12):  # how much goes into one change depends on the time: until a call has begun
        (folder := tmp_path / str(nth)).mkdir()
        where = str(folder / "history.sqlite")
        wait_for_end(template.child(where=where, folder=str(folder), nth=nth, pace=0.3))
        journal = Journal(lambda where=where: open_store(where))
        session = Session.load(Scene(folder).seen()[0]["session"], journal)
        if session.interrupted is not None and {call.status for call in session.interrupted.calls} & {
            "in_doubt",
            "allowed",
        }:
            break
        journal.close()
    else:
        raise AssertionError("no call had begun at any of the changes")
    agent = Agent(ScriptedModel(["So be it."] * 3), journal=journal)
    run = attend(session.resume(agent=agent, is_attended=True), approve)
    journal.close()
    assert run.status == "completed", run.state.error
    assert all(not call.is_open for call in run.tool_calls)
    assert any("has no such tool" in (call.content or "") for call in run.tool_calls)
