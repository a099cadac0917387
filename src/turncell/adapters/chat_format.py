"""Messages and tools in the shape of OpenAI's chat completions, which most providers and LiteLLM take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import ToolSpec

REDACTED = "redacted:"
"""Begins the signature of a reasoning block that the provider sent sealed: the rest is its data."""
OPENAI_SEAL = "responses:"
"""Begins the signature of a reasoning item of OpenAI's responses: its id, a colon and the sealed content follow."""
_LEGAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def chat_messages(
    messages: Iterable[Message], instructions: str = "", *, wire_id: Callable[[str], str] | None = None
) -> list[dict[str, Json]]:
    """The messages as chat completions take them, the instructions first.

    Reasoning goes back only with its signature (as `thinking_blocks`): providers refuse what they have not sealed.
    `wire_id` makes the id of a tool call from the provider's own; legal ones are kept unless it says otherwise.
    """
    chat: list[dict[str, Json]] = [{"role": "system", "content": clean(instructions)}] if instructions else []
    ids: dict[str, str] = {}
    for message in messages:
        if message.role == "assistant":
            chat.append(_assistant(message, ids, wire_id or legal_id))
        elif message.role != "tool":
            chat.append({"role": message.role, "content": _content(message.parts)})
        for part in message.parts:
            if isinstance(part, ToolResult):
                call_id = ids.get(part.call_id) or (wire_id or legal_id)(part.provider_id or part.call_id)
                chat.append({"role": "tool", "tool_call_id": call_id, "content": clean(part.content)})
    return chat


def chat_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Json]]:
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": clean(t.description), "parameters": t.schema},
        }
        for t in tools
    ]


def clean(text: str) -> str:
    """The text with lone surrogates replaced: they cannot be encoded, and one would fail every later request.

    >>> clean("a" + chr(0xD83D) + "b") == "a" + chr(0xFFFD) + "b"
    True
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def legal_id(text: str) -> str:
    """The id itself where every provider accepts it, otherwise one made from it.

    >>> legal_id("call_1"), legal_id("functions.f:0")
    ('call_1', 'functions_f_0_d6bdd4de')
    """
    if _LEGAL_ID.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:55] + "_" + digest


def _assistant(message: Message, ids: dict[str, str], wire_id: Callable[[str], str]) -> dict[str, Json]:
    text = clean(message.text)
    chat: dict[str, Json] = {"role": "assistant", "content": text}
    if message.calls:
        calls: list[dict[str, Json]] = []
        chat |= {"content": text or None, "tool_calls": calls}
        for call in message.calls:
            call_id = wire_id(call.provider_id or call.call_id)
            if any(other["id"] == call_id for other in calls):
                # Some servers name all their calls alike; a result must still find its own.
                call_id = legal_id(call.call_id)
            ids[call.call_id] = call_id
            calls.append(_call(call, call_id))
    thoughts = [thinking_block(part) for part in message.parts if isinstance(part, Reasoning) and is_anthropic(part)]
    if thoughts:
        chat["thinking_blocks"] = thoughts
    return chat


def _call(call: ToolCall, call_id: str) -> dict[str, Json]:
    function = {"name": call.name, "arguments": clean(call.arguments_text) or "{}"}
    return {"id": call_id, "type": "function", "function": function}


def is_anthropic(part: Reasoning) -> bool:
    """It is sealed, and not by OpenAI: a session may have changed its model, and nobody takes another's seal."""
    return bool(part.signature) and not (part.signature or "").startswith(OPENAI_SEAL)


def thinking_block(part: Reasoning) -> dict[str, Json]:
    signature = part.signature or ""
    if signature.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED)}
    return {"type": "thinking", "thinking": clean(part.text), "signature": signature}


def _content(parts: Sequence[Part]) -> Json:
    """A plain string, or a list where there are images."""
    if not any(isinstance(part, Image) for part in parts):
        return clean("".join(part.text for part in parts if isinstance(part, Text)))
    blocks: list[Json] = []
    for part in parts:
        if isinstance(part, Text):
            blocks.append({"type": "text", "text": clean(part.text)})
        elif isinstance(part, Image):
            url = f"data:{part.media_type};base64,{part.data}" if part.media_type else part.data
            blocks.append({"type": "image_url", "image_url": {"url": url}})
    return blocks
