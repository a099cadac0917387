"""Runs as a user meets them: started, watched, approved, stopped, from anywhere."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from tests.runtime.pieces import LONG_S, Gate, Silent, until
from turncell import (
    Agent,
    AnswerRefused,
    MemoryWriter,
    Message,
    ModelFailure,
    Rule,
    RunError,
    StepLimit,
    Text,
    Tool,
    ToolContext,
    UsageError,
    tool,
)
from turncell.adapters.scripted_model import Call, ScriptedModel, call, say
from turncell.core.deltas import Finished, Fragment
from turncell.core.events import Event, RunEnded, TextDelta
from turncell.core.fold import RunState
from turncell.runtime.bus import merge_deltas
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.ports import ModelRequest
from turncell.runtime.run import Run
from turncell.runtime.session import Session
from turncell.runtime.tools import Offer


class Mailbox:
    """A tool that writes, and what it has done."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def tool(self, **options: Any) -> Any:
        @tool(**options)
        def mail(to: str, body: str = "hello") -> str:
            """Send a mail."""
            self.sent.append((to, body))
            return f"sent to {to}"

        return mail


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@tool(effect="read")
def weather(city: str) -> dict[str, Any]:
    """The weather in a city."""
    return {"city": city, "temp_c": 3.5}


class TestEverywhere:
    """A18: the same from a script, in a running loop, in a thread, and many at a time."""

    pytestmark = pytest.mark.feature("A18")

    def test_from_a_script(self) -> None:
        assert Agent(ScriptedModel(["fine"])).run_sync("How?").text == "fine"

    def test_inside_a_running_loop(self) -> None:
        async def main() -> tuple[str, str]:
            awaited = await Agent(ScriptedModel(["awaited"])).run("How?")
            blocked = Agent(ScriptedModel(["blocked"])).run_sync("How?")
            return awaited.text, blocked.text

        assert asyncio.run(main()) == ("awaited", "blocked")

    def test_in_a_thread(self) -> None:
        texts: list[str] = []
        thread = threading.Thread(target=lambda: texts.append(Agent(ScriptedModel(["there"])).run_sync("How?").text))
        thread.start()
        thread.join(LONG_S)
        assert texts == ["there"]

    def test_two_hundred_at_a_time_with_cancels(self) -> None:
        runs = [Agent(ScriptedModel([say("abc " * 20, delay_s=0.002)])).start("go") for _ in range(200)]
        for run in runs[::7]:
            run.cancel()
        for run in runs:
            run.result(60)
        statuses = {run.status for run in runs}
        assert statuses <= {"completed", "cancelled"} and "completed" in statuses

    def test_a_fork_gets_a_loop_and_a_history_of_its_own(self) -> None:
        code = """
import os, sys
from turncell import Agent
from turncell.adapters.scripted_model import ScriptedModel
agent = Agent(ScriptedModel(["parent", "child"]))
assert agent.run_sync("x").text == "parent"
pid = os.fork()
if pid == 0:
    ok = agent.run_sync("x").text == "child"
    os._exit(0 if ok else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=100).returncode == 0


class TestWatching:
    """A3: queues, callables and `async for` get every event, and harm nobody."""

    pytestmark = pytest.mark.feature("A3")

    def test_async_for_gives_everything_from_the_first_event_to_the_last(self) -> None:
        async def main() -> list[Event]:
            run = Agent(ScriptedModel([say("one two three", delay_s=0.001)])).start("go")
            await asyncio.sleep(0.01)
            return [event async for event in run]

        events = asyncio.run(main())
        assert events[0].type == "RunStarted" and isinstance(events[-1], RunEnded)
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "one two three"

    def test_a_queue_and_a_callable_get_the_same(self) -> None:
        run = Agent(ScriptedModel([say("one two three", delay_s=0.002)])).start("go")
        box: queue.Queue[Event] = queue.Queue()
        seen: list[Event] = []
        run.subscribe(box)
        run.subscribe(seen.append)
        run.result(60)
        run.drain(LONG_S)
        # The text comes in pieces, and whoever is late gets several of them as one.
        assert merge_deltas(list(box.queue)) == merge_deltas(seen)
        assert isinstance(seen[-1], RunEnded)

    def test_an_async_callable_and_an_asyncio_queue(self) -> None:
        async def main() -> tuple[int, int]:
            seen: list[Event] = []
            box: asyncio.Queue[Event] = asyncio.Queue()

            async def watch(event: Event) -> None:
                seen.append(event)

            run = Agent(ScriptedModel(["hello"])).start("go")
            run.subscribe(watch)
            run.subscribe(box)
            await run
            await asyncio.to_thread(run.drain, LONG_S)
            return len(seen), box.qsize()

        seen, queued = asyncio.run(main())
        assert seen == queued > 0

    def test_one_that_raises_and_one_that_stalls_harm_nobody(self) -> None:
        gate = Gate()

        def stall(event: Event) -> None:
            gate.wait()

        def fail(event: Event) -> None:
            raise RuntimeError("no")

        run = Agent(ScriptedModel([say("word " * 50, delay_s=0.001)])).start("go")
        seen: list[Event] = []
        for subscriber in (stall, fail, seen.append):
            run.subscribe(subscriber)
        run.result(60)
        until(lambda: seen and isinstance(seen[-1], RunEnded))
        gate.open()

    def test_unsubscribing_ends_it(self) -> None:
        gate = Gate()
        run = Agent(ScriptedModel([gate.say("word " * 50)])).start("go")
        seen: list[Event] = []
        unsubscribe = run.subscribe(seen.append)
        until(lambda: seen)
        unsubscribe()
        gate.open()
        run.result(60)
        run.drain(LONG_S)
        assert not any(isinstance(event, RunEnded) for event in seen)

    def test_a_slow_reader_gets_merged_deltas_and_every_recorded_event(self) -> None:
        async def main() -> list[Event]:
            run = Agent(ScriptedModel([say("x" * 5000, chunk=1)])).start("go")
            events = []
            async for event in run:
                if not events:
                    await asyncio.to_thread(run.result, 60)
                events.append(event)
            return events

        events = asyncio.run(main())
        deltas = [event for event in events if isinstance(event, TextDelta)]
        assert "".join(event.text for event in deltas) == "x" * 5000 and len(deltas) < 5000
        assert isinstance(events[-1], RunEnded)

    def test_something_that_cannot_subscribe_is_refused(self) -> None:
        with pytest.raises(UsageError, match="a subscriber is"):
            Agent(ScriptedModel(["x"])).start("go").subscribe(3)  # type: ignore[arg-type]


@pytest.mark.feature("A11", "A12")
class TestCancelling:
    def test_while_the_provider_is_silent(self) -> None:
        model = Silent()
        run = Agent(model).start("go")
        until(lambda: run.state.steps)
        run.cancel("enough")
        run.result(60)
        assert run.status == "cancelled" and run.state.error == "enough"
        assert model.closed.wait(60), "the provider's stream is closed at once"

    def test_in_the_middle_of_a_word_keeps_the_text_as_partial(self) -> None:
        run = Agent(Silent("The log has three phases. In the")).start("go")
        until(lambda: run.text)
        run.cancel()
        run.result(60)
        message = run.state.steps[0].message
        assert message is not None and message.is_partial and message.text == "The log has three phases. In the"

    def test_while_a_tool_runs_closes_the_call(self) -> None:
        started = threading.Event()

        @tool(effect="read")
        async def slow() -> str:
            """Take long."""
            started.set()
            await asyncio.sleep(60)
            return "never"

        run = Agent(ScriptedModel([call("slow")]), tools=[slow]).start("go")
        assert started.wait(60)
        run.cancel()
        run.result(60)
        assert run.tool_calls[0].status == "cancelled"
        assert run.messages[-1].parts[0].content.startswith("The run was stopped while this call was running")  # type: ignore[union-attr]

    def test_a_tool_in_a_thread_does_not_keep_the_run_from_ending(self) -> None:
        release, started = threading.Event(), threading.Event()

        @tool(effect="read")
        def stubborn(context: ToolContext) -> str:
            """Do not listen."""
            started.set()
            release.wait(LONG_S)
            return "late"

        run = Agent(ScriptedModel([call("stubborn")]), tools=[stubborn]).start("go")
        assert started.wait(60)
        run.cancel()
        run.result(60)
        release.set()
        assert run.tool_calls[0].status == "cancelled"

    def test_while_a_person_is_asked(self, mailbox: Mailbox) -> None:
        run = Agent(ScriptedModel([call("mail", to="ana")]), tools=[mailbox.tool()]).start("go", is_attended=True)
        until(lambda: run.status == "waiting")
        run.cancel()
        run.result(60)
        assert run.status == "cancelled" and not mailbox.sent and not run.requests

    def test_when_it_has_ended_changes_nothing_and_does_not_touch_the_next(self) -> None:
        agent = Agent(ScriptedModel(["one", "two"]))
        session = agent.session()
        first = agent.run_sync("go", session=session)
        first.cancel()
        second = agent.run_sync("go on", session=session)
        assert (first.status, second.status) == ("completed", "completed")

    def test_before_its_turn_ends_it_at_once_and_leaves_no_record(self) -> None:
        gate = Gate()
        agent = Agent(ScriptedModel([gate.say("one"), "three"]))
        session = agent.session()
        first, second, third = (agent.start(text, session=session) for text in ("go", "go on", "and on"))
        second.cancel("changed my mind")
        second.result(60)
        assert (first.status, second.status, second.state.error) == ("running", "cancelled", "changed my mind")
        gate.open()
        assert third.result(60).text == "three" and third.state.previous == first.id and not second.events
        assert len(Session.load(session.id, session.journal).runs) == 2

    @pytest.mark.feature("A15")
    def test_right_after_its_start_leaves_its_prompt_its_end_and_its_telemetry(self) -> None:
        told = MemoryWriter()
        agent = Agent(model := ScriptedModel(lambda request: "never", delay_s=LONG_S), telemetry=told)
        session = agent.session()
        for number in range(1, 21):
            run = session.send("important")
            seen: list[Event] = []
            run.subscribe(seen.append)
            run.cancel("no")
            assert run.result(LONG_S).status == "cancelled" and run.state.error == "no"
            run.drain(LONG_S)
            assert isinstance(seen[-1], RunEnded) and len(session.runs) == len(told.records) == number
            assert session.runs[-1].prompt is not None and session.runs[-1].prompt.text == "important"
        assert len(model.requests) < 20
        assert [run.status for run in Session.load(session.id, session.journal).runs] == ["cancelled"] * 20

    def test_while_its_tools_are_fetched_ends_it_at_once(self) -> None:
        is_asked, release = threading.Event(), threading.Event()

        class Slow:
            name, known = "slow", ()

            async def offer(self) -> Offer:
                is_asked.set()
                await asyncio.to_thread(release.wait, LONG_S)
                return Offer()

        run = Agent(ScriptedModel(["never"]), tools=[Slow()]).start("go")
        assert is_asked.wait(LONG_S)
        run.cancel()
        began = time.monotonic()
        assert run.result(LONG_S).status == "cancelled" and isinstance(run.events[-1], RunEnded)
        assert time.monotonic() - began < LONG_S / 2
        release.set()

    def test_there_is_exactly_one_terminal_event(self) -> None:
        run = Agent(Silent("x")).start("go")
        until(lambda: run.text)
        for _ in range(5):
            run.cancel()
        run.result(60)
        assert sum(isinstance(event, RunEnded) for event in run.events) == 1

    def test_cancelling_the_awaiting_task_cancels_the_run(self) -> None:
        async def main() -> RunState:
            model = Silent("x")
            agent = Agent(model)
            session = agent.session()
            task = asyncio.create_task(agent.run("go", session=session))
            await asyncio.to_thread(until, model.asked.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(until, lambda: session.runs)
            return session.runs[0]

        assert asyncio.run(main()).status == "cancelled"


@pytest.mark.feature("B8")
class TestApproving:
    def run(self, mailbox: Mailbox, **options: Any) -> Run:
        model = ScriptedModel([[say("I will write. "), call("mail", to="ana")], "Done."])
        run = Agent(model, tools=[mailbox.tool(**options)]).start("go", is_attended=True)
        until(lambda: run.status == "waiting")
        return run

    def test_approve_runs_exactly_what_was_shown(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox)
        assert run.requests[0].arguments == {"to": "ana", "body": "hello"}
        run.approve()
        run.result(60)
        assert mailbox.sent == [("ana", "hello")] and run.text == "Done."

    def test_deny_tells_the_model_the_reason(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox)
        run.deny("not today")
        run.result(60)
        assert not mailbox.sent
        assert run.messages[-2].parts[0].content == "mail was not run: denied by the user: not today"  # type: ignore[union-attr]

    def test_edited_arguments_run_and_the_original_is_kept(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox)
        run.approve(arguments={"to": "bo"})
        run.result(60)
        assert mailbox.sent == [("bo", "hello")]
        assert run.tool_calls[0].proposed_arguments == {"to": "ana", "body": "hello"}

    def test_edited_arguments_that_are_not_valid_are_refused_and_the_request_stays(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox)
        with pytest.raises(AnswerRefused, match="to: Field required"):
            run.approve(arguments={"body": "x"})
        with pytest.raises(AnswerRefused, match="not valid JSON"):
            request = run.requests[0]
            assert request.request
            run.answer(request.request.request_id, "edit", digest=request.digest, arguments="{").result()
        assert run.status == "waiting"
        run.deny()
        run.result(60)

    def test_a_value_that_validation_would_change_is_shown_again_first(self) -> None:
        done: list[int] = []

        @tool
        def repeat(times: int) -> str:
            """Repeat."""
            done.append(times)
            return "ok"

        run = Agent(ScriptedModel([call("repeat", times=1), "Done."]), tools=[repeat]).start("go", is_attended=True)
        until(lambda: run.status == "waiting")
        with pytest.raises(AnswerRefused, match=r'would run as \{"times": 3\}'):
            run.approve(arguments={"times": "3"})
        run.approve(arguments={"times": 3})
        run.result(60)
        assert done == [3]

    def test_an_answer_for_other_arguments_changes_nothing(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox)
        request = run.requests[0].request
        assert request
        with pytest.raises(AnswerRefused, match="other arguments"):
            run.answer(request.request_id, "approve", digest="0" * 64).result()
        assert run.status == "waiting" and not mailbox.sent
        run.cancel()

    def test_the_first_answer_wins_and_a_second_is_refused(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox)
        request = run.requests[0].request
        assert request
        answers = [run.answer(request.request_id, "approve", digest=request.digest) for _ in range(5)]
        refused = [future.exception(60) for future in answers]
        run.result(60)
        assert [error is None for error in refused] == [True, False, False, False, False]
        assert len(mailbox.sent) == 1

    def test_a_preview_says_what_would_happen_and_one_that_raises_costs_only_itself(self, mailbox: Mailbox) -> None:
        run = self.run(mailbox, preview=lambda to, body: f"A mail to {to}")
        assert run.requests[0].request and run.requests[0].request.preview == "A mail to ana"
        run.cancel()
        run = self.run(mailbox, preview=lambda **_: 1 / 0)
        assert run.requests[0].request and "ZeroDivisionError" in (run.requests[0].request.preview or "")
        run.cancel()


@pytest.mark.feature("B9")
class TestNobodyThere:
    def test_an_unattended_run_denies_at_once_and_tells_the_model(self, mailbox: Mailbox) -> None:
        model = ScriptedModel([call("mail", to="ana"), "I could not."])
        run = Agent(model, tools=[mailbox.tool()]).start("go").result(60)
        assert not mailbox.sent and run.tool_calls[0].status == "denied"
        assert "nobody is attending" in (run.tool_calls[0].content or "")
        assert "nobody is attending" in model.requests[1].messages[-1].parts[0].content  # type: ignore[union-attr]

    def test_a_request_that_nobody_answers_is_denied_after_its_time(self, mailbox: Mailbox) -> None:
        agent = Agent(ScriptedModel([call("mail", to="ana"), "Well."]), tools=[mailbox.tool()], request_timeout_s=0.2)
        run = agent.start("go", is_attended=True).result(60)
        call_ = run.tool_calls[0]
        assert call_.status == "denied" and call_.request and call_.request.by == "time limit" and not mailbox.sent

    def test_rules_decide_before_the_mode(self, mailbox: Mailbox) -> None:
        rules = [Rule("mail", "deny", {"to": "*@rival.example"}, "no mail to rivals"), Rule("mail", "allow")]
        model = ScriptedModel([[call("mail", to="x@rival.example"), call("mail", to="ana")], "Done."])
        run = Agent(model, tools=[mailbox.tool()], rules=rules).run_sync("go")
        assert mailbox.sent == [("ana", "hello")]
        assert run.tool_calls[0].judged_by.startswith("rule deny mail") and "no mail to rivals" in (
            run.tool_calls[0].content or ""
        )


@pytest.mark.feature("B2")
class TestBadCalls:
    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (call("nothing"), "There is no tool called 'nothing'. The tools are: weather."),
            (call("weather", town="Oslo"), "city: Field required"),
            (call("weather", city=[1]), "Input should be a valid string"),
        ],
    )
    def test_the_model_is_told_what_was_wrong_and_nothing_runs(self, asked: Any, said: str) -> None:
        run = Agent(ScriptedModel([asked, "I see."]), tools=[weather]).run_sync("go")
        assert run.status == "completed" and run.tool_calls[0].status == "invalid"
        assert said in (run.tool_calls[0].content or "")

    def test_of_very_many_tools_the_nearest_are_named_and_some_more(self) -> None:
        tools = [Tool(lambda: None, description="Look.", name=f"tool_{number}") for number in range(300)]
        tools.append(Tool(lambda: None, description="Look.", name="weather_report"))
        model = ScriptedModel([call("wether_report"), call("x" * 100_000), "I see."])
        run = Agent(model, tools=tools).run_sync("go")
        near, long = (one.content or "" for one in run.tool_calls)
        assert "The tools are: weather_report, tool_0, " in near and near.endswith(" and 251 more.")
        assert len(near) < 1_000 and len(long) < 1_000

    def test_numbers_that_json_does_not_have_are_no_arguments(self) -> None:
        @tool(effect="read")
        def half(x: float) -> float:
            """Halve."""
            return x / 2

        run = Agent(ScriptedModel([Call("half", '{"x": NaN}'), "I see."]), tools=[half]).run_sync("go")
        assert run.tool_calls[0].status == "invalid" and "NaN is not JSON" in (run.tool_calls[0].content or "")

    def test_a_tool_that_raises_is_told_to_the_model_and_the_run_goes_on(self) -> None:
        @tool(effect="read")
        def broken() -> str:
            """Break."""
            raise LookupError("no such table")

        run = Agent(ScriptedModel([call("broken"), "I see."]), tools=[broken]).run_sync("go")
        assert run.status == "completed" and run.tool_calls[0].content == "LookupError: no such table"
        assert "no such table" in run.tool_calls[0].details["traceback"]

    def test_a_tool_that_calls_exit_does_not_end_the_loop_of_all_runs(self) -> None:
        @tool(effect="read")
        def leave() -> None:
            """Leave."""
            sys.exit(3)

        run = Agent(ScriptedModel([call("leave"), "I see."]), tools=[leave]).run_sync("go")
        assert run.status == "completed" and run.tool_calls[0].status == "error"
        assert Agent(ScriptedModel(["alive"])).run_sync("go").text == "alive"

    @pytest.mark.parametrize(
        "value",
        [
            {1, 2},
            b"bytes",
            float("nan"),
            (i for i in range(3)),
            ValueError("x"),
            "\ud800",
            object(),
            "x" * 2_000_000,
            {"a": {2}},
        ],
    )
    def test_whatever_a_tool_returns_the_run_goes_on(self, value: Any) -> None:
        @tool(effect="read")
        def odd() -> Any:
            """Return something odd."""
            return value

        model = ScriptedModel([call("odd"), "Done."])
        run = Agent(model, tools=[odd]).run_sync("go")
        assert run.status == "completed" and run.tool_calls[0].status == "ok"
        assert len(model.requests[1].messages[-1].parts[0].content) < 60_000  # type: ignore[union-attr]

    def test_a_tool_has_its_time_limit(self) -> None:
        @tool(effect="read", timeout_s=0.1)
        async def slow() -> None:
            """Take long."""
            await asyncio.sleep(30)

        run = Agent(ScriptedModel([call("slow"), "I see."]), tools=[slow]).run_sync("go")
        assert run.tool_calls[0].status == "timeout" and "0.1 s" in (run.tool_calls[0].content or "")

    def test_progress_reaches_those_who_watch(self) -> None:
        watched = threading.Event()

        @tool(effect="read")
        def work(context: ToolContext) -> str:
            """Work."""
            context.progress("half done")
            watched.wait(LONG_S)
            return "done"

        run = Agent(ScriptedModel([call("work"), "Done."]), tools=[work]).start("go")
        seen: list[Event] = []
        run.subscribe(seen.append)
        until(lambda: any(event.type == "CallProgress" for event in seen))
        watched.set()
        run.result(60)
        run.drain(LONG_S)
        assert [event.text for event in seen if event.type == "CallProgress"] == ["half done"]


@pytest.mark.feature("A12")
class TestEnds:
    @pytest.mark.parametrize(
        ("script", "status", "kind"),
        [
            (["fine"], "completed", None),
            ([""], "failed", "empty_reply"),
            ([ModelFailure("overloaded", "529")], "failed", "overloaded"),
        ],
    )
    def test_each_has_its_status(self, script: list[Any], status: str, kind: str | None) -> None:
        run = Agent(ScriptedModel(script), attempts=1).run_sync("go")
        assert (run.status, run.state.error_kind) == (status, kind)

    def test_a_stream_without_an_end_is_a_failure_that_keeps_the_text(self) -> None:
        class Endless:
            name = "endless"

            async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
                yield ["half an ans"]

        run = Agent(Endless()).run_sync("go")
        assert (run.status, run.state.error_kind, run.text) == ("failed", "protocol", "half an ans")

    def test_an_answer_cut_by_length_says_so(self) -> None:
        class Cut:
            name = "cut"

            async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
                yield ["half an ans", Finished("length")]

        assert Agent(Cut()).run_sync("go").status == "truncated"

    def test_the_limit_of_steps_is_a_status(self) -> None:
        model = ScriptedModel([call("weather", city="Oslo")] * 3)
        run = Agent(model, tools=[weather], max_steps=2, summarises=False).run_sync("go")
        assert run.status == "max_steps" and len(run.state.steps) == 2
        with pytest.raises(RunError, match="2 steps"):
            run.raise_for_status()

    def test_a_failure_is_in_the_run_and_not_on_the_screen(self) -> None:
        code = "from turncell import Agent, Tool; from turncell.testing import ScriptedModel; "
        code += "run = Agent(ScriptedModel([lambda request: 1 / 0])).run_sync('go'); print(run.status)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("failed\n", "")

    def test_a_model_that_raises_anything_is_a_failed_run(self) -> None:
        class Broken:
            name = "broken"

            async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
                raise KeyError("oops")
                yield []

        run = Agent(Broken()).run_sync("go")
        assert run.status == "failed" and "KeyError" in (run.state.error or "")


class TestSessions:
    def test_the_next_run_knows_what_was_said(self) -> None:
        model = ScriptedModel(["I am fine.", "As I said, fine."])
        agent = Agent(model)
        session = agent.session()
        agent.run_sync("How are you?", session=session)
        run = agent.run_sync("Again?", session=session)
        assert [m.text for m in model.requests[1].messages] == ["How are you?", "I am fine.", "Again?"]
        assert run.state.previous == session.runs[0].run_id

    def test_runs_of_one_session_wait_their_turn(self) -> None:
        agent = Agent(ScriptedModel([say("one", delay_s=0.01), "two"]))
        session = agent.session()
        runs = [agent.start("first", session=session), agent.start("second", session=session)]
        assert [run.result(60).text for run in runs] == ["one", "two"]

    @pytest.mark.feature("C7")
    def test_a_session_read_from_the_journal_is_the_one_that_was_written(self, mailbox: Mailbox) -> None:
        agent = Agent(ScriptedModel([[say("Look. "), call("weather", city="Oslo")], "Fine."]), tools=[weather])
        run = agent.run_sync("go")
        again = Session.load(run.session.id, run.session.journal)
        assert again.runs == (run.state,)
        with pytest.raises(UsageError, match="no session 'ses_x'"):
            Session.load("ses_x", run.session.journal)

    def test_an_empty_prompt_is_refused(self) -> None:
        with pytest.raises(UsageError, match="prompt is empty"):
            Agent(ScriptedModel([])).start("  \n")

    @pytest.mark.parametrize("said", [Message("user", (Text("Hello."),)), {"role": "user", "content": "Hello."}])
    def test_a_conversation_is_no_prompt(self, said: Any) -> None:
        with pytest.raises(UsageError, match="what was said before is in a session"):
            Agent(ScriptedModel([])).start([said])

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"max_steps": 0}, "max_steps is 0"),
            ({"mode": "x"}, "mode is 'x'"),
            ({"mode": ""}, "mode is ''"),
            ({"is_attended": "no"}, "is_attended is 'no'"),
            ({"cell_id": object()}, "cell_id is <object"),
            ({"budget": {"dollars": 1}}, "no limit called 'dollars'; use steps, tokens, usd"),
        ],
    )
    def test_what_cannot_be_is_refused_before_a_run_begins(self, option: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Agent(ScriptedModel([])).start("go", **option)


@pytest.mark.feature("A1")
class TestWhatIsGivenIsLookedAt:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"fallbacks": "embedded"}, "fallbacks is 'embedded'; use a list"),
            ({"telemetry": MemoryWriter}, "no telemetry writer"),
            ({"telemetry": [object()]}, "no telemetry writer"),
            ({"telemetry": print}, "no telemetry writer; use an object with write"),
            ({"hooks": {"before_tool": print}}, r"no set of hooks; use Hooks\(before_tool"),
            ({"sources": "handbook"}, "a source is 'handbook'; use a function"),
            ({"tools": [Agent("embedded")]}, r"use agent.as_tool\(\)"),
            ({"tools": [object()]}, "give a method: object.method"),
            ({"step_policy": StepLimit}, "step_policy is <class"),
            ({"mode": ""}, "mode is ''"),
            ({"temperature": "hot"}, "temperature is 'hot'"),
            ({"reasoning_effort": 3}, "reasoning_effort is 3"),
            ({"router": "x"}, "router is 'x'"),
            ({"journal": "x.sqlite"}, "journal is 'x.sqlite'"),
            ({"budget": {"dollars": 1}}, "no limit called 'dollars'; use steps, tokens, usd"),
        ],
    )
    def test_by_an_agent(self, option: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Agent(ScriptedModel([]), **option)

    def test_a_temperature_of_zero_is_one(self) -> None:
        model = ScriptedModel(["one"])
        Agent(model, temperature=0).run_sync("go")
        assert model.requests[0].temperature == 0

    @pytest.mark.parametrize("parts", ["hello", (Text(5),), ("hello",)])  # type: ignore[arg-type]
    def test_by_a_prompt(self, parts: Any) -> None:
        with pytest.raises(UsageError, match="a tuple of Text and Image"):
            Agent(ScriptedModel([])).start(Message("user", parts))

    def test_by_a_session(self) -> None:
        with pytest.raises(UsageError, match="title is <object"):
            Agent(ScriptedModel([])).session(title=object())  # type: ignore[arg-type]

    def test_by_an_answer_and_the_request_stays_open(self, mailbox: Mailbox) -> None:
        agent = Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mailbox.tool()])
        run: Any = agent.start("go", is_attended=True)
        (waiting,) = run.wait_request(60)
        odd: list[Callable[[], Any]] = [
            lambda: run.cancel(object()),
            lambda: run.deny(object()),
            lambda: run.approve("w"),
            lambda: run.approve(arguments=5),
            lambda: run.approve(scope="ever"),
            lambda: run.answer(waiting.request.request_id, "result", digest=waiting.digest, result=5).result(60),
            lambda: run.answer(waiting.request.request_id, "result", digest=waiting.digest, result=[5]).result(60),
            lambda: run.answer(waiting.request.request_id, "approve", digest=waiting.digest, by="me").result(60),
        ]
        for answer in odd:
            with pytest.raises((UsageError, AnswerRefused)):
                answer()
            assert run.status == "waiting"
        run.approve()
        assert run.result(60).status == "completed" and mailbox.sent == [("ana", "hello")]

    def test_by_waiting_which_says_what_it_waited_for(self) -> None:
        gate = Gate()
        run = Agent(ScriptedModel([gate.say("one")])).start("go")
        gate.was_reached()
        with pytest.raises(TimeoutError, match="the run is running and has not ended within"):
            run.result(0.01)
        with pytest.raises(TimeoutError, match="nothing was asked within"):
            run.wait_request(0.01)
        with pytest.raises(UsageError, match="timeout_s is 'x'"):
            run.result("x")  # type: ignore[arg-type]
        gate.open()
        assert run.result(60).text == "one"


@pytest.mark.feature("B1")
class TestWaitingForARequest:
    def two(self, mailbox: Mailbox) -> Run:
        script = [call("mail", to="ana"), call("mail", to="bo"), "Done."]
        return Agent(ScriptedModel(script), tools=[mailbox.tool()]).start("go", is_attended=True)

    def test_from_a_script(self, mailbox: Mailbox) -> None:
        run = self.two(mailbox)
        seen = []
        while waiting := run.wait_request(60):
            seen += [one.arguments["to"] for one in waiting if one.arguments]
            run.approve(waiting[0])
        assert seen == ["ana", "bo"] and run.result(60).text == "Done." and run.wait_request() == ()

    def test_on_any_event_loop(self, mailbox: Mailbox) -> None:
        async def main() -> str:
            run = self.two(mailbox)
            while waiting := await asyncio.wait_for(run.next_request(), 60):
                run.approve(waiting[0])
            return (await run).text

        assert asyncio.run(main()) == "Done." and len(mailbox.sent) == 2
        assert BackgroundLoop.current().spawn(main()).result(60) == "Done."

    def test_on_the_loop_of_all_runs_it_is_refused(self) -> None:
        run = Agent(ScriptedModel(["one"])).run_sync("go")
        with pytest.raises(UsageError, match=r"await run.next_request\(\)"):
            BackgroundLoop.current().call(run.wait_request).result(60)


def test_blocking_the_loop_that_runs_live_on_is_refused() -> None:
    async def inner() -> None:
        Agent(ScriptedModel(["x"])).start("go").result()

    with pytest.raises(UsageError, match="would block"):
        BackgroundLoop.current().spawn(inner()).result(60)


def test_bursts_that_are_merged_while_another_thread_takes_them_arrive_once() -> None:
    class Torrent:
        name = "torrent"

        async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
            for number in range(0, 60_000, 600):
                yield [f"{n} " for n in range(number, number + 600)]
                await asyncio.sleep(0)
            yield [Finished("stop")]

    async def read() -> str:
        return "".join([event.text async for event in Agent(Torrent()).start("Go.") if isinstance(event, TextDelta)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        texts = {asyncio.run(read()) for _ in range(3)}
    finally:
        sys.setswitchinterval(interval)
    assert texts == {"".join(f"{n} " for n in range(60_000))}


def test_nothing_is_left_running() -> None:
    Agent(ScriptedModel(["warm"])).run_sync("go")
    loop = BackgroundLoop.current()
    threads, tasks = threading.active_count(), len(asyncio.all_tasks(loop.loop))
    runs = [Agent(Silent("x")).start("go") for _ in range(20)]
    for run in runs:
        run.cancel()
    for run in runs:
        run.result(60)
    until(lambda: len(asyncio.all_tasks(loop.loop)) <= tasks)
    until(lambda: threading.active_count() <= threads + 1)


class TestWhatAReviewFound:
    def test_a_validator_that_changes_what_it_has_changed_is_refused(self) -> None:
        ran: list[float] = []

        @tool
        def pay(usd: Annotated[float, AfterValidator(lambda v: v * 100)]) -> str:
            """Pay."""
            ran.append(usd)
            return "paid"

        run = Agent(ScriptedModel([call("pay", usd=5), "I see."]), tools=[pay], mode="auto").run_sync("go")
        assert run.tool_calls[0].status == "invalid" and not ran

    def test_a_write_that_happened_is_ok_even_if_its_result_cannot_be_shown(self) -> None:
        class Odd:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        @tool
        def write() -> Any:
            """Write."""
            return Odd()

        run = Agent(ScriptedModel([call("write"), "Done."]), tools=[write], mode="auto").run_sync("go")
        assert run.tool_calls[0].status == "ok" and "cannot be shown" in (run.tool_calls[0].content or "")

    def test_a_series_is_a_result(self) -> None:
        import pandas as pd

        @tool(effect="read")
        def series() -> Any:
            """Give a series."""
            return pd.Series([1, 2])

        run = Agent(ScriptedModel([call("series"), "Done."]), tools=[series]).run_sync("go")
        assert run.tool_calls[0].status == "ok" and "1" in (run.tool_calls[0].content or "")

    def test_arguments_changed_behind_the_digest_do_not_run(self, mailbox: Mailbox) -> None:
        run = Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mailbox.tool()]).start(
            "go", is_attended=True
        )
        until(lambda: run.status == "waiting")
        arguments = run.state.open_requests[0].arguments
        assert arguments is not None
        arguments["to"] = "evil"
        run.approve()
        run.result(60)
        assert not mailbox.sent and run.tool_calls[0].status == "error"

    def test_an_exception_that_cannot_be_said_does_not_hang_the_run(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        @tool(effect="read")
        def bad() -> None:
            """Fail."""
            raise Mute

        run = Agent(ScriptedModel([call("bad"), "I see."]), tools=[bad]).start("go").result(60)
        assert run.tool_calls[0].status == "error"

    def test_run_sync_on_the_loop_of_runs_is_refused_before_anything_runs(self, mailbox: Mailbox) -> None:
        inner = Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mailbox.tool()], mode="auto")

        @tool(effect="read")
        async def nested() -> str:
            """Nest."""
            return inner.run_sync("go").text

        run = Agent(ScriptedModel([call("nested"), "I see."]), tools=[nested]).run_sync("go")
        assert "await agent.run" in (run.tool_calls[0].content or "") and not mailbox.sent

    @pytest.mark.parametrize("seconds", [float("nan"), -1.0, float("inf")])
    def test_a_time_limit_is_a_number_of_seconds(self, seconds: float) -> None:
        with pytest.raises(UsageError, match="request_timeout_s"):
            Agent(ScriptedModel([]), request_timeout_s=seconds)
