"""Chat completions read directly: odd streams, the request on the wire, and the same answers as through LiteLLM."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters.byte_server import byte_server, plain
from turncell import Agent, Route, Router, Tiers, tool
from turncell.adapters.chat_format import Dialect, MessageBytes, chat_messages, encode
from turncell.adapters.chat_reading import ChatReading
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.event_lines import EventLines
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.adapters.price import Price
from turncell.core.deltas import Finished, Fragment, assemble
from turncell.core.parts import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult, Usage
from turncell.errors import ModelFailure, UnknownModelError, UsageError
from turncell.runtime import defaults
from turncell.runtime.ports import Model, ModelRequest, ToolSpec
from turncell.testing import ScriptedModel, call, fault, raw, reply, serve

pytestmark = pytest.mark.feature("G2")

STREAMS = Path(__file__).parents[1] / "streams" / "chat"
ADD = ToolSpec("add", "Add numbers", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


def weather(number: int, arguments: str = '{"city": "Oslo"}', provider_id: str | None = "") -> ToolCall:
    return ToolCall(f"call_{number}", "weather", arguments, f"call_{number}" if provider_id == "" else provider_id)


OSLO, TROMSO = weather(1), weather(2, '{"city": "Tromsø"}')
HELLO = (Text("Hello"),)
PLAIN, COUNTED = Usage(), Usage(9, 4)
Found = tuple[tuple[Part, ...], str, Usage]
PLAYED: dict[str, Found] = {
    "indexes_all_zero": ((OSLO, TROMSO), "tool_calls", COUNTED),
    "first_index_is_one": ((OSLO, TROMSO), "tool_calls", PLAIN),
    "negative_index": ((OSLO,), "tool_calls", PLAIN),
    "no_indexes": ((OSLO, TROMSO), "tool_calls", PLAIN),
    "ids_only_first": ((OSLO, TROMSO), "tool_calls", Usage(9, 4, cache_read_tokens=3, reasoning_tokens=2)),
    "ids_never_names_repeated": ((weather(1, provider_id=None),), "tool_calls", PLAIN),
    "ids_empty_after_the_first": ((OSLO,), "tool_calls", PLAIN),
    "name_comes_late": ((OSLO,), "tool_calls", PLAIN),
    "nulls_instead_of_nothing": ((OSLO,), "tool_calls", PLAIN),
    "several_calls_in_one_delta": ((OSLO, TROMSO), "tool_calls", PLAIN),
    "arguments_as_an_object": ((weather(1, '{"city":"Oslo"}'),), "tool_calls", PLAIN),
    "empty_deltas": (HELLO, "stop", COUNTED),
    "usage_in_its_own_chunk": (HELLO, "stop", COUNTED),
    "usage_in_the_last_chunk": (HELLO, "stop", Usage(9, 4, cache_read_tokens=3)),
    "reasoning_beside_the_answer": (HELLO, "stop", Usage(9, 304, reasoning_tokens=300)),
    "reasoning_only_in_the_total": (HELLO, "stop", COUNTED),
    "usage_inside_the_choice": (HELLO, "stop", COUNTED),
    "cost_from_the_gateway": ((Reasoning("Greet."), *HELLO), "stop", COUNTED),
    "reasoning_content": ((Reasoning("Greet."), *HELLO), "stop", PLAIN),
    "reasoning_details": (
        (
            Reasoning(
                "Greet.",
                '127.0.0.1:{"type":"reasoning.text","signature":"c2Vh","format":"anthropic-claude-v1","index":0}',
            ),
            Reasoning(
                "",
                '127.0.0.1:{"type":"reasoning.encrypted","data":"c2Vi","id":"call_1","format":"google-gemini-v1","index":1}',
            ),
            OSLO,
        ),
        "tool_calls",
        PLAIN,
    ),
    "call_signed_by_google": (
        (
            weather(1, provider_id="function-call-1__thought__c2VhbA=="),
            weather(2, TROMSO.arguments_text, "function-call-2"),
        ),
        "tool_calls",
        PLAIN,
    ),
    "content_as_blocks": ((Reasoning("Greet."), *HELLO), "stop", PLAIN),
    "comments": (HELLO, "stop", PLAIN),
    "fields_besides_data": (HELLO, "stop", PLAIN),
    "error_after_text": ((Text("Hel"),), "overloaded: Provider disconnected", PLAIN),
    "error_only": ((), "rate_limit: Rate limited", PLAIN),
    "interrupted_by_the_server": ((Text("Hel"),), "overloaded: 'insufficient_system_resource'", PLAIN),
    "ended_by_an_error": ((), "overloaded: 'MALFORMED_FUNCTION_CALL'", PLAIN),
    "cut_by_the_window": ((Text("Hel"),), "length", PLAIN),
    "done_is_missing": (HELLO, "stop", PLAIN),
    "end_is_missing": ((Text("Hel"),), "protocol: ended before the answer did", PLAIN),
    "unknown_finish_reason": (HELLO, "other", PLAIN),
    "cut_by_length": ((Text("Hel"),), "length", PLAIN),
    "filtered": ((Text("Hel"),), "filter", PLAIN),
    "refusal": ((Text("I cannot."),), "filter", COUNTED),
    "crlf": ((Text("Grüße 🌦"),), "stop", PLAIN),
    "cr": ((Text("Grüße 🌦"),), "stop", PLAIN),
    "characters_cut_in_two": (
        (
            Reasoning("Hm 🤔."),
            Text("So far 😀 fine, a\ufffdb and c\ufffd"),
            weather(1, '{"city": "🌊"}'),
            weather(2, '{"city": "🌋\ufffd"}'),
        ),
        "tool_calls",
        PLAIN,
    ),
    "half_a_character_at_the_end": ((Text("Hello \ufffd"),), "stop", PLAIN),
    "bom": ((Text("Grüße 🌦"),), "stop", PLAIN),
}


def wire(name: str) -> bytes:
    return (STREAMS / f"{name}.sse").read_bytes()


def play(name: str, cuts: list[int]) -> Found:
    """What is read of a stream that is cut there; a failure as its kind and words."""
    lines, reading = EventLines(), ChatReading("m", sealed_by="127.0.0.1")
    data, fragments = wire(name), list[Fragment]()
    ends = sorted({*cuts, len(data)})
    payloads = [one for a, b in zip([0, *ends], ends, strict=False) for one in lines.payloads(data[a:b])]
    payloads += [one for _, one in lines.end()]
    fragments += reading.read([one for one in payloads if one != b"[DONE]"])
    fragments += reading.rest()
    words = PLAYED[name][1].partition(": ")[2]
    if not words:
        return assemble(fragments), reading.end(), reading.usage
    with pytest.raises(ModelFailure, match=words) as caught:
        reading.end()
    return assemble(fragments), f"{caught.value.kind}: {words}", reading.usage


def test_every_stream_is_played_and_names_its_source() -> None:
    assert {path.stem for path in STREAMS.glob("*.sse")} == set(PLAYED)
    for name in PLAYED:
        assert wire(name).removeprefix(b"\xef\xbb\xbf").startswith(b": "), name


@pytest.mark.feature("A2")
@pytest.mark.parametrize("name", PLAYED)
def test_odd_streams_are_read(name: str) -> None:
    assert play(name, []) == PLAYED[name]


@pytest.mark.feature("A2")
@pytest.mark.parametrize("name", PLAYED)
def test_odd_streams_are_read_byte_by_byte(name: str) -> None:
    assert play(name, list(range(len(wire(name))))) == PLAYED[name]


@pytest.mark.feature("A2")
@given(st.sampled_from(sorted(PLAYED)), st.lists(st.integers(0, 1500), max_size=8))
@settings(max_examples=300, deadline=None)
def test_odd_streams_are_read_at_any_cuts(name: str, cuts: list[int]) -> None:
    assert play(name, [cut for cut in cuts if cut < len(wire(name))]) == PLAYED[name]


@given(st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3), lambda each: st.lists(each, max_size=2)
       | st.dictionaries(st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "arguments", "usage", "error",
                                          "index", "id", "name", "finish_reason", "message", "reasoning"]), each, max_size=4),
       max_leaves=20))  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_any_json_is_read_without_a_crash(chunk: Any) -> None:
    reading = ChatReading("m")
    for fragment in reading.read(
        [encode(chunk), encode({"choices": [chunk]}), encode({"choices": [{"delta": chunk}]})]
    ):
        assert not isinstance(fragment, Finished)
    assert isinstance(reading.usage, Usage)


def ask(*messages: Message, **more: Any) -> ModelRequest:
    return ModelRequest(messages=messages or (Message("user", (Text("hi"),)),), **more)


async def hear(model: Model, request: ModelRequest | None = None) -> tuple[list[Fragment], Finished]:
    fragments = [one async for burst in model.stream(request or ask()) for one in burst]
    last = fragments.pop()
    assert isinstance(last, Finished)
    return fragments, last


LITELLM_DIFFERS = {
    "refusal": "loses its text",
    "arguments_as_an_object": "takes the object for its Python text",
    "usage_inside_the_choice": "loses the tokens",
    "content_as_blocks": "raises a TypeError for a provider that is not Mistral",
    "fields_besides_data": "its client wants JSON in an event without data",
    "unknown_finish_reason": "says stop",
    "cut_by_the_window": "says stop",
    "reasoning_details": "loses the seals",
    "reasoning_beside_the_answer": "loses the tokens",
    "call_signed_by_google": "loses the signature",
}
"""What LiteLLM as a whole does not understand, or changes."""


@pytest.mark.feature("G1")
@pytest.mark.parametrize("name", [name for name, found in PLAYED.items() if ": " not in found[1]])
def test_all_ways_read_the_same(name: str) -> None:
    """Directly, built by LiteLLM, and LiteLLM as a whole: the same parts, tokens and end."""

    async def main() -> list[tuple[tuple[Part, ...], Any, Usage]]:
        found = []
        async with byte_server(plain(wire(name), headers="Content-Type: text/event-stream\r\n")) as server:
            common: dict[str, Any] = {"api_key": "k", "base_url": server.url}
            whole = [] if name in LITELLM_DIFFERS else [LiteLLMModel("openai/m", **common, is_whole=True)]
            for model in (DirectChat("openai/m", **common), LiteLLMModel("openai/m", **common), *whole):
                fragments, end = await hear(model)
                found.append((assemble(fragments), end.finish_reason, end.usage))
        return found

    ways = asyncio.run(main())
    assert len(ways) == (2 if name in LITELLM_DIFFERS else 3)
    assert all(way == PLAYED[name] for way in ways)


def test_a_conversation_on_the_wire() -> None:
    talk = (
        Message("user", (Text("What is this? \ud83d"), Image("aGk=", "image/png"))),
        Message("assistant", (Reasoning("sealed", "sig=="), Text("I add."), ToolCall("r-1", "add", '{"a": 1}', "call_x"),
                              ToolCall("r-2", "add", '{"a": 2}', "call_x"))),
        Message("tool", (ToolResult("r-1", "add", "1"), ToolResult("r-2", "add", "2 \udc00"))),
    )  # fmt: skip
    request = ask(*talk, instructions="Be brief.", tools=(ADD,), temperature=0.5, max_tokens=7, reasoning_effort="low",
                  output_schema={"type": "object", "properties": {}}, extra={"seed": 7})  # fmt: skip
    with serve([reply("ok")] * 2) as server:
        model = DirectChat("openai/m", base_url=server.base_url, api_key="secret-key", headers={"X-Team": "a"},
                           extra_body={"seed": 1, "top_p": 0.5, "stream_options": None})  # fmt: skip
        for _ in range(2):
            asyncio.run(hear(model, request))
        body, again = server.requests
        headers = server.headers[0]
    assert body == again
    messages = body.pop("messages")
    assert body == {
        "model": "m", "stream": True, "temperature": 0.5, "max_tokens": 7, "reasoning_effort": "low", "seed": 7, "top_p": 0.5,
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": {"type": "object", "properties": {}}, "strict": False}},
        "tools": [{"type": "function", "function": {"name": "add", "description": "Add numbers", "parameters": ADD.schema}}],
    }  # fmt: skip
    assert (headers["authorization"], headers["x-team"]) == ("Bearer secret-key", "a")
    assert [one["role"] for one in messages] == ["system", "user", "assistant", "tool", "tool"]
    assert messages[1]["content"][0]["text"] == "What is this? \ufffd"
    assert messages[1]["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert set(messages[2]) == {"role", "content", "tool_calls"}
    ids = [one["id"] for one in messages[2]["tool_calls"]]
    assert len(set(ids)) == 2 and ids == [one["tool_call_id"] for one in messages[3:]]
    assert messages[4]["content"] == "2 \ufffd"


@tool(effect="read", name="weather")
def rain(city: str) -> str:
    """The weather."""
    return f"rain in {city}"


@pytest.mark.parametrize("kind", [DirectChat, LiteLLMModel])
@pytest.mark.parametrize(
    ("name", "stream", "field", "expected"),
    [
        ("openai/gemini-3-flash", "call_signed_by_google", "tool_calls",
         [{"google": {"thought_signature": "c2VhbA=="}}, None]),
        ("openai/m", "call_signed_by_google", "tool_calls", [None, None]),
        ("openai/m", "reasoning_details", "reasoning_details", [
            {"type": "reasoning.text", "text": "Greet.", "signature": "c2Vh", "format": "anthropic-claude-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "c2Vi", "id": "call_1", "format": "google-gemini-v1", "index": 1}]),
    ],
)  # fmt: skip
def test_what_a_server_has_sealed_goes_back_to_it(
    kind: type[DirectChat | LiteLLMModel], name: str, stream: str, field: str, expected: list[Any]
) -> None:
    with serve([raw(wire(stream).decode()), reply("Wet.")]) as server:
        model = kind(name, base_url=server.base_url, api_key="k")
        assert Agent(model, tools=[rain]).run_sync("?").text.endswith("Wet.")
        said = server.requests[1]["messages"][1]
    ids = [one["id"] for one in said["tool_calls"]]
    assert all("__thought__" not in one for one in ids)
    assert (
        [one.get("extra_content") for one in said[field]] == expected
        if field == "tool_calls"
        else said[field] == expected
    )


@pytest.mark.parametrize("kind", [DirectChat, LiteLLMModel])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gemini-3-flash-preview", ["skip_thought_signature_validator", None]),
        ("openai/google/gemini-3.1-pro", ["skip_thought_signature_validator", None]),
        ("openai/gemini-2.5-flash", [None, None]),
        ("openai/gpt-4o-mini", [None, None]),
    ],
)
def test_gemini_3_goes_on_with_what_another_model_has_called(
    kind: type[DirectChat | LiteLLMModel], name: str, expected: list[str | None]
) -> None:
    """From 3 on it refuses, in the running turn, a step whose first call has no signature, and takes this word in its place
    (https://ai.google.dev/gemini-api/docs/thought-signatures, validation, and the questions at its end)."""
    both = [call("weather", city="Oslo"), call("weather", city="Bergen")]
    with serve([reply(calls=[call("weather", city="Rome")]), reply("Wet.")]) as server:
        tiers = Tiers(small=ScriptedModel([both]), frontier=kind(name, base_url=server.base_url, api_key="k"))
        router = Router([Route("small", lambda step: step.step == 1)], default="frontier")
        assert Agent(tiers, tools=[rain], router=router).run_sync("?").text == "Wet."
        first, second = ([one for one in body["messages"] if "tool_calls" in one] for body in server.requests)
    signed = [
        [one.get("extra_content", {}).get("google", {}).get("thought_signature") for one in message["tool_calls"]]
        for message in (*first, *second)
    ]
    assert signed == [expected, expected, expected[:1]], "that of a gateway that has left it out, too"


def test_what_another_has_sealed_does_not() -> None:
    said = Message("assistant", (Reasoning("hm", 'openrouter.ai:{"type":"reasoning.text","signature":"c"}'), Text("y")))
    for sealed_by, expected in (("openrouter.ai", True), ("api.groq.com", False), ("", False)):
        [chat] = chat_messages([said], "", Dialect(details_by=sealed_by))
        assert ("reasoning_details" in chat) is expected


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [('{"a": 1}', '{"a": 1}'), (" ", "{}"), ('{"a": "half', '{"arguments":"{\\"a\\": \\"half"}'), ("[1]", '{"arguments":"[1]"}'),
     ('{"a": NaN}', '{"arguments":"{\\"a\\": NaN}"}')],
)  # fmt: skip
def test_arguments_go_back_as_an_object(arguments: str, sent: str) -> None:
    """Servers parse those of earlier calls again, and would refuse the conversation for ever."""
    talk = (Message("assistant", (ToolCall("c1", "add", arguments),)), Message("tool", (ToolResult("c1", "add", "1"),)))
    with serve([reply("x")] * 2) as server:
        asyncio.run(hear(DirectChat("m", base_url=server.base_url), ask(*talk)))
        asyncio.run(hear(DirectResponses("m", base_url=server.base_url), ask(*talk)))
        chat, responses = server.requests
    assert chat["messages"][0]["tool_calls"][0]["function"]["arguments"] == sent
    assert responses["input"][0]["arguments"] == sent


