"""LiteLLM as a model: real LiteLLM, real HTTP, a server on loopback that can do everything wrong."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.adapters.streams import quickest
from turncell.adapters.http_stream import Patience
from turncell.adapters.litellm_model import LiteLLMModel, warm_up
from turncell.adapters.litellm_request import RequestBuilder
from turncell.adapters.price import Price
from turncell.core.deltas import Finished, Fragment, assemble
from turncell.core.parts import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult, Usage
from turncell.errors import ModelFailure, UnknownModelError
from turncell.runtime.ports import Model, ModelRequest, ToolSpec
from turncell.testing import ProviderServer, Reply, call, fault, raw, reply, serve

pytestmark = pytest.mark.feature("G1")

KEY = "sk-very-secret-0123456789"
ADD = ToolSpec("add", "Add numbers", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


def ask(text: str = "hi", **more: Any) -> ModelRequest:
    return ModelRequest(messages=(Message("user", (Text(text),)),), **more)


is_whole = False
"""Whether LiteLLM does all of it, or builds the request alone."""


@pytest.fixture(autouse=True, params=[False, True], ids=["built by LiteLLM", "LiteLLM whole"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "is_whole", request.param)


def model(server: ProviderServer | None = None, name: str = "openai/gpt-4o-mini", **more: Any) -> LiteLLMModel:
    options = {"api_key": KEY, "base_url": server and server.base_url, "timeout_s": 20, "is_whole": is_whole, **more}
    return LiteLLMModel(name, **options)


async def hear(model: Model, request: ModelRequest | None = None) -> tuple[tuple[Part, ...], Finished]:
    fragments: list[Fragment] = []
    async for burst in model.stream(request or ask()):
        assert burst, "a burst is never empty"
        fragments += burst
    last = fragments.pop()
    assert isinstance(last, Finished)
    assert not any(isinstance(fragment, Finished) for fragment in fragments)
    return assemble(fragments), last


def answer(one: Reply, request: ModelRequest | None = None, **more: Any) -> tuple[tuple[Part, ...], Finished]:
    with serve([one]) as server:
        return asyncio.run(hear(model(server, **more), request))


def failure(one: Reply | None = None, **more: Any) -> ModelFailure:
    async def main(server: ProviderServer | None) -> ModelFailure:
        with pytest.raises(ModelFailure) as caught:
            await hear(model(server, **more))
        return caught.value

    if one is None:
        return asyncio.run(main(None))
    with serve([one]) as server:
        return asyncio.run(main(server))


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    warm_up()


@pytest.fixture(autouse=True)
def _silent(capfd: pytest.CaptureFixture[str]) -> Any:
    """LiteLLM prints advice when calls fail; a notebook must not show it."""
    yield
    said = capfd.readouterr()
    assert "LiteLLM" not in said.out + said.err
    assert "never" not in said.err, said.err


def test_text_is_streamed() -> None:
    parts, end = answer(reply("Grüße aus Tromsø 🌦", model="gpt-4o-mini-2024", usage=Usage(10, 5)))
    assert parts == (Text("Grüße aus Tromsø 🌦"),)
    assert (end.finish_reason, end.answered_by) == ("stop", "gpt-4o-mini-2024")


@pytest.mark.parametrize("chunk_bytes", [1, 3, 7, 64])
def test_the_wire_may_be_cut_anywhere(chunk_bytes: int) -> None:
    calls = [call("add", a=1, text="zwölf 🌦"), call("add", a=2)]
    one = reply("Grüße 🌦 x", reasoning="hm, 考え", calls=calls, chunk_bytes=chunk_bytes, is_interleaved=True)
    assert answer(one)[0] == (
        Reasoning("hm, 考え"),
        Text("Grüße 🌦 x"),
        ToolCall("call_1", "add", '{"a": 1, "text": "zwölf 🌦"}', "call_1"),
        ToolCall("call_2", "add", '{"a": 2}', "call_2"),
    )


@pytest.mark.parametrize("options", [{"has_comments": True}, {"has_crlf": True}, {"has_done": False}])
def test_the_wire_may_look_otherwise(options: dict[str, Any]) -> None:
    assert answer(reply("Hello", **options))[0] == (Text("Hello"),)


@pytest.mark.parametrize("indexes", ["own", "zero", "from 1", "none"])
@pytest.mark.parametrize("ids", ["first", "every"])
def test_calls_are_told_apart(indexes: Any, ids: Any) -> None:
    one = reply(calls=[call("add", a=1), call("sub", a=2)], indexes=indexes, ids=ids, piece_chars=3)
    parts, end = answer(one)
    texts = [(part.name, part.arguments_text) for part in parts if isinstance(part, ToolCall)]
    assert texts == [("add", '{"a": 1}'), ("sub", '{"a": 2}')]
    assert end.finish_reason == "tool_calls"


def test_usage_and_cost_are_those_of_the_provider_and_of_the_price_table() -> None:
    usage = Usage(100, 50, cache_read_tokens=30, reasoning_tokens=20)
    _, end = answer(reply("x", usage=usage))
    assert end.usage == usage
    # 70 at $0.15, 30 cached at $0.075, 50 at $0.60 per million.
    assert end.cost_usd == pytest.approx((70 * 0.15 + 30 * 0.075 + 50 * 0.6) / 1e6)
    assert end.cost_basis == "prices"


@pytest.mark.feature("G6")
def test_a_price_that_is_given_counts_more_than_the_list() -> None:
    usage = Usage(1_000_000, 0)
    _, end = answer(reply("x", usage=usage), price=Price(7.0, 9.0))
    assert (end.cost_usd, end.cost_basis) == (7.0, "user")


@pytest.mark.feature("G6")
def test_headers_and_fields_of_the_users_reach_the_wire() -> None:
    with serve(["x"]) as server:
        asyncio.run(hear(model(server, headers={"X-Team": "a"}, extra_body={"top_k": 7})))
        assert (server.headers[0]["x-team"], server.requests[0]["top_k"]) == ("a", 7)


@pytest.mark.feature("A19")
def test_an_answer_is_held_to_a_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    with serve(['{"n": 1}']) as server:
        asyncio.run(hear(model(server, holds_schema=True), ask(output_schema=schema)))
        assert server.requests[0]["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.feature("C6")
@pytest.mark.parametrize("name", ["anthropic/claude-sonnet-4-5", "openrouter/anthropic/claude-sonnet-4.5"])
def test_what_anthropics_models_are_to_keep_is_marked_on_the_wire(name: str) -> None:
    talk = (
        Message("user", (Text("Add."),)),
        Message("assistant", (ToolCall("c1", "add", '{"a": 1}', "c1"),)),
        Message("tool", (ToolResult("c1", "add", "2"),)),
        Message("assistant", (Text("It is 2."),)),
        Message("user", (Text("And now?"),)),
    )
    request = ask(instructions="Be brief.", tools=(ADD,))
    request = replace(request, messages=talk)
    with serve(["x", "x"]) as server:
        base_url = server.origin if name.startswith("anthropic") else server.base_url
        asyncio.run(hear(model(server, name, base_url=base_url), request))
        asyncio.run(hear(model(server, name, base_url=base_url, prompt_cache="off"), request))
        marked, plain = server.requests
    assert "cache_control" not in str(plain)
    system = marked["system"] if "system" in marked else marked["messages"][0]["content"]
    assert system[-1]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" in str(marked["messages"][-1]) and "cache_control" in str(marked["messages"][-3])
    assert str(marked).count("cache_control") <= 4


def test_a_cost_on_the_wire_is_the_providers() -> None:
    base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.25}
    one = raw(
        {**base, "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]},
        {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**base, "choices": [], "usage": usage},
    )
    _, end = answer(one)
    assert (end.cost_usd, end.cost_basis, end.usage) == (0.25, "provider", Usage(3, 2))


def test_an_unknown_price_is_not_zero() -> None:
    _, end = answer(reply("x", usage=Usage(100, 50)), name="openai/my-own-model")
    assert (end.cost_usd, end.cost_basis) == (None, "none")


def test_tokens_that_the_provider_did_not_say_are_not_invented() -> None:
    _, end = answer(reply("four words of text", has_usage=False))
    assert (end.usage, end.cost_usd, end.cost_basis) == (Usage(), None, "none")


@pytest.mark.parametrize(("said", "meant"), [("length", "length"), ("content_filter", "filter"), ("stop", "stop")])
def test_reasons_are_mapped(said: str, meant: str) -> None:
    assert answer(reply("x", finish_reason=said))[1].finish_reason == meant


def test_300_equal_chunks_are_an_answer() -> None:
    parts, _ = answer(reply("abab" * 300, piece_chars=4))
    assert parts == (Text("abab" * 300),)


def test_the_chunks_are_not_kept() -> None:
    """A stream's wrapper that keeps 20,000 of its chunks holds 80 MB."""
    import gc

    gc.collect()  # those of the tests before

    async def main(server: ProviderServer) -> int:
        count = 0
        async for burst in model(server).stream(ask()):
            count += len(burst)
            if count >= 400:
                return sum(type(one).__name__ == "ModelResponseStream" for one in gc.get_objects())
        raise AssertionError("too short")

    with serve([reply("abcdefgh" * 500)]) as server:
        assert asyncio.run(main(server)) < 50


