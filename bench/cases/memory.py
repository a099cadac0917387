"""Memory: a long answer, and 200 turns at once."""

from __future__ import annotations

import gc
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Target, table
from bench.ways import BARE, DIRECT, RAW, THROUGH, WAYS

if TYPE_CHECKING:
    from bench.__main__ import Bench


def measure(base: str, way: str, turns: int, deltas: int) -> float:
    """MB of the peak over what the process held before, with everything loaded and warm."""
    reader = WAYS[way](base)
    reader.turn("/200/0/text")
    reader.turns(["/20/0/text"] * min(2, turns))
    gc.collect()
    held = _forget_peak()
    if turns == 1:
        reader.turn(f"/{deltas}/0/text")
    else:
        reader.turns([f"/{deltas}/0/text"] * turns)
    return max(0.0, _peak() - held)


def _forget_peak() -> float:
    """MB now. Linux can forget the peak so far; elsewhere an earlier one may hide the next."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> float:
    return (
        _status("VmHWM")
        if Path("/proc/self/status").exists()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def report(bench: Bench) -> list[Target]:
    long, turns = (400, 5) if bench.is_quick else (20_000, 200)
    found = {}
    for way in (RAW, DIRECT, BARE, THROUGH):
        found[way] = (
            bench.child("memory", "measure", base=bench.base, way=way, turns=1, deltas=long),
            bench.child("memory", "measure", base=bench.base, way=way, turns=turns, deltas=200 if turns == 200 else 20),
        )
    print(
        table(
            ("MB, peak over idle", f"{long:,}-delta answer", f"{turns} turns at once"),
            [(w, *f) for w, f in found.items()],
        )
    )
    return [
        Target("direct, long answer", found[DIRECT][0], 5, " MB"),
        Target("direct, turns at once", found[DIRECT][1], 25, " MB"),
        Target("through LiteLLM, long answer", found[THROUGH][0], 5, " MB"),
        Target("through LiteLLM, turns at once", found[THROUGH][1], 25, " MB"),
    ]
