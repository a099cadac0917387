"""Answers in the real JupyterLab: long ones, real ones, and what a reloaded page and a saved notebook show of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.lab import Lab, press
from tests.browser.test_first_turn import SCRIPT, TOOLS
from turncell.testing import call, reply, serve


@pytest.mark.feature("D1")
def test_a_long_answer_of_prose_code_and_a_table_is_shown_whole_while_it_comes(
    lab: Callable[..., Lab], version: str
) -> None:
    long = r"""
text = "## Sales\n\n" + "".join(f"Store *{n}* sold `{n}` more, and **none** less.\n\n- as planned\n\n" for n in range(60))
text += "| store | sold |\n| --- | ---: |\n" + "".join(f"| number {n} | {n} |\n" for n in range(80))
text += "\n```python\n" + "".join(f"total += {n}\n" for n in range(150)) + "```\n\nThat is all of it."
model = ScriptedModel([[say(text, delay_s=0.002, chunk=5), call("send_note", to="Ana", text="Done")], say("Sent.")])
long = Agent(model, tools=[send_note])
"""
    notebook = lab(version, [TOOLS + long, "%%agent -a long\nWhat did they sell?"])
    notebook.run_all()
    turn = notebook.output(1)
    answer = turn.locator(".tc-md")
    first = answer.locator("p").first
    expect(first).to_contain_text("more, and none less.", timeout=60_000)
    notebook.page.evaluate("node => getSelection().selectAllChildren(node)", first.element_handle())
    expect(answer.locator("tbody tr")).to_have_count(80, timeout=60_000)
    assert notebook.page.evaluate("() => getSelection().toString()") == "Store 0 sold 0 more, and none less."
    expect(turn.get_by_role("button", name="Approve")).to_be_visible(timeout=60_000)
    expect(answer.locator("p")).to_have_count(61)
    expect(answer.locator("tbody tr")).to_have_count(80)
    assert answer.locator("pre code").text_content() == "".join(f"total += {n}\n" for n in range(150))
    for theme in ("Light", "Dark"):
        notebook.theme(theme)
        answer.locator("tbody tr").last.scroll_into_view_if_needed()
        notebook.screenshot(f"long-{theme.lower()}-{version}")
    notebook.theme("Light")
    press(turn.get_by_role("button", name="Approve"))
    expect(turn).to_contain_text("Sent.", timeout=60_000)


@pytest.mark.feature("D1")
def test_formulas_are_typeset_by_the_host_and_prices_are_none(lab: Callable[..., Lab], version: str) -> None:
    said = (
        "The sum is $x^2 + y_1$, for $5 or $6.\\n\\n$$\\na = \\\\frac{b}{c}\\n$$\\n\\n"
        "It is $\\\\href{https://evil.example}{no}$ link. "
    )
    agent = f'model = ScriptedModel([[say("{said}"), call("send_note", to="Ana", text="x")], "Also \\\\(z_1\\\\). Done."])\n'
    notebook = lab(version, [TOOLS + agent + "sums = Agent(model, tools=[send_note])", "%%agent -a sums\nSum."])
    notebook.run_all()
    turn = notebook.output(1)
    expect(turn.get_by_role("button", name="Approve")).to_be_visible()
    expect(turn.locator(".tc-md mjx-container")).to_have_count(2)
    expect(turn.locator(".tc-md mjx-container[display=true]")).to_have_count(1)
    expect(turn).to_contain_text("for $5 or $6.")
    expect(turn).to_contain_text("$\\href{https://evil.example}{no}$ link")
    for theme in ("Light", "Dark"):
        notebook.theme(theme)
        notebook.screenshot(f"formulas-{theme.lower()}-{version}")
    press(turn.get_by_role("button", name="Approve"))
    notebook.wait_for_end(1)
    static = turn.locator(".jp-RenderedHTML")
    expect(static.locator("mjx-container").last).to_be_visible()
    expect(static.locator("mjx-container")).to_have_count(3)
    assert static.locator("a").count() == 0
    notebook.screenshot(f"formulas-static-{version}")


@pytest.mark.feature("D1", "G1")
def test_a_real_provider_s_stream_through_litellm(lab: Callable[..., Lab], version: str) -> None:
    replies = [
        reply(
            "Ich schaue nach: 天気 🌦. ",
            calls=[call("weather", city="Tromsø"), call("weather", city="東京")],
            is_interleaved=True,
            chunk_bytes=7,
            delay_s=0.005,
        ),
        reply("In Tromsø and 東京 it is **3.5 °C** 🌦.", chunk_bytes=5, delay_s=0.01),
    ]
    with serve(replies) as server:
        make = f"""
from turncell.adapters.litellm_model import LiteLLMModel
served = Agent(LiteLLMModel("openai/served", base_url={server.base_url!r}, api_key="test"), tools=[weather])
"""
        show = 'print(runs_df()[["status", "input_tokens", "cost_usd"]].tail(1).to_dict("records"), list(calls_df().arguments[-2:]))'
        notebook = lab(version, [TOOLS + make, "%%agent -a served\nWie ist das Wetter?", show])
        notebook.run_all()
        expect(notebook.output(2)).to_contain_text("completed", timeout=60_000)
    expect(notebook.output(1)).to_contain_text("In Tromsø and 東京 it is 3.5 °C 🌦.")
    said = notebook.output(2).inner_text()
    assert '{"city":"Tromsø"}' in said
    assert '{"city":"東京"}' in said
    assert "'cost_usd': None" in said, "the price of a model nobody knows is unknown, not zero"


@pytest.mark.feature("D5")
def test_a_saved_notebook_shows_the_transcript_without_a_kernel(lab: Callable[..., Lab], version: str) -> None:
    answer = "All is **well**.\n\n| city | °C |\n| --- | ---: |\n| Oslo | 3.5 |\n\n```python\nimport this\n```\n"
    notebook = lab(version, [TOOLS + f"quick = Agent(ScriptedModel([{answer!r}]))", "%%agent -a quick\nHow is it?"])
    notebook.run_all()
    expect(notebook.output(1)).to_contain_text("All is well.", timeout=60_000)
    notebook.wait_for_end(1)
    notebook.save()
    notebook.page.get_by_text("Kernel", exact=True).first.click()
    notebook.page.locator('.lm-Menu-itemLabel:text-is("Shut Down Kernel")').click()
    notebook.page.reload()
    turn = notebook.output(1)
    expect(turn).to_contain_text("All is well.", timeout=60_000)
    assert "Error displaying widget" not in notebook.page.content()
    expect(turn.locator("td", has_text="Oslo")).to_have_css("text-align", "left")
    expect(turn.locator("td", has_text="3.5")).to_have_css("text-align", "right")
    expect(turn.locator("pre")).to_have_css("font-family", "monospace")
    expect(turn.locator("pre span", has_text="import")).to_have_css("color", "rgb(153, 85, 221)")


@pytest.mark.feature("D2")
def test_a_reloaded_page_gets_its_question_back(lab: Callable[..., Lab], version: str) -> None:
    notebook = lab(version, [TOOLS + SCRIPT, "%%agent -a demo\nTell Ana the weather in Oslo."])
    notebook.run_all()
    turn = notebook.output(1)
    approve = turn.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=60_000)
    notebook.save()
    notebook.page.reload()
    expect(approve).to_be_visible(timeout=60_000)
    press(approve)
    expect(turn).to_contain_text("and Ana knows.", timeout=60_000)
