"""marimo in a real browser: the widgets, and an agent as the model of its chat. `.hosts` has marimo (see make_hosts.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.lab import ROOT, SCREENSHOTS, press, serving
from tests.browser.make_hosts import HOSTS
from tests.ports import free_port

AXE = ROOT / "js/node_modules/axe-core/axe.min.js"
CONTRAST = """async () => {
  const { passes, violations } = await axe.run({ runOnly: ["color-contrast"], elementRef: true });
  const ours = (rules) => rules.flatMap(({ nodes }) => nodes).filter(({ element }) => element.closest(".tc"));
  return [ours(passes).length, ours(violations).map(({ html }) => html)];
}"""

pytestmark = [pytest.mark.full, pytest.mark.feature("D15", "D16")]  # its environment is 130 MB of its own

APP = '''
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    import turncell.marimo
    from turncell import Agent, tool
    from turncell.testing import ScriptedModel, call, say
    from turncell.widgets import Approvals, Chat, UsageMeter

    @tool
    def mail(to: str) -> str:
        """Send a mail."""
        return f"sent to {to}"

    def agent():
        script = [
            say("Hello, **Ana**, how are you today?", delay_s=0.1, chunk=4),
            call("mail", to="ana@example.org"),
            "The mail is out.",
            say("word " * 400, delay_s=0.1),
        ]
        return Agent(ScriptedModel(script), tools=[mail], budget={"steps": 10})

    return Approvals, Chat, UsageMeter, agent, mo, turncell


@app.cell
def _(Approvals, Chat, UsageMeter, agent, mo):
    chat = Chat(agent())
    mo.vstack([mo.ui.anywidget(chat), mo.ui.anywidget(UsageMeter(chat)), mo.ui.anywidget(Approvals(chat))])
    return (chat,)


@app.cell
def _(agent, mo, turncell):
    mo.ui.chat(turncell.marimo.chat(agent()))
    return


@app.cell
def _(Approvals, mo):
    # To be refused in an app, where everybody's requests are in one process.
    try:
        Approvals()
        said = "an inbox of all"
    except Exception as error:
        said = str(error)
    mo.md(said)
    return


if __name__ == "__main__":
    app.run()
'''


@contextmanager
def marimo(mode: str, theme: str, folder: Path) -> Iterator[str]:
    """`marimo run` or `marimo edit` over the app; gives its URL."""
    program = HOSTS / "marimo" / "bin" / "marimo"
    assert program.exists(), f"{program} is missing; `make hosts` makes it"
    port = free_port()
    (folder / "app.py").write_text(APP)
    (folder / ".marimo.toml").write_text(f'[display]\ntheme = "{theme}"\n')
    environment = {
        "HOME": str(folder), "PYTHONPATH": str(ROOT / "src"), "TURNCELL_STORE": str(folder / "history.sqlite"),
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    command = [program, mode, "--headless", "--no-token", "--host=127.0.0.1", f"--port={port}", "app.py"]
    with serving(command, url, environment, folder, folder / "marimo.log"):
        yield url


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def is_readable(page: Page) -> None:
    page.evaluate(AXE.read_text())
    looked_at, found = page.evaluate(CONTRAST)
    assert found == []
    assert looked_at > 10


def talk_to_the_widgets(page: Page, theme: str) -> None:
    field = page.get_by_role("textbox", name="Message to the agent")
    expect(field).to_be_visible(timeout=60_000)
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
    expect(inbox.get_by_role("button", name="Approve")).to_be_enabled()
    is_readable(page)
    screenshot(page, f"marimo-asks-{theme}")
    press(inbox.get_by_role("button", name="Approve"))
    expect(runs.nth(1)).to_contain_text("The mail is out.", timeout=60_000)
    expect(inbox).to_contain_text("Nothing waits for you", timeout=60_000)


def talk_to_its_chat(page: Page, theme: str) -> None:
    chat = page.locator("marimo-chatbot")
    field = chat.locator("[contenteditable=true], textarea").first
    for text, answer in {"Say hello": "how are you today?", "Now mail her": "Allow mail?"}.items():
        field.click()
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        expect(chat).to_contain_text(answer, timeout=60_000)
    expect(chat.get_by_role("button", name="Approve")).to_be_enabled()
    is_readable(page)
    chat.get_by_role("button", name="Approve").scroll_into_view_if_needed()
    screenshot(page, f"marimo-chat-asks-{theme}")
    press(chat.get_by_role("button", name="Approve"))
    expect(chat).to_contain_text("The mail is out.", timeout=60_000)
    field.click()
    page.keyboard.type("Talk")
    page.keyboard.press("Enter")
    expect(chat).to_contain_text("word word word", timeout=60_000)
    screenshot(page, f"marimo-chat-{theme}")
    press(chat.get_by_role("button", name="Stop"))
    expect(chat).to_contain_text("Stopped", timeout=60_000, ignore_case=True)


def test_an_app_streams_asks_and_answers_each_person_alone_light_or_dark(
    page: Page, browser: Browser, tmp_path: Path
) -> None:
    with marimo("run", "system", tmp_path) as url:
        page.goto(url)
        talk_to_the_widgets(page, "light")
        talk_to_its_chat(page, "light")
        expect(page.get_by_text("requests of everybody who has this app open")).to_be_visible()
        other = browser.new_page(color_scheme="dark", viewport={"width": 1200, "height": 900})
        other.goto(url)
        expect(other.get_by_role("textbox", name="Message to the agent")).to_be_visible(timeout=60_000)
        expect(other.get_by_role("article")).to_have_count(0)
        talk_to_the_widgets(other, "dark")
        talk_to_its_chat(other, "dark")
        assert "dark" in (other.locator("body").get_attribute("class") or "")
        expect(page.get_by_role("article").first).to_contain_text("Hello, Ana")
        other.close()
