"""Sessions in a notebook: cells that are run again, other paths, sessions of before, turns that were interrupted."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.runtime.pieces import until
from turncell.core import events as ev

from .conftest import NOTEBOOK, Kernel, start_kernel, wait_until_recorded
from .page import Page
from .test_magics import failed, printed, result, said

pytestmark = pytest.mark.newest_kernel

PROMPTS = "[m.text for m in model.requests[-1].messages]"
SESSION = "get_ipython().magics_manager.registry['TurncellMagics'].session.id"


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
def test_turns_in_a_loop_of_one_cell_follow_each_other(notebook: Kernel) -> None:
    notebook.run("script(*['A1', 'A2', 'A3', 'A4', 'A5'])")
    loop = "for text in ('a', 'b'):\n    get_ipython().run_cell_magic('agent', '-a demo', text)"
    notebook.run(loop, metadata={"cellId": "1"})
    assert notebook.value(PROMPTS) == ["a", "A1", "b"]
    turn(notebook, "c", cell_id="2")
    notebook.run(loop.replace("'b'", "'b!'"), metadata={"cellId": "1"})  # run again, each takes its own place
    assert notebook.value(PROMPTS) == ["a", "A4", "b!"]
    assert printed(notebook, "%agent undo").startswith("undone: 'b!'")
    assert printed(notebook, "%agent redo") == "back again: 'b!'; the conversation has 3 runs"


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
    assert printed(notebook, "%agent rename a better name").endswith(" is called 'a better name' now")
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
        ("%agent delete ses_x", "no session 'ses_x' in this history; %agent sessions --all lists them"),
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
def test_an_interrupted_turn_goes_on_live_after_a_restart(
    notebook: Kernel, kernel_version: str, own_history: Path
) -> None:
    first = start_kernel(kernel_version)
    try:
        first.run(NOTEBOOK.replace("HISTORY", str(own_history)))
        first.run("script([call('send_note', to='Ana')], 'never said')")
        cell = first.execute("%%agent -a demo\nTell Ana.", allow_stdin=True, metadata={"cellId": "1"})
        Page(first, cell).hear(ev.RequestOpened)
        wait_until_recorded(own_history, "RequestOpened")
    finally:
        first.client.stop_channels()
        first.manager.shutdown_kernel(now=True)
    notebook.run("script('Ana knows.', 'Yes.')")
    notebook.run("kept = send_note; del send_note")
    message = failed(notebook, "%agent resume")
    assert "had the tools send_note, and send_note is not defined in this notebook" in message
    notebook.run("send_note = kept")
    cell = notebook.execute("%agent resume -a demo", allow_stdin=True)
    page = Page(notebook, cell)
    # A resumed run begins with a snapshot: what was before stands in no event of this program.
    waiting = page.hear_message("snapshot")["run"]["steps"][-1]["calls"][-1]["request"]
    page.say("answer", request_id=waiting["request_id"], digest=waiting["digest"], decision="approve")
    assert notebook.reply(cell)["status"] == "ok"
    notebook.idle(cell)
    final = notebook.children(cell, "update_display_data")[-1]["data"]
    assert "Ana knows." in final["text/plain"] and "send_note" in final["text/html"]
    assert notebook.value("outbox, statuses()") == ([("Ana", "hello")], ["completed"])
    turn(notebook, "Does she?", cell_id="2")
    assert notebook.value(PROMPTS)[0] == "Tell Ana." and notebook.value(PROMPTS)[-1] == "Does she?"


SLOW = """
import time
from pathlib import Path

@tool
def send_note(to: str, text: str = "hello") -> str:
    \"\"\"Send a note to somebody.\"\"\"
    with open("OUTBOX", "a") as file:
        file.write(to + "\\n")
    time.sleep(SECONDS)
    return f"sent to {to}"