def test_ids_are_not_longer_than_openai_takes() -> None:
    long = "chatcmpl-tool-0123456789abcdef0123456789abcdef"  # as vLLM makes them
    talk = (
        Message("assistant", (ToolCall("c1", "add", "{}", long),)),
        Message("tool", (ToolResult("c1", "add", "1"),)),
    )
    chat = chat_messages(talk)
    assert len(long) > 40 >= len(chat[0]["tool_calls"][0]["id"])
    assert chat[0]["tool_calls"][0]["id"] == chat[1]["tool_call_id"]


@pytest.mark.parametrize(
    ("name", "between"),
    [("mistral-small-latest", ["assistant"]), ("mistralai/devstral-small-2", ["assistant"]), ("qwen3", [])],
)
@pytest.mark.parametrize("way", [DirectChat, LiteLLMModel])
def test_mistral_s_models_say_a_word_between_results_and_a_person(way: Any, name: str, between: list[str]) -> None:
    """ "Unexpected role 'user' after role 'tool'", and the conversation is refused for ever: https://github.com/avante-corp/avante.nvim/pull/2695"""
    seen = ToolResult("c1", "look", "a dot", images=(Image("aGk="),))
    told = (
        Message("user", (Text("Look."),)),
        Message("assistant", (ToolCall("c1", "look", "{}"),)), Message("tool", (seen,)),
        Message("assistant", (ToolCall("c2", "look", "{}"),)), Message("tool", (ToolResult("c2", "look", "a line"),)),
        Message("user", (Text("Stop looking."),)),
    )  # fmt: skip
    with serve([reply("x")]) as server:
        asyncio.run(hear(way(f"openai/{name}", base_url=server.base_url, api_key="k"), ask(*told)))
        roles = [message["role"] for message in server.requests[0]["messages"]]
    once = ["assistant", "tool", *between, "user"]
    assert roles == ["user", *once, *once]


