"""The first turn in the real JupyterLab: text while it is written, a live Approve, order kept, a transcript that stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab, press

TOOLS = '''
%load_ext turncell
from turncell import Agent, calls_df, runs_df, tool
from turncell.testing import ScriptedModel, call, say, think
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
'''
SCRIPT = """
model = ScriptedModel([
    [think("Ana wants to know. I look it up.", delay_s=0.2), say("I look up the weather. ", delay_s=0.1), call("weather", city="Oslo")],
    [say("Now I write to Ana. "), call("send_note", to="Ana", text="3.5 °C in Oslo")],
    say("It is **3.5 °C** in Oslo, and Ana knows.\\n\\n| city | °C |\\n| --- | ---: |\\n| Oslo | 3.5 |\\n", delay_s=0.02),
])
demo = Agent(model, tools=[weather, send_note])
"""
STATIC = {"text/plain", "text/markdown", "text/html"}


@pytest.mark.feature("D1", "D2", "D5")
@pytest.mark.every_kernel
def test_a_turn_streams_asks_and_ends_before_the_queued_cell_runs(lab: Callable[..., Lab], version: str) -> None:
    notebook = lab(
        version, [TOOLS + SCRIPT, "%%agent -a demo\nTell Ana the weather in Oslo.", "print('after', outbox)"]
    )
    notebook.run_all()
    turn = notebook.output(1)
    expect(turn.get_by_text("I look up the weather.")).to_be_visible(timeout=60_000)
    approve = turn.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=60_000)
    card = turn.locator(".tc-ask")
    expect(card).to_contain_text("Allow send_note?")
    expect(card).to_contain_text("3.5 °C in Oslo")
    assert (notebook.prompt(1), notebook.prompt(2)) == ("[*]:", "[*]:"), "the cell waits, and so does the one behind it"
    approve.scroll_into_view_if_needed()
    notebook.screenshot(f"approval-light-{version}")
    press(approve)
    expect(notebook.output(2)).to_contain_text("after [('Ana', '3.5 °C in Oslo')]", timeout=60_000)
    expect(turn).to_contain_text("and Ana knows.")
    notebook.cell(1).scroll_into_view_if_needed()
    notebook.screenshot(f"done-light-{version}")
    outputs = notebook.save()["cells"][1]["outputs"]
    assert [set(output["data"]) for output in outputs] == [STATIC], "no widget stays behind"


@pytest.mark.feature("D1")
def test_text_is_on_the_screen_while_the_model_still_writes(
    lab: Callable[..., Lab], version: str, tmp_path: Path
) -> None:
    may_go_on = tmp_path / "go"
    slow = f"""
import asyncio, pathlib

class Slow(ScriptedModel):
    async def stream(self, request):
        async for burst in super().stream(request):
            yield burst
            while not pathlib.Path({str(may_go_on)!r}).exists():
                await asyncio.sleep(0.01)

slow = Agent(Slow([say('one two three four five six seven eight nine ten', chunk=8)]))
"""
    notebook = lab(version, [TOOLS + slow, "%%agent -a slow\nCount."])
    notebook.run_all()
    turn = notebook.output(1)
    expect(turn.get_by_text("one two")).to_be_visible(timeout=60_000)
    assert "ten" not in turn.inner_text()
    assert notebook.prompt(1) == "[*]:"
    may_go_on.touch()
    expect(turn).to_contain_text("nine ten", timeout=60_000)


@pytest.mark.feature("D2", "B8")
def test_denying_with_a_reason_reaches_the_model(lab: Callable[..., Lab], version: str) -> None:
    show = "print(model.requests[2].messages[-1].parts[0].content, outbox)"
    notebook = lab(version, [TOOLS + SCRIPT, "%%agent -a demo\nTell Ana the weather in Oslo.", show])
    notebook.theme("Dark")
    notebook.run_all()
    turn = notebook.output(1)
    deny = turn.get_by_role("button", name="Deny…")
    expect(deny).to_be_visible(timeout=60_000)
    press(deny)
    turn.get_by_role("textbox").fill("Ana is asleep")
    notebook.screenshot(f"deny-dark-{version}")
    press(turn.get_by_role("button", name="Deny", exact=True))
    expect(notebook.output(2)).to_contain_text("denied by the user: Ana is asleep []", timeout=60_000)
    notebook.cell(1).scroll_into_view_if_needed()
    notebook.screenshot(f"denied-dark-{version}")
    notebook.theme("Light")


@pytest.mark.feature("D4", "A11")
def test_the_interrupt_button_keeps_the_text_and_the_kernel(lab: Callable[..., Lab], version: str) -> None:
    endless = "endless = Agent(ScriptedModel([say('word ' * 5000, delay_s=0.05)]))"
    notebook = lab(version, [TOOLS + endless, "%%agent -a endless\nTalk.", "print('queued')"])
    notebook.run_all()
    turn = notebook.output(1)
    expect(turn.get_by_text("word word word")).to_be_visible(timeout=60_000)
    notebook.page.locator('[data-command="notebook:interrupt-kernel"], [title^="Interrupt the kernel"]').first.click()
    pressed = time.monotonic()
    expect(turn).to_contain_text("turn interrupted", timeout=60_000)
    assert time.monotonic() - pressed < 30
    expect(turn).to_contain_text("word word word")
    assert notebook.cell(2).get_by_text("queued", exact=True).count() == 0, "what was queued behind it is not run"
    notebook.screenshot(f"interrupted-light-{version}")
    html = notebook.save()["cells"][1]["outputs"][0]["data"]["text/html"]
    assert "word word word" in "".join(html)
