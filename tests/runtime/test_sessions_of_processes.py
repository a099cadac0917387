"""Sessions and the processes that write them: one at a time, taken over when it is dead, gone on with where it stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.forks import Fork
from turncell import Agent, Run, Session, StoreError, UsageError, rulebook, runs_df, tool
from turncell.core.parts import Message, Text
from turncell.errors import ModelFailure, SessionBusy, SessionInDoubt
from turncell.runtime.loop import BackgroundLoop
from turncell.testing import ScriptedModel, call

from .pieces import LONG_S, skip, told, until

PROGRAM = """
import os, sys, time
from turncell import Agent, Session, settings, tool
from turncell.testing import ScriptedModel, call, say
outbox = os.environ["OUTBOX"]

@tool
def mail(to: str) -> str:
    "Send."
    with open(outbox, "a") as file:
        file.write(to + "\\n")
    if to == "hang":
        time.sleep(100)
    return "sent"

def wait(condition):
    while not condition():
        time.sleep(0.01)

"""
HELD = """
def held():
    print("ready", flush=True)
    sys.stdin.readline()

"""

Program = Callable[..., "subprocess.Popen[str]"]
Starts = Callable[..., Fork]


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def program(own_history: Path, outbox: Path) -> Iterator[Program]:
    """Starts a program on the same history; it waits where it says `held()` until it is told a line, and goes on."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        env = os.environ | {"OUTBOX": str(outbox), "TURNCELL_STORE": str(own_history)}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + HELD + textwrap.dedent(code), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def fork(own_history: Path, outbox: Path) -> Iterator[Starts]:
    """Starts a program on the same history that is killed where it says `held()`, at the latest after the test."""
    started: list[Fork] = []

    def start(code: str, *arguments: str) -> Fork:
        env = os.environ | {"OUTBOX": str(outbox), "TURNCELL_STORE": str(own_history)}
        started.append(Fork(PROGRAM + textwrap.dedent(code), arguments, env))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def ends(process: subprocess.Popen[str]) -> None:
    process.communicate("go on\n", timeout=LONG_S)
    assert process.returncode == 0


def speaker(*entries: Any, tools: list[Any] | None = None) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(list(entries) or ["here"])
    return Agent(model, tools=tools or []), model


def the_session() -> Session:
    (info,) = Session.list()
    return Session.load(info.session_id)


TALKS = """
session = Agent(ScriptedModel(["one", "two", "three"])).session("talk")
session.send("a").result()
"""


@pytest.mark.feature("C7")
def test_a_session_that_another_process_holds_is_refused_read_and_forked(program: Program) -> None:
    process = program(TALKS + "held()")
    session = the_session()
    agent, model = speaker()
    with pytest.raises(SessionBusy) as refused:
        agent.start("b", session=session).result()
    for word in (str(process.pid), socket.gethostname(), " since 20", session.id, "session.fork()"):
        assert word in str(refused.value)
    for change in (session.undo, session.delete, lambda: session.retry(agent=agent)):
        with pytest.raises(SessionBusy):
            change()
    assert [run.text for run in session.runs] == ["one"]
    fork = session.fork()
    agent.start("c", session=fork).result()
    assert told(model, 0) == ["a", "one", "c"]
    ends(process)


@pytest.mark.feature("C7")
@pytest.mark.parametrize("how", ["session.close(); held()", "held()"])
def test_it_is_released_on_close_and_at_the_end(program: Program, how: str) -> None:
    process = program(TALKS + how)
    if how == "held()":
        ends(process)
    session = the_session()
    assert session.journal.ask(lambda store: store.writer(session.id)) is None
    agent, model = speaker()
    agent.start("b", session=session).result()
    assert told(model, 0) == ["a", "one", "b"]


@pytest.mark.feature("C7")
def test_a_dead_writer_is_replaced_without_asking(fork: Starts) -> None:
    process = fork(TALKS + "held()")
    process.kill()
    session = the_session()
    assert session.journal.ask(lambda store: store.writer(session.id)) is not None
    agent, _ = speaker()
    assert agent.start("b", session=session).result().status == "completed"


