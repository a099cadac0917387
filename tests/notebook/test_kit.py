"""The kit without a page: what its traits say, and what a page may ask for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from turncell import Agent, Budget, Journal, Session, SQLStore, UsageError, calls_df, runs_df, tool
from turncell.notebook.link import Link
from turncell.testing import ScriptedModel, call, say
from turncell.widgets import Approvals, Chat, Review, RunView, SessionBrowser, UsageMeter

pytestmark = pytest.mark.feature("D16")


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@tool
def mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def test_a_chat_says_how_its_runs_are_and_a_meter_counts_them() -> None:
    chat = Chat(Agent(ScriptedModel(["One.", "Two."]), budget={"steps": 5}))
    meter = UsageMeter(chat)
    seen: list[str] = []
    chat.observe(lambda change: seen.append(change["new"]), "text")
    first = chat.say("Count").result(60)
    until(lambda: chat.text == "One.")  # a thread of its own tells it
    second = chat.say("Go on").result(60)
    until(lambda: chat.text == "Two." and chat.status == "completed" and chat.runs_count == 2)
    assert chat.runs == [first.id, second.id]
    assert [text for text in seen if text] == ["One.", "Two."]
    until(lambda: meter.steps == 2)
    assert meter.budget == {"steps": 5}
    assert meter.cost_usd is None, "a scripted model costs nobody knows what"
    until(lambda: meter.spent == {"steps": 1})  # each run has this budget for itself


def test_a_meter_says_what_is_left_of_a_budget_that_runs_share() -> None:
    session = Agent(ScriptedModel(["One.", "Two.", "Three."], price=(1.0, 2.0)), budget=Budget(steps=2)).session()
    chat = Chat(session)
    meter = UsageMeter(chat)
    for _ in range(3):
        chat.say("Go on").result(60)
    until(lambda: chat.status == "budget" and meter.status == "budget")
    assert meter.budget == {"steps": 2} and meter.spent == {"steps": 2}
    until(lambda: Chat(session).spent == {"steps": 1})  # of a run that is read from its record


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda agent: RunView(agent), "RunView shows a Run; found Agent"),
        (lambda agent: Chat("ses_x"), "a chat needs an agent.*found 'ses_x'"),
        (lambda agent: UsageMeter(agent), "UsageMeter is of a Run, a RunView or a Chat; found Agent"),
        (lambda agent: Approvals(agent), "Approvals are of a Chat, a Run or a Session.*found Agent"),
        (lambda agent: SessionBrowser(agent), "SessionBrowser goes with a Chat; found Agent"),
        (lambda agent: Review(agent), "Review takes a DataFrame with a column run_id.*found Agent"),
        (lambda agent: Review(pd.DataFrame({"text": []})), "with a column run_id.*found the columns text"),
        (lambda agent: Review(runs_df(), columns="text"), "columns are a list of names.*found 'text'"),
        (lambda agent: Review(runs_df(), columns=["texts"]), "columns are a list of names.*found 'texts'"),
    ],
)
def test_a_widget_of_something_else_is_refused_and_does_not_look_at_it_in_vain(make: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make(Agent(ScriptedModel(["One."])))


def test_however_slow_an_observer_is_what_a_chat_says_last_is_the_latest() -> None:
    chat = Chat(Agent(ScriptedModel([say("One.", delay_s=0.2)])))

    def look_on(change: Any) -> None:
        until(lambda: chat.session.current is None)
        time.sleep(0.1)  # others have come to the end meanwhile
        looked.set()

    looked = threading.Event()
    chat.observe(look_on, "run_id")
    run = chat.say("Count").result(60)
    assert looked.wait(60)
    time.sleep(0.1)  # whoever has looked on tells the rest of what was counted then
    until(lambda: (chat.status, chat.text, chat.steps) == ("completed", "One.", 1))
    assert chat.run_id == run.id


def test_a_run_that_a_chat_started_is_attended_by_it() -> None:
    chat = Chat(Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mail]))
    inbox = Approvals()
    chat.take({"type": "send", "text": "Mail Ana"})
    until(lambda: chat.pending == 1 and chat.runs[0] in inbox.runs)
    run_id = chat.runs[0]
    run = chat.session.running
    assert run is not None
    request = run.requests[0].request
    assert request is not None
    answer = {"type": "answer", "request_id": request.request_id, "digest": "not what was shown", "decision": "approve"}
    chat.take({"type": "of", "run_id": run_id, "content": answer})
    time.sleep(0.1)
    assert run.requests, "an answer to something else is none"
    inbox.take({"type": "of", "run_id": run_id, "content": answer | {"digest": request.digest}})
    run.result(60)
    until(lambda: run_id not in inbox.runs and chat.text == "Done.")
    inbox.close()


@pytest.mark.parametrize(
    "odd", [None, 7, {}, {"type": "send"}, {"type": "of", "run_id": "x", "content": {}}, {"type": "stop"}]
)
def test_what_a_page_sends_is_only_data(odd: Any) -> None:
    chat = Chat(Agent(ScriptedModel(["One."])))
    chat.take(odd)
    time.sleep(0.05)
    assert chat.runs == []


def test_a_chat_that_is_steered_while_it_runs_begins_no_second_run() -> None:
    chat = Chat(Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mail]))
    run = chat.say("Mail Ana")
    run.wait_request(60)
    assert chat.say("Not now") is run
    run.result(60)
    assert chat.runs == [run.id]


def test_trying_again_puts_the_new_run_in_the_place_of_the_old() -> None:
    chat = Chat(Agent(ScriptedModel(["One.", "Two."])))
    first = chat.say("Count").result(60)
    again = chat.retry().result(60)
    assert chat.runs == [again.id] != [first.id]


def test_a_browser_opens_a_session_in_its_chat_and_branches_it() -> None:
    agent = Agent(ScriptedModel(["One.", "Two.", "Three."]))
    chat = Chat(agent.session("Counting"))
    first = chat.say("Count").result(60)
    chat.say("On").result(60)
    browser = SessionBrowser(chat)
    browser.selected = chat.session_id
    assert [row["prompt"] for row in browser.tree] == ["Count", "On"]
    browser.take({"type": "branch", "session_id": chat.session_id, "run_id": first.id})
    until(lambda: chat.runs == [first.id])
    until(lambda: [row["is_told"] for row in browser.tree] == [True, False])
    browser.take({"type": "resume", "session_id": "ses_of_nobody"})
    until(lambda: "ses_of_nobody" in browser.problem)


def test_a_browser_lists_no_rows_of_batches_and_says_that_a_session_is_gone() -> None:
    agent = Agent(ScriptedModel(["One.", "Two.", "Three."]))
    kept, gone = agent.session("kept"), agent.session("gone")
    for session in (kept, gone):
        session.send("Count").result(60)
    agent.map(["a row"], progress=False)
    browser = SessionBrowser()
    assert {one["title"] for one in browser.sessions} == {"kept", "gone"}
    browser.selected = gone.id
    gone.delete()
    browser.refresh()
    assert browser.tree == [] and gone.id in browser.problem
    browser.selected = kept.id
    assert len(browser.tree) == 1 and browser.problem == ""


def test_a_chat_of_a_session_that_nobody_answers_in_is_refused() -> None:
    agent = Agent(ScriptedModel(["One."]))
    session = agent.session()
    session.agent = None
    with pytest.raises(UsageError, match="needs an agent"):
        Chat(session)


def test_every_view_names_the_libraries_and_carries_only_the_loader() -> None:
    run = Agent(ScriptedModel(["One."])).run_sync("Count")
    one, other = RunView(run), RunView(run)
    chat = Chat(Agent(ScriptedModel(["One."])))
    assert one.libraries == other.libraries
    assert chat.libraries[0] == one.libraries[0] and len(chat.libraries) == 2
    assert len(str(one._esm)) < 4_000


def test_a_page_without_a_widget_manager_is_sent_the_code() -> None:
    sent: list[dict[str, Any]] = []
    view = RunView(Agent(ScriptedModel(["One."])).run_sync("Count"))
    link = Link(sent.append, lambda _: None)
    link.take({"type": "fetch_code", "library": view.libraries[0]})
    until(lambda: any(message["type"] == "code" for message in sent))
    message = next(message for message in sent if message["type"] == "code")
    assert "export" in message["code"] and ".tc" in message["sheet"]
    assert not link.hello.done(), "who has no code yet shows nothing"


def test_a_session_listed_elsewhere_can_be_shown() -> None:
    agent = Agent(ScriptedModel(["One."]))
    before = Chat(agent)
    before.say("Count").result(60)
    chat = Chat(agent)
    chat.show(before.session_id)
    assert chat.runs == before.runs
    assert isinstance(chat.session, Session)


class TestReview:
    def told(self, review: Review, monkeypatch: pytest.MonkeyPatch) -> str:
        """What a page gets that asks for the chosen run."""
        sent: list[Any] = []
        monkeypatch.setattr(review, "send", sent.append)
        review.take({"type": "of", "run_id": review.selected_run, "content": {"type": "ready", "have": None}})
        until(lambda: sent)
        return str(sent)

    def test_the_run_of_the_chosen_row_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = Agent(ScriptedModel(["A noun.", "A verb."]))
        words = agent.map(pd.DataFrame({"text": ["sun", "run", None]}), concurrency=1, progress=False)
        words["at"] = [1.23456789, float("nan"), 2.0]
        review = Review(words)
        assert review.columns == ["text", "answer", "status", "error", "tokens", "cost_usd", "at"]
        assert [row[0] for row in review.rows] == ["sun", "run", ""] and review.rows_count == 3
        assert [row[-1] for row in review.rows] == ["1.23457", "", "2"]
        assert (review.selected, review.selected_run, review.runs) == (-1, "", [])
        chosen: list[str] = []
        review.observe(lambda change: chosen.append(change["new"]), "selected_run")
        review.selected = 1
        assert chosen == review.runs == [words.run_id[1]] and review.shown == 1
        assert "A verb." in self.told(review, monkeypatch)
        review.selected = 2
        assert (review.runs, review.problem, review.shown) == ([], "no run has begun for this row", 2)
        review.selected = 0
        assert review.problem == "" and "A noun." in self.told(review, monkeypatch)

    def test_a_run_may_stand_in_several_rows_and_a_filtered_table_keeps_its_order(self) -> None:
        session = Agent(ScriptedModel([call("mail", to="ana"), call("mail", to="bo"), "Done."]), tools=[mail]).session()
        run = session.send("Mail them", mode="auto").result(60)
        calls = calls_df(session).sort_values("call_id", ascending=False)
        review = Review(calls, columns=["name", "arguments"], selected=1)
        assert review.rows[1] == ["mail", str(calls.arguments.iloc[1])] and review.selected_run == run.id

    def test_a_run_that_goes_on_is_shown_live(self) -> None:
        run = Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mail]).start("Mail Ana", is_attended=True)
        run.wait_request(60)
        review = Review(runs_df(run), selected=0)
        assert review.runs == [run.id]
        request = run.requests[0].request
        assert request is not None
        answer = {"type": "answer", "request_id": request.request_id, "digest": request.digest, "decision": "approve"}
        review.take({"type": "of", "run_id": run.id, "content": answer})
        assert run.result(60).text == "Done."

    def test_its_text_holds_no_secrets_and_a_run_of_elsewhere_is_told(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTES_API_KEY", "hunter2-hunter2")
        here = Agent(ScriptedModel(["Fine."])).run_sync("go")
        table = pd.DataFrame({"run_id": [here.id, "run_of_nobody"], "note": ["it is hunter2-hunter2", None]})
        review = Review(table, selected=1)
        assert review.rows == [["it is [redacted: NOTES_API_KEY]"], [""]]
        assert review.problem == "there is no run 'run_of_nobody' in this history" and review.runs == []
        elsewhere = Journal(lambda: SQLStore.sqlite(tmp_path / "other.sqlite"))
        assert "there is no run" in Review(table, journal=elsewhere, selected=0).problem
        elsewhere.close()

    def test_a_long_table_is_shown_in_part(self) -> None:
        run = Agent(ScriptedModel(["Fine."])).run_sync("go")
        review = Review(pd.DataFrame({"run_id": [run.id] * 1_200, "n": range(1_200)}), selected=1_100)
        assert (len(review.rows), review.rows_count, review.selected_run) == (1_000, 1_200, run.id)
