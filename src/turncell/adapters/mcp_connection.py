"""One connection to an MCP server, from its start to its end.

The `mcp` package is made of anyio's cancel scopes, which must be left by the task that has entered them, in their order.
So each connection has an owner: one task on the background loop that starts the server, waits, and ends it; everybody
else only sends requests, which enter no scope that outlives them. What holds:

* A connection lives once. It is `starting`, then open, then ended; a server that comes back is another connection.
* `lost` is set when nothing more can come from the server. A request that waits is given up then; it may have happened.
* A request that is cancelled ends at once; the server is told, by a task that nobody waits for.
* The child's stderr is a pipe of ours, read by a daemon thread into a bounded tail: in a kernel `sys.stderr` is no file,
  and a file on disk would grow for as long as the server talks.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from turncell.core.redaction import is_secret_name
from turncell.errors import CallFailed, causes, say
from turncell.runtime.secrets import redactor

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult, Tool

# What the package logs of a server's bad lines would be printed into cells where nobody has set up logging.
logging.getLogger("mcp").addHandler(logging.NullHandler())
logging.getLogger("client").addHandler(logging.NullHandler())

TAIL_LINES, LINE_CHARS = 40, 500
"""What is kept of the stderr of a server."""
MOST_PAGES, MOST_TOOLS = 50, 256
"""Of a list of tools: a server may page for ever, and no provider takes more."""
END_S = 8.0
"""How long an end may take: a server that ignores the end of its input is killed after some four seconds."""


class McpFailed(CallFailed):
    """An MCP server could not be started, has ended, or says that a call has failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is connected to: a command, or an address."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] | None = None

    def __str__(self) -> str:
        """Without what may be a secret: parts of an address, and what follows a flag that speaks of one."""
        if self.url is not None:
            return redactor().text(re.sub(r"\?.*", "?***", re.sub(r"(://)[^/@]*@", r"\1***@", self.url)))
        words, is_secret = [self.command or ""], False
        for word in self.args:
            flag, equals, _ = word.partition("=")
            words.append("***" if is_secret else f"{flag}=***" if equals and _is_secret_flag(flag) else word)
            is_secret = not equals and _is_secret_flag(flag)
        return redactor().text(" ".join(words))


def _is_secret_flag(flag: str) -> bool:
    return flag.startswith("-") and is_secret_name(flag.strip("-").replace("-", "_"))