@pytest.mark.feature("C7")
def test_a_stopped_writer_lives_and_can_be_taken_over(program: Program) -> None:
    process = program(
        TALKS + "held()\nrun = session.send('late')\ntry:\n    run.result()\nexcept Exception as e:\n    pass\n"
        "assert run.status == 'failed', run.status\n"
    )
    os.kill(process.pid, signal.SIGSTOP)
    session = the_session()
    agent, model = speaker("here", "and here")
    with pytest.raises(SessionBusy):
        agent.start("b", session=session).result()
    session.take_over()
    agent.start("b", session=session).result()
    os.kill(process.pid, signal.SIGCONT)
    ends(process)
    agent.start("c", session=session).result()
    assert told(model, 1) == ["a", "one", "b", "here", "c"]
    assert [run.text for run in Session.load(session.id).runs] == ["one", "here", "and here"]


@pytest.mark.feature("C7", "C9")
def test_what_another_process_has_said_meanwhile_is_read_before_the_next_run(program: Program) -> None:
    agent, model = speaker("first", "second", "third")
    session = agent.session("ours")
    session.send("a").result()
    session.close()
    code = (
        "session = Session.load(sys.argv[1])\nAgent(ScriptedModel(['theirs'])).start('b', session=session).result()\n"
    )
    ends(program(code + "held()", session.id))
    session.send("c").result()
    assert told(model, 1) == ["a", "first", "b", "theirs", "c"]
    session.close()
    ends(program(code + "held()", session.id))
    assert session.undo().text == "theirs"  # what is there now, not what was known
    assert [run.text for run in Session.load(session.id).runs] == ["first", "theirs", "second"]


@pytest.mark.feature("C7")
def test_deleting_leaves_a_session_alone_that_another_process_writes(fork: Starts) -> None:
    from turncell.runtime.portable import prune

    process = fork(TALKS + "held()")
    assert prune(0) == ()
    with pytest.raises(SessionBusy):
        the_session().delete()
    process.kill()
    assert len(prune(0)) == 1 and Session.list() == ()


# -- interrupted runs

ASKS = """
model = ScriptedModel([call("mail", to="ana"), [say("Now the next. ", delay_s=0.01), call("mail", to=sys.argv[1])], "done"])
session = Agent(model, tools=[mail]).session("crash")
run = session.send("go", is_attended=True)
wait(lambda: run.requests)
run.approve()
wait(lambda: run.requests and run.requests[0].step == 2)
if sys.argv[1] == "hang":
    run.approve()
    wait(lambda: "hang" in open(outbox).read())
session.journal.flush()
held()
"""


def mail_to(outbox: Path) -> Any:
    @tool
    def mail(to: str) -> str:
        """Send."""
        with open(outbox, "a", encoding="utf-8") as file:
            file.write(to + "\n")
        return "sent"

    return mail


@pytest.mark.feature("B6", "B11", "C11")
def test_a_run_that_waited_is_resumed_and_answered(fork: Starts, outbox: Path) -> None:
    fork(ASKS, "bo").kill()
    session = the_session()
    assert session.interrupted is not None and session.interrupted.status == "waiting"
    agent, model = speaker("all done", tools=[mail_to(outbox)])
    run = session.resume(agent=agent, is_attended=True)
    until(lambda: run.requests)
    assert outbox.read_text().split() == ["ana"]
    run.approve()
    run.result()
    assert run.text == "all done" and outbox.read_text().split() == ["ana", "bo"]
    assert any("The program was restarted" in text for text in told(model, 0))
    assert session.interrupted is None and runs_df(session).status.tolist() == ["completed"]
    with pytest.raises(UsageError, match="nothing was interrupted"):
        session.resume(agent=agent)


@pytest.mark.feature("B6", "B11")
def test_a_run_that_waited_is_denied_where_nobody_attends(fork: Starts, outbox: Path) -> None:
    fork(ASKS, "bo").kill()
    agent, _ = speaker("all done", tools=[mail_to(outbox)])
    run = the_session().resume(agent=agent).result()
    assert run.status == "completed" and [c.status for c in run.tool_calls] == ["ok", "denied"]
    assert outbox.read_text().split() == ["ana"]


