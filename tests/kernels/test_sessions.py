"""Sessions in a notebook: cells that are run again, other paths, sessions of before, turns that were interrupted."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from turncell.core import events as ev

from .conftest import NOTEBOOK, Kernel, start_kernel
from .page import Page
from .test_magics import failed, printed, result

PROMPTS = "[m.text for m in model.requests[-1].messages]"
SESSION = "get_ipython().magics_manager.registry['AgentMagics'].session.id"


def turn(kernel: Kernel, text: str, options: str = "", cell_id: str | None = None) -> None:
    metadata = None if cell_id is None else {"cellId": cell_id}
    result(kernel, kernel.execute(f"%%agent -a demo {options}\n{text}", metadata=metadata))


@pytest.mark.feature("C10", "D8")
def test_a_cell_that_is_run_again_replaces_its_turn(notebook: Kernel) -> None:
    notebook.run("script('A1', 'A2', 'A3', 'A4', 'A5')")
    for cell_id, text in [("1", "a"), ("2", "b"), ("3", "c"), ("2", "b!")]:
        turn(notebook, text, cell_id=cell_id)
    assert notebook.value(PROMPTS) == ["a", "A1", "b!"]
    turn(notebook, "d", cell_id="4")
    assert notebook.value(PROMPTS) == ["a", "A1", "b!", "A4", "c", "A3", "d"]
    assert notebook.value("len(runs_df())") == 5


@pytest.mark.feature("C10", "D8")
def test_undo_redo_and_fork(notebook: Kernel) -> None:
    notebook.run("script('A1', 'A2', 'A3', 'A4')")
    assert "this notebook has no session yet" in failed(notebook, "%agent undo")
    turn(notebook, "a")
    turn(notebook, "b")
    assert printed(notebook, "%agent undo") == "undone: 'b'; the conversation has 1 run left"
    assert printed(notebook, "%agent redo") == "back again: 'b'; the conversation has 2 runs"
    assert "there is nothing to redo" in failed(notebook, "%agent redo")
    first = notebook.value(SESSION)
    assert "goes on in the copy, which has 2 runs" in printed(notebook, "%agent fork")
    turn(notebook, "c")
    assert notebook.value(PROMPTS) == ["a", "A1", "b", "A2", "c"] and notebook.value(SESSION) != first
    turn(notebook, "d", f"--session {first} --fork")
    assert notebook.value(PROMPTS) == ["a", "A1", "b", "A2", "d"] and notebook.value(SESSION) != first
    assert len(re.findall(r"ses_\w+", printed(notebook, "%agent sessions"))) == 3


@pytest.mark.feature("C9", "D8")
def test_sessions_are_listed_chosen_renamed_and_deleted(notebook: Kernel) -> None:
    notebook.run("script('A1', 'A2', 'A3', 'A4')")
    assert printed(notebook, "%agent sessions") == "none yet"
    turn(notebook, "first words")
    first = notebook.value(SESSION)
    turn(notebook, "others", "--new")
    second = notebook.value(SESSION)
    assert printed(notebook, "%agent rename a better name") == ""
    one, two = printed(notebook, "%agent sessions --all").splitlines()
    assert one.startswith(f"* {second}") and "a better name" in one and first in two and "first words" in two
    turn(notebook, "b", f"--session {first}")
    assert notebook.value(PROMPTS) == ["first words", "A1", "b"]
    notebook.run("%agent new")
    turn(notebook, "c", "--continue")
    assert notebook.value(PROMPTS) == ["first words", "A1", "b", "A3", "c"]
    assert printed(notebook, f"%agent delete {second}") == f"{second} is deleted"
    assert "0 sessions deleted" in printed(notebook, "%agent sessions prune --older 90d")
    assert first in printed(notebook, "%agent sessions") and second not in printed(notebook, "%agent sessions")
    printed(notebook, f"%agent delete {first}")
    assert "none yet" in printed(notebook, "%agent status")


@pytest.mark.feature("C9", "D8", "D12")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%agent -a demo --new --continue\nHello", "--new and --continue do not go together"),
        ("%%agent -a demo --new --fork\nHello", "--new and --fork do not go together"),
        ("%%agent -a demo --continue\nHello", "there is no session of the folder"),
        ("%%agent -a demo --session ses_x\nHello", "there is no session 'ses_x' in this history"),
        ("%%agent -a demo --fork\nHello", "this notebook has no session to fork yet"),
        ("%agent resume", "there is no session of the folder"),
        ("%agent resume ses_x", "there is no session 'ses_x'"),
        ("%agent resume a b", "%agent resume: unrecognized arguments: b; write %agent resume [ID] [-a AGENT]"),
        ("%agent delete ses_x", "there is no session 'ses_x'"),
        ("%agent delete", "write %agent delete ID"),
        ("%agent rename", "a title is missing"),
        ("%agent sessions prune", "say how old"),
        ("%agent sessions prune --older soon", "write a number of hours, days or weeks"),
        ("%agent sessions dance", "%agent sessions: argument prune: invalid choice: 'dance'"),
    ],
)
def test_a_mistake_is_told_in_one_line(notebook: Kernel, cell: str, message: str) -> None:
    notebook.run("script('never said')")
    assert message in failed(notebook, cell)
    assert notebook.value("statuses()") == [] and printed(notebook, "%agent sessions --all") == "none yet"


@pytest.mark.feature("C9")
@pytest.mark.parametrize("name", ["whole.jsonl", "whole.md"])
def test_a_session_is_exported_whole_and_imported(notebook: Kernel, tmp_path: Path, name: str) -> None:
    notebook.run("script('A1', 'A2')")
    turn(notebook, "a")
    path = tmp_path / name
    told = printed(notebook, f"%agent export --session {path}")
    assert told == f"{path}\nthe session whole; %agent import reads it"
    session = notebook.value(SESSION)
    printed(notebook, f"%agent delete {session}")
    told = printed(notebook, f"%agent import {path}")
    assert told.startswith(f"{session}: ") and told.endswith(
        f"1 run; go on with %agent resume {session}, or %%agent --session {session}"
    )
    assert "1 run; the next cell goes on" in printed(notebook, f"%agent resume {session}")
    turn(notebook, "b")
    assert notebook.value(PROMPTS) == ["a", "A1", "b"]


@pytest.mark.feature("B11", "C11", "D8")
def test_an_interrupted_turn_goes_on_live_after_a_restart(kernel_version: str, own_history: Path) -> None:
    setup = NOTEBOOK.replace("HISTORY", str(own_history))
    first = start_kernel(kernel_version)
    try:
        first.run(setup)
        first.run("script([call('send_note', to='Ana')], 'never said')")
        cell = first.execute("%%agent -a demo\nTell Ana.", allow_stdin=True, metadata={"cellId": "1"})
        Page(first, cell).hear(ev.RequestOpened)
        time.sleep(0.5)  # what is on the screen for so long is on the disk
    finally:
        first.client.stop_channels()
        first.manager.shutdown_kernel(now=True)
    second = start_kernel(kernel_version)
    try:
        second.run(setup)
        second.run("script('Ana knows.', 'Yes.')")
        second.run("kept = send_note; del send_note")
        message = failed(second, "%agent resume")
        assert "had the tools send_note, and send_note is not defined in this notebook" in message
        second.run("send_note = kept")
        cell = second.execute("%agent resume -a demo", allow_stdin=True)
        page = Page(second, cell)
        # A resumed run begins with a snapshot: what was before stands in no event of this program.
        waiting = page.hear_message("snapshot")["run"]["steps"][-1]["calls"][-1]["request"]
        page.say("answer", request_id=waiting["request_id"], digest=waiting["digest"], decision="approve")
        assert second.reply(cell)["status"] == "ok"
        second.idle(cell)
        final = second.children(cell, "update_display_data")[-1]["data"]
        assert "Ana knows." in final["text/plain"] and "send_note" in final["text/html"]
        assert second.value("outbox, statuses()") == ([("Ana", "hello")], ["completed"])
        turn(second, "Does she?", cell_id="2")
        assert second.value(PROMPTS)[0] == "Tell Ana." and second.value(PROMPTS)[-1] == "Does she?"
    finally:
        second.client.stop_channels()
        second.manager.shutdown_kernel(now=True)
