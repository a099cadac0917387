"""In the notebook: loading, clicks, interrupts, streams, and what stays in the file.

Real kernels over jupyter_client; the measuring process plays the page. Times of the kernel and of the page are those of
one clock.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from html import unescape
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench
    from tests.kernels.conftest import Kernel

VERSIONS = ("6.31.0", "7.4.0")
DELTAS_PER_S = 500
DELTA = "five "

SETUP = """
import asyncio, time
import turncell.settings
from turncell import Agent, Settings, tool
from turncell.testing import ScriptedModel, call, say

turncell.settings.use(Settings(store="HISTORY", context="none"))

@tool
def send_note(to: str) -> str:
    "Send a note to somebody."
    return f"sent to {to}"

@tool(effect="read")
async def look() -> str:
    "Look for a long time."
    await asyncio.sleep(30)
    return "seen"

def script(*entries):
    global demo
    demo = Agent(ScriptedModel(entries), tools=[send_note, look])

class Paced:
    "Text at a steady rate, however late the loop is."
    name = "paced"

    async def stream(self, request):
        from turncell.core.deltas import Finished
        from turncell.core.parts import Usage

        began = time.monotonic()
        for number in range(COUNT):
            pause_s = began + number / PER_S - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            yield [DELTA]
        yield [Finished("stop", Usage(1, COUNT))]
