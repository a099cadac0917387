"""The widget kit in the real JupyterLab."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab, press

SETUP = '''
%load_ext turncell
from ipywidgets import Textarea, VBox, jslink
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call, say
from turncell.widgets import Approvals, Chat, SessionBrowser, UsageMeter

@tool
def mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"

agent = Agent(
    ScriptedModel(["Hello, **Ana**.", call("mail", to="ana@example.org"), "The mail is out."]),
    tools=[mail], budget={"steps": 10},
)
seen = []
chat = Chat(agent)
chat.observe(lambda change: seen.append(change.new), "status")
echo = Textarea()
jslink((chat, "text"), (echo, "value"))
'''


@pytest.mark.feature("D16")
def test_a_chat_an_inbox_and_a_meter_stand_in_one_layout(lab: Callable[..., Lab], version: str) -> None:
    notebook = lab(
        version,
        [SETUP, "VBox([chat, UsageMeter(chat), Approvals(), echo])", "SessionBrowser(chat)", "print(seen[-1])"],
    )
    theme = "Dark" if version.startswith("6") else "Light"
    notebook.theme(theme)
    for number in range(2):
        notebook.run(number)
    board = notebook.output(1)
    field = board.get_by_role("textbox", name="Message to the agent")
    expect(field).to_be_visible(timeout=60_000)
    field.fill("Say hello to Ana")
    field.press("Enter")
    expect(board.get_by_role("article").first).to_contain_text("Hello, Ana.", timeout=60_000)
    expect(board.locator(".tc-meter")).to_contain_text("1 run", timeout=60_000)
    expect(board.locator(".widget-textarea textarea")).to_have_value("Hello, **Ana**.", timeout=60_000)
    # Until the run has ended: what is said before steers it, and is no run of its own.
    expect(board.get_by_role("button", name="Steer")).to_have_count(0, timeout=60_000)
    field.fill("Now mail her")
    field.press("Enter")
    inbox = board.locator(".tc-inbox")
    expect(inbox).to_contain_text("1 request for you", timeout=60_000)
    notebook.screenshot(f"kit-asks-{theme.lower()}-{version}")
    press(inbox.get_by_role("button", name="Approve"))
    expect(board.get_by_role("article").nth(1)).to_contain_text("The mail is out.", timeout=60_000)
    expect(inbox).to_contain_text("Nothing waits for you", timeout=60_000)
    expect(board.locator(".tc-meter")).to_contain_text("2 of 10", timeout=60_000)
    notebook.run(2)
    browser = notebook.output(2).locator(".tc-browser")
    browser.get_by_role("button", name="run").first.click()
    expect(browser).to_contain_text("Say hello to Ana", timeout=60_000)
    notebook.cell(2).scroll_into_view_if_needed()
    notebook.screenshot(f"kit-{theme.lower()}-{version}")
    browser.get_by_role("button", name="Branch here").first.click()
    expect(board.get_by_role("article")).to_have_count(1, timeout=60_000)
    notebook.run(3)
    expect(notebook.output(3)).to_contain_text("completed", timeout=60_000)
    notebook.theme("Light")


@pytest.mark.feature("D16")
def test_a_transcript_is_read_beside_its_row(lab: Callable[..., Lab], version: str) -> None:
    answers = "['**Sun** is a noun.', 'To run is a verb.', 'Blue is an adjective.']"
    notebook = lab(
        version,
        [
            "%load_ext turncell\nfrom turncell import Agent\nfrom turncell.testing import ScriptedModel\n"
            "from turncell.widgets import Review",
            f"words = Agent(ScriptedModel({answers})).map(['sun', 'run', 'blue'], 'Which kind of word: {{text}}')",
            "review = Review(words)\nreview",
            "print(words.text[review.selected], review.selected_run == words.run_id[review.selected])",
        ],
    )
    theme = "Dark" if version.startswith("6") else "Light"
    notebook.theme(theme)
    for number in range(3):
        notebook.run(number)
    shown = notebook.output(2).locator(".tc-review")
    expect(shown).to_contain_text("Choose a row", timeout=60_000)
    shown.get_by_role("gridcell", name="run", exact=True).click()
    expect(shown.get_by_role("article")).to_contain_text("verb", timeout=60_000)
    shown.locator("tr[aria-selected=true]").press("ArrowUp")
    expect(shown.get_by_role("article")).to_contain_text("Sun is a noun.", timeout=60_000)
    expect(shown.locator(".tc-prompt")).to_have_text("Which kind of word: sun")
    notebook.cell(2).scroll_into_view_if_needed()
    notebook.screenshot(f"kit-review-{theme.lower()}-{version}")
    notebook.run(3)
    expect(notebook.output(3)).to_contain_text("sun True", timeout=60_000)
    notebook.theme("Light")
