"""Secrets planted wherever a text comes from: none of them is in any file that is written, or in any message to the page."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.test_link import Page
from tests.runtime.pieces import until
from turncell import (
    Agent,
    Hooks,
    ModelFailure,
    Output,
    Session,
    ToolContext,
    Veto,
    cassette,
    export_html,
    export_markdown,
    redact,
    tool,
)
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.sql_store import SQLStore
from turncell.frames.transcript import mimebundle
from turncell.notebook.terminal import TextView
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Store
from turncell.testing import ScriptedModel, call, say, think

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


@pytest.fixture(params=["sqlite", "markdown"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    stores: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: SQLStore.sqlite(tmp_path / "history.sqlite"),
        "markdown": lambda: MarkdownStore(tmp_path / "sessions"),
    }
    journal = Journal(stores[request.param])
    yield journal
    journal.close()


@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_no_secret_is_in_any_file_or_in_any_message_to_the_page(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    plant = Plants(monkeypatch)
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
        model, tools=[look, fails, much, forbidden, inner.as_tool()], journal=journal, instructions=plant(), name="outer",
        hooks=[Hooks(before_tool=lambda use: Veto(texts["veto"]) if use.name == "forbidden" else None)],
    )  # fmt: skip
    first, second, steered, logged = (plant() for _ in range(4))
    log = logging.FileHandler(tmp_path / "turncell.log")
    logger = logging.getLogger("turncell")
    logger.addHandler(log)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
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
            page.link.close().result(5)
            run.drain()
    logger.error("it failed with %s", logged)
    echo.close()
    logger.removeHandler(log)
    log.close()
    assert session.runs[1].status == "failed" and len(plant.made) >= 40

    session.export(tmp_path / "session.jsonl")
    session.export(tmp_path / "session.md")
    (tmp_path / "page.html").write_text(export_html(session.runs, session.title))
    (tmp_path / "page.md").write_text(export_markdown(session.runs))
    (tmp_path / "cell.json").write_text(json.dumps([mimebundle(run) for run in session.runs]))
    journal.flush()
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file() and file != named:
            assert plant.found_in(file.read_bytes().decode("utf-8", "replace")) == [], file.name
    for page in pages:
        assert plant.found_in(json.dumps(page.messages) + "".join(page.snapshots)) == []
        deltas = [event for message in page.messages if message["type"] == "events" for event in message["events"]]
        assert plant.found_in("".join(event["text"] for event in deltas if event["type"].endswith("Delta"))) == []
