"""When a run may not go on: step policies, the limit of steps with its summary, and the router that picks a model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, ends, skip, told, until, written
from turncell import Agent, Budget, LoopDetection, ModelFailure, RunError, StepLimit, UsageError, tool
from turncell.adapters.scripted_model import Call, ScriptedModel, call, say
from turncell.core.deltas import Finished, Fragment
from turncell.runtime.ports import ModelRequest


@tool(effect="read")
def peek(at: str = "clock") -> str:
    """Look quickly."""
    return f"the {at}"


class Policy:
    """Stops after `limit` steps with these closing words, and keeps what it was asked."""

    def __init__(self, limit: int = 1, text: str | None = "Enough.") -> None:
        self.limit, self.text = limit, text
        self.asked: list[tuple[int, list[str]]] = []

    def should_continue(self, step: int, tools_used: Any) -> bool:
        self.asked.append((step, [call.name for call in tools_used]))
        return step < self.limit

    def on_limit_reached(self, step: int, tools_used: Any) -> str | None:
        return self.text


@pytest.mark.feature("A7")
class TestStepPolicies:
    def test_it_is_asked_after_each_step_that_called_tools_and_its_words_close_the_run(self) -> None:
        policy = Policy(limit=2)
        model = ScriptedModel([call("peek"), [call("peek", at="sun"), call("peek", at="moon")], "never"])
        run = Agent(model, tools=[peek], step_policy=policy).run_sync("go")
        assert (run.status, run.text) == ("max_steps", "Enough.") and len(model.requests) == 2
        assert policy.asked == [(1, ["peek"]), (2, ["peek"] * 3)]
        assert written(run) == (run.state,) and len(ends(run)) == 1

    def test_a_run_that_ends_by_itself_is_not_asked_about(self) -> None:
        policy = Policy()
        run = Agent(ScriptedModel(["Done."]), step_policy=policy).run_sync("go")
        assert run.status == "completed" and not policy.asked

    def test_both_may_be_async(self) -> None:
        class Slow:
            async def should_continue(self, step: int, tools_used: Any) -> bool:
                await asyncio.sleep(0)
                return False

            async def on_limit_reached(self, step: int, tools_used: Any) -> str:
                await asyncio.sleep(0)
                return f"After {step}."

        run = Agent(ScriptedModel([call("peek")]), tools=[peek], step_policy=Slow()).run_sync("go")
        assert (run.status, run.text) == ("max_steps", "After 1.")

    def test_without_words_of_its_own_the_model_sums_up(self) -> None:
        model = ScriptedModel([call("peek"), "It was the clock."])
        run = Agent(model, tools=[peek], step_policy=Policy(text=None)).run_sync("go")
        assert (run.status, run.text) == ("max_steps", "It was the clock.") and not model.requests[1].tools

    @pytest.mark.parametrize("raises", ["should_continue", "on_limit_reached"])
    def test_one_that_raises_fails_the_run_and_says_so(self, raises: str) -> None:
        class Broken(Policy):
            def should_continue(self, step: int, tools_used: Any) -> bool:
                if raises == "should_continue":
                    raise LookupError("no table")
                return False

            def on_limit_reached(self, step: int, tools_used: Any) -> str | None:
                raise LookupError("no table")

        run = Agent(ScriptedModel([call("peek"), "x"]), tools=[peek], step_policy=Broken()).run_sync("go")
        assert (run.status, run.state.error_kind) == ("failed", "hook")
        assert "LookupError: no table" in (run.state.error or "")

    def test_one_that_blocks_keeps_no_other_run_from_going_on(self) -> None:
        release, asked = threading.Event(), threading.Event()

        class Blocking(Policy):
            def should_continue(self, step: int, tools_used: Any) -> bool:
                asked.set()
                release.wait(LONG_S)
                return False

        run = Agent(ScriptedModel([call("peek")]), tools=[peek], step_policy=Blocking()).start("go")
        assert asked.wait(LONG_S)
        assert Agent(ScriptedModel(["free"])).start("go").result(LONG_S).text == "free"
        release.set()
        assert run.result(LONG_S).text == "Enough."

    def test_a_loop_of_equal_calls_is_stopped_and_named(self) -> None:
        model = ScriptedModel(lambda request: call("peek"))
        run = Agent(model, tools=[peek], step_policy=LoopDetection()).run_sync("go")
        assert run.status == "max_steps" and run.text == 'Stopped: peek({"at":"clock"}) was called 3 times.'
        assert len(run.tool_calls) == 3

    def test_polling_is_no_loop(self) -> None:
        model = ScriptedModel([*[call("peek")] * 6, "Ready."])
        run = Agent(model, tools=[peek], step_policy=LoopDetection(polling={"peek"})).run_sync("go")
        assert run.status == "completed" and len(run.tool_calls) == 6

    def test_both_limits_hold_where_both_are_given(self) -> None:
        model = ScriptedModel(lambda request: call("peek", at=str(request.step)))
        run = Agent(model, tools=[peek], step_policy=StepLimit(9), max_steps=2, summarises=False).run_sync("go")
        assert run.status == "max_steps" and len(run.state.steps) == 2

    def test_what_is_no_policy_is_refused(self) -> None:
        with pytest.raises(UsageError, match="should_continue"):
            Agent(ScriptedModel([]), step_policy=3)  # type: ignore[arg-type]


@pytest.mark.feature("A8")
class TestTheLimitOfSteps:
    def test_is_a_status_with_a_summary_that_the_model_writes_without_tools(self) -> None:
        model = ScriptedModel([call("peek"), call("peek", at="sun"), "Clock and sun."])
        run = Agent(model, tools=[peek], max_steps=2).run_sync("go")
        assert (run.status, run.text) == ("max_steps", "Clock and sun.")
        assert model.requests[2].tools == () and "limit of steps" in told(model, 2)[-1]
        assert run.state.error == "stopped after 2 steps, the limit of this run"
        with pytest.raises(RunError, match="2 steps") as raised:
            run.raise_for_status()
        assert raised.value.status == "max_steps"

    @pytest.mark.parametrize(
        "last",
        [ModelFailure("overloaded", "529"), "", [say("half"), ModelFailure("connection", "gone")], lambda _: 1 / 0],
        ids=["fails", "is empty", "breaks off", "raises"],
    )
    def test_a_summary_that_does_not_come_changes_nothing_of_the_status(self, last: Any) -> None:
        run = Agent(ScriptedModel([call("peek"), last]), tools=[peek], max_steps=1).run_sync("go")
        assert run.status == "max_steps" and len(ends(run)) == 1 and written(run) == (run.state,)

    def test_calls_in_the_summary_do_not_run(self) -> None:
        run = Agent(ScriptedModel([call("peek"), [say("So. "), call("peek")]]), tools=[peek], max_steps=1).run_sync(
            "go"
        )
        assert (run.status, run.text) == ("max_steps", "So. ") and len(run.tool_calls) == 1

    def test_the_next_run_of_the_session_goes_on_from_there(self) -> None:
        model = ScriptedModel([call("peek"), "In short.", "Going on."])
        agent = Agent(model, tools=[peek], max_steps=1)
        session = agent.session()
        agent.run_sync("go", session=session)
        assert agent.run_sync("on", session=session, max_steps=5).text == "Going on."
        assert told(model, 2)[-2:] == ["In short.", "on"]

    def test_an_answer_in_the_last_step_is_a_completed_run(self) -> None:
        run = Agent(ScriptedModel([call("peek"), "Done."]), tools=[peek], max_steps=2).run_sync("go")
        assert run.status == "completed" and run.raise_for_status() is run


@pytest.mark.feature("A12")
class TestOtherLimits:
    def test_a_time_limit_ends_whatever_is_going_on(self) -> None:
        run = Agent(ScriptedModel(["x"], delay_s=LONG_S), timeout_s=0.1).start("go").result(LONG_S)
        assert (run.status, run.state.error_kind) == ("timeout", "timeout") and len(ends(run)) == 1

    def test_a_time_limit_ends_a_run_whose_person_does_not_answer(self) -> None:
        @tool
        def mail() -> str:
            """Send."""
            return "sent"

        run = Agent(ScriptedModel([call("mail")]), tools=[mail], timeout_s=30).start("go", is_attended=True)
        until(lambda: run.requests)
        skip(30)
        run.result(LONG_S)
        assert run.status == "timeout" and run.tool_calls[0].status == "cancelled" and not run.requests

    def test_a_budget_of_calls(self) -> None:
        model = ScriptedModel([[call("peek", at=str(n)) for n in range(3)], "never"])
        run = Agent(model, tools=[peek], budget={"calls": 2}).run_sync("go")
        assert run.status == "budget" and len(ends(run)) == 1
        assert {c.status for c in run.tool_calls} <= {"ok", "cancelled"}

    def test_a_budget_that_is_used_up_ends_the_next_run_before_its_first_call(self) -> None:
        budget = Budget(steps=1)
        model = ScriptedModel(["one", "two"])
        agent = Agent(model, budget=budget)
        assert agent.run_sync("go").status == "completed"
        run = agent.run_sync("go")
        assert run.status == "budget" and len(model.requests) == 1 and written(run) == (run.state,)


@pytest.mark.feature("A14")
class TestLatency:
    def test_events_when_asked_for(self) -> None:
        @tool
        def mail() -> str:
            """Send."""
            return "sent"

        seen: list[Any] = []
        model = ScriptedModel([call("mail"), say("one two three four five", delay_s=0.01)])
        run = Agent(model, tools=[mail], debug_latency=True).start("go", is_attended=True)
        run.subscribe(seen.append)
        until(lambda: run.requests)
        time.sleep(0.05)  # a wait that can be measured
        run.approve()
        run.result(LONG_S)
        run.drain(LONG_S)
        latencies = [event for event in seen if event.type == "Latency"]
        assert {event.kind for event in latencies} == {"first_token", "gap", "model", "call", "waiting"}
        assert all(event.seconds >= 0 for event in latencies)
        (waited,) = [event for event in latencies if event.kind == "waiting"]
        assert waited.seconds >= 0.05 and waited.call_id == run.tool_calls[0].call_id

    def test_no_events_otherwise_but_columns_always(self) -> None:
        from turncell import calls_df, runs_df, steps_df

        seen: list[Any] = []
        run = Agent(ScriptedModel([call("peek"), say("one two three", delay_s=0.01)]), tools=[peek]).start("go")
        run.subscribe(seen.append)
        run.result(LONG_S)
        run.drain(LONG_S)
        assert not any(event.type == "Latency" for event in seen)
        steps, calls, runs = steps_df(), calls_df(), runs_df()
        assert (steps["first_token_s"] > 0).all() and "waiting_s" in runs and (calls["duration_s"] >= 0).all()


@pytest.mark.feature("A16")
def test_accessors_of_usage_and_of_what_is_being_written() -> None:
    gate = Gate()

    class Slow(ScriptedModel):
        """Is held after the calls of its first answer."""

        async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
            async for burst in super().stream(request):
                if isinstance(burst[0], Finished) and request.step == 1:
                    await gate.wait_async()
                yield burst

    calls = [Call("peek", '{"at": "clock"}'), Call("peek", '{"at": "sun"}')]
    agent = Agent(Slow([calls, "Two words."]), tools=[peek])
    session = agent.session()
    assert session.last_usage is None and session.last_total_tokens is None
    run = agent.start("go", session=session)
    until(lambda: len(run.call_fragments()) == 2 and all(text.endswith("}") for text in run.call_fragments().values()))
    first, second = run.call_fragments(1).values()
    assert (first, second) == ('{"at": "clock"}', '{"at": "sun"}') and run.call_fragments(7) == {}
    gate.open()
    run.result(LONG_S)
    until(lambda: session.runs)
    usage = run.state.steps[-1].usage
    assert session.last_usage == usage and usage.output_tokens == 2
    assert session.last_total_tokens == (usage.input_tokens or 0) + 2
