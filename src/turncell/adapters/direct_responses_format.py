"""The body of a request to OpenAI's responses.

Nothing is stored at the provider (`store: false`): each request brings the whole conversation, and what the model
thought comes along sealed, as it was given. A reasoning item is refused without the item that followed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from turncell.adapters.chat_format import arguments_text, beside_images, clean
from turncell.adapters.direct_format import WireIds, image_url, strict_schema
from turncell.adapters.seals import PHASE, RESPONSES, seal_of
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import ModelRequest

_REASONS = re.compile(r"(?:^|/)(?:o\d|gpt-(?:[5-9]|\d\d)(?!.*chat)|codex)")
"""Models that reason; others refuse to be asked for what they thought."""


def responses_body(
    request: ModelRequest, model: str, summary: str | None = "auto", sealed_by: str = RESPONSES
) -> dict[str, Json]:
    """The body of a streaming request to `model` (as the provider names it), without anybody's extras.

    Thoughts go back with a seal of `sealed_by` alone.
    """
    body: dict[str, Json] = {"model": model, "stream": True, "store": False}
    if request.instructions:
        body["instructions"] = clean(request.instructions)
    if request.tools:
        body["tools"] = [
            {"type": "function", "name": tool.name, "description": clean(tool.description), "parameters": tool.schema,
             "strict": False}
            for tool in request.tools
        ]  # fmt: skip
    body["input"] = _items(request.messages, sealed_by)
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


def _items(messages: Iterable[Message], sealed_by: str) -> list[dict[str, Json]]:
    items: list[dict[str, Json]] = []
    ids = WireIds()
    for message in messages:
        if message.role == "assistant":
            items += _said(message, ids, sealed_by)
            if (made := beside_images(message)) is not None:
                items.append({"type": "message", "role": "user", "content": _content(made.parts)})
            continue
        items += [_result(part, ids) for part in message.parts if isinstance(part, ToolResult)]
        content = _content(message.parts)
        if content:
            role = "user" if message.role == "tool" else message.role
            items.append({"type": "message", "role": role, "content": content})
    return items


def _said(message: Message, ids: WireIds, sealed_by: str) -> list[dict[str, Json]]:
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


def _call(part: ToolCall, ids: WireIds) -> dict[str, Json]:
    call_id = ids.of_call(part)
    return {"type": "function_call", "call_id": call_id, "name": part.name, "arguments": arguments_text(part)}


def _result(part: ToolResult, ids: WireIds) -> dict[str, Json]:
    # A list only where it must be: servers that speak this format often know texts alone.
    output = _content((Text(part.content), *part.images)) if part.images else clean(part.content)
    return {"type": "function_call_output", "call_id": ids.of_result(part), "output": output}


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
