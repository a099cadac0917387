"""The page: long answers in Chromium beside the quickest renderer of streamed Markdown, and a notebook of thirty runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench

JS = Path(__file__).parents[2] / "js"
ANSWER, TABLE, FENCE, NOTEBOOK = 1.5, 1.5, 1.8, 0.3
"""Seconds do not travel between machines. The targets were set on one where `streaming-markdown` took 1.67 s for 100 KB in
10,000 frames (0.167 ms each) and 2.7 ms for a frame of the table: 2.5 s for the same 100 KB, 4 ms for a frame of the table,
0.3 ms for one of the fence, 0.5 s for thirty runs. Here it is measured beside ours, and each target is over its figure. It stands in our page, in our style and without our groups of
blocks: the seconds in the table say how much of a difference that makes."""


def report(bench: Bench) -> list[Target]:
    print("  page.mjs", file=sys.stderr, flush=True)
    command = ["node", "bench/page.mjs", *(["quick"] if bench.is_quick else [])]
    done = subprocess.run(command, cwd=JS, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    names = {
        "answer": "100 KB of Markdown, two deltas of 5 characters a frame",
        "short": "the same, 1,000 characters a frame",
        "long": "1 MB, 1,000 characters a frame",
        "fence": "100 KB of code in one fence",
        "table": "a table of 800 rows",
        "live": "the whole view at its own pace: 500 deltas a second in 25 messages, 100 KB",
        "liveShort": "5,000 deltas a second, 100 KB",
        "liveLong": "5,000 deltas a second, 1 MB",
        "peerAnswer": "streaming-markdown: 100 KB, two deltas a frame",
        "peerTable": "streaming-markdown: the table",
        "peerFence": "streaming-markdown: 20 KB of the fence",
        "peerLive": "streaming-markdown: 500 deltas a second, 100 KB",
    }
    figures = ("frames", "drawn", "cpu_s", "style_s", "layout_s", "frame_ms", "longest_ms")
    rows = [(name, *(found[key][figure] for figure in figures)) for key, name in names.items()]
    size = " (a tenth of each)" if bench.is_quick else ""
    columns = (
        "frames or messages",
        "laid out",
        "main thread, CPU s",
        "of it style",
        "and layout",
        "ms each",
        "longest, ms of the clock",
    )
    print(table((f"streamed{size}", *columns), rows))
    peer_s, peer_frame_ms = found["peerAnswer"]["cpu_s"], found["peerAnswer"]["frame_ms"]
    cpu = f" × the peer's answer{size}"
    return [
        Target("100 KB in 20,000 deltas", found["answer"]["cpu_s"] / peer_s, ANSWER, cpu),
        Target("the longest frame of it", found["answer"]["longest_ms"], 50, " ms"),
        Target("the same as it comes, painting with it", found["live"]["cpu_s"] / peer_s, ANSWER, cpu),
        Target("a frame at 1 MB", found["long"]["frame_ms"] / found["short"]["frame_ms"], 1.5, " × one at 100 KB"),
        Target(
            "a message at 1 MB", found["liveLong"]["frame_ms"] / found["liveShort"]["frame_ms"], 1.5, " × one at 100 KB"
        ),
        Target(
            "a frame of the fence", found["fence"]["frame_ms"] / peer_frame_ms, FENCE, " × a frame of the peer's answer"
        ),
        Target(
            "a frame of the table", found["table"]["frame_ms"] / found["peerTable"]["frame_ms"], TABLE, " × the peer's"
        ),
        Target("thirty runs in a notebook, more than none", found["open_ms"] / 1e3 / peer_s, NOTEBOOK, cpu),
    ]