@given(st.lists(st.sampled_from(range(6)), max_size=30), st.integers(0, 300), st.booleans())
@settings(deadline=None)
def test_bytes_that_were_kept_are_those_that_would_be_made(
    picks: list[int], limit_bytes: int, answers_results: bool
) -> None:
    """However little is kept, and in whatever order messages come and go."""
    pool = [
        Message("user", (Text("a"),)),
        Message("assistant", (ToolCall("c1", "f", "{}", "same"), ToolCall("c2", "f", "{}", "same"))),
        Message("tool", (ToolResult("c1", "f", "1", False, "same"), ToolResult("c2", "f", "2", False, "same"))),
        Message("assistant", (Text("b"),)),
        Message("tool", ()),
        Message("user", (Text("x" * 100),)),
    ]
    dialect = Dialect(answers_results=answers_results)
    encoded = MessageBytes(dialect, limit_bytes)
    for size in range(len(picks) + 1):
        messages = [pool[1], *(pool[pick] for pick in picks[:size])]
        assert json.loads(encoded.encode(messages, "i")) == chat_messages(messages, "i", dialect)


def test_a_conversation_that_grows_beside_another_is_told_as_it_is() -> None:
    def step(number: int) -> list[Message]:
        one = ToolCall(f"c{number}", "f", "{}", "same")
        return [Message("assistant", (one,)), Message("tool", (ToolResult(one.call_id, "f", "1", False, "same"),))]

    start = [Message("user", (Text("a"),))]
    mine, other = [*start, *step(1)], [*start, *step(2)]
    encoded = MessageBytes()
    for messages, instructions in ((start, ""), (mine, ""), ([*mine, *step(3)], ""), (other, ""), ([*other, *step(4)], ""),
                                   ([*other, *step(4)], "i"), (mine, "i"), ([*mine, *step(3)], "j"), ([], "j"), (mine, "")):  # fmt: skip
        assert json.loads(encoded.encode(messages, instructions)) == chat_messages(messages, instructions)


