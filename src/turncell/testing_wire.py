"""What the server for tests writes: one reply, as the events or the body of each wire format."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from turncell.adapters.scripted_model import Call
from turncell.adapters.seals import REDACTED
from turncell.core.parts import Json, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server answers to one request. Made by `reply`, `fault` or `raw`.

    A "chunk" is one SSE event. Faults come after that many chunks; 0 is before the first byte of the body.
    """

    text: str = ""
    reasoning: str = ""
    signature: str | None = None
    calls: tuple[Call, ...] = ()
    chunks: tuple[Json, ...] | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    model: str = "served"
    piece_chars: int = 8
    ids: Literal["first", "every", "none"] = "first"
    indexes: Literal["own", "zero", "from 1", "none"] = "own"
    is_interleaved: bool = False
    chunk_bytes: int | None = None
    delay_s: float = 0.0
    has_comments: bool = False
    has_crlf: bool = False
    has_usage: bool = True
    has_end: bool = True
    has_done: bool = True
    hangs_after: int | None = None
    resets_after: int | None = None
    errors_after: int | None = None
    error: str = "the model crashed"
    error_type: str = "server_error"
    status_code: int = 200
    retry_after_s: float | None = None
    body: Json = None


class Format(NamedTuple):
    """One wire format: its events, its body for a request that does not stream, its errors in both places."""

    chunks: Callable[[Reply, dict[str, Json]], Iterator[Json]]
    whole: Callable[[Reply, dict[str, Json]], Json]
    error_body: Callable[[Json, int], Json]
    error_chunk: Callable[[Reply], Json]
    has_done: bool = False
    """A stream ends with `[DONE]`."""
    has_names: bool = False
    """Events have names: their types."""


def wire(answer: Reply, body: dict[str, Json], form: Format) -> Iterator[bytes]:
    """The body of a streamed response, in the pieces in which it is written."""
    end = "\r\n" if answer.has_crlf else "\n"
    chunks = itertools.chain(answer.chunks) if answer.chunks is not None else form.chunks(answer, body)
    pieces: list[bytes] = []
    for number, chunk in enumerate(chunks):
        if number == answer.errors_after:
            break
        if answer.has_comments:
            pieces.append(f": keep-alive{end}{end}".encode())
        pieces.append(chunk.encode() if isinstance(chunk, str) else _event(chunk, form, end))
    if answer.errors_after is not None:
        pieces.append(_event(form.error_chunk(answer), form, end))
    elif answer.has_done and form.has_done:
        pieces.append(f"data: [DONE]{end}{end}".encode())
    if answer.chunk_bytes is None:
        return iter(pieces)
    whole = b"".join(pieces)
    return (whole[at : at + answer.chunk_bytes] for at in range(0, len(whole), answer.chunk_bytes))


def _event(chunk: Json, form: Format, end: str) -> bytes:
    name = f"event: {chunk['type']}{end}" if form.has_names and isinstance(chunk, dict) and "type" in chunk else ""
    return f"{name}data: {json.dumps(chunk, ensure_ascii=False)}{end}{end}".encode()


def _cut(text: str, answer: Reply) -> list[str]:
    size = max(1, answer.piece_chars)
    return [text[at : at + size] for at in range(0, len(text), size)]


def _id(answer: Reply, number: int) -> str:
    return answer.calls[number].provider_id or f"call_{number + 1}"


def _usage(answer: Reply, body: dict[str, Json]) -> Usage:
    """The reply's own, or words counted."""
    if answer.usage is not None:
        return answer.usage
    said = f"{answer.text} {answer.reasoning} {' '.join(one.arguments_text for one in answer.calls)}"
    return Usage(len(json.dumps(body.get("messages") or body.get("input")).split()), len(said.split()))


def _turns(streams: list[list[Json]], answer: Reply) -> Iterator[Json]:
    """The pieces of parallel calls, one call after the other or in turns."""
    if not answer.is_interleaved:
        yield from itertools.chain(*streams)
        return
    for turn in itertools.zip_longest(*streams):
        yield from (piece for piece in turn if piece is not None)


# OpenAI's chat completions.