class Connection:
    """All methods belong on the background loop."""

    def __init__(self, target: Target, on_change: Callable[[], None]) -> None:
        self.target = target
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.about = ""
        """How the server calls itself, with its version."""
        self.why = ""
        """Why it was lost."""
        self.lost = asyncio.Event()
        self.opened = asyncio.Event()
        self._on_change = on_change
        self._client: Client | None = None
        self._requests: set[asyncio.Task[Any]] = set()
        # A context of its own: it outlives the run that is the first to need it.
        self._owner = asyncio.get_running_loop().create_task(self._own(), context=contextvars.Context())

    @property
    def is_open(self) -> bool:
        return self.opened.is_set() and not self.lost.is_set()

    async def open(self, timeout_s: float) -> None:
        """Wait until it is open. McpFailed where it does not open within the time; it is ended then."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.opened, self.lost)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.is_open:
            return
        if not self.lost.is_set():
            self._lose(f"it has not answered within {timeout_s:g} s")
            self._owner.cancel()
        raise McpFailed(self.why + self.last_words())

    async def tools(self) -> tuple[list[Tool], bool]:
        """What the server lists now, and whether there was more than is taken."""
        from mcp_types import ListToolsRequest, ListToolsResult, PaginatedRequestParams

        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
            # Not `list_tools`: it compiles the schemas of results, and what is compiled there is foreign.
            page = await self._request(ListToolsRequest(params=params), ListToolsResult)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None or len(found) > MOST_TOOLS:
                break
        return found[:MOST_TOOLS], cursor is not None or len(found) > MOST_TOOLS

    async def call(
        self, name: str, arguments: dict[str, Any], on_progress: Callable[[float, float | None, str | None], None]
    ) -> CallToolResult:
        """McpFailed where the server refuses, or is lost meanwhile."""
        from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

        async def progress(done: float, total: float | None, message: str | None) -> None:
            on_progress(done, total, message)

        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
        # Not `call_tool`: it holds results to the server's schema, and one that does not fit has happened all the same.
        result: CallToolResult = await self._request(request, CallToolResult, progress_callback=progress)
        return result

    def end(self) -> None:
        self._lose("it was closed")
        if not self.opened.is_set():
            self._owner.cancel()

    async def close(self) -> None:
        """End the server, and wait for it, but not for ever."""
        self.end()
        await asyncio.wait([self._owner], timeout=END_S)

    def last_words(self) -> str:
        """The end of its stderr, in a form that goes after a sentence."""
        lines = [line for line in self.tail if line.strip()][-8:]
        if not lines:
            return ""
        return redactor().text("; the last it wrote to stderr:\n" + "\n".join(f"  {line}" for line in lines))

    async def _request(self, request: Any, result_type: Any, **options: Any) -> Any:
        client = self._client
        if client is None or self.lost.is_set():
            raise McpFailed(self.why or "it is not connected")
        # A task of its own: what tells the server that nobody waits any more must not be waited for.
        sent = asyncio.ensure_future(client.session.send_request(request, result_type, **options))
        self._requests.add(sent)
        sent.add_done_callback(self._forget)
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait([sent, lost], return_when=asyncio.FIRST_COMPLETED)
            if sent.done() and not sent.cancelled():
                return self._result_of(sent)
            raise McpFailed(f"the connection was lost: {self.why}{self.last_words()}")
        finally:
            sent.cancel()
            lost.cancel()

    def _result_of(self, sent: asyncio.Task[Any]) -> Any:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED
        from pydantic import ValidationError

        error = sent.exception()
        if error is None:
            return sent.result()
        if isinstance(error, ValidationError):
            raise McpFailed(f"what it answered is not what the protocol has: {str(error)[:500]}") from error
        if not isinstance(error, MCPError):
            # An HTTP connection that broke: what the server will do next is not known.
            self._lose(f"it could not be reached ({say(error)[:500]})")
            raise McpFailed(self.why) from error
        if error.code == CONNECTION_CLOSED:
            self._lose("it has ended")
            raise McpFailed(f"the connection was lost: {self.why}{self.last_words()}") from error
        if self.target.url is not None and "session terminated" in error.message.lower():
            self._lose("it has forgotten this connection")
        raise McpFailed(str(error)[:20_000]) from error

    def _forget(self, sent: asyncio.Task[Any]) -> None:
        self._requests.discard(sent)
        if not sent.cancelled():
            sent.exception()  # nobody may have waited for it

    def _lose(self, why: str) -> None:
        if not self.lost.is_set():
            self.why = why
            self.lost.set()

    async def _own(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                self._client = await self._enter(stack)
                info = self._client.server_info
                self.about = f"{info.name} {info.version}"[:200] if info is not None else ""
                self.opened.set()
                await self.lost.wait()
        except asyncio.CancelledError:
            pass  # it did not open in time; its end has been waited for
        except BaseException as error:
            self._lose(_reason(error))
        finally:
            self._lose("it has ended")
            self._client = None

    async def _enter(self, stack: AsyncExitStack) -> Client:
        from mcp import Client, StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        target = self.target
        transport: Any
        if target.url is not None:
            http = await stack.enter_async_context(create_mcp_http_client(headers=dict(target.headers or {})))
            transport = streamable_http_client(target.url, http_client=http)
        else:
            assert target.command is not None
            parameters = StdioServerParameters(
                command=target.command, args=list(target.args), env=dict(target.env or {}), cwd=target.cwd,
                # Half a character in what a server says must not end its connection.
                encoding_error_handler="replace",
            )  # fmt: skip
            stderr = stack.enter_context(_tail_of(self.tail))
            transport = stdio_client(parameters, errlog=stderr)
        return await stack.enter_async_context(
            # The handshake that all servers know. Sampling and elicitation are not offered, so that a server that
            # asks for them all the same is refused in the protocol's own words.
            Client(self._watched(transport), mode="legacy", message_handler=self._heard, cache=None)
        )

    @asynccontextmanager
    async def _watched(self, transport: Any) -> AsyncIterator[Any]:
        """The same, and `lost` is set when the server has closed it: the package itself tells nobody."""
        import anyio

        async with transport as (read, write):
            into, out = anyio.create_memory_object_stream[Any](0)

            async def pump() -> None:
                async with into:
                    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                        async for message in read:
                            await into.send(message)
                self._lose("it has ended")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pump)
                try:
                    yield out, write
                finally:
                    tasks.cancel_scope.cancel()
                    out.close()

    async def _heard(self, message: object) -> None:
        from mcp_types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._on_change()


class _tail_of:
    """A pipe for the stderr of a child, read into `tail` by a thread that ends with its last writer."""

    def __init__(self, tail: deque[str]) -> None:
        self._tail = tail

    def __enter__(self) -> TextIO:
        read, write = os.pipe()
        threading.Thread(target=self._read, args=(read,), name="turncell mcp stderr", daemon=True).start()
        self._file = os.fdopen(write, "w")
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self, fd: int) -> None:
        rest = b""
        with os.fdopen(fd, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[:LINE_CHARS]
                self._tail.extend(line[:LINE_CHARS].decode("utf-8", "replace") for line in lines[-TAIL_LINES:])
        if rest:
            self._tail.append(rest.decode("utf-8", "replace"))


def _reason(error: BaseException) -> str:
    """The first cause, of what anyio has wrapped into groups."""
    error = causes(error)[0]
    if isinstance(error, FileNotFoundError):
        return f"there is no such command or folder: {error.filename!r}"
    return say(error)[:2_000]
