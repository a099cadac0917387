"""The kernel dies in the middle of writes: nobody but a person can say what has happened, and says it on the card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, press

SETUP = """
%load_ext turncell
import os, signal, time
from pathlib import Path
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call
world, died = Path(WORLD), Path(WORLD + ".died")

@tool(parallel=True)
def post(to: str, text: str = "See you on Friday.") -> str:
    \"\"\"Post a letter.\"\"\"
    with world.open("a") as file:
        file.write(to + "\\n")
    while not died.exists():
        if len(world.read_text().splitlines()) == 3:
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    return f"posted to {to}"

first = [call("post", to="Ana"), call("post", to="Ben"), call("post", to="Cleo")]
clerk = Agent(ScriptedModel(["All letters are accounted for."] if died.exists() else [first]), tools=[post], mode="auto")
"""


def letter(turn: Locator, to: str) -> Locator:
    """What is asked about the letter to one person."""
    return turn.get_by_role("group", name="In doubt: post").filter(has_text=to)


@pytest.mark.feature("B11", "C11", "D2")
def test_each_write_that_the_end_of_the_kernel_left_in_doubt_is_settled_on_the_card(
    lab: Callable[..., Lab], version: str, tmp_path: Path
) -> None:
    world = tmp_path / "world"
    setup = SETUP.replace("WORLD", repr(str(world)))
    cells = [
        setup,
        "%%agent -a clerk\nTell all three.",
        "%agent resume -a clerk",
        "from turncell import calls_df\nprint(list(calls_df()['content']))",
    ]
    notebook = lab(version, cells)
    theme = "Dark" if version.startswith("6") else "Light"
    notebook.theme(theme)
    notebook.run(0)
    notebook.run(1)
    expect(notebook.page.locator(".jp-Dialog")).to_contain_text("died", timeout=60_000)
    assert sorted(world.read_text().split()) == ["Ana", "Ben", "Cleo"]

    notebook.open()
    notebook.run(0)
    notebook.wait_for_end(0)
    notebook.run(2)
    turn = notebook.output(2)
    expect(turn.get_by_role("group", name="In doubt: post")).to_have_count(3, timeout=60_000)
    expect(letter(turn, "Ana")).to_contain_text("whether it has happened is not known")
    notebook.cell(2).scroll_into_view_if_needed()
    notebook.screenshot(f"in-doubt-{theme.lower()}-{version}")
    press(letter(turn, "Ana").get_by_role("button", name="Run again"))
    expect(letter(turn, "Ana")).to_have_count(0, timeout=60_000)
    press(letter(turn, "Ben").get_by_role("button", name="It happened"))
    letter(turn, "Ben").get_by_label("Its result").fill("Ben has called")
    notebook.screenshot(f"in-doubt-happened-{theme.lower()}-{version}")
    press(letter(turn, "Ben").get_by_role("button", name="It happened"))
    expect(letter(turn, "Ben")).to_have_count(0, timeout=60_000)
    press(letter(turn, "Cleo").get_by_role("button", name="Skip"))
    notebook.wait_for_end(2)
    expect(turn).to_contain_text("All letters are accounted for.")
    expect(turn).to_contain_text("3 in doubt settled by you")
    notebook.cell(2).scroll_into_view_if_needed()
    notebook.screenshot(f"in-doubt-settled-{theme.lower()}-{version}")
    assert sorted(world.read_text().split()) == ["Ana", "Ana", "Ben", "Cleo"]
    notebook.run(3)
    calls = notebook.output(3)
    for content in ("posted to Ana", "Ben has called", "It was not run again"):
        expect(calls).to_contain_text(content, timeout=60_000)
    notebook.theme("Light")
