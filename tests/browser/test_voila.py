"""Voilà: a page without cells, over a kernel of its own. `.hosts` has it (see make_hosts.py)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import ROOT, SCREENSHOTS
from tests.browser.make_hosts import HOSTS

pytestmark = [pytest.mark.full, pytest.mark.feature("D16")]

SETUP = '''
from ipywidgets import VBox
from turncell import Agent, tool
from turncell.notebook.host import host
from turncell.testing import ScriptedModel, call
from turncell.widgets import Approvals, Chat, UsageMeter

@tool
def mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"

chat = Chat(Agent(ScriptedModel([call("mail", to="ana@example.org"), "The mail is out."]), tools=[mail]))
print("this is", host())
VBox([chat, UsageMeter(chat), Approvals()])
'''


@contextmanager
def voila(folder: Path) -> Iterator[str]:
    program = HOSTS / "bin" / "python"
    assert program.exists(), f"{program} is missing; `make hosts` makes it"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SETUP)])
    notebook.metadata["kernelspec"] = {"name": "py-7.4.0", "display_name": "Python", "language": "python"}
    nbformat.write(notebook, folder / "board.ipynb")
    environment = os.environ | {
        "HOME": str(folder), "PYTHONPATH": str(ROOT / "src"), "TURNCELL_STORE": str(folder / "history.sqlite"),
        # The templates of nbconvert lie in this interpreter's environment, behind that of Voilà.
        "JUPYTER_PATH": f"{ROOT}/.kernels/share/jupyter{os.pathsep}{sys.prefix}/share/jupyter",
    }  # fmt: skip
    log = folder / "voila.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [program, "-m", "voila", "board.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}"],
            env=environment, stdout=out, stderr=out, cwd=folder,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=2):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text()[-3000:]) from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def test_a_run_that_a_message_of_the_page_starts_is_attended_by_the_page(page: Page, tmp_path: Path) -> None:
    with voila(tmp_path) as url:
        page.goto(url, wait_until="commit", timeout=90_000)  # the page comes when the cells have run
        field = page.get_by_role("textbox", name="Message to the agent")
        expect(field).to_be_visible(timeout=60_000)
        expect(page.get_by_text("this is voila")).to_be_visible()
        field.fill("Mail her")
        field.press("Enter")
        inbox = page.locator(".tc-inbox")
        expect(inbox).to_contain_text("1 request for you", timeout=15_000)
        time.sleep(0.8)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "voila-asks.png", full_page=True)
        inbox.get_by_role("button", name="Approve").click()
        expect(page.get_by_role("article").first).to_contain_text("The mail is out.", timeout=15_000)
        expect(inbox).to_contain_text("Nothing waits for you", timeout=15_000)
