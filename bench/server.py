"""A provider on loopback that only sends bytes made beforehand, so that a client's own cost is all there is to see.

`POST /<deltas>/<gap_ms>/<kind>/v1/chat/completions` streams that many deltas of five characters: all at once where
`gap_ms` is 0, else one write after each gap. `kind` is "text", or "tool": a call of the tool `nothing`; both in OpenAI's
format. "gemini" is text in Gemini's, "anthropic" and "responses" are such a call in Anthropic's and in that of OpenAI's
responses, whatever stands after it in the path.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from functools import cache
from typing import Any

_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench"}


def _event(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return b"data: " + json.dumps({**_HEAD, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"


def _gemini(text: str, **more: Any) -> bytes:
    said = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}
    count = {"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20}
    event = {"candidates": [said], "usageMetadata": count, "modelVersion": "bench", "responseId": "r-1"}
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\r\n\r\n"


_ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "nothing", "arguments": '{"n": 1}'}
_USAGE = {"input_tokens": 10, "output_tokens": 2}
_CALLS: dict[str, list[dict[str, Any]]] = {
    "anthropic": [
        {"type": "message_start", "message": {"model": "bench", "usage": _USAGE}},
        {"type": "content_block_start", "index": 0,
         "content_block": {"type": "tool_use", "id": "toolu_1", "name": "nothing", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"n": 1}'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": _USAGE},
        {"type": "message_stop"},
    ],
    "responses": [
        {"type": "response.output_item.added", "output_index": 0, "item": {**_ITEM, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"n": 1}'},
        {"type": "response.output_item.done", "output_index": 0, "item": _ITEM},
        {"type": "response.completed",
         "response": {"model": "bench", "status": "completed", "output": [_ITEM], "usage": _USAGE}},
    ],
}  # fmt: skip


@cache
def pieces(deltas: int, kind: str) -> tuple[bytes, ...]:
    """The response, headers first; then one piece for each delta, and the end."""
    if kind == "gemini":
        body = [*(_gemini(f"{number:5d}") for number in range(deltas)), _gemini("", finishReason="STOP")]
    elif kind in _CALLS:
        body = [b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n" for event in _CALLS[kind]]
    else:
        body = _chat(deltas, kind)
    length = sum(map(len, body))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {length}\r\n\r\n".encode()
    return (head, *body)


def _chat(deltas: int, kind: str) -> list[bytes]:
    if kind == "tool":
        function = {"name": "nothing", "arguments": ""}
        call: dict[str, Any] = {"index": 0, "id": "call_1", "type": "function", "function": function}
        body = [_event({"role": "assistant", "content": None, "tool_calls": [call]})]
        body.append(_event({"tool_calls": [{"index": 0, "function": {"arguments": '{"n": 1}'}}]}))
    else:
        body = [_event({"content": f"{number:5d}"}) for number in range(deltas)]
    usage = {"prompt_tokens": 10, "completion_tokens": deltas, "total_tokens": deltas + 10}
    end = _event({}, "tool_calls" if kind == "tool" else "stop")
    body.append(end + _event({}, None, usage=usage).replace(b'[{"index":0,"delta":{},"finish_reason":null}]', b"[]"))
    body[-1] += b"data: [DONE]\n\n"
    return body


class Connection(asyncio.Protocol):
    """One connection, kept alive; requests come one after another."""

    def connection_made(self, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        if not found or len(body) < int(length.split(b":")[1]):
            return
        self.buffer = b""
        _, deltas, gap_ms, kind, *_ = head.split(b" ", 2)[1].decode().split("/")
        response = pieces(int(deltas), kind)
        if gap_ms == "0":
            self.transport.write(b"".join(response))
        else:
            self.transport.write(response[0])
            self._write(response, 1, asyncio.get_running_loop().time(), float(gap_ms) / 1000)

    def _write(self, response: tuple[bytes, ...], number: int, began: float, gap_s: float) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(response[number])
        if number + 1 < len(response):
            # From the beginning, not from now: a late write must not delay those after it.
            at = began + number * gap_s
            asyncio.get_running_loop().call_at(at, self._write, response, number + 1, began, gap_s)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started it holds the other end: the server ends with it.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
