"""Lists of messages as other programs hold them: what is read from each format, and what is refused, in which words."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell import UsageError
from turncell.adapters.chat_format import chat_messages
from turncell.adapters.direct_anthropic_format import messages_body
from turncell.adapters.direct_responses_format import responses_body
from turncell.adapters.foreign_messages import read_messages
from turncell.adapters.recordings import messages_as_json
from turncell.core.parts import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import ModelRequest

pytestmark = pytest.mark.feature("C9")

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
DATA_URL = f"data:image/png;base64,{PNG}"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def asks(*calls: dict[str, Any], content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def function(call_id: str | None, name: str = "weather", arguments: Any = '{"city": "Oslo"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def returned(call_id: str, content: Any = "rain") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


OSLO = ToolCall("call-1", "weather", '{"city": "Oslo"}', "c1")
SEARCHED = '{"type":"server_tool_use","id":"s1","name":"web_search","input":{"query":"Oslo"}}'
SEARCH_RESULT = '{"type":"web_search_tool_result","tool_use_id":"s1","content":[]}'
RAIN = ToolResult("call-1", "weather", "rain", provider_id="c1")
ASKED = Message("assistant", (OSLO,))
TOLD = Message("tool", (RAIN,))

FORMATS: dict[str, tuple[list[Any], list[Message]]] = {
    "text": (
        [user("Hello"), {"role": "assistant", "content": "Hi"}],
        [Message("user", (Text("Hello"),)), Message("assistant", (Text("Hi"),))],
    ),
    "content parts of chat completions": (
        [user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": DATA_URL}}])],
        [Message("user", (Text("What is this?"), Image(PNG, "image/png")))],
    ),
    "an image elsewhere": (
        [user([{"type": "image_url", "image_url": "https://example.org/a.png"}])],
        [Message("user", (Image("https://example.org/a.png"),))],
    ),
    "a call of chat completions": (
        [asks(function("c1"), content="Let me look."), returned("c1")],
        [Message("assistant", (Text("Let me look."), OSLO)), TOLD],
    ),
    "as a client's object says of itself": (
        [
            SimpleNamespace(
                model_dump=lambda: asks(function("c1")) | {"refusal": None, "function_call": None, "audio": None}
            ),
            returned("c1", [{"type": "text", "text": "ra"}, {"type": "text", "text": "in"}]),
        ],
        [ASKED, TOLD],
    ),
    "arguments as an object": ([asks(function("c1", arguments={"city": "Oslo"})), returned("c1")], [ASKED, TOLD]),
    "function_call of before": (
        [
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "rain"},
        ],
        [
            Message("assistant", (ToolCall("call-1", "weather", "{}"),)),
            Message("tool", (ToolResult("call-1", "weather", "rain"),)),
        ],
    ),
    "thoughts beside the content": (
        [{"role": "assistant", "content": "Hi", "reasoning_content": "Greet."}],
        [Message("assistant", (Reasoning("Greet."), Text("Hi")))],
    ),
    "a refusal": (
        [{"role": "assistant", "content": None, "refusal": "I will not."}],
        [Message("assistant", (Text("I will not."),))],
    ),
    "blocks of Anthropic": (
        [
            user([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Look.", "signature": "c2VhbA=="},
                    {"type": "redacted_thinking", "data": "b3BhcXVl"},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "Oslo"}},
                    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
                    SimpleNamespace(model_dump=lambda: {"type": "text", "text": "I look.", "citations": None}),
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
                ],
            },
            user(
                [
                    {"type": "tool_result", "tool_use_id": "c1", "is_error": True, "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ]},
                    {"type": "text", "text": "Well?"},
                ]
            ),
        ],
        [
            Message("user", (Image(PNG, "image/png"),)),
            Message(
                "assistant",
                (
                    Reasoning("Look.", "anthropic:c2VhbA=="), Reasoning("", "anthropic:redacted:b3BhcXVl"),
                    Reasoning('web_search {"query":"Oslo"}', f"anthropic:block:{SEARCHED}"),
                    Reasoning("", f"anthropic:block:{SEARCH_RESULT}"),
                    Text("I look."), OSLO,
                ),
            ),
            Message("tool", (ToolResult("call-1", "weather", "no", True, "c1", (Image(PNG, "image/png"),)),)),
            Message("user", (Text("Well?"),)),
        ],
    ),
    "items of OpenAI's responses": (
        [
            user("Weather?"),
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Two."}], "encrypted_content": "x"},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'},
            {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c2", "output": "sun"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rain."}], "status": "completed"},
        ],
        [
            Message("user", (Text("Weather?"),)),
            Message("assistant", (Reasoning("Two.", "responses:rs_1:x"), OSLO, ToolCall("call-2", "weather", "{}", "c2"))),
            Message("tool", (ToolResult("call-2", "weather", "sun", provider_id="c2"), RAIN)),
            Message("assistant", (Text("Rain."),)),
        ],
    ),
    "ids that servers use again": (
        [asks(function("c1")), returned("c1"), asks(function("c1")), returned("c1")],
        [
            ASKED, TOLD, Message("assistant", (ToolCall("call-2", "weather", '{"city": "Oslo"}', "c1"),)),
            Message("tool", (ToolResult("call-2", "weather", "rain", provider_id="c1"),)),
        ],
    ),
    "a signature of Gemini's": (
        [asks(function("c1") | {"extra_content": {"google": {"thought_signature": "s"}}}), returned("c1")],
        [
            Message("assistant", (ToolCall("call-1", "weather", '{"city": "Oslo"}', "c1__thought__s"),)),
            Message("tool", (ToolResult("call-1", "weather", "rain", provider_id="c1__thought__s"),)),
        ],
    ),
    "a result without an id": ([asks(function(None, arguments="")), {"role": "tool", "content": "rain"}], [
        Message("assistant", (ToolCall("call-1", "weather", ""),)),
        Message("tool", (ToolResult("call-1", "weather", "rain"),)),
    ]),
    "a call without a result": ([asks(function("c1")), user("Stop.")], [ASKED, Message("user", (Text("Stop."),))]),
    "the agent's own instructions": ([{"role": "developer", "content": " Be kind.\n"}, user("Hi")], [Message("user", (Text("Hi"),))]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(name: str) -> None:
    foreign, messages = FORMATS[name]
    assert list(read_messages(foreign, "Be kind.")) == messages


def test_what_was_read_can_be_read_again() -> None:
    for foreign, _ in FORMATS.values():
        messages = read_messages(foreign, "Be kind.")
        assert read_messages(messages) == messages


WRONG: list[tuple[Any, str]] = [
    ("Hello", r"messages are 'Hello'; use a list of messages, such as \[\{'role': 'user'"),
    (user("Hello"), r"messages are \{'role': 'user'.*use a list"),
    (7, r"messages are 7; use a list"),
    ([], r"messages are empty; use a list"),
    ([{"role": "system", "content": "Be kind."}], r"nothing but instructions, which the agent has already"),
    ([user("a"), "b"], r"messages\[1\]: found 'b'; use a dict, an object with model_dump\(\), or a turncell.Message"),
    ([{"content": "a"}], r"messages\[0\]: it has no role, which is one of .*; it has \['content'\]"),
    ([{"type": "human", "content": "a"}], r"messages\[0\]: it has no role, .*; it has the type 'human'"),
    ([{"role": "critic", "content": "a"}], r"messages\[0\]: its role is 'critic'; use one of system, developer, user,"),
    ([user(None)], r"messages\[0\]: it is of the user, and nothing is said in it; leave it out"),
    ([user(5)], r"messages\[0\]: its content is 5; use text, or a list of parts"),
    ([user([{"type": "input_audio"}])], r"messages\[0\]: it has a part of the type 'input_audio', which cannot come in"),
    ([user([{"type": "text"}])], r"messages\[0\]: it has a part of the type 'text' whose text is None; use text"),
    ([user([{"type": "image_url", "image_url": {"url": "a.png"}}])], r"messages\[0\]: an Image has base64 text"),
    ([user([{"type": "image_url", "image_url": {}}])], r"messages\[0\]: it has an image without an address"),
    ([user([{"type": "tool_use", "id": "c", "name": "f", "input": {}}])], r"messages\[0\]: .* only a model writes: tool_call"),
    ([asks({"id": "c", "type": "custom", "custom": {"name": "f"}})], r"messages\[0\]: it has a tool call without a function"),
    ([asks(function("c", arguments="{city: Oslo}"))], r"messages\[0\]: it has a call of weather whose arguments are no JSON object: '\{city: Oslo\}'; put"),
    ([asks(function("c", arguments="[1]"))], r"messages\[0\]: .* arguments are no JSON object: '\[1\]'"),
    ([asks(function("c", arguments='{"a": NaN}'))], r"messages\[0\]: .* arguments are no JSON object"),
    ([asks(function("c", arguments='{"a": [1e999]}'))], r"messages\[0\]: .* arguments are no JSON object"),
    ([{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}], r"messages\[0\]: it has audio, which cannot come in; put what is said there"),
    ([asks(function("c", arguments={"a": float("nan")}))], r"messages\[0\]: .* arguments are no JSON"),
    ([asks(function("c", arguments='{"a":' * 200 + "1" + "}" * 200))], r"messages\[0\]: .* arguments are no JSON object"),
    ([asks(function("c", name=""))], r"messages\[0\]: it has a call whose tool is ''; a tool has a name"),
    ([{"role": "assistant", "tool_calls": 7}], r"messages\[0\]: its tool_calls are 7; use a list"),
    ([Message("user", "Hello")], r"messages\[0\]: its parts are 'Hello'; use a tuple of parts, such as Text"),  # type: ignore[arg-type]
    ([Message("critic", ())], r"messages\[0\]: its role is 'critic'; use one of"),  # type: ignore[arg-type]
    ([asks(function(5))], r"messages\[0\]: it has a call of weather whose id is 5; an id is text"),  # type: ignore[arg-type]
    ([user("a"), returned("c9")], r"messages\[1\]: it is the result of call 'c9', and of the answer before it these calls have no result yet: none; put it right after"),
    ([asks(function("c1")), returned("c2")], r"messages\[1\]: it is the result of call 'c2', .*: 'c1'; put"),
    ([asks(function("c1")), returned("c1"), returned("c1")], r"messages\[2\]: it is the result of call 'c1', .*: none"),
    ([asks(function("c1")), user("Hurry."), returned("c1")], r"messages\[2\]: it is the result of call 'c1', .*: none"),
    ([{"role": "system", "content": "Be rude."}, user("a")], r"messages\[0\]: instructions belong to the agent, which has 'Be kind.', and this message has 'Be rude.'; give them to the agent, Agent\(model, instructions=...\), or leave"),
    ([user("a"), Message("system", (Text("Be rude."),))], r"messages\[1\]: instructions belong to the agent"),
]  # fmt: skip


@pytest.mark.parametrize(("foreign", "words"), WRONG, ids=[words[:60] for _, words in WRONG])
def test_what_cannot_come_in_is_said_with_its_place(foreign: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        read_messages(foreign, "Be kind.")
    assert len(str(refused.value)) < 600


# -- what our own formatters write, and what comes back of it

TEXTS = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
IMAGES = st.sampled_from([Image(PNG, "image/png"), Image("https://example.org/a.png")])
IDS = (
    st.none()
    | st.sampled_from(["c", "call_1", "functions.f:0", "ü" * 50, "a" * 300])
    | st.text(min_size=1, max_size=80)
)
THOUGHTS = st.builds(
    Reasoning,
    TEXTS,
    st.none() | st.sampled_from(["anthropic:c2VhbA==", "anthropic:redacted:x", "responses:rs_1:x", "gemini:y"]),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages: list[Message] = []
    number = 0

    def answer(*more: Part) -> Message:
        said = draw(st.lists(THOUGHTS | st.builds(Text, TEXTS), max_size=3))
        return Message("assistant", (*said, *more))

    for _ in range(draw(st.integers(1, 3))):
        if messages or draw(st.booleans()):
            messages.append(
                Message("user", tuple(draw(st.lists(st.builds(Text, TEXTS) | IMAGES, min_size=1, max_size=3))))
            )
        for _ in range(draw(st.integers(0, 2))):
            calls = []
            for _ in range(draw(st.integers(1, 3))):
                number += 1
                arguments = json.dumps(draw(st.dictionaries(TEXTS, JSON, max_size=3)))
                calls.append(ToolCall(f"ours-{number}", draw(st.sampled_from(["f", "g"])), arguments, draw(IDS)))
            pictures = st.lists(st.just(Image(PNG, "image/png")), max_size=1).map(tuple)
            messages += (
                answer(*calls),
                Message(
                    "tool",
                    tuple(
                        ToolResult(
                            call.call_id, call.name, draw(TEXTS), draw(st.booleans()), call.provider_id, draw(pictures)
                        )
                        for call in calls
                    ),
                ),
            )
        messages.append(answer(Text("Done.")))
    return tuple(messages)


@given(conversations())
def test_our_own_messages_come_back_as_they_were(messages: tuple[Message, ...]) -> None:
    assert messages_as_json(read_messages(messages)) == messages_as_json(messages)


@given(conversations())
def test_what_chat_completions_were_sent_comes_back(messages: tuple[Message, ...]) -> None:
    chat = chat_messages(messages, "Be kind.")
    assert chat_messages(read_messages(chat, "Be kind."), "Be kind.") == chat


@given(conversations())
def test_what_anthropic_was_sent_comes_back(messages: tuple[Message, ...]) -> None:
    def body(of: tuple[Message, ...]) -> Any:
        return json.loads(messages_body(ModelRequest(messages=of), "claude-sonnet-4-5", "off")["messages"].data)

    assert body(read_messages(body(messages))) == body(messages)


@given(conversations())
def test_what_responses_were_sent_comes_back(messages: tuple[Message, ...]) -> None:
    def body(of: tuple[Message, ...]) -> Any:
        return json.loads(responses_body(ModelRequest(messages=of), "gpt-5")["input"].data)

    sent = body(messages)
    assert body(read_messages(sent)) == sent
