"""The same from everywhere: scripts, loops, threads, forks, and two hundred at a time; and turns as function calls."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, until
from turncell import Agent, LoopDetection, Run, UsageError, run_turn, runs_df, tool
from turncell.adapters.litellm_model import LiteLLMModel, warm_up
from turncell.adapters.scripted_model import ScriptedModel, call, say
from turncell.core.events import Event, RunEnded, TextDelta
from turncell.runtime.loop import BackgroundLoop
from turncell.testing import reply, serve


@tool(effect="read")
def peek(at: str = "clock") -> str:
    """Look quickly."""
    return f"the {at}"


def in_a_process(code: str, timeout_s: float = 100) -> str:
    """What it prints; fails unless it ends well."""
    quiet = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(quiet, capture_output=True, text=True, timeout=timeout_s)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


ALL_WAYS = """
import asyncio, threading
from turncell import Agent, run_turn, tool
from turncell.testing import ScriptedModel, call

@tool(effect="read")
async def inner() -> str:
    "Run another."
    return (await Agent(ScriptedModel(["nested"])).run("x")).text

@tool(effect="read")
def blocking() -> str:
    "Run another, blocking."
    return Agent(ScriptedModel(["nested"])).run_sync("x").text

def agent():
    return Agent(ScriptedModel([[call("inner"), call("blocking")], "Done."]), tools=[inner, blocking])

def show(run):
    return run.status, run.text, [c.content for c in run.tool_calls]

async def ways():
    one = await agent().run("go")
    two = agent().run_sync("go")
    three = agent().start("go").result(60)
    four = await agent().start("go")
    types = [event.type async for event in agent().stream("go")]
    five = await run_turn(model=ScriptedModel([[call("inner"), call("blocking")], "Done."]), message="go", tools=[inner, blocking])
    assert types[0] == "RunStarted" and types[-1] == "RunEnded"
    many = await asyncio.gather(*(agent().run("go") for _ in range(5)))
    return [show(run) for run in (one, two, three, four, five, *many)]
