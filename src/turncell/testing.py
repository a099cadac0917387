"""For tests of your own: models that follow a script, and a provider on loopback that speaks the real wire format.

A scripted model replaces the provider and everything before it:

>>> from turncell.testing import ScriptedModel, call
>>> model = ScriptedModel([call("weather", city="Oslo"), "It rains."])

A server replaces only the provider, so that HTTP, parsing, time limits and failures are the real ones:

>>> from turncell.testing import fault, reply, serve
>>> with serve([fault(429, retry_after_s=2), reply("It rains.")]) as server:
...     server.base_url.startswith("http://127.0.0.1:")
True

A store of your own is held to the contract by `check_store` (see testing_store). `no_cassette_left` is for a fixture
around every test: a cassette that a test forgets to stop fails that test, and no other.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeAlias

from turncell.adapters.cassette import no_cassette_left
from turncell.adapters.rules_model import RulesModel
from turncell.adapters.scripted_model import Call, ScriptedModel, call, say, stop, think
from turncell.core.parts import Json, Usage
from turncell.testing_store import STORE_CLAUSES, check_damage, check_store

__all__ = [
    "STORE_CLAUSES",
    "Call",
    "ProviderServer",
    "Reply",
    "RulesModel",
    "ScriptedModel",
    "call",
    "check_damage",
    "check_store",
    "fault",
    "no_cassette_left",
    "raw",
    "reply",
    "say",
    "serve",
    "stop",
    "think",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server answers to one request. Made by `reply`, `fault` or `raw`.

    A "chunk" is one SSE event. Faults come after that many chunks; 0 is before the first byte of the body.
    """

    text: str = ""
    reasoning: str = ""
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
    has_done: bool = True
    hangs_after: int | None = None
    resets_after: int | None = None
    errors_after: int | None = None
    error: str = "the model crashed"
    status_code: int = 200
    retry_after_s: float | None = None
    body: Json = None


def reply(text: str = "", *, calls: Sequence[Call] = (), **options: Any) -> Reply:
    """An answer of text and tool calls, streamed.

    Shape: `reasoning`, `usage` (a `Usage`; otherwise words are counted), `finish_reason`, `model`, `piece_chars`
    (characters of a delta), `ids` and `indexes` of tool calls ("first" piece, "every", "none"; "own", "zero",
    "from 1", "none"), `is_interleaved` (pieces of parallel calls take turns), `has_usage`, `has_done`.
    On the wire: `chunk_bytes` (cut the body there, even inside a code point), `delay_s` (before each write),
    `has_comments` (keep-alive lines), `has_crlf`.
    Faults: `hangs_after`, `resets_after` (the connection is reset), `errors_after` with `error` (an error frame).

    >>> reply("Hello", calls=[call("weather", city="Oslo")], chunk_bytes=3).calls[0].name
    'weather'
    """
    return Reply(text=text, calls=tuple(calls), **options)


def fault(status_code: int, message: str = "", *, retry_after_s: float | None = None, code: str | None = None) -> Reply:
    """A refusal: a status code with an error body as OpenAI writes it.

    >>> fault(429, "slow down", retry_after_s=2).body["error"]["message"]
    'slow down'
    """
    error = {"message": message or f"status {status_code}", "type": "error", "param": None, "code": code}
    return Reply(status_code=status_code, retry_after_s=retry_after_s, body={"error": error})


def raw(*chunks: Json, **options: Any) -> Reply:
    """A stream of exactly these chunks, each a JSON value or a str that is sent as it is.

    >>> raw({"choices": []}, "data: not json\\n\\n").has_done
    True
    """
    return Reply(chunks=chunks, **options)


Script: TypeAlias = Sequence[Reply] | Callable[[dict[str, Json]], Reply]


