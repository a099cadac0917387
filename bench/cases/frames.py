"""100,000 events into DataFrames: all five tables, and the memory that takes.

Beside them two others on the same data: a list of dicts made a DataFrame, and five tables of inspect_ai, where it is
installed. That one is handed a log that is whole and in memory, so it decodes nothing: in its favour.
"""

from __future__ import annotations

import time
import tracemalloc
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench


def _records(events: int) -> list[Any]:
    """So many events, of runs with twenty calls each."""
    from bench.cases.journal import recorded_events
    from turncell.runtime.journal import to_record
    from turncell.runtime.ports import Record

    one = [to_record(event) for event in recorded_events(20)]
    records = []
    for number in range(1 + events // len(one)):
        old, new = one[0].run_id, f"{one[0].run_id[:-6]}{number:06d}"
        records += [
            Record(r.session_id, r.seq, new, r.step, r.type, r.at, r.payload.replace(old.encode(), new.encode()))
            for r in one
        ]
    return records[:events]


def measure(events: int, times: int) -> dict[str, float]:
    """CPU seconds of all five tables, of the same of half as many events, and of `DataFrame(list)` of the same lines."""
    import orjson
    import pandas as pd

    from turncell.frames.tables import tables

    records = _records(events)
    plain_s, ours_s, half_s = [], [], []
    for _ in range(times):
        began = time.process_time()
        pd.DataFrame([orjson.loads(record.payload) for record in records])
        plain_s.append(time.process_time() - began)
        began = time.process_time()
        found = tables(records)
        ours_s.append(time.process_time() - began)
        assert len(found.events) == len(records) and len(found.runs) == len({record.run_id for record in records})
        began = time.process_time()
        tables(records[: events // 2])
        half_s.append(time.process_time() - began)
    return {"plain": median(plain_s), "ours": median(ours_s), "half": median(half_s)}


def memory(events: int) -> dict[str, float]:
    """Megabytes at the peak, beyond the records themselves."""
    import orjson
    import pandas as pd

    from turncell.frames.tables import tables

    records = _records(events)
    tables(records[:200])  # what is imported is not counted

    def peak_mb(make: Any) -> float:
        tracemalloc.start()
        make()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 1e6

    return {
        "plain": peak_mb(lambda: pd.DataFrame([orjson.loads(record.payload) for record in records])),
        "ours": peak_mb(lambda: tables(records)),
    }


def _inspect_log(events: int) -> Any:
    """What the runs of `_records` say as a log of inspect_ai: a sample for each, with its messages and its calls."""
    import orjson
    from inspect_ai.event import ModelEvent, ToolEvent
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, EvalStats
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageTool,
        ChatMessageUser,
        GenerateConfig,
        ModelOutput,
        ModelUsage,
    )
    from inspect_ai.tool import ToolCall

    samples: dict[str, Any] = {}
    model, zone = "lab/large", "+00:00"
    began = f"2026-01-01T00:00:00{zone}"
    for record in _records(events):
        e = orjson.loads(record.payload)
        if e["type"] == "RunStarted":
            sample = EvalSample(id=record.run_id, epoch=1, input="", target="", messages=[], events=[])
            samples[record.run_id] = sample
            continue
        sample = samples[record.run_id]
        message_id = f"{record.run_id}-{len(sample.messages)}"  # without one, a message counts as the one before it
        if e["type"] == "MessageAdded":
            text = "".join(part["text"] for part in e["message"]["parts"] if part["type"] == "text")
            if e["message"]["role"] == "user":
                sample.messages.append(ChatMessageUser(content=text, id=message_id))
                continue
            calls = [
                ToolCall(id=part["call_id"], function=part["name"], arguments=orjson.loads(part["arguments_text"]))
                for part in e["message"]["parts"]
                if part["type"] == "tool_call"
            ]
            sample.messages.append(ChatMessageAssistant(content=text, tool_calls=calls, model=model, id=message_id))
        elif e["type"] == "StepFinished":
            usage = ModelUsage(input_tokens=e["usage"]["input_tokens"], output_tokens=e["usage"]["output_tokens"])
            choice = ChatCompletionChoice(message=sample.messages[-1])
            sample.events.append(
                ModelEvent(
                    model=model, input=sample.messages[:-1], tools=[], tool_choice="auto", config=GenerateConfig(),
                    output=ModelOutput(model=model, choices=[choice], usage=usage), timestamp=began,
                )
            )  # fmt: skip
        elif e["type"] == "CallFinished":
            asked = next(call for call in calls if call.id == e["call_id"])
            sample.messages.append(
                ChatMessageTool(content=e["content"], tool_call_id=asked.id, function=asked.function, id=message_id)
            )
            sample.events.append(
                ToolEvent(id=asked.id, function=asked.function, arguments=asked.arguments, result=e["content"],
                          timestamp=began)
            )  # fmt: skip
    for sample in samples.values():
        sample.input = sample.messages[0].text
    spec = EvalSpec(created=began, task="look", dataset=EvalDataset(), model=model, config=EvalConfig())
    return EvalLog(eval=spec, status="success", stats=EvalStats(), samples=list(samples.values()))


def inspect(events: int) -> dict[str, Any]:
    """CPU seconds and megabytes of inspect_ai's samples, model events, messages, tool events and events.

    Where it is not installed, an empty version.
    """
    try:
        found = version("inspect-ai")
    except PackageNotFoundError:
        return {"version": ""}
    from inspect_ai.analysis import (
        EventInfo,
        EventTiming,
        ModelEventColumns,
        ToolEventColumns,
        events_df,
        messages_df,
        samples_df,
    )

    log = _inspect_log(events)
    about = [*EventInfo, *EventTiming]

    def tables(of: Any) -> list[int]:
        """How many rows each has."""
        frames = (
            samples_df(of, quiet=True),
            events_df(of, [*about, *ModelEventColumns], filter=lambda event: event.event == "model", quiet=True),
            messages_df(of, quiet=True),
            events_df(of, [*about, *ToolEventColumns], filter=lambda event: event.event == "tool", quiet=True),
            events_df(of, quiet=True),
        )
        return [len(frame) for frame in frames]

    tables(_inspect_log(200))  # what is imported is not counted
    began = time.process_time()
    rows = tables(log)
    cpu_s = time.process_time() - began
    assert rows[0] == len(log.samples) and rows[1] + rows[3] == rows[4]
    assert rows[2] == sum(len(sample.messages) for sample in log.samples)
    tracemalloc.start()
    tables(log)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"version": found, "cpu_s": cpu_s, "peak_mb": peak / 1e6, "rows": sum(rows)}


def report(bench: Bench) -> list[Target]:
    events, times = (2_000, 1) if bench.is_quick else (100_000, 5)
    found = bench.child("frames", "measure", events=events, times=times)
    held = bench.child("frames", "memory", events=events)
    ratio = found["ours"] / found["plain"]
    growth = found["ours"] / found["half"] / 2
    rows = [
        ("`orjson` lines + `DataFrame(list)`", found["plain"], 1.0, held["plain"]),
        ("runs, steps, messages, calls, events", found["ours"], ratio, held["ours"]),
        (f"the same of {events // 2:,}", found["half"], found["half"] / found["plain"], None),
    ]
    other = bench.child("frames", "inspect", events=events)
    if other["version"]:
        name = f"inspect_ai {other['version']}: samples, model events, messages, tool events, events ({other['rows']:,} rows)"
        rows.append((name, other["cpu_s"], other["cpu_s"] / found["plain"], other["peak_mb"]))
    print(table((f"{events:,} events", "CPU, s", "×", "peak, MB"), rows))
    if not other["version"]:
        print("\ninspect_ai is not installed here, and so not measured.")
    return [
        Target("the five tables", ratio, 1.0, " × the plain list"),
        Target("twice as many events", growth, 1.3, " × twice the time"),
    ]
