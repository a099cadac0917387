"""Providers that only LiteLLM can read: its parser alone, or all of it, say the same."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.adapters.byte_server import Answer, byte_server, plain
from tests.adapters.streams import ADD, KEY, Played, ask, content, hear, names, quickest, seconds_until_gone
from turncell.adapters import litellm_parsed
from turncell.adapters.litellm_model import LiteLLMModel, warm_up
from turncell.adapters.seals import NO_SIGNATURE
from turncell.core.deltas import Finished
from turncell.core.parts import Message, Text, ToolCall, ToolResult, Usage
from turncell.errors import ModelFailure
from turncell.runtime.ports import ModelRequest
from turncell.testing import fault, raw, reply, serve

pytestmark = pytest.mark.feature("G1")

CLAUDE, GEMINI = "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    warm_up()


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each stream, whether the parser alone has read it."""
    found: list[bool] = []

    async def watched(*args: Any, real: Any = litellm_parsed.parsed) -> Any:
        one = await real(*args)
        found.append(one is not None)
        return one

    monkeypatch.setattr("turncell.adapters.litellm_model.parsed", watched)
    return found


def both(script: Any, name: str = CLAUDE) -> list[Played]:
    found = []
    for is_whole in (False, True):
        with serve([script]) as server:
            model = LiteLLMModel(name, api_key=KEY, base_url=server.origin, timeout_s=20, is_whole=is_whole)
            found.append(asyncio.run(hear(model)))
    return found


def ended(played: Played) -> tuple[Any, ...]:
    parts, end = played
    return (parts, end.finish_reason, end.usage) if isinstance(end, Finished) else (parts, end.kind)


@pytest.mark.parametrize("name", names("anthropic"))
def test_the_parser_alone_says_what_all_of_litellm_says(name: str, ways: list[bool]) -> None:
    alone, whole = both(raw(content("anthropic", name).decode()))
    assert ended(alone) == ended(whole)
    assert ways == [True], "an error in the first event ends both before there is a parser to choose"


def gemini(*chunks: dict[str, Any], then: str = "") -> Answer:
    lines = b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)
    return plain(lines + then.encode(), headers="Content-Type: text/event-stream\r\n")


def said(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": list(parts)}, **more}]}


USED = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}


def hear_gemini(body: Answer, *, is_whole: bool) -> Played:
    async def main() -> Played:
        async with byte_server(body) as server:
            model = LiteLLMModel(GEMINI, api_key=KEY, base_url=server.url, timeout_s=20, is_whole=is_whole)
            return await hear(model)

    return asyncio.run(main())


def test_geminis_format_is_read() -> None:
    call = said({"functionCall": {"name": "add", "args": {"a": 1}}}, finishReason="STOP") | {"usageMetadata": USED}
    chunks = [said({"text": "I "}), said({"text": "add."}), call]
    for is_whole in (False, True):
        (text, added), end = hear_gemini(gemini(*chunks), is_whole=is_whole)
        assert isinstance(end, Finished) and isinstance(added, ToolCall)
        assert (text, added.name, json.loads(added.arguments_text)) == (Text("I add."), "add", {"a": 1})
        assert (end.finish_reason, end.usage.input_tokens, end.usage.output_tokens) == ("tool_calls", 9, 4)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_character_that_was_cut_in_two_is_whole_again(is_whole: bool) -> None:
    chunks = [
        *(said({"text": text}) for text in ("A ", "\ud83d", "\ude00 and ", "\ud83d")),
        said({"text": "."}, finishReason="STOP"),
    ]
    parts, end = hear_gemini(gemini(*chunks), is_whole=is_whole)
    assert isinstance(end, Finished) and parts == (Text("A 😀 and \ufffd."),)


@pytest.mark.parametrize("is_whole", [False, True])
def test_gemini_3_itself_is_given_a_stand_in_for_the_signature_of_another_models_call(is_whole: bool) -> None:
    """LiteLLM sees to it, in base64, which is what Google's own format has bytes in. Real signatures go back as they came."""
    calls = (ToolCall("c1", "add", '{"a": 1}', "call_1"), ToolCall("c2", "add", '{"a": 2}', "call_2"))
    signed = ToolCall("c3", "add", "{}", "call_3__thought__c2VhbA==")
    talk: list[Message] = []
    for made in (calls, (signed,)):
        talk += [
            Message("assistant", made),
            Message("tool", tuple(ToolResult(one.call_id, "add", "2") for one in made)),
        ]
    request = ModelRequest(messages=(Message("user", (Text("hi"),)), *talk), tools=(ADD,))

    async def main(name: str) -> list[list[str | None]]:
        async with byte_server(gemini(END)) as server:
            await hear(LiteLLMModel(name, api_key=KEY, base_url=server.url, timeout_s=20, is_whole=is_whole), request)
            body = json.loads(server.requests[0][1])
        said = [one["parts"] for one in body["contents"] if one["role"] == "model"]
        return [[part.get("thoughtSignature") for part in parts] for parts in said]

    stand_in = base64.b64encode(NO_SIGNATURE.encode()).decode()
    assert asyncio.run(main("gemini/gemini-3-pro-preview")) == [[stand_in, None], ["c2VhbA=="]]
    assert asyncio.run(main(GEMINI)) == [[None, None], ["c2VhbA=="]]


