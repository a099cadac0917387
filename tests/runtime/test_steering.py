"""Steering: a message to the running agent, read at its next boundary whatever the agent is doing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, ends, told, until, written
from turncell import Agent, Declined, Hooks, ToolContext, UsageError, tool
from turncell.adapters.scripted_model import ScriptedModel, call, say
from turncell.core.events import MessageAdded, Steered

pytestmark = pytest.mark.feature("A5")

SKIPPED = "skipped: a new message arrived"


class Mails:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def tool(self) -> Any:
        @tool
        def mail(to: str) -> str:
            """Send a mail."""
            self.sent.append(to)
            return f"sent to {to}"

        return mail


@tool(effect="read")
def peek() -> str:
    """Look quickly."""
    return "peeked"


class TestAtEveryBoundary:
    def test_while_the_model_writes_text_alone_it_goes_on_with_the_message(self) -> None:
        gate = Gate()
        model = ScriptedModel([gate.say("First."), "Second."])
        run = Agent(model).start("go")
        gate.was_reached()
        run.steer("and in French")
        gate.open()
        assert run.result(LONG_S).text == "Second." and run.status == "completed"
        assert told(model, 1) == ["go", "First.", "and in French"]

    def test_while_the_model_writes_calls_they_are_answered_as_skipped(self) -> None:
        gate, mails = Gate(), Mails()
        model = ScriptedModel([gate.say("I write. ", call("mail", to="ana"), call("peek")), "Stopped."])
        run = Agent(model, tools=[mails.tool(), peek], mode="auto").start("go")
        gate.was_reached()
        run.steer("no, wait")
        gate.open()
        run.result(LONG_S)
        assert not mails.sent and [c.status for c in run.tool_calls] == ["skipped", "skipped"]
        assert told(model, 1) == ["go", "I write. ", f"mail: {SKIPPED}", f"peek: {SKIPPED}", "no, wait"]

    def test_while_the_calls_are_judged(self) -> None:
        gate, mails = Gate(), Mails()

        async def slow_rule(use: Any) -> str:
            await gate.wait_async()
            return "allow"

        model = ScriptedModel([call("mail", to="ana"), "Stopped."])
        run = Agent(model, tools=[mails.tool()], rules=[slow_rule]).start("go")
        gate.was_reached()
        run.steer("no, wait")
        gate.open()
        run.result(LONG_S)
        assert not mails.sent and run.tool_calls[0].status == "skipped" and run.text == "Stopped."

    def test_while_a_read_runs_it_ends_and_what_has_not_begun_is_skipped(self) -> None:
        gate, mails = Gate(), Mails()
        model = ScriptedModel([[call("hold"), call("mail", to="ana"), call("mail", to="bo")], "Stopped."])

        @tool
        async def hold() -> str:
            """Hold the line of writes."""
            await gate.wait_async()
            return "held"

        run = Agent(model, tools=[hold, mails.tool()], mode="auto").start("go")
        gate.was_reached()
        run.steer("no mails")
        until(lambda: [c.status for c in run.tool_calls] == ["running", "skipped", "skipped"])
        gate.open()
        run.result(LONG_S)
        assert not mails.sent
        assert told(model, 1) == ["go", "hold: held", f"mail: {SKIPPED}", f"mail: {SKIPPED}", "no mails"]

    def test_while_a_card_is_open_it_is_withdrawn(self) -> None:
        mails = Mails()
        model = ScriptedModel([call("mail", to="ana"), "I did not write."])
        run = Agent(model, tools=[mails.tool()]).start("go", is_attended=True)
        until(lambda: run.requests)
        run.steer("leave it")
        run.result(LONG_S)
        asked = run.tool_calls[0].request
        assert asked is not None and (asked.answer, asked.by) == ("deny", "steering")
        assert run.tool_calls[0].status == "skipped" and not mails.sent and run.text == "I did not write."

    def test_while_a_tool_asks_a_question_the_tool_is_told_that_nobody_answers(self) -> None:
        declined: list[str] = []

        @tool(effect="read")
        async def choose(context: ToolContext) -> str:
            """Ask."""
            try:
                return str(await context.ask("Which?", ["a", "b"]))
            except Declined as error:
                declined.append(str(error))
                return "nobody chose"

        model = ScriptedModel([call("choose"), "Fine."])
        run = Agent(model, tools=[choose]).start("go", is_attended=True)
        until(lambda: run.requests)
        run.steer("take any")
        run.result(LONG_S)
        assert declined == ["a new message arrived"]
        assert told(model, 1) == ["go", "choose: nobody chose", "take any"]

    def test_when_the_answer_is_final_but_a_hook_still_thinks(self) -> None:
        gate = Gate()
        reviewed: list[int] = []

        async def before_finish(run: Any) -> None:
            reviewed.append(len(run.steps))
            if len(reviewed) == 1:
                await gate.wait_async()

        model = ScriptedModel(["Done.", "Done again."])
        run = Agent(model, hooks=Hooks(before_finish=before_finish)).start("go")
        gate.was_reached()
        run.steer("one more thing")
        gate.open()
        run.result(LONG_S)
        assert run.text == "Done again." and reviewed == [1, 2] and len(ends(run)) == 1

    def test_while_a_step_policy_thinks(self) -> None:
        gate = Gate()

        class Slow:
            async def should_continue(self, step: int, tools_used: Any) -> bool:
                await gate.wait_async()
                return False

            def on_limit_reached(self, step: int, tools_used: Any) -> str:
                return "Enough."

        model = ScriptedModel([call("peek"), "I have read it."])
        run = Agent(model, tools=[peek], step_policy=Slow()).start("go")
        gate.was_reached()
        run.steer("what did you see?")
        gate.open()
        assert run.result(LONG_S).text == "I have read it." and told(model, 1)[-1] == "what did you see?"

    def test_during_the_summary_it_stays_visible_and_the_run_ends(self) -> None:
        gate = Gate()
        model = ScriptedModel([call("peek"), gate.say("In short: peeked.")])
        run = Agent(model, tools=[peek], max_steps=1).start("go")
        gate.was_reached()
        run.steer("go on")
        gate.open()
        run.result(LONG_S)
        assert (run.status, run.text) == ("max_steps", "In short: peeked.")
        assert [queued.message.text for queued in run.state.queued] == ["go on"]
        assert written(run) == (run.state,)

    def test_during_the_pause_before_another_attempt_it_is_read_after_the_answer(self) -> None:
        from turncell import ModelFailure

        gate = Gate()
        model = ScriptedModel([ModelFailure("overloaded", "529", retry_after_s=0.3), gate.say("First."), "Second."])
        run = Agent(model).start("go")
        until(lambda: run.state.notes)
        run.steer("also this")
        gate.open()
        assert run.result(LONG_S).text == "Second." and told(model, 2) == ["go", "First.", "also this"]


class TestSeveral:
    def steered(self, **options: Any) -> tuple[Any, ScriptedModel]:
        gate = Gate()
        model = ScriptedModel([gate.say("0"), "1", "2", "3"])
        run = Agent(model, **options).start("go")
        gate.was_reached()
        for text in ("a", "b", "c"):
            run.steer(text)
        assert [queued.message.text for queued in run.state.queued] == ["a", "b", "c"]
        gate.open()
        return run.result(LONG_S), model

    def test_all_are_read_at_once_in_their_order(self) -> None:
        run, model = self.steered()
        assert told(model, 1) == ["go", "0", "a", "b", "c"] and run.text == "1"

    def test_one_at_a_time(self) -> None:
        run, model = self.steered(steering="one")
        assert told(model, 3) == ["go", "0", "a", "1", "b", "2", "c"] and run.text == "3"

    def test_from_many_threads_none_is_lost_and_none_is_read_twice(self) -> None:
        gate = Gate()
        model = ScriptedModel([gate.say("0"), "1"])
        run = Agent(model).start("go")
        gate.was_reached()
        threads = [threading.Thread(target=run.steer, args=(f"m{n}",)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gate.open()
        run.result(LONG_S)
        assert sorted(told(model, 1)[2:]) == sorted(f"m{n}" for n in range(20))

    def test_each_is_recorded_when_it_comes_and_once_more_when_it_is_read(self) -> None:
        run, _ = self.steered()
        came = [event.input_id for event in run.events if isinstance(event, Steered)]
        read = [event.input_id for event in run.events if isinstance(event, MessageAdded) and event.by == "steering"]
        assert came == read and len(set(came)) == 3 and not run.state.queued


class TestTooLate:
    def test_after_the_end_it_is_refused_with_what_to_do(self) -> None:
        run = Agent(ScriptedModel(["Done."])).run_sync("go")
        with pytest.raises(UsageError, match=r"the run is completed; use session\.send"):
            run.steer("and?")

    def test_through_the_session_it_begins_a_run_that_knows_the_one_before(self) -> None:
        model = ScriptedModel(["Done.", "And that."])
        session = Agent(model).session()
        first = session.send("go").result(LONG_S)
        second = session.send("and?", steer=True).result(LONG_S)
        assert second.id != first.id and second.state.previous == first.id
        assert told(model, 1) == ["go", "Done.", "and?"]

    def test_through_the_session_it_reaches_a_run_that_was_started_a_moment_ago(self) -> None:
        for _ in range(20):
            gate = Gate()
            model = ScriptedModel([gate.say("0"), "1"])
            session = Agent(model).session()
            run = session.send("go")
            assert session.send("more", steer=True) is run
            gate.open()
            assert run.result(LONG_S).text == "1" and len(session.runs) == 1

    def test_cancelled_before_it_is_read_it_stays_visible(self) -> None:
        model = Silent("half a w")
        run = Agent(model).start("go")
        until(lambda: run.text)
        run.steer("other way")
        run.cancel()
        run.result(LONG_S)
        assert run.status == "cancelled" and [q.message.text for q in run.state.queued] == ["other way"]
        assert written(run) == (run.state,)

    @pytest.mark.parametrize("message", ["", "  \n"])
    def test_nothing_is_not_a_message(self, message: str) -> None:
        run = Agent(Silent()).start("go")
        with pytest.raises(UsageError, match="empty"):
            run.steer(message)
        run.cancel()


def test_a_message_without_unicode_meaning_is_steered_all_the_same() -> None:
    gate = Gate()
    model = ScriptedModel([gate.say("0"), "1"])
    run = Agent(model).start("go")
    gate.was_reached()
    run.steer("odd \ud800 character")
    gate.open()
    assert run.result(LONG_S).text == "1" and told(model, 1)[-1] == "odd � character"


def test_an_async_tool_may_steer_its_own_run() -> None:
    held: list[Any] = []

    @tool(effect="read")
    async def remind() -> str:
        """Remind."""
        held[0].steer("remember the milk")
        return "reminded"

    gate = Gate()
    model = ScriptedModel([gate.say(call("remind")), say("Milk.")])
    run = Agent(model, tools=[remind]).start("go")
    held.append(run)
    gate.open()
    assert run.result(LONG_S).text == "Milk." and told(model, 1)[-1] == "remember the milk"
