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
        deadline = time.monotonic() + 60
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
    """A Jupyter server over `folder` on a free port, of JupyterLab or of `notebook`; gives its URL."""
    port = free_port()
    home = folder.parent / "home"
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    environment = {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_PATH": str(ROOT / ".kernels" / "share" / "jupyter"),
        "TURNCELL_STORE": str(folder.parent / "history.sqlite"),
    }
    command = [
        sys.executable, "-m", "jupyter", program, "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with serving(command, f"{url}/api?token={TOKEN}", environment, folder, folder.parent / "server.log"):
        yield url


def press(button: Locator) -> None:
    """Click a button of a card as a person does: not within the half second after it came or moved."""
    button.scroll_into_view_if_needed()
    time.sleep(0.8)
    button.click()


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
        # Idle alone is not enough: a kernel that is still being connected says so too.
        expect(self.page.locator(".jp-StatusBar-Widget, #jp-main-statusbar").first).to_contain_text(
            "| Idle", timeout=60_000
        )
        time.sleep(0.5)

    def command(self, name: str) -> None:
        """Run a command by its label, from the command palette's engine."""
        self.page.keyboard.press("Escape")
        self.page.locator(".jp-Notebook").first.click(position={"x": 5, "y": 5})
        menu, entry = name.split(" > ")
        self.page.locator(f'.lm-MenuBar-itemLabel:text-is("{menu}")').click()
        self.page.locator(f'.lm-Menu-itemLabel:text-is("{entry}")').first.click()

    def run_all(self) -> None:
        first = self.cell(0).locator(".jp-InputPrompt")
        for _ in range(3):  # a page that has just come may not know its kernel yet, and do nothing
            self.command("Run > Run All Cells")
            try:
                expect(first).not_to_have_text("[ ]:", timeout=8_000)
                break
            except AssertionError:
                continue

    def run(self, number: int) -> None:
        """Run one cell."""
        self.cell(number).locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Shift+Enter")

    def interrupt(self) -> None:
        self.command("Kernel > Interrupt Kernel")

    def save(self) -> dict:
        """Save, and wait until the file is written."""
        file = self.folder / self.name
        before = file.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        deadline = time.monotonic() + 30
        while file.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline, "JupyterLab did not save the notebook"
            time.sleep(0.1)
        time.sleep(0.3)  # the file is there; the page has yet to hear of it
        return json.loads(file.read_text())

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
