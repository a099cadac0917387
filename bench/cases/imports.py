"""From nothing: imports, the extension, the first delta."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench


def package() -> float:
    began = time.process_time()
    import turncell

    assert turncell.__name__
    return time.process_time() - began


def pydantic() -> float:
    began = time.process_time()
    from pydantic import TypeAdapter

    assert TypeAdapter
    return time.process_time() - began


def extension() -> float:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    began = time.process_time()
    shell.run_line_magic("load_ext", "turncell")
    return time.process_time() - began


def first_delta(base: str, way: str) -> float:
    """CPU of the whole process, its start included, up to the first delta."""
    from bench.ways import WAYS

    began = time.process_time()
    return began + WAYS[way](base).turn("/20/0/text").first_cpu_s


def peer() -> float:
    began = time.process_time()
    import litellm

    assert litellm
    return time.process_time() - began


def report(bench: Bench) -> list[Target]:
    from bench.ways import DIRECT, RAW, THROUGH

    times = 1 if bench.is_quick else 7

    def of(function: str, **arguments: str) -> float:
        bench.child("imports", function, **arguments)  # compiles what was never imported before
        return median(bench.child("imports", function, **arguments) for _ in range(times))

    imported, loaded = of("package"), of("extension")
    cold = {way: of("first_delta", base=bench.base, way=way) for way in (RAW, DIRECT, THROUGH)}
    rows = [
        ("`import turncell`", imported),
        ("`from pydantic import TypeAdapter`", of("pydantic")),
        ("`import litellm`", of("peer")),
        ("`%load_ext turncell` after IPython's start", loaded),
        *((f"process start to first delta: {way}", cpu_s) for way, cpu_s in cold.items()),
    ]
    print(table(("", "CPU, s"), rows))
    return [
        Target("`import turncell`", imported, 0.06, " s"),
        Target("`%load_ext turncell`", loaded, 0.15, " s"),
        Target("first delta through LiteLLM, cold", cold[THROUGH], 1.7, " s"),
    ]
