"""The first turn in the real JupyterLab: text while it is written, a live Approve, order kept, a transcript that stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab

SETUP = '''
%load_ext turncell
from turncell import Agent, tool
from turncell.adapters.scripted_model import ScriptedModel, call, say, think
outbox = []

@tool(effect="read")
def weather(city: str) -> dict:
    """The weather in a city."""
    return {"city": city, "temp_c": 3.5}

@tool
def send_note(to: str, text: str) -> str:
    """Send a note to somebody."""
    outbox.append((to, text))
    return f"sent to {to}"

model = ScriptedModel([
    [think("Ana wants to know the weather. I look it up first."), say("I look up the weather. ", delay_s=0.05), call("weather", city="Oslo")],
    [say("Now I write to Ana. "), call("send_note", to="Ana", text="3.5 °C in Oslo")],
    say("It is **3.5 °C** in Oslo, and Ana knows.\\n\\n| city | °C |\\n| --- | ---: |\\n| Oslo | 3.5 |\\n", delay_s=0.02),
])
demo = Agent(model, tools=[weather, send_note])
'''


@pytest.mark.feature("D1", "D2", "D5")
def test_a_turn_streams_asks_and_ends_before_the_queued_cell_runs(lab: Callable[..., Lab], version: str) -> None:
    notebook = lab(version, [SETUP, "%%agent -a demo\nTell Ana the weather in Oslo.", "print('after', outbox)"])
    notebook.run_all()
    turn = notebook.output(1)
    expect(turn.get_by_text("I look up the weather.")).to_be_visible(timeout=20_000)
    approve = turn.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=10_000)
    card = turn.locator(".tc-ask")
    expect(card).to_contain_text("Allow send_note?")
    expect(card).to_contain_text("3.5 °C in Oslo")
    assert notebook.prompt(1) == "[*]:" and notebook.prompt(2) == "[*]:", (
        "the cell waits, and so does the one behind it"
    )
    approve.scroll_into_view_if_needed()
    notebook.screenshot(f"approval-light-{version}")
    notebook.press(approve)
    expect(notebook.output(2)).to_contain_text("after [('Ana', '3.5 °C in Oslo')]", timeout=15_000)
    expect(turn).to_contain_text("and Ana knows.")
    notebook.screenshot(f"done-light-{version}")
    outputs = notebook.save()["cells"][1]["outputs"]
    assert [set(output["data"]) for output in outputs] == [{"text/plain", "text/markdown", "text/html"}]
