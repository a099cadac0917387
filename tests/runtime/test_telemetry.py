"""One record for each run: the same as the history says, whatever became of the run."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.journals.play import PLAYS, Play, approved, two_requests
from turncell import Agent, JsonLinesWriter, MemoryWriter, ModelFailure, RunRecord, tool
from turncell.adapters.scripted_model import ScriptedModel, call
from turncell.core.events import Recorded, RunStarted
from turncell.core.fold import RunState, fold
from turncell.frames.tables import calls_frame, runs_frame
from turncell.runtime.telemetry import record_of

pytestmark = pytest.mark.feature("A15")

NOT_IN_THE_TABLE = {"depth", "agent", "provider", "tier", "started_at", "tool_calls"}


def started(run_id: str = "run_1", model: str = "scripted") -> RunState:
    """A run that has just begun."""
    event = RunStarted(seq=1, session_id="ses_1", run_id=run_id, step=0, at=1.0, model=model, mode="ask", max_steps=40)
    return fold([event])


@tool(effect="read")
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


def plain(value: Any) -> Any:
    return None if value is None or pd.isna(value) else value


@pytest.mark.parametrize("make", PLAYS, ids=lambda make: make.__name__)
def test_a_record_says_what_the_tables_say(make: type[Play]) -> None:
    events = [event for event in make().events if isinstance(event, Recorded)]
    record = record_of(fold(events))
    row = runs_frame(events).iloc[0]
    for field in fields(RunRecord):
        if field.name not in NOT_IN_THE_TABLE:
            found, expected = getattr(record, field.name), plain(row[field.name])
            assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), field.name
    assert record.started_at == pytest.approx(row["started_at"].timestamp())
    calls = calls_frame(events)
    assert [name for name, _, _ in record.tool_calls] == list(calls["name"])
    assert [status for _, status, _ in record.tool_calls] == list(calls["status"])


def test_the_time_of_people_and_of_tools_is_counted_once_where_it_overlaps() -> None:
    events = two_requests().events
    state = fold(events)
    record = record_of(state)
    requests = [call.request for call in state.calls if call.request]
    alone_s = [(request.answered_at or 0) - request.opened_at for request in requests]
    assert len(requests) == 2 and max(alone_s) <= record.waiting_s < sum(alone_s)


def test_the_provider_is_what_stands_before_the_slash() -> None:
    models = {"openai/gpt-5": "openai", "embedded": "", "openrouter/meta/llama": "openrouter"}
    assert {model: record_of(started(model=model)).provider for model in models} == models


def test_tier_and_agent_are_those_that_are_given() -> None:
    record = record_of(fold(approved().events), tier="small", agent="clerk")
    assert (record.tier, record.agent) == ("small", "clerk")


def test_failed_runs_have_a_record_too() -> None:
    writer = MemoryWriter()
    model = ScriptedModel([call("weather", city="Oslo"), ModelFailure("auth", "no key")], price=(1.0, 1.0))
    writer.write(record_of(Agent(model, tools=[weather]).run_sync("How is Oslo?").state))
    (record,) = writer.records
    assert (record.status, record.error_kind, record.steps, record.calls) == ("failed", "auth", 2, 1)
    assert record.tool_calls[0][:2] == ("weather", "ok")


class TestJsonLines:
    def test_each_record_is_one_line_with_the_names_of_the_fields(self, tmp_path: Path) -> None:
        writer = JsonLinesWriter(tmp_path / "logs" / "runs.jsonl")
        records = [record_of(fold(make().events)) for make in PLAYS]
        for record in records:
            writer.write(record)
        lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
        assert [line["run_id"] for line in lines] == [record.run_id for record in records]
        assert all(list(line) == [field.name for field in fields(RunRecord)] for line in lines)
        assert [[tuple(made) for made in line["tool_calls"]] for line in lines] == [list(r.tool_calls) for r in records]

    def test_processes_and_threads_share_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.jsonl"
        program = (
            "import sys; from turncell import JsonLinesWriter; from turncell.core.fold import RunState\n"
            "from turncell.runtime.telemetry import record_of\n"
            "from tests.runtime.test_telemetry import started; "
            "[JsonLinesWriter(sys.argv[1]).write(record_of(started(run_id='p' * 5000))) for n in range(50)]"
        )
        other = subprocess.Popen([sys.executable, "-c", program, str(path)])
        writer = JsonLinesWriter(path)

        def write(name: str) -> None:
            for _ in range(50):
                writer.write(record_of(started(run_id=name * 5000)))

        threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert other.wait(timeout=60) == 0
        ids = [json.loads(line)["run_id"] for line in path.read_text().splitlines()]
        assert sorted(ids) == sorted(name * 5000 for name in "abp" for _ in range(50))

    def test_text_that_is_no_unicode_is_written_all_the_same(self, tmp_path: Path) -> None:
        writer = JsonLinesWriter(tmp_path / "runs.jsonl")
        writer.write(record_of(started(model="odd\ud800")))
        assert json.loads(writer.path.read_text())["model"] == "odd\ud800"

    def test_what_cannot_be_written_is_logged_and_not_raised(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.ERROR, "turncell"):
            JsonLinesWriter(tmp_path / "file" / "runs.jsonl").write(record_of(started(run_id="run_7")))
        assert "the record of run 'run_7' could not be written" in caplog.text


def test_a_writer_that_exits_or_blocks_harms_no_run() -> None:
    threads: list[threading.Thread] = []

    class Leaves:
        def write(self, record: RunRecord) -> None:
            threads.append(threading.current_thread())
            sys.exit(3)

    kept = MemoryWriter()
    run = Agent(ScriptedModel(["one"]), telemetry=[Leaves(), kept]).start("go").result(60)
    assert run.status == "completed" and [record.run_id for record in kept.records] == [run.id]
    assert threads[0].name != "turncell", "not on the loop of all runs"