"""
SAID = "{('completed', 'Done.', ('nested', 'nested'))}\n"


@pytest.mark.feature("A18")
@pytest.mark.parametrize(
    "how",
    [
        "said = asyncio.run(ways())",
        "box = []; t = threading.Thread(target=lambda: box.append(asyncio.run(ways()))); t.start(); t.join(); said = box[0]",
        "async def main(): return await asyncio.to_thread(lambda: asyncio.run(ways()))\nsaid = asyncio.run(main())",
        "import nest_asyncio; nest_asyncio.apply(); said = asyncio.run(ways()) + asyncio.get_event_loop().run_until_complete(ways())",
        "import nest_asyncio; nest_asyncio.apply()\nasync def main(): return asyncio.run(ways())\nsaid = asyncio.run(main())",
        "agent().run_sync('go'); import nest_asyncio; nest_asyncio.apply(); said = asyncio.run(ways()); said.append(show(agent().run_sync('go')))",
        "loop = asyncio.new_event_loop(); said = loop.run_until_complete(ways()); loop.close(); said += asyncio.run(ways())",
    ],
    ids=[
        "asyncio.run",
        "a thread",
        "a thread of a loop",
        "nest_asyncio",
        "nested loops",
        "nest_asyncio later",
        "two loops",
    ],
)
def test_the_same_results(how: str) -> None:
    code = ALL_WAYS + how + "\nprint({(status, text, tuple(said_)) for status, text, said_ in said})"
    assert in_a_process(code) == SAID


@pytest.mark.feature("A18")
def test_under_ipython_s_own_running_loop_a_run_can_be_awaited_and_blocked_on() -> None:
    async def cell() -> list[str]:
        agent = Agent(ScriptedModel(["one", "two", "three"]))
        first = agent.run_sync("go")  # blocks the loop that runs this
        second = await agent.run("go")
        third = agent.start("go")
        await asyncio.sleep(0)
        return [first.text, second.text, (await third).text]

    assert asyncio.run(cell()) == ["one", "two", "three"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.feature("A18", "A11")
def test_two_hundred_at_once_with_cancels_at_any_moment_end_and_leave_nothing() -> None:
    chance = random.Random(1)

    @tool(effect="read")
    async def wait_a_little() -> str:
        """Wait."""
        await asyncio.sleep(0.01)
        return "waited"

    @tool(effect="read")
    def block_a_little() -> str:
        """Block."""
        time.sleep(0.01)
        return "blocked"

    begun: set[str] = set()
    """Those that are sure to begin; one that is cancelled before its turn leaves nothing."""

    def crowd(count: int) -> list[Run]:
        runs = []
        for number in range(count):
            is_stopped, is_late = chance.random() < 0.5, chance.random() < 0.5
            calls = [call("wait_a_little"), call("block_a_little")]
            model = ScriptedModel([[say("Let me look. ", delay_s=0.001), *calls], say("Done. " * 5, delay_s=0.001)])
            agent = Agent(model, tools=[wait_a_little, block_a_little])
            run = agent.start("go", is_attended=number % 2 == 0)
            run.subscribe(lambda event: None)
            runs.append(run)
            if is_late:
                until(lambda run=run: run.events)  # type: ignore[misc]
            if is_stopped:
                threading.Timer(chance.random() / 10, run.cancel, ["at some moment"]).start()
            if is_late or not is_stopped:
                begun.add(run.id)
        for run in runs:
            run.result(60)
        return runs

    first = crowd(20)
    for run in first:  # what is opened once and kept
        run.drain(LONG_S)
    loop = BackgroundLoop.current().loop
    before = threading.active_count(), len(asyncio.all_tasks(loop)), open_files()
    runs = crowd(200)
    assert len(begun) > 150 and all(run.events for run in runs if run.id in begun)
    assert all(run.status == "cancelled" for run in runs if not run.events)
    assert all(sum(isinstance(event, RunEnded) for event in run.events) == 1 for run in runs if run.events)
    assert {run.status for run in runs} == {"completed", "cancelled"}
    assert all(run.text.startswith("Done.") for run in runs if run.status == "completed")
    until(lambda: threading.active_count() <= before[0] + 1)
    until(lambda: len(asyncio.all_tasks(loop)) <= before[1])
    gc.collect()
    until(lambda: open_files() <= before[2] + 2)
    assert len(runs_df()) == sum(bool(run.events) for run in (*first, *runs)) and set(runs_df()["status"]) <= {
        "completed",
        "cancelled",
    }


@pytest.mark.feature("A18", "A11")
def test_cancelled_streams_over_http_leave_no_connection_open() -> None:
    warm_up()
    with serve(lambda body: reply("x" * 80, hangs_after=3)) as server:
        agent = Agent(LiteLLMModel("openai/gpt-4o-mini", api_key="k", base_url=server.base_url))

        def crowd(count: int) -> None:
            runs = [agent.start("go") for _ in range(count)]
            server.wait_until_open(count, timeout_s=60)
            for run in runs:
                run.cancel()
            for run in runs:
                assert run.result(LONG_S).status == "cancelled"
            server.wait_until_closed(timeout_s=LONG_S)

        crowd(3)
        gc.collect()
        before = open_files()
        crowd(30)
        gc.collect()
        until(lambda: open_files() <= before + 5)


@pytest.mark.feature("A18")
class TestForks:
    """A forked child has a loop and a store of its own, and says so where it is given its parent's."""

    CODE = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from turncell import Agent, StoreError, UsageError, runs_df
from turncell.runtime.loop import BackgroundLoop
from turncell.testing import ScriptedModel

fork = multiprocessing.get_context("fork")
agent = Agent(ScriptedModel(lambda request: "fine"))
session = agent.session()
assert session.send("go").result(60).text == "fine"
held = Agent(ScriptedModel(["x"], delay_s=60)).start("go")

def child(number):
    run = agent.start("in the child").result(60)
    assert BackgroundLoop.current().pid == os.getpid()
    refusals = []
    for attempt in (lambda: session.send("x"), lambda: held.result(60), lambda: held.cancel(), lambda: held.steer("x")):
        try:
            attempt()
            refusals.append("taken")
        except (StoreError, UsageError) as error:
            refusals.append("parent" in str(error))
    return run.text, run.status, run.session.journal.pid == os.getpid(), refusals
