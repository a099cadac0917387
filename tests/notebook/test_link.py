"""The link between a run and a page, without a kernel."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from turncell import Agent
from turncell.notebook.link import Link
from turncell.testing import ScriptedModel, call, say

from ..runtime.test_runs import Mailbox


def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def types(sent: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for message in sent if message["type"] == "events" for event in message["events"]]


@pytest.fixture
def threads_take_turns() -> Iterator[None]:
    """The interpreter changes threads as often as it can, so that what may come between does."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.feature("D2")
def test_a_page_misses_nothing_however_quick_the_run_is(threads_take_turns: None) -> None:
    for round_ in range(100):
        sent: list[dict[str, Any]] = []
        run = Agent(ScriptedModel([call("mail", to="Ana")]), tools=[Mailbox().tool()]).start("go", is_attended=True)
        time.sleep(round_ % 20 * 1e-4)
        link = Link(sent.append, lambda text: None)
        link.follow(run)
        until(lambda run=run: run.status == "waiting")  # type: ignore[misc]
        link.close().result(5)
        recorded = [event.type for event in run.events if event.type != "PartialSaved"]
        passing = ("ArgumentsDelta", "TextDelta")
        assert [type for type in types(sent) if type not in passing] == recorded
        run.cancel()
        run.result(5)


@pytest.mark.feature("D2")
def test_what_a_page_says_before_there_is_a_run_counts_for_it() -> None:
    link = Link(lambda content: None, lambda text: None)
    for content in [{"type": "hello"}, *[{"type": "ready", "have": -1}] * 50, {"type": "stop"}]:
        link.take(content)
    run = Agent(ScriptedModel([say("word " * 1000, delay_s=0.01)])).start("go", is_attended=True)
    link.follow(run)
    link.hello.result(5)
    assert run.result(5).status == "cancelled"


def test_a_page_that_is_gone_does_not_end_the_run() -> None:
    def send(content: dict[str, Any]) -> None:
        raise ConnectionError("the page is gone")

    link = Link(send, lambda text: None)
    run = Agent(ScriptedModel([say("word " * 10, delay_s=0.001)])).start("go", is_attended=True)
    link.follow(run)
    assert run.result(5).status == "completed"
