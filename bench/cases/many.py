"""200 turns at once."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Target, beside_parts, table
from bench.ways import BARE, DIRECT, LINE_WAY, PARTS, PARTS_WAY, RAW, WAYS, WHOLE

if TYPE_CHECKING:
    from bench.__main__ import Bench


def measure(base: str, way: str, turns: int, deltas: int, times: int, gap_ms: float) -> dict[str, float]:
    """Deltas for each CPU second, and the time on the wall over the provider's."""
    reader = (LINE_WAY | PARTS_WAY | WAYS)[way](base)
    reader.turn("/20/0/text")
    rates, walls = [], []
    for _ in range(times):
        cpu, wall = time.process_time(), time.perf_counter()
        count = reader.turns([f"/{deltas}/{gap_ms:g}/text"] * turns)
        rates.append(count / (time.process_time() - cpu))
        walls.append((time.perf_counter() - wall) / max(1e-9, deltas * gap_ms / 1000))
        assert count == turns * deltas
    return {"rate": median(rates), "wall": median(walls)}


def report(bench: Bench) -> list[Target]:
    turns = 20 if bench.is_quick else 200
    deltas, times = (20, 1) if bench.is_quick else (200, 3)
    common = {"turns": turns, "deltas": deltas}
    slow = (BARE, WHOLE)
    rates = bench.ways(
        "many",
        {way: {**common, "times": 1 if way in slow else times, "gap_ms": 0} for way in (*LINE_WAY, *PARTS_WAY, *WAYS)},
        rounds=2,
    )
    # At 10,000 deltas a second LiteLLM wants three cores: there is nothing to pace.
    paced = bench.ways("many", {way: {**common, "times": 1, "gap_ms": 20} for way in WAYS if way not in slow}, rounds=2)
    rate = {way: one["rate"] for way, one in rates.items()}
    wall = {way: paced[way]["wall"] if way in paced else None for way in rates}
    header = ("", "deltas/s/core", "× raw", "wall over ideal, 50 deltas/s each")
    print(table(header, [(way, rate[way], rate[way] / rate[RAW], wall[way]) for way in rates]))
    print("\n" + beside_parts("200 turns at once", 1 / rate[RAW], 1 / rate[PARTS], 1 / rate[DIRECT]))
    return [
        Target("direct", rate[DIRECT] / rate[RAW], 0.4, " × raw", is_at_least=True),
        Target("direct, paced, wall", wall[DIRECT] or 0.0, 1.15, " × ideal"),
    ]
