"""Beside other runtimes, which only measure where `make peers` has installed them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers import DISTRIBUTIONS
from bench.report import Target, table
from bench.ways import AIOHTTP, DIRECT, RAW

if TYPE_CHECKING:
    from bench.__main__ import Bench

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".hosts" / "peers" / "bin" / "python"
FIGURES = ("short", "short_first", "early", "late", "fifty")


def report(bench: Bench) -> list[Target]:
    if not PYTHON.exists():
        print("Other runtimes were not measured: `make peers` installs them.")
        return []
    count, times = (20, 1) if bench.is_quick else (100, 3)
    found: dict[str, dict[str, Any]] = {}
    for way in (RAW, AIOHTTP, DIRECT):
        turn = bench.child("deltas", "measure", base=bench.base, way=way, deltas=200, times=times, gap_ms=2)
        step = bench.child("steps", "measure", base=bench.base, way=way, count=count, times=times)
        found[way] = turn | step
    for name in DISTRIBUTIONS:
        print(f"  {name}", file=sys.stderr, flush=True)
        command = [PYTHON, "-W", "ignore", ROOT / "bench" / "peers.py", name, bench.base, str(count), str(times)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=bench.environment)
        one = json.loads(done.stdout.splitlines()[-1])
        found[f"{name} {one['version']}"] = one
    header = ("", "20-delta turn, ms", "CPU to first delta, ms", "ms/step, 2–20", "a late step, ms", "50 steps, ms")
    print(table(header, [(way, *(one[figure] * 1e3 for figure in FIGURES)) for way, one in found.items()]))
    print(
        "\nturncell writes a journal and has a subscriber, rules and two hooks; exoclaw-turn keeps nothing and tells nobody of "
        "the deltas. Its first row is it with 25 lines of aiohttp and orjson, made for this; its second is it with the "
        "provider of its documentation."
    )
    ours = found[DIRECT]
    return [
        Target(f"50 steps beside {name}", ours["fifty"] / one["fifty"], 1, " ×")
        for name, one in found.items()
        if name not in (RAW, AIOHTTP, DIRECT)
    ]
