"""An exported transcript on paper."""

from __future__ import annotations

from playwright.sync_api import Page

from turncell import Agent, export_html, tool
from turncell.testing import ScriptedModel, call


def test_an_exported_page_is_printed_whole_and_dark_on_white(page: Page) -> None:
    @tool
    def look() -> str:
        """Look."""
        return "a long output " * 20

    code = "x = '" + "x" * 400 + "'"
    agent = Agent(ScriptedModel([call("look"), f"So it is.\n\n```python\n{code}\n```\n"]), tools=[look])
    run = agent.run_sync("Why?")
    page.set_viewport_size({"width": 700, "height": 900})
    page.set_content(export_html([run.state], "West"))
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 40)"
    assert page.locator("details").count() > 0
    assert page.evaluate("[...document.querySelectorAll('details *')].every(node => node.checkVisibility())")
    assert page.evaluate("[...document.querySelectorAll('pre')].every(node => node.scrollWidth === node.clientWidth)")
