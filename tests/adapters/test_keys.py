"""Keys and headers that are asked of the user's own functions, and what is no key."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import turncell
from tests.adapters.streams import KEY, hear
from turncell import Agent, Patience
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.errors import ModelFailure, UsageError
from turncell.testing import ProviderServer, ScriptedModel, reply, serve

pytestmark = pytest.mark.feature("G6")
WAYS: dict[str, Callable[..., Any]] = {
    "chat": lambda server, **more: DirectChat("openai/m", base_url=server.base_url, **more),
    "responses": lambda server, **more: DirectResponses("openai/m", base_url=server.base_url, **more),
    "anthropic": lambda server, **more: DirectAnthropic("anthropic/m", base_url=server.origin, **more),
    "litellm": lambda server, **more: LiteLLMModel("openai/m", base_url=server.base_url, **more),
    "litellm whole": lambda server, **more: LiteLLMModel("openai/m", base_url=server.base_url, is_whole=True, **more),
}
each_way = pytest.mark.parametrize("way", WAYS)


class Vault:
    """A function that gives a key when it is let."""

    def __init__(self) -> None:
        self.is_asked, self.may_answer = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self, *_: Any) -> str:
        self.thread = threading.current_thread()
        self.is_asked.set()
        self.may_answer.wait(5)
        return KEY

    def sign(self, url: str, body: bytes) -> dict[str, str]:
        return {"X-Signature": self()}


def sent_key(server: ProviderServer) -> str:
    headers = server.headers[-1]
    return headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")


@each_way
def test_a_function_that_waits_for_its_key_holds_up_nobody_else(way: str) -> None:
    vault = Vault()
    with serve([reply("With a key.")]) as server:
        waiting = Agent(WAYS[way](server, api_key=vault)).start("Hello")
        assert vault.is_asked.wait(30)
        assert Agent(ScriptedModel(["Quick."])).run_sync("Hello").text == "Quick."
        assert not waiting.is_done
        vault.may_answer.set()
        assert waiting.result().text == "With a key."
        assert sent_key(server) == KEY


@each_way
def test_a_run_that_waits_for_its_key_is_cancelled_at_once(way: str) -> None:
    vault = Vault()
    with serve([reply("never")]) as server:
        run = Agent(WAYS[way](server, api_key=vault)).start("Hello")
        assert vault.is_asked.wait(30)
        began = time.monotonic()
        run.cancel()
        assert run.result().status == "cancelled"
        assert time.monotonic() - began < 2
        vault.may_answer.set()
        assert not server.requests
    # Such a thread does not keep the process from ending.
    assert vault.thread is not None and vault.thread.daemon


@each_way
def test_a_function_that_never_returns_is_given_up(way: str) -> None:
    vault = Vault()
    with serve([]) as server:
        model = WAYS[way](server, api_key=vault, timeout_s=Patience(connect_s=0.2))
        _, found = asyncio.run(hear(model))
    vault.may_answer.set()
    assert isinstance(found, ModelFailure) and found.kind == "timeout"
    assert "api_key() has given nothing in 0.2 s" in str(found) and "connect_s" in str(found)


def test_a_signature_that_is_slow_holds_up_nobody_else() -> None:
    vault = Vault()
    with serve([reply("Signed.")]) as server:
        run = Agent(WAYS["chat"](server, auth=vault.sign)).start("Hello")
        assert vault.is_asked.wait(30)
        assert Agent(ScriptedModel(["Quick."])).run_sync("Hello").text == "Quick."
        vault.may_answer.set()
        assert run.result().text == "Signed."
        assert server.headers[0]["x-signature"] == KEY


def test_the_function_sees_the_callers_context() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")
    with serve([reply("x")]) as server:
        tenant.set("ada")
        asyncio.run(hear(WAYS["chat"](server, api_key=lambda: f"key of {tenant.get()}")))
        assert sent_key(server) == "key of ada"


@each_way
@pytest.mark.parametrize("is_async", [False, True])
def test_keys_come_from_functions_without_the_blanks_around_them(way: str, is_async: bool) -> None:
    async def later() -> str:
        return f" {KEY}\n"

    with serve([reply("x")]) as server:
        asyncio.run(hear(WAYS[way](server, api_key=later if is_async else lambda: f" {KEY}\n")))
        assert sent_key(server) == KEY


def leave() -> str:
    sys.exit(1)


@each_way
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: {}["no"], "api_key() raised KeyError; "),
        (leave, "api_key() raised SystemExit; "),
        (lambda: None, "api_key() returned None; "),
        (lambda: 5, "api_key() returned a value of type int; "),
        (lambda: b"secret bytes", "api_key() returned a value of type bytes; "),
        (lambda: " ", "api_key() returned an empty text; "),
    ],
)
def test_what_a_function_did_instead_of_giving_a_key_is_said(way: str, function: Any, words: str) -> None:
    with serve([]) as server:
        _, found = asyncio.run(hear(WAYS[way](server, api_key=function)))
    assert isinstance(found, ModelFailure) and found.kind == "auth"
    assert words + "it must return a key, as text" in str(found) and "secret" not in str(found)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda *_: None, "auth() returned None; "),
        (lambda *_: [1], "auth() returned a value of type list; "),
        (lambda *_: {"X-Key": b"secret bytes"}, "auth() returned a header 'X-Key' of type bytes; "),
    ],
)
def test_what_a_function_did_instead_of_giving_headers_is_said(made: Any, words: str) -> None:
    with serve([]) as server:
        _, found = asyncio.run(hear(WAYS["chat"](server, auth=made)))
    assert isinstance(found, ModelFailure) and found.kind == "auth"
    assert words + "it must return headers, as texts by name" in str(found) and "secret" not in str(found)


@pytest.mark.parametrize("name", ["m", "openai/responses/gpt-5", "anthropic/m", "groq/m"])
@pytest.mark.parametrize("key", [5, b"secret bytes", ["secret"]])
def test_what_can_be_no_key_is_refused_where_it_is_given(name: str, key: Any) -> None:
    with pytest.raises(
        UsageError, match="api_key is a text or a function that returns one; found a value of type"
    ) as caught:
        turncell.model(name, base_url="http://localhost:1/v1", api_key=key)
    assert "secret" not in str(caught.value)


def test_what_can_make_no_headers_is_refused_where_it_is_given() -> None:
    with pytest.raises(UsageError, match="auth is a function"):
        turncell.model("m", base_url="http://localhost:1/v1", auth={"X-Key": "secret"})
    for headers in ({"X-Key": 5}, {5: "x"}):
        for name in ("m", "groq/m"):
            with pytest.raises(UsageError, match="headers are texts by name"):
                turncell.model(name, base_url="http://localhost:1/v1", headers=headers)


@pytest.mark.parametrize("empty", ["", " \n"])
@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai/gpt-4o-mini", "OPENAI_API_KEY"),
        ("openai/responses/gpt-5", "OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "GEMINI_API_KEY"),
    ],
)
def test_an_empty_key_is_a_missing_one(monkeypatch: pytest.MonkeyPatch, name: str, variable: str, empty: str) -> None:
    for each in [each for each in os.environ if each.endswith(("_API_KEY", "_AUTH_TOKEN", "_BASE_URL"))]:
        monkeypatch.delenv(each)
    run = Agent(turncell.model(name, api_key=empty)).run_sync("Hello")
    assert run.status == "failed" and run.state.steps[0].error_kind == "auth"
    assert f"{variable} not set in the environment" in str(run.state.error)


@pytest.mark.parametrize("way", ["chat", "responses", "anthropic"])
def test_a_server_that_needs_no_key_is_sent_none(way: str) -> None:
    with serve([reply("x")] * 3) as server:
        for key in ("", None, "none"):
            asyncio.run(hear(WAYS[way](server, api_key=key)))
        empty, missing, given = server.headers
    names = {"authorization", "x-api-key"}
    assert not names & {*empty, *missing} and len(names & set(given)) == 1
