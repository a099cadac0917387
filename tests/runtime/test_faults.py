"""Faults: providers that hang, die and lie over real HTTP; tools, hooks and subscribers that misbehave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, ends, skip, until, written
from turncell import Agent, Declined, Hooks, ModelFailure, Run, ToolContext, tool
from turncell.adapters.litellm_model import LiteLLMModel, warm_up
from turncell.adapters.scripted_model import ScriptedModel, call, say
from turncell.core import streaming
from turncell.core.events import Event, RunEnded
from turncell.testing import ProviderServer, Reply, fault, raw, reply, serve


def served(server: ProviderServer, **options: Any) -> Agent:
    warm_up()  # importing it takes half a minute on a busy machine: no silence of a model
    return Agent(LiteLLMModel("openai/gpt-4o-mini", api_key="k", base_url=server.base_url), **options)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BACKOFF_S", 0.005)


@pytest.mark.feature("A13")
@pytest.mark.usefixtures("quick")
class TestProviders:
    @pytest.mark.parametrize(
        "bad",
        [
            fault(429, retry_after_s=0.05),
            fault(503),
            fault(408),
            reply("x", resets_after=0),
            reply("x", errors_after=0),
        ],
        ids=["429", "503", "408", "dies before the first byte", "an error frame at first"],
    )
    def test_what_may_pass_passes(self, bad: Reply) -> None:
        with serve([bad, reply("Fine.")]) as server:
            run = served(server).start("go").result(LONG_S)
            assert (run.status, run.text) == ("completed", "Fine.") and len(server.requests) == 2

    @pytest.mark.parametrize(
        ("bad", "kinds"),
        [
            (reply("x" * 80, resets_after=5), {"connection", "protocol"}),
            (reply("x" * 80, errors_after=5), {"overloaded", "unknown", "connection", "protocol"}),
            (reply("x" * 80, hangs_after=5), {"timeout"}),
        ],
        ids=["dies", "an error frame", "hangs"],
    )
    def test_in_the_middle_it_is_a_failure_that_keeps_the_text_and_is_not_repeated(
        self, bad: Reply, kinds: set[str]
    ) -> None:
        silence_s = 1.0 if bad.hangs_after is not None else 60
        with serve([bad, reply("never")]) as server:
            run = served(server, silence_s=silence_s).start("go").result(LONG_S)
            assert run.status == "failed" and run.state.error_kind in kinds
            assert set(run.text) == {"x"} and 0 < len(run.text) < 80
            assert len(server.requests) == 1 and len(ends(run)) == 1
            server.wait_until_closed()

    def test_a_stream_that_stops_without_an_end(self) -> None:
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunk = {**head, "choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]}
        with serve([raw(chunk, has_done=False)]) as server:
            run = served(server).start("go").result(LONG_S)
            assert (run.status, run.state.error_kind, run.text) == ("failed", "protocol", "half")

    def test_one_that_hangs_is_given_up_and_the_fallback_answers(self) -> None:
        with serve([reply("x", hangs_after=0)]) as server:
            agent = served(server, silence_s=1.0, attempts=1, fallbacks=[ScriptedModel(["Fine."])])
            assert agent.start("go").result(LONG_S).text == "Fine."
            server.wait_until_closed()

    def test_a_key_that_is_refused_is_said_and_not_repeated(self) -> None:
        with serve([fault(401, "bad key"), reply("never")]) as server:
            run = served(server).start("go").result(LONG_S)
            assert (run.status, run.state.error_kind) == ("failed", "auth") and len(server.requests) == 1


@pytest.mark.feature("A11")
class TestTheConnectionIsClosed:
    @pytest.mark.parametrize("hangs_after", [0, 4], ids=["silent", "mid-stream"])
    def test_when_the_run_is_cancelled(self, hangs_after: int) -> None:
        with serve([reply("x" * 80, hangs_after=hangs_after)]) as server:
            run = served(server).start("go")
            server.wait_until_open()
            until(lambda: hangs_after == 0 or run.text)
            run.cancel("enough")
            server.wait_until_closed()
            assert run.result(LONG_S).status == "cancelled" and (hangs_after == 0) == (run.text == "")

    def test_when_the_reader_leaves(self) -> None:
        async def main(agent: Agent) -> None:
            stream = agent.stream("go")
            async for event in stream:
                if event.type == "TextDelta":
                    break
            await stream.aclose()

        with serve([reply("x" * 80, hangs_after=4)]) as server:
            asyncio.run(main(served(server)))
            server.wait_until_closed()

    def test_when_the_time_of_the_run_is_over(self) -> None:
        with serve([reply("x" * 80, hangs_after=4)]) as server:
            run = served(server, timeout_s=30).start("go")
            until(lambda: run.text)
            skip(30)
            assert run.result(LONG_S).status == "timeout"
            server.wait_until_closed()


def asking(run: Run) -> bool:
    return bool(run.requests)


@tool
def mail() -> str:
    """Send."""
    return "sent"


def silent(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    return Agent(Silent()), lambda run: run.state.steps


def mid_stream(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    return Agent(Silent("half")), lambda run: run.text


def async_tool(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    return Agent(ScriptedModel([call("look")]), tools=[gate.read_tool()]), lambda run: gate.reached.is_set()


def sync_tool(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        gate.wait()
        return "seen"

    return Agent(ScriptedModel([call("look")]), tools=[look]), lambda run: gate.reached.is_set()


def approval(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    return Agent(ScriptedModel([call("mail")]), tools=[mail]), asking


def question(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    @tool(effect="read")
    async def choose(context: ToolContext) -> str:
        """Ask."""
        return str(await context.ask("Which?"))

    return Agent(ScriptedModel([call("choose")]), tools=[choose]), asking


def blocking_question(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    @tool(effect="read")
    def choose(context: ToolContext) -> str:
        """Ask."""
        try:
            return str(context.ask_blocking("Which?"))
        except Declined:
            gate.opened.set()
            raise

    return Agent(ScriptedModel([call("choose")]), tools=[choose]), asking


def retry_pause(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    return Agent(ScriptedModel([ModelFailure("rate_limit", "x", retry_after_s=50)])), lambda run: run.state.notes


def hook(name: str, is_async: bool) -> Callable[[Gate], tuple[Agent, Callable[[Run], Any]]]:
    def make(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
        def hold(*_: Any) -> None:
            gate.wait()

        async def hold_async(*_: Any) -> None:
            await gate.wait_async()

        held: Any = Hooks(**{name: hold_async if is_async else hold})
        model = ScriptedModel([call("look"), "Done."])

        @tool(effect="read")
        def look() -> str:
            """Look."""
            return "seen"

        return Agent(model, tools=[look], hooks=held), lambda run: gate.reached.is_set()

    make.__name__ = f"{name} {'async' if is_async else 'sync'}"
    return make


def judging(gate: Gate) -> tuple[Agent, Callable[[Run], Any]]:
    def rule(use: Any) -> None:
        gate.wait()

    return Agent(ScriptedModel([call("mail")]), tools=[mail], rules=[rule]), lambda run: gate.reached.is_set()


HOOKS = ["before_model", "after_model", "before_tool", "after_tool", "after_step", "before_finish"]
POINTS = [silent, mid_stream, async_tool, sync_tool, approval, question, blocking_question, retry_pause, judging]
POINTS += [hook(name, is_async) for name in HOOKS for is_async in (True, False)]


@pytest.mark.feature("A11", "A12")
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_a_run_is_cancelled_at_any_point_from_any_thread(point: Any) -> None:
    gate = Gate()
    agent, is_there = point(gate)
    run: Run = agent.start("go", is_attended=True)
    until(lambda: is_there(run))
    before = len(run.state.steps)
    thread = threading.Thread(target=run.cancel, args=("enough",))
    thread.start()
    thread.join(LONG_S)
    run.result(LONG_S)
    gate.open()
    assert (run.status, run.state.error) == ("cancelled", "enough") and len(ends(run)) == 1
    assert all(not one.is_open for one in run.tool_calls) and not run.requests
    assert len(run.state.steps) == before and written(run) == (run.state,)
    if point is blocking_question:
        assert gate.opened.wait(LONG_S), "the thread of the tool was let go"


@pytest.mark.feature("A11")
def test_between_steps_a_cancel_that_comes_with_the_result_wins_or_loses_but_ends_it_once() -> None:
    held: list[Run] = []

    @tool(effect="read")
    def look() -> str:
        """Look."""
        threading.Thread(target=held[-1].cancel).start()
        return "seen"

    for _ in range(30):
        gate = Gate()
        run = Agent(ScriptedModel([gate.say(call("look")), "Done."]), tools=[look]).start("go")
        held.append(run)
        gate.open()
        assert run.result(LONG_S).status in ("cancelled", "completed") and len(ends(run)) == 1
        assert written(run) == (run.state,)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.feature("A13")
class TestTools:
    @pytest.mark.parametrize(
        "value",
        [
            {1, 2}, b"\xff\x00", float("nan"), float("inf"), (n for n in range(3)), ValueError("x"), "\ud800", object(),
            None, "", {"a": {2}, 3: "\udfff"}, [float("nan")], 10**400, lambda: 1, Mute(), type, {"k": b"\xff"},
        ],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    @pytest.mark.parametrize("is_async", [True, False])
    def test_whatever_one_returns_the_run_goes_on_and_is_whole_in_the_journal(self, value: Any, is_async: bool) -> None:
        @tool(effect="read", name="odd")
        async def odd_async() -> Any:
            """Return."""
            return value

        @tool(effect="read", name="odd")
        def odd() -> Any:
            """Return."""
            return value

        agent = Agent(ScriptedModel([call("odd"), "Done."]), tools=[odd_async if is_async else odd])
        run = agent.start("go").result(LONG_S)
        assert run.text == "Done." and run.tool_calls[0].status == "ok" and len(written(run)) == 1

    def test_fifty_megabytes_are_cut_for_the_model_and_hold_nobody_up(self) -> None:
        @tool(effect="read")
        def big() -> str:
            """Return a lot."""
            return "é" * 50_000_000

        model = ScriptedModel([call("big"), "Done."])
        run = Agent(model, tools=[big]).start("go")
        other = Agent(ScriptedModel(["free"])).start("go").result(LONG_S)
        assert other.text == "free" and run.result(LONG_S).text == "Done."
        assert len(model.requests[1].messages[-1].parts[0].content) < 100_000  # type: ignore[union-attr]
        assert len(written(run)) == 1

    @pytest.mark.parametrize(
        "error", [LookupError("no table"), Mute(), SystemExit(3), KeyboardInterrupt(), StopIteration(1), StopAsyncIteration(),
                  asyncio.CancelledError(), GeneratorExit(), MemoryError(), RecursionError("deep"), BaseExceptionGroup("g", [SystemExit()]),
                  TimeoutError(), UnicodeError("\ud800")],
        ids=lambda error: type(error).__name__,
    )  # fmt: skip
    @pytest.mark.parametrize("is_async", [True, False])
    def test_whatever_one_raises_is_told_to_the_model(self, error: BaseException, is_async: bool) -> None:
        @tool(effect="read", name="bad")
        async def bad_async() -> str:
            """Fail."""
            raise error

        @tool(effect="read", name="bad")
        def bad() -> str:
            """Fail."""
            raise error

        agent = Agent(ScriptedModel([call("bad"), "I see."]), tools=[bad_async if is_async else bad])
        run = agent.start("go").result(LONG_S)
        assert run.text == "I see." and run.tool_calls[0].status == "error" and len(written(run)) == 1
        assert Agent(ScriptedModel(["alive"])).start("go").result(LONG_S).text == "alive"

    @pytest.mark.parametrize("is_async", [True, False])
    def test_one_that_hangs_ends_with_its_time_limit(self, is_async: bool) -> None:
        gate = Gate()

        @tool(effect="read", timeout_s=0.2, name="hang")
        async def hang_async() -> str:
            """Hang."""
            await gate.wait_async()
            return "late"

        @tool(effect="read", timeout_s=0.2, name="hang")
        def hang() -> str:
            """Hang."""
            gate.wait()
            return "late"

        agent = Agent(ScriptedModel([call("hang"), "I see."]), tools=[hang_async if is_async else hang])
        run = agent.start("go").result(LONG_S)
        gate.open()
        assert run.tool_calls[0].status == "timeout" and run.text == "I see."


@pytest.mark.feature("A3", "A10")
class TestHooksAndSubscribers:
    def test_a_hook_that_stalls_is_recorded_and_the_run_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from turncell.runtime import hooks

        monkeypatch.setattr(hooks, "HOOK_TIMEOUT_S", 0.1)
        gate = Gate()
        run = Agent(ScriptedModel(["x"]), hooks=Hooks(before_finish=lambda _: gate.wait())).start("go").result(LONG_S)
        gate.open()
        assert run.status == "completed" and "has not answered within 0.1 s" in run.state.notes[0].message

    @pytest.mark.parametrize("name", [*HOOKS, "before_journal", "after_journal"])
    @pytest.mark.parametrize("error", [RuntimeError("no"), Mute()], ids=["raises", "raises what cannot be said"])
    def test_a_hook_that_raises_never_loses_the_run(self, name: str, error: Exception) -> None:
        def fail(*_: Any) -> None:
            raise error

        @tool(effect="read")
        def look() -> str:
            """Look."""
            return "seen"

        broken: Any = Hooks(**{name: fail})
        run = Agent(ScriptedModel([call("look"), "Done."]), tools=[look], hooks=broken).start("go").result(LONG_S)
        fails = ("before_model", "after_model", "before_journal")
        assert run.status == ("failed" if name in fails else "completed") and len(ends(run)) == 1

    @pytest.mark.parametrize("is_async", [True, False])
    def test_subscribers_that_raise_or_stall_harm_nobody(self, is_async: bool) -> None:
        gate = Gate()

        async def stall_async(event: Event) -> None:
            await gate.wait_async()

        async def fail_async(event: Event) -> None:
            raise SystemExit(3)

        def stall(event: Event) -> None:
            gate.wait()

        def fail(event: Event) -> None:
            raise SystemExit(3)

        run = Agent(ScriptedModel([say("word " * 50, delay_s=0.001)])).start("go")
        seen: list[Event] = []
        for subscriber in (stall_async, fail_async) if is_async else (stall, fail):
            run.subscribe(subscriber)
        run.subscribe(seen.append)
        assert run.result(LONG_S).status == "completed"
        until(lambda: seen and isinstance(seen[-1], RunEnded))
        gate.open()

    def test_a_queue_that_is_full_costs_no_recorded_event(self) -> None:
        import queue

        box: queue.Queue[Event] = queue.Queue(1)
        run = Agent(ScriptedModel([say("word " * 50)])).start("go")
        run.subscribe(box)
        run.result(LONG_S)
        got = [box.get(timeout=LONG_S)]
        while not isinstance(got[-1], RunEnded):
            got.append(box.get(timeout=LONG_S))
        recorded = [event.type for event in run.events]
        assert [event.type for event in got if event.type in recorded] == recorded


@pytest.mark.feature("A18")
def test_the_loop_of_all_runs_is_never_blocked_by_people_s_code() -> None:
    """While every kind of sync code blocks, another run begins, calls a tool and ends."""
    gate = Gate()

    def hold(*_: Any) -> Any:
        gate.wait()

    @tool(effect="read")
    def look() -> str:
        """Look."""
        gate.wait()
        return "seen"

    @tool(preview=hold, check=hold)
    def pay() -> str:
        """Pay."""
        return "paid"

    runs = [Agent(ScriptedModel([call("look"), "x"]), tools=[look]).start("go")]
    runs.append(Agent(ScriptedModel([call("pay"), "x"]), tools=[pay]).start("go", is_attended=True))
    for name in ("before_model", "before_finish"):
        runs.append(Agent(ScriptedModel(["x"]), hooks=Hooks(**{name: hold})).start("go"))  # type: ignore[arg-type]
    runs[0].subscribe(hold)
    gate.was_reached()
    began = time.monotonic()
    assert Agent(ScriptedModel([call("free"), "free"])).start("go").result(LONG_S).text == "free"
    assert time.monotonic() - began < LONG_S
    gate.open()
    for run in runs:
        run.cancel()
        run.result(LONG_S)


async def cancels_itself(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.feature("A13", "A18")
@pytest.mark.parametrize("where", ["tool", "before_tool", "after_tool", "before_model", "before_finish"])
def test_code_that_cancels_the_task_it_runs_in_ends_its_run_and_hangs_nothing(where: Any) -> None:
    @tool(effect="read")
    async def look() -> str:
        """Look."""
        await (cancels_itself() if where == "tool" else asyncio.sleep(0))
        return "seen"

    hooks = Hooks() if where == "tool" else Hooks(**{where: cancels_itself})
    run = Agent(ScriptedModel([call("look"), "Fine."]), tools=[look], hooks=hooks).start("go").result(LONG_S)
    assert (run.status, run.error) == ("failed", "a task of the run was cancelled from outside")
    assert len(ends(run)) == 1 and all(not one.is_open for one in run.tool_calls)