def test_the_limit_has_the_name_that_the_server_knows() -> None:
    def field(name: str, **more: Any) -> set[str]:
        with serve([reply("x")]) as server:
            asyncio.run(hear(DirectChat(name, base_url=server.base_url, **more), ask(max_tokens=5)))
            return {name for name in server.requests[0] if name.startswith("max")}

    assert field("llama") == field("openai/gpt-4o") == {"max_tokens"}
    assert (
        field("openai/gpt-5-mini") == field("x", max_tokens_field="max_completion_tokens") == {"max_completion_tokens"}
    )


def test_thoughts_go_back_where_the_server_wants_them() -> None:
    talk = (
        Message("user", (Text("x"),)),
        Message("assistant", (Reasoning("hm"), Text("y"))),
        Message("user", (Text("z"),)),
    )
    with serve([reply("x")]) as server:
        asyncio.run(hear(DirectChat("m", base_url=server.base_url, reasoning_field="reasoning_content"), ask(*talk)))
        assert server.requests[0]["messages"][1] == {"role": "assistant", "content": "y", "reasoning_content": "hm"}


def test_deepseek_gets_its_thoughts_back() -> None:
    """It refuses calls without one, also those that another model has made."""
    talk = (
        Message("user", (Text("x"),)),
        Message("assistant", (Reasoning("hm"), ToolCall("c1", "add", "{}"))),
        Message("tool", (ToolResult("c1", "add", "1"),)),
        Message("assistant", (ToolCall("c2", "add", "{}"),)),
        Message("tool", (ToolResult("c2", "add", "1"),)),
        Message("assistant", (Text("y"),)),
        Message("user", (Text("z"),)),
    )
    with serve([reply("x")] * 2) as server:
        asyncio.run(hear(LiteLLMModel("deepseek/deepseek-chat", base_url=server.base_url, api_key="k"), ask(*talk)))
        found = [one.get("reasoning_content") for one in server.requests[0]["messages"] if one["role"] == "assistant"]
        assert found == ["hm", " ", None]
        asyncio.run(hear(LiteLLMModel("groq/qwen3", base_url=server.base_url, api_key="k"), ask(*talk)))
        assert "reasoning_content" not in json.dumps(server.requests[1]), "refused there"


