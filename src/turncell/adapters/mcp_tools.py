"""MCP servers as tools of an agent.

A server is started when a run first needs it, and stays until `close()`, or the end of the program. One that has died is
noticed, and started again by the next run or call that needs it: at once, and if it dies young, after a wait that doubles.

Nothing that a server says of itself is trusted. What its tools do counts as a write unless the user's code says "reads",
whatever hints it gives; what they return is untrusted; a tool whose description or schema is not that of its last call
asks again, also where a person has said "always". Names, descriptions and schemas are bounded and cleaned, for the
model reads them; what they say to it, nobody can clean: add no server whose author you would not let speak to it.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import re
import time
import unicodedata
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from turncell.adapters.mcp_connection import END_S, Connection, McpFailed, Target
from turncell.adapters.mcp_results import error_of, output_of
from turncell.adapters.mcp_schema import ForeignSchema, as_told
from turncell.core.digest import canonical_json
from turncell.core.parts import Json
from turncell.core.redaction import LEAST_CHARS, is_secret_name
from turncell.errors import StoreError, ToolError, UsageError
from turncell.runtime import secrets
from turncell.runtime.context import ToolContext
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.options import number
from turncell.runtime.output import clean, shorten
from turncell.runtime.ports import ToolSpec
from turncell.runtime.threads import in_thread
from turncell.runtime.tools import Check, Offer, Tool
from turncell.runtime.trust import accepted_tools

if TYPE_CHECKING:
    from mcp_types import Tool as Listed

log = logging.getLogger("turncell")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_NAME_CHARS = 64
DESCRIPTION_CHARS = 8_000
"""Of one tool, as a model reads it."""
STABLE_S = 10.0
"""A connection that lived for so long was no failed start."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
"""Before a server that has failed is started again; doubled each time."""
PATIENCE_S = 5.0
"""The longest such wait that is waited for; before the end of a longer one, a call fails at once."""
PROGRESS_S = 0.05
"""Between two messages of progress that are shown."""

State = Literal["not started", "starting", "running", "ended"]