END = said({"text": ""}, finishReason="STOP") | {"usageMetadata": USED}
ODD: dict[str, list[dict[str, Any]]] = {
    "text": [said({"text": "Grüße, "}), said({"text": "🌦"}), said({"text": "!"}), END],
    "counted": [said({"text": piece}) | {"usageMetadata": USED, "modelVersion": "g"} for piece in "abc"] + [END],
    "text_at_the_end": [said({"text": "a"}), said({"text": "b"}), said({"text": "c"}, finishReason="MAX_TOKENS")],
    "thoughts": [
        said({"text": "Hm. ", "thought": True}),
        said({"text": "So."}),
        said({"text": "?", "thought": True}),
        END,
    ],
    "two_parts": [said({"text": "a"}), said({"text": "b"}, {"text": "c"}), said({"text": "d"}), END],
    "seal": [said({"text": "a"}), said({"text": "b", "thoughtSignature": "c2VhbA=="}), said({"text": "c"}), END],
    "rated": [said({"text": "a"}), said({"text": "b"}, safetyRatings=[]), said({"text": "c"}), END],
    "nothing_in_it": [said({"text": "a"}), said(), said({"text": ""}), {"candidates": []}, said({"text": "b"}), END],
    "an_error_in_between": [
        said({"text": "a"}),
        said({"text": "b"}),
        {"error": {"code": 503, "message": "overloaded"}},
    ],
}


@pytest.mark.parametrize("name", ODD)
def test_text_that_is_read_here_stands_where_litellm_would_put_it(name: str) -> None:
    alone, whole = (hear_gemini(gemini(*ODD[name]), is_whole=is_whole) for is_whole in (False, True))
    assert ended(alone) == ended(whole)


ERROR = {"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}}


@pytest.mark.feature("A13")
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("texts", ["", "a", "abc"])
def test_an_error_without_a_field_is_an_error(texts: str, indent: int | None, end: str) -> None:
    body = json.dumps(ERROR, indent=indent).replace("\n", "\r\n" if end[:1] == "\r" else "\n") + end
    answer = gemini(*(said({"text": text}) for text in texts), then=body)
    (parts, alone), (other_parts, whole) = (hear_gemini(answer, is_whole=is_whole) for is_whole in (False, True))
    assert isinstance(alone, ModelFailure) and isinstance(whole, ModelFailure)
    assert (alone.kind, whole.kind) == ("rate_limit", "rate_limit") and "Resource exhausted" in str(alone)
    assert parts == other_parts == ((Text(texts),) if texts else ())


def test_comments_and_other_fields_say_nothing() -> None:
    lines = [
        ": hello",
        "",
        "event: x",
        "id: 1",
        "retry: 10",
        *(f"data: {json.dumps(one)}" for one in ODD["text"]),
    ]
    (text,), end = hear_gemini(gemini(said({"text": "a"}), then="\n".join([*lines, "", ": bye"])), is_whole=False)
    assert text == Text("aGrüße, 🌦!") and isinstance(end, Finished) and end.finish_reason == "stop"


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_may_be_cut_anywhere(newline: str, size: int) -> None:
    said = [": hello", "", 'data: {"a": "ü\u2028🌦"}', "", "data: {}", "", "{", '  "error": 1', "}"]
    body = newline.join(said).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    async def main() -> list[str]:
        return [line async for line in litellm_parsed.Lines(pieces())]

    assert asyncio.run(main()) == [line for line in said[1:] if line]


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    "chunks", [[{"text": "a"}], [{"text": "a"}, {"text": "b"}], [{"functionCall": {"name": "add", "args": {}}}]]
)
def test_geminis_answer_that_breaks_off_is_a_failure(chunks: list[dict[str, Any]]) -> None:
    """No parity with LiteLLM here: it says "stop" at each chunk that says nothing of an end, so that all of it never knows."""
    answer = gemini(*map(said, chunks))
    (parts, alone), (other_parts, whole) = (hear_gemini(answer, is_whole=is_whole) for is_whole in (False, True))
    assert isinstance(alone, ModelFailure) and alone.kind == "protocol"
    assert isinstance(whole, Finished) and len(parts) == len(other_parts) == 1


@pytest.mark.parametrize("reason", ["SAFETY", "FINISH_REASON_UNSPECIFIED"])
def test_whatever_reason_gemini_gives_is_an_end(reason: str) -> None:
    for chunks in (
        [{"promptFeedback": {"blockReason": reason}, "usageMetadata": USED}],
        [said({"text": "a"}), {"candidates": [{"finishReason": reason}]}],
    ):
        alone, whole = (hear_gemini(gemini(*chunks), is_whole=is_whole) for is_whole in (False, True))
        assert ended(alone) == ended(whole) and isinstance(alone[1], Finished)


