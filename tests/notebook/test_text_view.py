"""The run as plain text: nothing a model writes steers the terminal."""

from __future__ import annotations

import io

import pytest

from turncell import Agent, Option
from turncell.core.fold import CallState, RequestState
from turncell.notebook.terminal import Said, TextView, question, read_line_as
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


def asked(kind: str, **values: object) -> RequestState:
    return RequestState("r", "d" * 64, kind=kind, **values)  # type: ignore[arg-type]


@pytest.mark.feature("B10")
def test_a_question_at_the_keyboard_shows_its_options_and_takes_numbers_labels_and_texts() -> None:
    options = (Option("red", "as wine"), Option("blue"))
    request = asked("question", question="Which?", options=options, allows_text=True)
    shown = question(CallState("c", 1, "pick", request=request))
    assert "Which?\n  1. red: as wine\n  2. blue\n" in shown and "an answer of your own" in shown
    said = [read_line_as(request, line) for line in ("2", "red", "green", "7", "")]
    assert [isinstance(one, Said) and (one.decision, one.result) for one in said] == [
        ("result", "blue"), ("result", "red"), ("result", "green"), ("result", "7"), ("deny", None),
    ]  # fmt: skip
    many = asked("question", question="Which?", options=options, allows_many=True)
    assert read_line_as(many, "1, blue") == Said("result", ["red", "blue"])


@pytest.mark.feature("B11")
def test_a_write_in_doubt_at_the_keyboard_has_three_answers() -> None:
    request = asked("in_doubt", description="It had begun.")
    assert "It had begun." in question(CallState("c", 1, "mail", arguments={"to": "ana"}, request=request))
    said = [read_line_as(request, line) for line in ("r", "happened sent to ana", "s", "perhaps")]
    assert said == [Said("approve"), Said("result", "sent to ana"), Said("deny"), "'perhaps' is none of r, h and s"]


@pytest.mark.feature("A20")
def test_a_call_of_a_sub_agent_is_asked_with_its_own_arguments() -> None:
    request = asked("approval", name="pay", arguments={"amount": 5})
    shown = question(CallState("c", 1, "helper", arguments={"task": "x"}, request=request))
    assert shown.startswith('pay {\n  "amount": 5') and "(asked by helper) Allow it?" in shown
