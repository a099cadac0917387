"""A run in a terminal that can be painted: what stands on the screen, and what is sent there."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell import Agent, Run, ToolContext, UsageError, show, tool
from turncell.notebook.live_text import LiveText
from turncell.notebook.terminal import can_be_painted
from turncell.notebook.terminal_markdown import Growing
from turncell.testing import ScriptedModel, call, say

OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[KJ]|\x1b\[\d+A|\x1b\[\?7[lh]|\r")
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(?:3[0-7]|4[0-7]|9[0-7]|38|48)[0-9;]*m")
ANSWER = """# The weather

It **rains** in Oslo.

1. Take an umbrella.
2. Take a coat.

```python
print("dry")
```
"""


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def lines(self, columns: int, rows: int) -> list[str]:
        """What has scrolled away and what stands on the screen, at the end."""
        screen = pyte.HistoryScreen(columns, rows, history=10_000)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))  # as the driver of a terminal does
        lines = [*screen.history.top, *(screen.buffer[row] for row in range(rows))]
        return ["".join(line[column].data for column in range(columns)).rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    def make(columns: int = 80, rows: int = 24, **environment: str) -> Terminal:
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in {
            "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows), **environment
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        made = Terminal()
        monkeypatch.setattr(sys, "stdout", made)
        return made

    return make


@tool(effect="read")
def look(query: str) -> str:
    """Look something up."""
    print("\x1b[31mlooking", query)
    return "12 notes"


@pytest.mark.feature("D7")
def test_an_answer_is_painted_as_markdown_and_ends_with_what_it_cost(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    model = ScriptedModel([[say("I look."), call("look", query="rain")], say(ANSWER, delay_s=0.005)])
    run = show(Agent(model, tools=[look]), "What is the weather?")
    lines = [line for line in screen.lines(80, 24) if line]
    assert run.text == ANSWER
    # The tool prints at once, whatever is on the screen by then; it always stands above the line of its call.
    printed = lines.index("looking rain")
    assert printed < next(number for number, line in enumerate(lines) if line.startswith("✓"))
    del lines[printed]
    assert lines[:2] == ["❯ What is the weather?", "I look."]
    assert re.fullmatch(r'✓ look\(query: "rain"\)(  [\d.]+ s)?  12 notes', lines[2])
    assert lines[3:5] == ["The weather", "It rains in Oslo."]
    assert [line.split() for line in lines[5:8]] == [
        ["1", "Take", "an", "umbrella."], ["2", "Take", "a", "coat."], ['print("dry")']
    ]  # fmt: skip
    assert lines[8].startswith("scripted · completed · 2 steps") and len(lines) == 9
    assert sys.stdout is screen and COLOUR.search(screen.getvalue())


@pytest.mark.feature("D7")
@pytest.mark.parametrize("rows", [6, 24])
def test_what_has_scrolled_away_is_not_painted_again(terminal: Callable[..., Terminal], rows: int) -> None:
    screen = terminal(40, rows)
    text = "\n".join(f"{number}. item-{number}." for number in range(1, 60)) + "\n\n```\n"
    text += "\n".join(f"code-{number}." for number in range(50)) + "\n```\n\nThe end.\n"
    show(Agent(ScriptedModel([say(text, delay_s=0.002)])), "Go on.")
    shown = screen.lines(40, rows)
    wanted = [f"item-{number}." for number in range(1, 60)] + [f"code-{number}." for number in range(50)]
    assert [line.split()[-1] for line in shown if re.search(r"(item|code)-\d+\.$", line)] == wanted
    assert all(
        len(frame.split("\n")) <= rows for frame in re.findall(r"\x1b\[\?7l(.*?)\x1b\[\?7h", screen.getvalue(), re.S)
    )


@pytest.mark.feature("D7")
def test_nothing_that_a_model_or_a_tool_says_steers_the_terminal(terminal: Callable[..., Terminal]) -> None:
    evil = "\x1b[2J\x1b]52;c;eA==\x07\x9b2J\u202e\r"

    @tool(effect="read")
    async def fetch(ctx: ToolContext, url: str) -> str:
        """Fetch."""
        await ctx.progress(evil)
        raise OSError(evil)

    screen = terminal()
    text = f"{evil} <http://x.example/%1b[2J%0d> &#x202e;&#27; [bank](http://evil.example) <b>bold</b>\n\n    {evil}\n\n<p>kept</p>\n"
    run = show(Agent(ScriptedModel([[say(evil), call("fetch", url=evil)], text]), tools=[fetch]), f"Go {evil}")
    assert run.status == "completed"
    assert not ODD.search(OURS.sub("", screen.getvalue()))
    shown = "\n".join(screen.lines(80, 24))
    assert r"\x1b[2J" in shown and r"\u202e" in shown, "it can be read"
    assert "bank (http://evil.example)" in shown and "<b>bold</b>" in shown and "<p>kept</p>" in shown


@pytest.mark.feature("D7")
def test_no_colour_where_none_is_wanted_and_plain_text_where_nothing_can_be_painted(
    terminal: Callable[..., Terminal],
) -> None:
    agent = Agent(ScriptedModel([say(ANSWER, delay_s=0.002)] * 2))
    screen = terminal(NO_COLOR="1")
    show(agent, "What is the weather?")
    assert not COLOUR.search(screen.getvalue()) and "umbrella" in screen.getvalue()

    dumb = terminal(TERM="dumb")
    show(agent, "What is the weather?")
    assert "\x1b" not in dumb.getvalue() and "# The weather" in dumb.getvalue()
    latin = Terminal()
    latin.encoding = "latin-1"
    assert not can_be_painted(latin) and not can_be_painted(io.StringIO())


@pytest.mark.feature("D7", "B2")
def test_a_request_is_shown_whole_once_and_no_value_looks_like_another_argument(
    terminal: Callable[..., Terminal],
) -> None:
    @tool(preview=lambda to, text: f"to {to}\u200b")
    def mail(to: str, text: str) -> str:
        """Mail."""
        return "sent"

    screen = terminal(60, 40)
    text = "Hi\nto: Bob" + "q" * 90
    run = Agent(ScriptedModel([call("mail", to="Ana\u200b", text=text), "No."]), tools=[mail]).start(
        "Mail.", is_attended=True
    )
    (asked,) = run.wait_request(60)
    with LiveText(screen) as view:
        run.subscribe(view)
        for _ in range(2):
            with view.asking(asked) as prompt:
                assert prompt.startswith("Allow it? [y]es")
                print("a notice")
        run.deny()
        run.result(60)
        run.drain(60)
    shown = "\n".join(screen.lines(60, 40))
    assert shown.count("mail wants to run") == 1 and shown.count("a notice") == 2
    assert r'"Ana\u200b"' in shown and r"to Ana\u200b\u200b" in shown
    assert re.search(r"│ {6,}to:", shown) and "│ to:" not in shown
    assert len(re.findall("q", shown.partition("─╯")[0])) == 90


def test_show_says_what_it_takes(terminal: Callable[..., Terminal]) -> None:
    terminal()
    agent = Agent(ScriptedModel(["Yes."]))
    with pytest.raises(UsageError, match="needs a prompt"):
        show(agent)
    with pytest.raises(UsageError, match="an Agent and a prompt, or a Run; found 'Hello'"):
        show("Hello")  # type: ignore[arg-type]
    run: Run = agent.run_sync("Is it so?")
    with pytest.raises(UsageError, match="nothing else"):
        show(run, "More.")
    assert show(run) is run


PIECES = [
    "- a",
    "\n",
    "\n\n",
    "1. b",
    "```",
    "```py\n",
    "    code",
    "# h",
    "| a | b |\n|---|---|\n",
    "| 1 | 2 |",
    "> q",
    "x ",
    "---",
    "\r\n",
    "  - n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_however_a_text_comes_each_piece_of_it_is_given_out_once(pieces: list[str]) -> None:
    growing, blocks = Growing(), []
    for piece in pieces:
        growing.add(piece)
        blocks += growing.finished()
    blocks.append(growing.close())
    assert "".join(source for source, _ in blocks) == "".join(pieces).replace("\r", "")