@pytest.mark.feature("B6", "C11")
@pytest.mark.parametrize("answer", ["again", "happened", "skip"])
def test_a_write_in_doubt_is_decided_by_a_person(fork: Starts, outbox: Path, answer: str) -> None:
    fork(ASKS, "hang").kill()
    session = the_session()
    assert session.interrupted is not None and session.interrupted.status == "in_doubt"
    agent, _ = speaker("all done", tools=[mail_to(outbox)])
    run = session.resume(agent=agent, is_attended=True)
    until(lambda: run.requests)
    request = run.requests[0].request
    assert request is not None and request.kind == "in_doubt"
    if answer == "again":
        run.approve()
    elif answer == "skip":
        run.deny()
    else:
        run.answer(request.request_id, "result", digest=request.digest, result="it was sent").result()
    run.result()
    sent = ["ana", "hang", "hang"] if answer == "again" else ["ana", "hang"]
    assert run.status == "completed" and outbox.read_text().split() == sent
    status = {"again": "ok", "happened": "ok", "skip": "skipped"}[answer]
    assert run.tool_calls[-1].status == status


DELEGATES = """
inner = Agent(ScriptedModel([call("mail", to="ana"), call("mail", to=sys.argv[1])]), name="clerk", tools=[mail], mode="auto")
session = Agent(ScriptedModel([call("clerk", task="mail them")]), tools=[inner.as_tool()], mode="auto").session("crash")
run = session.send("go")
wait(lambda: os.path.exists(outbox) and sys.argv[1] in open(outbox).read())
session.journal.flush()
held()
"""


@pytest.mark.feature("A20", "B6", "C11")
@pytest.mark.parametrize("answer", ["again", "happened", "nobody attends"])
def test_a_call_is_in_doubt_where_an_agent_in_it_has_written(fork: Starts, outbox: Path, answer: str) -> None:
    fork(DELEGATES, "hang").kill()
    session = the_session()
    assert session.interrupted is not None and session.interrupted.status == "in_doubt"
    (listed,) = (info for info in Session.list() if info.session_id == session.id)
    assert listed.left == "in_doubt"
    inner = Agent(ScriptedModel([call("mail", to="bo"), "Mailed."]), name="clerk", tools=[mail_to(outbox)], mode="auto")
    agent, _ = speaker("all done", tools=[inner.as_tool()])
    if answer == "nobody attends":
        with pytest.raises(SessionInDoubt, match="clerk"):
            session.resume(agent=agent)
    else:
        run = session.resume(agent=agent, is_attended=True)
        until(lambda: run.requests)
        run.cancel("later")
        run.result()
        # It stays in doubt, in this process too, until somebody has said.
        assert [call.name for call in session.in_doubt] == [call.name for call in the_session().in_doubt] == ["clerk"]
        run = session.resume(agent=agent, is_attended=True)
        until(lambda: run.requests)
        if answer == "again":
            run.approve()
        else:
            run.reply("both were mailed")
        assert run.result().status == "completed"
    assert outbox.read_text().split() == ["ana", "hang", *(["bo"] if answer == "again" else [])]


def records(session: Session) -> int:
    return session.journal.ask(lambda store: len(list(store.read(session_id=session.id))))


@pytest.mark.feature("B6", "C11")
@pytest.mark.parametrize("how", ["say", "the same cell", "undo", "retry", "edit", "branch", "nobody attends"])
def test_nothing_replaces_or_follows_a_write_in_doubt_unseen(fork: Starts, outbox: Path, how: str) -> None:
    fork(ASKS, "hang").kill()
    session = the_session()
    before = records(session)
    agent, model = speaker(call("mail", to="hang"), "all done", tools=[mail_to(outbox)])
    (left,) = session.all_runs
    does: dict[str, Callable[[], Any]] = {
        "say": lambda: agent.start("What now?", session=session),
        "the same cell": lambda: agent.start("go", session=session, cell_id=left.cell_id, mode="auto"),
        "undo": session.undo,
        "retry": lambda: session.retry(agent=agent, mode="auto"),
        "edit": lambda: session.edit("other", agent=agent),
        "branch": lambda: session.branch(left.run_id),
        "nobody attends": lambda: session.resume(agent=agent),
    }
    with pytest.raises(SessionInDoubt, match=r"was running mail\(to='hang'\).*session.resume\(is_attended=True\)"):
        does[how]()
    again = Session.load(session.id)
    assert again.interrupted is not None and [call.name for call in again.in_doubt] == ["mail"]
    assert records(session) == before and model.requests == [] and outbox.read_text().split() == ["ana", "hang"]