"""


def measure(version: str, times: int) -> dict[str, float]:
    """Seconds, and counts for a stream, of one kernel."""
    from tests.kernels.conftest import running

    with tempfile.TemporaryDirectory() as folder, running(version) as kernel:
        found = _loading(kernel)
        kernel.run(SETUP.replace("HISTORY", f"{folder}/h.sqlite").replace("(DELTA)", f"({DELTA!r})"))
        kernel.run(f"PER_S = {DELTAS_PER_S}")
        found |= _clicks(kernel, times)
        found |= _interrupts(kernel, times)
        found |= _first_delta(kernel, times)
        found |= _stream(kernel, seconds=0.5 + times / 4)
        return found


def _loading(kernel: Kernel) -> dict[str, float]:
    kernel.run(
        "import sys, time\n"
        "reached = []\n"
        "sys.addaudithook(lambda event, args: reached.append(event) if event in "
        "('socket.connect', 'socket.getaddrinfo') else None)\n"
        "began = time.process_time()\n"
        "get_ipython().run_line_magic('load_ext', 'turncell')\n"
        "took = time.process_time() - began"
    )
    return dict(zip(("load", "reached"), kernel.value("took, len(reached)"), strict=True))


def _turn(kernel: Kernel) -> Any:
    from tests.kernels.page import Page

    return Page(kernel, kernel.execute("%%agent -a demo --new\nGo.", allow_stdin=True))


def _clicks(kernel: Kernel, times: int) -> dict[str, float]:
    from turncell.core import events as ev

    kernel.run(f"script(*[call('send_note', to=str(n)) for n in range({times})], 'Done.')")
    page = _turn(kernel)
    waited = []
    for number in range(1, times + 1):
        request = page.hear(ev.RequestOpened, number)
        kernel.listen(0.05)  # a person is slower: the cell is at rest by then
        clicked = time.time()
        page.answer(request, "approve")
        waited.append(page.hear(ev.RequestAnswered, number).at - clicked)
    _end(kernel, page.cell)
    return {"click": median(waited)}


def _interrupts(kernel: Kernel, times: int) -> dict[str, float]:
    from turncell.core import events as ev

    waited = []
    for entry, kind in (
        ("say('never', delay_s=30)", ev.StepStarted),
        ("say('word ' * 5000, delay_s=0.01)", ev.TextDelta),
        ("call('send_note', to='Ana')", ev.RequestOpened),
        ("call('look')", ev.CallStarted),
    ):
        for _ in range(max(1, times // 4)):
            kernel.run(f"script({entry})")
            page = _turn(kernel)
            page.hear(kind)
            kernel.listen(0.1)
            pressed = time.monotonic()
            kernel.interrupt()
            _end(kernel, page.cell)
            waited.append(time.monotonic() - pressed)
    return {"interrupt": median(waited), "interrupt_worst": max(waited)}


def _first_delta(kernel: Kernel, times: int) -> dict[str, float]:
    from turncell.core import events as ev

    waited = []
    for _ in range(times):
        kernel.run(
            "said_at = []\n"
            "async def first(request):\n"
            "    await asyncio.sleep(0.3)\n"
            "    said_at.append(time.time())\n"
            "    return [say('first ', chunk=6), say('second', delay_s=0.2)]\n"
            "script(first)"
        )
        page = _turn(kernel)
        page.hear(ev.TextDelta)
        heard = time.time()
        _end(kernel, page.cell)
        waited.append(heard - kernel.value("said_at[0]"))
    return {"first": median(waited)}


def _stream(kernel: Kernel, seconds: float) -> dict[str, float]:
    from turncell.core import events as ev

    kernel.run(f"COUNT = {int(seconds * DELTAS_PER_S)}; demo = Agent(Paced())")
    kernel.heard.clear()
    page = _turn(kernel)
    page.hear(ev.RunEnded, timeout_s=seconds + 10)
    _end(kernel, page.cell)
    texts = [m for m in page.of_type("events") if all(event["type"] == "TextDelta" for event in m["events"])]
    times = [message["now"] for message in texts]
    sizes = [len(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()) for message in texts]
    text = sum(len(event["text"].encode()) for message in texts for event in message["events"])
    return {
        "messages": (len(times) - 1) / (times[-1] - times[0]),
        "bytes": sum(sizes) / len(sizes),
        "text": text / len(texts),
        "pause": max(after - before for before, after in pairwise(times)),
    }


def _end(kernel: Kernel, cell: str) -> None:
    kernel.reply(cell, timeout_s=20)
    kernel.idle(cell)


PROSE = (
    "The **river** rose two metres in a night, and by the morning the bridge at Elvebakken was closed; see the "
    "[notice](https://example.com/notice). Measured at `gauge_7`, it is the most since 1987.\n\n"
    "- the road to the north is open\n- the school is *not*\n\n"
)
CODE = (
    "```python\nimport pandas as pd\n\n\ndef monthly(frame: pd.DataFrame, column: str = 'rain_mm') -> pd.Series:\n"
    "    # Wet months only.\n    total = frame.groupby(frame.index.month)[column].sum()\n"
    "    return total[total > 40].round(1)\n\n\nfor month, value in monthly(frame).items():\n"
    "    print(f'{month:>2}: {value:.1f} mm')\n```\n\n"
)
ROWS = "| station | rain, mm | wind, m/s |\n| --- | ---: | ---: |\n" + "| Elvebakken | 41.5 | 7.25 |\n" * 12 + "\n"
_BLOCKS = r"<(?:p|li|tr|pre|div|h\d|table|blockquote)\b[^>]*>"
ANSWERS = {"prose": PROSE, "prose, code and a table": PROSE * 3 + CODE + ROWS, "code": CODE, "tables": ROWS}


def saved(kind: str, characters: int) -> dict[str, float]:
    """Bytes of what stays of a turn with so much text, each format beside the text that a person sees of it."""
    from turncell import Agent
    from turncell.frames.transcript import mimebundle
    from turncell.testing import ScriptedModel

    one = ANSWERS[kind]
    run = Agent(ScriptedModel([one * (characters // len(one) + 1)])).run_sync("Go.")
    bundle = mimebundle(run.state)
    # As a browser's `innerText` has it: tabs between cells, new lines between blocks, code as it stands.
    apart = re.sub(r"<t[dh]\b[^>]*>", "\t", re.sub(_BLOCKS, "\n", bundle["text/html"]))
    visible = re.sub(r"\n+", "\n", unescape(re.sub(r"<[^>]+>", "", apart))).strip()
    sizes = {mime: len(json.dumps(text, ensure_ascii=False).encode()) for mime, text in bundle.items()}
    return {"visible": len(visible.encode()), **sizes, "all": sum(sizes.values())}


def report(bench: Bench) -> list[Target]:
    from tests.kernels.conftest import SPECS

    times = 2 if bench.is_quick else 20
    targets = []
    rows: list[list[str | float | None]] = []
    for version in VERSIONS:
        if not (SPECS / f"py-{version}" / "kernel.json").exists():
            print(f"ipykernel {version} was not tried: `make kernels` makes it\n", file=sys.stderr)
            continue
        one = bench.child("notebook", "measure", version=version, times=times)
        bare = max(1.0, one["bytes"] - one["text"])
        rows.append([f"ipykernel {version}", one["load"] * 1e3, one["click"] * 1e3, one["interrupt"] * 1e3,
                     one["interrupt_worst"] * 1e3, one["first"] * 1e3, one["messages"], one["pause"] * 1e3,
                     one["bytes"], bare])  # fmt: skip
        on = f", ipykernel {version}"
        targets += [
            Target(f"`%load_ext turncell`{on}", one["load"] * 1e3, 150, " ms CPU"),
            Target(f"connections that it opens{on}", one["reached"], 0),
            Target(f"click to Python{on}", one["click"] * 1e3, 100, " ms"),
            Target(f"interrupt to idle, the longest{on}", one["interrupt_worst"] * 1e3, 500, " ms"),
            Target(f"first delta to iopub{on}", one["first"] * 1e3, 150, " ms"),
            Target(f"messages a second at {DELTAS_PER_S} deltas/s{on}", one["messages"], 30),
            Target(f"bytes of a message beyond 1.5 × its text{on}", one["bytes"] - 1.5 * one["text"], 100),
        ]
    header = ("", "`%load_ext`, ms CPU", "click, ms", "interrupt to idle, ms", "the longest", "first delta, ms",
              "messages/s", "longest pause, ms", "bytes a message", "beyond its text")  # fmt: skip
    print(table(header, rows))
    stays = {kind: bench.child("notebook", "saved", kind=kind, characters=10_000) for kind in ANSWERS}
    mimes = ("text/plain", "text/markdown", "text/html", "all")
    lines = [[f"10 kB of {kind}", *(found[mime] / found["visible"] for mime in mimes)] for kind, found in stays.items()]
    print("\n" + table(("what stays, × the text one sees", *mimes), lines))
    mixed = stays["prose, code and a table"]
    targets.append(Target("what stays of 10 kB of text", mixed["all"] / mixed["visible"], 3, " × the text"))
    return targets
