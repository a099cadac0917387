"""200 turns at once."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Target, table
from bench.ways import BARE, DIRECT, RAW, THROUGH, WAYS

if TYPE_CHECKING:
    from bench.__main__ import Bench


def measure(base: str, way: str, turns: int, deltas: int, times: int, gap_ms: float) -> dict[str, float]:
    """Deltas for each CPU second, and the time on the wall over the provider's."""
    reader = WAYS[way](base)
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
    rates, walls = {}, {}
    for way in WAYS:
        is_slow = way in (BARE, THROUGH)
        deltas, times = (20, 1) if bench.is_quick else (200, 1 if is_slow else 5)
        arguments = {"base": bench.base, "way": way, "turns": turns, "deltas": deltas}
        rates[way] = bench.child("many", "measure", **arguments, times=times, gap_ms=0)["rate"]
        # At 10,000 deltas a second LiteLLM wants three cores: there is nothing to pace.
        walls[way] = (
            None if is_slow else bench.child("many", "measure", **arguments, times=1 + times // 4, gap_ms=20)["wall"]
        )
    header = ("", "deltas/s/core", "× raw", "wall over ideal, 50 deltas/s each")
    print(table(header, [(way, rates[way], rates[way] / rates[RAW], walls[way]) for way in WAYS]))
    return [
        Target("minimal model", rates[DIRECT] / rates[RAW], 0.4, " × raw", is_at_least=True),
        Target("minimal model, paced, wall", walls[DIRECT] or 0.0, 1.15, " × ideal"),
    ]
