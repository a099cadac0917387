"""100,000 events into DataFrames."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench


def measure(events: int, times: int) -> dict[str, float]:
    """CPU seconds of all three tables, and of `DataFrame(list)` of the same lines of JSON."""
    import orjson
    import pandas as pd

    from bench.cases.journal import recorded_events
    from turncell.frames.tables import tables
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
    records = records[:events]
    plain_s, ours_s = [], []
    for _ in range(times):
        began = time.process_time()
        pd.DataFrame([orjson.loads(record.payload) for record in records])
        plain_s.append(time.process_time() - began)
        began = time.process_time()
        found = tables(records)
        ours_s.append(time.process_time() - began)
        assert len(found.runs) == 1 + (len(records) - 1) // len(one)
    return {"plain": median(plain_s), "ours": median(ours_s)}


def report(bench: Bench) -> list[Target]:
    events, times = (2_000, 1) if bench.is_quick else (100_000, 5)
    found = bench.child("frames", "measure", events=events, times=times)
    ratio = found["ours"] / found["plain"]
    rows = [("`orjson` lines + `DataFrame(list)`", found["plain"], 1.0), ("runs, steps, calls", found["ours"], ratio)]
    print(table((f"{events:,} events", "CPU, s", "×"), rows))
    return [Target("the three tables", ratio, 1.0, " × the plain list")]
