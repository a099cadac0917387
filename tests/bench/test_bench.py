"""The benchmarks run. Their figures are for people: nothing here waits for a fast machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import Bench, server
from bench.report import Target
from bench.ways import STEP_WAYS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("journal", ["## The journal", "(target ≤ 5 µs)"]),
        pytest.param("imports", ["| `import turncell` |"], marks=pytest.mark.full),
    ],
)
def test_it_prints_tables_and_targets(case: str, told: list[str]) -> None:
    command = [sys.executable, "-m", "bench", "--quick", case]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in [*told, "targets met."]), done.stdout


@pytest.mark.parametrize("way", STEP_WAYS)
def test_its_server_speaks_each_format(way: str) -> None:
    with server() as base:
        found = Bench(base, True, dict(os.environ)).child("steps", "measure", base=base, way=way, count=8, times=1)
    assert min(found.values()) > 0


def test_an_unknown_case_is_refused_by_name() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "cpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "no such case: cpu; there are deltas" in done.stderr


def test_a_miss_is_said() -> None:
    assert str(Target("a turn", 5, 4, " × raw")) == "a turn: 5 × raw (target ≤ 4 × raw): **MISSED**"
    assert str(Target("a rate", 0.5, 0.4, is_at_least=True)) == "a rate: 0.5 (target ≥ 0.4): met"