@pytest.mark.parametrize("hidden", ["response", "streaming_response"])
def test_without_the_bytes_of_gemini_the_parser_reads_it_all(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    class Hiding:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            if name == hidden:
                raise AttributeError(name)
            return getattr(self._stream, name)

        def __aiter__(self) -> Any:
            return aiter(self._stream)

    taken: list[Any] = []

    def hide(stream: Any, real: Any = litellm_parsed._taken_lines) -> Any:
        taken.append(real(Hiding(stream)))
        return taken[-1]

    monkeypatch.setattr(litellm_parsed, "_taken_lines", hide)
    (text,), end = hear_gemini(gemini(*ODD["text"]), is_whole=False)
    assert (text, taken) == (Text("Grüße, 🌦!"), [None]) and isinstance(end, Finished)


def test_what_litellm_notes_for_a_cache_that_is_not_there_is_no_listener(
    monkeypatch: pytest.MonkeyPatch, ways: list[bool]
) -> None:
    """Its Gemini leaves such a note behind, which would make every later call of the process ten times slower."""
    litellm = warm_up()
    for name in ("input_callback", "success_callback", "_async_success_callback"):
        monkeypatch.setattr(litellm, name, ["cache"])
    with serve(["Fine.", "Fine."]) as server:
        asyncio.run(hear(LiteLLMModel(CLAUDE, api_key=KEY, base_url=server.origin)))
        assert ways == [True]
        asyncio.run(hear(LiteLLMModel("openai/m", api_key=KEY, base_url=server.base_url)))
        assert ways == [True], "read here, from its bytes"


def test_without_the_private_name_all_of_litellm_reads(monkeypatch: pytest.MonkeyPatch, ways: list[bool]) -> None:
    class Hidden:
        """LiteLLM's types, without the one that is looked for."""

    monkeypatch.setattr(litellm_parsed.importlib, "import_module", lambda name: Hidden)
    with serve(["Fine, thank you."]) as server:
        played = asyncio.run(hear(LiteLLMModel(CLAUDE, api_key=KEY, base_url=server.origin)))
    assert played[0] == (Text("Fine, thank you."),) and ways == [False]


def test_a_parser_with_chunks_of_another_kind_loses_none(monkeypatch: pytest.MonkeyPatch, ways: list[bool]) -> None:
    class Other:
        pass

    class Types:
        ModelResponseStream = Other

    monkeypatch.setattr(litellm_parsed.importlib, "import_module", lambda name: Types)
    with serve(["Fine, thank you."]) as server:
        played = asyncio.run(hear(LiteLLMModel(CLAUDE, api_key=KEY, base_url=server.origin)))
    assert played[0] == (Text("Fine, thank you."),) and ways == [False]
    assert hear_gemini(gemini(*ODD["text"]), is_whole=False)[0] == (Text("Grüße, 🌦!"),) and ways == [False, False]


@pytest.mark.feature("A13")
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (fault(429, "slow down", retry_after_s=7), "rate_limit"), (fault(401, f"no: {KEY}"), "auth"),
        (reply("some text", errors_after=5, error_type="overloaded_error", error="Overloaded"), "overloaded"),
        (reply("some text", resets_after=5), "connection"), (reply("some text", has_end=False), "protocol"),
    ],
)  # fmt: skip
def test_failures_are_the_same(script: Any, kind: str) -> None:
    (parts, alone), (other_parts, whole) = both(script)
    assert isinstance(alone, ModelFailure) and isinstance(whole, ModelFailure)
    assert (alone.kind, whole.kind) == (kind, kind) and parts == other_parts
    assert alone.retry_after_s == whole.retry_after_s


@pytest.mark.feature("A11")
@pytest.mark.parametrize("hangs_after", [0, 4])
def test_cancelling_closes_the_connection_at_once(hangs_after: int) -> None:
    async def main() -> float:
        with serve([reply("some text", hangs_after=hangs_after)]) as server:
            model = LiteLLMModel(CLAUDE, api_key=KEY, base_url=server.origin, timeout_s=20)
            return await seconds_until_gone(lambda: hear(model), server)

    assert quickest(lambda: asyncio.run(main())) < 0.5


def test_it_is_a_multiple_quicker_and_costs_the_same_late_as_early() -> None:
    """Ratios of one process; the figures are those of `make bench`."""
    chunks = reply("word " * 2_000, piece_chars=5, usage=Usage(3, 2_000))

    def cpu_s(is_whole: bool) -> float:
        with serve([chunks]) as server:
            model = LiteLLMModel(CLAUDE, api_key=KEY, base_url=server.origin, is_whole=is_whole)
            began = time.process_time()
            asyncio.run(hear(model, ask()))
            return time.process_time() - began

    cpu_s(False)
    assert cpu_s(False) < cpu_s(True) * 0.7
