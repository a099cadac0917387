"""From a model's first delta to the screen: a real JupyterLab in Chromium."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import Target, table

if TYPE_CHECKING:
    from bench.__main__ import Bench

VERSIONS = ("6.31.0", "7.4.0")
SETUP = """
%load_ext turncell
import asyncio, time
from turncell import Agent, settings
from turncell.testing import ScriptedModel, say
said_at = []
async def first(request):
    await asyncio.sleep(1.0)
    said_at.append(time.time())
    return [say(f"heron-{len(said_at):03d} ", chunk=100), say("and the rest.", delay_s=0.5)]
demo = Agent(ScriptedModel(first))
"""
# When a frame is about to be drawn that has the word in it.
WATCH = """
word => new Promise(seen => {
    const look = () => document.querySelector('.jp-Notebook').textContent.includes(word)
        ? requestAnimationFrame(() => seen(Date.now() / 1000)) : requestAnimationFrame(look);
    look();
})
"""


def measure(version: str, times: int) -> dict[str, float]:
    """Seconds from the moment in which a model has its first words to the frame that shows them."""
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import Lab, jupyter_server

    turns = [f"%%agent -a demo --new\nTurn {number}." for number in range(times + 1)]
    folder = Path(tempfile.mkdtemp()) / "notebooks"
    folder.mkdir()
    waited = []
    with jupyter_server(folder) as url, sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM_PATH", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        cells = [SETUP, *turns, "import json; json.dumps(said_at)"]
        lab = Lab(page, url, folder, "screen.ipynb", f"py-{version}", cells)
        lab.run(0)
        lab.wait_for_end(0)
        seen = []
        for number in range(1, times + 2):
            lab.run(number)
            seen.append(page.evaluate(WATCH, f"heron-{number:03d}"))
            lab.wait_for_end(number)
        lab.run(times + 2)
        lab.wait_for_end(times + 2)
        said: list[float] = json.loads((lab.output(times + 2).text_content() or "").split("'")[1])
        waited = [at - began for at, began in zip(seen, said, strict=True)][1:]  # the first view loads the code of all
        browser.close()
    return {"first": median(waited), "worst": max(waited)}


def report(bench: Bench) -> list[Target]:
    times = 2 if bench.is_quick else 10
    found: dict[str, Any] = {v: bench.child("screen", "measure", version=v, times=times) for v in VERSIONS}
    rows = [(f"ipykernel {version}", one["first"] * 1e3, one["worst"] * 1e3) for version, one in found.items()]
    print(table(("JupyterLab in Chromium", "first delta on the screen, ms", "the longest"), rows))
    return [
        Target(f"first delta on the screen, ipykernel {version}", one["first"] * 1e3, 150, " ms")
        for version, one in found.items()
    ]
