"""Secrets planted wherever a text comes from: none of them is in any file that is written, or in any message to the page."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.adapters.conftest import postgres_server, postgres_url  # noqa: F401  # fixtures
from tests.notebook.test_link import Page
from tests.runtime.pieces import LONG_S, until
from turncell import (
    Agent,
    Hooks,
    JsonLinesWriter,
    ModelFailure,
    Output,
    Session,
    ToolContext,
    Veto,
    cassette,
    export_html,
    export_ipynb,
    export_markdown,
    history,
    otel,
    redact,
    tool,
)
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.sql_store import SQLStore
from turncell.frames.transcript import mimebundle
from turncell.notebook.bug_report import write_report
from turncell.notebook.notebook import Notebook
from turncell.notebook.terminal import TextView
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Store
from turncell.testing import ScriptedModel, call, fault, say, serve, think

pytestmark = pytest.mark.feature("C13")

KINDS = (
    "env", "sk-proj-a1B2c3D4e5a1B2c3D4{}", "declared", "pattern", "ghp_a1B2c3D4e5a1B2c3D4e5a1B2c3D4e5{}", 'quoted "\\ü{}',
    "AKIAABCDEFGH12345678{}", "Bearer abcdefgh12345678{}", "hf_a1B2c3D4e5a1B2c3D4e5a1B2c3D4e5{}", "AIza" + "a1B2c" * 7 + "{}",
    "xoxb-1234567890-abcdefghij{}", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0{}.c2lnbmF0dXJl", "sk_live_a1B2c3D4e5a1B2c3{}",
    "github_pat_" + "a1B2c3D4e5" * 4 + "{}", "glpat-a1B2c3D4e5a1B2c3D4e5{}",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA{}\n-----END RSA PRIVATE KEY-----",
)  # fmt: skip


class Plants:
    """Makes secrets of every kind in turn, and knows all it has made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self._kinds = itertools.cycle(KINDS)
        self._set = monkeypatch.setenv
        redact(patterns=[r"patient [A-Z]\d{5}"])

    def __call__(self) -> str:
        """Two more, in a sentence."""
        return f"Here is {self._one()} and {self._one()} as well."

    def _one(self) -> str:
        number, kind = len(self.made), next(self._kinds)
        secret = {"env": f"from-the-environment-{number}", "pattern": f"patient Q{number:05}"}.get(
            kind, f"opensesame-{number}" if kind == "declared" else kind.format(number)
        )
        if kind == "env":
            self._set(f"PLANT_{number}_TOKEN", secret)
        elif kind == "declared" or kind.startswith("quoted"):
            redact(secret)
        self.made.append(secret)
        return secret

    def found_in(self, text: str) -> list[str]:
        """Which of them, or how much of one, is in a text; whatever JSON has made of them."""
        found = []
        for one in self.made:
            # Of a pattern nobody can say what it begins with: a part of a text is no match.
            least = len(one) if one.startswith("patient") else len(one) * 3 // 4
            if any(form[: least + len(form) - len(one)] in text for form in (one, json.dumps(one)[1:-1])):
                found.append(one)
        return found


@pytest.fixture
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    stores: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: SQLStore.sqlite(tmp_path / "history.sqlite"),
        "markdown": lambda: MarkdownStore(tmp_path / "sessions"),
        "postgres": lambda: SQLStore.postgres(request.getfixturevalue("postgres_url")),
    }
    journal = Journal(stores[request.param])
    yield journal
    journal.close()


