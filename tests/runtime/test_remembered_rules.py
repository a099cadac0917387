"""B7: what people ask to remember for a session: for which calls, over a restart, and until it is revoked."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.test_approvals import ask, mails
from tests.runtime.test_hooks import notes
from tests.runtime.test_runs import Mailbox, until
from tests.runtime.test_sessions import has_no_gaps, stored
from turncell import Agent, AnswerRefused, Rule, Run, Session, UsageError, redact, rulebook, settings
from turncell.adapters.sql_store import SQLStore
from turncell.errors import SessionBusy
from turncell.runtime.journal import Journal
from turncell.testing import ScriptedModel, call

pytestmark = pytest.mark.feature("B7")
TO_ANA = {"to": "ana"}


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def texts(session: Session) -> list[str]:
    return [str(rule) for rule in session.rules]


def remembering(mailbox: Mailbox, *rules: Rule) -> Session:
    """A session with one run, and these rules."""
    script = [call("mail", to="ana"), "Done."] * 3
    session = Agent(ScriptedModel(script), tools=[mailbox.tool(trusted=True)], mode="never").session()
    session.send("go").result(60)
    for rule in rules:
        session.remember(rule)
    return session


class TestOverARestart:
    def test_what_was_answered_for_the_session_holds(self, mailbox: Mailbox) -> None:
        agent = Agent(
            ScriptedModel([call("mail", to="ana"), "Done.", call("mail", to="bo"), "Done."]),
            tools=[mailbox.tool(trusted=True)],
        )
        run = ask(agent)
        run.approve(scope="session")
        run.result(60)
        again = stored(run.session)
        assert texts(again) == ["allow mail"]
        assert agent.start("more", session=again).result(60).tool_calls[0].requests == 0
        assert [to for to, _ in mailbox.sent] == ["ana", "bo"] and has_no_gaps(again)

    def test_a_denial_holds_with_its_reason(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        run.deny("never mail", scope="session")
        run.result(60)
        assert stored(run.session).rules == (Rule("mail", "deny", reason="never mail"),)

    def test_the_latest_comes_first_and_takes_the_place_of_an_older_one(self, mailbox: Mailbox) -> None:
        session = remembering(mailbox, Rule("mail", "allow"), Rule("*", "ask"), Rule("mail", "deny"))
        assert texts(stored(session)) == texts(session) == ["deny mail", "ask *"]

    def test_what_was_revoked_stays_revoked(self, mailbox: Mailbox) -> None:
        session = remembering(mailbox, Rule("mail", "allow"), Rule("pay", "allow"))
        assert session.revoke(Rule("mail", "allow")) and not session.revoke(Rule("mail", "allow"))
        assert texts(stored(session)) == ["allow pay"]
        session.send("more").result(60)
        assert not mailbox.sent and has_no_gaps(session)

    def test_what_was_loaded_can_be_revoked_and_the_first_object_knows_before_it_writes(self, mailbox: Mailbox) -> None:
        session = remembering(mailbox, Rule("mail", "allow"))
        assert stored(session).revoke(Rule("mail", "allow"))
        assert session.send("more").result(60).tool_calls[0].status == "denied"
        assert session.rules == () and has_no_gaps(session)

    def test_what_is_changed_in_the_middle_of_a_run_is_recorded_with_it(self, mailbox: Mailbox) -> None:
        agent = Agent(mails("ana", "bo", "cy"), tools=[mailbox.tool(trusted=True)])
        run = ask(agent)
        run.session.remember(Rule("pay", "deny"))
        run.approve(scope="session")
        assert run.result(60).session.revoke(Rule("pay", "deny"))
        assert texts(stored(run.session)) == ["allow mail"] and has_no_gaps(run.session)
        assert [event.type for event in run.events].count("RulesChanged") == 2

    def test_what_is_remembered_before_the_first_run_is_recorded_with_it(self, mailbox: Mailbox) -> None:
        session = Agent(mails("ana"), tools=[mailbox.tool()]).session()
        session.remember(Rule("mail", "allow"))
        assert session.send("go").result(60).tool_calls[0].status == "ok"
        assert texts(stored(session)) == ["allow mail"] and has_no_gaps(session)
        assert len(Session.list(session.journal)) == 1 == Session.list(session.journal)[0].runs

    def test_an_interrupted_run_keeps_what_was_revoked_before_it_went_on(
        self, mailbox: Mailbox, tmp_path: Path
    ) -> None:
        run = ask(Agent(mails("ana", "bo"), tools=[mailbox.tool(trusted=True)]))
        run.session.remember(Rule("mail", "allow"))
        run.session.journal.flush()
        with (
            closing(sqlite3.connect(settings.current().store_path)) as now,
            closing(sqlite3.connect(tmp_path / "copy.sqlite")) as then,
        ):
            now.backup(then)
        run.cancel()
        copy = Journal(lambda: SQLStore.sqlite(tmp_path / "copy.sqlite"))
        left = Session.load(run.session.id, copy)
        left.take_over()
        left.remember(Rule("mail", "deny"))
        resumed = Agent(ScriptedModel([call("mail", to="cy"), "Done."]), tools=[mailbox.tool()], journal=copy).resume(
            left, is_attended=True
        )
        until(lambda: resumed.status == "waiting")
        resumed.deny()
        assert [one.status for one in resumed.result(60).tool_calls] == ["denied", "denied"]
        assert texts(stored(left)) == ["deny mail"] and has_no_gaps(left)
        copy.close()

    def test_a_fork_begins_without(self, mailbox: Mailbox) -> None:
        session = remembering(mailbox, Rule("mail", "allow"))
        forked = session.fork()
        assert forked.rules == () == stored(forked).rules and has_no_gaps(forked)
        assert texts(session) == ["allow mail"]

    def test_nobody_changes_them_while_another_one_writes(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        run.session.remember(Rule("mail", "allow"))
        run.session.journal.flush()
        with pytest.raises(SessionBusy):
            stored(run.session).revoke(Rule("mail", "allow"))
        assert texts(run.session) == ["allow mail"]
        run.cancel()

    @pytest.mark.parametrize("suffix", [".jsonl", ".md"])
    def test_a_file_allows_nothing_but_may_deny(self, mailbox: Mailbox, tmp_path: Path, suffix: str) -> None:
        session = remembering(mailbox, Rule("mail", "allow"), Rule("pay", "deny"), Rule("look", "ask"))
        other = Journal(lambda: SQLStore.sqlite(tmp_path / "other.sqlite"))
        found = Session.import_file(session.export(tmp_path / f"s{suffix}"), other)
        assert texts(found) == ["ask look", "deny pay"] and has_no_gaps(found) and found.runs == session.runs
        again = found.export(tmp_path / f"again{suffix}")
        other.ask(lambda store: store.delete([found.id]))
        assert texts(Session.import_file(again, other)) == ["ask look", "deny pay"]
        other.close()


class TestWhatIsAskedAtTheSameTime:
    """A person who says "for this session" on the first of three cards does not want to say it three times."""

    def three(self, mailbox: Mailbox, **options: Any) -> Run:
        script = ScriptedModel([[call("mail", to=name) for name in ("ana", "bo", "ana")], "Done."])
        return ask(Agent(script, tools=[mailbox.tool(trusted=True)], **options))

    def test_an_approval_for_the_session_answers_what_waits_beside_it(self, mailbox: Mailbox) -> None:
        run = self.three(mailbox)
        run.approve(run.requests[0], scope="session")
        run.result(60)
        assert [to for to, _ in mailbox.sent] == ["ana", "bo", "ana"] and has_no_gaps(run.session)
        asked = [one.request for one in run.tool_calls if one.request is not None]
        assert [(one.answer, one.by) for one in asked] == [("approve", "person")] * 3

    def test_and_only_what_it_holds_for(self, mailbox: Mailbox) -> None:
        run = self.three(mailbox)
        run.approve(run.requests[0], scope="session", where=TO_ANA)
        until(lambda: len(run.requests) == 1)
        assert (run.requests[0].arguments or {})["to"] == "bo"
        run.deny()
        run.result(60)
        assert [to for to, _ in mailbox.sent] == ["ana", "ana"]

    def test_an_approval_of_one_call_leaves_the_others_open(self, mailbox: Mailbox) -> None:
        run = self.three(mailbox)
        run.approve(run.requests[0])
        until(lambda: len(run.requests) == 2)
        run.cancel()

    def test_a_denial_too_and_its_reason_is_told_of_each(self, mailbox: Mailbox) -> None:
        run = self.three(mailbox)
        run.deny("no mail today", run.requests[1], scope="session")
        run.result(60)
        assert mailbox.sent == [] and all("no mail today" in (one.content or "") for one in run.tool_calls)

    def test_code_that_wants_each_to_be_asked_is_still_obeyed(self, mailbox: Mailbox) -> None:
        run = self.three(mailbox, rules=[lambda use: "ask"])
        run.approve(run.requests[0], scope="session")
        until(lambda: len(run.requests) == 2 and len(mailbox.sent) == 1)
        run.cancel()

    def test_what_sub_agents_ask_beside_it_too(self, mailbox: Mailbox) -> None:
        clerk = Agent(mails("ana"), tools=[mailbox.tool(trusted=True)], name="clerk").as_tool()
        other = Agent(mails("bo"), tools=[mailbox.tool(trusted=True)], name="other").as_tool()
        script = ScriptedModel([[call("clerk", task="x"), call("other", task="y")], "Done."])
        run = Agent(script, tools=[clerk, other]).start("go", is_attended=True)
        until(lambda: len(run.requests) == 2)
        run.approve(run.requests[0], scope="session")
        run.result(60)
        assert sorted(to for to, _ in mailbox.sent) == ["ana", "bo"]


class TestForSomeCalls:
    def test_an_approval_holds_for_the_arguments_it_names(self, mailbox: Mailbox) -> None:
        agent = Agent(mails("ana@x", "bo@x", "ana@x"), tools=[mailbox.tool(trusted=True)])
        run = ask(agent)
        run.approve(scope="session", where={"to": "ana@*"})
        until(lambda: mailbox.sent and run.status == "waiting")
        assert run.requests[0].arguments == {"to": "bo@x", "body": "hello"}
        run.deny()
        run.result(60)
        assert [to for to, _ in mailbox.sent] == ["ana@x", "ana@x"]
        assert notes(run, "rule") == ["allow mail(to=ana@*), session"]
        assert stored(run.session).rules == (Rule("mail", "allow", {"to": "ana@*"}),)

    def test_always_and_a_denial_too(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana", "bo", "ana"), tools=[mailbox.tool(trusted=True)]))
        run.deny("not her", scope="always", where=TO_ANA)
        until(lambda: run.status == "waiting")
        run.approve()
        run.result(60)
        assert [to for to, _ in mailbox.sent] == ["bo"]
        assert [kept.rule for kept in rulebook().rules()] == [Rule("mail", "deny", TO_ANA, "not her")]

    def test_it_is_held_against_the_arguments_that_run(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        with pytest.raises(AnswerRefused, match=r"to='ana', which does not match this call of mail: its to is \"bo\""):
            run.approve(arguments={"to": "bo"}, scope="session", where=TO_ANA)
        run.approve(arguments={"to": "bo"}, scope="session", where={"to": "bo"})
        run.result(60)
        assert texts(run.session) == ["allow mail(to=bo)"] and mailbox.sent == [("bo", "hello")]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"where": TO_ANA}, "use it with scope 'session' or 'always'"),
            ({"where": {"to": "bo"}, "scope": "session"}, "where says to='bo', which does not match"),
            (
                {"where": {"cc": "ana"}, "scope": "session"},
                "names 'cc', and this call of mail has the arguments to, body",
            ),
            ({"where": {"to": 3}, "scope": "always"}, "where is {'to': 3}; map names of arguments to globs"),
            ({"where": "to", "scope": "always"}, "where is 'to'; map names"),
        ],
    )
    @pytest.mark.parametrize("answer", ["approve", "deny"])
    def test_what_the_call_at_hand_does_not_match_is_told(
        self, mailbox: Mailbox, answer: str, options: Any, message: str
    ) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        with pytest.raises(AnswerRefused) as refused:
            getattr(run, answer)(**options)
        assert message in str(refused.value)
        assert run.status == "waiting" and run.session.rules == () and rulebook().rules() == ()
        run.cancel()

    def test_for_a_call_of_a_sub_agent_it_holds_in_the_session_of_the_person(self, mailbox: Mailbox) -> None:
        clerk = Agent(mails("ana", "bo"), tools=[mailbox.tool(trusted=True)], name="clerk")
        run = ask(Agent(ScriptedModel([call("clerk", task="x"), "Done."]), tools=[clerk.as_tool()]))
        with pytest.raises(AnswerRefused, match="where says to='bo'"):
            run.approve(scope="session", where={"to": "bo"})
        run.approve(scope="session", where=TO_ANA)
        until(lambda: mailbox.sent and run.status == "waiting")
        run.deny()
        run.result(60)
        assert texts(stored(run.session)) == ["allow mail(to=ana)"] and has_no_gaps(run.session)

    def test_a_secret_is_not_written_into_a_rule(self, mailbox: Mailbox) -> None:
        redact("open sesame please")
        run = ask(Agent(mails("open sesame please"), tools=[mailbox.tool()]))
        for scope in ("session", "always"):
            with pytest.raises(AnswerRefused, match="would keep a secret"):
                run.approve(scope=scope, where={"to": "open sesame please"})  # type: ignore[arg-type]
        for remember in (run.session.remember, rulebook().remember):
            with pytest.raises(UsageError, match=r"would keep a secret that stands in its arguments \(to\)"):
                remember(Rule("mail", "allow", {"to": "open sesame please"}))
        run.cancel()


def test_the_record_of_a_rule_is_plain_json(mailbox: Mailbox, tmp_path: Path) -> None:
    session = remembering(mailbox, Rule("mail", "allow", TO_ANA))
    last = json.loads(session.export(tmp_path / "s.jsonl").read_text().splitlines()[-1])
    assert last["type"] == "RulesChanged" and last["run_id"] == session.runs[-1].run_id
    assert last["rules"] == [{"tool": "mail", "verdict": "allow", "where": TO_ANA, "reason": "", "tainted": False}]
