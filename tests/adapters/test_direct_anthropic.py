"""Anthropic's messages without LiteLLM: streams from files, and whole runs over HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from enum import Enum
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from tests.adapters.direct import Direct, DirectRuns
from tests.adapters.streams import ADD, KEY, ask, content, cut, hear, names, play
from turncell import Agent, ModelFailure, UsageError, export_markdown, tool
from turncell.adapters.chat_format import chat_messages, encode
from turncell.adapters.direct_anthropic import DirectAnthropic, MessagesReading
from turncell.adapters.direct_anthropic_format import messages_body, served_text
from turncell.adapters.direct_chat import is_closed
from turncell.adapters.direct_responses_format import responses_body
from turncell.adapters.price import Price
from turncell.adapters.price_list import list_price
from turncell.core.deltas import Finished
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult, Usage
from turncell.errors import UnknownModelError
from turncell.runtime import defaults
from turncell.runtime.ports import Model, ModelRequest, capabilities_of
from turncell.testing import Reply, call, fault, raw, reply, serve

pytestmark = pytest.mark.feature("G2")

SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds+/=="


model = Direct(DirectAnthropic, "anthropic/claude-sonnet-4-5", has_v1=False, said_after=4)
answer = model.answer


def served(block: Json) -> Reasoning:
    """A block of a tool that runs at the provider, as it is kept."""
    return Reasoning(
        served_text(block), "anthropic:block:" + json.dumps(block, ensure_ascii=False, separators=(",", ":"))
    )


def found(call_id: str, title: str, url: str, sealed: str) -> Json:
    page = {"type": "web_search_result", "title": title, "url": url, "encrypted_content": sealed, "page_age": None}
    return {"type": "web_search_tool_result", "tool_use_id": call_id, "content": [page]}


PAUSED: list[Json] = [
    {"type": "thinking", "thinking": "Search.", "signature": "c2VhbA=="},
    {"type": "text", "text": "I search. "},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "weather NYC"}},
    found("srvtoolu_1", "Weather", "https://example.org/Weather", "Ev0D"),
    {"type": "server_tool_use", "id": "srvtoolu_2", "name": "web_search", "input": {"query": "weather Oslo"}},
]
"""What paused.sse says, whole."""
CONTINUED: list[Json] = [
    found("srvtoolu_2", "Oslo", "https://example.org/Oslo", "Ew0E"), {"type": "text", "text": "Both are wet."},
]  # fmt: skip

ANSWERS: dict[str, tuple[tuple[Part, ...], str, Usage]] = {
    "text": ((Text("Grüße, 🌦!"),), "stop", Usage(25, 15)),
    "tools": (
        (
            Text("Okay, let's check"),
            ToolCall("call_1", "get_weather", '{"location": "San Francisco, CA"}', "toolu_01T1x1fJ34qAmk2tNTrN7Up6"),
        ),
        "tool_calls",
        Usage(472, 89),
    ),
    "thinking": (
        (
            Reasoning("I need the GCD of 1071 and 462.\n1071 = 2 × 462 + 147", f"anthropic:{SIGNATURE}"),
            Text("The greatest common divisor is **21**."),
        ),
        "stop",
        Usage(25, 15),
    ),
    "thinking_and_parallel_calls": (
        (
            Reasoning("Two cities.", "anthropic:c2VhbC0x"),
            Text("I ask for both."),
            ToolCall("call_1", "weather", '{"city": "Oslo"}', "toolu_1"),
            Reasoning("And the second.", "anthropic:c2VhbC0y"),
            ToolCall("call_2", "weather", '{"city": "Bergen"}', "toolu_2"),
        ),
        "tool_calls",
        Usage(25, 15),
    ),
    "redacted_thinking": (
        (
            Reasoning("Hm.", "anthropic:c2VhbA=="),
            Reasoning("", "anthropic:redacted:EmwKAhgBEgy3va3pzix/LafPsn4a"),
            Text("Based on my analysis"),
        ),
        "stop",
        Usage(25, 15),
    ),
    "omitted_thinking": ((Reasoning("", "anthropic:RXJzdGVz"), Text("21")), "stop", Usage(25, 40, reasoning_tokens=37)),
    "server_tool": (
        (
            Text("I'll check."),
            served({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "weather NYC"}}),
            served(found("srvtoolu_1", "Weather", "https://example.org", "Ev0D")),
            Text(" It is 19°."),
        ),
        "stop",
        Usage(10682, 510, 0, 0),
    ),
    "paused": (
        (Reasoning("Search.", "anthropic:c2VhbA=="), Text("I search. "), *map(served, PAUSED[2:])),
        "paused",
        Usage(25, 15),
    ),
    "continued": ((served(CONTINUED[0]), Text("Both are wet.")), "stop", Usage(25, 15)),
    "cached": ((Text("Yes."),), "stop", Usage(100298, 503, 100000, 248)),
    "empty_arguments": ((ToolCall("call_1", "now", "", "toolu_1"),), "tool_calls", Usage(25, 15)),
    "whole_arguments": (
        (Text("Both."), ToolCall("call_1", "add", '{"a":1}', "toolu_1"), ToolCall("call_2", "add", '{"a":2}', "toolu_2")),
        "tool_calls",
        Usage(25, 15),
    ),
    "whole_arguments_without_an_end": (
        (ToolCall("call_1", "add", '{"a":1}', "toolu_1"), ToolCall("call_2", "add", '{"a":2}', "toolu_2")),
        "tool_calls",
        Usage(25, 15),
    ),
    "cut_by_length": ((ToolCall("call_1", "save", '{"text": "half an', "toolu_1"),), "length", Usage(25, 15)),
    "refusal": ((Text("I cannot"),), "filter", Usage(25, 15)),
    "unknown_events": ((Text("fine"),), "stop", Usage(25, 15)),
    "characters_cut_in_two": (
        (
            Reasoning("Hm 🤔 or\ufffd", "anthropic:c2VhbA=="),
            Text("So far 😀 fine, a\ufffdb and c\ufffd"),
            ToolCall("call_1", "weather", '{"city": "🌊"}', "toolu_1"),
            ToolCall("call_2", "weather", '{"city": "🌋\ufffd"}', "toolu_2"),
        ),
        "tool_calls",
        Usage(25, 15),
    ),
    "half_a_character_at_the_end": ((Text("fine \ufffd"),), "stop", Usage(25, 15)),
    "zero_at_the_end": ((Text("fine"),), "stop", Usage(25, 9)),
}  # fmt: skip
FAILURES: dict[str, tuple[tuple[Part, ...], str, str]] = {
    "overloaded": ((Text("half"),), "overloaded", "Overloaded"),
    "rate_limited": ((), "rate_limit", "would exceed"),
    "no_end": ((Text("half an ans"),), "protocol", "ended before the answer did"),
    "page_in_between": ((), "protocol", "upstream timeout"),
}


def check(name: str, parts: tuple[Part, ...], end: Finished | ModelFailure) -> None:
    if isinstance(end, Finished):
        assert (parts, end.finish_reason, end.usage) == ANSWERS[name]
    else:
        expected, kind, words = FAILURES[name]
        assert (parts, end.kind) == (expected, kind)
        assert words in str(end)


@pytest.mark.feature("A2")
class TestStreams:
    @pytest.mark.parametrize("name", names("anthropic"))
    def test_a_stream_is_read_over_http(self, name: str) -> None:
        check(name, *answer(raw(content("anthropic", name).decode())))

    @pytest.mark.parametrize("name", names("anthropic"))
    @settings(deadline=None)
    @given(at=st.lists(st.integers(0, 10_000), max_size=12))
    def test_a_stream_may_be_cut_anywhere(self, name: str, at: list[int]) -> None:
        check(name, *play(MessagesReading("m"), cut(content("anthropic", name), at)))

    def test_a_server_that_does_not_stream_is_understood(self) -> None:
        block = [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="},
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}},
        ]
        usage = {"input_tokens": 3, "output_tokens": 2}
        message = {"type": "message", "model": "m", "content": block, "stop_reason": "tool_use", "usage": usage}
        parts, end = answer(Reply(body=message))
        assert parts == (
            Reasoning("Hm.", "anthropic:c2VhbA=="),
            Text("I add."),
            ToolCall("call_1", "add", '{"a":1}', "toolu_1"),
        )
        assert (end.finish_reason, end.usage, end.answered_by) == ("tool_calls", Usage(3, 2), "m")

    def test_what_came_in_the_same_piece_as_a_failure_is_kept(self) -> None:
        parts, failure = answer(reply("12345678 and more", errors_after=4, chunk_bytes=1 << 20))
        assert parts == (Text("12345678"),)
        assert failure.kind == "overloaded"


HISTORY = (
    Message("system", (Text("Speak Norwegian."),)),
    Message("user", (Text("What is this? \ud83d"), Image("aGk=", "image/png"), Image("https://example.org/a.png"))),
    Message(
        "assistant",
        (
            Reasoning("no seal"),
            Reasoning("another's", "responses:rs_1:gAAAA"),
            Reasoning("Gemini's", "gemini:c2VhbA=="),
            Reasoning("sealed", "sig=="),
            Reasoning("", "redacted:c2VjcmV0"),
            Text(" \n"),
            Text("I add."),
            ToolCall("run_1-1-1", "add", '{"a": 12345678901234567890123}', "toolu_x"),
            ToolCall("run_1-1-2", "add", "{broken", "functions.add:1"),
            ToolCall("run_1-1-3", "add", "", "toolu_x"),
        ),
    ),
    Message("user", (Text("Be quick."),)),
    Message("tool", (ToolResult("run_1-1-1", "add", "one"), ToolResult("run_1-1-2", "add", "", is_error=True))),
    Message("tool", (ToolResult("run_1-1-3", "add", "three"),)),
    Message("assistant", (Reasoning("only thought"),)),
)


class TestTheBody:
    def test_a_conversation(self) -> None:
        request = ModelRequest(
            messages=HISTORY,
            instructions="Be brief.",
            tools=(ADD,),
            temperature=0.5,
            max_tokens=77,
            extra={"top_k": 7},
        )
        with serve(["ok"]) as server:
            asyncio.run(hear(model(server, extra_body={"top_p": 0.5, "top_k": 1}, headers={"x-team": "a"}), request))
            body, headers, path = server.requests[0], server.headers[0], server.paths[0]
        assert path == "/v1/messages"
        assert (headers["x-api-key"], headers["anthropic-version"], headers["x-team"]) == (KEY, "2023-06-01", "a")
        assert {name: value for name, value in body.items() if name not in ("messages", "tools", "system")} == {
            "model": "claude-sonnet-4-5", "max_tokens": 77, "stream": True, "temperature": 0.5, "top_p": 0.5, "top_k": 7,
        }  # fmt: skip
        assert [block["text"] for block in body["system"]] == ["Be brief.\n\nSpeak Norwegian."]
        user, assistant, last = body["messages"]
        assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user"]
        assert [block.get("text") or block["source"] for block in user["content"]] == [
            "What is this? \ufffd",
            {"type": "base64", "media_type": "image/png", "data": "aGk="},
            {"type": "url", "url": "https://example.org/a.png"},
        ]
        thought, redacted, text, *uses = assistant["content"]
        assert thought == {"type": "thinking", "thinking": "sealed", "signature": "sig=="}
        assert redacted == {"type": "redacted_thinking", "data": "c2VjcmV0"}
        assert text == {"type": "text", "text": "I add."}
        assert [one["input"] for one in uses] == [{"a": 12345678901234567890123}, {"arguments": "{broken"}, {}]
        ids = [one["id"] for one in uses]
        assert (ids[0], ids[2], len(set(ids))) == ("toolu_x", "run_1-1-3", 3)
        *results, steer = last["content"]
        assert [one["tool_use_id"] for one in results] == ids
        assert [one.get("content") for one in results] == ["one", None, "three"]
        assert [one.get("is_error", False) for one in results] == [False, True, False]
        assert steer["text"] == "Be quick."

    @pytest.mark.parametrize(
        ("name", "max_tokens", "thinking", "effort"),
        [
            ("claude-sonnet-4-5", None, {"type": "enabled", "budget_tokens": 8192}, None),
            ("claude-3-7-sonnet-latest", 4096, {"type": "enabled", "budget_tokens": 3072}, None),
            ("claude-sonnet-4-5", 2000, None, None),
            ("claude-opus-4-7", None, {"type": "adaptive", "display": "summarized"}, "medium"),
            ("claude-mythos-preview", None, {"type": "adaptive", "display": "summarized"}, "medium"),
        ],
    )
    def test_effort_becomes_what_the_model_understands(
        self, name: str, max_tokens: int | None, thinking: Any, effort: str | None
    ) -> None:
        body = messages_body(ask(reasoning_effort="medium", max_tokens=max_tokens), name)
        assert body.get("thinking") == thinking
        assert body.get("output_config", {}).get("effort") == effort

    def test_calls_without_a_thought_are_not_followed_by_one(self) -> None:
        talk = (*ask().messages, Message("assistant", (ToolCall("c1", "add", "{}"),)))
        talk += (Message("tool", (ToolResult("c1", "add", "1"),)),)
        assert "thinking" not in messages_body(ModelRequest(messages=talk, reasoning_effort="low"), "claude-sonnet-4-5")
        thought = replace(talk[1], parts=(Reasoning("hm", "c2VhbA=="), *talk[1].parts))
        talk = (talk[0], thought, talk[2])
        assert "thinking" in messages_body(ModelRequest(messages=talk, reasoning_effort="low"), "claude-sonnet-4-5")

    def test_a_thought_that_nothing_follows_does_not_go_back(self) -> None:
        """As where the limit has cut an answer while it thought: the API refuses a message that ends with one."""
        hm, more = Reasoning("hm", "c2Vh"), Reasoning("", "redacted:c2Vi")
        for parts, kinds in (
            ((hm, more), None),
            ((hm, Text(" ")), None),
            ((hm, Text("x"), more), ["thinking", "text"]),
        ):
            talk = (*ask().messages, Message("assistant", parts), *ask("Go on.").messages)
            turns = json.loads(messages_body(ModelRequest(messages=talk), "claude-sonnet-4-5")["messages"].data)
            said = [[block["type"] for block in turn["content"]] for turn in turns]
            assert said == ([["text"], kinds, ["text"]] if kinds else [["text", "text"]])
            chat = chat_messages(talk)[1]
            assert len(chat.get("thinking_blocks", [])) == (1 if kinds else 0)

    def test_what_another_server_has_signed_goes_back_to_it_alone(self) -> None:
        """Kimi, MiniMax and others speak the format and sign their thoughts, which Anthropic refuses, and they may its."""
        script = [reply("Wet.", reasoning="hm", signature="c2Vh"), "x", "y"]
        with serve(script) as server:
            kimi, claude = model(server, "anthropic/kimi-k2"), model(server)
            session = Agent(kimi).session()
            for asked in (kimi, claude, kimi):
                Agent(asked).run_sync("?", session=session)
            said = [[block["type"] for block in body["messages"][1]["content"]] for body in server.requests[1:]]
        assert said == [["text"], ["thinking", "text"]]

    def test_an_answer_always_has_a_limit(self) -> None:
        limits = [messages_body(ask(), name)["max_tokens"] for name in ("claude-sonnet-4-5", "claude-3-haiku-20240307")]
        assert limits == [32_000, 4096]


def sent_of(*messages: Message) -> list[Any]:
    """Role and blocks of each turn, without marks."""
    body = messages_body(ModelRequest(messages=messages), "claude-sonnet-4-5", "off")
    return [(turn["role"], turn["content"]) for turn in json.loads(encode(body))["messages"]]


def said_by(stream: str) -> Message:
    parts, _ = play(MessagesReading("m"), [content("anthropic", stream)])
    return Message("assistant", parts)


def user(text: str) -> Message:
    return Message("user", (Text(text),))


@pytest.mark.feature("A3")
class TestATurnThatIsPaused:
    """https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons, pause_turn: what was said goes back as it is."""

    def test_it_goes_on_with_what_was_said_and_nothing_else(self) -> None:
        script = [raw(content("anthropic", one).decode()) for one in ("paused", "continued")]
        search = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
        with serve([*script, "Yes."]) as server:
            session = Agent(model(server, extra_body=search), reasoning_effort="low").session()
            run = session.send("Where does it rain?").result()
            assert session.send("Sure?").result().text == "Yes."
            first, second, third = [json.loads(json.dumps(body), object_hook=_unmarked) for body in server.requests]
        assert (run.status, run.text) == ("completed", "Both are wet.")
        assert [step.finish_reason for step in run.state.steps] == ["paused", "stop"]
        assert second["messages"] == [*first["messages"], {"role": "assistant", "content": PAUSED}]
        assert second["tools"] == first["tools"] and second["thinking"] == first["thinking"]
        assert third["messages"][1] == {"role": "assistant", "content": [*PAUSED, *CONTINUED]}, "one turn, as it was"

    def test_people_see_what_was_searched_and_found(self) -> None:
        with serve([raw(content("anthropic", one).decode()) for one in ("paused", "continued")]) as server:
            run = Agent(model(server)).run_sync("Where does it rain?")
        shown = export_markdown(run)
        searched = 'web_search {"query":"weather NYC"}'
        assert searched in [block.text for block in run.state.steps[0].blocks] and "weather NYC" in shown
        assert "Weather https://example.org/Weather" in [block.text for block in run.state.steps[0].blocks]
        assert "https://example.org/Oslo" in shown

    def test_it_is_not_given_back_for_ever(self) -> None:
        paused = raw(content("anthropic", "paused").decode())
        with serve([paused] * 20) as server:
            run = Agent(model(server)).run_sync("Where does it rain?")
            assert len(server.requests) == 11
        assert (run.status, run.text) == ("truncated", "I search. ")
        assert "paused the answer 11 times in a row" in str(run.state.error)

    def test_each_time_is_a_step_within_the_limit(self) -> None:
        paused = raw(content("anthropic", "paused").decode())
        with serve([paused, paused, "That is all."]) as server:
            run = Agent(model(server), max_steps=2).run_sync("Where does it rain?")
            last = server.requests[2]["messages"]
        assert (run.status, run.text) == ("max_steps", "That is all.")
        assert [block.get("id") for block in last[1]["content"] if block["type"] == "server_tool_use"] == [
            "srvtoolu_1"
        ] * 2

    def test_a_call_without_a_result_is_left_out_where_something_else_is_said_next(self) -> None:
        """It is refused there: "tool use was found without a corresponding result block"."""
        told = (user("Where?"), said_by("paused"))
        assert sent_of(*told)[1] == ("assistant", PAUSED)
        assert sent_of(*told, user("Stop."))[1] == ("assistant", PAUSED[:-1])
        assert sent_of(*told, said_by("continued"), user("And?"))[1] == ("assistant", [*PAUSED, *CONTINUED])
        only = Message("assistant", (served(PAUSED[-1]),))
        assert sent_of(user("Where?"), only, user("Stop."))[1] == ("assistant", [{"type": "text", "text": "(nothing)"}])

    def test_what_is_left_then_does_not_end_with_a_thought(self) -> None:
        """It is refused, too: "the final block in an assistant message cannot be thinking"."""
        thought, asks = Reasoning("Hm.", "anthropic:c2VhbA=="), served(PAUSED[-1])
        for parts, left in [
            ((Text("I look."), thought, thought, asks), [{"type": "text", "text": "I look."}]),
            ((thought, asks), [{"type": "text", "text": "(nothing)"}]),
            (
                (served(found("srvtoolu_0", "Rome", "https://example.org/Rome", "Ew")), thought, asks),
                [{"type": "text", "text": "(nothing)"}],
            ),
        ]:
            said = Message("assistant", parts)
            assert sent_of(user("Where?"), said, user("Stop."))[1] == ("assistant", left)
            assert sent_of(user("Where?"), said, said_by("continued"))[1][1][-4:] == [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="}, PAUSED[-1], *CONTINUED,
            ]  # fmt: skip

    def test_an_answer_may_be_cut_in_the_middle_of_a_call(self) -> None:
        stream = content("anthropic", "paused").decode().replace('weather Oslo\\"}', "wea")
        assert stream.count("Oslo") == 0
        parts, end = play(MessagesReading("m"), [stream.replace("pause_turn", "max_tokens").encode()])
        assert parts == ANSWERS["paused"][0][:-1] and isinstance(end, Finished) and end.finish_reason == "length"

    def test_a_result_without_its_call_is_left_out(self) -> None:
        """The step with the call may have been summarised."""
        assert sent_of(user("So far: ..."), said_by("continued"), user("And?"))[1] == ("assistant", CONTINUED[1:])

    def test_what_was_found_counts_for_the_window(self) -> None:
        long = (
            content("anthropic", "paused")
            .decode()
            .replace("pause_turn", "end_turn")
            .replace('"input_tokens": 25, ', "")
        )
        finds = raw(long.replace("Ev0D", "Ev0D" * 10_000))
        with serve([finds, finds, "It rains.", "Yes."]) as server:
            session = Agent(model(server), context={"window_tokens": 24_000, "keep_recent": 1}).session()
            for message in ("Where does it rain?", "Look again.", "Sure?"):
                run = session.send(message).result()
            found = [json.dumps(body).count("Ev0D" * 10_000) for body in server.requests]
        assert run.text == "Yes." and found == [0, 1, 0, 1], "the third has made room"

    def test_nobody_else_is_given_such_blocks(self) -> None:
        [chat] = chat_messages([said_by("paused")])
        assert chat["content"] == "I search. " and len(chat["thinking_blocks"]) == 1
        body = responses_body(ModelRequest(messages=(said_by("paused"),)), "gpt-5")
        assert b"srvtoolu" not in encode(body)
        torn = Message("assistant", (Reasoning("", "anthropic:block:{torn"), Text("Fine.")))
        assert sent_of(user("Hm?"), torn) == [
            ("user", [{"type": "text", "text": "Hm?"}]),
            ("assistant", [{"type": "text", "text": "Fine."}]),
        ]


@pytest.mark.feature("C6")
class TestTheCache:
    def marks(self, body: dict[str, Any]) -> list[str]:
        """Where the marks are on the wire, in the order of the prefix."""
        found = [f"tools.{n}" for n, one in enumerate(body.get("tools", [])) if "cache_control" in one]
        found += ["system" for one in body.get("system", []) if "cache_control" in one]
        for number, message in enumerate(body["messages"]):
            found += [
                f"messages.{number}.{n}" for n, one in enumerate(message["content"]) if "cache_control" in one
            ]  # fmt: skip
        return found

    def test_four_marks_reach_the_wire_and_the_prefix_stays_the_same(self) -> None:
        @tool(effect="read")
        def add(a: int) -> str:
            """Add one."""
            return f"= {a + 1}"

        script = [reply(calls=[call("add", a=1)]), reply(calls=[call("add", a=2), call("add", a=3)]), reply("4.")]
        with serve(script) as server:
            run = Agent(model(server), tools=[add], instructions="Be brief.").run_sync("Add.")
            bodies = server.requests
        assert run.text == "4."
        assert [self.marks(body) for body in bodies] == [
            ["tools.0", "system", "messages.0.0"],
            ["tools.0", "system", "messages.0.0", "messages.2.0"],
            ["tools.0", "system", "messages.2.0", "messages.4.1"],
        ]
        assert bodies[0]["tools"][0]["cache_control"] == {"type": "ephemeral"}
        plain = [json.loads(json.dumps(body), object_hook=_unmarked) for body in bodies]
        for before, after in pairwise(plain):
            assert (after["tools"], after["system"]) == (before["tools"], before["system"])
            assert after["messages"][: len(before["messages"])] == before["messages"]

    def test_it_may_last_an_hour_or_be_off(self) -> None:
        with serve(["a", "b"]) as server:
            asyncio.run(hear(model(server, prompt_cache="1h")))
            asyncio.run(hear(model(server, prompt_cache="off")))
            marked, plain = server.requests
        assert marked["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
        assert self.marks(plain) == []
        with pytest.raises(UsageError, match="'2h'"):
            DirectAnthropic("claude-sonnet-4-5", prompt_cache="2h")  # type: ignore[arg-type]

    def test_what_was_read_and_written_is_counted_and_priced(self) -> None:
        usage = Usage(1000, 100, cache_read_tokens=700, cache_write_tokens=200)
        _, end = answer(reply("x", usage=usage), price=Price(3.0, 15.0))
        assert end.usage == usage
        assert end.cost_usd == pytest.approx((100 * 3 + 700 * 0.3 + 200 * 3.75 + 100 * 15) / 1e6)
        assert end.cost_basis == "user"


class TestPrices:
    def test_the_provider_itself_has_a_price_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
        claude = DirectAnthropic("anthropic/claude-sonnet-4-5", api_key=KEY)
        assert claude.price_usd(100_000, 100_000) == pytest.approx(0.3 + 1.5)
        assert DirectAnthropic("claude-of-tomorrow", api_key=KEY).price_usd(1, 1) is None
        assert list_price("openai", "claude-sonnet-4-5") is None

    def test_another_server_has_none_but_the_users(self) -> None:
        _, end = answer(reply("x", usage=Usage(1000, 100)))
        assert (end.cost_usd, end.cost_basis) == (None, "none")
        claude = DirectAnthropic("claude-sonnet-4-5", base_url="http://127.0.0.1:9", price=Price(1.0, 2.0))
        assert claude.price_usd(1_000_000, 1_000_000) == pytest.approx(3.0)


def _unmarked(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("cache_control", None)
    return value


class City(BaseModel):
    name: str
    people: int = Field(ge=0)


class Way(Enum):
    TRAIN = "train"
    BUS = "bus"


class Trip(BaseModel):
    to: City | None
    by: Way


class Glad(BaseModel):
    kind: Literal["glad"]
    words: list[str]


class Sad(BaseModel):
    kind: Literal["sad"]


class Diary(BaseModel):
    trips: list[Trip]
    mood: Glad | Sad = Field(discriminator="kind")


class Box(BaseModel):
    name: str
    inner: list[Box] = []


@pytest.mark.feature("A19")
class TestSchemas:
    def test_an_answer_is_held_to_a_type(self) -> None:
        with serve(['{"name": "Oslo", "people": 700000}']) as server:
            run = Agent(model(server), output=City).run_sync("Which?")
            body = server.requests[0]
        assert run.output == City(name="Oslo", people=700000)
        assert body["output_config"]["format"] == {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "people": {"type": "integer", "description": "minimum: 0"}},
                "additionalProperties": False,
                "required": ["name", "people"],
            },
        }
        assert "tools" not in body

    def test_classes_choices_and_unions_inside_are_held_too(self) -> None:
        value = {"trips": [{"to": {"name": "Oslo", "people": 1}, "by": "train"}, {"to": None, "by": "bus"}], "mood": {
            "kind": "glad", "words": ["yes"]}}  # fmt: skip
        with serve([json.dumps(value)]) as server:
            run = Agent(model(server), output=Diary).run_sync("Where?")
            body = server.requests[0]
        assert run.output == Diary.model_validate(value)
        schema = body["output_config"]["format"]["schema"]
        trip = schema["properties"]["trips"]["items"]
        assert trip["properties"]["by"] == {"type": "string", "enum": ["train", "bus"]}
        assert trip["properties"]["to"]["anyOf"][0]["required"] == ["name", "people"]
        moods = schema["properties"]["mood"]["anyOf"]
        assert [one["properties"]["kind"]["const"] for one in moods] == ["glad", "sad"]
        assert "$ref" not in json.dumps(schema) and is_closed(schema) and "system" not in body

    def test_a_list_of_classes_is_held_too(self) -> None:
        with serve(['{"value": [{"name": "Oslo", "people": 1}]}']) as server:
            run = Agent(model(server), output=list[City]).run_sync("Which?")
            schema = server.requests[0]["output_config"]["format"]["schema"]
        assert run.output == [City(name="Oslo", people=1)]
        assert schema["properties"]["value"]["items"]["required"] == ["name", "people"]

    def test_what_is_inside_itself_is_said_in_words(self) -> None:
        with serve(['{"name": "a", "inner": [{"name": "b", "inner": []}]}']) as server:
            run = Agent(model(server), output=Box).run_sync("Which?")
            body = server.requests[0]
        assert run.output == Box(name="a", inner=[Box(name="b")])
        assert "output_config" not in body and "$defs" in body["system"][0]["text"]

    def test_what_no_grammar_can_say_is_said_in_words(self) -> None:
        with serve(['{"value": {"Oslo": 1}}']) as server:
            run = Agent(model(server), output=dict[str, int]).run_sync("How many?")
            body = server.requests[0]
        assert run.output == {"Oslo": 1}
        assert "output_config" not in body
        assert "additionalProperties" in body["system"][0]["text"]

    def test_an_older_model_answers_with_a_tool(self) -> None:
        names = (
            "claude-3-7-sonnet-latest",
            "claude-sonnet-4-20250514",
            "claude-opus-4-1",
            "claude-haiku-4-5",
            "my-own",
        )
        assert [capabilities_of(DirectAnthropic(name)).schema for name in names] == [False, False, True, True, False]
        assert capabilities_of(DirectAnthropic("my-own", holds_schema=True)).schema


@pytest.mark.feature("A13")
class TestFailures:
    @pytest.mark.parametrize(
        ("one", "kind", "status_code", "retry_after_s"),
        [
            (fault(400, "max_tokens: must be at least 1"), "bad_request", 400, None),
            (fault(400, "prompt is too long: 210000 tokens > 200000 maximum"), "context_length", 400, None),
            (fault(401, f"invalid x-api-key {KEY}"), "auth", 401, None),
            (fault(403), "auth", 403, None),
            (fault(404, "model: claude-none"), "not_found", 404, None),
            (fault(413, "Request exceeds the maximum size"), "context_length", 413, None),
            (fault(429, "slow down", retry_after_s=7), "rate_limit", 429, 7.0),
            (fault(500, "Internal server error"), "overloaded", 500, None),
            (fault(529, "Overloaded", retry_after_s=1.5), "overloaded", 529, 1.5),
            (reply("some text", resets_after=0), "connection", None, None),
            (reply("some text", resets_after=4), "connection", None, None),
            (reply("some text", has_end=False), "protocol", None, None),
            (reply("some text", errors_after=0, error_type="authentication_error"), "auth", None, None),
        ],
    )
    def test_failures_have_a_kind(self, one: Reply, kind: str, status_code: int | None, retry_after_s: float) -> None:
        _, found = answer(one)
        assert (found.kind, found.status_code, found.retry_after_s) == (kind, status_code, retry_after_s)

    def test_a_missing_key_names_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
            monkeypatch.delenv(variable, raising=False)
        _, found = asyncio.run(hear(DirectAnthropic("anthropic/claude-sonnet-4-5")))
        assert found.kind == "auth"  # type: ignore[union-attr]
        assert "ANTHROPIC_API_KEY not set in the environment" in str(found)

    @pytest.mark.feature("G6")
    def test_the_key_may_come_from_the_environment_or_a_function(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(["a", "b", "c"]) as server:
            monkeypatch.setenv("ANTHROPIC_API_KEY", "from-environment")
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
            asyncio.run(hear(DirectAnthropic("claude-sonnet-4-5")))
            asyncio.run(hear(DirectAnthropic("claude-sonnet-4-5", api_key=lambda: "from-function")))
            monkeypatch.delenv("ANTHROPIC_API_KEY")
            asyncio.run(hear(DirectAnthropic("claude-sonnet-4-5", headers={"Authorization": "Bearer mine"})))
            assert [one.get("x-api-key") for one in server.headers] == ["from-environment", "from-function", None]
            assert server.headers[2]["authorization"] == "Bearer mine"

    @pytest.mark.feature("G6")
    def test_a_server_that_is_named_gets_no_key_of_somebody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

        def sign(url: str, body: bytes) -> dict[str, str]:
            return {"x-signature": f"{url[-12:]} {len(body)}"}

        with serve(["a", "b"]) as server:
            asyncio.run(hear(DirectAnthropic("m", base_url=server.origin)))
            asyncio.run(hear(DirectAnthropic("m", base_url=server.origin, auth=sign, extra_body={"stream": True})))
            assert all("x-api-key" not in one for one in server.headers)
            assert server.headers[1]["x-signature"] == f"/v1/messages {server.headers[1]['content-length']}"

    def test_a_name_without_a_model_is_refused(self) -> None:
        for name in ("", "anthropic/", "claude sonnet"):
            with pytest.raises(UnknownModelError, match="'anthropic/name'"):
                DirectAnthropic(name)


class TestRuns(DirectRuns):
    model = model

    def test_a_thought_comes_back_byte_for_byte_with_its_calls(self) -> None:
        script = [
            raw(content("anthropic", "thinking_and_parallel_calls").decode()),
            reply("Wet in both.", reasoning="So be it.", signature="c2VhbC0z"),
            reply("Still wet."),
        ]

        @tool(effect="read")
        def weather(city: str) -> str:
            """The weather."""
            return f"rain in {city}"

        with serve(script) as server:
            agent = Agent(model(server, "anthropic/claude-opus-4-6"), tools=[weather], reasoning_effort="high")
            run = agent.run_sync("Weather?")
            again = agent.run_sync("And now?", session=run.session)
            _, second, third = (body["messages"] for body in server.requests)
        assert run.text.endswith("Wet in both.")
        assert again.text == "Still wet."
        assert second[1]["content"] == [
            {"type": "thinking", "thinking": "Two cities.", "signature": "c2VhbC0x"},
            {"type": "text", "text": "I ask for both."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "thinking", "thinking": "And the second.", "signature": "c2VhbC0y"},
            {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Bergen"}},
        ]
        results = [(one["tool_use_id"], one["content"]) for one in second[2]["content"]]
        assert results == [("toolu_1", "rain in Oslo"), ("toolu_2", "rain in Bergen")]
        assert third[3]["content"][0] == {"type": "thinking", "thinking": "So be it.", "signature": "c2VhbC0z"}


class TestTheChoice:
    def test_a_name_with_a_key_is_asked_directly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        found = defaults.model("anthropic/claude-sonnet-4-5")
        assert isinstance(found, DirectAnthropic)
        assert isinstance(found, Model)
        assert found.name == "anthropic/claude-sonnet-4-5"

    def test_without_one_it_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
        monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
        assert not isinstance(defaults.model("anthropic/claude-sonnet-4-5"), DirectAnthropic)

    def test_an_answer_needs_no_litellm(self) -> None:
        code = (
            "import sys, turncell.testing as t, turncell\n"
            "from turncell.adapters.direct_anthropic import DirectAnthropic\n"
            "from turncell.adapters.direct_responses import DirectResponses\n"
            "assert 'aiohttp' not in sys.modules\n"
            "with t.serve(['a', 'b']) as s:\n"
            "    for m in DirectAnthropic('x', base_url=s.origin), DirectResponses('x', base_url=s.base_url):\n"
            "        print(turncell.Agent(m).run_sync('hi').text)\n"
            "print([name for name in ('litellm', 'openai', 'httpx') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.split() == ["a", "b", "[]"], done.stderr
