"""A real JupyterLab in a real Chromium, as a person would use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page, expect

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "artifacts" / "screenshots"
TOKEN = "only-for-these-tests"


@contextmanager
def serving(command: list[Any], url: str, environment: dict[str, str], folder: Path, log: Path) -> Iterator[None]:
    """The program, in `folder`, for as long as the block; begins when `url` answers."""
    with log.open("w") as out:
        server = subprocess.Popen(
            list(map(str, command)), env=os.environ | environment, stdout=out, stderr=out, cwd=folder
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text()[-3000:]) from None
                time.sleep(0.2)
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def jupyter_server(folder: Path, program: str = "lab") -> Iterator[str]:
    """A Jupyter server over `folder` on a free port, of JupyterLab or of `notebook`; gives its URL.

    Its kernels do not take to the keyboard because a page was slow to say hello.
    """
    port = free_port()
    home = folder.parent / "home"
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "patience.py").write_text('__import__("turncell.notebook.turn").notebook.turn.HELLO_S = 60.0\n')
    environment = {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_PATH": str(ROOT / ".kernels" / "share" / "jupyter"),
        "TURNCELL_STORE": str(folder.parent / "history.sqlite"),
    }
    command = [
        sys.executable, "-m", "jupyter", program, "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with serving(command, f"{url}/api?token={TOKEN}", environment, folder, folder.parent / "server.log"):
        yield url


def press(button: Locator) -> None:
    """Click a button of a card as a person does: not within the half second after it came or moved."""
    button.scroll_into_view_if_needed()
    button.evaluate(STANDS_STILL)
    button.click(timeout=60_000)


STANDS_STILL = """async (node) => {
  for (let last = "", times = 0; times < 8; ) {
    const { x, y } = node.getBoundingClientRect();
    const place = `${Math.round(x)} ${Math.round(y)}`;
    times = place === last ? times + 1 : 0;
    last = place;
    await new Promise((done) => setTimeout(done, 100));
  }
}"""
"""Until the page has seen it in one place eight times, by its own clock, as it looks itself (js/src/view/steady.ts)."""
HAS_KERNEL = """() => {
  const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
  const kernel = context?.isReady ? context.session?.kernel : null;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
"""Whether the open notebook's kernel does what it is told: one that is still being connected also looks idle."""
IS_SAVED = "() => !window.jupyterapp.shell.currentWidget.context.model.dirty"


class Lab:
    """One notebook, open in JupyterLab."""

    def __init__(self, page: Page, url: str, folder: Path, name: str, kernel: str, cells: list[str]) -> None:
        self.page, self.url, self.folder, self.name = page, url, folder, name
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(notebook, folder / name)
        self.open()

    def open(self) -> None:
        self.page.goto(f"{self.url}/lab/tree/{self.name}?token={TOKEN}&reset")
        expect(self.page.locator(".jp-NotebookPanel-toolbar")).to_be_visible(timeout=60_000)
        expect(self.page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=60_000)
        self.wait_until_idle()

    def command(self, name: str) -> None:
        """Run a command by its label, from the command palette's engine."""
        self.page.keyboard.press("Escape")
        self.page.locator(".jp-Notebook").first.click(position={"x": 5, "y": 5})
        menu, entry = name.split(" > ")
        self.page.locator(f'.lm-MenuBar-itemLabel:text-is("{menu}")').click()
        self.page.locator(f'.lm-Menu-itemLabel:text-is("{entry}")').first.click()

    def run_all(self) -> None:
        self.command("Run > Run All Cells")
        expect(self.cell(0).locator(".jp-InputPrompt")).not_to_have_text("[ ]:", timeout=60_000)

    def run(self, number: int) -> None:
        """Run one cell."""
        self.cell(number).locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Shift+Enter")

    def interrupt(self) -> None:
        self.command("Kernel > Interrupt Kernel")

    def wait_until_idle(self) -> None:
        self.page.wait_for_function(HAS_KERNEL, timeout=60_000)

    def save(self) -> dict:
        """Save, and wait until the file is written."""
        # Not by the file, which is read as it is being written.
        with self.page.expect_response(
            lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url, timeout=60_000
        ) as answered:
            self.page.keyboard.press("Control+s")
        assert answered.value.ok
        self.page.wait_for_function(IS_SAVED, timeout=60_000)
        return json.loads((self.folder / self.name).read_text())

    def wait_for_end(self, number: int) -> None:
        """Wait until the cell has run: only then does the static transcript stand in place of the live view."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        expect(prompt).not_to_contain_text("*", timeout=60_000)
        expect(prompt).to_contain_text(re.compile(r"\[\d+\]"), timeout=60_000)

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def prompt(self, number: int) -> str:
        return self.cell(number).locator(".jp-InputPrompt").text_content() or ""

    def output(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-OutputArea").first

    def theme(self, name: str) -> None:
        """`Light` or `Dark`."""
        self.page.locator('.lm-MenuBar-itemLabel:text-is("Settings")').click()
        self.page.locator('.lm-Menu-itemLabel:text-is("Theme")').hover()
        self.page.locator(f'.lm-Menu-itemLabel:text-is("JupyterLab {name}")').click()
        expect(
            self.page.locator(f'body[data-jp-theme-light="{"true" if name == "Light" else "false"}"]')
        ).to_be_attached()
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def screenshot(self, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path
