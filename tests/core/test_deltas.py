"""Stream assembly: whatever way providers cut and name the pieces, the parts are the same."""

from __future__ import annotations

import json
from itertools import pairwise, zip_longest
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turncell.core.deltas import (
    CallFragment,
    Fragment,
    ReasoningFragment,
    assemble,
    rope_add,
)
from turncell.core.parts import Reasoning, Text, ToolCall

pytestmark = pytest.mark.feature("A2")

Call: TypeAlias = tuple[str, str, str | None]
"""(name, arguments, provider id)"""


def calls_of(fragments: list[Fragment]) -> list[Call]:
    parts = assemble(fragments)
    return [(part.name, part.arguments_text, part.provider_id) for part in parts if isinstance(part, ToolCall)]


def p(index: int | None, provider_id: str | None, name: str | None, arguments: str = "") -> CallFragment:
    return CallFragment(index, provider_id, name, arguments)


ODD_STREAMS: dict[str, tuple[list[Fragment], list[Call]]] = {
    "ids first, own indexes": (
        [p(0, "a", "f"), p(0, None, None, '{"x":'), p(0, None, None, "1}"), p(1, "b", "g"), p(1, None, None, "{}")],
        [("f", '{"x":1}', "a"), ("g", "{}", "b")],
    ),
    "interleaved by index": (
        [p(0, "a", "f"), p(1, "b", "f"), p(1, None, None, '{"y":'), p(0, None, None, '{"x":1'), p(1, None, None, "2}"), p(0, None, None, "}")],
        [("f", '{"x":1}', "a"), ("f", '{"y":2}', "b")],
    ),
    "first index 1": (
        [p(1, "a", "f", '{"x"'), p(2, "b", "g", "{"), p(1, None, None, ":1}"), p(2, None, None, "}")],
        [("f", '{"x":1}', "a"), ("g", "{}", "b")],
    ),
    "all indexes 0, ids first": (
        [p(0, "a", "f"), p(0, None, None, '{"x":1}'), p(0, "b", "f"), p(0, None, None, '{"x":2}')],
        [("f", '{"x":1}', "a"), ("f", '{"x":2}', "b")],
    ),
    "all indexes 0, ids on every piece, interleaved": (
        [p(0, "a", "f", "{"), p(0, "b", "g", "["), p(0, "a", None, "}"), p(0, "b", None, "]")],
        [("f", "{}", "a"), ("g", "[]", "b")],
    ),
    "all indexes 0, no ids": (
        [p(0, None, "f", '{"x":'), p(0, None, None, "1}"), p(0, None, "g", "{}")],
        [("f", '{"x":1}', None), ("g", "{}", None)],
    ),
    "all indexes 0, no ids, the same tool twice": (
        [p(0, None, "f", '{"x":1}'), p(0, None, "f", '{"x":2}')],
        [("f", '{"x":1}', None), ("f", '{"x":2}', None)],
    ),
    "no ids, own indexes": (
        [p(0, None, "f", "{"), p(1, None, "f", "{"), p(0, None, None, "}"), p(1, None, None, "}")],
        [("f", "{}", None), ("f", "{}", None)],
    ),
    "neither ids nor indexes": (
        [p(None, None, "f", '{"x":'), p(None, None, None, "1}"), p(None, None, "f", "{}"), p(None, None, "g", "{}")],
        [("f", '{"x":1}', None), ("f", "{}", None), ("g", "{}", None)],
    ),
    "ids but no indexes": (
        [p(None, "a", "f", "{"), p(None, "b", "g", "{"), p(None, "a", None, "}"), p(None, None, None, "}")],
        [("f", "{}", "a"), ("g", "{}", "b")],
    ),
    "index on the first piece only": (
        [p(0, "a", "f", "{"), p(None, None, None, "}"), p(1, "b", "g", "{"), p(None, None, None, "}")],
        [("f", "{}", "a"), ("g", "{}", "b")],
    ),
    "the name on every piece": (
        [p(0, "a", "f", '{"x"'), p(0, "a", "f", ":1"), p(0, "a", "f", "}")],
        [("f", '{"x":1}', "a")],
    ),
    "the name on every piece, no ids, then the same tool again": (
        [p(0, None, "f", '{"x"'), p(0, None, "f", ":1}"), p(0, None, "f", "{"), p(0, None, "f", "}")],
        [("f", '{"x":1}', None), ("f", "{}", None)],
    ),
    "the name on every piece, the last one empty": (
        [p(0, None, "f", '{"x":1}'), p(0, None, "f", "")],
        [("f", '{"x":1}', None)],
    ),
    "the same tool twice, the second begun by an empty piece": (
        [p(0, None, "f"), p(0, None, None, '{"x":1}'), p(0, None, "f"), p(0, None, None, '{"x":'), p(0, None, None, "2}")],
        [("f", '{"x":1}', None), ("f", '{"x":2}', None)],
    ),
    "the name late": ([p(0, "a", None, '{"x":'), p(0, None, None, "1}"), p(0, None, "f")], [("f", '{"x":1}', "a")]),
    "the name late, nothing else": ([p(None, None, None, '{"x":1}'), p(None, None, "f")], [("f", '{"x":1}', None)]),
    "the id late, by index": ([p(0, None, "f", '{"x":'), p(0, "a", None, "1}")], [("f", '{"x":1}', "a")]),
    "the id late, no index": ([p(None, None, "f", '{"x":'), p(None, "a", None, "1}")], [("f", '{"x":1}', "a")]),
    "text between the pieces": (
        [p(0, "a", "f", "{"), "and ", p(1, "b", "g", "{"), "so", p(0, None, None, "}"), p(1, None, None, "}")],
        [("f", "{}", "a"), ("g", "{}", "b")],
    ),
    "no name ever": ([p(0, "a", None, "{}")], [("", "{}", "a")]),
    "a placeholder, then the arguments": (
        [p(0, "a", "f", "{}"), p(0, None, None, '{"x":'), p(0, None, None, "1}"), p(1, "b", "g", "{}")],
        [("f", '{"x":1}', "a"), ("g", "{}", "b")],
    ),
    "an id made up for every piece": (
        [p(0, "a", "f", '{"x"'), p(0, "b", None, ":"), p(0, "c", None, "1}"), p(0, "d", "f", "{}")],
        [("f", '{"x":1}', "a"), ("f", "{}", "d")],
    ),
    "an id first, the index later": (
        [p(None, "a", "f", '{"x":'), p(0, None, None, "1"), p(0, None, None, "}"), p(1, "b", "g", "{}")],
        [("f", '{"x":1}', "a"), ("g", "{}", "b")],
    ),
    "no arguments ever": ([p(0, "a", "f"), p(1, "b", "f")], [("f", "", "a"), ("f", "", "b")]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_STREAMS)
def test_odd_streams_make_the_calls_that_were_meant(name: str) -> None:
    fragments, wanted = ODD_STREAMS[name]
    assert calls_of(fragments) == wanted


def test_parts_stand_in_the_order_in_which_they_began() -> None:
    parts = assemble(
        [
            ReasoningFragment("hm"),
            "a",
            p(0, "x", "f", "{"),
            "b",
            p(0, None, None, "}"),
        ]
    )
    assert [part.type for part in parts] == ["reasoning", "text", "tool_call", "text"]


def test_a_signature_seals_its_reasoning() -> None:
    parts = assemble(
        [
            ReasoningFragment("so "),
            ReasoningFragment("be it"),
            ReasoningFragment("", "sig"),
            ReasoningFragment("next"),
        ]
    )
    assert parts == (Reasoning("so be it", "sig"), Reasoning("next"))


def test_empty_text_is_no_part() -> None:
    assert assemble(["", ReasoningFragment(""), ""]) == ()


def test_a_name_on_each_piece_does_not_cost_the_square() -> None:
    """A million characters in 20,000 pieces: seconds, not minutes, on any machine."""
    text = json.dumps({"x": "y" * 1_000_000})
    fragments: list[Fragment] = [p(0, None, "f", text[at : at + 50]) for at in range(0, len(text), 50)]
    assert calls_of(fragments) == [("f", text, None)]


names = st.sampled_from(["f", "g", "add"])
arguments = st.dictionaries(
    st.text(max_size=4), st.integers() | st.text(max_size=6) | st.lists(st.booleans()), max_size=3
)
cuts = st.lists(st.integers(0, 60), max_size=6)


def pieces_of(text: str, where: list[int]) -> list[str]:
    places = [0, *sorted(min(place, len(text)) for place in where), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(names, arguments, cuts), min_size=1, max_size=4),
    st.sampled_from(["own", "from 1", "zero", "none"]),
    st.sampled_from(["first", "every", "never"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_cutting_the_arguments_anywhere_changes_nothing(
    wanted: list[tuple[str, dict[str, object], list[int]]],
    indexes: str,
    ids: str,
    repeats_name: bool,
    interleaves: bool,
    is_ascii: bool,
) -> None:
    # Interleaved pieces need something that tells them apart.
    interleaves = interleaves and (indexes in ("own", "from 1") or ids == "every")
    streams: list[list[Fragment]] = []
    expected: list[Call] = []
    for number, (name, values, where) in enumerate(wanted):
        text = json.dumps(values, ensure_ascii=is_ascii)
        index = {"own": number, "from 1": number + 1, "zero": 0, "none": None}[indexes]
        provider_id = None if ids == "never" else f"id{number}"
        expected.append((name, text, provider_id))
        streams.append(
            [
                p(
                    index,
                    provider_id if place == 0 or ids == "every" else None,
                    name if place == 0 or repeats_name else None,
                    piece,
                )
                for place, piece in enumerate(pieces_of(text, where))
            ]
        )
    turns = list(zip_longest(*streams)) if interleaves else [tuple(stream) for stream in streams]
    assert calls_of([piece for turn in turns for piece in turn if piece is not None]) == expected


@given(st.lists(st.text(max_size=5), max_size=200))
def test_text_is_the_same_however_it_was_cut(texts: list[str]) -> None:
    whole = "".join(texts)
    assert assemble(texts) == ((Text(whole),) if whole else ())


def test_a_rope_stays_short() -> None:
    rope: tuple[str, ...] = ()
    for _ in range(10_000):
        rope = rope_add(rope, "abc")
    assert "".join(rope) == "abc" * 10_000
    assert len(rope) < 20
