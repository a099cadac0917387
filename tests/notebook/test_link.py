"""The link: whatever a page gets folds to what the run is, however late it came and whatever it missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.journals.killed import Killed
from turncell import Agent, Session, tool
from turncell.adapters.sql_store import SQLStore
from turncell.core import codec
from turncell.core.fold import RunState, fold, snapshot
from turncell.notebook.link import Link
from turncell.runtime.context import ToolContext
from turncell.runtime.journal import Journal
from turncell.runtime.run import Run
from turncell.testing import ScriptedModel, call, say


class Page:
    """What a page has got; stands where the comm would be."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.snapshots: list[str] = []
        self.link = Link(self.messages.append, self.snapshots.append)

    def folded(self) -> dict[str, Any]:
        """The run as the events tell it; they must come without a gap."""
        events = [message for message in self.messages if message["type"] == "events"]
        assert [message["seq"] for message in events] == list(range(len(events)))
        state = fold((codec.decode(codec.encode(e)) for message in events for e in message["events"]), RunState())
        return plain(snapshot(state))


def plain(value: Any) -> Any:
    return codec.decode_json(codec.encode(value))


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@tool(effect="read")
def look(at: str) -> str:
    """Look."""
    return f"seen {at}"


def quick() -> Agent:
    return Agent(ScriptedModel([[say("First. "), call("look", at="x")], "Done at once."]), tools=[look])


@pytest.mark.feature("D2")
def test_a_page_that_follows_at_any_moment_misses_nothing() -> None:
    for number in range(40):
        page = Page()
        run = Agent(ScriptedModel([[say("x" * 2000, chunk=1), call("look", at="x")], "Done."]), tools=[look]).start(
            "go"
        )
        time.sleep(number / 2_000)
        page.link.follow(run)
        run.result(60)
        page.link.close().result(60)
        assert page.folded() == plain(snapshot(run.state))


def test_a_quick_stream_is_sent_in_few_messages() -> None:
    page = Page()
    run = Agent(ScriptedModel([say("word " * 600, chunk=5, delay_s=0.001)])).start("go")
    began = time.monotonic()
    page.link.follow(run)
    run.result(60)
    page.link.close().result(60)
    assert len(page.messages) <= 31 * (time.monotonic() - began) + 5
    assert page.folded() == plain(snapshot(run.state))


@pytest.mark.feature("B11", "C11")
def test_a_page_that_follows_a_resumed_run_begins_with_all_that_was_before(tmp_path: Path) -> None:
    @tool
    def mail(to: str) -> str:
        """Mail."""
        return "sent"

    program = Killed(tmp_path / "h.sqlite", is_writing=True)
    program.kill()
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    page = Page()
    run = Session.load(program.session_id, journal).resume(
        agent=Agent(ScriptedModel(["Done."]), tools=[mail]), is_attended=True
    )
    page.link.follow(run)
    until(lambda: page.messages and page.snapshots)
    (begin,) = page.messages
    assert (begin["type"], begin["seq"], begin["run"]["prompt"]) == ("snapshot", 0, "Mail Ana.")
    assert codec.decode_json(page.snapshots[-1].encode())["run"] == begin["run"]
    (asked,) = begin["run"]["steps"][0]["calls"]
    assert (asked["status"], asked["request"]["kind"]) == ("waiting", "in_doubt")

    answer = {"request_id": asked["request"]["request_id"], "digest": asked["request"]["digest"]}
    page.link.take({"type": "answer", **answer, "decision": "result", "result": "done"})
    run.result(60)
    page.link.close().result(60)
    assert {message["type"] for message in page.messages[1:]} == {"events"}
    assert [(call.status, call.content) for call in run.tool_calls] == [("ok", "done")]
    journal.close()


def waiting() -> tuple[Page, Run]:
    @tool
    def mail(to: str) -> str:
        """Mail."""
        return "sent"

    page = Page()
    run = Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mail]).start("go", is_attended=True)
    page.link.follow(run)
    until(lambda: page.snapshots and codec.decode_json(page.snapshots[-1])["run"]["status"] == "waiting")
    return page, run


def test_a_page_that_missed_something_gets_a_snapshot() -> None:
    page, run = waiting()
    page.link.take({"type": "ready", "have": -1})
    until(lambda: page.messages[-1]["type"] == "snapshot")
    assert page.messages[-1]["run"] == plain(snapshot(run.state))
    run.cancel()


def test_a_page_that_is_up_to_date_gets_nothing() -> None:
    page, run = waiting()
    before = len(page.messages)
    page.link.take({"type": "ready", "have": page.messages[-1]["seq"]})
    page.link.close().result(60)
    assert len(page.messages) == before
    run.cancel()


