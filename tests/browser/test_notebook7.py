"""The first turn in Jupyter Notebook 7, which is another page over the same kernels (see test_first_turn.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import HAS_KERNEL, TOKEN, Lab, jupyter_server, press
from tests.browser.test_first_turn import SCRIPT, STATIC, TOOLS

pytestmark = pytest.mark.feature("D2", "D5")

TURN = "%%agent -a demo\nTell Ana the weather in Oslo."
KERNEL = "py-7.4.0"


class Notebook(Lab):
    """One notebook, open in Notebook 7."""

    def open(self) -> None:
        self.page.goto(f"{self.url}/notebooks/{self.name}?token={TOKEN}")
        expect(self.page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=60_000)
        self.page.wait_for_function(HAS_KERNEL, timeout=60_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook7") / "notebooks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with jupyter_server(folder, "notebook") as url:
        yield url


@pytest.fixture
def notebook(page: Page, server: str, folder: Path, request: pytest.FixtureRequest) -> Callable[[list[str]], Notebook]:
    name = re.sub(r"\W", "-", request.node.name) + ".ipynb"
    return lambda cells: Notebook(page, server, folder, name, KERNEL, cells)


def test_a_turn_streams_asks_survives_a_reload_and_stays(notebook: Callable[[list[str]], Notebook]) -> None:
    opened = notebook([TOOLS + SCRIPT, TURN, "print('after', outbox)"])
    opened.run_all()
    turn = opened.output(1)
    expect(turn.get_by_text("I look up the weather.")).to_be_visible(timeout=60_000)
    approve = turn.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=60_000)
    assert (opened.prompt(1), opened.prompt(2)) == ("[*]:", "[*]:"), "the cell waits, and so does the one behind it"
    opened.screenshot("notebook7-approval-light")
    opened.save()
    opened.page.reload()
    expect(approve).to_be_visible(timeout=60_000)
    press(approve)
    expect(turn).to_contain_text("and Ana knows.", timeout=60_000)
    # A page that is reloaded forgets what it had queued, but the kernel has it.
    opened.run(2)
    expect(opened.output(2)).to_contain_text("after [('Ana', '3.5 °C in Oslo')]", timeout=60_000)


@pytest.mark.full
def test_the_queued_cell_runs_after_the_turn_and_the_transcript_needs_no_kernel(
    notebook: Callable[[list[str]], Notebook],
) -> None:
    opened = notebook([TOOLS + SCRIPT, TURN, "print('after', outbox)"])
    opened.run_all()
    turn = opened.output(1)
    approve = turn.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=60_000)
    press(approve)
    expect(opened.output(2)).to_contain_text("after [('Ana', '3.5 °C in Oslo')]", timeout=60_000)
    opened.wait_for_end(1)
    assert [set(output["data"]) for output in opened.save()["cells"][1]["outputs"]] == [STATIC], (
        "no widget stays behind"
    )
    opened.command("Kernel > Shut Down Kernel")
    opened.page.reload()
    expect(turn).to_contain_text("and Ana knows.", timeout=60_000)
    assert "Error displaying widget" not in opened.page.content()
