"""A run that was begun by an agent with other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.scene import Scene, Template, approve, attend, open_store, wait_for_end
from turncell import Agent, UsageError
from turncell.adapters.scripted_model import ScriptedModel
from turncell.runtime.journal import Journal
from turncell.runtime.session import Session


@pytest.mark.feature("C11")
def test_an_agent_without_the_tool_of_an_open_call_does_not_go_on(template: Template, tmp_path: Path) -> None:
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
    with pytest.raises(UsageError, match=r"has open calls of .* and this agent has no such tool"):
        session.resume(agent=agent, is_attended=True)
    assert model_requests(agent) == [] and Session.load(session.id, journal).interrupted == session.interrupted
    run = attend(session.resume(agent=Scene(folder).agent(journal), is_attended=True), approve)
    journal.close()
    assert run.status == "completed", run.state.error
    assert all(not call.is_open for call in run.tool_calls)


def model_requests(agent: Agent) -> list[Any]:
    assert isinstance(agent.model, ScriptedModel)
    return list(agent.model.requests)
