"""All our models, and the public suite that holds them to the contract of `Model`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from turncell import UsageError
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.core.deltas import Finished, Fragment
from turncell.core.parts import Usage
from turncell.errors import ModelFailure
from turncell.runtime.ports import Capabilities, Model, ModelRequest
from turncell.testing import (
    MODEL_CLAUSES,
    ProviderServer,
    RulesModel,
    ScriptedModel,
    check_close,
    check_failure,
    check_model,
    fault,
    reply,
    serve,
)

pytestmark = pytest.mark.feature("G3")

WORDS = "Some words that come in pieces. " * 5
OVER_HTTP: dict[str, Callable[[ProviderServer], Model]] = {
    "chat": lambda server: DirectChat("m", base_url=server.base_url),
    "anthropic": lambda server: DirectAnthropic("claude-sonnet-4-5", base_url=server.origin),
    "responses": lambda server: DirectResponses("gpt-5", base_url=server.base_url),
    "litellm": lambda server: LiteLLMModel("openai/m", base_url=server.base_url, api_key="k"),
    "litellm whole": lambda server: LiteLLMModel("openai/m", base_url=server.base_url, api_key="k", is_whole=True),
    "litellm anthropic": lambda server: LiteLLMModel(
        "anthropic/claude-sonnet-4-5", base_url=server.origin, api_key="k"
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with serve(lambda body: reply(WORDS)) as server:
        yield server


@pytest.mark.parametrize("clause", MODEL_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("way", ["scripted", "rules", *OVER_HTTP])
def test_our_models_hold_the_contract(way: str, clause: Any, server: ProviderServer) -> None:
    if way in OVER_HTTP:
        clause(lambda: OVER_HTTP[way](server))
    else:
        clause(lambda: ScriptedModel(lambda request: WORDS) if way == "scripted" else RulesModel())


@pytest.mark.parametrize("way", OVER_HTTP)
def test_our_models_let_go_at_once_and_say_what_failed(way: str) -> None:
    with serve(lambda body: reply(WORDS, piece_chars=1, delay_s=0.05)) as server:
        check_close(lambda: OVER_HTTP[way](server), lambda: server.open_connections == 0)
    with serve(lambda body: fault(401, "no such key")) as server:
        check_failure(lambda: OVER_HTTP[way](server), "auth")
    with serve(lambda body: reply(WORDS, resets_after=3)) as server:
        check_failure(lambda: OVER_HTTP[way](server), "connection", "protocol")


class Broken:
    """A model that breaks one clause, and says which."""

    name = "broken"
    capabilities: Any = Capabilities()
    usage = Usage()

    def __init__(self, how: str) -> None:
        self._how = how
        self._asked = 0
        if how == "it_has_a_name":
            self.capabilities = {"schema": True}

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        if self._how == "lone_surrogates":
            repr(request).encode()
            "".join(part.text for one in request.messages for part in one.parts if part.type == "text").encode()
        self._asked += 1
        if self._how == "it_does_not_hold_up" and self._asked > 1:
            import time

            time.sleep(0.6)  # noqa: ASYNC251  (that is the point)
        if self._how == "tools_may_be" and len(request.tools) > 50:
            raise ModelFailure("bad_request", "too many tools")
        try:
            yield ["a"] if self._how != "bursts_are_lists" else []
            await asyncio.sleep(0)
            if self._how != "an_answer_has" and self._how != "exactly_one":
                yield ["b"]
        except GeneratorExit:
            if self._how == "a_stream_that_is_left":
                await asyncio.sleep(1.1)
            raise
        yield [Finished("stop", self.usage)]
        if self._how == "exactly_one":
            yield [Finished("stop")]


@pytest.mark.parametrize(
    "how", ["it_has_a_name", "bursts_are_lists", "exactly_one", "a_stream_that_is_left", "it_does_not_hold_up",
            "lone_surrogates", "tools_may_be"],
)  # fmt: skip
def test_a_model_that_breaks_a_clause_is_told_which(how: str) -> None:
    with pytest.raises(AssertionError, match=f"does not hold this: {how.replace('_', ' ')}"):
        check_model(lambda: Broken(how))


def test_what_a_run_would_refuse_is_told() -> None:
    model = Broken("not at all")
    model.usage = Usage(-1, 2)
    with pytest.raises(AssertionError, match="input_tokens=-1"):
        check_model(lambda: model)


def test_a_failure_that_is_no_model_failure_is_told() -> None:
    with pytest.raises(AssertionError, match=r"came as ValueError\('no'\), not as a ModelFailure"):
        check_failure(lambda: ScriptedModel([ValueError("no")]))
    with pytest.raises(AssertionError, match="nothing was raised"):
        check_failure(lambda: ScriptedModel(["All is well."]))
    with pytest.raises(AssertionError, match="the kind"):
        check_failure(lambda: ScriptedModel([ModelFailure("auth", "no key")]), "timeout")


def test_a_connection_that_stays_open_is_told() -> None:
    with pytest.raises(AssertionError, match="still open 1 s after the stream was closed"):
        check_close(lambda: ScriptedModel(lambda request: WORDS), lambda: False)


@pytest.mark.parametrize(("make", "why"), [(7, "make is 7"), (lambda: 7, "it has no name, stream")])
def test_what_makes_no_model_is_the_callers_mistake(make: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_model(make)


@pytest.mark.feature("G5")
def test_a_script_that_was_not_used_up_says_what_is_left() -> None:
    from turncell import Agent

    model = ScriptedModel(["One.", "Two.", "Three."])
    agent = Agent(model)
    agent.run_sync("Go on.")
    with pytest.raises(
        AssertionError, match=r"2 of 3 entries of the script were not asked for; the next one is 'Two\.'"
    ):
        model.assert_complete()
    for _ in range(2):
        agent.run_sync("Go on.")
    model.assert_complete()