class McpServer:
    """A server of the Model Context Protocol, for `Agent(tools=[server])`: its tools are `<name>_<tool>`.

    name            begins the names of its tools: letters, digits, `_` and `-`, at most 32
    command, args   what starts it (stdio); `env` is added to PATH, HOME and the like, and nothing else of the
                    environment is passed on; `cwd` is its folder
    url, headers    where it is instead (streamable HTTP)
    include, exclude  globs over the server's own names of tools
    reads           globs over the tools that only read: your word, not the server's. All others are writes
    timeout_s       seconds for a call; `start_timeout_s`: for the server to start and list its tools

    All methods may be called from any thread. A server that cannot be started is no exception: the run goes on without
    its tools, and the model and the person are told why.

    >>> McpServer("files", command="npx", args=["-y", "some-server"], reads=["get_*"])
    McpServer('files', 'npx -y some-server', not started)
    """

    def __init__(
        self,
        name: str,
        command: str | None = None,
        args: Iterable[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        include: Iterable[str] = ("*",),
        exclude: Iterable[str] = (),
        reads: Iterable[str] = (),
        timeout_s: float | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        texts: tuple[Any, Any, Any] = (name, command, url)
        if not isinstance(texts[0], str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"the name of an MCP server is {name!r}; use letters, digits, '_' and '-', at most 32, beginning with a letter"
            )
        self.name = name
        who = f"MCP server {name!r}"
        if (command is None) == (url is None):
            raise UsageError(f"{who} needs either a command or a url; found command={command!r} and url={url!r}")
        if url is not None and (_list(who, "args", args) or env or cwd):
            raise UsageError(f"{who}: args, env and cwd go with a command, not with a url")
        if url is not None and not (isinstance(texts[2], str) and url.startswith(("http://", "https://"))):
            raise UsageError(f"{who}: url is {url!r}; use an address that begins with https:// or http://")
        if command is not None and not (isinstance(texts[1], str) and command.strip()):
            raise UsageError(f"{who}: command is {command!r}; use the name or path of a program, and args for the rest")
        if headers and url is None:
            raise UsageError(f"{who}: headers go with a url, not with a command")
        self.target = Target(
            command, _list(who, "args", args), _mapping(who, "env", env), None if cwd is None else os.fspath(cwd),
            url, _mapping(who, "headers", headers),
        )  # fmt: skip
        self.include, self.exclude = _list(who, "include", include), _list(who, "exclude", exclude)
        self.reads = _list(who, "reads", reads)
        self.timeout_s = number("timeout_s", timeout_s)
        self.start_timeout_s = number("start_timeout_s", start_timeout_s) or 30.0
        _declare_secrets(self.target)
        self._forget()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a server of its own, which starts when it is first needed."""
        target = self.target
        options = {
            "command": target.command, "args": target.args, "env": target.env, "cwd": target.cwd, "url": target.url,
            "headers": target.headers, "include": self.include, "exclude": self.exclude, "reads": self.reads,
            "timeout_s": self.timeout_s, "start_timeout_s": self.start_timeout_s,
        }  # fmt: skip
        return _made_again, (self.name, options)

    def _forget(self) -> None:
        """As if it had never been started: at first, and in a forked child, whose parent has the connection."""
        self._pid = os.getpid()
        self._connection: Connection | None = None
        self._tools: tuple[McpTool, ...] = ()
        self._problem = ""
        self._is_stale = True
        self._opening: asyncio.Task[Connection] | None = None
        self._listing: asyncio.Lock | None = None
        self._failures = 0
        self._opened_at = self._not_before = 0.0

    @property
    def known(self) -> tuple[McpTool, ...]:
        """Its tools as of the last start."""
        return self._tools

    @property
    def state(self) -> State:
        """One of "not started", "starting", "running" or "ended"."""
        connection = self._connection if self._pid == os.getpid() else None
        if self._opening is not None and connection is None:
            return "starting"
        if connection is None:
            return "not started"
        return "running" if connection.is_open else "ended"

    @property
    def about(self) -> str:
        """What the server calls itself; empty while it is not running."""
        return self._connection.about if self._connection is not None else ""

    @property
    def problem(self) -> str:
        """What was wrong when its tools were last asked for; empty if nothing was."""
        return self._problem

    @property
    def stderr(self) -> str:
        """The last lines that it wrote there, without secrets."""
        return secrets.redactor().text("\n".join(self._connection.tail if self._connection is not None else ()))

    def tools(self) -> tuple[McpTool, ...]:
        """Its tools now; starts it. McpFailed where there are none because it could not be started."""
        if BackgroundLoop.current().is_here:
            raise UsageError("tools() would block the loop that runs live on; use 'await server.offer()'")
        offer = BackgroundLoop.current().spawn(self.offer()).result()
        if offer.problem and not offer.tools:
            raise McpFailed(offer.problem)
        return self._tools

    def restart(self) -> None:
        """End it, and start it anew at once, whatever was before. McpFailed where that fails."""
        self.close()
        self._failures, self._not_before = 0, 0.0
        self.tools()

    def close(self) -> None:
        """End it. What uses it later starts it again. Open calls end as errors."""
        if (self._connection is None and self._opening is None) or self._pid != os.getpid():
            return
        loop = BackgroundLoop.current()
        ended = loop.spawn(self.aclose())
        if loop.is_here:
            return
        try:
            ended.result(END_S + 1)
        except FutureTimeout:
            log.warning("MCP server %r did not end within %g s", self.name, END_S + 1)

    async def aclose(self) -> None:
        """`close`, on the loop of all runs."""
        connection, self._connection, opening, self._opening = self._connection, None, self._opening, None
        self._is_stale = True
        if opening is not None:
            opening.cancel()
        if connection is not None:
            await connection.close()

    async def offer(self) -> Offer:
        """See `ToolSource`."""
        try:
            connection = await self._connected()
            if self._listing is None:
                self._listing = asyncio.Lock()
            async with self._listing, asyncio.timeout(self.start_timeout_s):
                if self._is_stale:
                    self._is_stale = False  # before: what changes meanwhile is seen by the next run
                    try:
                        self._take(*await connection.tools())
                    except BaseException:
                        self._is_stale = True
                        raise
        except (McpFailed, TimeoutError) as error:
            why = str(error) or f"it has not listed its tools within {self.start_timeout_s:g} s"
            self._problem = f"MCP server {self.name!r} ({self.target}) offers no tools now: {why}"
            log.warning("%s", self._problem)
            return Offer((), self._problem)
        return Offer(self._tools, self._problem)

    async def call(self, tool: str, arguments: Mapping[str, Json], context: ToolContext) -> Any:
        """McpFailed where the call has failed, or may have: the connection was lost, or the server says so."""
        try:
            connection = await self._connected()
        except McpFailed as error:
            raise McpFailed(f"MCP server {self.name!r}: {error}; the call was not made") from error
        told_at = 0.0

        def progress(done: float, total: float | None, message: str | None) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at >= PROGRESS_S or (total is not None and done >= total):
                told_at = now
                count = f"{done:g}" + (f" of {total:g}" if total is not None else "")
                context.progress(shorten(f"{count}: {message}" if message else count, 500))

        try:
            result = await connection.call(tool, dict(arguments), progress)
        except McpFailed as error:
            if connection.lost.is_set():
                what = f"MCP server {self.name!r}: {error}\nWhat the call does may have happened, in part or whole."
                raise McpFailed(what) from error
            raise
        if result.is_error:
            raise McpFailed(await in_thread(error_of, result))
        return await in_thread(output_of, result)

    async def _connected(self) -> Connection:
        """The open connection, or a new one. All that wait, wait for the same start."""
        if self._pid != os.getpid():
            self._forget()
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise McpFailed("it was closed while it started") from None

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        if self._opening is opening:
            self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waited for it may have gone

    async def _open(self) -> Connection:
        old, now = self._connection, time.monotonic()
        if old is not None and self._opened_at:
            self._failures = 0 if now - self._opened_at > STABLE_S else self._failures + 1
            self._opened_at = 0.0
            self._wait_before(now, self._failures - 1)
        wait_s = self._not_before - now
        if wait_s > PATIENCE_S:
            why = f" ({old.why}{old.last_words()})" if old is not None else ""
            raise McpFailed(
                f"it has failed {self._failures} times in a row{why}, and is started again in {wait_s:.0f} s at the "
                "earliest; restart() does not wait"
            )
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        try:
            await in_thread(_import)  # a second of work, which would stop all runs
        except ImportError as error:
            raise McpFailed("the package mcp is missing; pip install 'turncell[mcp]'") from error
        # LIFO: it must run before the loop is stopped, which has registered before.
        _at_exit()
        connection = self._connection = Connection(self.target, self._changed)
        self._is_stale = True
        _running.add(self)
        try:
            await connection.open(self.start_timeout_s)
        except McpFailed:
            self._failures += 1
            self._wait_before(time.monotonic(), self._failures)
            raise
        except asyncio.CancelledError:
            connection.end()
            raise
        self._opened_at = time.monotonic()
        return connection

    def _wait_before(self, now: float, failures: int) -> None:
        self._not_before = now + min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failures - 1)) if failures > 0 else 0.0

    def _changed(self) -> None:
        self._is_stale = True

    def _take(self, listed: list[Listed], is_cut: bool) -> None:
        tools: dict[str, McpTool] = {}
        problems = [f"there are more than {len(listed)} tools, and the others are left out"] if is_cut else []
        for one in listed:
            if not _matches(one.name, self.include) or _matches(one.name, self.exclude):
                continue
            try:
                made = McpTool(self, one)
            except ToolError as error:
                problems.append(f"{one.name[:80]!r} is left out: {error}")
                continue
            if made.name in tools:
                problems.append(f"{one.name[:80]!r} is there twice, and only the first is taken")
                continue
            tools[made.name] = made
        self._tools = tuple(tools.values())
        more = f", and {len(problems) - 5} more like these" if len(problems) > 5 else ""
        self._problem = f"MCP server {self.name!r}: {'; '.join(problems[:5])}{more}." if problems else ""

    def __repr__(self) -> str:
        return f"McpServer({self.name!r}, {str(self.target)!r}, {self.state})"


class McpTool(Tool):
    """One tool of a server. `remote_name` is what the server calls it."""

    def __init__(self, server: McpServer, listed: Listed) -> None:
        def call() -> None:
            raise UsageError(f"{self.name} is called by a run; use server.call(...) from code")

        self.server, self.remote_name = server, listed.name
        schema = ForeignSchema(tool_name(server.name, listed.name), listed.input_schema)
        super().__init__(
            call,
            name=schema.tool,
            description=shorten(_readable(listed.description or listed.title or ""), DESCRIPTION_CHARS)
            or f"{_readable(listed.name)[:80]} of {server.name}",
            effect="read" if _matches(listed.name, server.reads) else "write",
            check=lambda **_: None,
            timeout_s=server.timeout_s,
        )
        self._schema = schema
        cleaned = _cleaned(schema.schema)
        if _hides(json.dumps(cleaned, ensure_ascii=False)):
            # Names and choices are sent back as they are, and cannot be cleaned; a model reads in them what nobody sees.
            raise ToolError("its parameters have names or values with characters that nobody sees")
        said = canonical_json([listed.description, listed.title, cleaned])
        self.digest = sha256(said.encode("utf-8", "replace")).hexdigest()
        """Of what a person read when they allowed it."""
        self._spec = ToolSpec(self.name, self.description, as_told(cleaned))

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        return self._schema.validate(arguments)

    async def run_check(self, arguments: Mapping[str, Json]) -> Check | None:
        """Asks where the server says something else of it than when it last ran, so that a remembered "always" does
        not hold for what nobody has seen. StoreError where what was seen cannot be read: then it does not run."""
        if self.effect == "read":
            return None
        seen = await in_thread(accepted_tools().get, self._key)
        if seen is None or seen == self.digest:
            return None
        return Check("ask", "The server has changed the description or the parameters of this tool since it last ran.")

    async def call(self, arguments: Mapping[str, Json], context: ToolContext, **_: Any) -> Any:
        if self.effect != "read":
            try:
                await in_thread(accepted_tools().put, self._key, self.digest)
            except StoreError as error:
                raise McpFailed(f"{self.name} was not called: {error}") from error
        return await self.server.call(self.remote_name, arguments, context)

    @property
    def _key(self) -> str:
        return f"{self.server.name}/{self.remote_name}"


def tool_name(server: str, tool: str) -> str:
    """A name that every provider takes. Where the server's own is none, it ends in letters that belong to that one alone.

    >>> tool_name("time", "get_current_time"), tool_name("time", "get.time")
    ('time_get_current_time', 'time_get_time_1d1114')
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool)
    name = f"{server}_{plain}"
    if plain == tool and tool and len(name) <= _NAME_CHARS:
        return name
    mark = sha256(tool.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{name[: _NAME_CHARS - 7]}_{mark}"


def close_servers() -> None:
    """End all servers of this process, side by side."""
    servers = [server for server in _running if server._pid == os.getpid()]
    if not servers:
        return
    loop = BackgroundLoop.current()
    ended: list[Future[None]] = [loop.spawn(server.aclose()) for server in servers]
    deadline = time.monotonic() + END_S + 1
    for one in ended:
        try:
            one.result(max(0.0, deadline - time.monotonic()))
        except Exception as error:
            log.warning("an MCP server did not end well: %r", error)


_running: weakref.WeakSet[McpServer] = weakref.WeakSet()
_has_exit: list[int] = []


def _import() -> None:
    import mcp.client.streamable_http  # noqa: F401


def _at_exit() -> None:
    if os.getpid() not in _has_exit:
        _has_exit[:] = [os.getpid()]
        atexit.register(close_servers)


def _declare_secrets(target: Target) -> None:
    """What is given as a header or a secret variable is kept from every record."""
    found = [value for name, value in (target.env or {}).items() if is_secret_name(name)]
    for name, value in (target.headers or {}).items():
        if is_secret_name(name) or name.lower() in ("authorization", "cookie", "proxy-authorization"):
            found += [value, *value.split()[1:]]
    found = [value for value in found if len(value) >= LEAST_CHARS]
    if found:
        secrets.redact(*found)


def _readable(text: str) -> str:
    """Without characters that nobody sees: what a person approves is what the model reads."""
    text = clean(text[: DESCRIPTION_CHARS * 2])
    return "".join(c for c in text if c in "\n\t" or not _is_unseen(c))


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn")


def _hides(text: str) -> bool:
    return not text.isascii() and any(map(_is_unseen, text))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            clean(str(key)): _readable(item)
            if key in ("description", "title") and isinstance(item, str)
            else _cleaned(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _list(who: str, option: str, given: Any) -> tuple[str, ...]:
    items = () if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not isinstance(given, Iterable) or isinstance(given, str) or not all(isinstance(one, str) for one in items):
        raise UsageError(f"{who}: {option} is {given!r}; use a list of texts")
    return items


def _mapping(who: str, option: str, given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for item in given.items() for text in item):
        names = list(given) if isinstance(given, Mapping) else type(given).__name__  # no values: they may be secrets
        raise UsageError(f"{who}: {option} maps names to texts; found {names!r}")
    return dict(given)


def _made_again(name: str, options: dict[str, Any]) -> McpServer:
    return McpServer(name, **options)
