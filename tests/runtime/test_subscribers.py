"""Subscribers that hang, raise, come twice or are callables of another kind."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from weakref import ref

import pytest

from turncell import Agent, Run
from turncell.adapters.scripted_model import ScriptedModel
from turncell.core.deltas import Finished, Fragment, ReasoningFragment
from turncell.core.events import Event, Recorded, RunEnded, TextDelta
from turncell.runtime.ports import ModelRequest

from .pieces import LONG_S, Gate, until

pytestmark = pytest.mark.feature("A3")


def test_many_that_hang_stop_neither_the_others_nor_other_runs() -> None:
    release = threading.Event()
    run = Agent(ScriptedModel(["hello"])).start("go")
    seen: list[Event] = []
    full: queue.Queue[Event] = queue.Queue(maxsize=1)
    for _ in range(40):
        run.subscribe(lambda event: release.wait(LONG_S))
        run.subscribe(full)
    run.subscribe(seen.append)
    until(lambda: seen and isinstance(seen[-1], RunEnded))
    assert Agent(ScriptedModel(["alive"])).run_sync("go").text == "alive"
    run.unsubscribe(full)
    release.set()


def test_a_script_whose_subscriber_hangs_for_ever_ends() -> None:
    code = """
import queue, threading
from turncell import Agent
from turncell.adapters.scripted_model import ScriptedModel
run = Agent(ScriptedModel(["done"])).start("go")
stuck = threading.Event()
def hang(event):
    stuck.set()
    threading.Event().wait()
run.subscribe(hang)
run.subscribe(queue.Queue(maxsize=1))
print(run.result(60).text, stuck.wait(60))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done True\n", "")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RuntimeError, asyncio.CancelledError])
def test_an_async_one_that_raises_gets_the_next_event_and_the_loop_lives_on(error: type[BaseException]) -> None:
    seen: list[Event] = []

    async def leave(event: Event) -> None:
        seen.append(event)
        raise error

    run = Agent(ScriptedModel(["hello"])).start("go")
    run.subscribe(leave)
    run.result(LONG_S)
    until(lambda: seen and isinstance(seen[-1], RunEnded))
    assert Agent(ScriptedModel(["alive"])).run_sync("go").text == "alive"


def test_objects_and_partials_that_are_async_are_awaited() -> None:
    seen: dict[str, list[Event]] = {"object": [], "method": [], "partial": [], "both": []}

    class Watch:
        async def __call__(self, event: Event, to: str = "object") -> None:
            await asyncio.sleep(0)
            seen[to].append(event)

        async def method(self, event: Event) -> None:
            await self(event, "method")

    async def watch(to: str, event: Event) -> None:
        seen[to].append(event)

    run = Agent(ScriptedModel(["hello"])).start("go")
    for subscriber in (Watch(), Watch().method, partial(watch, "partial"), partial(Watch(), to="both")):
        run.subscribe(subscriber)
    run.result(LONG_S)
    run.drain(LONG_S)
    kinds = {name: [event.type for event in events] for name, events in seen.items()}
    assert kinds["object"][-1] == "RunEnded"
    assert kinds["object"] == kinds["method"] == kinds["partial"] == kinds["both"]


def test_the_same_one_twice_is_two_subscriptions_each_with_an_end_of_its_own() -> None:
    gate = Gate()
    run = Agent(ScriptedModel([gate.say("word " * 60)])).start("go")
    seen: list[Event] = []
    end_one, end_other = run.subscribe(seen.append), run.subscribe(seen.append)
    until(lambda: sum(event.type == "RunStarted" for event in seen) == 2)
    end_one()
    end_one()
    gate.open()
    run.result(LONG_S)
    run.drain(LONG_S)
    assert sum(isinstance(event, RunEnded) for event in seen) == 1
    end_other()


def test_unsubscribing_by_the_subscriber_ends_all_of_it_and_nothing_else() -> None:
    gate = Gate()
    run = Agent(ScriptedModel([gate.say("word " * 60)])).start("go")
    seen: list[Event] = []
    other: list[Event] = []

    async def watch(event: Event) -> None:
        seen.append(event)

    for subscriber in (seen.append, seen.append, watch, watch, other.append):
        run.subscribe(subscriber)
    until(lambda: sum(event.type == "RunStarted" for event in seen) == 4)
    run.unsubscribe(seen.append)
    run.unsubscribe(watch)
    gate.open()
    run.result(LONG_S)
    run.drain(LONG_S)
    assert not any(isinstance(event, RunEnded) for event in seen)
    assert isinstance(other[-1], RunEnded)


