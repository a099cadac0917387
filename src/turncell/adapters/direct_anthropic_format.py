"""The body of a request to Anthropic's messages.

A cached prefix is found again only if it is the same to the byte, in the order tools, system, messages. So nothing here
depends on more than the conversation itself, and four marks (the most that the API takes) say where prefixes end: the
tools, the instructions, the last message and the one that was last a step ago, which is where the last step's prefix
was written; a lookup walks back only twenty blocks, fewer than one step can add.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from turncell.adapters.chat_format import (
    arguments_of,
    beside_images,
    clean,
    encode,
    served_block,
    thinking_block,
    without_last_thoughts,
)
from turncell.adapters.direct_format import WireIds, image_url, joined, schema_in_words, strict_schema
from turncell.adapters.kept_bytes import Encoded, Kept, KeptTalks, encoded_list
from turncell.adapters.seals import ANTHROPIC
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.errors import ModelFailure
from turncell.runtime.ports import ModelRequest, ToolSpec

CacheTime: TypeAlias = Literal["5m", "1h", "off"]

_MARKS: dict[CacheTime, bytes] = {
    "5m": b',"cache_control":{"type":"ephemeral"}',
    "1h": b',"cache_control":{"type":"ephemeral","ttl":"1h"}',
    "off": b"",
}
_NAME = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?")
_BUDGETS_TOKENS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 31_000}
_LEAST_TOKENS = 1024
"""The smallest thinking budget that the API takes; it must also be smaller than max_tokens."""


def version_of(name: str) -> tuple[int, int]:
    """The version in a model's name; (0, 0) for names that are not Anthropic's own.

    >>> version_of("claude-opus-4-1-20250805"), version_of("claude-3-7-sonnet-latest"), version_of("claude-sonnet-4-20250514")
    ((4, 1), (3, 7), (4, 0))
    """
    if "claude-mythos-preview" in name:
        return 4, 7
    found = _NAME.search(name)
    if found is None:
        return 0, 0
    return int(found[1]), int(found[2] or 0)


def has_schema_mode(name: str) -> bool:
    version = version_of(name)
    return version >= (4, 5) or (version == (4, 1) and "opus" in name)


def messages_body(
    request: ModelRequest, model: str, cache: CacheTime = "5m", talks: KeptTalks[Turns] | None = None
) -> dict[str, Json]:
    """The body of a streaming request to `model` (as the provider names it), without anybody's extras.

    `talks` has what is kept of the requests before; without it all is made anew.
    """
    if talks is None:
        talks = KeptTalks(Turns)
    version, mark = version_of(model), _MARKS[cache]
    turns = talks.tell(request.messages)
    system = joined(clean(request.instructions), *turns.system)
    output: dict[str, Json] = {}
    if request.output_schema is not None:
        schema = strict_schema(request.output_schema)
        if schema is None:
            system = joined(system, schema_in_words(request.output_schema))
        else:
            output["format"] = {"type": "json_schema", "schema": schema}
    body: dict[str, Json] = {
        "model": model,
        "max_tokens": request.max_tokens or _most_tokens(version),
        "stream": True,
    }
    if request.tools:
        body["tools"] = Encoded(_marked(talks.tools(request.tools, _tools), mark, b"}]"))
        if request.tool_choice is not None:
            body["tool_choice"] = _choice(request.tool_choice)
    if system:
        body["system"] = Encoded(_marked(encode([{"type": "text", "text": system}]), mark, b"}]"))
    body["messages"] = turns.encoded(mark)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.reasoning_effort not in (None, "none"):
        _think(body, output, request.reasoning_effort or "", version, turns)
    if output:
        body["output_config"] = output
    return body


def _most_tokens(version: tuple[int, int]) -> int:
    """What an answer may have when nobody said: the API wants a number, and more than a model can is refused."""
    if version >= (3, 7):
        return 32_000
    return 4096 if (3, 0) <= version < (3, 5) else 8192


def _think(body: dict[str, Json], output: dict[str, Json], effort: str, version: tuple[int, int], turns: Turns) -> None:
    if version >= (4, 6):
        # Later ones omit what they thought unless it is asked for.
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        output["effort"] = "low" if effort == "minimal" else effort
        return
    budget_tokens = min(_BUDGETS_TOKENS.get(effort, _LEAST_TOKENS), body["max_tokens"] - _LEAST_TOKENS)
    # Refused otherwise: a turn that called tools without thinking must go on without.
    if budget_tokens >= _LEAST_TOKENS and not turns.called_without_thinking():
        body["thinking"] = {"type": "enabled", "budget_tokens": budget_tokens}


def _choice(choice: str) -> dict[str, Json]:
    kind = {"auto": "auto", "none": "none", "required": "any"}.get(choice)
    return {"type": "tool", "name": choice} if kind is None else {"type": kind}


def check_forced(name: str, choice: str | None) -> None:
    """ModelFailure for a call that is demanded of a model that thinks: Anthropic's refuse it, and at some providers no
    longer think, unasked.

    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking, extended thinking with tool use.
    """
    if choice not in (None, "auto", "none"):
        raise ModelFailure(
            "bad_request",
            f"{name}: a model that thinks cannot be made to call a tool, and tool_choice is {choice!r}; "
            "use tool_choice='auto' and say so in the instructions, or leave out the reasoning",
        )


def _tools(tools: Sequence[ToolSpec]) -> bytes:
    return encode(
        [{"name": tool.name, "description": clean(tool.description), "input_schema": tool.schema} for tool in tools]
    )


_THOUGHTS = ("thinking", "redacted_thinking")
_NOTHING = b'{"type":"text","text":"(nothing)"}'
"""An answer of which nothing is left, since no content is refused."""


class _Served(NamedTuple):
    """A block of a tool that runs at the provider."""

    id: str
    """Of the call."""
    is_result: bool
    data: bytes


class _Turn(NamedTuple):
    """What one side says before the other does. Its blocks are JSON, with commas between."""

    role: str
    results: bytes
    """A user's blocks with results, which are refused anywhere but first."""
    blocks: bytes
    begins_with_thought: bool
    has_calls: bool
    served: tuple[_Served, ...] = ()
    thoughts: tuple[bytes, ...] = ()
    """Those that may come to stand last where blocks of such tools are left out."""

    def and_then(self, more: _Turn) -> _Turn:
        return _Turn(
            self.role, _listed(self.results, more.results), _listed(self.blocks, more.blocks), self.begins_with_thought,
            self.has_calls or more.has_calls, self.served + more.served, self.thoughts + more.thoughts,
        )  # fmt: skip

    def encoded(self, *, is_last: bool = False) -> bytes:
        blocks = self.blocks
        for one in self._unpaired(is_last) if self.served else ():
            before, _, after = blocks.partition(one.data)
            blocks = _listed(before.removesuffix(b","), after.removeprefix(b","))
        for thought in reversed(self.thoughts):
            blocks = blocks.removesuffix(thought).removesuffix(b",")
        content = _listed(self.results, blocks) or _NOTHING
        return b"".join((b'{"role":"', self.role.encode(), b'","content":[', content, b"]}"))

    def _unpaired(self, is_last: bool) -> list[_Served]:
        """Calls without a result, which are refused anywhere but at the end, where they are run; results without a call,
        which was summarised."""
        asked = {one.id for one in self.served if not one.is_result}
        said = {one.id for one in self.served if one.is_result}
        return [
            one
            for one in self.served
            if one.id not in (asked if one.is_result else said) and not (is_last and not one.is_result)
        ]


