"""100,000 events into DataFrames: all five tables, and the memory that takes."""

from __future__ import annotations

import time
import tracemalloc
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench


def _records(events: int) -> list[Any]:
    """So many events, of runs with twenty calls each."""
    from bench.cases.journal import recorded_events
    from turncell.runtime.journal import to_record
    from turncell.runtime.ports import Record

    one = [to_record(event) for event in recorded_events(20)]
    records = []
    for number in range(1 + events // len(one)):
        old, new = one[0].run_id, f"{one[0].run_id[:-6]}{number:06d}"
        records += [
            Record(r.session_id, r.seq, new, r.step, r.type, r.at, r.payload.replace(old.encode(), new.encode()))
            for r in one
        ]
    return records[:events]


def measure(events: int, times: int) -> dict[str, float]:
    """CPU seconds of all five tables, of the same of half as many events, and of `DataFrame(list)` of the same lines."""
    import orjson
    import pandas as pd

    from turncell.frames.tables import tables

    records = _records(events)
    plain_s, ours_s, half_s = [], [], []
    for _ in range(times):
        began = time.process_time()
        pd.DataFrame([orjson.loads(record.payload) for record in records])
        plain_s.append(time.process_time() - began)
        began = time.process_time()
        found = tables(records)
        ours_s.append(time.process_time() - began)
        assert len(found.events) == len(records) and len(found.runs) == len({record.run_id for record in records})
        began = time.process_time()
        tables(records[: events // 2])
        half_s.append(time.process_time() - began)
    return {"plain": median(plain_s), "ours": median(ours_s), "half": median(half_s)}


def memory(events: int) -> dict[str, float]:
    """Megabytes at the peak, beyond the records themselves."""
    import orjson
    import pandas as pd

    from turncell.frames.tables import tables

    records = _records(events)
    tables(records[:200])  # what is imported is not counted

    def peak_mb(make: Any) -> float:
        tracemalloc.start()
        make()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 1e6

    return {
        "plain": peak_mb(lambda: pd.DataFrame([orjson.loads(record.payload) for record in records])),
        "ours": peak_mb(lambda: tables(records)),
    }


def report(bench: Bench) -> list[Target]:
    events, times = (2_000, 1) if bench.is_quick else (100_000, 5)
    found = bench.child("frames", "measure", events=events, times=times)
    held = bench.child("frames", "memory", events=events)
    ratio = found["ours"] / found["plain"]
    growth = found["ours"] / found["half"] / 2
    rows = [
        ("`orjson` lines + `DataFrame(list)`", found["plain"], 1.0, held["plain"]),
        ("runs, steps, messages, calls, events", found["ours"], ratio, held["ours"]),
        (f"the same of {events // 2:,}", found["half"], found["half"] / found["plain"], None),
    ]
    print(table((f"{events:,} events", "CPU, s", "×", "peak, MB"), rows))
    return [
        Target("the five tables", ratio, 1.0, " × the plain list"),
        Target("twice as many events", growth, 1.3, " × twice the time"),
    ]
