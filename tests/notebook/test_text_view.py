"""The run as plain text: nothing a model writes steers the terminal."""

from __future__ import annotations

import io

from turncell import Agent
from turncell.core.fold import CallState, RequestState
from turncell.notebook.terminal import TextView, question
from turncell.testing import ScriptedModel


def test_escape_codes_of_a_model_are_shown_and_not_obeyed() -> None:
    out = io.StringIO()
    run = Agent(ScriptedModel(["\x1b[2Jgone \x1b]52;c;eA==\x07"])).run_sync("go")
    view = TextView(out)
    for event in run.so_far():
        view(event)
    assert "\x1b" not in out.getvalue() and "\\x1b[2Jgone" in out.getvalue()


def test_a_question_on_the_keyboard_shows_what_would_hide() -> None:
    request = RequestState("r", "d", preview="run rm -rf ~\x1b[2K\r\x1b[1A ls")
    asked = question(CallState("c", 1, "shell", arguments={"command": "\u202els"}, request=request))
    assert "\x1b" not in asked and "\\u202e" in asked and "rm -rf" in asked