class ProviderServer:
    """A provider on loopback that speaks OpenAI's chat completions. Made by `serve`."""

    def __init__(self, script: Script) -> None:
        self.requests: list[dict[str, Json]] = []
        """The bodies received, oldest first."""
        self.headers: list[dict[str, str]] = []
        """Their headers, names in lower case."""
        self.base_url = ""
        self.open_connections = 0
        """Requests that are being answered. A client that goes away counts as gone when the server sees it."""
        self._script = script
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._stop = asyncio.Event()
        self._answering: set[asyncio.Task[Any]] = set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="turncell-provider-server", daemon=True)

    def wait_until_open(self, count: int = 1, timeout_s: float = 5.0) -> float:
        """Wait until so many connections are open, and return the seconds it took."""
        return self._wait(lambda: self.open_connections >= count, f"{count} open connections", timeout_s)

    def wait_until_closed(self, timeout_s: float = 5.0) -> float:
        """Wait until no connection is open, and return the seconds it took."""
        return self._wait(lambda: self.open_connections == 0, "no open connection", timeout_s)

    def _wait(self, is_so: Callable[[], bool], what: str, timeout_s: float) -> float:
        began = time.monotonic()
        while not is_so():
            if time.monotonic() - began > timeout_s:
                raise TimeoutError(f"waited {timeout_s} s for {what}; there are {self.open_connections}")
            time.sleep(0.001)
        return time.monotonic() - began

    def __enter__(self) -> ProviderServer:
        self._thread.start()
        self._is_up.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._is_up.set()
            self._loop.close()

    async def _serve(self) -> None:
        from aiohttp import web  # here, so that a script needs no web server

        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._answer)
        # Without cancellation a handler that hangs would never learn that its client has gone.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._is_up.set()
        await self._stop.wait()
        # A reply that hangs would keep the server, whose client may be blocked in the end of `with`.
        for task in self._answering:
            task.cancel()
        await runner.cleanup()

    async def _answer(self, request: Any) -> Any:
        from aiohttp import web

        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        self.open_connections += 1
        try:
            body = await request.json()
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            answer = self._next(body)
            if answer.status_code != 200 or answer.body is not None:
                headers = {} if answer.retry_after_s is None else {"Retry-After": f"{answer.retry_after_s:g}"}
                return web.json_response(answer.body, status=answer.status_code, headers=headers)
            if not body.get("stream"):
                return web.json_response(_whole(answer, body))
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            if answer.hangs_after == 0:
                await asyncio.Event().wait()
            if answer.resets_after == 0:
                return _reset(request)
            await response.prepare(request)
            for number, piece in enumerate(_wire(answer, body)):
                if number == answer.resets_after:
                    return _reset(request)
                if number == answer.hangs_after:
                    await asyncio.Event().wait()
                if answer.delay_s:
                    await asyncio.sleep(answer.delay_s)
                await response.write(piece)
                if answer.chunk_bytes is not None:
                    await asyncio.sleep(0)
            await response.write_eof()
            return response
        finally:
            self.open_connections -= 1
            self._answering.discard(task)

    def _next(self, body: dict[str, Json]) -> Reply:
        if callable(self._script):
            return self._script(body)
        number = next(self._numbers)
        if number < len(self._script):
            return self._script[number]
        return fault(500, f"the script has {len(self._script)} replies, but this is request {number + 1}")


@contextmanager
def serve(script: Script) -> Iterator[ProviderServer]:
    """Serve these replies, one for each request, or the replies of a function of the request's body.

    Runs on a thread of its own. Give `server.base_url` and any key to the client.

    >>> import urllib.request
    >>> with serve([reply("Hi!", piece_chars=99, has_usage=False)]) as server:
    ...     body = b'{"model": "m", "stream": true, "messages": []}'
    ...     wire = urllib.request.urlopen(server.base_url + "/chat/completions", body).read().decode()
    >>> [line[:5] for line in wire.split("\\n\\n") if line], server.requests[0]["model"]
    (['data:', 'data:', 'data:', 'data:'], 'm')
    """
    with ProviderServer(script) as server:
        yield server


def _reset(request: Any) -> Any:
    """Close with a TCP reset, as a crashing server or an impatient proxy does."""
    from aiohttp import web

    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


