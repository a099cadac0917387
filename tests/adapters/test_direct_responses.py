"""OpenAI's responses without LiteLLM: streams from files, and whole runs over HTTP on loopback."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.adapters.direct import Direct, DirectRuns, add
from tests.adapters.streams import ADD, KEY, ask, content, cut, hear, names, play
from turncell import Agent, ModelFailure
from turncell.adapters.chat_format import chat_messages
from turncell.adapters.direct_responses import DirectResponses, ResponsesReading
from turncell.adapters.direct_responses_format import responses_body
from turncell.adapters.price import Price
from turncell.core.deltas import Finished
from turncell.core.parts import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult, Usage
from turncell.errors import UnknownModelError
from turncell.runtime import defaults
from turncell.runtime.ports import Model, ModelRequest, capabilities_of
from turncell.testing import Reply, call, fault, raw, reply, serve

pytestmark = pytest.mark.feature("G2")

USAGE = Usage(37, 11, 12, 5, 7)
WHOLE = (Reasoning("Hm.", "127.0.0.1:rs_0:gAAA"), Text("Whole."), ToolCall("call_1", "add", '{"a":1}', "call_1"))


model = Direct(DirectResponses, "openai/responses/gpt-5", has_v1=True, said_after=5)
answer = model.answer

ANSWERS: dict[str, tuple[tuple[Part, ...], str]] = {
    "text": ((Text("Grüße, 🌦!"),), "stop"),
    "function_calls": (
        (
            ToolCall("call_1", "get_weather", '{"location":"Paris"}', "call_DdmO9pD3xa9XTPNJ32zg2hcA"),
            ToolCall("call_2", "get_weather", '{"location":"Oslo"}', "call_2"),
        ),
        "tool_calls",
    ),
    "reasoning_and_call": (
        (
            Reasoning("**Two steps**\n\nThen add.", "127.0.0.1:rs_0:gAAAAABoISQ24OyVRYbk"),
            Text("I add."),
            ToolCall("call_1", "add", '{"a":1}', "call_1"),
        ),
        "tool_calls",
    ),
    "sealed_only": ((Reasoning("", "127.0.0.1:rs_0:gAAAAABsealed=="), Text("21")), "stop"),
    "refusal": ((Text("I can't help."),), "filter"),
    "cut_by_length": ((Text("half an"),), "length"),
    "filtered": ((Text("half"),), "filter"),
    "open_reasoning": ((Reasoning("let me see"), Text("21")), "stop"),
    "without_deltas": (WHOLE, "tool_calls"),
    "only_the_end": (WHOLE, "tool_calls"),
    "calls_left_out": (
        (
            Text("I add."),
            ToolCall("call_1", "add", '{"a":1}', "call_1"),
            ToolCall("call_2", "add", '{"a":2}', "call_2"),
        ),
        "tool_calls",
    ),
    "unknown_events": ((Text("fine"),), "stop"),
    "characters_cut_in_two": (
        (
            Reasoning("Hm 🤔."),
            Text("So far 😀 fine, a\ufffdb and c\ufffd"),
            ToolCall("call_1", "weather", '{"city": "🌊"}', "call_1"),
            ToolCall("call_2", "weather", '{"city": "🌋\ufffd"}', "call_2"),
        ),
        "tool_calls",
    ),
    "half_a_character_at_the_end": ((Text("fine \ufffd"),), "stop"),
}
FAILURES: dict[str, tuple[tuple[Part, ...], str, str]] = {
    "failed": ((Text("half"),), "overloaded", "failed to generate"),
    "rate_limited": ((), "rate_limit", "Rate limit reached"),
    "error": ((), "overloaded", "had an error"),
    "too_long": ((), "context_length", "context window"),
    "no_end": ((Text("half an ans"),), "protocol", "ended before the answer did"),
}


def check(name: str, parts: tuple[Part, ...], end: Finished | ModelFailure) -> None:
    if isinstance(end, Finished):
        assert (parts, end.finish_reason) == ANSWERS[name]
        assert (end.usage, end.answered_by) == (USAGE, "gpt-5-2025-08-07")
    else:
        expected, kind, words = FAILURES[name]
        assert (parts, end.kind) == (expected, kind)
        assert words in str(end)


@pytest.mark.feature("A2")
class TestStreams:
    @pytest.mark.parametrize("name", names("responses"))
    def test_a_stream_is_read_over_http(self, name: str) -> None:
        check(name, *answer(raw(content("responses", name).decode())))

    @pytest.mark.parametrize("name", names("responses"))
    @settings(deadline=None)
    @given(at=st.lists(st.integers(0, 10_000), max_size=12))
    def test_a_stream_may_be_cut_anywhere(self, name: str, at: list[int]) -> None:
        check(name, *play(ResponsesReading("m", sealed_by="127.0.0.1"), cut(content("responses", name), at)))

    def test_a_server_that_does_not_stream_is_understood(self) -> None:
        item = {"type": "message", "content": [{"type": "output_text", "text": "Whole."}]}
        body = {
            "object": "response",
            "status": "completed",
            "model": "m",
            "output": [item],
            "usage": {"input_tokens": 3},
        }
        parts, end = answer(Reply(body=body))
        assert parts == (Text("Whole."),)
        assert (end.finish_reason, end.usage, end.answered_by) == ("stop", Usage(3), "m")


HISTORY = (
    Message("system", (Text("Speak Norwegian."),)),
    Message("user", (Text("What is this? \ud83d"), Image("aGk=", "image/png"), Image("https://example.org/a.png"))),
    Message(
        "assistant",
        (
            Reasoning("no seal"),
            Reasoning("another's", "sig=="),
            Reasoning("OpenAI's, which no other server takes", "responses:rs_9:gAAA"),
            Reasoning("sealed", "127.0.0.1:rs_1:gAAA:B=="),
            Text("I add."),
            ToolCall("run_1-1-1", "add", '{"a": 1}', "call_x"),
            ToolCall("run_1-1-2", "add", "", "call_x"),
            Reasoning("nothing follows", "127.0.0.1:rs_2:gAAA"),
        ),
    ),
    Message("tool", (ToolResult("run_1-1-1", "add", "one"), ToolResult("run_1-1-2", "add", "two", is_error=True))),
)


class TestTheBody:
    def test_a_conversation(self) -> None:
        request = ModelRequest(
            messages=HISTORY, instructions="Be brief.", tools=(ADD,), temperature=0.5, max_tokens=77,
            reasoning_effort="low", extra={"top_logprobs": 7},
        )  # fmt: skip
        with serve(["ok"]) as server:
            asyncio.run(hear(model(server, extra_body={"top_p": 0.5}, headers={"OpenAI-Project": "p"}), request))
            body, headers, path = server.requests[0], server.headers[0], server.paths[0]
        assert path == "/v1/responses"
        assert (headers["authorization"], headers["openai-project"]) == (f"Bearer {KEY}", "p")
        system, user, thought, text, *calls, one, two = body.pop("input")
        assert body == {
            "model": "gpt-5", "stream": True, "store": False, "instructions": "Be brief.", "temperature": 0.5,
            "max_output_tokens": 77, "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["reasoning.encrypted_content"], "top_p": 0.5, "top_logprobs": 7,
            "tools": [{"type": "function", "name": "add", "description": "Add numbers", "parameters": ADD.schema,
                       "strict": False}],
        }  # fmt: skip
        assert (system["role"], system["content"][0]["text"]) == ("system", "Speak Norwegian.")
        assert user["content"] == [
            {"type": "input_text", "text": "What is this? \ufffd"},
            {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"},
            {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
        ]
        assert thought == {
            "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "sealed"}],
            "encrypted_content": "gAAA:B==",
        }  # fmt: skip
        assert text["content"] == [{"type": "output_text", "text": "I add."}]
        assert [(one["call_id"], one["arguments"]) for one in calls] == [("call_x", '{"a": 1}'), ("run_1-1-2", "{}")]
        assert [(one["call_id"], one["output"]), (two["call_id"], two["output"])] == [
            ("call_x", "one"), ("run_1-1-2", "two"),
        ]  # fmt: skip

    def test_models_that_do_not_reason_are_not_asked_for_it(self) -> None:
        named = ("gpt-5", "gpt-5-chat-latest", "gpt-4.1", "o4-mini", "qwen3")
        assert ["include" in responses_body(ask(), name) for name in named] == [True, False, False, True, False]
        quiet = responses_body(ask(reasoning_effort="high"), "o3", summary=None)
        assert quiet["reasoning"] == {"effort": "high"}

    def test_what_openai_has_sealed_goes_back_to_openai_alone(self) -> None:
        def thoughts(base_url: str | None) -> list[str]:
            body = DirectResponses("gpt-5", base_url=base_url)._body(ModelRequest(messages=HISTORY))
            return [one["id"] for one in json.loads(body["input"].data) if one["type"] == "reasoning"]

        assert thoughts("https://api.openai.com/v1") == ["rs_9"]
        assert thoughts("https://team.openai.azure.com/openai/v1") == []
        assert thoughts("http://127.0.0.1:8000/v1") == ["rs_1"]

    def test_another_adapter_does_not_send_what_openai_has_sealed(self) -> None:
        _, _, assistant, *_ = chat_messages(HISTORY)
        assert [one["thinking"] for one in assistant["thinking_blocks"]] == ["another's"]


class City(BaseModel):
    name: str
    people: int = 0


@pytest.mark.feature("A19")
class TestSchemas:
    def test_an_answer_is_held_to_a_type(self) -> None:
        with serve(['{"name": "Oslo", "people": 700000}']) as server:
            run = Agent(model(server), output=City).run_sync("Which?")
            body = server.requests[0]
        assert run.output == City(name="Oslo", people=700000)
        answer_format = body["text"]["format"]
        assert (answer_format["type"], answer_format["strict"]) == ("json_schema", True)
        assert answer_format["schema"]["required"] == ["name", "people"]
        assert answer_format["schema"]["additionalProperties"] is False

    def test_a_list_of_classes_is_held_too(self) -> None:
        with serve(['{"value": [{"name": "Oslo", "people": 700000}]}']) as server:
            run = Agent(model(server), output=list[City]).run_sync("Which?")
            answer_format = server.requests[0]["text"]["format"]
        assert run.output == [City(name="Oslo", people=700000)]
        assert answer_format["strict"] is True and "$ref" not in json.dumps(answer_format)

    def test_what_no_grammar_can_say_is_a_wish(self) -> None:
        with serve(['{"value": {"Oslo": 1}}']) as server:
            assert Agent(model(server), output=dict[str, int]).run_sync("How many?").output == {"Oslo": 1}
            assert server.requests[0]["text"]["format"]["strict"] is False

    def test_an_older_model_answers_with_a_tool(self) -> None:
        named = ("gpt-4-turbo", "o1-mini", "gpt-4o-mini", "gpt-5", "o3-mini", "my-own")
        found = [capabilities_of(DirectResponses(name)).schema for name in named]
        assert found == [False, False, True, True, True, False]


@pytest.mark.feature("A13")
class TestFailures:
    @pytest.mark.parametrize(
        ("one", "kind", "status_code", "retry_after_s"),
        [
            (fault(400, "bad"), "bad_request", 400, None),
            (fault(400, "too much", code="context_length_exceeded"), "context_length", 400, None),
            (fault(401, f"Incorrect API key provided: {KEY}"), "auth", 401, None),
            (fault(404, "no such model"), "not_found", 404, None),
            (fault(429, "slow down", retry_after_s=7), "rate_limit", 429, 7.0),
            (fault(500, "boom"), "overloaded", 500, None),
            (reply("some text", errors_after=4), "overloaded", None, None),
            (reply("some text", resets_after=0), "connection", None, None),
            (reply("some text", resets_after=5), "connection", None, None),
            (reply("some text", has_end=False), "protocol", None, None),
            (raw("data: {broken\n\n"), "protocol", None, None),
        ],
    )
    def test_failures_have_a_kind(self, one: Reply, kind: str, status_code: int | None, retry_after_s: float) -> None:
        _, found = answer(one)
        assert (found.kind, found.status_code, found.retry_after_s) == (kind, status_code, retry_after_s)

    def test_a_missing_key_names_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
            monkeypatch.delenv(variable, raising=False)
        _, found = asyncio.run(hear(DirectResponses("gpt-5")))
        assert found.kind == "auth"  # type: ignore[union-attr]
        assert "OPENAI_API_KEY not set in the environment" in str(found)

    def test_a_name_without_a_model_is_refused(self) -> None:
        with pytest.raises(UnknownModelError, match="'openai/responses/name'"):
            DirectResponses("openai/responses/")

    def test_cached_input_has_a_price_of_its_own(self) -> None:
        _, end = answer(reply("x", usage=Usage(1000, 100, cache_read_tokens=600)), price=Price(2.0, 8.0, 0.5))
        assert end.cost_usd == pytest.approx((400 * 2 + 600 * 0.5 + 100 * 8) / 1e6)


def test_the_price_list_knows_that_long_requests_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    short, long = (DirectResponses("gpt-5.4", api_key=KEY).price_usd(count, 0) for count in (100_000, 300_000))
    assert short is not None
    assert long is not None
    assert long == pytest.approx(6 * short)


class TestRuns(DirectRuns):
    model = model

    def test_a_thought_comes_back_byte_for_byte_with_its_call(self) -> None:
        script = [raw(content("responses", "reasoning_and_call").decode()), reply("2.")]
        with serve(script) as server:
            run = Agent(model(server), tools=[add], reasoning_effort="low").run_sync("Add.")
            items = server.requests[1]["input"]
        assert run.text.endswith("2.")
        assert items[1:] == [
            {
                "type": "reasoning", "id": "rs_0", "encrypted_content": "gAAAAABoISQ24OyVRYbk",
                "summary": [{"type": "summary_text", "text": "**Two steps**\n\nThen add."}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add."}]},
            {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "= 2"},
        ]  # fmt: skip

    def test_parallel_calls_find_their_results(self) -> None:
        calls = [call("add", a=1), call("add", a=2)]
        with serve([reply(calls=calls, is_interleaved=True), "2 and 3."]) as server:
            run = Agent(model(server), tools=[add]).run_sync("Add.")
            items = server.requests[1]["input"]
        assert [one.content for one in run.tool_calls] == ["= 2", "= 3"]
        results = [(one["call_id"], one["output"]) for one in items if one["type"] == "function_call_output"]
        assert results == [("call_1", "= 2"), ("call_2", "= 3")]


def test_a_name_with_a_key_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    found = defaults.model("openai/responses/gpt-5")
    assert isinstance(found, DirectResponses)
    assert isinstance(found, Model)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert not isinstance(defaults.model("openai/responses/gpt-5"), DirectResponses)


@pytest.mark.feature("G1")
def test_what_openai_has_called_a_text_goes_back_with_it() -> None:
    """Its codex models end too early where their comments come back as if they had been answers."""

    def said(number: int, phase: str, text: str) -> list[dict[str, object]]:
        item = {"type": "message", "id": f"msg_{number}", "phase": phase, "content": []}
        whole = {**item, "content": [{"type": "output_text", "text": text}]}
        return [
            {"type": "response.output_item.added", "output_index": number, "item": item},
            {"type": "response.output_text.delta", "output_index": number, "delta": text},
            {"type": "response.output_item.done", "output_index": number, "item": whole},
        ]

    end = {"type": "response.completed", "response": {"status": "completed", "output": []}}
    script = [raw(*said(0, "commentary", "I look."), *said(1, "final_answer", "21."), end), "So it is."]
    with serve(script) as server:
        agent = Agent(DirectResponses("gpt-5.3-codex", base_url=server.base_url))
        first = agent.run_sync("What is it?")
        second = agent.run_sync("Is it?", session=first.session)
        items = server.requests[1]["input"]
    assert (first.text, second.text) == ("I look.21.", "So it is.")
    assert [(item["content"][0]["text"], item["phase"]) for item in items if item["role"] == "assistant"] == [
        ("I look.", "commentary"), ("21.", "final_answer"),
    ]  # fmt: skip