def _chat_chunks(answer: Reply, body: dict[str, Json]) -> Iterator[Json]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": answer.model}

    def chunk(delta: Json, finish_reason: str | None = None) -> Json:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in _cut(answer.reasoning, answer):
        yield chunk({"reasoning_content": piece})
    for piece in _cut(answer.text, answer):
        yield chunk({"content": piece})
    streams = [list(_chat_call(answer, number, one)) for number, one in enumerate(answer.calls)]
    for piece in _turns(streams, answer):
        yield chunk({"tool_calls": [piece]})
    if not answer.has_end:
        return
    yield chunk({}, answer.finish_reason or ("tool_calls" if answer.calls else "stop"))
    if answer.has_usage and (body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": _chat_usage(answer, body)}


def _chat_call(answer: Reply, number: int, one: Call) -> Iterator[Json]:
    call_id = _id(answer, number)
    index = {"own": number, "zero": 0, "from 1": number + 1, "none": None}[answer.indexes]
    place = {} if index is None else {"index": index}
    first = {} if answer.ids == "none" else {"id": call_id}
    yield {**place, **first, "type": "function", "function": {"name": one.name, "arguments": ""}}
    for piece in _cut(one.arguments_text, answer):
        every = {"id": call_id} if answer.ids == "every" else {}
        yield {**place, **every, "function": {"arguments": piece}}


def _chat_usage(answer: Reply, body: dict[str, Json]) -> Json:
    usage = _usage(answer, body)
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    plain: dict[str, Json] = {"prompt_tokens": prompt, "completion_tokens": completion}
    plain["total_tokens"] = prompt + completion
    if usage.cache_read_tokens is not None:
        plain["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_tokens}
    if usage.reasoning_tokens is not None:
        plain["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return plain


def _chat_whole(answer: Reply, body: dict[str, Json]) -> Json:
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {"id": _id(answer, n), "type": "function", "function": {"name": one.name, "arguments": one.arguments_text}}
            for n, one in enumerate(answer.calls)
        ]
    reason = answer.finish_reason or ("tool_calls" if answer.calls else "stop")
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": _chat_usage(answer, body),
    }  # fmt: skip


def _chat_error(answer: Reply) -> Json:
    return {"error": {"message": answer.error, "type": answer.error_type, "code": 500}}


# Anthropic's messages.

_ANTHROPIC_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip


def _messages_blocks(answer: Reply) -> list[tuple[Json, list[Json], Json]]:
    """Each block as it starts, its deltas, and as it is when it is whole."""
    blocks: list[tuple[Json, list[Json], Json]] = []
    seal = answer.signature
    if seal is not None and seal.startswith(REDACTED):
        sealed = {"type": "redacted_thinking", "data": seal.removeprefix(REDACTED)}
        blocks.append((sealed, [], sealed))
    elif answer.reasoning or seal:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(answer.reasoning, answer)]
        if seal:
            deltas.append({"type": "signature_delta", "signature": seal})
        whole = {"type": "thinking", "thinking": answer.reasoning, "signature": seal or ""}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas, whole))
    if answer.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in _cut(answer.text, answer)]
        blocks.append(({"type": "text", "text": ""}, deltas, {"type": "text", "text": answer.text}))
    for number, one in enumerate(answer.calls):
        deltas = [
            {"type": "input_json_delta", "partial_json": piece} for piece in ["", *_cut(one.arguments_text, answer)]
        ]
        base = {"type": "tool_use", "id": _id(answer, number), "name": one.name, "input": {}}
        blocks.append((base, deltas, base | {"input": _object(one.arguments_text)}))
    return blocks


def _messages_chunks(answer: Reply, body: dict[str, Json]) -> Iterator[Json]:
    whole = _messages_whole(answer, body)
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield {"type": "message_start", "message": begun if answer.has_usage else {**begun, "usage": {}}}
    yield {"type": "ping"}
    streams: list[list[Json]] = []
    for number, (start, deltas, _) in enumerate(_messages_blocks(answer)):
        index = 0 if answer.indexes == "zero" else number
        stream = [{"type": "content_block_start", "index": index, "content_block": start}]
        stream += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        streams.append([*stream, {"type": "content_block_stop", "index": index}])
    yield from _turns(streams, answer)
    if answer.has_end:
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        usage = {"output_tokens": whole["usage"]["output_tokens"]} if answer.has_usage else {}
        yield {"type": "message_delta", "delta": delta, "usage": usage}
        yield {"type": "message_stop"}


def _messages_whole(answer: Reply, body: dict[str, Json]) -> Json:
    usage = _usage(answer, body)
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    tokens = {
        "input_tokens": (usage.input_tokens or 0) - read - written, "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written, "output_tokens": usage.output_tokens or 0,
    }  # fmt: skip
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": answer.model,
        "content": [whole for _, _, whole in _messages_blocks(answer)],
        "stop_reason": answer.finish_reason or ("tool_use" if answer.calls else "end_turn"), "stop_sequence": None,
        "usage": tokens,
    }  # fmt: skip