"""

    @pytest.mark.parametrize(
        "how",
        [
            "with fork.Pool(2) as pool: said = pool.map(child, range(4))",
            "with ProcessPoolExecutor(2, mp_context=fork) as pool: said = list(pool.map(child, range(4)))",
        ],
        ids=["multiprocessing", "ProcessPoolExecutor"],
    )
    def test_children_run_on_their_own(self, how: str) -> None:
        code = (
            self.CODE + how + "\nassert agent.start('again').result(60).text == 'fine'; held.cancel(); held.result(60)"
        )
        code += "\nprint({(a, b, c, tuple(d)) for a, b, c, d in said}, len(runs_df()))"
        said = in_a_process(code)
        assert said == "{('fine', 'completed', True, (True, True, True, True))} 7\n"

    def test_while_other_threads_are_in_the_middle_of_runs(self) -> None:
        code = (
            self.CODE
            + """
import threading
stop = threading.Event()
def busy():
    while not stop.is_set():
        agent.start("busy").result(60)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
said = []
for _ in range(5):
    with fork.Pool(1) as pool: said += pool.map(child, range(1))
stop.set()
for thread in threads: thread.join()
held.cancel(); held.result(60)
print(all(one[:3] == ("fine", "completed", True) for one in said), len(said))
"""
        )
        assert in_a_process(code) == "True 5\n"

    def test_a_run_that_failed_in_a_worker_says_so_and_leaves_the_pool_whole(self) -> None:
        code = """
import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from turncell import Agent, ModelFailure, RunError
from turncell.testing import ScriptedModel

def answered(said):
    agent = Agent(ScriptedModel([said] if said else [ModelFailure("auth", "no key")]))
    return agent.run_sync("go").raise_for_status().text

with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
    failing, fine = pool.submit(answered, ""), pool.submit(answered, "Fine.")
    error = failing.exception()
    print(type(error).__name__, error.status, error.kind, error, fine.result(), sep=", ")
again = copy.deepcopy(ModelFailure("rate_limit", "slowly", status_code=429, retry_after_s=3))
print(type(again).__name__, again.kind, again, again.status_code, again.retry_after_s, sep=", ")
"""
        assert in_a_process(code).splitlines() == [
            "RunError, failed, auth, no key, Fine.",
            "ModelFailure, rate_limit, slowly, 429, 3",
        ]

    def test_no_child_gives_an_id_that_another_process_gives(self) -> None:
        code = """
import multiprocessing
from turncell.runtime.prompts import new_id

def chance(_): return [new_id("run")[-8:] for _ in range(100)]

