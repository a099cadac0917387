"""Kernels and one history: two that write at once, and one that is stopped for a while, as by the lid of a laptop.

A claim has no lifetime: it holds as long as its process lives, however long that one is stopped, and until somebody takes
it over. So there is no time whose passing could make two writers.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.runtime.pieces import until
from turncell import Agent, Session, tool
from turncell.adapters.sql_store import SQLStore
from turncell.errors import SessionBusy, SessionInDoubt
from turncell.runtime.journal import Journal
from turncell.testing import ScriptedModel

from .conftest import DEFAULT_VERSIONS, Kernel, start_kernel

pytestmark = [pytest.mark.newest_kernel, pytest.mark.feature("C7", "C8", "B6")]

SETUP = """
import json, os, time
import turncell.settings
from turncell import Agent, Settings, tool
from turncell.testing import ScriptedModel, call, say

turncell.settings.use(Settings(store=HISTORY))

@tool
def put(line: str) -> str:
    "Write a line."
    file = os.open(WORLD, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\\n")
    os.close(file)
    while line == HELD and not os.path.exists(WORLD + ".go"):
        time.sleep(0.01)
    return "wrote " + line
"""

WRITE = """
def answer(request):
    asked = request.messages[-1]
    return [call("put", line=asked.text)] if asked.role == "user" else say("done, and that at some length. " * 20)

agent = Agent(ScriptedModel(answer), tools=[put], mode="auto")
sessions = [agent.session(f"{ME} {n}") for n in range(3)]
done, until, number = [], time.monotonic() + SECONDS, 0
while time.monotonic() < until or len(done) < 12:
    started = []
    for session in sessions:
        number += 1
        started.append(agent.start(f"{ME} {number}", session=session))
    done += [(run.result(60).status, str(run.state.error)) for run in started]
for session in sessions:
    session.close()
"""


def setup(own_history: Path, world: Path, held: str = "") -> str:
    """The tool is at work on the line `held` until a file says go."""
    return f"HISTORY, WORLD, HELD = {str(own_history)!r}, {str(world)!r}, {held!r}\n{SETUP}"


@pytest.fixture
def two_kernels() -> Iterator[list[Kernel]]:
    """Of the first and the last version that is tested."""
    versions = (os.environ.get("TURNCELL_KERNELS") or DEFAULT_VERSIONS).split(",")
    started = [start_kernel(version.strip()) for version in (versions[0], versions[-1])]
    yield started
    for kernel in started:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


def numbers_of(path: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for session_id, seq in connection.execute("SELECT session_id, seq FROM events ORDER BY session_id, seq"):
            found.setdefault(session_id, []).append(seq)
    return found


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=pytest.mark.full)])
def test_two_kernels_write_one_history_and_nothing_is_lost_doubled_or_locked(
    two_kernels: list[Kernel], own_history: Path, tmp_path: Path, seconds: float
) -> None:
    world = tmp_path / "world"
    for number, kernel in enumerate(two_kernels):
        kernel.run(f"{setup(own_history, world)}\nME, SECONDS = 'kernel-{number}', {seconds}")
    cells = [(kernel, kernel.execute(WRITE)) for kernel in two_kernels]
    for kernel, cell in cells:
        assert kernel.reply(cell, timeout_s=seconds + 60)["status"] == "ok", kernel.printed(cell)
        kernel.idle(cell)
        assert kernel.printed(cell) == "", "something was complained of"
    done = [kernel.value("len(done), [one for one in done if one[0] != 'completed'][:5]") for kernel in two_kernels]
    assert [others for _, others in done] == [[], []], "not every run is completed"
    assert all(count > 10 for count, _ in done), "one of them hardly got to write"
    runs = sum(count for count, _ in done)
    lines = Counter(world.read_text().splitlines())
    assert len(lines) == runs and set(lines.values()) == {1}
    numbers = numbers_of(own_history)
    assert len(numbers) == 6 and all(seqs == list(range(1, len(seqs) + 1)) for seqs in numbers.values())
    journal = Journal(lambda: SQLStore.sqlite(own_history))
    sessions = [Session.load(session_id, journal) for session_id in numbers]
    journal.close()
    kept = [run for session in sessions for run in session.runs]
    assert {run.status for run in kept} == {"completed"}
    assert Counter(run.prompt.text for run in kept if run.prompt) == lines
    assert Counter(call.arguments["line"] for run in kept for call in run.calls if call.arguments) == lines


LINES = ["a", "b", "c", "d"]
TURN = """
steps = [[call("put", line=line)] for line in LINES]
agent = Agent(ScriptedModel([*steps, "All is written."]), tools=[put], mode="auto")
session = agent.session("Under a lid")
run = agent.start("Write them.", session=session)
print(session.id, flush=True)
run.result(60)
session.close()
"""


class Lid:
    """A kernel in the middle of a turn, which can be stopped as a laptop does it."""

    def __init__(self, kernel: Kernel, own_history: Path, world: Path) -> None:
        kernel.run(f"{setup(own_history, world, LINES[1])}\nLINES = {LINES!r}")
        self.kernel, self.world = kernel, world
        self.pid: int = kernel.value("os.getpid()")
        self.cell = kernel.execute(TURN)
        kernel.hear(lambda: "ses_" in kernel.printed(self.cell), "the session")
        self.session_id = kernel.printed(self.cell).split()[0]

    def lines(self) -> list[str]:
        return self.world.read_text().splitlines() if self.world.exists() else []

    def close(self) -> None:
        """While the tool is at work on the second line, and nothing of it is being recorded."""
        until(lambda: len(self.lines()) == 2)
        time.sleep(0.3)
        os.kill(self.pid, signal.SIGSTOP)

    def open(self) -> None:
        Path(f"{self.world}.go").touch()
        os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def lid(kernel: Kernel, own_history: Path, tmp_path: Path) -> Iterator[Lid]:
    lid = Lid(kernel, own_history, tmp_path / "world")
    yield lid
    lid.open()  # a stopped process cannot be ended


@pytest.fixture
def journal(own_history: Path) -> Iterator[Journal]:
    journal = Journal(lambda: SQLStore.sqlite(own_history))
    yield journal
    journal.close()


@pytest.mark.feature("B11")
def test_a_turn_goes_on_after_the_lid_was_closed_and_its_session_was_nobody_elses_meanwhile(
    lid: Lid, journal: Journal, own_history: Path
) -> None:
    lid.close()
    with pytest.raises(SessionBusy, match=f"is written by process {lid.pid} on"):
        journal.claim(lid.session_id).result(60)
    there = Session.load(lid.session_id, journal)
    assert len(there.runs) == 1 and there.writer is not None and there.writer.pid == lid.pid, "it can be read"
    time.sleep(4)
    with pytest.raises(SessionBusy, match=f"is written by process {lid.pid} on"):
        journal.claim(lid.session_id).result(60)
    assert lid.lines() == LINES[:2]
    lid.open()
    assert lid.kernel.reply(lid.cell, timeout_s=60)["status"] == "ok"
    assert lid.kernel.value("run.status, run.text") == ("completed", "All is written.")
    assert lid.lines() == LINES
    (numbers,) = numbers_of(own_history).values()
    assert numbers == list(range(1, len(numbers) + 1))
    found = Session.load(lid.session_id, journal)
    assert [(run.status, len(run.calls)) for run in found.runs] == [("completed", 4)]
    journal.claim(lid.session_id).result(60)  # given back at the end


@pytest.mark.feature("B11")
def test_a_kernel_whose_session_was_taken_over_under_the_lid_writes_nothing_more(
    lid: Lid, journal: Journal, own_history: Path
) -> None:
    lid.close()
    session = Session.load(lid.session_id, journal)
    session.take_over()

    @tool
    def put(line: str) -> str:
        """Write a line."""
        raise AssertionError("it is skipped")

    other = Agent(ScriptedModel(["So be it.", "I go on from here.", "Still me."]), tools=[put], journal=journal)
    with pytest.raises(SessionInDoubt, match="was running put"):
        other.start("Who is there?", session=session)
    run = session.resume(agent=other, is_attended=True)
    run.wait_request(60)
    run.deny()
    assert run.result(60).text == "So be it."
    assert other.start("Who is there?", session=session).result().status == "completed"
    (before,) = numbers_of(own_history).values()
    lid.open()
    assert lid.kernel.reply(lid.cell, timeout_s=60)["status"] == "ok"
    status, error = lid.kernel.value("run.status, str(run.state.error)")
    assert status == "failed" and f"is written by process {os.getpid()} on" in error
    assert lid.lines() == LINES[:2], "the old process has called a tool again"
    assert other.start("And now?", session=session).result().text == "Still me."
    (after,) = numbers_of(own_history).values()
    assert after == list(range(1, len(after) + 1)) and len(after) > len(before)
    found = Session.load(lid.session_id, journal)
    assert [run.prompt.text for run in found.runs if run.prompt] == ["Write them.", "Who is there?", "And now?"]
    assert [run.status for run in found.runs][:2] == ["completed", "completed"]
    writer = journal.ask(lambda store: store.writer(lid.session_id))
    assert writer is not None and writer.pid == os.getpid()
