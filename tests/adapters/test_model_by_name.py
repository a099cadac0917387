"""A model by its name and what is said beside it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import turncell
from turncell import Agent, Patience, Price, UsageError
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.testing import ScriptedModel, reply, serve

pytestmark = pytest.mark.feature("G6")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("openai/qwen3", {"base_url": "http://localhost:8000/v1"}, DirectChat),
        ("qwen3", {"base_url": "http://localhost:8000/v1"}, DirectChat),
        ("openai/gpt-5.4", {"base_url": "http://localhost:8000/v1"}, DirectChat),
        ("openai/gpt-5.4", {"api_key": "k"}, DirectResponses),
        ("openai/responses/qwen3", {"base_url": "http://localhost:8000/v1"}, DirectResponses),
        ("anthropic/claude-sonnet-4-5", {"api_key": lambda: "k", "prompt_cache": "1h"}, DirectAnthropic),
        ("ollama_chat/qwen3", {"base_url": "http://localhost:11434"}, LiteLLMModel),
        ("groq/qwen3", {"api_key": "k", "timeout_s": 5, "headers": {"X": "y"}}, LiteLLMModel),
    ],
)
def test_name_and_options_choose_the_way(name: str, options: dict[str, Any], kind: type) -> None:
    assert type(turncell.model(name, **options)) is kind


@pytest.mark.parametrize("name", ["openai/m", "openai/responses/m", "anthropic/m"])
def test_the_same_options_reach_each_wire(name: str) -> None:
    with serve(["Fine."]) as server:
        model = turncell.model(
            name, base_url=server.base_url, api_key=lambda: "key-of-a-function", headers={"X-Team": "a"},
            extra_body={"seed": 7}, price=Price(1.0, 1.0), timeout_s=Patience(30, 60, 60),
        )  # fmt: skip
        run = Agent(model).run_sync("How are you?")
        (body,), (headers,) = server.requests, server.headers
    assert (run.text, run.state.steps[0].cost_basis, body["seed"], headers["x-team"]) == ("Fine.", "user", 7, "a")
    assert "key-of-a-function" in (headers.get("authorization", "") + headers.get("x-api-key", ""))
    assert "key-of-a-function" not in repr(model)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("openai/m", {"base_url": "localhost:8000"}, "base_url begins with http"),
        ("openai/m", {"base_ulr": "http://x"}, "no option 'base_ulr'; use .*base_url"),
        ("gemini/m", {"bogus": 1}, "no option 'bogus'; use .*api_key"),
        ("openai/m", {"timeout_s": 0}, "timeout_s is in seconds"),
        ("openai/m", {"timeout_s": "5"}, "timeout_s is in seconds.*found '5'"),
        ("openai/m", {"timeout_s": True}, "timeout_s is in seconds"),
        ("groq/m", {"timeout_s": Patience(first_s="5")}, "timeout_s is in seconds"),  # type: ignore[arg-type]
        ("openai/m", {"base_url": 8000}, "base_url is a text; found a int"),
        ("groq/m", {"base_url": "localhost:8000"}, "base_url begins with http"),
        ("openai/m", {"extra_body": ["seed"]}, "extra_body are fields of the request by name"),
        ("groq/m", {"extra_body": 7}, "extra_body are fields of the request by name"),
        ("embedded", {"api_key": "k"}, "'embedded' takes no options"),
        (ScriptedModel(["x"]), {"api_key": "k"}, "built already"),
    ],
)
def test_what_cannot_be_said_is_refused(model: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        turncell.model(model, **options)


@pytest.mark.parametrize(
    ("kind", "own"),
    [(DirectChat, "reasoning_field"), (DirectAnthropic, "prompt_cache"), (DirectResponses, "reasoning_summary")],
)
def test_the_signature_names_every_option(kind: type, own: str) -> None:
    assert {"name", "base_url", "api_key", "timeout_s", "price", own} <= set(inspect.signature(kind).parameters)


@pytest.mark.feature("A13")
@pytest.mark.parametrize("name", ["openai/m", "openai/responses/m", "anthropic/m"])
@pytest.mark.parametrize(("hangs_after", "patience"), [(0, Patience(1, 0.2, 20)), (5, Patience(5, 20, 0.2))])
def test_silence_has_a_bound_before_the_first_byte_and_one_after(
    name: str, hangs_after: int, patience: Patience
) -> None:
    with serve([reply("some text that goes on", hangs_after=hangs_after)] * 5) as server:
        run = Agent(turncell.model(name, base_url=server.base_url, timeout_s=patience), attempts=1).run_sync("go")
    assert (run.status, run.state.error_kind) == ("failed", "timeout")


@pytest.mark.feature("A19")
def test_openai_itself_is_held_to_a_schema_and_a_server_of_ones_own_where_it_is_said() -> None:
    def holds(name: str, **options: Any) -> bool:
        return turncell.model(name, **options).capabilities.schema  # type: ignore[attr-defined, no-any-return]

    assert holds("openai/gpt-4o", api_key="k")
    assert not holds("openai/gpt-4-turbo", api_key="k")
    assert not holds("openai/gpt-4o", base_url="http://localhost:8000/v1")
    assert holds("openai/gpt-4o", base_url="http://localhost:8000/v1", holds_schema=True)
    assert holds("xai/grok-4.3") and not holds("xai/grok-4.3", holds_schema=False)


@pytest.mark.feature("A14")
def test_a_budget_knows_what_a_call_may_cost_before_it() -> None:
    for name in ("openai/gpt-4o", "gemini/gemini-2.5-flash"):
        priced = turncell.model(name, api_key="k").price_usd(1_000_000, 0)  # type: ignore[attr-defined]
        assert priced and priced > 0, name
        own = turncell.model(name, api_key="k", price=Price(7.0, 8.0))
        assert own.price_usd(1_000_000, 1_000_000) == 15.0  # type: ignore[attr-defined]


@pytest.mark.feature("A14")
@pytest.mark.parametrize("price", [(7.0, 8.0), 5, {"input_usd": 1.0}])
@pytest.mark.parametrize("name", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"])
def test_what_is_no_price_is_refused_before_anything_is_paid(name: str, price: Any) -> None:
    with pytest.raises(UsageError, match=r"use Price\(input_usd, output_usd\)"):
        turncell.model(name, api_key="k", price=price)


@pytest.mark.parametrize("prices", [(-1.0, 2.0), (1.0, float("nan")), ("1", 2.0), (1.0, None), (1.0, 2.0, -1.0)])
def test_a_price_is_numbers(prices: Any) -> None:
    with pytest.raises(UsageError, match="use a number, 0 or more"):
        Price(*prices)