chance(0)
with multiprocessing.get_context("fork").Pool(4) as pool: said = pool.map(chance, range(4), chunksize=1)
print(len({one for each in (*said, chance(0)) for one in each}))
"""
        assert in_a_process(code) == "500\n"


@pytest.mark.feature("A6")
class TestTurnsAsFunctionCalls:
    def test_one_has_everything_and_stores_nothing(self) -> None:
        model = ScriptedModel([call("peek"), "It is the clock."], price=(1.0, 2.0))
        run = asyncio.run(
            run_turn(model=model, message="Look.", system="Be brief.", tools=[peek], temperature=0.5, max_tokens=99)
        )
        assert (run.status, run.text) == ("completed", "It is the clock.")
        assert [one.name for one in run.tool_calls] == ["peek"] and len(run.messages) == 4
        assert run.usage.output_tokens and run.cost_usd and run.events[-1].type == "RunEnded"
        request = model.requests[0]
        assert (request.instructions, request.temperature, request.max_tokens) == ("Be brief.", 0.5, 99)
        assert len(runs_df()) == 0

    def test_its_sub_agents_store_nothing_either(self) -> None:
        inner = Agent(ScriptedModel(["Found."]), name="clerk")
        model = ScriptedModel([call("clerk", task="Find it."), "Done."])
        run = asyncio.run(run_turn(model=model, message="go", tools=[inner.as_tool()]))
        assert run.tool_calls[0].content == "Found." and len(runs_df()) == 0

    def test_any_number_side_by_side(self) -> None:
        async def main() -> list[str]:
            turns = [run_turn(model=ScriptedModel([f"turn {n}"]), message="go") for n in range(50)]
            return [run.text for run in await asyncio.gather(*turns)]

        assert asyncio.run(main()) == [f"turn {n}" for n in range(50)]

    def test_one_inside_a_tool_of_another(self) -> None:
        @tool(effect="read")
        async def again(depth: int) -> str:
            """Go deeper."""
            if depth == 0:
                return "bottom"
            model = ScriptedModel(
                [call("again", depth=depth - 1), lambda r: f"above {r.messages[-1].parts[0].content}"]
            )
            return (await run_turn(model=model, message="go", tools=[again])).text

        run = asyncio.run(run_turn(model=ScriptedModel([call("again", depth=3), "Done."]), message="go", tools=[again]))
        assert run.tool_calls[0].content == "above above above bottom"

    def test_in_a_thread_with_a_loop_of_its_own(self) -> None:
        texts: list[str] = []

        def work() -> None:
            texts.append(asyncio.run(run_turn(model=ScriptedModel(["there"]), message="go")).text)

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
        assert texts == ["there"] * 5

    def test_its_steps_are_bounded(self) -> None:
        model = ScriptedModel([call("peek"), call("peek", at="sun"), "In short."])
        run = asyncio.run(run_turn(model=model, message="go", tools=[peek], max_steps=2))
        assert (run.status, run.text) == ("max_steps", "In short.")
        looping = ScriptedModel(lambda request: call("peek"))
        run = asyncio.run(run_turn(model=looping, message="go", tools=[peek], step_policy=LoopDetection()))
        assert run.status == "max_steps" and "3 times" in run.text

    @pytest.mark.parametrize("kind", ["sync", "async", "async object"])
    def test_progress_is_told_from_the_first_event_to_the_last(self, kind: str) -> None:
        seen: list[Event] = []
        loops: set[Any] = set()

        def told(event: Event) -> None:
            seen.append(event)

        async def told_async(event: Event) -> None:
            await asyncio.sleep(0)
            loops.add(asyncio.get_running_loop())
            seen.append(event)

        class Told:
            async def __call__(self, event: Event) -> None:
                await told_async(event)

        tell: dict[str, Callable[[Event], Any]] = {"sync": told, "async": told_async, "async object": Told()}

        async def main() -> Any:
            await run_turn(model=ScriptedModel([say("one two three four")]), message="go", on_progress=tell[kind])
            return asyncio.get_running_loop()

        loop = asyncio.run(main())
        assert seen[0].type == "RunStarted" and isinstance(seen[-1], RunEnded)
        assert "".join(event.text for event in seen if isinstance(event, TextDelta)) == "one two three four"
        assert kind == "sync" or loops == {loop}, "an async one may use what belongs to the caller's loop"

    @pytest.mark.parametrize("is_async", [True, False])
    def test_progress_that_raises_or_stalls_costs_only_itself(
        self, is_async: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("turncell.runtime.run_turn.PROGRESS_S", 0.2)
        gate = Gate()

        async def stall_async(event: Event) -> None:
            await asyncio.Event().wait()

        async def fail_async(event: Event) -> None:
            raise RuntimeError("no")

        def stall(event: Event) -> None:
            gate.wait()

        def fail(event: Event) -> None:
            raise RuntimeError("no")

        for tell in (stall_async, fail_async) if is_async else (stall, fail):
            run = asyncio.run(run_turn(model=ScriptedModel(["Fine."]), message="go", on_progress=tell))
            assert run.text == "Fine."
        gate.open()

    def test_cancelling_the_caller_cancels_the_turn(self) -> None:
        async def main() -> Silent:
            model = Silent("half")
            task = asyncio.create_task(run_turn(model=model, message="go", on_progress=lambda event: None))
            await asyncio.to_thread(model.asked.wait, LONG_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return model

        assert asyncio.run(main()).closed.wait(LONG_S)

    def test_what_cannot_be_is_refused_at_once(self) -> None:
        with pytest.raises(UsageError, match="max_steps is 0"):
            asyncio.run(run_turn(model=ScriptedModel([]), message="go", max_steps=0))
        with pytest.raises(UsageError, match="empty"):
            asyncio.run(run_turn(model=ScriptedModel([]), message=" "))


@pytest.mark.feature("A18")
def test_nothing_complains_about_what_was_left_open() -> None:
    gc.collect()  # what others have left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(run_turn(model=ScriptedModel([call("peek"), "Done."]), message="go", tools=[peek]))
        gc.collect()
    assert not [str(one.message) for one in caught if issubclass(one.category, ResourceWarning | RuntimeWarning)]