HISTORY = (
    Message("user", (Text("What is this? \ud83d"), Image("aGk=", "image/png"), Image("https://example.org/a.png"))),
    Message(
        "assistant",
        (
            Reasoning("no seal"),
            Reasoning("sealed", "sig=="),
            Text("I add."),
            ToolCall("run_1-1-1", "add", '{"a": 1}', "call_x"),
            ToolCall("run_1-1-2", "add", '{"a": 2}', "functions.add:1"),
            ToolCall("run_1-1-3", "add", '{"a": 3}', "call_x"),
            ToolCall("run_1-1-4", "add", '{"a": 4}'),
        ),
    ),
    Message("tool", tuple(ToolResult(f"run_1-1-{n}", "add", f"result {n}", n == 2) for n in (1, 2, 3, 4))),
    Message("assistant", (ToolCall("run_1-2-1", "add", "", "call_y__thought__c2lnbmF0dXJl"),)),
    Message("tool", (ToolResult("run_1-2-1", "add", "grüß \udc00"),)),
)


def test_a_conversation_on_the_wire() -> None:
    request = ModelRequest(
        messages=HISTORY,
        instructions="Be brief.",
        tools=(ADD,),
        temperature=0.5,
        max_tokens=77,
        extra={"seed": 7},
    )
    with serve([reply("ok")]) as server:
        asyncio.run(hear(model(server, extra={"top_p": 0.5, "seed": 1}), request))
        body, headers = server.requests[0], server.headers[0]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert {name: body[name] for name in ("temperature", "seed", "top_p", "stream")} == {
        "temperature": 0.5, "seed": 7, "top_p": 0.5, "stream": True,
    }  # fmt: skip
    assert body["stream_options"] == {"include_usage": True}
    assert 77 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "add", "description": "Add numbers", "parameters": ADD.schema},
        }
    ]
    known = {"messages", "model", "stream", "stream_options", "tools", "temperature", "top_p", "seed"}
    assert set(body) - known <= {"max_tokens", "max_completion_tokens"}, "nothing of LiteLLM's own may leak"
    system, user, first, *results, second, last = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == [
        {"type": "text", "text": "What is this? \ufffd"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    assert first["content"] == "I add."
    ids = [one["id"] for one in first["tool_calls"]]
    assert (ids[0], ids[2], ids[3]) == ("call_x", "run_1-1-3", "run_1-1-4")
    assert all(len(one) <= 64 and one.replace("-", "").replace("_", "").isalnum() for one in ids)
    assert len(set(ids)) == 4
    assert [one["tool_call_id"] for one in results] == ids
    assert [one["content"] for one in results] == [f"result {n}" for n in (1, 2, 3, 4)]
    assert second["tool_calls"][0]["id"] == "call_y" == last["tool_call_id"]
    assert second["tool_calls"][0]["function"]["arguments"] == "{}"
    assert last["content"] == "grüß \ufffd"


def test_results_come_back_to_their_calls() -> None:
    """Two turns over the wire: what the model asked for is what it gets an answer to."""

    async def main(server: ProviderServer) -> str:
        talk = [Message("user", (Text("add"),))]
        for _ in range(2):
            parts, _ = await hear(model(server), ModelRequest(messages=tuple(talk), tools=(ADD,)))
            talk.append(Message("assistant", parts))
            results = tuple(ToolResult(c.call_id, c.name, f"= {c.name}", False, c.provider_id) for c in talk[-1].calls)
            if results:
                talk.append(Message("tool", results))
        return talk[-1].text

    calls = [replace(call("add", a=1), provider_id="abc"), replace(call("add", a=2), provider_id="def")]
    with serve([reply(calls=calls, is_interleaved=True), reply("done")]) as server:
        assert asyncio.run(main(server)) == "done"
        asked, *answers = server.requests[1]["messages"][1:]
    assert [one["id"] for one in asked["tool_calls"]] == ["abc", "def"] == [one["tool_call_id"] for one in answers]


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    ("one", "kind", "status_code", "retry_after_s"),
    [
        (fault(401, f"Incorrect API key provided: {KEY}"), "auth", 401, None),
        (fault(403), "auth", 403, None),
        (fault(404, "no such model"), "not_found", 404, None),
        (fault(408), "timeout", 408, None),
        (fault(429, "slow down", retry_after_s=7), "rate_limit", 429, 7.0),
        (fault(429, "Please retry in 5.5s."), "rate_limit", 429, 5.5),
        (fault(400, "bad", code="invalid"), "bad_request", 400, None),
        (fault(400, "This model's maximum context length is 8 tokens"), "context_length", 400, None),
        (fault(400, "Your request exceeded model token limit: 8"), "context_length", 400, None),
        (fault(400, "no", code="content_policy_violation"), "filter", 400, None),
        (fault(500, "boom"), "overloaded", 500, None),
        (fault(503, retry_after_s=1.5), "overloaded", 503, 1.5),
        (fault(504), "timeout", 504, None),
        (fault(529, "overloaded"), "overloaded", 529, None),
        (reply("some text", errors_after=2), "overloaded", 500, None),
        (reply("some text", resets_after=0), "connection", None, None),
        (reply("some text", resets_after=2), "connection", None, None),
        (raw("data: {broken\n\n"), "protocol", None, None),
    ],
)
def test_failures_have_a_kind(one: Reply, kind: str, status_code: int | None, retry_after_s: float | None) -> None:
    found = failure(one)
    assert (found.kind, found.status_code, found.retry_after_s) == (kind, status_code, retry_after_s)
    assert str(found).startswith("openai/gpt-4o-mini: ")
    assert KEY not in str(found)
    assert "litellm." not in str(found)
    assert "Traceback" not in str(found)
    assert found.__cause__ is not None or (status_code is not None and not is_whole), "what another has raised is told"


@pytest.mark.feature("A13")
def test_a_failure_is_asked_once() -> None:
    with serve([fault(500), reply("never asked for")]) as server:
        with pytest.raises(ModelFailure):
            asyncio.run(hear(model(server)))
        assert len(server.requests) == 1


@pytest.mark.feature("A13")
def test_what_came_before_a_failure_is_kept() -> None:
    async def main(server: ProviderServer) -> tuple[Part, ...]:
        heard: list[Fragment] = []
        with pytest.raises(ModelFailure, match=r"lost the connection to http://127\.0\.0\.1"):
            async for burst in model(server).stream(ask()):
                heard += burst
        return assemble(heard)

    with serve([reply("12345678 and more", resets_after=2)]) as server:
        assert asyncio.run(main(server)) == (Text("12345678"),)


@pytest.mark.feature("A13")
def test_a_stream_without_an_end_is_a_failure() -> None:
    delta = {"index": 0, "delta": {"role": "assistant", "content": "half an ans"}, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
    found = failure(raw(chunk, has_done=False))
    assert found.kind == "protocol"
    assert "ended before the answer did" in str(found)


def test_nobody_listens() -> None:
    found = failure(base_url="http://127.0.0.1:9/v1")
    assert found.kind == "connection"
    assert "cannot reach http://127.0.0.1:9/v1" in str(found)
    assert "refused" in str(found) or "111" in str(found)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai/gpt-4o-mini", "OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "GEMINI_API_KEY"),
    ],
)
def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, variable: str) -> None:
    for each in [each for each in os.environ if each.endswith(("_API_KEY", "_AUTH_TOKEN"))]:
        monkeypatch.delenv(each)
    found = failure(name=name, api_key=None)
    assert found.kind == "auth"
    assert variable in str(found)
    assert "not set in the environment" in str(found) and "`keyring set turncell " in str(found)


