"""Many views in one notebook: the page's code is sent once, and a reloaded page finds it again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import WebSocket, expect

from tests.browser.lab import Lab

SETUP = """
%load_ext turncell
from IPython.display import display
from turncell import Agent
from turncell.testing import ScriptedModel
from turncell.widgets import RunView
"""
THIRTY = """
for number in range(30):
    display(RunView(Agent(ScriptedModel([f"Answer number {number}."])).run_sync(f"Question {number}")))
"""


@pytest.mark.feature("D1", "D5")
def test_the_code_of_thirty_views_is_sent_once_and_is_there_after_a_reload(
    lab: Callable[..., Lab], version: str
) -> None:
    notebook = lab(version, [SETUP, THIRTY])
    received: list[int] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda data: received.append(len(data)))

    notebook.page.on("websocket", listen)
    notebook.open()
    received.clear()
    notebook.run_all()
    answers = notebook.output(1).get_by_text("Answer number")
    expect(answers).to_have_count(30, timeout=60_000)
    sent_bytes = sum(received)
    assert 150_000 < sent_bytes < 1_000_000
    notebook.save()
    notebook.page.reload()
    began = time.monotonic()
    expect(notebook.output(1).get_by_text("Answer number 29.")).to_be_visible(timeout=60_000)
    print(f"30 views: {sent_bytes} bytes; {time.monotonic() - began:.1f} s from reload to the last answer")