def _wire(answer: Reply, body: dict[str, Json]) -> Iterator[bytes]:
    """The body of a response, in the pieces in which it is written."""
    end = "\r\n" if answer.has_crlf else "\n"
    pieces: list[bytes] = []
    for number, chunk in enumerate(_chunks(answer, body)):
        if number == answer.errors_after:
            break
        if answer.has_comments:
            pieces.append(f": keep-alive{end}{end}".encode())
        pieces.append(chunk.encode() if isinstance(chunk, str) else _event(chunk, end))
    if answer.errors_after is not None:
        pieces.append(_event({"error": {"message": answer.error, "type": "server_error", "code": 500}}, end))
    elif answer.has_done:
        pieces.append(f"data: [DONE]{end}{end}".encode())
    if answer.chunk_bytes is None:
        return iter(pieces)
    whole = b"".join(pieces)
    return (whole[at : at + answer.chunk_bytes] for at in range(0, len(whole), answer.chunk_bytes))


def _event(chunk: Json, end: str) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}{end}{end}".encode()


def _chunks(answer: Reply, body: dict[str, Json]) -> Iterator[Json]:
    if answer.chunks is not None:
        yield from answer.chunks
        return
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": answer.model,
    }

    def chunk(delta: Json, finish_reason: str | None = None) -> Json:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    size = max(1, answer.piece_chars)
    yield chunk({"role": "assistant", "content": ""})
    for at in range(0, len(answer.reasoning), size):
        yield chunk({"reasoning_content": answer.reasoning[at : at + size]})
    for at in range(0, len(answer.text), size):
        yield chunk({"content": answer.text[at : at + size]})
    streams = [list(_call_pieces(answer, number, one)) for number, one in enumerate(answer.calls)]
    if answer.is_interleaved:
        turns = itertools.zip_longest(*streams)
        pieces = [piece for turn in turns for piece in turn if piece is not None]
    else:
        pieces = [piece for stream in streams for piece in stream]
    for piece in pieces:
        yield chunk({"tool_calls": [piece]})
    yield chunk({}, answer.finish_reason or ("tool_calls" if answer.calls else "stop"))
    if answer.has_usage and (body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": _usage(answer, body)}


def _call_pieces(answer: Reply, number: int, one: Call) -> Iterator[Json]:
    call_id = one.provider_id or f"call_{number + 1}"
    index = {"own": number, "zero": 0, "from 1": number + 1, "none": None}[answer.indexes]
    place = {} if index is None else {"index": index}
    first = {} if answer.ids == "none" else {"id": call_id}
    yield {**place, **first, "type": "function", "function": {"name": one.name, "arguments": ""}}
    size = max(1, answer.piece_chars)
    for at in range(0, len(one.arguments_text), size):
        every = {"id": call_id} if answer.ids == "every" else {}
        yield {**place, **every, "function": {"arguments": one.arguments_text[at : at + size]}}


def _usage(answer: Reply, body: dict[str, Json]) -> Json:
    usage = answer.usage
    if usage is None:
        said = f"{answer.text} {answer.reasoning} {' '.join(one.arguments_text for one in answer.calls)}"
        usage = Usage(len(json.dumps(body.get("messages")).split()), len(said.split()))
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    plain: dict[str, Json] = {"prompt_tokens": prompt, "completion_tokens": completion}
    plain["total_tokens"] = prompt + completion
    if usage.cache_read_tokens is not None:
        plain["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_tokens}
    if usage.reasoning_tokens is not None:
        plain["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return plain


def _whole(answer: Reply, body: dict[str, Json]) -> Json:
    """The answer to a request that does not stream."""
    message: dict[str, Json] = {"role": "assistant", "content": answer.text or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": one.provider_id or f"call_{number + 1}",
                "type": "function",
                "function": {"name": one.name, "arguments": one.arguments_text},
            }
            for number, one in enumerate(answer.calls)
        ]
    reason = answer.finish_reason or ("tool_calls" if answer.calls else "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _usage(answer, body),
    }
