"""A15, A20, B5: what a run may spend, and what is told of it when it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, until
from tests.runtime.test_runs import weather
from turncell import (
    Agent,
    Budget,
    JsonLinesWriter,
    MemoryWriter,
    ModelFailure,
    Price,
    Tiers,
    UsageError,
    model,
    runs_df,
    tool,
)
from turncell.core.deltas import Finished, Fragment
from turncell.core.events import BudgetChanged
from turncell.core.parts import Usage
from turncell.runtime.ports import ModelRequest
from turncell.testing import ScriptedModel, call, reply, say, serve


def looking(**options: Any) -> ScriptedModel:
    """Never ends by itself; each step costs a dollar with `price=(0, 0.5e6)` (two words)."""
    return ScriptedModel(lambda request: call("weather", city="x"), **options)


def asks_weather(model: Any, **options: Any) -> Agent:
    return Agent(model, tools=[weather], **{"summarises": False} | options)


@pytest.mark.feature("A20")
class TestLimits:
    def test_steps(self) -> None:
        run = asks_weather(looking(), budget={"steps": 3}).run_sync("go")
        assert (run.status, run.state.error_kind, len(run.state.steps) - 1) == ("budget", "budget", 3)
        assert "3 steps" in (run.state.error or "") and run.budget.spent.steps == 3

    def test_calls(self) -> None:
        run = asks_weather(looking(), budget={"calls": 2}).run_sync("go")
        assert run.status == "budget" and [c.status for c in run.tool_calls] == ["ok", "ok", "cancelled"]

    @pytest.mark.parametrize("raised", [False, True])
    def test_the_calls_that_run_are_let_finish_before_one_too_many_ends_the_run(self, raised: bool) -> None:
        gate = Gate()
        model = ScriptedModel([[call("look"), call("weather", city="x")], "Done."])
        agent = Agent(model, tools=[gate.read_tool(), weather], budget={"calls": 1})
        run = agent.start("go")
        gate.was_reached()
        until(lambda: run.tool_calls[1].status == "running")
        if raised:
            run.set_budget(calls=2)
        gate.open()
        run.result(60)
        look, other = run.tool_calls
        assert (look.status, look.content) == ("ok", "seen")
        if raised:
            assert (run.status, other.status) == ("completed", "ok")
        else:
            assert (run.status, other.status) == ("budget", "cancelled") and "before this call ran" in other.content
            assert run.budget.spent.calls == 1

    def test_a_write_too_many_does_not_stand_in_the_way_of_a_write_inside_a_call_that_runs(self) -> None:
        gate, sent = Gate(), []

        @tool
        async def send(to: str) -> str:
            """Send."""
            sent.append(to)
            return "sent"

        inner = Agent(ScriptedModel([gate.say(call("send", to="inside")), "Done."]), tools=[send], mode="auto")
        model = ScriptedModel([[call("helper", task="go"), call("send", to="outside")], "Done."])
        run = Agent(model, tools=[inner.as_tool("helper"), send], mode="auto", budget={"calls": 1}).start("go")
        gate.was_reached()
        until(lambda: run.tool_calls[1].status == "running")
        gate.open()
        assert run.result(LONG_S).status == "budget" and sent == []

    def test_usd(self) -> None:
        run = asks_weather(looking(price=(0.0, 0.5e6)), budget={"usd": 2.5}).run_sync("go")
        assert run.status == "budget" and 2.5 < run.budget.spent.usd <= 3.5 + 1e-6
        assert run.budget.spent.usd == pytest.approx(sum(step.cost_usd or 0 for step in run.state.steps))

    def test_tokens(self) -> None:
        run = asks_weather(looking(), budget={"tokens": 60}).run_sync("go")
        used = run.usage
        assert run.status == "budget" and len(run.state.steps) > 1, "a limit below the guess lets a run begin"
        assert run.budget.spent.tokens == (used.input_tokens or 0) + (used.output_tokens or 0)

    def test_seconds(self) -> None:
        now_s = 100.0
        run = Agent(Silent("thinking"), budget=Budget(seconds=10, clock=lambda: now_s)).start("go")
        until(lambda: run.text)
        now_s += 11
        run.result(60)
        assert run.status == "budget" and "seconds" in (run.state.error or "") and run.text == "thinking"

    def test_the_limits_of_an_agent_hold_for_each_run_anew_and_those_of_a_run_go_before(self) -> None:
        agent = asks_weather(looking(), budget={"steps": 2})
        for _ in range(2):
            assert agent.run_sync("go").budget.spent.steps == 2
        assert agent.run_sync("go", budget={"steps": 1}).budget.spent.steps == 1
        assert agent.run_sync("go", budget={"steps": None, "calls": 3}).budget.spent.steps == 4

    @pytest.mark.parametrize("budget", [{"steps": 0}, {"usd": -1}, {"euros": 3}, 5])
    def test_what_is_no_limit_is_refused_before_anything_runs(self, budget: Any) -> None:
        with pytest.raises((UsageError, TypeError)):
            asks_weather(looking()).start("go", budget=budget)


@pytest.mark.feature("A20")
class TestPrices:
    @pytest.mark.parametrize(("unknown", "status"), [("stop", "budget"), ("ignore", "completed")])
    def test_a_cost_that_nobody_knows_stops_or_is_ignored(self, unknown: str, status: str) -> None:
        model = ScriptedModel([call("weather", city="x"), "Done."])
        run = asks_weather(model, budget={"usd": 5.0, "unknown_prices": unknown}).run_sync("go")
        assert run.status == status and run.budget.spent.has_unknown_cost
        assert ("the cost of a model call is unknown" in (run.state.error or "")) == (status == "budget")

    def test_a_failure_before_the_first_word_costs_nothing_and_uses_no_step(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("turncell.core.streaming.BACKOFF_S", 0.01)
        busy = ModelFailure("rate_limit", "slow down", retry_after_s=0.01)
        model = ScriptedModel([busy, busy, "Done."], price=(0, 1e6))
        run = Agent(model, budget={"steps": 1, "usd": 5, "unknown_prices": "stop"}).run_sync("go")
        assert (run.status, run.budget.spent.steps, run.budget.spent.usd) == ("completed", 1, pytest.approx(1.0))
        assert not run.budget.spent.has_unknown_cost

    @pytest.mark.parametrize("how", ["drops", "cancelled", "silent"])
    def test_a_call_that_breaks_off_is_settled_with_what_its_record_says(self, how: str) -> None:
        budget = Budget(usd=1.0, unknown_prices="stop")
        first = {"drops": {"resets_after": 4}, "cancelled": {"hangs_after": 4}, "silent": {"hangs_after": 4}}[how]
        with serve([reply("12345678 and more and more", **first), "Fine."]) as server:
            served = model("openai/m", base_url=server.base_url, price=Price(1, 2))
            agent = Agent(served, budget=budget, attempts=1, silence_s=1.0 if how == "silent" else 60)
            run = agent.start("go")
            until(lambda: run.text.startswith("12345678"))
            if how == "cancelled":
                run.cancel()
            step = run.result(60).state.steps[0]
            assert run.status != "completed" and step.usage.is_estimated and step.cost_usd
            assert budget.spent.usd == pytest.approx(step.cost_usd) and not budget.spent.has_unknown_cost
            assert budget.spent.tokens == (step.usage.input_tokens or 0) + (step.usage.output_tokens or 0)
            assert agent.run_sync("again").text == "Fine."

    def test_a_model_that_does_not_count_is_counted_by_the_guess(self) -> None:
        class Uncounted:
            name = "uncounted"

            async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
                yield ["Done.", Finished("stop", Usage())]

        run = Agent(Uncounted(), budget={"tokens": 5000}, max_tokens=100).run_sync("go")
        assert run.status == "completed" and run.budget.spent.tokens >= 100

    def test_max_tokens_are_reserved_as_they_are(self) -> None:
        run = Agent(ScriptedModel(["Done."]), budget={"tokens": 50}, max_tokens=100).run_sync("go")
        assert run.status == "budget" and "50 tokens left" in (run.state.error or "")


@pytest.mark.feature("A20")
class TestChanging:
    def test_while_it_runs(self) -> None:
        gate = threading.Event()

        @tool(effect="read")
        def wait() -> str:
            """Wait."""
            gate.wait(LONG_S)
            return "ok"

        model = ScriptedModel([call("wait"), call("wait"), "Done."])
        run = Agent(model, tools=[wait], budget={"steps": 1}).start("go")
        until(lambda: run.tool_calls and run.tool_calls[0].status == "running")
        run.set_budget(steps=3, usd=None)
        gate.set()
        run.result(60)
        assert run.status == "completed" and run.state.budget == {"steps": 3}
        assert [event.budget for event in run.events if isinstance(event, BudgetChanged)] == [{"steps": 3}]

    def test_lowering_it_stops_what_comes_next(self) -> None:
        gate = threading.Event()

        @tool(effect="read")
        def wait() -> str:
            """Wait."""
            gate.wait(LONG_S)
            return "ok"

        run = Agent(ScriptedModel(lambda request: call("wait")), tools=[wait]).start("go")
        until(lambda: run.tool_calls and run.tool_calls[0].status == "running")
        run.set_budget(steps=1)
        gate.set()
        run.result(60)
        assert run.status == "budget" and run.tool_calls[0].status == "ok"

    def test_what_is_no_limit_changes_nothing(self) -> None:
        gate = Gate()
        run = Agent(ScriptedModel([gate.say("slow")])).start("go")
        with pytest.raises(UsageError, match="no limit called 'euros'"):
            run.set_budget(euros=3)
        gate.open()
        run.result(60)
        assert not any(isinstance(event, BudgetChanged) for event in run.events)


@pytest.mark.feature("A20")
class TestSharing:
    def test_a_batch_never_overspends_by_more_than_one_step_of_each(self) -> None:
        budget = Budget(usd=5.0)
        runs = [
            asks_weather(looking(price=(0.0, 0.5e6), delay_s=0.001), budget=budget, max_steps=20).start("go")
            for _ in range(8)
        ]
        for run in runs:
            run.result(60)
        assert {run.status for run in runs} == {"budget"}
        assert 5.0 < budget.spent.usd <= 5.0 + 8 * 1.5
        assert budget.spent.usd == pytest.approx(sum(run.budget.spent.usd for run in runs))

    def test_steps_are_shared_to_the_last(self) -> None:
        budget = Budget(steps=10)
        agent = asks_weather(looking(delay_s=0.001), budget=budget)

        async def main() -> list[Any]:
            return await asyncio.gather(*(agent.run("go") for _ in range(6)))

        runs = asyncio.run(main())
        assert budget.spent.steps == 10 and {run.status for run in runs} == {"budget"}

    def test_a_run_may_bring_the_shared_budget(self) -> None:
        budget = Budget(steps=3)
        agent = asks_weather(looking())
        runs = [agent.run_sync("go", budget=budget) for _ in range(2)]
        assert budget.spent.steps == 3 and [run.status for run in runs] == ["budget", "budget"]
        assert runs[0].state.budget == {"steps": 3}, "what applies is in the record"

    def test_a_change_for_one_run_leaves_the_others_limits_alone(self) -> None:
        budget, gate = Budget(steps=5), Gate()
        run = Agent(ScriptedModel([gate.say("slow")])).start("go", budget=budget)
        run.set_budget(steps=1)
        gate.open()
        run.result(60)
        assert budget.limits.steps == 5 and run.budget.limits.steps == 1

    @pytest.mark.parametrize("limit", [{"tokens": 500}, {"usd": 0.005}], ids=["tokens", "usd"])
    def test_what_others_have_set_aside_and_may_not_need_is_waited_for(self, limit: Any) -> None:
        class Priced(ScriptedModel):
            def price_usd(self, input_tokens: int, output_tokens: int) -> float:
                return 1e-5 * output_tokens

        gate, budget = Gate(), Budget(**limit)
        agent = Agent(Priced([gate.say("One."), "Two.", "Three."], price=(0.0, 10.0)), budget=budget)
        first = agent.start("go")  # its guess takes all there is
        gate.was_reached()
        second, third = agent.start("go"), agent.start("go")
        until(lambda: second.state.steps and third.state.steps)
        third.cancel()
        assert third.result(LONG_S).status == "cancelled" and not second.is_done
        gate.open()
        assert [run.result(LONG_S).status for run in (first, second)] == ["completed", "completed"]
        assert budget.spent.steps == 2

    def test_what_another_has_really_spent_is_gone(self) -> None:
        budget, gate = Budget(tokens=500), Gate()
        first = Agent(ScriptedModel([gate.say("word " * 600)])).start("go", budget=budget)
        gate.was_reached()
        second = Agent(ScriptedModel(["never"])).start("go", budget=budget)
        gate.open()
        assert first.result(60).status == "completed" and second.result(60).status == "budget"

    def test_so_sub_agents_side_by_side_and_rows_of_a_batch_are_not_ended_by_guesses(self) -> None:
        writer = Agent(ScriptedModel(lambda request: [say("a word", delay_s=0.002)]), name="writer")
        tasks = [call("writer", task=str(number)) for number in range(8)]
        run = Agent(ScriptedModel([tasks, "Done."]), tools=[writer.as_tool()]).run_sync("go", budget={"tokens": 3_000})
        assert (run.status, {one.status for one in run.tool_calls}) == ("completed", {"ok"})
        found = writer.map([f"row {n}" for n in range(8)], budget={"tokens": 3_000}, progress=False)
        assert set(found["status"]) == {"completed"}

    def test_a_run_inside_a_model_does_not_wait_for_what_that_model_has_set_aside(self) -> None:
        class Asking:
            name = "asking"

            async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
                inner = await Agent(ScriptedModel(["Fine."])).run("go")
                yield [inner.status, Finished("stop", Usage(3, 2))]

        run = Agent(Asking(), budget={"tokens": 500}).start("go").result(LONG_S)
        assert (run.status, run.text) == ("completed", "budget")

    def test_a_call_that_is_cancelled_has_been_made(self) -> None:
        started = threading.Event()

        @tool(effect="read")
        async def slow() -> str:
            """Take long."""
            started.set()
            await asyncio.sleep(60)
            return "never"

        budget = Budget(calls=5)
        run = Agent(ScriptedModel([call("slow")]), tools=[slow], budget=budget).start("go")
        assert started.wait(60)
        run.cancel()
        run.result(60)
        until(lambda: budget.spent.calls == 1)
        assert budget.left().calls == 4


@pytest.mark.feature("A15")
class TestTelemetry:
    def test_every_run_is_told_however_it_ended(self, tmp_path: Path) -> None:
        memory, lines = MemoryWriter(), JsonLinesWriter(tmp_path / "runs" / "t.jsonl")
        writers = [memory, lines]
        Agent(ScriptedModel(["fine"], price=(1.0, 1.0)), telemetry=writers, name="good").run_sync("go")
        Agent(ScriptedModel([ValueError("broken")]), telemetry=writers, attempts=1).run_sync("go")
        cancelled = Agent(Silent("x"), telemetry=writers).start("go")
        until(lambda: cancelled.text)
        cancelled.cancel()
        cancelled.result(60)
        asks_weather(looking(), telemetry=writers, budget={"steps": 1}).run_sync("go")
        asks_weather(looking(), telemetry=writers, max_steps=1).run_sync("go")
        statuses = ["completed", "failed", "cancelled", "budget", "max_steps"]
        assert [record.status for record in memory.records] == statuses
        told = [json.loads(line) for line in (tmp_path / "runs" / "t.jsonl").read_text().splitlines()]
        assert [line["status"] for line in told] == statuses
        assert (told[0]["agent"], told[0]["model"], told[0]["cost_basis"]) == ("good", "scripted", "user")
        assert told[3]["tool_calls"][0][:2] == ["weather", "ok"] and told[1]["cost_usd"] is None

    def test_it_says_what_the_table_says(self) -> None:
        memory = MemoryWriter()
        run = asks_weather(
            ScriptedModel([call("weather", city="x"), "Done."], price=(1.0, 1.0)), telemetry=memory
        ).run_sync("go")
        (row,) = runs_df(run).to_dict("records")
        (record,) = memory.records
        same = [name for name in row if hasattr(record, str(name)) and name not in ("started_at", "tool_calls")]
        assert {"status", "steps", "calls", "input_tokens", "cost_usd", "duration_s", "run_id"} <= set(same)
        for name in same:
            said, shown = getattr(record, str(name)), row[name]
            is_missing = shown is None or shown != shown or str(shown) == "<NA>"
            assert said in (None, "") if is_missing else shown == pytest.approx(said), name

    def test_the_tier_is_told(self) -> None:
        memory = MemoryWriter()
        Agent(Tiers(small=ScriptedModel(["fine"])), telemetry=memory).run_sync("go")
        assert memory.records[0].tier == "small"

    def test_a_writer_that_raises_costs_only_itself(self) -> None:
        class Broken:
            def write(self, record: Any) -> None:
                raise OSError("the disk is full")

        memory = MemoryWriter()
        run = Agent(ScriptedModel(["fine"]), telemetry=[Broken(), memory]).run_sync("go")
        assert run.status == "completed" and len(memory.records) == 1

    def test_a_writer_that_stalls_holds_up_no_run_and_is_let_finish(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("turncell.runtime.telemetry.WRITER_S", 0.1)
        gate, memory = Gate(), MemoryWriter()

        class Stalled:
            def write(self, record: Any) -> None:
                gate.wait()
                memory.write(record)

        run = Agent(ScriptedModel(["fine"]), telemetry=[Stalled(), memory]).start("go").result(LONG_S)
        assert run.status == "completed"
        until(lambda: len(memory.records) == 1)
        gate.open()
        until(lambda: len(memory.records) == 2)