@pytest.mark.feature("G6")
def test_keys_and_headers_that_are_made_for_a_request() -> None:
    async def key() -> str:
        return "from a function"

    def sign(url: str, body: bytes) -> dict[str, str]:
        return {"X-Signature": f"{len(body) > 0} {url.rpartition('/')[2]}"}

    with serve([reply("x")] * 3) as server:
        for more in ({"api_key": key}, {"auth": sign}, {}):
            asyncio.run(hear(DirectChat("m", base_url=server.base_url, **more)))
        first, second, third = server.headers
    assert first["authorization"] == "Bearer from a function"
    assert second["x-signature"] == "True completions" and "authorization" not in second
    assert "authorization" not in third, "a key of the environment goes only where the environment says, or to OpenAI"


@pytest.mark.feature("G6")
def test_the_environment_names_server_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve([reply("x")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
        asyncio.run(hear(DirectChat("openai/m")))
        assert server.headers[0]["authorization"] == "Bearer from the environment"
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ModelFailure, match="OPENAI_API_KEY not set") as caught:
        asyncio.run(hear(DirectChat("openai/m")))
    assert caught.value.kind == "auth"


@pytest.mark.feature("G6")
@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        (" {}/v1/\n", "/v1/chat/completions"),
        ("{}/v1?api-version=1", "/v1/chat/completions?api-version=1"),
        ("{}/v1/chat/completions?api-version=1", "/v1/chat/completions?api-version=1"),
    ],
)
def test_a_query_of_the_address_stays_behind_the_path(base_url: str, path: str) -> None:
    async def main() -> bytes:
        async with byte_server(plain(wire("empty_deltas"))) as server:
            origin = server.url.removesuffix("/v1")
            await hear(DirectChat("m", base_url=base_url.format(origin)))
            return server.requests[0][0]

    assert asyncio.run(main()).split()[1].decode() == path


