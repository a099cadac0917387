"""Whether a model calls a tool: it may, it must not, it must, or it must call a certain one."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from turncell import Agent, Hooks, ModelFailure, UsageError, run_turn, tool
from turncell.adapters.cassette import cassette
from turncell.runtime.ask_user import ask_user
from turncell.runtime.ports import ModelRequest
from turncell.runtime.tools import Offer, Tool
from turncell.testing import RulesModel, ScriptedModel, call

pytestmark = pytest.mark.feature("G1")

Label = Literal["spam", "ham"]


@tool(effect="read")
def look(at: str) -> str:
    """Look at something."""
    return f"{at}: fine"


@tool(effect="read")
def smell(at: str) -> str:
    """Smell at something."""
    return f"{at}: bad"


def asked(model: ScriptedModel) -> list[tuple[str | None, list[str]]]:
    """The choice and the tools of each request."""
    return [(request.tool_choice, [spec.name for spec in request.tools]) for request in model.requests]


BOTH = ["look", "smell"]


@pytest.mark.parametrize("choice", ["required", "look"])
def test_what_must_be_called_holds_for_the_first_answer_and_no_longer(choice: str) -> None:
    model = ScriptedModel([call("look", at="this"), "It is fine."])
    run = Agent(model, tools=[look, smell], tool_choice=choice).run_sync("Is it fine?")
    assert run.text == "It is fine."
    assert asked(model) == [(choice, BOTH), (None, BOTH)]


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_what_may_be_called_holds_for_the_whole_run(choice: str) -> None:
    model = ScriptedModel([call("look", at="this"), "It is fine."])
    Agent(model, tools=[look, smell], tool_choice=choice).run_sync("Is it fine?")
    assert asked(model) == [(choice, BOTH), (choice, BOTH)]


def test_each_run_of_an_agent_begins_with_it_and_may_have_another() -> None:
    model = ScriptedModel([call("look", at="this"), "Fine.", "Fine, still.", call("smell", at="it"), "Bad.", "Done."])
    agent = Agent(model, tools=[look, smell], tool_choice="required")
    session = agent.session()
    session.send("Look.").result()
    session.send("And now?", tool_choice="none").result()
    agent.run_sync("Smell.", tool_choice="smell")
    assert [choice for choice, _ in asked(model)] == ["required", None, "none", "smell", None]
    assert Agent(model).run_sync("Go on.").text == "Done." and model.requests[-1].tool_choice is None


def test_a_run_without_a_store_has_it_too() -> None:
    model = ScriptedModel([call("look", at="this"), "Fine."])
    asyncio.run(run_turn(model=model, message="Look.", tools=[look], tool_choice="required"))
    assert [choice for choice, _ in asked(model)] == ["required", None]


def test_a_model_that_is_asked_again_since_it_failed_is_asked_for_the_same() -> None:
    busy = ModelFailure("overloaded", "busy", retry_after_s=0.01)
    model = ScriptedModel([busy, call("look", at="this"), "Fine."])
    Agent(model, tools=[look], tool_choice="look").run_sync("Look.")
    assert [choice for choice, _ in asked(model)] == ["look", "look", None]


def test_the_last_word_has_neither_tools_nor_a_choice() -> None:
    model = ScriptedModel([call("look", at="this"), "Fine so far."])
    run = Agent(model, tools=[look], tool_choice="none", max_steps=1).run_sync("Look.")
    assert run.status == "max_steps" and asked(model) == [("none", ["look"]), (None, [])]


@pytest.mark.feature("A19")
class TestWithAnOutput:
    def test_the_answer_is_a_tool_like_the_others(self) -> None:
        model = ScriptedModel([call("look", at="it"), call("final_answer", value="ham")])
        run = Agent(model, tools=[look], output=Label, tool_choice="look").run_sync("What is it?")
        assert run.output == "ham" and asked(model) == [
            ("look", ["look", "final_answer"]),
            (None, ["look", "final_answer"]),
        ]

    def test_it_may_be_the_one_that_must_be_called(self) -> None:
        model = ScriptedModel([call("final_answer", value="spam")])
        run = Agent(model, tools=[look], tool_choice="final_answer").run_sync("What is it?", output=Label)
        assert run.output == "spam" and model.requests[0].tool_choice == "final_answer"

    def test_without_tools_the_answer_can_still_be_given(self) -> None:
        """`none` would keep the model from the one call that ends the run."""
        model = ScriptedModel([call("final_answer", value="neither"), call("final_answer", value="spam")])
        run = Agent(model, tools=[look], output=Label, tool_choice="none").run_sync("What is it?")
        assert run.output == "spam" and asked(model) == [(None, ["final_answer"])] * 2


def test_the_model_may_be_made_to_ask_the_person() -> None:
    model = ScriptedModel([call("ask_user", question="Which one?"), "That one."])
    run = Agent(model, tools=[look, ask_user()], tool_choice="ask_user").start("Take one.", is_attended=True)

    async def main() -> None:
        async for event in run:
            if event.type == "RequestOpened":
                run.reply("that")

    asyncio.run(main())
    assert run.text == "That one." and [choice for choice, _ in asked(model)] == ["ask_user", None]


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("tools", "choice", "words"),
        [
            ([look, smell], "taste", "tool_choice is 'taste'.*'auto', 'none', 'required' or the name.*look, smell"),
            ([look], "Required", "tool_choice is 'Required'"),
            ([], "required", "and it has none"),
            ([look], 3, "tool_choice is 3; use a text"),
        ],
    )
    def test_it_is_said_before_a_model_is_asked(self, tools: list[Tool], choice: Any, words: str) -> None:
        model = ScriptedModel(["never"])
        with pytest.raises(UsageError, match=words):
            Agent(model, tools=tools, tool_choice=choice).run_sync("Go.")
        with pytest.raises(UsageError, match=words):
            Agent(model, tools=tools).run_sync("Go.", tool_choice=choice)
        assert not model.requests

    def test_without_tools_nothing_need_be_called(self) -> None:
        assert Agent(ScriptedModel(["Yes."]), tool_choice="none").run_sync("Go.").text == "Yes."

    def test_tools_that_are_known_late_count(self) -> None:
        class Late:
            name, known = "late", ()

            async def offer(self) -> Offer:
                return Offer((smell,))

        model = ScriptedModel([call("smell", at="it"), "Bad."])
        assert Agent(model, tools=[look, Late()], tool_choice="smell").run_sync("Go.").text == "Bad."
        assert asked(model) == [("smell", BOTH), (None, BOTH)]
        with pytest.raises(UsageError, match=r"tool_choice is .taste..*look, smell"):
            Agent(model, tools=[look, Late()], tool_choice="taste").run_sync("Go.")
        assert len(model.requests) == 2


def test_a_hook_sees_it_and_may_take_it_away() -> None:
    seen: list[str | None] = []

    def before_model(request: ModelRequest) -> ModelRequest:
        seen.append(request.tool_choice)
        return replace(request, tool_choice=None)

    model = ScriptedModel(["Fine."])
    Agent(model, tools=[look], tool_choice="look", hooks=Hooks(before_model=before_model)).run_sync("Go.")
    assert seen == ["look"] and model.requests[0].tool_choice is None


def test_it_goes_along_to_workers_and_only_agents_that_have_it_answer_otherwise() -> None:
    agent = Agent("embedded", tools=[look], tool_choice="look")
    again = pickle.loads(pickle.dumps(agent))
    assert again.answering == agent.answering and agent.answering["tool_choice"] == "look"
    assert "tool_choice" not in Agent("embedded", tools=[look]).answering, "rows of batches are known by these"


def test_who_goes_on_with_such_a_run_must_not_do_without() -> None:
    run = Agent("embedded", tools=[look]).run_sync("Look at this.", tool_choice="none")
    assert run.state.started.needs is not None and "options" in run.state.started.needs


@pytest.mark.feature("C12")
def test_a_cassette_tells_requests_apart_by_it(tmp_path: Path) -> None:
    path = tmp_path / "choice.jsonl"
    with cassette(path, mode="record"):
        Agent(ScriptedModel([call("look", at="it"), "Fine."]), tools=[look], tool_choice="look").run_sync("Go.")
    silent = ScriptedModel([])
    with cassette(path):
        assert Agent(silent, tools=[look], tool_choice="look").run_sync("Go.").text == "Fine."
    with pytest.raises(ModelFailure, match=r"its options differ: .*tool_choice"), cassette(path):
        Agent(silent, tools=[look]).run_sync("Go.")


def test_the_embedded_model_calls_nothing_that_it_must_not() -> None:
    agent = Agent(RulesModel(delay_s=0), tools=[look])
    assert agent.run_sync('Look at "this".').tool_calls
    assert not agent.run_sync('Look at "this".', tool_choice="none").tool_calls