def test_an_unknown_provider_gets_a_hint() -> None:
    assert "'opneai' in 'opneai/gpt' is no provider that LiteLLM knows; did you mean 'openai'" in str(
        failure(name="opneai/gpt")
    )
    for name in ("OPENAI/gpt-5", "Openai/gpt-5"):
        assert str(failure(name=name)).endswith("no provider that LiteLLM knows; did you mean 'openai'?")
    assert "did you mean 'anthropic'" in str(failure(name="ANTROPIC/claude"))
    found = failure(name="zzzz/my-model", base_url="http://127.0.0.1:9/v1")
    assert "its documentation lists them. A server that" in str(found)
    found = failure(name="my-model", base_url="http://127.0.0.1:9/v1")
    assert found.kind == "not_found"
    assert "'openai/my-model' with base_url='http://127.0.0.1:9/v1'" in str(found)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UnknownModelError, match="'provider/model'"):
        LiteLLMModel(" ")


@pytest.mark.feature("G6")
def test_keys_may_come_from_a_function() -> None:
    async def later() -> str:
        return "from-later"

    with serve([reply("x"), reply("x")]) as server:
        asyncio.run(hear(model(server, api_key=lambda: "from-function")))
        asyncio.run(hear(model(server, api_key=later)))
        assert [one["authorization"] for one in server.headers] == [
            "Bearer from-function",
            "Bearer from-later",
        ]
        with pytest.raises(ModelFailure) as caught:
            asyncio.run(hear(model(server, api_key=lambda: os.environ["NO_SUCH_KEY"])))
        found = caught.value
    assert found.kind == "auth"
    assert "KeyError" in str(found)


