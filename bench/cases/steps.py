"""Steps with a no-op tool: an early one, a late one, fifty; turns of one session: an early one, a late one."""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Target, beside_parts, table
from bench.ways import (
    BARE,
    DIRECT,
    LINE_WAY,
    PARTS,
    PARTS_WAY,
    RAW,
    STEP_WAYS,
    THROUGH,
    WAYS,
    WHOLE,
    TurncellDirect,
)

if TYPE_CHECKING:
    from bench.__main__ import Bench

WRITE = "turncell direct, a tool that writes"


def measure(base: str, way: str, count: int, times: int) -> dict[str, float]:
    """CPU seconds of a step of 2 to 20, of a step of the second half, and of all of the first fifty."""
    reader = TurncellDirect(base, "write") if way == WRITE else (WAYS | LINE_WAY | PARTS_WAY | STEP_WAYS)[way](base)
    reader.steps("/2/0/tool", 3)
    runs = [reader.steps("/2/0/tool", count) for _ in range(times)]
    early, half, fifty = min(20, count // 4), count // 2, min(50, count)
    return {
        "early": median((marks[early] - marks[1]) / (early - 1) for marks in runs),
        "late": median((marks[count] - marks[half]) / (count - half) for marks in runs),
        "fifty": median(marks[fifty] - marks[0] for marks in runs) * 50 / fifty,
    }


def turns(base: str, count: int) -> dict[str, float]:
    """CPU seconds of a turn of the first and of the last tenth of a session."""
    marks = TurncellDirect(base).conversation("/20/0/text", count)
    cost = [after - before for before, after in pairwise(marks)]
    tenth = count // 10
    return {"early": median(cost[1 : tenth + 1]), "late": median(cost[-tenth:])}


def report(bench: Bench) -> list[Target]:
    count, times = (20, 1) if bench.is_quick else (200, 3)
    found = bench.ways(
        "steps",
        {
            way: {"count": count, "times": 1 if way in (BARE, WHOLE) else times}
            for way in (*LINE_WAY, *PARTS_WAY, *WAYS, WRITE, *STEP_WAYS)
        },
    )
    raw, direct, through = found[RAW], found[DIRECT], found[THROUGH]
    header = ("", "ms/step, 2–20", "ms/step, 100–200", "late / early", "50 steps, ms", "× raw")
    rows = [
        (
            way, one["early"] * 1e3, one["late"] * 1e3, one["late"] / one["early"], one["fifty"] * 1e3,
            one["fifty"] / raw["fifty"],
        )
        for way, one in found.items()
    ]  # fmt: skip
    print(table(header, rows))
    print("\n" + beside_parts("fifty steps", raw["fifty"], found[PARTS]["fifty"], direct["fifty"]))
    long = 50 if bench.is_quick else 500
    session = bench.child("steps", "turns", base=bench.base, count=long)
    print(
        f"\nA turn of 20 deltas in a session of {long}: {session['early'] * 1e3:.3g} ms early, {session['late'] * 1e3:.3g} late."
    )
    return [
        Target(f"direct, a late turn of {long}", session["late"] / session["early"], 2, " × early"),
        Target("direct, 50 steps", direct["fifty"] / raw["fifty"], 8, " × raw"),
        Target("direct, late step", direct["late"] / direct["early"], 2, " × early"),
        *(Target(f"{way}, late step", found[way]["late"] / found[way]["early"], 2, " × early") for way in STEP_WAYS),
        Target("through LiteLLM, 50 steps", through["fifty"] / raw["fifty"], 8, " × raw"),
        Target("through LiteLLM, late step", through["late"] / through["early"], 2, " × early"),
        Target("through LiteLLM whole, 50 steps", found[WHOLE]["fifty"] / found[BARE]["fifty"], 1.1, " × bare LiteLLM"),
    ]
