"""What the runtime asks a person, in the real JupyterLab: questions, and the calls of a sub-agent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab, press

SETUP = '''
%load_ext turncell
from turncell import Agent, ask_user, tool
from turncell.testing import ScriptedModel, call, say
outbox = []

@tool
def send_note(to: str) -> str:
    """Send a note to somebody."""
    outbox.append(to)
    return f"sent to {to}"

clerk = Agent(ScriptedModel([call("send_note", to="Ana"), "Ana knows."]), tools=[send_note], name="clerk")
days = [{"label": "Friday", "description": "the quiet day"}, {"label": "Saturday"}]
desk = Agent(ScriptedModel([
    call("ask_user", question="Which day shall it be?", options=days, allows_text=False),
    call("clerk", task="Tell Ana."),
    "All is arranged.",
]), tools=[ask_user(), clerk.as_tool()])
'''


@pytest.mark.feature("B8", "B10", "A20", "D1", "D2")
def test_a_question_and_the_edited_call_of_a_sub_agent_are_answered_in_the_cell(
    lab: Callable[..., Lab], version: str
) -> None:
    notebook = lab(version, [SETUP, "%%agent -a desk\nArrange it.", "print(outbox)"])
    theme = "Dark" if version.startswith("6") else "Light"
    notebook.theme(theme)
    notebook.run_all()
    turn = notebook.output(1)
    saturday = turn.get_by_role("radio", name="Saturday")
    expect(saturday).to_be_visible(timeout=60_000)
    saturday.check()
    notebook.screenshot(f"question-{theme.lower()}-{version}")
    press(turn.get_by_role("button", name="Answer"))
    approve = turn.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=60_000)
    expect(turn).to_contain_text("send_note")
    press(turn.get_by_role("button", name="Edit arguments"))
    turn.get_by_role("textbox", name="to", exact=True).fill("Bo")
    expect(turn).to_contain_text("+ to: Bo")
    inner = turn.locator(".tc-inner")
    expect(inner).to_contain_text("clerkTell Ana.Waiting for you")
    inner.locator("summary").first.click()
    expect(inner.locator(".tc")).to_contain_text("send_note")
    notebook.screenshot(f"sub-agent-{theme.lower()}-{version}")
    press(turn.get_by_role("button", name="Run edited call"))
    notebook.wait_for_end(1)
    expect(turn).to_contain_text("All is arranged.")
    expect(notebook.output(2)).to_contain_text("['Bo']", timeout=60_000)
    notebook.cell(1).scroll_into_view_if_needed()
    notebook.screenshot(f"arranged-{theme.lower()}-{version}")
    notebook.theme("Light")
