"""A10: code of the user's that is asked before and after what a run does."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, until
from tests.runtime.test_runs import Mailbox, weather
from turncell import (
    Agent,
    Hooks,
    Message,
    Output,
    Rule,
    Session,
    Text,
    ToolUse,
    UsageError,
    Veto,
    tool,
)
from turncell.core.events import MessageAdded, Noted, RecordedEvent, RunEnded
from turncell.core.fold import RunState
from turncell.runtime import defaults
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.ports import ModelRequest
from turncell.runtime.run import Run
from turncell.testing import ScriptedModel, call, say

pytestmark = pytest.mark.feature("A10")


def read(run: Run, message: int = -2) -> str:
    """What the model read as the result of a call."""
    return run.messages[message].parts[0].content  # type: ignore[union-attr]


def notes(run: Run, kind: str = "hook") -> list[str]:
    return [note.message for note in run.state.notes if note.kind == kind]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turncell.runtime.hooks.HOOK_TIMEOUT_S", 0.1)


def test_their_names_are_in_the_signature() -> None:
    assert list(inspect.signature(Hooks).parameters)[:2] == ["before_model", "after_model"]


class TestBeforeTheModel:
    def test_it_may_replace_the_request_and_several_are_asked_in_order(self) -> None:
        def first(request: ModelRequest) -> ModelRequest:
            return replace(request, instructions="one")

        async def second(request: ModelRequest) -> ModelRequest:
            return replace(request, instructions=request.instructions + ", two")

        model = ScriptedModel(["fine"])
        run = Agent(model, hooks=[Hooks(before_model=first), Hooks(before_model=second)]).run_sync("go")
        assert (run.text, model.requests[0].instructions) == ("fine", "one, two")

    def test_one_that_returns_nothing_only_observes(self) -> None:
        seen: list[int] = []
        model = ScriptedModel([call("weather", city="Oslo"), "fine"])
        hooks = Hooks(before_model=lambda request: seen.append(request.step))
        assert Agent(model, tools=[weather], hooks=hooks).run_sync("go").text == "fine"
        assert seen == [1, 2]

    def test_a_veto_ends_the_run_with_its_reason_and_no_model_is_called(self) -> None:
        model = ScriptedModel(["never"])
        run = Agent(model, hooks=Hooks(before_model=lambda request: Veto("closed on Sundays"))).run_sync("go")
        assert (run.status, run.state.error_kind) == ("failed", "hook")
        assert "closed on Sundays" in (run.state.error or "") and not model.requests

    @pytest.mark.parametrize("wrong", ["a text", 3, {"messages": []}])
    def test_what_is_no_request_is_a_failure_of_the_hook(self, wrong: Any) -> None:
        run = Agent(ScriptedModel(["never"]), hooks=Hooks(before_model=lambda request: wrong)).run_sync("go")
        assert run.status == "failed" and repr(wrong) in notes(run)[0]

    def test_one_that_raises_is_noted_and_the_run_has_an_end(self) -> None:
        run = Agent(ScriptedModel(["never"]), hooks=Hooks(before_model=lambda request: 1 / 0)).run_sync("go")  # type: ignore[arg-type, return-value]
        assert (run.status, run.state.error_kind) == ("failed", "hook")
        assert "ZeroDivisionError" in notes(run)[0] and isinstance(run.events[-1], RunEnded)

    def test_one_that_stalls_is_given_up(self, impatient: None) -> None:
        release = threading.Event()
        run = Agent(ScriptedModel(["never"]), hooks=Hooks(before_model=lambda request: release.wait(20))).start("go")  # type: ignore[arg-type, return-value]
        run.result(60)
        release.set()
        assert run.status == "failed" and "has not answered within 0.1 s" in notes(run)[0]

    def test_a_timeout_of_its_own_is_not_taken_for_a_stall(self) -> None:
        def ask(request: ModelRequest) -> None:
            raise TimeoutError("the database is asleep")

        run = Agent(ScriptedModel(["never"]), hooks=Hooks(before_model=ask)).run_sync("go")
        assert "the database is asleep" in notes(run)[0]


class TestAfterTheModel:
    def test_it_may_censor_what_was_said(self) -> None:
        def censor(message: Message) -> Message:
            return Message("assistant", (Text(message.text.replace("secret", "[gone]")),))

        model = ScriptedModel(["the secret is out", "again"])
        agent = Agent(model, hooks=Hooks(after_model=censor))
        session = agent.session()
        run = agent.run_sync("go", session=session)
        assert run.text == "the [gone] is out"
        agent.run_sync("and?", session=session)
        assert "secret" not in str(model.requests[1].messages)
        assert "the [gone] is out" in str(Session.load(session.id, session.journal).messages)

    def test_a_hook_that_leaves_nothing_leaves_nothing_on_the_screen_either(self) -> None:
        run = Agent(
            ScriptedModel(["the secret is out"]), hooks=Hooks(after_model=lambda m: Message("assistant", ()))
        ).run_sync("go")
        assert run.text == "" and (run.status, run.state.error_kind) == ("failed", "empty_reply")

    def test_it_may_take_calls_away_but_not_make_any_up(self, mailbox: Mailbox) -> None:
        def only_talk(message: Message) -> Message:
            return Message("assistant", tuple(part for part in message.parts if isinstance(part, Text)))

        model = ScriptedModel([[say("I write."), call("mail", to="ana")]])
        run = Agent(model, tools=[mailbox.tool()], mode="auto", hooks=Hooks(after_model=only_talk)).run_sync("go")
        assert (run.status, run.text, mailbox.sent) == ("completed", "I write.", [])

        from turncell.core.parts import ToolCall

        def make_up(message: Message) -> Message:
            return Message("assistant", (ToolCall("c1", "mail", '{"to": "eve"}'),))

        run = Agent(
            ScriptedModel(["Nothing to do."]), tools=[mailbox.tool()], mode="auto", hooks=Hooks(after_model=make_up)
        ).run_sync("go")
        assert run.status == "failed" and not mailbox.sent and "calls that the model did not make" in notes(run)[0]

    def test_a_veto_fails_the_run_and_its_calls_never_happen(self, mailbox: Mailbox) -> None:
        model = ScriptedModel([call("mail", to="ana")])
        hooks = Hooks(after_model=lambda message: Veto("unsuitable"))
        run = Agent(model, tools=[mailbox.tool()], mode="auto", hooks=hooks).run_sync("go")
        assert run.status == "failed" and "unsuitable" in (run.state.error or "") and not mailbox.sent


class TestBeforeATool:
    def test_replaced_arguments_are_judged_shown_run_and_read_and_the_original_is_kept(self, mailbox: Mailbox) -> None:
        def to_ana(use: ToolUse) -> Mapping[str, Any]:
            return {**use.arguments, "to": "ana"}

        model = ScriptedModel([call("mail", to="eve"), "Done."])
        rules = [Rule("mail", "deny", {"to": "eve"}), Rule("mail", "ask", {"to": "ana"})]
        run = Agent(model, tools=[mailbox.tool()], rules=rules, hooks=Hooks(before_tool=to_ana)).start(
            "go", is_attended=True
        )
        until(lambda: run.status == "waiting")
        assert run.requests[0].arguments == {"to": "ana", "body": "hello"}
        assert run.requests[0].proposed_arguments == {"to": "eve"}
        run.approve()
        run.result(60)
        assert mailbox.sent == [("ana", "hello")]
        assert '"ana"' in str(model.requests[1].messages) and '"eve"' not in str(model.requests[1].messages)

    def test_what_the_model_asked_for_is_kept_also_when_a_person_edits_after_the_hook(self, mailbox: Mailbox) -> None:
        hooks = Hooks(before_tool=lambda use: {**use.arguments, "to": "ana"})
        run = Agent(ScriptedModel([call("mail", to="eve"), "Done."]), tools=[mailbox.tool()], hooks=hooks).start(
            "go", is_attended=True
        )
        until(lambda: run.status == "waiting")
        run.approve(arguments={"to": "bo"})
        run.result(60)
        assert mailbox.sent == [("bo", "hello")] and run.tool_calls[0].proposed_arguments == {"to": "eve"}

    def test_a_veto_is_a_denial_that_the_model_reads(self, mailbox: Mailbox) -> None:
        run = Agent(
            ScriptedModel([call("mail", to="ana"), "I see."]), tools=[mailbox.tool()], mode="auto",
            hooks=Hooks(before_tool=lambda use: Veto("not on Sundays") if use.name == "mail" else None),
        ).run_sync("go")  # fmt: skip
        assert (run.status, run.tool_calls[0].status, mailbox.sent) == ("completed", "denied", [])
        assert "not on Sundays" in read(run)

    def test_several_see_what_the_one_before_has_made(self, mailbox: Mailbox) -> None:
        async def shout(use: ToolUse) -> Mapping[str, Any]:
            return {**use.arguments, "body": str(use.arguments["body"]).upper()}

        hooks = [Hooks(before_tool=lambda use: {**use.arguments, "body": "hi"}), Hooks(before_tool=shout)]
        model = ScriptedModel([call("mail", to="ana"), "Done."])
        Agent(model, tools=[mailbox.tool()], mode="auto", hooks=hooks).run_sync("go")
        assert mailbox.sent == [("ana", "HI")]

    @pytest.mark.parametrize(
        ("hook", "said"),
        [
            (lambda use: 1 / 0, "ZeroDivisionError"),
            (lambda use: "yes", "returned 'yes'"),
            (lambda use: {"nobody": 1}, "arguments that cannot be used"),
            (lambda use: exit(3), "SystemExit"),
        ],
        ids=["raises", "wrong kind", "wrong arguments", "exits"],
    )
    def test_one_that_fails_denies_the_call_and_the_run_goes_on(
        self, mailbox: Mailbox, hook: Callable[[ToolUse], Any], said: str
    ) -> None:
        model = ScriptedModel([call("mail", to="ana"), "I see."])
        run = Agent(model, tools=[mailbox.tool()], mode="auto", hooks=Hooks(before_tool=hook)).run_sync("go")
        assert (run.status, run.tool_calls[0].status, mailbox.sent) == ("completed", "denied", [])
        assert said in run.tool_calls[0].reason and said in read(run)

    def test_one_that_stalls_denies(self, mailbox: Mailbox, impatient: None) -> None:
        release = threading.Event()
        run = Agent(
            ScriptedModel([call("mail", to="ana"), "I see."]), tools=[mailbox.tool()], mode="auto",
            hooks=Hooks(before_tool=lambda use: release.wait(20)),  # type: ignore[arg-type, return-value]
        ).start("go").result(60)  # fmt: skip
        release.set()
        assert run.tool_calls[0].status == "denied" and not mailbox.sent


class TestAfterATool:
    def test_it_may_replace_or_withhold_the_result(self) -> None:
        def mask(use: ToolUse, output: Output) -> Output | None:
            return Output("a mild day") if use.arguments["city"] == "Oslo" else None

        def withhold(use: ToolUse, output: Output) -> Veto | None:
            return Veto("classified") if use.arguments["city"] == "Bern" else None

        calls = [call("weather", city=city) for city in ("Oslo", "Bern", "Rome")]
        run = Agent(
            ScriptedModel([calls, "Done."]), tools=[weather], hooks=[Hooks(after_tool=mask), Hooks(after_tool=withhold)]
        ).run_sync("go")
        oslo, bern, rome = run.tool_calls
        assert (oslo.status, oslo.content) == ("ok", "a mild day")
        assert bern.status == "error" and "classified" in (bern.content or "") and "temp_c" not in str(bern)
        assert rome.status == "ok" and "3.5" in (rome.content or "")

    def test_it_sees_failures_too_and_may_mend_their_words(self) -> None:
        seen: list[str] = []

        @tool(effect="read")
        def leak() -> str:
            """Fail."""
            raise RuntimeError("password=hunter2")

        async def redact(use: ToolUse, output: Output) -> Output:
            seen.append(use.status)
            return Output(str(output.content).replace("hunter2", "***"))

        run = Agent(ScriptedModel([call("leak"), "Done."]), tools=[leak], hooks=Hooks(after_tool=redact)).run_sync("go")
        assert (run.tool_calls[0].status, seen) == ("error", ["error"])
        assert "password=***" in read(run) and "hunter2" not in str(run.events)

    @pytest.mark.parametrize("hook", [lambda use, output: 1 / 0, lambda use, output: "text"], ids=["raises", "text"])
    def test_one_that_fails_withholds_the_result_and_the_run_goes_on(self, hook: Any) -> None:
        run = Agent(
            ScriptedModel([call("weather", city="Oslo"), "Done."]), tools=[weather], hooks=Hooks(after_tool=hook)
        ).run_sync("go")
        assert (run.status, run.tool_calls[0].status) == ("completed", "error")
        assert "withheld" in read(run) and "3.5" not in read(run)
        assert len(notes(run)) == 1 and run.state.notes[0].call_id == run.tool_calls[0].call_id


class TestWhileTheyThink:
    def test_a_run_may_be_cancelled(self, mailbox: Mailbox) -> None:
        asked, release = threading.Event(), threading.Event()

        def think(use: ToolUse) -> None:
            asked.set()
            release.wait(20)

        model = ScriptedModel([call("mail", to="ana")])
        run = Agent(model, tools=[mailbox.tool()], mode="auto", hooks=Hooks(before_tool=think)).start("go")
        assert asked.wait(60)
        run.cancel()
        run.result(60)
        release.set()
        assert (run.status, run.tool_calls[0].status, mailbox.sent) == ("cancelled", "cancelled", [])

    def test_a_new_message_is_read_after_it(self) -> None:
        asked, release = threading.Event(), threading.Event()

        def think(message: Message) -> None:
            asked.set()
            release.wait(20)

        model = ScriptedModel(["one", "two"])
        run = Agent(model, hooks=Hooks(after_model=think)).start("go")
        assert asked.wait(60)
        run.steer("more")
        release.set()
        run.result(60)
        assert (run.text, model.requests[1].messages[-1].text) == ("two", "more")


class TestAroundTheJournal:
    def test_what_is_stored_is_what_the_hook_has_left(self) -> None:
        def redact(event: RecordedEvent) -> RecordedEvent | None:
            if isinstance(event, MessageAdded):
                parts = tuple(Text(p.text.replace("4711", "****")) for p in event.message.parts if isinstance(p, Text))
                return replace(event, message=replace(event.message, parts=parts))
            return None

        agent = Agent(ScriptedModel(["You said 4711."]), hooks=Hooks(before_journal=redact))
        session = agent.session()
        run = agent.run_sync("My number is 4711.", session=session)
        assert run.text == "You said 4711.", "who is there sees what was said"
        records = defaults.journal().ask(lambda store: list(store.read(session_id=session.id)))
        stored = b"".join(record.payload for record in records)
        assert b"4711" not in stored and stored.count(b"****") == 2
        assert Session.load(session.id, session.journal).runs[0].text == "You said ****."

    def test_a_veto_keeps_the_run_from_going_on_unrecorded(self, mailbox: Mailbox) -> None:
        def no_starts(event: RecordedEvent) -> Veto | None:
            return Veto("not in this book") if event.type == "CallStarted" else None

        run = Agent(
            ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mailbox.tool()], mode="auto",
            hooks=Hooks(before_journal=no_starts),
        ).start("go").result(60)  # fmt: skip
        assert (run.status, run.state.error_kind, mailbox.sent) == ("failed", "store", [])
        assert "not in this book" in (run.state.error or "")

    def test_an_event_of_another_run_cannot_be_smuggled_in(self) -> None:
        run = (
            Agent(ScriptedModel(["fine"]), hooks=Hooks(before_journal=lambda event: replace(event, run_id="run_other")))
            .start("go")
            .result(60)
        )
        assert (run.status, run.state.error_kind) == ("failed", "store")
        assert "another place" in (run.state.error or "")

    def test_after_the_journal_sees_what_was_kept_and_one_that_raises_is_noted_once(self) -> None:
        seen: list[str] = []

        def observe(event: RecordedEvent) -> None:
            seen.append(event.type)
            raise RuntimeError("the log server is down")

        run = Agent(ScriptedModel(["fine"]), hooks=Hooks(after_journal=observe)).run_sync("go")
        assert run.text == "fine" and seen[0] == "RunStarted" and seen[-1] == "RunEnded"
        assert [note for note in notes(run) if "log server" in note] == notes(run) and len(notes(run)) == 1
        assert any(isinstance(event, Noted) for event in run.events)

    def test_they_are_not_async(self) -> None:
        async def late(event: RecordedEvent) -> None: ...

        with pytest.raises(UsageError, match="before_journal is async"):
            Hooks(before_journal=late)  # type: ignore[arg-type]


class TestBetweenSteps:
    def test_after_a_step_the_run_may_be_ended(self) -> None:
        model = ScriptedModel([[say("Looking."), call("weather", city="Oslo")], "never"])
        hooks = Hooks(after_step=lambda run: any(c.name == "weather" for c in run.calls))
        run = Agent(model, tools=[weather], hooks=hooks).run_sync("go")
        assert (run.status, run.text, len(model.requests)) == ("completed", "Looking.", 1)

    @pytest.mark.parametrize("hook", [lambda run: 1 / 0, lambda run: 7, lambda run: Veto("x")])
    def test_one_that_fails_is_noted_and_the_run_goes_on_without_it(self, hook: Any) -> None:
        model = ScriptedModel([call("weather", city="Oslo"), "fine"])
        run = Agent(model, tools=[weather], hooks=Hooks(after_step=hook, before_finish=hook)).run_sync("go")
        assert (run.status, run.text) == ("completed", "fine")
        assert ["after_step" in notes(run)[0], "before_finish" in notes(run)[1], len(notes(run))] == [True, True, 2]

    def test_before_the_finish_the_agent_may_be_sent_on(self) -> None:
        async def insist(run: RunState) -> str | None:
            return None if "sources" in run.text else "Name your sources."

        model = ScriptedModel(["It rains.", "It rains; sources: the window."])
        run = Agent(model, hooks=Hooks(before_finish=insist)).run_sync("go")
        assert (run.status, run.text) == ("completed", "It rains; sources: the window.")
        assert model.requests[1].messages[-1].text == "Name your sources."

    def test_one_that_is_never_content_ends_with_the_steps(self) -> None:
        run = Agent(
            ScriptedModel(lambda request: "So?"), hooks=Hooks(before_finish=lambda run: "More."), max_steps=3,
            summarises=False,
        ).run_sync("go")  # fmt: skip
        assert (run.status, len(run.state.steps)) == ("max_steps", 3)


def test_what_is_no_function_is_refused_when_it_is_written() -> None:
    with pytest.raises(UsageError, match="before_tool is 3"):
        Hooks(before_tool=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no set of hooks"):
        Agent(ScriptedModel([]), hooks=[lambda: None])  # type: ignore[list-item]


class TestExit:
    """sys.exit() in people's code is a failure of their run, and of no other."""

    @pytest.mark.parametrize("at", ["RunStarted", "MessageAdded", "RunEnded"])
    @pytest.mark.parametrize("when", ["before_journal", "after_journal"])
    def test_in_a_hook_around_the_journal_leaves_the_other_runs_alone(self, when: str, at: str) -> None:
        def leave(event: RecordedEvent) -> None:
            if event.type == at:
                sys.exit(3)

        gate = Gate()
        other = Agent(ScriptedModel([gate.say("fine")])).start("go")
        gate.was_reached()
        run = Agent(ScriptedModel(["one"]), hooks=Hooks(**{when: leave})).start("go").result(LONG_S)
        gate.open()
        assert other.result(LONG_S).status == "completed"
        assert run.status == ("failed" if when == "before_journal" else "completed")
        if when == "after_journal":
            assert [event.seq for event in run.events] == list(range(1, len(run.events) + 1))
            assert Session.load(run.session.id, run.session.journal).runs == (run.state,)

    def test_in_a_task_or_a_callback_of_the_loop_does_not_end_its_thread(self) -> None:
        async def leave() -> None:
            sys.exit(3)

        loop = BackgroundLoop.current()
        loop.loop.call_soon_threadsafe(sys.exit, 3)
        with pytest.raises(SystemExit):
            loop.spawn(leave()).result(LONG_S)
        assert BackgroundLoop.current() is loop and loop.call(lambda: "there").result(LONG_S) == "there"


