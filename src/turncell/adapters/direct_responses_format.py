"""The body of a request to OpenAI's responses.

Nothing is stored at the provider (`store: false`): each request brings the whole conversation, and what the model
thought comes along sealed, as it was given. A reasoning item is refused without the item that followed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from turncell.adapters.chat_format import arguments_text, beside_images, clean, encode
from turncell.adapters.direct_format import WireIds, image_url, strict_schema
from turncell.adapters.kept_bytes import Encoded, Kept, KeptTalks, encoded_list
from turncell.adapters.seals import PHASE, RESPONSES, seal_of
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import TOOL_CHOICES, ModelRequest, ToolSpec

_REASONS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d)(?!.*chat)|codex)")
"""Models that reason; others refuse to be asked for what they thought."""


def responses_body(
    request: ModelRequest, model: str, summary: str | None = "auto", talks: KeptTalks[Items] | None = None
) -> dict[str, Json]:
    """The body of a streaming request to `model` (as the provider names it), without anybody's extras.

    `talks` has what is kept of the requests before; without it all is made anew.
    """
    if talks is None:
        talks = KeptTalks(Items)
    body: dict[str, Json] = {"model": model, "stream": True, "store": False}
    if request.instructions:
        body["instructions"] = clean(request.instructions)
    if request.tools:
        body["tools"] = Encoded(talks.tools(request.tools, _tools))
        if (choice := request.tool_choice) is not None:
            body["tool_choice"] = choice if choice in TOOL_CHOICES else {"type": "function", "name": choice}
    body["input"] = talks.tell(request.messages).encoded()
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    effort = request.reasoning_effort
    if effort is not None:
        body["reasoning"] = {"effort": effort} | ({"summary": summary} if summary and effort != "none" else {})
    if effort is not None or _REASONS.search(model):
        body["include"] = ["reasoning.encrypted_content"]
    if request.output_schema is not None:
        strict = strict_schema(request.output_schema)
        schema = request.output_schema if strict is None else strict
        answer = {"type": "json_schema", "name": "answer", "schema": schema, "strict": strict is not None}
        body["text"] = {"format": answer}
    return body


def _tools(tools: Sequence[ToolSpec]) -> bytes:
    return encode(
        [
            {"type": "function", "name": tool.name, "description": clean(tool.description), "parameters": tool.schema,
             "strict": False}
            for tool in tools
        ]
    )  # fmt: skip


class Items:
    """The messages as items. Thoughts go back with a seal of `sealed_by` alone."""

    def __init__(self, sealed_by: str = RESPONSES, pieces: Iterable[bytes] = (), ids: WireIds | None = None) -> None:
        self._sealed_by, self._pieces, self._ids = sealed_by, list(pieces), ids or WireIds()

    def copy(self) -> Items:
        return Items(self._sealed_by, self._pieces, self._ids.copy())

    def add(self, message: Message, kept: Kept[bytes] | None) -> Kept[bytes]:
        ids = self._ids.of(message)
        if kept is None or kept.ids != ids:
            data = encode(_items(message, ids, self._sealed_by))[1:-1]
            kept = Kept(message, data, len(data), ids)
        if kept.made:
            self._pieces.append(kept.made)
        return kept

    def encoded(self) -> Encoded:
        return encoded_list(self._pieces)


def _items(message: Message, ids: Mapping[str, str], sealed_by: str) -> list[dict[str, Json]]:
    """`ids` are those on the wire of the calls and results in it."""
    if message.role == "assistant":
        items = _said(message, ids, sealed_by)
        if (made := beside_images(message)) is not None:
            items.append({"type": "message", "role": "user", "content": _content(made.parts)})
        return items
    items = [_result(part, ids) for part in message.parts if isinstance(part, ToolResult)]
    content = _content(message.parts)
    if content:
        role = "user" if message.role == "tool" else message.role
        items.append({"type": "message", "role": role, "content": content})
    return items


def _said(message: Message, ids: Mapping[str, str], sealed_by: str) -> list[dict[str, Json]]:
    items: list[dict[str, Json]] = []
    phase: dict[str, Json] = {}
    for part in message.parts:
        if isinstance(part, Text) and part.text:
            content = [{"type": "output_text", "text": clean(part.text)}]
            items.append({"type": "message", "role": "assistant", "content": content} | phase)
        elif isinstance(part, ToolCall):
            items.append(_call(part, ids))
        elif isinstance(part, Reasoning) and (sealed := seal_of(part, sealed_by)):
            items.append(_thought(part, sealed))
        elif isinstance(part, Reasoning) and (said := seal_of(part, PHASE)):
            phase = {"phase": said}
    while items and items[-1]["type"] == "reasoning":
        items.pop()
    return items


def _call(part: ToolCall, ids: Mapping[str, str]) -> dict[str, Json]:
    call_id, arguments = ids[part.call_id], arguments_text(part)
    return {"type": "function_call", "call_id": call_id, "name": part.name, "arguments": arguments}


def _result(part: ToolResult, ids: Mapping[str, str]) -> dict[str, Json]:
    # A list only where it must be: servers that speak this format often know texts alone.
    output = _content((Text(part.content), *part.images)) if part.images else clean(part.content)
    return {"type": "function_call_output", "call_id": ids[part.call_id], "output": output}


def _thought(part: Reasoning, seal: str) -> dict[str, Json]:
    item_id, _, sealed = seal.partition(":")
    summary = [{"type": "summary_text", "text": clean(part.text)}] if part.text else []
    item: dict[str, Json] = {"type": "reasoning", "summary": summary, "encrypted_content": sealed}
    return {"type": "reasoning", "id": item_id} | item if item_id else item


def _content(parts: Sequence[Part]) -> list[Json]:
    content: list[Json] = []
    for part in parts:
        if isinstance(part, Text) and part.text:
            content.append({"type": "input_text", "text": clean(part.text)})
        elif isinstance(part, Image):
            content.append({"type": "input_image", "image_url": image_url(part), "detail": "auto"})
    return content