def test_a_silent_provider_times_out() -> None:
    for hangs_after in (0, 2):
        with serve([reply("x", hangs_after=hangs_after)]) as server:
            began = time.monotonic()
            with pytest.raises(ModelFailure, match=r"no answer from http://127\.0\.0\.1.* in time") as caught:
                asyncio.run(hear(model(server, timeout_s=Patience(1.0, 0.2, 0.5))))
            assert caught.value.kind == "timeout"
            assert time.monotonic() - began < 20
            server.wait_until_closed()


async def cancel(stream: Callable[[], Awaitable[Any]], server: ProviderServer) -> float:
    """Cancel while the provider is silent; the seconds until the server saw that its client had gone."""
    task = asyncio.ensure_future(stream())
    await asyncio.to_thread(server.wait_until_open)
    await asyncio.sleep(0.2)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while server.open_connections:
        assert time.monotonic() - began < 30
        await asyncio.sleep(0.001)
    return time.monotonic() - began


@pytest.mark.feature("A11")
@pytest.mark.parametrize("hangs_after", [0, 2])
def test_cancelling_closes_the_connection_at_once(hangs_after: int) -> None:
    def once() -> float:
        with serve([reply("some text", hangs_after=hangs_after)]) as server:
            return asyncio.run(cancel(lambda: hear(model(server)), server))

    assert quickest(once) < 0.1