def test_a_checkpoint_is_there_when_something_waits() -> None:
    page, run = waiting()
    kept = codec.decode_json(page.snapshots[-1])
    assert kept["run"]["status"] == "waiting"
    run.cancel()


@pytest.mark.parametrize(
    "junk", [None, 3, "x", {}, {"type": "nothing"}, {"type": "answer"}, {"type": "ready", "have": "x"}]
)
def test_what_is_no_message_is_ignored(junk: Any) -> None:
    page, run = waiting()
    page.link.take(junk)
    page.link.close().result(60)
    assert run.status == "waiting"
    run.cancel()


def test_an_answer_that_does_not_count_is_refused_with_its_reason() -> None:
    page, run = waiting()
    request = run.requests[0].request
    assert request is not None
    wrong = {"type": "answer", "request_id": request.request_id, "digest": "0", "decision": "approve"}
    page.link.take(wrong)
    until(lambda: page.messages and page.messages[-1]["type"] == "refused")
    assert "other arguments" in page.messages[-1]["problem"]
    page.link.take(wrong | {"digest": request.digest})
    assert run.result(60).status == "completed"


def test_a_front_end_that_is_gone_does_not_end_the_run() -> None:
    def gone(content: dict[str, Any]) -> None:
        raise ConnectionError("the page is gone")

    link = Link(gone, lambda text: None)
    run = quick().start("go")
    link.follow(run)
    assert run.result(60).status == "completed"


def test_what_a_page_says_before_there_is_a_run_counts_for_it() -> None:
    page = Page()
    for content in [{"type": "hello"}, *[{"type": "ready", "have": -1}] * 50, {"type": "stop"}]:
        page.link.take(content)
    run = Agent(ScriptedModel([say("word " * 1000, delay_s=0.01)])).start("go", is_attended=True)
    page.link.follow(run)
    page.link.hello.result(60)
    assert run.result(60).status == "cancelled"


@tool(effect="read")
async def pick(context: ToolContext, allows_many: bool = False) -> str:
    """Ask which."""
    return str(await context.ask("Which?", ["Q3", "Q4"], allows_many=allows_many))


def asking(**values: Any) -> tuple[Page, Run, dict[str, Any]]:
    """A run that asks its person, and an answer that lacks the result."""
    page = Page()
    run = Agent(ScriptedModel([call("pick", **values), "Done."]), tools=[pick]).start("go", is_attended=True)
    page.link.follow(run)
    until(lambda: run.requests)
    request = run.requests[0].request
    assert request is not None and request.kind == "question"
    answer = {"type": "answer", "request_id": request.request_id, "digest": request.digest, "decision": "result"}
    return page, run, answer


@pytest.mark.feature("B10")
@pytest.mark.parametrize(
    ("allows_many", "result", "content"), [(False, "Q4", "Q4"), (True, ["Q3", "Q4"], "['Q3', 'Q4']")]
)
def test_a_question_is_answered_with_a_text_or_a_list(allows_many: bool, result: Any, content: str) -> None:
    page, run, answer = asking(allows_many=allows_many)
    page.link.take(answer | {"result": result})
    assert run.result(60).status == "completed"
    assert run.state.calls[0].content == content
    page.link.close().result(60)
    assert page.folded() == plain(snapshot(run.state))


@pytest.mark.feature("B10")
def test_an_answer_that_is_none_of_the_options_is_refused_and_the_question_stays() -> None:
    page, run, answer = asking()
    page.link.take(answer | {"result": "Q9"})
    until(lambda: page.messages and page.messages[-1]["type"] == "refused")
    assert "'Q9' is none of the answers" in page.messages[-1]["problem"]
    page.link.take(answer | {"decision": "deny"})
    assert run.result(60).status == "completed" and run.state.calls[0].request.answer == "deny"  # type: ignore[union-attr]


@pytest.mark.parametrize("odd", [{"result": 3}, {"result": [1]}, {"scope": "forever"}, {"decision": "maybe"}])
def test_an_answer_of_another_shape_is_ignored(odd: dict[str, Any]) -> None:
    page, run, answer = asking()
    page.link.take(answer | {"result": "Q3"} | odd)
    page.link.close().result(60)
    assert run.status == "waiting"
    run.cancel()


