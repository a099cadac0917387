"""A provider on loopback for tests: the real wire formats, replies by script, faults on demand.

Which format an answer has is decided by the path: `/v1/chat/completions` and `/v1/responses` as OpenAI writes them,
`/v1/messages` as Anthropic does; one script serves them all.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeAlias

from turncell.adapters.scripted_model import Call
from turncell.core.parts import Json
from turncell.errors import UsageError
from turncell.testing_wire import FORMATS, Reply, wire


def reply(text: str = "", *, calls: Sequence[Call] = (), **options: Any) -> Reply:
    """An answer of text and tool calls, streamed.

    Shape: `reasoning` and its `signature` (the seal that comes back with it), `usage` (a `Usage`; otherwise words are counted), `finish_reason` (in
    the format's own word; for responses the reason why it is incomplete), `model`, `piece_chars` (characters of a
    delta), `ids` and `indexes` of tool calls ("first" piece, "every", "none"; "own", "zero", "from 1", "none"),
    `is_interleaved` (pieces of parallel calls take turns), `has_usage`, `has_done` (`[DONE]`).
    On the wire: `chunk_bytes` (cut the body there, even inside a code point), `delay_s` (before each write),
    `has_comments` (keep-alive lines), `has_crlf`.
    Faults: `hangs_after`, `resets_after` (the connection is reset), `errors_after` with `error` and `error_type` (an
    error frame), `has_end=False` (nothing says why the answer ended).

    >>> from turncell.testing import call
    >>> reply("Hello", calls=[call("weather", city="Oslo")], chunk_bytes=3).calls[0].name
    'weather'
    """
    if not isinstance(calls, list | tuple) or not all(isinstance(one, Call) for one in calls):
        raise UsageError(f"calls are {calls!r}; use a list of call(...)")
    return Reply(text=text, calls=tuple(calls), **options)


def fault(status_code: int, message: str = "", *, retry_after_s: float | None = None, code: str | None = None) -> Reply:
    """A refusal: a status code with an error body as the provider of that path writes it.

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


Answer: TypeAlias = Reply | str | Call | Sequence[Call]
Script: TypeAlias = Sequence[Answer] | Callable[[dict[str, Json]], Answer]


class ProviderServer:
    """A provider on loopback. Made by `serve`."""

    def __init__(self, script: Script) -> None:
        self.requests: list[dict[str, Json]] = []
        """The bodies received, oldest first."""
        self.headers: list[dict[str, str]] = []
        """Their headers, names in lower case."""
        self.paths: list[str] = []
        """Where they went, as "/v1/messages"."""
        self.base_url = ""
        """With `/v1` at its end, as clients of OpenAI want it."""
        self.origin = ""
        """Without it, as clients of Anthropic do."""
        self.open_connections = 0
        """Requests that are being answered. A client that goes away counts as gone when the server sees it."""
        if not callable(script) and not isinstance(script, list | tuple):
            raise UsageError(f"the script is {script!r}; use a list with a reply for each request, or a function")
        self._script = script if callable(script) else [_as_reply(answer) for answer in script]
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._stop = asyncio.Event()
        self._answering: set[asyncio.Task[Any]] = set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="turncell-provider-server", daemon=True)

    def wait_until_open(self, count: int = 1, timeout_s: float = 60.0) -> float:
        """Wait until so many connections are open, and return the seconds it took."""
        return self._wait(lambda: self.open_connections >= count, f"{count} open connections", timeout_s)

    def wait_until_closed(self, timeout_s: float = 60.0) -> float:
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
        for path in FORMATS:
            app.router.add_post(path, self._answer)
        # Without cancellation a handler that hangs would never learn that its client has gone.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.origin = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.origin}/v1"
        self._is_up.set()
        await self._stop.wait()
        # A reply that hangs would keep the server, whose client may be blocked in the end of `with`.
        for task in self._answering:
            task.cancel()
        await runner.cleanup()

    async def _answer(self, request: Any) -> Any:

        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        self.open_connections += 1
        try:
            body = await request.json()
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.paths.append(request.path)
            return await self._reply(request, body)
        finally:
            self.open_connections -= 1
            self._answering.discard(task)

    async def _reply(self, request: Any, body: dict[str, Json]) -> Any:
        from aiohttp import web

        answer, form = self._next(body), FORMATS[request.path]
        if answer.hangs_after == 0:
            await asyncio.Event().wait()
        if answer.resets_after == 0:
            return _reset(request)
        if answer.status_code != 200 or answer.body is not None:
            headers = {} if answer.retry_after_s is None else {"Retry-After": f"{answer.retry_after_s:g}"}
            said = form.error_body(answer.body, answer.status_code)
            return web.json_response(said, status=answer.status_code, headers=headers)
        if not body.get("stream"):
            return web.json_response(form.whole(answer, body))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for number, piece in enumerate(wire(answer, body, form)):
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

    def _next(self, body: dict[str, Json]) -> Reply:
        if callable(self._script):
            answer = _as_reply(self._script(body))
        else:
            number = next(self._numbers)
            if number >= len(self._script):
                return fault(500, f"the script has {len(self._script)} replies, but this is request {number + 1}")
            answer = self._script[number]
        return answer


def _as_reply(answer: Answer) -> Reply:
    if isinstance(answer, Reply):
        return answer
    if isinstance(answer, str):
        return reply(answer)
    calls = [answer] if isinstance(answer, Call) else answer
    if not isinstance(calls, list | tuple) or not all(isinstance(one, Call) for one in calls):
        raise UsageError(
            f"a provider answers with a text, reply(...), call(...), a list of calls or fault(...); found {answer!r}"
        )
    return reply(calls=calls)


@contextmanager
def serve(script: Script) -> Iterator[ProviderServer]:
    """A provider on this machine that answers by a script, on a thread of its own.

    `script` is a list with a reply for each request, or a function of the request's body. A reply is a text, `reply(...)`,
    `call(...)` or a list of these calls, `fault(...)` or `raw(...)`.
    Give `server.base_url` and any key to the client. The path that it asks for decides the wire format: OpenAI's chat
    completions or responses, or Anthropic's messages (those at `server.origin`). `server.requests` are the bodies so far.

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