@pytest.mark.feature("A11")
def test_leaving_a_stream_closes_the_connection() -> None:
    async def main(server: ProviderServer) -> float:
        stream = model(server).stream(ask())
        async for _ in stream:
            break
        began = time.monotonic()
        await stream.aclose()  # type: ignore[attr-defined]
        while server.open_connections:
            assert time.monotonic() - began < 30
            await asyncio.sleep(0.001)
        return time.monotonic() - began

    def once() -> float:
        with serve([reply("text " * 50, hangs_after=3)]) as server:
            return asyncio.run(main(server))

    assert quickest(once) < 0.1


def test_twenty_streams_side_by_side() -> None:
    async def main(server: ProviderServer) -> list[str]:
        one = model(server)
        answers = await asyncio.gather(*(hear(one, ask(f"number {n}")) for n in range(20)))
        return [Message("assistant", parts).text for parts, _ in answers]

    with serve(lambda body: reply("re: " + body["messages"][-1]["content"], delay_s=0.002)) as server:
        assert asyncio.run(main(server)) == [f"re: number {n}" for n in range(20)]


SEALED: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "claude-x",
     "content": [], "usage": {"input_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3,
     "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "see"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2VhbA=="}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "c2VjcmV0"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "add",
     "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 20}},
    {"type": "message_stop"},
]  # fmt: skip


