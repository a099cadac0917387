"""What a provider says of tokens, costs and the end, and cannot be: it costs nobody a whole answer that was paid for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from turncell import Agent, Price
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.core.codec import decode, encode
from turncell.testing import raw, serve

pytestmark = pytest.mark.feature("G2")


def chat(usage: Any, **more: Any) -> str:
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "Paid for."}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage, **more},
    ]
    return "".join(f"data: {json.dumps(one)}\n\n" for one in chunks)


def anthropic(usage: Any, **more: Any) -> str:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m",
                                              "usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Paid for."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage, **more},
        {"type": "message_stop"},
    ]  # fmt: skip
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)


def responses(usage: Any, **more: Any) -> str:
    events = [
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Paid for."},
        {"type": "response.completed", "response": {"status": "completed", "usage": usage, **more}},
    ]
    return "".join(f"data: {json.dumps(one)}\n\n" for one in events)


PRICE = Price(1.0, 2.0)
OPENAI = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details", "cached_tokens")
ANTHROPIC = ("input_tokens", "output_tokens", "cache_creation", "output_tokens_details", "thinking_tokens")
RESPONSES = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details", "cached_tokens")
Way = tuple[Callable[..., str], tuple[str, ...], Callable[..., Any]]
WAYS: dict[str, Way] = {
    "chat": (chat, OPENAI, lambda s: DirectChat("m", base_url=s.base_url, price=PRICE)),
    "anthropic": (anthropic, ANTHROPIC, lambda s: DirectAnthropic("m", base_url=s.origin, price=PRICE)),
    "responses": (responses, RESPONSES, lambda s: DirectResponses("m", base_url=s.base_url, price=PRICE)),
    "built by LiteLLM": (chat, OPENAI, lambda s: LiteLLMModel("openai/gpt-4o", base_url=s.base_url, api_key="k")),
    "LiteLLM's parser": (
        anthropic, ANTHROPIC, lambda s: LiteLLMModel("anthropic/claude-sonnet-4-5", base_url=s.origin, api_key="k"),
    ),
    "LiteLLM whole": (
        chat, OPENAI, lambda s: LiteLLMModel("openai/gpt-4o", base_url=s.base_url, api_key="k", is_whole=True),
    ),
}  # fmt: skip
OWN = ("chat", "anthropic", "responses", "built by LiteLLM")
"""Who reads all of it here. LiteLLM's own reading refuses some of it, or makes numbers of it, before anything is seen of it."""


def run_of(way: str, usage: Any, **more: Any) -> Any:
    write, _, make = WAYS[way]
    with serve([raw(write(usage, **more))]) as server:
        run = Agent(make(server)).run_sync("Hello")
        assert len(server.requests) == 1
    assert (run.status, run.text) == ("completed", "Paid for."), run.state.error
    (step,) = run.state.steps
    assert all(type(one) is int and 0 <= one <= 10**12 for one in (step.usage.input_tokens, step.usage.output_tokens))
    assert step.cost_usd is None or step.cost_usd >= 0
    assert [decode(encode(event)) for event in run.events] == list(run.events), "it can be read again"
    return step


ODD = [-3, 2.5, "many", None, True, 10**15, 10**30, [], {"tokens": 4}]


CASES = [(way, odd) for way in OWN for odd in ODD] + [
    (way, odd) for way in ("LiteLLM's parser", "LiteLLM whole") for odd in (-3, 10**15, 10**30)
]


@pytest.mark.parametrize(("way", "odd"), CASES, ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_a_count_that_is_none_is_estimated(way: str, which: int, odd: Any) -> None:
    names = WAYS[way][1]
    step = run_of(way, {names[0]: 9, names[1]: 4, names[which]: odd})
    if not (way == "anthropic" and odd in (None, [])):  # what they leave out stands as it was
        assert step.usage.is_estimated
        assert step.cost_usd is None, "no estimate makes the cost of a whole answer"


@pytest.mark.parametrize("way", [*OWN, "LiteLLM whole"])
@pytest.mark.parametrize("odd", [*ODD, {"cached_tokens": -1, "thinking_tokens": -1, "reasoning_tokens": "4"}], ids=str)
def test_odd_details_do_no_harm(way: str, odd: Any) -> None:
    names = WAYS[way][1]
    step = run_of(way, {names[0]: 9, names[1]: 4, names[2]: odd, names[3]: odd, "cache_read_input_tokens": odd})
    assert all(
        one is None or (type(one) is int and one >= 0)
        for one in (step.usage.cache_read_tokens, step.usage.reasoning_tokens)
    )


@pytest.mark.parametrize("way", [*OWN, "LiteLLM whole"])
@pytest.mark.parametrize("odd", ["none", [], [1], 5, None, False, {}], ids=str)
def test_odd_usage_does_no_harm(way: str, odd: Any) -> None:
    run_of(way, odd)


@pytest.mark.parametrize("way", ["chat", "built by LiteLLM", "LiteLLM whole"])
@pytest.mark.parametrize("odd", [-0.5, "0.1", True, None, 1e400, float("nan")], ids=str)
def test_an_odd_cost_does_no_harm(way: str, odd: Any) -> None:
    step = run_of(way, {"prompt_tokens": 9, "completion_tokens": 4, "cost": odd})
    assert step.cost_basis in ("user", "prices", "none")


@pytest.mark.parametrize("odd", [5, [], {}, None], ids=str)
def test_an_odd_end_does_no_harm(odd: Any) -> None:
    run_of("responses", None, model=odd, incomplete_details=odd)
    run_of("responses", None, model=odd, incomplete_details=odd, status="incomplete")
    run_of("anthropic", None, delta=odd)
    run_of("anthropic", None, delta={"stop_reason": odd})
    run_of("chat", None, model=odd)


@pytest.mark.parametrize("way", OWN)
@pytest.mark.parametrize("odd", ["null", "[1]", "5", '"ping"'])
def test_an_event_that_is_no_object_does_no_harm(way: str, odd: str) -> None:
    write, _, make = WAYS[way]
    with serve([raw(f"data: {odd}\n\n", write(None))]) as server:
        assert Agent(make(server)).run_sync("Hello").text == "Paid for."
        assert len(server.requests) == 1
