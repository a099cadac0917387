"""What is known of the host, and what turncell does for marimo, without a page (tests/browser has the pages)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

import turncell.marimo
from turncell import Agent, UsageError, tool
from turncell.notebook.host import LIMITS, host
from turncell.notebook.library import LOADER, module
from turncell.testing import ScriptedModel, call, say
from turncell.widgets import Approvals, Chat

pytestmark = pytest.mark.feature("D15", "D16")


@dataclass
class Message:
    """As marimo gives it: the text in `content`, where it has any."""

    role: str
    content: str


@tool
def mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("environment", "modules", "found"),
    [
        ({}, {}, "python"),
        ({"VSCODE_PID": "1"}, {}, "python"),  # a terminal in VS Code is a terminal
        ({}, {"google.colab": ModuleType("google.colab")}, "colab"),
        ({}, {"marimo": ModuleType("marimo")}, "marimo"),
        ({"SERVER_SOFTWARE": "voila/0.5.13"}, {}, "voila"),
        ({"SERVER_SOFTWARE": "gunicorn"}, {}, "python"),
    ],
)
def test_a_host_is_known_by_what_it_leaves(
    environment: dict[str, str], modules: dict[str, ModuleType], found: str
) -> None:
    assert host(environment, modules) == found


def test_only_what_cannot_be_tried_has_limits_to_tell_of() -> None:
    assert set(LIMITS) == {"vscode", "colab"}
    assert all(len(limit) < 130 and "\n" not in limit for limit in LIMITS.values())


def test_a_module_brings_its_sources_and_ends_with_the_loader() -> None:
    ids, text = module(("widget", "kit"))
    assert len(set(ids)) == 2
    assert all(each in text for each in ids)
    assert text.endswith(LOADER.read_text("utf-8"))
    assert module(("widget",))[0] == ids[:1], "the same bundle has the same id"


def test_an_inbox_of_one_chat_shows_nothing_of_another() -> None:
    def chat() -> Chat:
        return Chat(Agent(ScriptedModel([call("mail", to="ana"), "Done."]), tools=[mail]))

    mine, theirs = chat(), chat()
    inbox, all_of_them = Approvals(mine), Approvals()
    theirs_run, my_run = theirs.say("Mail Ana"), mine.say("Mail Ana")
    until(lambda: inbox.pending == 1 and {my_run.id, theirs_run.id} <= set(all_of_them.runs))
    assert inbox.runs == [my_run.id] and all_of_them.pending >= 2
    for run in (theirs_run, my_run):
        run.cancel()
        run.result(60)


async def answering(model: turncell.marimo.ChatModel, *said: str) -> str:
    """The answer of marimo's chat to the last of these messages, where those before have been answered."""
    messages = [Message(role, each) for text in said for role, each in (("user", text), ("assistant", "..."))]
    return "".join([text async for text in model(messages[:-1])])


def answer(model: turncell.marimo.ChatModel, *said: str) -> str:
    return asyncio.run(answering(model, *said))


def test_a_stream_of_text_follows_what_the_chat_still_shows() -> None:
    scripted = ScriptedModel(["One.", "Two.", "Two again.", "Anew."])
    model = turncell.marimo.chat(Agent(scripted), view="text")
    assert answer(model, "first") == "One."
    assert answer(model, "first", "second") == "Two."
    assert answer(model, "first", "other") == "Two again."
    assert [run.prompt.text for run in model.session.runs if run.prompt] == ["first", "other"]
    before = model.session.id
    assert answer(model, "anew") == "Anew."
    assert model.session.id != before
    assert len(model.session.runs) == 1


def test_a_stream_of_text_asks_nobody_and_says_how_it_ended() -> None:
    model = turncell.marimo.chat(
        Agent(ScriptedModel([[say("I write. "), call("mail", to="ana")], "I may not."]), tools=[mail]), view="text"
    )
    assert (answer(model, "Mail Ana")).split() == ["I", "write.", "I", "may", "not."]
    assert [each.status for each in model.session.runs[0].calls] == ["denied"]
    failing = turncell.marimo.chat(Agent(ScriptedModel([])), view="text")
    assert "failed" in answer(failing, "Hello")


def test_a_stream_that_is_cancelled_ends_its_run() -> None:
    model = turncell.marimo.chat(Agent(ScriptedModel([say("word " * 2000, delay_s=0.05), "Next."])), view="text")

    async def stopped() -> None:
        task = asyncio.create_task(answering(model, "Talk"))
        await asyncio.to_thread(until, lambda: (run := model.session.current) and run.text)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stopped())
    assert answer(model, "Talk", "Go on") == "Next."
    assert model.session.runs[0].status == "cancelled"


def test_what_marimo_cannot_be_given_is_refused() -> None:
    agent = Agent(ScriptedModel([]))
    with pytest.raises(UsageError, match="'html'"):
        turncell.marimo.chat(agent, view="html")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no text"):
        turncell.marimo.chat(agent)([Message("user", " ")])