def test_sealed_reasoning_goes_back_unchanged() -> None:
    """Anthropic's wire format: blocks with signatures come in, and the same blocks go out with the results."""

    async def main(server: ProviderServer) -> tuple[tuple[Part, ...], Finished]:
        thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
        claude = model(name="anthropic/claude-sonnet-4-5", base_url=server.origin, extra=thinking)
        parts, end = await hear(claude, ask(tools=(ADD,), max_tokens=2048))
        talk = (*ask().messages, Message("assistant", parts), Message("tool", (ToolResult("call_1", "add", "1"),)))
        await hear(claude, ModelRequest(messages=talk, tools=(ADD,), max_tokens=2048))
        return parts, end

    with serve([raw(*SEALED), raw(*SEALED)]) as server:
        parts, end = asyncio.run(main(server))
        bodies = server.requests
    assert parts == (
        Reasoning("let me see", "anthropic:c2VhbA=="),
        Reasoning("", "anthropic:redacted:c2VjcmV0"),
        ToolCall("call_1", "add", '{"a": 1}', "toolu_1"),
    )
    assert end.finish_reason == "tool_calls"
    assert end.usage == Usage(
        17, 20, cache_read_tokens=4, cache_write_tokens=3, reasoning_tokens=end.usage.reasoning_tokens
    )
    assert bodies[1]["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "let me see", "signature": "c2VhbA=="},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}},
    ]
    assert bodies[1]["messages"][2]["content"][0]["tool_use_id"] == "toolu_1"


def test_a_request_built_in_the_middle_of_another_stays_its_own() -> None:
    """As another thread may build one: here a comparison does, since it stands between what is looked up and what is used."""
    builder = RequestBuilder(warm_up(), "openai/m", "openai", "http://127.0.0.1:9/v1")

    def max_tokens(limit: int, temperature: float = 0.5) -> Any:
        built = builder.build(ask(max_tokens=limit, temperature=temperature), KEY, {})
        assert built is not None
        return json.loads(built.body)["max_tokens"]

    seen: list[Any] = []

    class Meanwhile(float):
        __hash__ = float.__hash__

        def __eq__(self, other: object) -> bool:
            seen.append(max_tokens(2))
            return float(self) == other

    assert max_tokens(1) == 1
    assert (max_tokens(1, Meanwhile(0.5)), seen) == (1, [2])


def test_the_users_own_callbacks_still_see_the_whole_answer() -> None:
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

    seen: list[Any] = []

    class Watch(CustomLogger):
        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            seen.append(response_obj.choices[0].message.content)

    async def main(server: ProviderServer) -> None:
        await hear(model(server))
        for _ in range(6_000):
            if seen:
                break
            await asyncio.sleep(0.01)

    litellm.callbacks.append(watch := Watch())
    try:
        with serve([reply("the whole answer")]) as server:
            asyncio.run(main(server))
    finally:
        litellm.callbacks.remove(watch)
        for name in (
            "success_callback",
            "failure_callback",
            "_async_success_callback",
            "_async_failure_callback",
            "input_callback",
            "_async_input_callback",
        ):
            if watch in getattr(litellm, name):
                getattr(litellm, name).remove(watch)
    assert seen == ["the whole answer"]


def test_it_is_a_model() -> None:
    assert isinstance(LiteLLMModel("openai/x"), Model)


@pytest.mark.feature("C1")
def test_a_model_of_the_table_says_its_window_and_others_say_nothing() -> None:
    warm_up()
    known = LiteLLMModel("openai/gpt-4o-mini").capabilities
    assert (known.context_tokens, known.max_output_tokens) == (128_000, 16_384)
    assert LiteLLMModel("openai/of-our-own", base_url="http://127.0.0.1:1").capabilities.context_tokens is None
