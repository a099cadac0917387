"""The journal: an event, and its share of a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench


def recorded_events(count: int) -> list[Any]:
    """Events of a run with `count` steps of one tool call each, as the loop records them."""
    from turncell import Agent, tool
    from turncell.testing import ScriptedModel, call

    def look(path: str) -> str:
        "Look at a file."
        return "a line of what was found there\n" * 10

    model = ScriptedModel(lambda request: ["Let me look.", call("look", path=f"data/{request.step}.csv")])
    run = Agent(model, tools=[tool(effect="read")(look)], mode="auto", max_steps=count).run_sync("Look.")
    return list(run.events)


def per_event(events: int, times: int) -> float:
    """CPU seconds of an event of a step, recorded in groups as the loop does, written in batches."""
    from turncell import Agent
    from turncell.core.events import StepStarted
    from turncell.testing import ScriptedModel

    recorded = recorded_events(max(1, events // 7))
    found = []
    for _ in range(times):
        session = Agent(ScriptedModel(["x"])).session()
        journal = session.journal
        journal.flush()
        groups: list[list[Any]] = []
        for event in recorded:
            if isinstance(event, StepStarted) or not groups:
                groups.append([])
            groups[-1].append(_in_session(event, session.id))
        began = time.process_time()
        for group in groups:
            journal.record(group)
        journal.flush()
        found.append((time.process_time() - began) / len(recorded))
    return median(found)


def _in_session(event: Any, session_id: str) -> Any:
    from dataclasses import replace

    return replace(event, session_id=session_id)


def share(base: str, way: str, deltas: int, times: int, gap_ms: int = 0) -> dict[str, float]:
    """What of a turn's CPU is the journal's: encoding on the loop, writing on its own thread.

    `gap_ms` between deltas: 20 is how fast people see models write; 0 is all at once, of which no other part costs less.
    """
    from bench.ways import PROMPT, WAYS
    from turncell import Agent
    from turncell.adapters.sql_store import SQLStore
    from turncell.runtime.journal import Journal
    from turncell.settings import current

    class Timed(Journal):
        recording_s = 0.0

        def record(self, events: Sequence[Any], *, durable: bool = False) -> Future[None]:
            began = time.thread_time()
            try:
                return super().record(events, durable=durable)
            finally:
                self.recording_s += time.thread_time() - began

    journal = Timed(lambda: SQLStore.sqlite(current().store_path))
    reader: Any = WAYS[way](base)
    agent = Agent(reader.model(f"/{deltas}/{gap_ms}/text"), journal=journal)

    def spent() -> float:
        return journal.recording_s + journal.ask(lambda store: time.thread_time())

    async def turn(session: Any) -> None:
        await reader._watch(agent.start(PROMPT, session=session), 0.0)

    asyncio.run(turn(agent.session()))
    shares, costs = [], []
    with asyncio.Runner() as runner:
        for _ in range(times):
            session = agent.session()
            before, began = spent(), time.process_time()
            runner.run(turn(session))
            total = time.process_time() - began
            costs.append(spent() - before)
            shares.append(costs[-1] / total)
    journal.close()
    return {"share": median(shares), "cost": median(costs)}


def report(bench: Bench) -> list[Target]:
    from bench.ways import DIRECT, THROUGH

    events, times = (700, 1) if bench.is_quick else (7000, 9)
    each_s = bench.child("journal", "per_event", events=events, times=times)
    rows: list[tuple[str, float, float | None]] = [("an event, batched, µs", each_s * 1e6, None)]
    targets = [Target("an event, batched", each_s * 1e6, 5, " µs")]
    for way, deltas, gap_ms in (
        (DIRECT, 100, 20), (DIRECT, 500, 20), (DIRECT, 20, 0), (DIRECT, 2000, 0), (THROUGH, 20, 0), (THROUGH, 500, 0),
    ):  # fmt: skip
        if bench.is_quick and (way == THROUGH or deltas > 100):
            continue
        many = 1 if bench.is_quick else 3 if gap_ms else 5 * times
        one = bench.child("journal", "share", base=bench.base, way=way, deltas=deltas, times=many, gap_ms=gap_ms)
        what = f"{deltas} deltas, {f'one in {gap_ms} ms' if gap_ms else 'all at once'}, {way}"
        rows.append((f"a turn of {what}, µs", one["cost"] * 1e6, one["share"] * 100))
        targets.append(Target(f"{what}: share of the turn", one["share"] * 100, 5, " %"))
    print(table(("", "CPU of the journal", "% of the turn"), rows))
    return targets