@pytest.mark.feature("A19")
def test_who_refuses_is_not_asked_for_a_value_again() -> None:
    with serve([raw(wire("refusal").decode(), has_done=False)]) as server:
        run = Agent(DirectChat("m", base_url=server.base_url, holds_schema=True), output=list[int]).run_sync("go")
        assert (run.status, run.state.error_kind, run.text) == ("failed", "filter", "I cannot.")
        assert len(server.requests) == 1


@pytest.mark.feature("E3")
def test_what_a_key_of_ones_own_pays_behind_a_gateway_counts() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.01, "cost_details": {"upstream_inference_cost": 0.2}}
    chunk = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    for is_byok, cost_usd in ((True, 0.21), (False, 0.01)):
        with serve([raw(chunk, {"choices": [], "usage": usage | {"is_byok": is_byok}})]) as server:
            run = Agent(DirectChat("m", base_url=server.base_url)).run_sync("go")
        assert run.cost_usd == pytest.approx(cost_usd)


def test_costs_are_the_providers_the_users_or_unknown() -> None:
    def end(name: str, model: str = "m", **more: Any) -> Finished:
        async def main() -> Finished:
            async with byte_server(plain(wire(name))) as server:
                return (await hear(DirectChat(model, base_url=server.url, **more)))[1]

        return asyncio.run(main())

    price = Price(1.0, 2.0)
    assert end("reasoning_beside_the_answer", price=price).cost_usd == 0.0125
    assert end("reasoning_only_in_the_total", price=price).cost_usd == pytest.approx((9 + 2 * 4) / 1e6)
    assert end("reasoning_only_in_the_total", "gemini-3-flash", price=price).cost_usd == pytest.approx(
        (9 + 2 * 304) / 1e6
    )
    assert (end("cost_from_the_gateway", price=price).cost_usd, end("cost_from_the_gateway").cost_basis) == (
        0.0125,
        "provider",
    )
    priced, unpriced, uncounted = end("empty_deltas", price=price), end("empty_deltas"), end("comments", price=price)
    assert (priced.cost_usd, priced.cost_basis) == (17e-6, "user")
    assert (unpriced.cost_usd, unpriced.cost_basis) == (uncounted.cost_usd, uncounted.cost_basis) == (None, "none")
    assert DirectChat("m", base_url="http://x", price=price).price_usd(1_000_000, 1_000_000) == 3.0


