"""B3, B7, B8, B9, B13: who decides about a call, for how long, and what the model is told."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.runtime.pieces import LONG_S, until
from tests.runtime.test_hooks import notes, read
from tests.runtime.test_runs import Mailbox, weather
from turncell import Agent, AnswerRefused, Check, Hooks, Rule, ToolUse, rulebook, settings, tool
from turncell.core.events import CallProposed, Event, RequestOpened
from turncell.runtime.run import Run
from turncell.testing import ScriptedModel, call


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def ask(agent: Agent, **options: Any) -> Run:
    """An attended run that waits for a person."""
    run = agent.start("go", is_attended=True, **options)
    until(lambda: run.status == "waiting" or run.is_done)
    assert run.status == "waiting", run.state
    return run


def mails(*to: str) -> ScriptedModel:
    return ScriptedModel([*(call("mail", to=name) for name in to), "Done."])


@pytest.mark.feature("B3")
class TestChecks:
    @pytest.mark.parametrize(
        ("said", "mode", "status"),
        [
            ("deny", "auto", "denied"), (Check("deny", "no"), "auto", "denied"), ("allow", "ask", "ok"),
            ("allow", "plan", "denied"), ("allow", "never", "denied"), (None, "auto", "ok"), ("ask", "auto", "denied"),
            (None, "ask", "denied"), ("perhaps", "auto", "denied"), (True, "auto", "denied"),
        ],
    )  # fmt: skip
    def test_with_each_mode_where_nobody_attends(self, mailbox: Mailbox, said: Any, mode: Any, status: str) -> None:
        model = ScriptedModel([call("mail", to="ana"), "Done."])
        run = Agent(model, tools=[mailbox.tool(check=lambda to, body: said)], mode=mode).run_sync("go")
        assert run.tool_calls[0].status == status and len(mailbox.sent) == (status == "ok")

    def test_a_rule_cannot_overrule_its_denial_and_the_model_reads_why(self, mailbox: Mailbox) -> None:
        async def no_rivals(to: str, body: str) -> Check | None:
            return Check("deny", "No mail to rivals.", ["rival.example is on the list"]) if "rival" in to else None

        run = Agent(
            mails("bo@rival.example"), tools=[mailbox.tool(check=no_rivals)], rules=[Rule("mail", "allow")]
        ).run_sync("go")
        assert run.tool_calls[0].status == "denied" and not mailbox.sent
        assert "No mail to rivals. rival.example is on the list" in read(run)

    def test_its_ask_stops_what_was_remembered_but_not_a_rule_in_code(self, mailbox: Mailbox) -> None:
        agent = Agent(mails("ana"), tools=[mailbox.tool(check=lambda to, body: "ask")])
        session = agent.session()
        session.remember(Rule("mail", "allow"))
        run = ask(agent, session=session)
        run.deny()
        run.result(60)
        Agent(mails("ana"), tools=[mailbox.tool(check=lambda to, body: "ask")], rules=[Rule("mail", "allow")]).run_sync(
            "go"
        )
        assert mailbox.sent == [("ana", "hello")]

    @pytest.mark.parametrize("mode", ["ask", "auto"])
    def test_one_that_raises_or_exits_denies_whatever_else_allows(self, mailbox: Mailbox, mode: Any) -> None:
        def broken(to: str, body: str) -> str:
            return exit(1) if to == "ana" else str(1 / 0)

        run = Agent(
            ScriptedModel([[call("mail", to="ana"), call("mail", to="bo")], "Done."]), mode=mode,
            tools=[mailbox.tool(check=broken)], rules=[Rule("mail", "allow")],
        ).run_sync("go")  # fmt: skip
        assert run.status == "completed" and not mailbox.sent
        assert [c.status for c in run.tool_calls] == ["denied", "denied"]
        assert "ZeroDivisionError" in run.tool_calls[1].reason

    def test_one_that_stalls_denies(self, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("turncell.runtime.hooks.HOOK_TIMEOUT_S", 0.1)
        release = threading.Event()
        tools = [mailbox.tool(check=lambda to, body: release.wait(20))]
        run = Agent(mails("ana"), tools=tools, mode="auto").start("go").result(60)
        release.set()
        assert run.tool_calls[0].status == "denied" and not mailbox.sent
        assert "it failed: TimeoutError: no answer within 0.1 s" in run.tool_calls[0].reason

    def test_a_rule_that_stalls_denies_and_says_why(self, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("turncell.runtime.hooks.HOOK_TIMEOUT_S", 0.1)

        async def ask_elsewhere(call: Any) -> str:
            await asyncio.sleep(20)
            return "allow"

        run = Agent(mails("ana"), tools=[mailbox.tool()], mode="auto", rules=[ask_elsewhere]).start("go").result(60)
        assert run.tool_calls[0].status == "denied" and not mailbox.sent
        assert "the rule ask_elsewhere failed: TimeoutError: no answer within 0.1 s" in run.tool_calls[0].reason

    def test_the_card_shows_an_async_preview(self, mailbox: Mailbox) -> None:
        async def preview(to: str, body: str) -> str:
            return f"{len(body)} characters to {to}"

        run = ask(Agent(mails("ana"), tools=[mailbox.tool(preview=preview)]))
        assert run.requests[0].request and run.requests[0].request.preview == "5 characters to ana"
        run.cancel()


@pytest.mark.feature("B3")
class TestOnDenied:
    def test_its_words_reach_the_model(self, mailbox: Mailbox) -> None:
        async def told(arguments: dict[str, Any], reason: str) -> str:
            return f"Nobody mails {arguments['to']} ({reason}). Write a letter."

        run = ask(Agent(mails("ana"), tools=[mailbox.tool(on_denied=told)]))
        run.deny("too late")
        run.result(60)
        assert read(run) == "Nobody mails ana (too late). Write a letter."
        assert run.tool_calls[0].status == "denied"

    def test_it_is_asked_too_where_a_rule_denies(self, mailbox: Mailbox) -> None:
        run = Agent(
            mails("ana"), tools=[mailbox.tool(on_denied=lambda arguments, reason: f"So: {reason}")],
            rules=[Rule("mail", "deny", reason="by law")],
        ).run_sync("go")  # fmt: skip
        assert read(run) == "So: by law"

    @pytest.mark.parametrize("broken", [lambda a, r: 1 / 0, lambda a, r: 3, lambda a, r: exit(1)])
    def test_one_that_fails_is_noted_and_leaves_the_usual_words(self, mailbox: Mailbox, broken: Any) -> None:
        run = Agent(mails("ana"), tools=[mailbox.tool(on_denied=broken)], mode="plan").run_sync("go")
        assert run.status == "completed" and "mail was not run: denied by mode plan" in read(run)
        assert "on_denied of mail raised" in notes(run)[0]


@pytest.mark.feature("B7")
class TestRules:
    def test_the_first_that_matches_decides(self, mailbox: Mailbox) -> None:
        rules = [Rule("mail", "allow", {"to": "ana"}), Rule("mail", "deny", reason="only ana"), Rule("*", "allow")]
        run = Agent(mails("ana", "bo"), tools=[mailbox.tool()], rules=rules).run_sync("go")
        assert mailbox.sent == [("ana", "hello")] and "only ana" in run.tool_calls[1].reason

    def test_a_function_is_asked_in_its_place(self, mailbox: Mailbox) -> None:
        asked: list[str] = []

        async def office_hours(use: ToolUse) -> str | None:
            asked.append(str(use.arguments["to"]))
            return "deny" if use.arguments["to"] == "boss" else None

        def others(use: ToolUse) -> Check:
            return Check("allow", "everybody else is fine")

        rules: list[Any] = [Rule("mail", "allow", {"to": "ana"}), office_hours, others]
        model = ScriptedModel([[call("mail", to=name) for name in ("ana", "boss", "bo")], "Done."])
        run = Agent(model, tools=[mailbox.tool()], rules=rules).run_sync("go")
        assert [to for to, _ in mailbox.sent] == ["ana", "bo"] and asked == ["boss", "bo"]
        assert "office_hours" in run.tool_calls[1].reason
        assert run.tool_calls[2].reason == "everybody else is fine"

    def test_the_allow_of_a_function_stands_after_untrusted_output_only_if_it_says_so(self, mailbox: Mailbox) -> None:
        plain: list[Any] = [lambda use: "allow"]
        stands: list[Any] = [lambda use: Rule("*", "allow", tainted=True)]
        Agent(mails("ana", "bo"), tools=[mailbox.tool()], rules=plain).run_sync("go")
        assert [to for to, _ in mailbox.sent] == ["ana"]
        Agent(mails("ana", "bo"), tools=[mailbox.tool()], rules=stands).run_sync("go")
        assert [to for to, _ in mailbox.sent] == ["ana", "ana", "bo"]

    @pytest.mark.parametrize(
        "broken", [lambda use: 1 / 0, lambda use: "sure", lambda use: True, lambda use: exit(0)],
        ids=["raises", "a wrong word", "a truth", "exits"],
    )  # fmt: skip
    def test_a_function_that_fails_denies(self, mailbox: Mailbox, broken: Any) -> None:
        run = Agent(mails("ana"), tools=[mailbox.tool()], mode="auto", rules=[broken, Rule("*", "allow")]).run_sync(
            "go"
        )
        assert (run.status, run.tool_calls[0].status, mailbox.sent) == ("completed", "denied", [])

    def test_a_function_that_says_what_is_no_verdict_is_told_what_is_one(self, mailbox: Mailbox) -> None:
        run = Agent(mails("ana"), tools=[mailbox.tool()], rules=[lambda use: True]).run_sync("go")
        assert "it returned True; return 'allow', 'deny', 'ask', a Check or None" in run.tool_calls[0].reason

    @pytest.mark.parametrize(
        ("mode", "mail", "read_", "note"),
        [
            ("ask", "denied", "ok", "denied"), ("edits", "denied", "ok", "ok"), ("plan", "denied", "ok", "denied"),
            ("auto", "ok", "ok", "ok"), ("never", "denied", "denied", "denied"),
        ],
    )  # fmt: skip
    def test_the_modes_where_nobody_attends(
        self, mailbox: Mailbox, mode: Any, mail: str, read_: str, note: str
    ) -> None:
        @tool(edits_notebook=True)
        def add_cell(source: str) -> str:
            """Add a cell."""
            return "added"

        calls = [call("mail", to="ana"), call("weather", city="Oslo"), call("add_cell", source="1")]
        run = Agent(ScriptedModel([calls, "Done."]), tools=[mailbox.tool(), weather, add_cell], mode=mode).run_sync(
            "go"
        )
        assert [c.status for c in run.tool_calls] == [mail, read_, note]

    def test_in_modes_that_ask_nobody_no_card_is_shown_even_if_a_person_is_there(self, mailbox: Mailbox) -> None:
        for mode in ("plan", "never"):
            run = Agent(mails("ana"), tools=[mailbox.tool()]).start("go", is_attended=True, mode=mode).result(60)  # type: ignore[arg-type]
            assert run.tool_calls[0].status == "denied" and run.tool_calls[0].requests == 0


@pytest.mark.feature("B7")
class TestRemembering:
    def test_once_is_once(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana", "bo"), tools=[mailbox.tool()]))
        run.approve()
        until(lambda: mailbox.sent and run.status == "waiting")
        run.deny()
        run.result(60)
        assert len(mailbox.sent) == 1

    def test_for_the_session_it_holds_in_later_runs_until_it_is_revoked(self, mailbox: Mailbox) -> None:
        trusted = mailbox.tool(trusted=True)
        agent = Agent(ScriptedModel([call("mail", to="ana"), call("mail", to="bo"), "Done.", call("mail", to="cy"),
                                     "Done.", call("mail", to="di"), "Done."]), tools=[trusted])  # fmt: skip
        session = agent.session()
        run = ask(agent, session=session)
        run.approve(scope="session")
        run.result(60)
        agent.run_sync("more", session=session)
        assert [to for to, _ in mailbox.sent] == ["ana", "bo", "cy"]
        assert [str(rule) for rule in session.rules] == ["allow mail"] and rulebook().rules() == ()
        assert notes(run, "rule") == ["allow mail, session"]
        assert session.revoke(session.rules[0])
        agent.run_sync("more", session=session)
        assert len(mailbox.sent) == 3

    def test_always_holds_in_other_sessions_and_can_be_listed_and_revoked(self, mailbox: Mailbox) -> None:
        trusted = mailbox.tool(trusted=True)
        run = ask(Agent(mails("ana"), tools=[trusted]))
        run.approve(scope="always")
        run.result(60)
        Agent(mails("bo"), tools=[trusted]).run_sync("go")
        assert [to for to, _ in mailbox.sent] == ["ana", "bo"]
        (kept,) = rulebook().rules()
        assert (str(kept.rule), kept.scope) == ("allow mail", "always")
        assert rulebook().revoke(kept.rule_id)
        Agent(mails("cy"), tools=[trusted]).run_sync("go")
        assert len(mailbox.sent) == 2

    def test_a_denial_is_remembered_too_with_its_reason(self, mailbox: Mailbox) -> None:
        agent = Agent(mails("ana", "bo"), tools=[mailbox.tool()])
        run = ask(agent)
        run.deny("never mail", scope="session")
        run.result(60)
        assert [c.status for c in run.tool_calls] == ["denied", "denied"] and run.tool_calls[1].requests == 0
        assert "never mail" in run.tool_calls[1].reason

    def test_what_was_said_last_counts(self, mailbox: Mailbox) -> None:
        agent = Agent(mails("ana"), tools=[mailbox.tool(trusted=True)])
        session = agent.session()
        session.remember(Rule("mail", "allow"))
        session.remember(Rule("mail", "deny", reason="on second thoughts"))
        assert [str(rule) for rule in session.rules] == ["deny mail"]
        assert agent.run_sync("go", session=session).tool_calls[0].status == "denied"

        rulebook().remember(Rule("mail", "allow"))
        rulebook().remember(Rule("*", "deny"))
        assert Agent(mails("ana"), tools=[mailbox.tool()]).run_sync("go").tool_calls[0].status == "denied"

    def test_a_rule_of_the_session_goes_before_one_for_ever(self, mailbox: Mailbox) -> None:
        agent = Agent(mails("ana"), tools=[mailbox.tool()])
        session = agent.session()
        session.remember(Rule("mail", "allow"))
        rulebook().remember(Rule("mail", "deny"))
        assert agent.run_sync("go", session=session).tool_calls[0].status == "ok"

    def test_a_rule_book_that_cannot_be_read_allows_nothing(self, mailbox: Mailbox, own_history: Path) -> None:
        (own_history.parent / "rules.json").write_text("{,")
        run = Agent(mails("ana"), tools=[mailbox.tool()], rules=[Rule("mail", "allow")]).start("go").result(60)
        assert (run.status, run.state.error_kind) == ("failed", "policy") and not mailbox.sent
        assert "mend the file or remove it" in (run.state.error or "")

    def test_words_in_the_tools_place_are_no_rule(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        request = run.requests[0].request
        assert request
        with pytest.raises(AnswerRefused, match="this call only"):
            run.answer(request.request_id, "result", digest=request.digest, result="x", scope="session").result(60)
        with pytest.raises(AnswerRefused, match="scope is 'forever'"):
            run.approve(scope="forever")  # type: ignore[arg-type]
        assert run.session.rules == () and run.status == "waiting"
        run.cancel()


@pytest.mark.feature("B8")
class TestAnswers:
    def test_a_person_may_answer_in_the_tools_place(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        request = run.requests[0].request
        assert request
        with pytest.raises(AnswerRefused, match="say with what"):
            run.answer(request.request_id, "result", digest=request.digest).result(60)
        run.answer(request.request_id, "result", digest=request.digest, result="I told her myself.").result(60)
        run.result(60)
        assert (run.tool_calls[0].status, read(run), mailbox.sent) == ("ok", "I told her myself.", [])
        assert run.tool_calls[0].started_at is None and not run.is_tainted

    @pytest.mark.parametrize("arguments", [None, "", " \n"])
    def test_an_edit_without_arguments_does_not_run_the_tool_with_its_defaults(self, arguments: str | None) -> None:
        wiped = []

        @tool
        def wipe(path: str = "/") -> None:
            wiped.append(path)

        model = ScriptedModel([call("wipe", path="/tmp/a"), "Done."])
        run = ask(Agent(model, tools=[wipe]))
        request = run.requests[0].request
        assert request
        with pytest.raises(AnswerRefused, match="'edit' runs wipe with other arguments; say with which"):
            run.answer(request.request_id, "edit", digest=request.digest, arguments=arguments).result(60)
        assert run.status == "waiting" and not wiped
        run.approve(arguments={})  # said, that there are none, it is
        run.result(60)
        assert wiped == ["/"]

    @pytest.mark.parametrize(
        "answer",
        [{"decision": "yes"}, {"decision": "approve", "arguments": {"to": "eve"}},
         {"decision": "edit", "arguments": "[]"}, {"decision": "edit", "arguments": {"to": "eve", "cc": "x"}}],
    )  # fmt: skip
    def test_what_is_no_answer_changes_nothing(self, mailbox: Mailbox, answer: dict[str, Any]) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        request = run.requests[0].request
        assert request
        with pytest.raises(AnswerRefused):
            run.answer(request.request_id, digest=request.digest, **answer).result(60)
        assert run.status == "waiting" and not mailbox.sent
        run.approve()
        run.result(60)
        assert mailbox.sent == [("ana", "hello")]

    def test_several_requests_of_a_step_are_open_together_and_answered_in_any_order(self, mailbox: Mailbox) -> None:
        calls = [call("mail", to=name) for name in ("ana", "bo", "cy")]
        run = ask(Agent(ScriptedModel([calls, "Done."]), tools=[mailbox.tool()]))
        ana, bo, cy = run.requests
        run.approve(cy)
        run.deny("not him", bo)
        assert not mailbox.sent, "writes go in the order of the model"
        run.approve(ana)
        run.result(60)
        assert [to for to, _ in mailbox.sent] == ["ana", "cy"]
        assert [c.status for c in run.tool_calls] == ["ok", "denied", "ok"]

    def test_an_answer_that_comes_late_is_refused(self, mailbox: Mailbox) -> None:
        run = (
            Agent(mails("ana"), tools=[mailbox.tool()], request_timeout_s=0.1).start("go", is_attended=True).result(60)
        )
        request = run.tool_calls[0].request
        assert request
        for decision in ("approve", "deny"):
            with pytest.raises(AnswerRefused, match="not open any more"):
                run.answer(request.request_id, decision, digest=request.digest).result(60)  # type: ignore[arg-type]
        with pytest.raises(AnswerRefused, match="no such request"):
            run.answer("nobody", "approve", digest=request.digest).result(60)
        assert not mailbox.sent

    def test_the_edited_call_is_what_the_model_sees_and_same_arguments_are_a_plain_approval(
        self, mailbox: Mailbox
    ) -> None:
        model = ScriptedModel([[call("mail", to="ana"), call("mail", to="bo")], "Done."])
        run = ask(Agent(model, tools=[mailbox.tool()]))
        first, second = run.requests
        run.approve(first, arguments={"to": "cy"})
        run.approve(second, arguments={"to": "bo", "body": "hello"})
        run.result(60)
        seen = str(model.requests[1].messages)
        assert '"cy"' in seen and '"ana"' not in seen
        assert [c.request.answer for c in run.tool_calls if c.request] == ["edit", "approve"]


@pytest.mark.feature("B9")
class TestTime:
    def test_a_request_has_its_time_and_the_model_is_told_that_nobody_answered(self, mailbox: Mailbox) -> None:
        run = (
            Agent(mails("ana"), tools=[mailbox.tool()], request_timeout_s=0.2).start("go", is_attended=True).result(60)
        )
        (request,) = [event for event in run.events if isinstance(event, RequestOpened)]
        assert request.expires_at and 0 < request.expires_at - request.at <= 1
        assert run.status == "completed" and "nobody answered in time" in read(run)
        answered = run.tool_calls[0].request
        assert answered and answered.by == "time limit" and not mailbox.sent

    @pytest.mark.parametrize(("unattended", "sent"), [("deny", 0), ("allow", 1)])
    def test_nobody_attending_means_the_setting_at_once(
        self, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, unattended: str, sent: int
    ) -> None:
        monkeypatch.setenv("TURNCELL_UNATTENDED", unattended)
        settings.use(settings.Settings.from_environment())
        began = time.monotonic()
        run = Agent(mails("ana"), tools=[mailbox.tool()]).run_sync("go")
        assert time.monotonic() - began < 30 and len(mailbox.sent) == sent
        assert run.tool_calls[0].judged_by == "the unattended policy"

    def test_allowing_the_unattended_does_not_allow_what_is_denied(
        self, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TURNCELL_UNATTENDED", "allow")
        settings.use(settings.Settings.from_environment())
        for options in ({"mode": "plan"}, {"mode": "never"}, {"rules": [Rule("mail", "deny")]}):
            Agent(mails("ana"), tools=[mailbox.tool()], **options).run_sync("go")  # type: ignore[arg-type]
        assert not mailbox.sent


@pytest.mark.feature("B13")
class TestGuard:
    def script(self, name: str, times: int) -> ScriptedModel:
        return ScriptedModel([*(call(name, at="x") for _ in range(times)), "I give up."])

    @pytest.mark.parametrize(("effect", "allowed"), [("read", 3), ("write", 2), ("idempotent", 2)])
    def test_the_same_call_may_fail_so_often_and_is_then_refused(self, effect: Any, allowed: int) -> None:
        tried: list[str] = []

        @tool(effect=effect)
        def fetch(at: str) -> str:
            """Fetch."""
            tried.append(at)
            raise OSError("down")

        run = Agent(self.script("fetch", 5), tools=[fetch], mode="auto").run_sync("go")
        assert len(tried) == allowed and run.text == "I give up."
        assert [c.status for c in run.tool_calls] == ["error"] * allowed + ["invalid"] * (5 - allowed)
        assert f"it has failed {allowed} times" in read(run)

    def test_other_arguments_polling_tools_and_successes_are_not_held_back(self) -> None:
        tried: list[str] = []

        @tool(effect="read", polling=True)
        def poll(at: str) -> str:
            """Poll."""
            tried.append(at)
            raise OSError("not yet")

        Agent(self.script("poll", 5), tools=[poll]).run_sync("go")
        calls = [call("weather", city="Oslo")] * 6
        run = Agent(ScriptedModel([*calls, "Done."]), tools=[weather]).run_sync("go")
        assert len(tried) == 5 and {c.status for c in run.tool_calls} == {"ok"}

    def test_denied_calls_are_not_failures(self, mailbox: Mailbox) -> None:
        run = Agent(
            ScriptedModel([*[call("mail", to="a")] * 4, "Done."]), tools=[mailbox.tool()],
            hooks=Hooks(),
        ).run_sync("go")  # fmt: skip
        assert [c.status for c in run.tool_calls] == ["denied"] * 4


@pytest.mark.feature("B7")
def test_a_rule_book_that_is_locked_by_another_kernel_holds_up_no_other_run(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turncell.runtime.rulebook.LOCK_TIMEOUT_S", LONG_S)
    agent = Agent(mails("ana"), tools=[mailbox.tool()])
    run = ask(agent)
    request = run.requests[0].request
    assert request is not None
    book = rulebook()
    book.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{book.path}.lock"):
        answered = run.answer(request.request_id, "approve", digest=request.digest, scope="always")
        assert Agent(ScriptedModel(["one"])).start("go").result(60).text == "one"
        assert not answered.done() and run.status == "waiting", "it counts when the rule is on disk"
    answered.result(60)
    assert run.result(60).status == "completed" and [str(kept.rule) for kept in book.rules()] == ["allow mail"]


@pytest.mark.feature("B7")
def test_who_answers_while_a_rule_is_on_its_way_to_the_disk_is_the_first(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turncell.runtime.rulebook.LOCK_TIMEOUT_S", LONG_S)
    run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
    request = run.requests[0].request
    assert request is not None
    book = rulebook()
    book.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{book.path}.lock"):
        late = run.answer(request.request_id, "approve", digest=request.digest, scope="always")
        run.deny("no")
    with pytest.raises(AnswerRefused, match="not open any more"):
        late.result(60)
    run.result(60)
    assert not mailbox.sent


class TestEditedArguments:
    @pytest.mark.parametrize("by", ["check", "rule"])
    def test_what_denies_the_models_arguments_denies_a_persons_and_the_request_stays_open(
        self, mailbox: Mailbox, by: str
    ) -> None:
        async def no_rivals(to: str, body: str) -> Check | None:
            return Check("deny", "no mail to rivals") if to == "rival" else None

        def says_no(use: ToolUse) -> Check | None:
            return Check("deny", "no mail to rivals") if use.arguments["to"] == "rival" else None

        tools = [mailbox.tool(check=no_rivals if by == "check" else None)]
        run = ask(Agent(mails("ana"), tools=tools, rules=[says_no] if by == "rule" else []))
        with pytest.raises(AnswerRefused, match="no mail to rivals"):
            run.approve(arguments={"to": "rival"})
        assert run.status == "waiting" and not mailbox.sent
        run.approve(arguments={"to": "bo"})
        run.result(60)
        assert mailbox.sent == [("bo", "hello")]

    def test_the_answer_that_comes_while_they_are_judged_wins(self, mailbox: Mailbox) -> None:
        judging, judged = threading.Event(), threading.Event()

        def slow(to: str, body: str) -> None:
            if to == "bo":
                judging.set()
                judged.wait(LONG_S)

        run = ask(Agent(mails("ana"), tools=[mailbox.tool(check=slow)]))
        request = run.requests[0].request
        assert request is not None
        edited = run.answer(request.request_id, "edit", digest=request.digest, arguments={"to": "bo"})
        assert judging.wait(LONG_S)
        run.approve()
        judged.set()
        with pytest.raises(AnswerRefused, match="not open any more"):
            edited.result(60)
        run.result(60)
        assert mailbox.sent == [("ana", "hello")]


@pytest.mark.feature("B8")
class TestArgumentsThatAreChangedInPlace:
    """What is shown to code of other people is theirs to change; what is judged, run and recorded stays as it is."""

    def test_those_of_a_request_may_be_changed_and_approved_and_the_original_is_kept(self, mailbox: Mailbox) -> None:
        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        shown = run.requests[0]
        assert shown.arguments is not None
        shown.arguments["to"] = 5
        with pytest.raises(AnswerRefused, match="valid string"):
            run.approve(shown, arguments=shown.arguments)
        assert run.requests[0].arguments == run.tool_calls[0].arguments == {"to": "ana", "body": "hello"}
        shown.arguments["to"] = "bo"
        run.approve(shown, arguments=shown.arguments)
        run.result(60)
        assert mailbox.sent == [("bo", "hello")]
        assert run.tool_calls[0].proposed_arguments == {"to": "ana", "body": "hello"}

    def test_a_subscriber_that_shortens_them_for_its_display_harms_nobody(self, mailbox: Mailbox) -> None:
        shortened = threading.Event()

        def show(event: Event) -> None:
            if isinstance(event, CallProposed) and event.arguments is not None:
                event.arguments["body"] = "..."
                shortened.set()

        run = ask(Agent(mails("ana"), tools=[mailbox.tool()]))
        run.subscribe(show)
        assert shortened.wait(LONG_S)
        run.approve()
        assert run.result(60).tool_calls[0].status == "ok" and mailbox.sent == [("ana", "hello")]

    def test_a_rule_that_changes_them_decides_about_what_the_model_asked_for(self, mailbox: Mailbox) -> None:
        def allows(use: ToolUse) -> str:
            dict.update(use.arguments, to="eve")  # type: ignore[arg-type]
            return "allow"

        Agent(mails("ana"), tools=[mailbox.tool()], rules=[allows]).run_sync("go")  # type: ignore[list-item]
        assert mailbox.sent == [("ana", "hello")]

    @pytest.mark.parametrize("returns", [True, False])
    def test_a_hook_replaces_what_it_returns_and_nothing_else(self, mailbox: Mailbox, returns: bool) -> None:
        def to_eve(use: ToolUse) -> Any:
            dict.update(use.arguments, to="eve")  # type: ignore[arg-type]
            return use.arguments if returns else None

        run = Agent(mails("ana"), tools=[mailbox.tool()], mode="auto", hooks=Hooks(before_tool=to_eve)).run_sync("go")
        assert mailbox.sent == [("eve" if returns else "ana", "hello")]
        assert run.tool_calls[0].proposed_arguments == ({"to": "ana"} if returns else None)

    def test_a_tool_with_a_schema_of_its_own_gets_the_same_ones_each_time(self) -> None:
        seen: list[list[str]] = []

        def use_up(**arguments: Any) -> None:
            arguments["names"].clear()

        def send(**arguments: Any) -> str:
            seen.append([*arguments["names"]])
            arguments["names"].append("eve")
            if len(seen) < 3:
                raise ConnectionError("try again")
            return "sent"

        names = {"type": "object", "properties": {"names": {"type": "array"}}}
        sends = tool(
            effect="idempotent", parameters=names, retries=2, retry_wait_s=0, check=use_up, preview=use_up
        )(send)  # fmt: skip
        run = ask(Agent(ScriptedModel([call("send", names=["ana"]), "Done."]), tools=[sends]))
        run.approve()
        assert run.result(60).tool_calls[0].status == "ok" and seen == [["ana"]] * 3
        assert run.tool_calls[0].arguments == {"names": ["ana"]}


@pytest.mark.feature("B7")
class TestRulesThatDoNothing:
    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            (Rule("Mail*", "deny"), "matches no tool; globs are case-sensitive, and the tools are: clerk, mail"),
            (Rule("mail", "deny", {"too": "*"}), "has the arguments too; found are: body, to"),
        ],
    )
    def test_they_are_warned_of_when_the_agent_is_made(
        self, mailbox: Mailbox, caplog: pytest.LogCaptureFixture, rule: Rule, said: str
    ) -> None:
        inner = Agent(mails("ana"), tools=[mailbox.tool()], name="clerk")
        caplog.clear()
        Agent(mails("ana"), tools=[inner.as_tool()], rules=[rule])
        warned = [record.getMessage() for record in caplog.records if record.name == "turncell"]
        assert [said in one for one in warned] == [True]

    def test_those_that_may_match_are_not(self, mailbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
        rules = [Rule("*", "ask"), Rule("ma?l", "deny", {"to": "rival"}), lambda use: None]
        Agent(mails("ana"), tools=[mailbox.tool(), weather], rules=rules)
        assert not [record for record in caplog.records if record.name == "turncell"]
