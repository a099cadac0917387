"""The body of a request to Anthropic's messages.

A cached prefix is found again only if it is the same to the byte, in the order tools, system, messages. So nothing here
depends on more than the conversation itself, and four marks (the most that the API takes) say where prefixes end: the
tools, the instructions, the last message and the one that was last a step ago, which is where the last step's prefix
was written; a lookup walks back only twenty blocks, fewer than one step can add.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, TypeAlias

from turncell.adapters.chat_format import arguments_of, beside_images, clean, thinking_block, without_last_thoughts
from turncell.adapters.direct_format import WireIds, image_url, joined, schema_in_words, strict_schema
from turncell.adapters.seals import ANTHROPIC
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import ModelRequest

CacheTime: TypeAlias = Literal["5m", "1h", "off"]

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
    request: ModelRequest, model: str, cache: CacheTime = "5m", sealed_by: str = ANTHROPIC
) -> dict[str, Json]:
    """The body of a streaming request to `model` (as the provider names it), without anybody's extras.

    Thoughts go back with a seal of `sealed_by` alone.
    """
    version = version_of(model)
    system, messages = _conversation(request.messages, sealed_by)
    system = joined(clean(request.instructions), system)
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
        body["tools"] = [
            {"name": tool.name, "description": clean(tool.description), "input_schema": tool.schema}
            for tool in request.tools
        ]
    if system:
        body["system"] = [{"type": "text", "text": system}]
    body["messages"] = messages
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.reasoning_effort not in (None, "none"):
        _think(body, output, request.reasoning_effort or "", version)
    if output:
        body["output_config"] = output
    if cache != "off":
        _mark(body, cache)
    return body


def _most_tokens(version: tuple[int, int]) -> int:
    """What an answer may have when nobody said: the API wants a number, and more than a model can is refused."""
    if version >= (3, 7):
        return 32_000
    return 4096 if (3, 0) <= version < (3, 5) else 8192


def _think(body: dict[str, Json], output: dict[str, Json], effort: str, version: tuple[int, int]) -> None:
    if version >= (4, 6):
        # Later ones omit what they thought unless it is asked for.
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        output["effort"] = "low" if effort == "minimal" else effort
        return
    budget_tokens = min(_BUDGETS_TOKENS.get(effort, _LEAST_TOKENS), body["max_tokens"] - _LEAST_TOKENS)
    # Refused otherwise: a turn that called tools without thinking must go on without.
    if budget_tokens >= _LEAST_TOKENS and not _called_without_thinking(body["messages"]):
        body["thinking"] = {"type": "enabled", "budget_tokens": budget_tokens}


def _called_without_thinking(messages: list[dict[str, Json]]) -> bool:
    for message in reversed(messages):
        if message["role"] == "assistant":
            first = message["content"][0]["type"]
            has_calls = any(block["type"] == "tool_use" for block in message["content"])
            return has_calls and first not in ("thinking", "redacted_thinking")
        if not any(block["type"] == "tool_result" for block in message["content"]):
            return False
    return False


def _conversation(messages: Iterable[Message], sealed_by: str) -> tuple[str, list[dict[str, Json]]]:
    """The system texts that stand first, and the messages, each of another role than the one before."""
    system: list[str] = []
    turns: list[dict[str, Json]] = []
    ids = WireIds()
    for message in messages:
        if message.role == "system" and not turns:
            system.append(clean(message.text))
            continue
        role = "assistant" if message.role == "assistant" else "user"
        parts = without_last_thoughts(message.parts) if role == "assistant" else message.parts
        blocks = [block for part in parts if (block := _block(part, role, ids, sealed_by)) is not None]
        _add(turns, role, blocks)
        made = beside_images(message) if role == "assistant" else None
        _add(turns, "user", [] if made is None else [_block(part, "user", ids, sealed_by) for part in made.parts])
    for turn in turns:
        # Results are refused anywhere but first.
        turn["content"].sort(key=lambda block: block["type"] != "tool_result" if turn["role"] == "user" else 0)
    return joined(*system), turns


def _add(turns: list[dict[str, Json]], role: str, blocks: list[Json]) -> None:
    if blocks and turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    elif blocks:
        turns.append({"role": role, "content": blocks})


def _block(part: Part, role: str, ids: WireIds, sealed_by: str) -> dict[str, Json] | None:
    """None for what the API refuses (blank text) or has not sealed."""
    if isinstance(part, Text):
        text = clean(part.text)
        return {"type": "text", "text": text} if text.strip() else None
    if isinstance(part, Reasoning):
        return thinking_block(part, sealed_by) if role == "assistant" else None
    if isinstance(part, Image):
        return _image(part) if role == "user" else None
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": ids.of_call(part), "name": part.name, "input": arguments_of(part)}
    return _result(part, ids)


def _image(part: Image) -> dict[str, Json]:
    if part.media_type is None:
        return {"type": "image", "source": {"type": "url", "url": image_url(part)}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}


def _result(part: ToolResult, ids: WireIds) -> dict[str, Json]:
    result: dict[str, Json] = {"type": "tool_result", "tool_use_id": ids.of_result(part)}
    if part.content.strip():
        result["content"] = clean(part.content)
    if part.images:
        said = [{"type": "text", "text": result["content"]}] if "content" in result else []
        result["content"] = [*said, *map(_image, part.images)]
    return result | {"is_error": True} if part.is_error else result


def _mark(body: dict[str, Json], cache: CacheTime) -> None:
    mark: dict[str, Json] = {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}
    asked = [message["content"] for message in body["messages"] if message["role"] == "user"]
    for blocks in (body.get("tools"), body.get("system"), *asked[-2:]):
        if blocks:
            blocks[-1]["cache_control"] = mark