"""


def restarted_in_a_write(notebook: Kernel, version: str, own_history: Path, outbox: Path, script: str) -> None:
    """The notebook after a kernel that was killed while the cell "1" was sending a note."""

    def define(kernel: Kernel, seconds: int) -> None:
        kernel.run(SLOW.replace("OUTBOX", str(outbox)).replace("SECONDS", str(seconds)))

    first = start_kernel(version)
    try:
        first.run(NOTEBOOK.replace("HISTORY", str(own_history)))
        define(first, 60)
        first.run(script)
        first.execute("%%agent -a demo\nTell Ana.", metadata={"cellId": "1"})
        until(lambda: outbox.exists() and outbox.read_text())
    finally:
        first.client.stop_channels()
        first.manager.shutdown_kernel(now=True)
    define(notebook, 0)


def stop(kernel: Kernel) -> None:
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


@pytest.mark.feature("B6", "C11", "D8")
@pytest.mark.parametrize("cell_id", ["1", "2"])
def test_a_write_in_doubt_is_decided_in_the_cell_that_is_run_next(
    notebook: Kernel, kernel_version: str, own_history: Path, tmp_path: Path, cell_id: str
) -> None:
    outbox = tmp_path / "notes"
    script = "script(call('send_note', to='Ana'), 'never said', mode='auto')"
    restarted_in_a_write(notebook, kernel_version, own_history, outbox, script)
    notebook.run("script('Ana knows.', 'And now this.', mode='auto')")
    assert "[in doubt: a write had begun when the program ended]" in printed(notebook, "%agent sessions")
    options, text = ("", "Tell Ana.") if cell_id == "1" else ("--continue", "What next?")
    code = f"%%agent -a demo {options}\n{text}"
    unattended = notebook.execute(code, metadata={"cellId": cell_id})
    assert notebook.reply(unattended, timeout_s=60)["status"] == "error"
    notebook.idle(unattended)
    told = said(notebook, unattended)
    assert "in_doubt: the program ended while the last turn" in told and "send_note(to='Ana', text='hello')" in told
    assert "%agent resume" in told and notebook.value("statuses()") == ["in_doubt"]
    cell = notebook.execute(code, allow_stdin=True, metadata={"cellId": cell_id})
    page = Page(notebook, cell)
    asked = page.hear_message("snapshot")["run"]["steps"][-1]["calls"][-1]["request"]
    assert asked["kind"] == "in_doubt"
    page.say("answer", request_id=asked["request_id"], digest=asked["digest"], decision="result", result="sent")
    assert notebook.reply(cell, timeout_s=60)["status"] == "ok", said(notebook, cell)
    notebook.idle(cell)
    expected = ["completed"] if cell_id == "1" else ["completed", "completed"]
    assert notebook.value("statuses()") == expected and outbox.read_text().split() == ["Ana"]
    if cell_id == "2":
        assert notebook.value(PROMPTS)[-2:] == ["Ana knows.", "What next?"]


@pytest.mark.feature("B6", "C11", "D8")
@pytest.mark.parametrize("options", ["", "--new"])
def test_run_all_after_a_crash_does_not_repeat_the_write_that_is_in_doubt(
    notebook: Kernel, kernel_version: str, own_history: Path, tmp_path: Path, options: str
) -> None:
    outbox = tmp_path / "notes"
    script = "script(call('send_note', to='Ana'), 'never said', mode='auto')"
    restarted_in_a_write(notebook, kernel_version, own_history, outbox, script)
    left = re.findall(r"ses_\w+", printed(notebook, "%agent sessions"))[0]
    notebook.run("script('Hello.', 'Hello.', call('send_note', to='Ana'), 'Sent.', mode='auto')")
    turn(notebook, "Say hello.", cell_id="0")  # a cell above the one in which the kernel died
    code = f"%%agent -a demo {options}\nTell Ana."
    again = notebook.execute(code, metadata={"cellId": "1"})
    assert notebook.reply(again)["status"] == "error"
    notebook.idle(again)
    message = said(notebook, again)
    assert "had begun send_note" in message and f"%agent resume {left} -a AGENT" in message
    assert outbox.read_text().split() == ["Ana"]
    turn(notebook, "Hello again.", options, cell_id="2")  # only that cell has to wait
    printed(notebook, f"%agent delete {left}")
    result(notebook, notebook.execute(code, metadata={"cellId": "1"}))
    assert outbox.read_text().split() == ["Ana", "Ana"]


@pytest.mark.feature("B7", "C11", "D8")
def test_a_turn_does_not_go_on_without_the_rules_of_its_agent(
    notebook: Kernel, kernel_version: str, own_history: Path, tmp_path: Path
) -> None:
    script = (
        "from turncell import Rule\n"
        "script(call('send_note', to='Ana'), mode='auto', name='boss', rules=[Rule('delete_*', 'deny')])"
    )
    outbox = tmp_path / "notes"
    restarted_in_a_write(notebook, kernel_version, own_history, outbox, script)
    message = failed(notebook, "%agent resume")
    assert "the turn's agent 'boss' had what a record does not hold (model, rules)" in message and "-a AGENT" in message
    notebook.run("other = Agent('embedded')")
    assert "boss" in failed(notebook, "%%agent -a other --continue\nWhat next?")
    assert "has open calls of send_note, and this agent has no such tool" in failed(notebook, "%agent resume -a other")
    assert notebook.value("statuses()") == ["in_doubt"] and outbox.read_text().split() == ["Ana"]


@pytest.mark.feature("C10", "D8")
def test_retry_branch_titles_and_help(notebook: Kernel) -> None:
    notebook.run("script('A1', 'A2', 'A3')")
    turn(notebook, "a")
    turn(notebook, "b")
    assert "name the agent: -a AGENT" in failed(notebook, "%agent retry")
    result(notebook, notebook.execute("%agent retry -a demo"))
    assert notebook.value(PROMPTS) == ["a", "A1", "b"]
    first, replaced, last = printed(notebook, "%agent branch").splitlines()
    assert first.startswith("* ") and last.endswith("'b'") and last.startswith("* ") and not replaced.startswith("*")
    assert printed(notebook, f"%agent branch {first.split()[1]}").endswith("the conversation has 1 run")
    for title in ("it's mine", "-- --x"):
        printed(notebook, f"%agent rename {title}")
        assert f"  {title}" in printed(notebook, "%agent sessions")
    assert printed(notebook, "%agent help") == printed(notebook, "%agent --help")
    assert "takeover [ID]" in printed(notebook, "%agent help")
    assert "nobody else writes it" in printed(notebook, "%agent takeover")


@pytest.mark.feature("C7", "D8")
def test_a_session_is_taken_over_only_from_a_process_that_does_not_answer(
    notebook: Kernel, kernel_version: str, own_history: Path
) -> None:
    other = start_kernel(kernel_version)
    pid = other.value("__import__('os').getpid()")
    try:
        other.run(NOTEBOOK.replace("HISTORY", str(own_history)))
        other.run("script('theirs')")
        turn(other, "a")
        other.run("import turncell.runtime.defaults; turncell.runtime.defaults.journal().flush()")
        session = other.value(SESSION)
        notebook.run("script('mine', 'mine too')")
        message = failed(notebook, f"%%agent -a demo --session {session}\nb")
        assert f"process {pid} on" in message and "%%agent --fork" in message and "%agent takeover" in message
        assert re.search(r"since \S+ \S+ [+-]\d{4}", message)
        assert f"process {pid} on this machine, which is running" in failed(notebook, f"%agent takeover {session}")
        os.kill(pid, signal.SIGSTOP)
        # A thread that is in the kernel stops a little later.
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        assert f"is taken over from process {pid} on" in printed(notebook, f"%agent takeover {session}")
        turn(notebook, "b")
        assert notebook.value(PROMPTS) == ["a", "theirs", "b"]
    finally:
        os.kill(pid, signal.SIGCONT)
        stop(other)


@pytest.mark.feature("C11", "D8")
def test_a_cell_that_is_run_again_after_a_restart_goes_on_with_its_turn(
    notebook: Kernel, kernel_version: str, own_history: Path
) -> None:
    first = start_kernel(kernel_version)
    try:
        first.run(NOTEBOOK.replace("HISTORY", str(own_history)))
        first.run("script([call('send_note', to='Ana')], 'never said')")
        cell = first.execute("%%agent -a demo\nTell Ana.", allow_stdin=True, metadata={"cellId": "1"})
        Page(first, cell).hear(ev.RequestOpened)
        wait_until_recorded(own_history, "RequestOpened")
    finally:
        stop(first)
    notebook.run("script('Nobody was there.', 'other')")
    turn(notebook, "Tell Ana.", cell_id="1")
    assert notebook.value("statuses(), outbox") == (["completed"], [])
    assert "nobody is attending" in notebook.value("told()")[0]