def all_rows(url: str) -> str:
    """All that stands in the tables of a database, bytes as text."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        rows = [row for name in names for row in connection.exec_driver_sql(f'SELECT * FROM "{name}"')]
    engine.dispose()
    assert rows
    return "\n".join(
        one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for row in rows for one in row
    )


@pytest.mark.feature("E6", "E7")
@pytest.mark.parametrize(
    ("journal", "chunk"),
    [
        ("sqlite", 1), ("sqlite", 50), ("markdown", 3), ("postgres", 7),
        *(pytest.param(store, n, marks=pytest.mark.full) for store in ("sqlite", "markdown") for n in (2, 5, 20)),
    ],
    indirect=["journal"],
)  # fmt: skip
def test_no_secret_is_in_any_file_or_in_any_message_to_the_page(
    journal: Journal,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    chunk: int,
) -> None:
    plant = Plants(monkeypatch)
    kind = request.node.callspec.params["journal"]
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = [JsonLinesWriter(tmp_path / "telemetry.jsonl"), otel.Spans(provider, capture_content=True)]
    named = tmp_path / "from-the-environment-file.txt"
    monkeypatch.setenv("NAMED_TOKEN", "from-the-environment-file")
    named.write_text("harmless")

    progress, options = [plant(), plant()], [plant(), plant()]
    texts = {
        name: plant()
        for name in ("output", "details", "notice", "error", "question", "answer", "veto", "inner", "large")
    }

    @tool(effect="read")
    async def look(about: str, context: ToolContext) -> Any:
        """Look."""
        for text in progress:
            for end in range(0, len(text), 5):  # as a tool that shows what a program prints
                context.progress(text[:end])
        context.notice(texts["notice"])
        answer = await context.ask(texts["question"], options)
        return Output(f"{texts['output']} {answer}", details={"seen": texts["details"]}, files=[named])

    @tool(effect="read")
    def fails() -> str:
        """Fail."""
        raise ValueError(texts["error"])

    @tool(effect="read")
    def much() -> str:
        """So much that it is kept beside the record."""
        return "x" * 70_000 + texts["large"]

    @tool
    def forbidden() -> str:
        """Never runs."""
        return ""

    inner = Agent(ScriptedModel([say(texts["inner"], chunk=chunk)]), name="inner")
    model = ScriptedModel([
        [think(plant(), chunk=chunk), say(plant(), chunk=chunk), call("look", about=plant())],
        [call("fails"), call("much"), call("forbidden"), call("inner", task=plant())],
        [say(plant(), chunk=chunk, delay_s=0.01)],
        [say(plant(), chunk=chunk), ModelFailure("bad_request", f"no such key: {plant()}")],
    ])  # fmt: skip
    agent = Agent(
        model, tools=[look, fails, much, forbidden, inner.as_tool()], journal=journal, instructions=plant(), name="outer", telemetry=telemetry,
        hooks=[Hooks(before_tool=lambda use: Veto(texts["veto"]) if use.name == "forbidden" else None)],
    )  # fmt: skip
    first, second, steered, logged = (plant() for _ in range(4))
    log = logging.FileHandler(tmp_path / "turncell.log")
    logger = logging.getLogger("turncell")
    logger.addHandler(log)
    caplog.set_level(logging.DEBUG, "turncell")
    echo = (tmp_path / "echo.txt").open("w")
    session = Session.new(journal, plant())
    pages = [Page(), Page()]
    with cassette(tmp_path / "answers.jsonl", mode="record"):
        for page, prompt in zip(pages, (first, second), strict=True):
            run = agent.start(prompt, session=session, is_attended=True)
            page.link.follow(run)
            run.subscribe(TextView(echo))
            if page is pages[0]:
                until(lambda: run.requests)  # noqa: B023
                run.steer(steered)
                until(lambda: run.requests or run.is_done)  # noqa: B023
                for waiting in run.requests:
                    run.reply(options[0], waiting)
            while not run.is_done:
                page.link.take({"type": "ready", "have": -2})  # a snapshot, in the middle of whatever is written
                time.sleep(0.02)
            page.link.close().result(60)
            run.drain(LONG_S)
        texts_of_headers = (text for text in iter(plant, None) if text.isascii() and text.isprintable())
        headers = {f"x-house-{number}": next(texts_of_headers) for number in range(4)}
        key = "of-no-shape-at-all-77"
        with serve([fault(400, f"what is {headers}, and what {key}?")]) as server:
            lab = DirectChat("lab/large", base_url=server.base_url, api_key=key, headers=headers)
            refused = Agent(lab, journal=journal, telemetry=telemetry).run_sync(plant(), session=session)
            assert headers.items() <= server.headers[0].items() and refused.status == "failed"
            assert "x-house-3" in (refused.error or "")
    logger.error("it failed with %s", logged)
    echo.close()
    logger.removeHandler(log)
    log.close()
    assert session.runs[1].status == "failed" and len(plant.made) >= 40
    plant.made.append(key)

    session.export(tmp_path / "session.jsonl")
    session.export(tmp_path / "session.md")
    (tmp_path / "page.html").write_text(export_html(session.runs, session.title))
    (tmp_path / "page.md").write_text(export_markdown(session.runs))
    (tmp_path / "cell.json").write_text(json.dumps([mimebundle(run) for run in session.runs]))
    (tmp_path / "cells.ipynb").write_text(export_ipynb(session.runs, session.title))
    whole = history(session)
    for path in whole.to_parquet(tmp_path / "tables"):  # compressed: its bytes alone would prove nothing
        (tmp_path / f"{path.stem}.csv").write_text(pd.read_parquet(path).to_csv())
    shown = [repr(session), repr(whole), whole._repr_html_(), session._repr_html_(), *map(repr, session.runs)]
    (tmp_path / "shown.txt").write_text("\n".join(shown))
    (tmp_path / "spans.json").write_text("\n".join(span.to_json() for span in spans.get_finished_spans()))
    notebook = Notebook(SimpleNamespace(user_ns={}))
    notebook.session = session
    write_report(notebook, tmp_path / "report.md")
    journal.flush()
    written = {
        "telemetry.jsonl", "spans.json", "cells.ipynb", "report.md", "turncell.log", "answers.jsonl", "session.jsonl",
        "session.md", "page.html", "page.md", "runs.parquet", "events.csv",
    }  # fmt: skip
    written |= {"history.sqlite", "history.sqlite-wal"} if kind == "sqlite" else set()
    assert written <= {file.name for file in tmp_path.rglob("*") if file.stat().st_size}
    if kind == "postgres":
        assert plant.found_in(all_rows(request.getfixturevalue("postgres_url"))) == []
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file() and file != named:
            assert plant.found_in(file.read_bytes().decode("utf-8", "replace")) == [], file.name
    for page in pages:
        assert plant.found_in(json.dumps(page.messages) + "".join(page.snapshots)) == []
        deltas = [event for message in page.messages if message["type"] == "events" for event in message["events"]]
        assert plant.found_in("".join(event["text"] for event in deltas if event["type"].endswith("Delta"))) == []
