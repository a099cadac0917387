"""`tool_choice` on the wire of every format, over HTTP on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.adapters.streams import ADD, KEY, ask, hear
from turncell import Agent, ModelFailure, tool
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.core.deltas import Finished
from turncell.core.parts import Json
from turncell.runtime.ports import Model, ModelRequest
from turncell.testing import ProviderServer, call, serve

pytestmark = pytest.mark.feature("G1")

Make = Callable[[ProviderServer], Model]


def chat(server: ProviderServer) -> Model:
    return DirectChat("openai/m", base_url=server.base_url, api_key=KEY)


def responses(server: ProviderServer) -> Model:
    return DirectResponses("openai/responses/gpt-5", base_url=server.base_url, api_key=KEY)


def messages(server: ProviderServer, **more: Any) -> Model:
    return DirectAnthropic("anthropic/claude-sonnet-4-5", base_url=server.origin, api_key=KEY, **more)


def built(server: ProviderServer) -> Model:
    return LiteLLMModel("openai/gpt-4o-mini", base_url=server.base_url, api_key=KEY)


def whole(server: ProviderServer) -> Model:
    return LiteLLMModel("openai/gpt-4o-mini", base_url=server.base_url, api_key=KEY, is_whole=True)


def claude(server: ProviderServer) -> Model:
    return LiteLLMModel("anthropic/claude-sonnet-4-5", base_url=server.origin, api_key=KEY)


OPENAI: dict[str, Json] = {
    "auto": "auto", "none": "none", "required": "required", "add": {"type": "function", "function": {"name": "add"}},
}  # fmt: skip
"""https://platform.openai.com/docs/api-reference/chat/create, tool_choice."""
ANTHROPIC: dict[str, Json] = {
    "auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}, "add": {"type": "tool", "name": "add"},
}  # fmt: skip
"""https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools, forcing tool use."""
WIRES: dict[str, tuple[Make, dict[str, Json]]] = {
    "chat completions": (chat, OPENAI),
    # https://platform.openai.com/docs/api-reference/responses/create, tool_choice
    "responses": (responses, OPENAI | {"add": {"type": "function", "name": "add"}}),
    "messages": (messages, ANTHROPIC),
    "built by LiteLLM": (built, OPENAI),
    "LiteLLM whole": (whole, OPENAI),
    "messages by LiteLLM": (claude, ANTHROPIC),
}


def sent(make: Make, request: ModelRequest) -> dict[str, Json]:
    with serve(["Fine."]) as server:
        _, end = asyncio.run(hear(make(server), request))
        assert isinstance(end, Finished)
        (body,) = server.requests
    return body


@pytest.mark.parametrize("wire", WIRES)
def test_each_choice_is_said_in_the_words_of_the_provider(wire: str) -> None:
    make, words = WIRES[wire]
    for choice, said in words.items():
        assert sent(make, ask(tools=(ADD,), tool_choice=choice))["tool_choice"] == said
    for nothing in (ask(tools=(ADD,)), ask(tool_choice="none")):
        assert "tool_choice" not in sent(make, nothing), "OpenAI refuses a choice without tools"


@pytest.mark.parametrize("wire", WIRES)
def test_a_run_demands_a_call_once(wire: str) -> None:
    make, words = WIRES[wire]

    @tool(effect="read")
    def add(a: int) -> int:
        """Add one."""
        return a + 1

    with serve([call("add", a=1), "Two."]) as server:
        run = Agent(make(server), tools=[add], tool_choice="add").run_sync("Add.")
        first, second = server.requests
    assert run.text == "Two."
    assert first["tool_choice"] == words["add"] and "tool_choice" not in second


class TestOfAModelThatThinks:
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking: `any` and `tool` are refused with thinking."""

    @pytest.mark.parametrize("choice", ["required", "add"])
    @pytest.mark.parametrize(
        ("make", "more"),
        [
            (messages, {"reasoning_effort": "low"}),
            (messages, {"extra": {"thinking": {"type": "enabled", "budget_tokens": 2048}}}),
            (claude, {"reasoning_effort": "low"}),
        ],
    )
    def test_no_call_can_be_demanded_and_nothing_is_sent(self, make: Make, more: dict[str, Any], choice: str) -> None:
        with serve([]) as server:
            _, failure = asyncio.run(hear(make(server), ask(tools=(ADD,), tool_choice=choice, **more)))
            assert not server.requests
        assert isinstance(failure, ModelFailure) and failure.kind == "bad_request"
        assert f"tool_choice is {choice!r}" in str(failure) and "use tool_choice='auto'" in str(failure)

    @pytest.mark.parametrize("make", [messages, claude])
    def test_it_may_call_and_may_be_kept_from_it(self, make: Make) -> None:
        for choice in ("auto", "none"):
            body = sent(make, ask(tools=(ADD,), tool_choice=choice, reasoning_effort="low"))
            assert body["tool_choice"] == {"type": choice} and body["thinking"]["type"] == "enabled"

    def test_one_that_is_told_not_to_think_may_be_made_to_call(self) -> None:
        for more in ({"reasoning_effort": "none"}, {"extra": {"thinking": {"type": "disabled"}}}):
            body = sent(messages, ask(tools=(ADD,), tool_choice="required", **more))
            assert body["tool_choice"] == {"type": "any"}
