"""Voilà in a real browser: a notebook as a page, its widgets live. `.hosts` has Voilà (see make_hosts.py)."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import ROOT, SCREENSHOTS, press, serving
from tests.browser.make_hosts import HOSTS
from tests.ports import free_port

PROGRAMS = HOSTS / "voila" / "bin"
pytestmark = [pytest.mark.full, pytest.mark.feature("D15", "D16")]

SETUP = '''
%load_ext turncell
from ipywidgets import VBox
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call, say
from turncell.widgets import Approvals, Chat, UsageMeter

@tool
def mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"

script = [say("Hello, **Ana**.", delay_s=0.1, chunk=4), call("mail", to="ana@example.org"), "The mail is out."]
agent = Agent(ScriptedModel(script), tools=[mail], budget={"steps": 10})
'''
BOARD = "chat = Chat(agent)\nVBox([chat, UsageMeter(chat), Approvals()])"
CELL = """%%agent -a asking
Tell Ana."""
ASKING = "asking = Agent(ScriptedModel([call('mail', to='ana@example.org'), 'I could not.']), tools=[mail])"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_of_widgets_streams_asks_and_answers(page: Page, tmp_path: Path, theme: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, BOARD, ASKING, CELL)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "py-7.4.0", "display_name": "Python", "language": "python"}
    nbformat.write(notebook, tmp_path / "board.ipynb")
    port = free_port()
    command = [
        PROGRAMS / "python", "-m", "voila", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1", f"--theme={theme}", "board.ipynb",
    ]  # fmt: skip
    environment = {
        "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src"), "TURNCELL_STORE": str(tmp_path / "history.sqlite"),
        "JUPYTER_PATH": str(ROOT / ".kernels" / "share" / "jupyter"),
    }  # fmt: skip
    with serving(
        command, f"http://127.0.0.1:{port}/voila/static/voila.js", environment, tmp_path, tmp_path / "voila.log"
    ):
        # Its page asks a server far away for a file that is also in its package.
        own = PROGRAMS.parent / "share/jupyter/voila/templates/base/static/require.min.js"
        page.context.route("**/require.min.js", lambda route: route.fulfill(path=own))
        page.goto(f"http://127.0.0.1:{port}")
        field = page.get_by_role("textbox", name="Message to the agent")
        expect(field).to_be_visible(timeout=60_000)
        # A cell has ended before there is a page: nobody was asked, and a line says what to use.
        expect(page.locator("body")).to_contain_text("turncell.widgets.Chat asks where it is shown")
        field.fill("Say hello")
        field.press("Enter")
        runs = page.get_by_role("article")
        expect(runs.first).to_contain_text("Hello, Ana", timeout=60_000)
        expect(page.locator(".tc-meter")).to_contain_text("1 run", timeout=60_000)
        expect(page.get_by_role("button", name="Steer")).to_have_count(0, timeout=60_000)
        field.fill("Now mail her")
        field.press("Enter")
        inbox = page.locator(".tc-inbox")
        expect(inbox).to_contain_text("1 request for you", timeout=60_000)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"voila-asks-{theme}.png", full_page=True)
        press(inbox.get_by_role("button", name="Approve"))
        expect(runs.nth(1)).to_contain_text("The mail is out.", timeout=60_000)
        expect(inbox).to_contain_text("Nothing waits for you", timeout=60_000)
        other = page.context.new_page()  # each page has a kernel of its own
        other.goto(f"http://127.0.0.1:{port}")
        expect(other.get_by_role("textbox", name="Message to the agent")).to_be_visible(timeout=60_000)
        expect(other.get_by_role("article")).to_have_count(0)
        other.close()