@pytest.mark.feature("B6", "C11")
def test_a_message_that_waited_behind_a_write_in_doubt_is_refused(fork: Starts, outbox: Path) -> None:
    fork(ASKS, "hang").kill()
    session = the_session()
    agent, model = speaker("all done", "next", tools=[mail_to(outbox)])
    run = session.resume(agent=agent, is_attended=True)
    waiting = session.send("and then?", agent=agent)
    until(lambda: run.requests)
    run.deny()
    run.result()
    assert waiting.result().text == "next" and told(model, 1)[-1] == "and then?"


@pytest.mark.feature("A11", "B6", "C11")
@pytest.mark.parametrize("when", ["at once", "while it is asked", "by its time limit"])
def test_no_stop_decides_what_is_in_doubt(fork: Starts, outbox: Path, when: str) -> None:
    fork(ASKS, "hang").kill()
    session = the_session()
    agent, model = speaker("all done", tools=[mail_to(outbox)])
    run = session.resume(agent=agent, is_attended=True, timeout_s=30 if when == "by its time limit" else None)
    if when != "at once":
        until(lambda: run.requests)
    if when == "by its time limit":
        skip(30)
    else:
        run.cancel()
    assert run.result(LONG_S).status in ("in_doubt", "cancelled") and model.requests == []
    assert session.in_doubt and Session.load(session.id).in_doubt
    run = session.resume(agent=agent, is_attended=True)
    run.wait_request(LONG_S)
    run.reply("it was sent")
    assert run.result().status == "completed" and outbox.read_text().split() == ["ana", "hang"]


@pytest.mark.feature("A11", "C11")
def test_a_resumed_run_that_is_taken_back_leaves_the_next_one_its_turn(fork: Starts, outbox: Path) -> None:
    fork(ASKS, "bo").kill()
    session = the_session()
    agent, _ = speaker("all done", tools=[mail_to(outbox)])
    is_busy = threading.Event()
    BackgroundLoop.current().call(lambda: is_busy.wait(LONG_S))
    first = session.resume(agent=agent, is_attended=True)
    again: Future[Run] = Future()
    # The moment that it is taken back, which is before the loop has come to it.
    first.done.add_done_callback(lambda _: again.set_result(session.resume(agent=agent, is_attended=True)))
    taking_back = threading.Thread(target=first.cancel)
    taking_back.start()
    until(lambda: not len(session.queue))
    is_busy.set()
    taking_back.join(LONG_S)
    second = again.result(LONG_S)
    second.wait_request(LONG_S)
    second.approve()
    assert second.result(LONG_S).status == "completed" and first.result(LONG_S).status == "cancelled"