@pytest.mark.feature("A12")
def test_a_call_whose_start_could_not_be_recorded_says_that_it_did_not_run() -> None:
    ran: list[str] = []

    @tool
    def mail() -> str:
        """Send a mail."""
        ran.append("mail")
        return "sent"

    def refuse(event: RecordedEvent) -> Veto | None:
        return Veto() if event.type == "CallStarted" else None

    agent = Agent(ScriptedModel([call("mail"), "Done."]), tools=[mail], mode="auto", hooks=Hooks(before_journal=refuse))
    run = agent.run_sync("go")
    assert (run.status, run.state.error_kind, ran) == ("failed", "store", [])
    assert run.tool_calls[0].content == "The run was stopped before this call ran."


def test_a_hook_of_another_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no hook called 'before_tools'; use before_model, after_model, before_tool"):
        Hooks(before_tools=print)  # type: ignore[call-arg]


def test_one_that_cannot_be_called_as_it_will_be_is_refused_when_it_is_written() -> None:
    wrong: list[tuple[str, Any, str]] = [
        ("before_tool", lambda: None, "before_tool is called with use: too many positional arguments"),
        ("after_tool", lambda use: None, "after_tool is called with use, output"),
        ("before_finish", lambda state, *, more: None, "before_finish is called with state: missing a required"),
    ]
    for name, hook, said in wrong:
        with pytest.raises(UsageError, match=said):
            Hooks(**{name: hook})
    Hooks(before_tool=print, after_tool=lambda *both: None, after_step=lambda state, more=1: None)


def test_the_reason_of_a_veto_is_a_text() -> None:
    with pytest.raises(UsageError, match="the reason of a Veto is a text; found 5"):
        Veto(5)  # type: ignore[arg-type]