class Turns:
    """The messages as turns, each of another role than the one before. Only the last can still get longer.

    Thoughts go back with a seal of `sealed_by` alone.
    """

    def __init__(self, sealed_by: str = ANTHROPIC) -> None:
        self.system: list[str] = []
        """The system texts that stand first."""
        self._sealed_by, self._ids = sealed_by, WireIds()
        self._over: list[bytes] = []
        """All turns but the last."""
        self._before: _Turn | None = None
        self._last: _Turn | None = None

    def copy(self) -> Turns:
        turns = Turns(self._sealed_by)
        turns.system, turns._ids, turns._over = self.system.copy(), self._ids.copy(), self._over.copy()
        turns._before, turns._last = self._before, self._last
        return turns

    def add(self, message: Message, kept: Kept[tuple[_Turn, ...]] | None) -> Kept[tuple[_Turn, ...]]:
        ids = self._ids.of(message)
        if kept is None or kept.ids != ids:
            made = tuple(_turns(message, ids, self._sealed_by))
            kept = Kept(message, made, sum(len(turn.results) + len(turn.blocks) for turn in made), ids)
        if message.role == "system" and self._last is None:
            self.system.append(clean(message.text))
            return kept
        for turn in kept.made:
            if self._last is None and turn.role == "assistant":
                self._last = _BEGUN
            if self._last is None:
                self._last = turn
            elif self._last.role == turn.role:
                self._last = self._last.and_then(turn)
            else:
                self._over.append(self._last.encoded())
                self._before, self._last = self._last, turn
        return kept

    def encoded(self, mark: bytes) -> Encoded:
        if self._last is None:
            return encoded_list(())
        turns = [*self._over, self._last.encoded(is_last=True)]
        asked = len(turns) - 1 if self._last.role == "user" else len(turns) - 2
        for at in (asked, asked - 2):
            if at >= 0:
                turns[at] = _marked(turns[at], mark, b"}]}")
        return encoded_list(turns)

    def called_without_thinking(self) -> bool:
        """Whether the answer that goes on here called tools without a thought."""
        turn = self._last
        if turn is not None and turn.role == "user":
            turn = self._before if turn.results else None
        return turn is not None and turn.has_calls and not turn.begins_with_thought


