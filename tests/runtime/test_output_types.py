"""A19: runs that end with a value of a type."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field, field_validator

from tests.runtime.pieces import Gate, until
from tests.runtime.test_hooks import notes
from tests.runtime.test_runs import Mailbox, weather
from turncell import Agent, Rule, Session, UsageError, compare, replay, runs_df, tool
from turncell.core.deltas import Finished, Fragment
from turncell.core.parts import Usage
from turncell.runtime.ports import Capabilities, ModelRequest
from turncell.testing import ScriptedModel, call

pytestmark = pytest.mark.feature("A19")


class City(BaseModel):
    name: str
    people: int = Field(ge=0)
    founded: date | None = None


@dataclass
class Point:
    x: float
    y: float


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class SchemaModel:
    """A model that can be held to a schema: it answers in JSON."""

    name = "held"
    capabilities = Capabilities(schema=True)

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        self.requests.append(request)
        yield [self.answers.pop(0), Finished("stop", Usage(1, 1))]


def answer(**value: Any) -> Any:
    return call("final_answer", **value)


@pytest.mark.parametrize(
    ("type_", "given", "value"),
    [
        (City, {"name": "Oslo", "people": 7}, City(name="Oslo", people=7)),
        (City, {"name": "O", "people": 7, "founded": "1048-01-01"}, City(name="O", people=7, founded=date(1048, 1, 1))),
        (Point, {"x": 1, "y": 2}, Point(1.0, 2.0)),
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree(name="a", children=[Tree(name="b")])),
        (Literal["yes", "no"], {"value": "no"}, "no"),
        (list[str], {"value": ["a", "b"]}, ["a", "b"]),
        (Optional[int], {"value": None}, None),  # noqa: UP045
        (int | None, {"value": 3}, 3),
        (dict[str, int], {"value": {"a": 1}}, {"a": 1}),
        (list[City], {"value": [{"name": "Oslo", "people": 7}]}, [City(name="Oslo", people=7)]),
        (set[int], {"value": [1, 2]}, {1, 2}),
        (bool, {"value": True}, True),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_of_any_type_by_a_tool_and_by_a_schema(type_: Any, given: Any, value: Any) -> None:
    model = ScriptedModel([answer(**given)])
    run = Agent(model, output=type_).run_sync("go")
    assert run.status == "completed" and run.output == value and type(run.output) is type(value)
    held = SchemaModel(json.dumps(given))
    run = Agent(held, output=type_).run_sync("go")
    assert run.status == "completed" and run.output == value
    assert held.requests[0].output_schema and held.requests[0].output_schema["type"] == "object"
    assert held.requests[0].tools == () and model.requests[0].tools[0].name == "final_answer"


def test_the_type_may_be_given_for_one_run_and_others_are_plain() -> None:
    agent = Agent(ScriptedModel([answer(value="yes"), "Just text."]))
    assert agent.run_sync("go", output=Literal["yes", "no"]).output == "yes"
    plain = agent.run_sync("go")
    assert (plain.output, plain.text) == (None, "Just text.")


def test_what_does_not_fit_goes_back_with_what_was_wrong() -> None:
    model = ScriptedModel([answer(name="Oslo", people=-1), answer(name="Oslo", people=7)])
    run = Agent(model, output=City).run_sync("go")
    assert run.output == City(name="Oslo", people=7)
    assert "people" in model.requests[1].messages[-1].parts[0].content  # type: ignore[union-attr]
    assert "greater than or equal to 0" in str(model.requests[1].messages[-1])


def test_text_in_the_place_of_a_value_goes_back_too_and_json_in_a_fence_is_taken() -> None:
    model = ScriptedModel(["I would say Oslo.", '```json\n{"name": "Oslo", "people": 7}\n```'])
    run = Agent(model, output=City).run_sync("go")
    assert run.output == City(name="Oslo", people=7)
    asked = model.requests[1].messages[-1].text
    assert "the answer is not JSON" in asked and "Call final_answer" in asked
    assert len(notes(run, "output")) == 1


@pytest.mark.parametrize(
    "wrong", [answer(name="Oslo"), "no JSON", call("final_answer", value=3)], ids=["arguments", "text", "wrapped"]
)
@pytest.mark.parametrize("attempts", [1, 2])
def test_it_is_tried_so_often_and_then_the_run_has_failed(wrong: Any, attempts: int) -> None:
    model = ScriptedModel(lambda request: wrong)
    run = Agent(model, output=City, output_attempts=attempts).run_sync("go")
    assert (run.status, run.state.error_kind, run.output) == ("failed", "output", None)
    assert len(model.requests) == attempts and "the output is no City" in (run.state.error or "")


@pytest.mark.parametrize(
    ("type_", "said", "value"),
    [
        (str, "Rain, all day.", "Rain, all day."),
        (str, "42", "42"),
        (Literal["yes", "no"], "yes\n", "yes"),
        (date, "2026-02-03", date(2026, 2, 3)),
        (str | None, "null", None),
    ],
)
def test_a_value_that_is_text_may_be_said_without_quotes(type_: Any, said: str, value: Any) -> None:
    model = ScriptedModel([said])
    run = Agent(model, output=type_).run_sync("go")
    assert (run.status, run.output) == ("completed", value) and len(model.requests) == 1


def test_a_held_model_may_be_wrong_too() -> None:
    held = SchemaModel("{}", '{"name": "Oslo"}', '{"name": "Oslo", "people": 7}')
    run = Agent(held, output=City).run_sync("go")
    assert run.output == City(name="Oslo", people=7) and len(held.requests) == 3
    assert "nothing but JSON" in held.requests[1].messages[-1].text


def test_other_tools_run_before_it_and_beside_it() -> None:
    box = Mailbox()
    model = ScriptedModel(
        [
            call("weather", city="Oslo"),
            [answer(name="Oslo", people=7), call("mail", to="ana"), call("weather", city="x")],
        ]
    )
    run = Agent(model, tools=[weather, box.tool()], output=City).start("go", is_attended=True)
    until(lambda: run.status == "waiting")
    assert run.output is None
    run.approve()
    run.result(60)
    assert run.output == City(name="Oslo", people=7) and len(box.sent) == 1 and len(model.requests) == 2


@pytest.mark.parametrize(
    "options",
    [{"mode": "never"}, {"mode": "plan"}, {"rules": [Rule("*", "deny")]}, {"rules": [Rule("*", "ask")]},
     {"rules": [lambda use: "deny"]}, {"budget": {"calls": 1}}],
    ids=["never", "plan", "deny", "ask", "function", "budget"],
)  # fmt: skip
def test_no_mode_rule_or_budget_of_calls_keeps_a_run_from_answering(options: Any) -> None:
    model = ScriptedModel([call("weather", city="Oslo"), answer(name="Oslo", people=7)])
    assert Agent(model, tools=[weather], output=City, **options).run_sync("go").output == City(name="Oslo", people=7)


def test_a_tool_that_ends_the_run_does_not_end_it_without_a_value() -> None:
    @tool(effect="read", terminate=True)
    def finish() -> str:
        """Finish."""
        return "over"

    model = ScriptedModel([call("finish"), answer(name="Oslo", people=7)])
    assert Agent(model, tools=[finish], output=City).run_sync("go").output == City(name="Oslo", people=7)


def test_what_a_tool_that_ends_the_run_returns_may_be_the_value() -> None:
    @tool(effect="read", terminate=True)
    def look_up() -> dict[str, Any]:
        """Look it up."""
        return {"name": "Oslo", "people": 7}

    run = Agent(ScriptedModel([call("look_up")]), tools=[look_up], output=City).run_sync("go")
    assert (run.status, run.output) == ("completed", City(name="Oslo", people=7))


def test_a_value_that_comes_without_a_word_is_the_text_of_its_run_as_json() -> None:
    run = Agent(ScriptedModel([answer(name="Ålesund", people=7)]), output=City).run_sync("go")
    assert run.text == '{"name": "Ålesund", "people": 7}' and City(**json.loads(run.text)) == run.output
    assert list(runs_df(run.session)["text"]) == [run.text] and "Ålesund" in repr(run)
    assert Session.load(run.session.id, run.session.journal).runs[-1].text == run.text
    assert compare(run, replay(run.session)[0]) is None
    listed = Agent(ScriptedModel([call("final_answer", value=[1, 2])]), output=list[int]).run_sync("go")
    assert (listed.text, listed.output) == ("[1, 2]", [1, 2])


def test_the_tool_of_the_value_leaves_the_text_alone() -> None:
    run = Agent(ScriptedModel([["Here it is.", answer(name="Oslo", people=7)]]), output=City).run_sync("go")
    assert (run.text, run.state.closing, run.output) == ("Here it is.", None, City(name="Oslo", people=7))
    assert compare(run, replay(run.session)[0]) is None


def failing(kind: str) -> tuple[Any, dict[str, Any]]:
    """A tool whose call does not succeed, and the options of its agent."""

    @tool(effect="write")
    def pay(x: int) -> None:
        """Pay."""
        raise OSError("payment failed")

    options: dict[str, Any] = {"mode": "plan"} if kind == "denied" else {"mode": "auto"}
    return call("pay", x="three" if kind == "invalid" else 3), {"tools": [pay], **options}


@pytest.mark.parametrize("kind", ["error", "invalid", "denied"])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_answer_beside_a_call_that_fails_does_not_count_before_the_model_has_read_why(
    kind: str, is_first: bool
) -> None:
    paid, options = failing(kind)
    premature = answer(name="Paid", people=7)
    step = [premature, paid] if is_first else [paid, premature]
    model = ScriptedModel([step, answer(name="Not paid", people=7)])
    run = Agent(model, output=City, **options).run_sync("go")
    assert (run.status, run.output) == ("completed", City(name="Not paid", people=7))
    statuses = {c.name: c.status for c in run.state.steps[0].calls}
    assert statuses == {"pay": kind, "final_answer": "skipped"} and len(model.requests) == 2
    assert "pay did not succeed" in str(model.requests[1].messages)
    assert compare(run, replay(run.session)[0]) is None


def test_an_answer_waits_for_the_calls_beside_it() -> None:
    gate = Gate()
    look = gate.read_tool()
    run = Agent(ScriptedModel([[answer(name="Oslo", people=7), call("look")]]), tools=[look], output=City).start("go")
    gate.was_reached()
    assert [c.status for c in run.tool_calls] == ["allowed", "running"]
    gate.open()
    assert run.result(60).output == City(name="Oslo", people=7)
    assert [c.status for c in run.tool_calls] == ["ok", "ok"]


def test_of_two_answers_in_a_step_the_first_that_fits_counts() -> None:
    answers = [answer(name="Oslo", people=-1), answer(name="Bergen", people=7), answer(name="Oslo", people=7)]
    run = Agent(ScriptedModel([answers]), output=City).run_sync("go")
    assert run.output == City(name="Bergen", people=7)
    assert [c.status for c in run.tool_calls] == ["invalid", "ok", "skipped"]
    assert "given by an earlier call" in (run.tool_calls[2].content or "")


def test_when_the_steps_are_used_up_there_is_no_value_but_a_summary() -> None:
    model = ScriptedModel([call("weather", city="Oslo"), "Only the weather so far."])
    run = Agent(model, tools=[weather], output=City, max_steps=1).run_sync("go")
    assert (run.status, run.output, run.text) == ("max_steps", None, "Only the weather so far.")
    held = SchemaModel("{}", "I could not.")
    run = Agent(held, output=City, max_steps=1).run_sync("go")
    assert run.status == "max_steps" and held.requests[-1].output_schema is None, "a summary is no value"


def test_what_cannot_be_an_output_is_refused_before_anything_runs() -> None:
    for wrong, said in ((lambda: 3, "is a function"), (3, "has no JSON Schema"), (SchemaModel, "has no JSON Schema")):
        with pytest.raises(UsageError, match=said):
            Agent(ScriptedModel([]), output=wrong)

    @tool(effect="read")
    def final_answer() -> str:
        """Mine."""
        return ""

    with pytest.raises(UsageError, match="two tools are called 'final_answer'"):
        Agent(ScriptedModel([]), tools=[final_answer], output=City).start("go")


def test_the_type_is_named_as_it_is_written() -> None:
    run = Agent(ScriptedModel(["x"]), output=list[int], output_attempts=1).run_sync("go")
    assert "the output is no list[int]" in (run.state.error or "")
    run = Agent(ScriptedModel(["x"]), output=Literal["a"], output_attempts=1).run_sync("go")
    assert "the output is no Literal['a']" in (run.state.error or "")


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def halves(cls, number: int) -> int:
        return {0: 0, 2: 1, 4: 2}[number] * 2  # a KeyError is no ValidationError to pydantic


@pytest.mark.parametrize("deep", ["[" * 5000, "[" * 950 + "]" * 950])
def test_an_answer_that_is_nested_too_deeply_is_told_to_the_model(deep: str) -> None:
    model = SchemaModel(deep, '{"number": 2}')
    run = Agent(model, output=Even).run_sync("go")
    assert (run.status, run.output) == ("completed", Even(number=2))


def test_a_validator_that_raises_anything_is_told_to_the_model() -> None:
    model = SchemaModel('{"number": 3}', '{"number": 2}')
    run = Agent(model, output=Even).run_sync("go")
    assert (run.status, run.output) == ("completed", Even(number=2))
    assert "KeyError" in model.requests[1].messages[-1].text
    by_tool = Agent(ScriptedModel([call("final_answer", number=3), call("final_answer", number=2)]), output=Even)
    run = by_tool.run_sync("go")
    assert (run.status, run.output) == ("completed", Even(number=2)) and "KeyError" in (run.tool_calls[0].content or "")