@pytest.mark.feature("C11")
@pytest.mark.parametrize("how", ["say", "undo", "retry", "the same cell"])
def test_an_interrupted_run_is_closed_when_something_else_is_done(fork: Starts, outbox: Path, how: str) -> None:
    fork(ASKS.replace('"go", ', '"go", cell_id="c1", '), "bo").kill()
    session = the_session()
    agent, model = speaker("all done", tools=[mail_to(outbox)])
    if how == "say":
        agent.start("What now?", session=session).result()
        assert told(model, 0)[-1].endswith("What now?") and told(model, 0)[0] == "go"
        assert any("was stopped before this call ran" in text for text in told(model, 0))
    elif how == "undo":
        assert session.undo().status == "cancelled"
    else:
        if how == "retry":
            session.retry(agent=agent).result()
        else:
            agent.start("go", session=session, cell_id="c1").result()
        (said,) = told(model, 0)
        assert said.endswith("go") and "that turn was interrupted" in said
        assert '\n- mail({"to": "ana"}): sent' in said and "bo" not in said
    again = Session.load(session.id)
    assert again.interrupted is None and again.all_runs[0].status == "cancelled"
    assert again.all_runs[0].error_kind == "interrupted" and outbox.read_text().split() == ["ana"]
    seqs = session.journal.ask(lambda store: [record.seq for record in store.read(session_id=session.id)])
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.feature("C11")
def test_a_model_that_fails_at_once_leaves_the_run_to_be_resumed_again(fork: Starts, outbox: Path) -> None:
    fork(ASKS, "bo").kill()
    agent, _ = speaker(ModelFailure("auth", "no key"), tools=[mail_to(outbox)])
    session = the_session()
    run = session.resume(agent=agent).result()
    assert (run.status, run.error) == ("interrupted", "no key") and not run.state.is_ended
    assert [one.interrupted.status for one in (session, Session.load(session.id)) if one.interrupted] == [
        "interrupted"
    ] * 2
    agent, _ = speaker("all done", tools=[mail_to(outbox)])
    run = session.resume(agent=agent).result()
    assert (run.status, run.text) == ("completed", "all done") and len(session.runs) == 1


@pytest.mark.feature("C11")
def test_an_agent_without_the_tool_of_an_open_call_is_refused_and_the_run_left_as_it_was(
    fork: Starts, outbox: Path
) -> None:
    fork(ASKS, "hang").kill()
    session = the_session()
    before = records(session)
    with pytest.raises(UsageError, match="has open calls of mail, and this agent has no such tool"):
        session.resume(agent=speaker("never")[0], is_attended=True)
    assert session.interrupted is not None and records(session) == before


@pytest.mark.feature("C7", "C11")
def test_a_run_that_goes_on_in_another_process_is_not_called_interrupted(fork: Starts, outbox: Path) -> None:
    process = fork(ASKS, "bo")
    session = the_session()
    assert session.interrupted is None and session.writer is not None and session.writer.pid == process.pid
    assert [info.left for info in Session.list()] == ["running"]
    process.kill()
    assert session.interrupted is not None and session.writer is None
    assert [info.left for info in Session.list()] == ["waiting"]


@pytest.mark.feature("C11")
def test_a_new_process_tells_the_model_once_that_variables_are_gone(program: Program) -> None:
    code = """
    @tool(effect="read")
    def look() -> str:
        "Look."
        return "seen"
    session = Agent(ScriptedModel([call("look"), "one"]), tools=[look]).session("talk")
    session.send("a").result()
    held()
    """
    ends(program(code))
    session = the_session()
    agent, model = speaker("two", "three")
    agent.start("b", session=session).result()
    agent.start("c", session=session).result()
    assert told(model, 0)[-1].startswith("[notice] The program was restarted since the last message.")
    assert told(model, 1)[-1] == "c" and session.runs[1].prompt == Message("user", (Text("b"),))
    assert [run.text for run in session.replay()] == ["one", "two", "three"]


@pytest.mark.feature("C11")
def test_a_run_that_has_been_gone_on_with_elsewhere_is_not_resumed_twice(fork: Starts, outbox: Path) -> None:
    fork(ASKS, "bo").kill()
    stale = the_session()
    agent, _ = speaker("all done", "again", tools=[mail_to(outbox)])
    the_session().resume(agent=agent).result()
    run = stale.resume(agent=agent, is_attended=True)
    with pytest.raises(UsageError, match="gone on with, or ended"):
        run.result(LONG_S)
    assert stale.interrupted is None and [r.status for r in stale.runs] == ["completed"]
    assert outbox.read_text().split() == ["ana"]


@pytest.mark.feature("C9", "B6")
def test_a_fork_leaves_out_the_run_that_is_still_going_on(fork: Starts, outbox: Path) -> None:
    process = fork(ASKS, "bo")
    session = the_session()
    fork = session.fork()
    assert fork.runs == () and fork.interrupted is None
    with pytest.raises(UsageError, match="has not ended"):
        session.fork(session.runs[-1].run_id)
    agent, _ = speaker("x", tools=[mail_to(outbox)])
    with pytest.raises(SessionBusy):
        session.resume(agent=agent).result()
    process.kill()