def _turns(message: Message, ids: Mapping[str, str], sealed_by: str) -> Iterator[_Turn]:
    """`ids` are those on the wire of the calls and results in it."""
    role = "assistant" if message.role == "assistant" else "user"
    parts = without_last_thoughts(message.parts, sealed_by) if role == "assistant" else message.parts
    blocks = [block for part in parts if (block := _block(part, role, ids, sealed_by)) is not None]
    if blocks:
        yield _turn(role, blocks)
    made = beside_images(message) if role == "assistant" else None
    if made is not None:
        yield _turn("user", [_block(part, "user", ids, sealed_by) for part in made.parts])


def _turn(role: str, blocks: list[Json]) -> _Turn:
    kinds = [block["type"] for block in blocks]
    results: list[Json] = []
    if role == "user" and "tool_result" in kinds:
        results = [block for block in blocks if block["type"] == "tool_result"]
        blocks = [block for block in blocks if block["type"] != "tool_result"]
    begins_with_thought = kinds[0] in _THOUGHTS
    served = tuple(
        _Served(block.get("tool_use_id") or block.get("id") or "", "tool_use_id" in block, encode(block))
        for block in blocks
        if is_served(block["type"])
    )
    # Each for itself where one may have to be taken out again.
    inner = b",".join(map(encode, blocks)) if served else _inner(blocks)
    thoughts = tuple(encode(block) for block in blocks if served and block["type"] in _THOUGHTS)
    return _Turn(role, _inner(results), inner, begins_with_thought, "tool_use" in kinds, served, thoughts)


def is_served(kind: str) -> bool:
    """Whether a block is of a tool that runs at the provider.

    >>> is_served("server_tool_use"), is_served("web_search_tool_result"), is_served("tool_use")
    (True, True, False)
    """
    return kind in ("server_tool_use", "mcp_tool_use") or kind.endswith("_tool_result")


def served_text(block: Mapping[str, Json]) -> str:
    """What people are shown of such a block: what the tool was asked, and where it has found what.

    >>> served_text({"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "Oslo"}})
    'web_search {"query":"Oslo"}'
    >>> served_text({"tool_use_id": "s1", "content": [{"title": "Oslo", "url": "https://example.org"}]})
    'Oslo https://example.org'
    """
    if "tool_use_id" not in block:
        return f"{block.get('name')} {encode(block.get('input')).decode()}"
    content = block.get("content")
    lines = [
        " ".join(str(one[name]) for name in ("title", "url", "text", "stdout", "stderr", "error_code") if one.get(name))
        for one in (content if isinstance(content, list) else [content])
        if isinstance(one, dict)
    ]
    return "\n".join(filter(None, lines))


def _inner(blocks: list[Json]) -> bytes:
    return encode(blocks)[1:-1] if blocks else b""


_BEGUN = _turn("user", [{"type": "text", "text": "[the conversation begins]"}])
"""Stands before a greeting: some who serve this format want the user to speak first."""


def _listed(*some: bytes) -> bytes:
    """Blocks with commas between."""
    return b",".join(filter(None, some))


def _block(part: Part, role: str, ids: Mapping[str, str], sealed_by: str) -> dict[str, Json] | None:
    """None for what the API refuses (blank text) or has not sealed."""
    if isinstance(part, Text):
        text = clean(part.text)
        return {"type": "text", "text": text} if text.strip() else None
    if isinstance(part, Reasoning):
        if role != "assistant":
            return None
        return served_block(part, sealed_by) or thinking_block(part, sealed_by)
    if isinstance(part, Image):
        return _image(part) if role == "user" else None
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": ids[part.call_id], "name": part.name, "input": arguments_of(part)}
    return _result(part, ids)


def _image(part: Image) -> dict[str, Json]:
    if part.media_type is None:
        return {"type": "image", "source": {"type": "url", "url": image_url(part)}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}


def _result(part: ToolResult, ids: Mapping[str, str]) -> dict[str, Json]:
    result: dict[str, Json] = {"type": "tool_result", "tool_use_id": ids[part.call_id]}
    if part.content.strip():
        result["content"] = clean(part.content)
    if part.images:
        said = [{"type": "text", "text": result["content"]}] if "content" in result else []
        result["content"] = [*said, *map(_image, part.images)]
    return result | {"is_error": True} if part.is_error else result


def _marked(data: bytes, mark: bytes, end: bytes) -> bytes:
    """With the mark in the last block of `data`, which ends with `end`."""
    return data.removesuffix(end) + mark + end if mark else data