@pytest.mark.feature("A13")
def test_an_answer_that_is_not_streamed_is_an_answer() -> None:
    message = {"role": "assistant", "content": "Hello", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]}  # fmt: skip
    whole = {"model": "served", "choices": [{"message": message, "finish_reason": "tool_calls"}],
             "usage": {"prompt_tokens": 9, "completion_tokens": 4}}  # fmt: skip

    async def main() -> tuple[list[Fragment], Finished]:
        async with byte_server(plain(json.dumps(whole, indent=1).encode())) as server:
            return await hear(DirectChat("m", base_url=server.url))

    fragments, end = asyncio.run(main())
    assert assemble(fragments) == (Text("Hello"), OSLO)
    assert (end.finish_reason, end.usage, end.answered_by) == ("tool_calls", COUNTED, "served")


@pytest.mark.feature("A13")
def test_what_came_with_a_failure_is_handed_over_before_it() -> None:
    async def main() -> list[Fragment]:
        heard: list[Fragment] = []
        async with byte_server(plain(wire("error_after_text"))) as server:
            with pytest.raises(ModelFailure, match="Provider disconnected"):
                async for burst in DirectChat("m", base_url=server.url).stream(ask()):
                    heard += burst
        return heard

    assert assemble(asyncio.run(main())) == (Text("Hel"),)


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    ("one", "kind"),
    [(fault(429, "slow"), "rate_limit"), (raw("data: {broken\n\n"), "protocol"), (raw(has_done=False), "protocol"),
     (raw(), "protocol"), (reply("some text", resets_after=2), "connection")],
)  # fmt: skip
def test_failures_have_a_kind(one: Any, kind: str) -> None:
    with serve([one]) as server, pytest.raises(ModelFailure) as caught:
        asyncio.run(hear(DirectChat("openai/m", base_url=server.base_url, api_key="sk-secret-0123456789")))
    assert caught.value.kind == kind and str(caught.value).startswith("openai/m: ")


