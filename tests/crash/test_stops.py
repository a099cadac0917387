"""A process that is stopped for a while (a closed laptop), and a clock that is set."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.crash.scene import LINES, ROOT, Scene, Template, lines_of, open_store, wait_for_end
from tests.journals.play import Play
from tests.runtime.pieces import until
from turncell.core.events import PartialSaved
from turncell.core.fold import at_rest
from turncell.core.signals import Clock, Resume, Stop
from turncell.errors import SessionBusy, UsageError
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Writer
from turncell.runtime.process import has_ended
from turncell.runtime.session import Session

pytestmark = pytest.mark.feature("B11", "C7", "C11")


@pytest.fixture(params=["sqlite", "markdown"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / ("history.sqlite" if request.param == "sqlite" else "history"))


def has_seen(scene: Scene, type_name: str) -> bool:
    return any(one.get("type") == type_name for one in scene.seen())


def is_asking(journal: Journal, session_id: str) -> bool:
    """Whether a person is asked, as the history has it."""
    with suppress(UsageError):  # its beginning may be on the way
        left = Session.load(session_id, journal).left_open
        return left is not None and left.open_requests != ()
    return False


def test_a_stopped_process_keeps_its_session_and_goes_on(template: Template, where: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    journal = Journal(lambda: open_store(where))
    pid = template.child(where=where, folder=str(tmp_path), is_held=True)
    until(lambda: has_seen(scene, "RequestOpened"))
    # While it writes, a claim would not learn who writes, only that the file is locked.
    until(lambda: is_asking(journal, scene.seen()[0]["session"]))
    time.sleep(0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        session = Session.load(scene.seen()[0]["session"], journal)
        assert session.left_open is not None and session.writer is not None, "it can be read"
        assert session.interrupted is None, "its process lives, and may go on"
        with pytest.raises(SessionBusy, match=f"process {pid}"):
            journal.claim(session.id).result(60)
        time.sleep(1.5)
    finally:
        scene.go.touch()
        os.kill(pid, signal.SIGCONT)
    wait_for_end(pid)
    assert scene.seen()[-1].get("end"), (tmp_path / "log").read_text()
    assert lines_of(scene.world) == list(LINES)
    after = Session.load(session.id, journal)
    assert [run.status for run in after.runs] == ["completed", "completed"]
    journal.claim(session.id).result(60)  # given back at the end
    journal.close()


def test_a_process_that_is_stopped_while_it_writes_keeps_nobody_from_reading(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    journal = Journal(lambda: open_store(str(path)))
    session = Session.new(journal, "Readable")
    journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal = Journal(lambda: open_store(str(path)))
        assert Session.load(session.id, journal).title == "Readable"
        journal.close()


def test_a_request_whose_time_ran_out_while_the_process_was_stopped_is_denied(
    template: Template, tmp_path: Path
) -> None:
    where, scene = str(tmp_path / "history.sqlite"), Scene(tmp_path)
    pid = template.child(where=where, folder=str(tmp_path), request_timeout_s=0.8, is_answered=False, pace=0.1)
    until(lambda: has_seen(scene, "RequestOpened"))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(pid, signal.SIGCONT)
    gone_on_at = time.time()
    until(lambda: has_seen(scene, "RequestAnswered"))
    assert next(one["at"] for one in scene.seen() if one.get("type") == "RequestAnswered") - gone_on_at < 50
    wait_for_end(pid)
    assert scene.seen()[-1].get("end"), (tmp_path / "log").read_text()
    assert lines_of(scene.world) == []
    journal = Journal(lambda: open_store(where))
    session = Session.load(scene.seen()[0]["session"], journal)
    journal.close()
    puts = [call for run in session.runs for call in run.calls if call.name == "put"]
    assert {(call.status, call.request.by if call.request else "") for call in puts} == {("denied", "time limit")}


def test_text_is_saved_though_the_clock_was_set_back() -> None:
    play = Play("Tell me.")
    play.say("One, ")
    play.at -= 3600
    play.say("two, ", "three.")
    saved = "".join(event.text for event in play.events if isinstance(event, PartialSaved))
    assert saved.startswith("One, two, ")


@pytest.mark.parametrize(("jump_s", "status"), [(86_400.0, "denied"), (-86_400.0, "waiting")])
def test_a_clock_that_jumps_never_approves_anything(jump_s: float, status: str) -> None:
    play = Play("Write.")
    play.call("mail", to="ana")
    play.finish("tool_calls")
    play.judge()
    play.at += jump_s
    play.feed(Clock)
    assert play.state.run.calls[0].status == status


def test_durations_are_not_negative_though_the_clock_was_set_back() -> None:
    play = Play("Look.")
    play.call("look", at="here")
    play.at -= 60
    play.finish("tool_calls")
    play.judge("read", "allow")
    play.at -= 60
    play.returned("nothing")
    step = play.state.run.steps[0]
    assert step.duration_s == 0.0 and step.calls[0].duration_s == 0.0


def test_a_living_writer_is_known_in_every_process_and_an_ended_one_too() -> None:
    code = (
        "from turncell.runtime.process import this_writer; w = this_writer(); "
        "print(w.host, w.pid, w.born_at, flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    host, pid, born_at = child.stdout.readline().split()
    writer = Writer(token="t", host=host, pid=int(pid), born_at=float(born_at), since=0.0)
    assert not has_ended(writer)
    later = Writer(token="t", host=host, pid=int(pid), born_at=float(born_at) - 3.0, since=0.0)
    assert has_ended(later), "the same pid, of another process"
    assert not has_ended(Writer(token="t", host="elsewhere", pid=1, born_at=0.0, since=0.0)), "nobody knows"
    child.kill()
    child.wait()
    assert has_ended(writer)


class TestResumingOnTheReducer:
    def resumed(self, play: Play, *before: Any) -> Play:
        """The program of this run dies, and another one goes on."""
        again = Play("", is_begun=False)
        again.at = play.at
        for signal_ in before:
            again.feed(lambda at, s=signal_: s)
        rest, begin = at_rest(play.state.run), play.state.begin
        assert begin is not None
        again.feed(lambda at: Resume(at, begin, rest, rest.seq, {}))
        return again

    def test_a_run_of_one_step_can_be_gone_on_with(self) -> None:
        play = Play("Tell me.", max_steps=1)
        play.say("Once ", "upon ", "a time ", "there was ", "a cell ", "that ", "never ")
        again = self.resumed(play)
        again.say("Here it is.")
        again.finish()
        assert again.state.run.status == "completed" and again.state.run.text == "Here it is."

    def test_one_that_dies_again_while_a_reviewer_is_asked_goes_on_all_the_same(self) -> None:
        play = Play("Tell me.", reviews=frozenset({"step"}))
        play.say("Once ", "upon ", "a time ", "there was ", "a cell ", "that ", "never ")
        once = self.resumed(play)
        assert once.state.reviewing == "step"
        twice = self.resumed(once)
        assert not twice.state.run.is_ended, twice.state.run.error

    def test_what_was_on_the_screen_is_told_to_the_model_though_the_run_is_left(self) -> None:
        play = Play("Tell me.")
        play.say("Once ", "upon ", "a time ", "there was ", "a cell ", "that ", "never ", "ended ")
        left = self.resumed(play, Stop(play.at, "cancelled", "interrupted", "not gone on with"))
        assert left.state.run.status == "cancelled"
        assert left.state.run.messages()[-1].is_partial and left.state.run.messages()[-1].text.startswith("Once upon")