@pytest.mark.feature("B7")
def test_an_approval_for_the_session_asks_once() -> None:
    @tool(trusted=True)
    def mail(to: str) -> str:
        """Mail."""
        return "sent"

    page = Page()
    model = ScriptedModel([call("mail", to="ana"), call("mail", to="bo"), "Done."])
    run = Agent(model, tools=[mail]).start("go", is_attended=True)
    page.link.follow(run)
    until(lambda: run.requests)
    request = run.requests[0].request
    assert request is not None
    approval = {"type": "answer", "request_id": request.request_id, "digest": request.digest, "decision": "approve"}
    page.link.take(approval | {"scope": "session"})
    assert run.result(60).status == "completed"
    assert [c.requests for c in run.state.calls] == [1, 0]
    page.link.close().result(60)
    assert [note["kind"] for note in page.folded()["notes"]] == ["rule"]


def edited(page: Page) -> list[dict[str, Any]]:
    return [message for message in page.messages if message["type"] == "parameters"]


@pytest.mark.feature("B8")
def test_a_page_is_sent_the_schema_of_what_it_may_edit_before_it_is_asked_and_again_with_a_snapshot() -> None:
    page, run = waiting()
    page.link.close().result(60)
    request = run.requests[0].request
    assert request is not None
    kinds = [message["type"] for message in page.messages]
    assert kinds.index("parameters") < len(kinds) - 1
    (first,) = edited(page)
    assert (first["request_id"], first["schema"]["properties"]["to"]["type"]) == (request.request_id, "string")
    page.link.take({"type": "ready", "have": -1})
    until(lambda: len(edited(page)) == 2)
    run.cancel()


@pytest.mark.feature("B8")
def test_a_schema_that_is_too_large_for_a_form_is_not_sent() -> None:
    @tool
    def mail(to: str) -> str:
        """Mail."""
        return "sent"

    mail._parameters.schema["properties"]["to"]["description"] = "x" * 30_000  # type: ignore[index, call-overload]
    page = Page()
    run = Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mail]).start("go", is_attended=True)
    page.link.follow(run)
    until(lambda: run.requests)
    page.link.close().result(60)
    assert edited(page) == []
    run.cancel()


def researching() -> tuple[Page, Run]:
    @tool
    def fetch(url: str) -> str:
        """Load a page."""
        return f"page of {url}"

    inner = Agent(ScriptedModel([call("fetch", url="x"), "Few refunds."]), tools=[fetch], name="librarian")
    outer = Agent(
        ScriptedModel([call("librarian", task="refunds"), "Done."]), tools=[inner.as_tool(description="Find.")]
    )
    page = Page()
    run = outer.start("go", is_attended=True)
    page.link.follow(run)
    return page, run


@pytest.mark.feature("D1")
def test_a_run_inside_a_call_is_told_of_in_a_line_and_whole_to_those_who_open_it() -> None:
    page, run = researching()
    until(lambda: run.requests and any(message["type"] == "parameters" for message in page.messages))
    of_child = [message for message in page.messages if message["type"] == "parameters"]
    assert [list(message["schema"]["properties"]) for message in of_child] == [["url"]]
    request = run.requests[0].request
    assert request is not None
    child = next(message for message in page.messages if message["type"] == "child")
    assert child["agent"] == "librarian" and child["call_id"] == run.requests[0].call_id

    def inside() -> list[dict[str, Any]]:
        return [message["content"] for message in page.messages if message["type"] == "of"]

    assert inside() == []
    page.link.take({"type": "of", "run_id": child["run_id"], "content": {"type": "ready", "have": -1}})
    until(inside)
    # Who only reads does not decide, whatever it sends.
    for content in ({"type": "stop"}, {"type": "answer", "request_id": "x", "digest": "y", "decision": "approve"}):
        page.link.take({"type": "of", "run_id": child["run_id"], "content": content})
    page.link.take({"type": "of", "run_id": "run_of_others", "content": {"type": "ready", "have": -1}})
    run.answer(request.request_id, "approve", digest=request.digest).result(60)
    assert run.result(60).status == "completed"
    until(lambda: any(message.get("status") == "completed" for message in page.messages))
    last = [message for message in page.messages if message["type"] == "child"][-1]
    assert (last["status"], last["steps"], last["prompt"]) == ("completed", 2, "refunds")
    until(lambda: "Few refunds." in str(inside()))


@pytest.mark.feature("D1")
def test_a_page_is_told_that_the_model_is_being_imported() -> None:
    class Cold(ScriptedModel):
        is_cold = True

    page = Page()
    run = Agent(Cold(["Hello."])).start("go")
    page.link.follow(run)
    assert run.result(60).status == "completed"
    page.link.close().result(60)
    told = [event["type"] for message in page.messages if message["type"] == "events" for event in message["events"]]
    assert told.index("StepStarted") < told.index("WarmingUp") < told.index("TextDelta")