def test_an_agent_runs_on_it() -> None:
    with serve([reply("Hello")]) as server:
        run = Agent(DirectChat("m", base_url=server.base_url)).run_sync("hi")
    assert (run.status, run.text) == ("completed", "Hello")


def test_names_choose_the_way() -> None:
    for name in ("openai/gpt-4o-mini", "openai/gpt-5", "openai/o3"):
        assert isinstance(defaults.model(name), DirectChat), name
    for name in (
        "anthropic/claude-x",
        "openai/o1-pro",
        "openai/gpt-5-codex",
        "openai/gpt-5.4",
        "openai/responses/gpt-4o",
    ):
        assert isinstance(defaults.model(name), LiteLLMModel), name
    with pytest.raises(UnknownModelError):
        DirectChat(" ")
    with pytest.raises(UsageError, match="base_url"):
        DirectChat("m", base_url="localhost:8000")


def test_the_direct_way_does_not_import_litellm() -> None:
    code = """
import sys
from turncell import Agent, tool
from turncell.testing import serve, reply
import os
with serve([reply("Hello")]) as server:
    os.environ |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "k"}
    print(Agent("openai/gpt-4o-mini").run_sync("hi").text, [n for n in ("litellm", "openai", "httpx") if n in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Hello []"


def test_it_is_a_model() -> None:
    assert isinstance(DirectChat("m", base_url="http://x"), Model)