def _messages_error(answer: Reply) -> Json:
    said = {"server_error": "overloaded_error"}.get(answer.error_type, answer.error_type)
    return {"type": "error", "error": {"type": said, "message": answer.error}}


def _messages_error_body(body: Json, status_code: int) -> Json:
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return body
    error = body["error"]
    said = error.get("code") or _ANTHROPIC_ERRORS.get(status_code, "api_error")
    return {"type": "error", "error": {"type": said, "message": error.get("message")}, "request_id": "req_1"}


# OpenAI's responses.


def _responses_items(answer: Reply) -> list[tuple[Json, list[Json], Json]]:
    """Each item as it is added, the events inside it (without the numbers of the item), and as it is when it is done."""
    items: list[tuple[Json, list[Json], Json]] = []
    if answer.reasoning or answer.signature:
        part = {"type": "summary_text", "text": answer.reasoning}
        place = {"item_id": "rs_1", "summary_index": 0}
        events = [{"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}}]
        events += [
            {"type": "response.reasoning_summary_text.delta", **place, "delta": piece}
            for piece in _cut(answer.reasoning, answer)
        ]
        events.append({"type": "response.reasoning_summary_text.done", **place, "text": answer.reasoning})
        events.append({"type": "response.reasoning_summary_part.done", **place, "part": part})
        base: dict[str, Json] = {"id": "rs_1", "type": "reasoning", "summary": []}
        done = {**base, "summary": [part] if answer.reasoning else []}
        if answer.signature:
            done["encrypted_content"] = answer.signature
        items.append((base, events if answer.reasoning else [], done))
    if answer.text:
        place = {"item_id": "msg_1", "content_index": 0}
        content = {"type": "output_text", "text": answer.text, "annotations": []}
        events = [{"type": "response.content_part.added", **place, "part": {**content, "text": ""}}]
        events += [
            {"type": "response.output_text.delta", **place, "delta": piece} for piece in _cut(answer.text, answer)
        ]
        events.append({"type": "response.output_text.done", **place, "text": answer.text})
        events.append({"type": "response.content_part.done", **place, "part": content})
        base = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        items.append((base, events, {**base, "status": "completed", "content": [content]}))
    for number, one in enumerate(answer.calls):
        item_id = f"fc_{number + 1}"
        events = [
            {"type": "response.function_call_arguments.delta", "item_id": item_id, "delta": piece}
            for piece in _cut(one.arguments_text, answer)
        ]
        whole = {"type": "response.function_call_arguments.done", "item_id": item_id, "arguments": one.arguments_text}
        base = {"id": item_id, "type": "function_call", "call_id": _id(answer, number), "name": one.name}
        begun = {**base, "arguments": "", "status": "in_progress"}
        items.append((begun, [*events, whole], {**base, "arguments": one.arguments_text, "status": "completed"}))
    return items


def _responses_chunks(answer: Reply, body: dict[str, Json]) -> Iterator[Json]:
    whole = _responses_whole(answer, body)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    streams: list[list[Json]] = []
    for index, (added, events, done) in enumerate(_responses_items(answer)):
        stream = [{"type": "response.output_item.added", "item": added}, *events]
        stream.append({"type": "response.output_item.done", "item": done})
        streams.append([{**event, "output_index": index} for event in stream])
    ends = [{"type": f"response.{whole['status']}", "response": whole}] if answer.has_end else []
    begins = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
    for number, event in enumerate([*begins, *_turns(streams, answer), *ends]):
        yield {**event, "sequence_number": number}


def _responses_whole(answer: Reply, body: dict[str, Json]) -> Json:
    usage = _usage(answer, body)
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    tokens = {
        "input_tokens": prompt, "input_tokens_details": {"cached_tokens": usage.cache_read_tokens or 0},
        "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": prompt + completion,
    }  # fmt: skip
    reason = answer.finish_reason
    return {
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": answer.model,
        "status": "completed" if reason is None else "incomplete", "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": [done for _, _, done in _responses_items(answer)], "usage": tokens if answer.has_usage else None,
    }  # fmt: skip


def _responses_error(answer: Reply) -> Json:
    return {"type": "error", "code": answer.error_type, "message": answer.error, "param": None}


def _as_it_is(body: Json, status_code: int) -> Json:
    return body


def _object(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return {}


FORMATS = {
    "/v1/chat/completions": Format(_chat_chunks, _chat_whole, _as_it_is, _chat_error, has_done=True),
    "/v1/messages": Format(_messages_chunks, _messages_whole, _messages_error_body, _messages_error, has_names=True),
    "/v1/responses": Format(_responses_chunks, _responses_whole, _as_it_is, _responses_error, has_names=True),
}
"""By path."""