def test_the_threads_of_a_run_that_has_ended_are_gone() -> None:
    before = threading.active_count()
    run = Agent(ScriptedModel(["hello"])).start("go")
    ends = [run.subscribe(lambda event: None) for _ in range(10)]
    full: queue.Queue[Event] = queue.Queue(maxsize=1)
    ends.append(run.subscribe(full))
    run.result(LONG_S)
    ends[-1]()
    until(lambda: threading.active_count() <= before + 2)  # the loop's own and the journal's may be new


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_each_piece_of_a_burst_is_a_delta_for_whoever_listens() -> None:
    pieces = [f"{number} " for number in range(300)]

    class Bursts:
        name = "bursts"

        async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
            await gate.wait_async()
            yield [*pieces[:200], ReasoningFragment("hm"), *pieces[200:]]
            yield [Finished("stop")]

    gate = Gate()
    by_call: list[Event] = []
    by_coroutine: list[Event] = []
    by_queue: queue.Queue[Event] = queue.Queue()

    async def hear(event: Event) -> None:
        by_coroutine.append(event)

    async def main() -> list[Event]:
        run = Agent(Bursts()).start("Count.")
        for subscriber in (by_call.append, hear, by_queue):
            run.subscribe(subscriber)

        async def listen() -> list[Event]:
            return [event async for event in run]

        listening = asyncio.ensure_future(listen())
        await asyncio.to_thread(gate.was_reached)
        gate.open()
        heard = await listening
        await run.drained(LONG_S)
        return heard

    by_loop = asyncio.run(main())
    for events in (by_call, by_coroutine, list(by_queue.queue), by_loop):
        deltas = [event for event in events if isinstance(event, TextDelta)]
        assert [event.text for event in deltas] == pieces
        assert [event.block for event in deltas] == [0] * 200 + [2] * 100
        assert [event.type for event in events].index("ReasoningDelta") == events.index(deltas[199]) + 1


def test_who_comes_before_the_first_word_hears_what_who_comes_later_hears() -> None:
    async def listen(run: Run) -> list[Event]:
        return [event async for event in run]

    async def main() -> None:
        gate = Gate()
        run = Agent(ScriptedModel([gate.say("The day", " is fine.")])).start("How is the day?")
        early = asyncio.ensure_future(listen(run))  # nothing is on the loop yet, or a moment ago
        await asyncio.to_thread(gate.was_reached)
        while_it_runs = asyncio.ensure_future(listen(run))
        gate.open()
        await run
        heard = [await early, await while_it_runs, await listen(run)]
        recorded = [[event for event in events if isinstance(event, Recorded)] for events in heard]
        assert recorded == [list(run.events)] * 3
        assert [text_of(events) for events in heard] == ["The day is fine."] * 3

    asyncio.run(main())


def test_whoever_comes_while_a_run_begins_misses_nothing_and_hears_nothing_twice() -> None:
    agent = Agent(ScriptedModel(["one two three"] * 30))

    async def listen(run: Run, late_s: float) -> list[Event]:
        await asyncio.sleep(late_s)
        return [event async for event in run]

    async def main() -> None:
        for number in range(30):
            run = agent.start("go")
            heard = await asyncio.gather(*(listen(run, number * place / 20_000) for place in range(8)))
            for events in heard:
                assert [event for event in events if isinstance(event, Recorded)] == list(run.events)
                assert text_of(events) == "one two three"

    asyncio.run(main())


def test_who_watches_a_message_that_is_joined_with_another_hears_the_run_of_both() -> None:
    async def main() -> None:
        gate = Gate()
        agent = Agent(ScriptedModel([gate.say("first"), "both"]))
        session = agent.session()
        session.queue.mode = "all"
        first = session.send("one")
        await asyncio.to_thread(gate.was_reached)
        runs = [session.send("two"), session.send("three")]

        async def listen(run: Run) -> list[Event]:
            return [event async for event in run]

        watching = [asyncio.ensure_future(listen(run)) for run in runs]
        await asyncio.sleep(0)
        gate.open()
        heard = [await one for one in watching]
        await first
        assert [text_of(events) for events in heard] == ["both", "both"]
        assert {event.run_id for events in heard for event in events} == {runs[0].id}

    asyncio.run(main())


class TestWaitingForTheNextEvent:
    def test_a_time_limit_that_passes_loses_no_event(self) -> None:
        gate = Gate()

        async def main() -> list[Event]:
            run = Agent(ScriptedModel([gate.say("Here I am.")])).start("go")
            events, seen, late = aiter(run), list[Event](), 0
            while True:
                try:
                    seen.append(await asyncio.wait_for(anext(events), 0.05))
                except TimeoutError:
                    late += 1
                    gate.open()
                except StopAsyncIteration:
                    break
            assert late and run.text == "Here I am."
            assert [event for event in seen if isinstance(event, Recorded)] == list(run.events)
            return seen

        assert "".join(event.text for event in asyncio.run(main()) if isinstance(event, TextDelta)) == "Here I am."

    def test_two_that_wait_for_the_same_one_are_told(self) -> None:
        gate = Gate()

        async def main() -> None:
            run = Agent(ScriptedModel([gate.say("Here I am.")])).start("go")
            events = aiter(run)
            while (await anext(events)).type != "StepStarted":
                pass
            first = asyncio.create_task(anext(events))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="somebody waits for the next event of this iterator"):
                await anext(events)
            gate.open()
            assert isinstance(await first, TextDelta)
            assert [event.type async for event in events][-1] == "RunEnded"

        asyncio.run(main())

    def test_who_leaves_early_may_begin_anew(self) -> None:
        gate = Gate()

        async def main() -> None:
            run = Agent(ScriptedModel([gate.say("Here I am.")])).start("go")
            async for event in run:
                if event.type == "StepStarted":
                    break
            events = aiter(run)
            assert (await anext(events)).type == "RunStarted"
            await events.aclose()  # type: ignore[attr-defined]
            with pytest.raises(StopAsyncIteration):
                await anext(events)
            gone = ref(events)
            del events
            assert gone() is None
            gate.open()
            await run

        asyncio.run(main())
