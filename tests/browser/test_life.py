"""The life of a turn in a real page: reloaded, seen in two tabs, its output cleared, its cell deleted, its notebook closed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.lab import TOKEN, Lab, press

pytestmark = pytest.mark.full

VERSION = "7.4.0"
SETUP = '''
%load_ext turncell
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call, say
outbox = []

@tool
def send_note(to: str) -> str:
    """Send a note to somebody."""
    outbox.append(to)
    return f"sent to {to}"

asking = Agent(ScriptedModel([[say("I write to Ana. "), call("send_note", to="Ana")], "Ana knows."]), tools=[send_note])
long = Agent(ScriptedModel([say("word " * 1000 + "and that is all.", delay_s=0.05)]))
'''


def second_tab(notebook: Lab) -> Page:
    page = notebook.page.context.new_page()
    page.goto(f"{notebook.url}/lab/tree/{notebook.name}?token={TOKEN}")
    expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=60_000)
    return page


def button(where: Locator | Page, name: str) -> Locator:
    return where.get_by_role("button", name=name, exact=True)


@pytest.mark.feature("D5")
def test_a_page_that_is_reloaded_in_the_middle_of_the_text_goes_on_with_it(lab: Callable[..., Lab]) -> None:
    notebook = lab(VERSION, [SETUP, "%%agent -a long\nTalk."])
    notebook.run_all()
    turn = notebook.output(1)
    expect(turn.get_by_text("word word").first).to_be_visible(timeout=60_000)
    notebook.save()
    notebook.page.reload()
    expect(turn.get_by_text("word word").first).to_be_visible(timeout=60_000)
    expect(turn).to_contain_text("and that is all.", timeout=60_000)


@pytest.mark.feature("D2", "D5")
def test_the_answer_of_a_second_tab_counts_and_both_tabs_show_it(lab: Callable[..., Lab]) -> None:
    notebook = lab(VERSION, [SETUP, "%%agent -a asking\nTell Ana.", "print('after', outbox)"])
    notebook.run_all()
    expect(button(notebook.output(1), "Approve")).to_be_visible(timeout=60_000)
    notebook.save()
    other = second_tab(notebook)
    approve = button(other, "Approve")
    expect(approve).to_be_visible(timeout=60_000)
    press(approve)
    for page in (notebook.page, other):
        expect(page.locator(".jp-Notebook").first).to_contain_text("Ana knows.", timeout=60_000)
        expect(button(page, "Approve")).to_have_count(0)
    expect(notebook.output(2)).to_contain_text("after ['Ana']", timeout=60_000)


@pytest.mark.feature("D5", "D4")
def test_an_output_that_is_cleared_and_a_cell_that_is_deleted_hang_nothing(lab: Callable[..., Lab]) -> None:
    notebook = lab(VERSION, [SETUP, "%%agent -a long\nTalk.", "print('next')", "%%agent -a asking\nTell Ana."])
    notebook.run(0)
    notebook.run(1)
    turn = notebook.output(1)
    expect(turn.get_by_text("word word").first).to_be_visible(timeout=60_000)
    notebook.command("Edit > Clear Outputs of All Cells")
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("next", timeout=60_000)
    notebook.run(3)
    expect(button(notebook.output(3), "Approve")).to_be_visible(timeout=60_000)
    notebook.cell(3).locator(".jp-InputArea-editor").click()
    notebook.page.keyboard.press("Escape")
    notebook.page.keyboard.press("d")
    notebook.page.keyboard.press("d")
    expect(notebook.page.locator(".jp-Notebook .jp-CodeCell", has_text="Tell Ana.")).to_have_count(0)
    notebook.interrupt()
    notebook.wait_until_idle()  # a cell that is sent while the interrupted one ends is given up with it
    notebook.run(2)
    expect(notebook.cell(2).locator(".jp-InputPrompt")).to_contain_text("[5]", timeout=60_000)


@pytest.mark.feature("D3", "D5")
@pytest.mark.parametrize("ends", ["after it is opened again", "while it is closed"])
def test_a_notebook_that_is_closed_and_opened_again_shows_its_detached_turn(lab: Callable[..., Lab], ends: str) -> None:
    agent, said = ("asking", "I write to Ana.") if ends.startswith("after") else ("long", "word word")
    notebook = lab(VERSION, [SETUP, f"%%agent -a {agent} --detach -o run\nGo.", "print(run.result().status)"])
    notebook.run(0)
    notebook.run(1)
    turn = notebook.output(1)
    expect(turn.get_by_text(said).first).to_be_visible(timeout=60_000)
    notebook.save()
    notebook.command("File > Close Tab")
    expect(notebook.page.locator(".jp-Notebook")).to_have_count(0)
    if agent == "long":
        notebook.page.wait_for_timeout(25_000)
    notebook.open()
    if agent == "asking":
        press(button(turn, "Approve"))
        expect(turn).to_contain_text("Ana knows.", timeout=60_000)
    else:
        expect(turn).to_contain_text("and that is all.", timeout=60_000)
    assert "Error displaying widget" not in notebook.page.content()
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("completed", timeout=60_000)
