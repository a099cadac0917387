"""Streaming: a long answer, a short one, and the first delta."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import Target, beside_parts, table
from bench.ways import (
    BARE,
    BARE_GEMINI,
    DIRECT,
    LINE_WAY,
    PARSED,
    PARTS,
    PARTS_WAY,
    RAW,
    TEXT_WAYS,
    THROUGH,
    WAYS,
    WHOLE,
)

if TYPE_CHECKING:
    from bench.__main__ import Bench


def measure(base: str, way: str, deltas: int, times: int, gap_ms: float) -> dict[str, float]:
    """CPU of answers of `deltas` deltas, and of short ones of 20."""
    reader = (WAYS | LINE_WAY | PARTS_WAY | TEXT_WAYS)[way](base)
    found: dict[str, Any] = {}
    slow = max(60, deltas // 4)
    for name, count, gap, repeats in (
        ("long", deltas, 0, times),
        ("short", 20, 0, 6 * times),
        ("paced", slow, gap_ms, 1 + times // 4),
    ):
        path = f"/{count}/{gap:g}/text"
        reader.turn(path)  # connections, lazy imports and caches are not what a turn costs
        cpu_s, first_s = [], []
        for _ in range(repeats):
            turn = reader.prepare(path) if hasattr(reader, "prepare") else lambda path=path: reader.turn(path)
            began = time.process_time()
            done = turn()
            cpu_s.append(time.process_time() - began)
            first_s.append(done.first_cpu_s)
            assert done.deltas == count and len(done.text) == 5 * count, (way, done.deltas)
        found[name], found[f"{name}_first"] = median(cpu_s), median(first_s)
    found["per_delta"] = (found["long"] - found["short"]) / (deltas - 20)
    found["per_paced"] = (found["paced"] - found["short"]) / (slow - 20)
    return found


def report(bench: Bench) -> list[Target]:
    deltas, times = (400, 1) if bench.is_quick else (4000, 15)
    # LiteLLM's way costs a hundred times as much: fewer runs are steady enough.
    less = {way: 5 if way in (BARE, WHOLE, BARE_GEMINI) else 1 for way in (*LINE_WAY, *PARTS_WAY, *WAYS, *TEXT_WAYS)}
    found = bench.ways(
        "deltas",
        {way: {"deltas": deltas // less[way], "times": max(1, times // less[way]), "gap_ms": 2} for way in less},
    )
    raw, direct, bare, through = found[RAW], found[DIRECT], found[BARE], found[THROUGH]
    whole, parsed = found[WHOLE], found[PARSED]
    late = bench.child(
        "deltas", "measure", base=bench.base, way=PARSED, deltas=5 * deltas, times=max(1, times // 5), gap_ms=0
    )
    header = ("", "µs per delta", "× raw", "µs per delta, each in a read of its own", "× raw", "20-delta turn, ms",
              "× raw", "CPU to first delta, ms", "× raw")  # fmt: skip
    rows = []
    for way, one in found.items():
        row: list[str | float] = [way]
        for name, unit in (("per_delta", 1e6), ("per_paced", 1e6), ("short", 1e3), ("short_first", 1e3)):
            row += [one[name] * unit, one[name] / raw[name]]
        rows.append(row)
    print(table(header, rows))
    print("\n" + beside_parts("a short turn", raw["short"], found[PARTS]["short"], direct["short"]))
    print(beside_parts("a first delta", raw["short_first"], found[PARTS]["short_first"], direct["short_first"]))
    return [
        Target("direct, delta", direct["per_delta"] / raw["per_delta"], 2, " × raw"),
        Target("direct, 20-delta turn", direct["short"] / raw["short"], 4, " × raw"),
        Target("direct, CPU to first delta", direct["short_first"] / raw["short_first"], 4, " × raw"),
        Target("through LiteLLM, delta", through["per_delta"] / raw["per_delta"], 2.5, " × raw"),
        Target("through LiteLLM's parser, delta", parsed["per_delta"] / raw["per_delta"], 12, " × raw"),
        Target(
            "through LiteLLM's parser, delta of an answer five times as long",
            late["per_delta"] / parsed["per_delta"],
            1.25,
            " ×",
        ),
        Target("through LiteLLM whole, delta", whole["per_delta"] / bare["per_delta"], 1.1, " × bare LiteLLM"),
        Target("through LiteLLM whole, 20-delta turn", whole["short"] / bare["short"], 1.1, " × bare LiteLLM"),
    ]
