"""What is kept of earlier requests: the next one is to the byte what it would be without."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turncell.adapters.chat_format import encode
from turncell.adapters.direct_anthropic_format import CacheTime, Turns, messages_body
from turncell.adapters.direct_responses_format import Items, responses_body
from turncell.adapters.kept_bytes import Encoded, Kept, KeptTalks
from turncell.core.parts import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import ModelRequest, ToolSpec

TOOLS = (ToolSpec("f", "Grüße", {"type": "object"}), ToolSpec("g", "d", {"type": "object", "properties": {}}))
IMAGE = Image("aGk=", "image/png")
SAID: tuple[Part, ...] = (
    Text("a"), Text(" "), Text('ends " }]}'), Text("half \ud83d"), IMAGE, Reasoning("no seal"), Reasoning("hm", "c2VhbA=="),
    Reasoning("", "redacted:c2Vj"), Reasoning("hm", "responses:rs_1:gAAA"), Reasoning("", "phase:commentary"),
)  # fmt: skip
ASKED = (Text("b"), Text(""), IMAGE, Image("https://example.org/a.png"))
ARGUMENTS = ('{"a": 1}', "", "{broken", '{"a": 12345678901234567890123}')

Step = tuple[str, list[Part], list[str], int]
steps = st.lists(
    st.one_of(
        # What is said, the arguments of calls, and what names the server gives to them.
        st.tuples(st.just("assistant"), st.lists(st.sampled_from(SAID), max_size=3), st.lists(st.sampled_from(ARGUMENTS), max_size=3),
                  st.integers(0, 2)),
        # How many of the calls that are open have results now, and which of them is an error, or has an image.
        st.tuples(st.just("tool"), st.just([]), st.lists(st.just(""), max_size=3), st.integers(0, 3)),
        st.tuples(st.sampled_from(["user", "system"]), st.lists(st.sampled_from(ASKED), max_size=2), st.just([]), st.just(0)),
        # The middle is summarised; a result is cut; another conversation has its turn.
        st.tuples(st.sampled_from(["summary", "cut", "other"]), st.just([]), st.just([]), st.integers(0, 8)),
    ),
    max_size=30,
)  # fmt: skip


def told(steps: list[Step]) -> list[tuple[Message, ...]]:
    """The messages of request after request, most of them the same objects as before."""
    requests: list[tuple[Message, ...]] = []
    messages: list[Message] = []
    other: list[Message] = []
    waiting: list[ToolCall] = []
    for number, (kind, parts, more, which) in enumerate(steps):
        if kind == "assistant":
            calls = [
                ToolCall(f"run-{number}-{at}", "f", text, (None, "same", f"f:{number}")[which])
                for at, text in enumerate(more)
            ]
            waiting += calls
            messages.append(Message("assistant", (*parts, *calls)))
        elif kind == "tool":
            done, waiting = waiting[: len(more)], waiting[len(more) :]
            images = (IMAGE,) * (which == 2)
            results = [ToolResult(one.call_id, "f", "x" * which, which == 1, None, images) for one in done]
            messages.append(Message("tool", tuple(results)))
        elif kind == "summary":
            messages[which : which + 4] = [Message("user", (Text("What was said."),))]
        elif kind == "cut" and messages:
            old = messages[which % len(messages)]
            messages[which % len(messages)] = Message(old.role, old.parts[:-1])
        elif kind == "other":
            messages, other = [*messages[:which], *other], messages
        else:
            messages.append(Message("user" if kind == "user" else "system", tuple(parts)))
        requests.append(tuple(messages))
    return requests


@given(steps, st.sampled_from([0, 300, 1 << 20]), st.sampled_from(["5m", "1h", "off"]), st.booleans())
@settings(deadline=None)
def test_kept_or_not_the_bytes_are_the_same(
    steps: list[Step], limit_bytes: int, cache: CacheTime, thinks: bool
) -> None:
    """However little is kept, and in whatever order messages come and go."""
    turns, items = KeptTalks(Turns, limit_bytes), KeptTalks(Items, limit_bytes)
    for number, messages in enumerate(told(steps)):
        request = ModelRequest(
            messages=messages, instructions="i" * (number % 2), tools=TOOLS, reasoning_effort="low" if thinks else None
        )
        name = "claude-sonnet-4-5"
        assert encode(messages_body(request, name, cache, turns)) == encode(messages_body(request, name, cache))
        assert encode(responses_body(request, "gpt-5", "auto", items)) == encode(responses_body(request, "gpt-5"))


def test_a_system_message_may_lose_its_place_at_the_front() -> None:
    talks = KeptTalks(Turns)
    system, asked = Message("system", (Text("s"),)), Message("user", (Text("a"),))
    for messages in ((system, asked), (asked, system), (system, asked)):
        request = ModelRequest(messages=messages)
        assert encode(messages_body(request, "m", "5m", talks)) == encode(messages_body(request, "m"))


def test_a_talk_stays_as_it_is_where_others_go_on_from_it() -> None:
    """Several threads may go on from the latest at once."""
    first, *more = (Message(role, (Text(role),)) for role in ("user", "assistant", "user"))
    for begun, encoded in ((Turns(), lambda talk: talk.encoded(b"").data), (Items(), lambda talk: talk.encoded().data)):
        talk: Any = begun
        talk.add(first, None)
        before, further = encoded(talk), [talk.copy(), talk.copy()]
        for message in more:
            for one in further:
                one.add(message, None)
        assert encoded(talk) == before
        assert encoded(further[0]) == encoded(further[1]) != before


class Counted:
    """A talk that counts what it makes."""

    def __init__(self, made: list[Message], said: tuple[Message, ...] = ()) -> None:
        self.made, self.said = made, said

    def copy(self) -> Counted:
        return Counted(self.made, self.said)

    def add(self, message: Message, kept: Kept[None] | None) -> Kept[None]:
        self.said += (message,)
        if kept is None:
            self.made.append(message)
        return kept or Kept(message, None, 1, {})


@pytest.mark.parametrize("limit_bytes", [3, 1000])
def test_each_message_is_made_once(limit_bytes: int) -> None:
    """Step by step, after a summary of the middle, and where two conversations take turns."""
    made: list[Message] = []
    talks = KeptTalks(lambda: Counted(made), limit_bytes)
    mine, other = ([Message("user", (Text(str(number)),)) for number in range(20)] for _ in range(2))
    for end in range(21):
        assert talks.tell(mine[:end]).said == tuple(mine[:end])
    summary = Message("user", (Text("s"),))
    assert talks.tell([mine[0], summary, *mine[18:]]).said == (mine[0], summary, *mine[18:])
    assert talks.tell([mine[0], summary, *mine[18:], other[0]]).said[3:] == (mine[19], other[0])
    assert len(made) == 22 or limit_bytes == 3
    made.clear()
    for end in range(2, 21):
        talks.tell(mine[18:])
        talks.tell(other[:end])
    assert len(made) == 19 or limit_bytes == 3


@pytest.mark.parametrize("beside", [1, 12345678901234567890123])
def test_what_is_encoded_stays_as_it_is(beside: int) -> None:
    """Also beside what only the slower way can encode."""
    found: Any = json.loads(encode({"a": Encoded(b'[{"b":12345678901234567890123}]'), "c": beside}))
    assert found == {"a": [{"b": 12345678901234567890123}], "c": beside}
    with pytest.raises(TypeError, match="type object is not JSON"):
        encode({"a": object()})