@pytest.mark.feature("C11")
def test_text_that_was_on_the_screen_is_told_after_a_crash(fork: Starts) -> None:
    code = """
    model = ScriptedModel([[say("It is a fine day. ", chunk=100), say("x" * 5, delay_s=50)]])
    session = Agent(model).session("stream")
    run = session.send("go")
    wait(lambda: "PartialSaved" in [event.type for event in run.events])
    session.journal.flush()
    held()
    """
    fork(code).kill()
    session = the_session()
    agent, model = speaker("so it is")
    agent.start("Again?", session=session).result()
    assert told(model, 0) == ["go", "It is a fine day. ", "Again?"]
    assert Session.load(session.id).all_runs[0].text == "It is a fine day. "


@pytest.mark.feature("C7")
def test_two_histories_of_one_process_keep_each_other_out(own_history: Path) -> None:
    from turncell.adapters.sql_store import SQLStore
    from turncell.runtime.journal import Journal

    agent, _ = speaker("one", "two")
    session = agent.session()
    session.send("a").result()
    other = Journal(lambda: SQLStore.sqlite(own_history))
    with pytest.raises(StoreError, match=f"is written by process {os.getpid()}"):
        agent.start("b", session=Session.load(session.id, other)).result()
    other.close()


@pytest.mark.feature("B7", "C11")
def test_what_a_person_asked_to_remember_is_known_after_a_crash(fork: Starts, outbox: Path) -> None:
    fork("""
    from turncell import Rule
    script = [call("mail", to="ana"), call("mail", to="bo"), call("mail", to="hang")]
    run = Agent(ScriptedModel(script), tools=[tool(mail, trusted=True)]).start("go", is_attended=True)
    run.session.remember(Rule("pay", "allow"))
    run.wait_request()
    run.approve(scope="session", where={"to": "[!b]*"})
    wait(lambda: run.status == "waiting")
    run.session.revoke(Rule("pay", "allow"))
    run.approve(scope="always", where={"to": "bo"})
    wait(lambda: open(outbox).read() == "ana\\nbo\\nhang\\n")
    held()
    """).kill()  # fmt: skip
    assert [str(rule) for rule in the_session().rules] == ["allow mail(to=[!b]*)"]
    assert [str(kept.rule) for kept in rulebook().rules()] == ["allow mail(to=bo)"]


@pytest.mark.feature("B6", "C11")
@pytest.mark.parametrize("kind", ["tool", "output"])
def test_a_call_that_ends_the_run_does_so_after_a_crash(fork: Starts, outbox: Path, kind: str) -> None:
    fork("""
    import sys
    @tool(effect="read", terminate=True)
    def finish() -> str:
        "Finish."
        return "all is done"

    kind = sys.argv[1]
    last = call("finish") if kind == "tool" else call("final_answer", value=3)
    agent = Agent(ScriptedModel([[last, call("mail", to="hang")]]), tools=[mail, finish], mode="auto")
    run = agent.start("go", output=int if kind == "output" else None)
    closed = "ok" if kind == "tool" else "allowed"  # a value waits for the calls beside it
    wait(lambda: run.tool_calls and run.tool_calls[0].status == closed and os.path.exists(outbox) and open(outbox).read())
    run.session.journal.flush()
    held()
    """, kind).kill()  # fmt: skip

    @tool
    def mail(to: str) -> str:
        """Send."""
        raise AssertionError("it has happened")

    agent, model = speaker("never said", tools=[mail])
    run = agent.resume(the_session(), is_attended=True, output=int if kind == "output" else None)
    run.wait_request()
    run.reply("sent")
    assert run.result(LONG_S).status == "completed" and model.requests == []
    assert (run.output, outbox.read_text()) == (3 if kind == "output" else None, "hang\n")
    assert run.text == ("all is done" if kind == "tool" else "3")
