"""One POST whose answer is a stream of events: what the direct models have in common, whatever format they speak.

    async with Post("openai/gpt-5", url, body, headers, key=key) as answer:
        async for payloads in answer:            # or: async for events in answer.events()
            ...

Connections are kept alive, one pool for each event loop. A pool ends with its loop: it lives inside an asynchronous
generator, and whoever closes a loop properly (`asyncio.run`, a Runner) closes those first. A loop that is never closed is
looked after when the process ends; a forked child forgets its parent's pools without touching their sockets.

Whoever leaves before the end closes the connection at once. Whoever has read the end (`[DONE]`, or `answer.is_over = True`)
leaves the last bytes of the body to a task in the background, so that the connection can be used again.

Everything that the network or the provider does wrong is a `ModelFailure`; no message has a key in it.
"""

from __future__ import annotations

import asyncio
import atexit
import ipaddress
import math
import os
import re
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from turncell.adapters.event_lines import Event, EventLines
from turncell.adapters.provider_failures import body_failure, hide_keys
from turncell.errors import FailureKind, ModelFailure, UsageError

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
DONE = b"[DONE]"
_MOST_BYTES = 256 << 20
"""Of one event. Images come as one, as long as they are; a server that never ends a line must not fill the memory."""
_DRAIN_S = 1.0
_LEAST_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a provider that is silent, in seconds: for a connection, for the first byte, between bytes."""

    connect_s: float = 20.0
    first_s: float = 600.0
    between_s: float = 600.0

    @classmethod
    def of(cls, timeout_s: float | Patience) -> Patience:
        """As it is, or the same silence everywhere; a connection is never waited for longer than `connect_s`.

        >>> Patience.of(5)
        Patience(connect_s=5, first_s=5, between_s=5)
        """
        found = timeout_s if isinstance(timeout_s, Patience) else cls(timeout_s, timeout_s, timeout_s)
        bounds: tuple[object, ...] = (found.connect_s, found.first_s, found.between_s)
        if not all(isinstance(one, int | float) and not isinstance(one, bool) and one > 0 for one in bounds):
            raise UsageError(f"timeout_s is in seconds, more than 0, or a Patience of such; found {timeout_s!r}")
        return found if found is timeout_s else replace(found, connect_s=min(cls().connect_s, found.connect_s))


class Post:
    """One request and its answer. `model` and `key` are for messages: who failed, and what must not be shown.

    `where` in messages is the URL without its query. Entering sends it and waits for the status.
    """

    def __init__(
        self, model: str, url: str, body: bytes, headers: Mapping[str, str], *, key: str | None = None,
        patience: Patience = Patience(),
    ) -> None:  # fmt: skip
        self.model, self.url, self.body, self.key, self.patience = model, url, body, key, patience
        self._given = headers
        self.headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            # A compressed stream comes when the compressor's buffer is full, not when the model has said something.
            "Accept-Encoding": "identity",
            **headers,
        }
        self.has_begun = False
        """Whether any event came."""
        self.is_over = False
        """Whether the last event came. Set it where the format has one of its own; `[DONE]` sets it, and is not given."""
        self._lines = EventLines()
        self._response: aiohttp.ClientResponse | None = None
        self._pool: _Pool | None = None
        self._entering: asyncio.Task[Any] | None = None
        self._heard_at = 0.0
        self._heard_bytes = 0
        self._is_waiting = False
        self._is_too_late = False

    async def __aenter__(self) -> Post:
        for name, value in self._given.items():
            if not value.isascii() or not value.isprintable():
                raise ModelFailure(
                    "bad_request", f"{self.model}: the header {name!r} (perhaps the key in it) has characters that no header can have"
                )  # fmt: skip
        patience, task = self.patience, asyncio.current_task()
        if task is None:
            raise UsageError("a model is asked inside a task of asyncio; found none")
        self._entering, cancelling = task, task.cancelling()
        try:
            self._pool = pool = await _pool()
            pool.watch(self)
            self._response = response = await pool.session.post(
                self.url, data=self.body, headers=self.headers, timeout=_limits(patience.connect_s),
                proxy=proxy_of(self.url), allow_redirects=False,
            )  # fmt: skip
            if response.status >= 300:
                raise await self._refused(response)
        except BaseException as error:
            if self._pool is not None:
                self._pool.posts.discard(self)
            if self._response is not None:
                self._response.close()
            # Whether it was cancelled by `look` and by nobody else besides: what `asyncio.timeout` asks, too.
            is_ours = self._is_too_late and task.uncancel() <= cancelling
            if isinstance(error, ModelFailure) or not (is_ours or isinstance(error, Exception)):
                raise
            raise self._failure(error) from error
        self._entering = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        response, self._response = self._response, None
        if response is None or self._pool is None:
            return
        self._pool.posts.discard(self)
        if response.content.at_eof() and error is None:
            if response.connection is not None:  # at the end of the body aiohttp lets go of it
                response.release()
        elif self.is_over and not isinstance(error, asyncio.CancelledError):
            task = self._pool.loop.create_task(_drain(response))
            _draining.add(task)
            task.add_done_callback(_draining.discard)
        else:
            response.close()

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Payloads, as many at once as one read of the network brought."""
        return _Bursts(self, self._lines.payloads, lambda event: event[1], None)

    def events(self) -> AsyncIterator[list[Event]]:
        """Pairs of name and payload, as many at once as one read of the network brought."""
        return _Bursts(self, self._lines.events, lambda event: event, lambda events: [data for _, data in events])

    async def _read(self) -> bytes:
        """The next bytes; none at the end of the body."""
        response, pool = self._response, self._pool
        if response is None or pool is None:
            raise UsageError("an answer is read inside `async with`; found it left, or not entered")
        # Only who waits can be kept waiting: a reader that was busy elsewhere begins anew.
        self._is_waiting, self._heard_at, self._heard_bytes = True, pool.loop.time(), response.content.total_bytes
        try:
            return await response.content.readany()
        except Exception as error:
            raise self._failure(error) from error
        finally:
            self._is_waiting = False

    def _check(self) -> None:
        if self._lines.kind == "page":
            raise self._protocol("it answered with a web page; check base_url")
        if self._lines.waiting_bytes > _MOST_BYTES:
            raise self._protocol(f"it sent an event of more than {_MOST_BYTES >> 20} MB")

    def look(self, now: float) -> float:
        """Whether it was silent for too long, and when to look again, by the loop's clock."""
        patience = self.patience
        limit_s = patience.between_s if self.has_begun else patience.first_s
        if self._entering is not None:
            left_s = self._heard_at + patience.connect_s + limit_s - now
        else:
            left_s = self._heard_at + limit_s - now if self._is_waiting else limit_s
            if left_s <= 0 and self._response is not None and self._response.content.total_bytes > self._heard_bytes:
                left_s = limit_s  # the process stood still: bytes have come, and the reader is about to get them
        if left_s > 0:
            # Between bytes less may be borne than before the first one.
            return now + min(left_s, limit_s, patience.between_s)
        self._is_too_late = True
        if self._entering is not None:
            self._entering.cancel()
        elif self._response is not None:
            self._response.close()
        return math.inf

    async def _refused(self, response: aiohttp.ClientResponse) -> ModelFailure:
        body = b""
        with suppress(Exception):
            async with asyncio.timeout(10.0):
                while len(body) < 65_536 and (piece := await response.content.read(65_536)):
                    body += piece
        if response.content.at_eof():
            response.release()
        else:
            response.close()
        self._response = None
        if response.status < 400:
            to = hide_keys(response.headers.get("Location", ""), self.key)
            # Following it would hand the key to whoever is there.
            return ModelFailure(
                "not_found", f"{self.model}: {self.where} has moved (status {response.status}) to {to!r}; give the new base_url",
                status_code=response.status,
            )  # fmt: skip
        return body_failure(self.model, response.status, response.headers, body, key=self.key)

    @property
    def where(self) -> str:
        return re.sub(r"[?#].*", "", hide_keys(self.url, self.key))

    def _protocol(self, what: str) -> ModelFailure:
        return ModelFailure("protocol", f"{self.model}: {self.where}: {what}")

    def _failure(self, error: BaseException) -> ModelFailure:
        import aiohttp

        if self._is_too_late or isinstance(error, TimeoutError):
            text = f"no answer from {self.where} in time; raise `timeout_s` if the model needs longer"
            if not self._is_too_late and isinstance(error, aiohttp.ServerTimeoutError):
                text = f"no connection to {self.where} in {self.patience.connect_s:g} s; check base_url and the network"
            return ModelFailure("timeout", f"{self.model}: {text}")
        kind: FailureKind = "connection"
        # A certificate that is not accepted is a ValueError, too.
        if isinstance(error, aiohttp.InvalidURL | ValueError | TypeError) and not isinstance(error, OSError):
            kind = "bad_request"
            text = f"cannot ask {self.where}: {error}"
        elif self.has_begun or self._response is not None:
            text = f"lost the connection to {self.where}: {_cause(error)}"
        else:
            text = f"cannot reach {self.where}: {_cause(error)}"
            text += "; check the address (base_url), the network and whether the server runs"
        return ModelFailure(kind, f"{self.model}: {hide_keys(text, self.key)}")


class _Bursts(AsyncIterator[list[T]]):
    """The lists that an answer is read in. Not a generator: there is nothing here that must be closed."""

    def __init__(
        self,
        post: Post,
        feed: Callable[[bytes], list[T]],
        of: Callable[[Event], T],
        data: Callable[[list[T]], list[bytes]] | None,
    ) -> None:
        self._post, self._feed, self._of, self._data = post, feed, of, data
        self._has_ended = False

    async def __anext__(self) -> list[T]:
        post = self._post
        while not (self._has_ended or post.is_over):
            data = await post._read()
            if data:
                found = self._feed(data)
            else:
                self._has_ended = True
                found = [self._of(event) for event in post._lines.end()]
            if not found:
                post._check()
                continue
            post.has_begun = True
            payloads: list[Any] = found if self._data is None else self._data(found)
            if DONE in payloads:
                post.is_over = True
                found = found[: payloads.index(DONE)]
            if found:
                return found
        raise StopAsyncIteration


def check_url(url: str) -> str:
    """The URL without blanks around it and a slash at its end; UsageError for what is none."""
    if not isinstance(url, str):
        raise UsageError(f"base_url is a text; found a {type(url).__name__}")
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"base_url begins with http:// or https:// and a host; found {hide_keys(url)!r}")
    return url.rstrip("/")


def proxy_of(url: str) -> str | None:
    """The proxy that the environment wants for this URL; none for this machine itself.

    Not aiohttp's `trust_env`: it would send loopback to the proxy, and a `.netrc` entry in place of the key.
    """
    scheme, host = _scheme_and_host(url)
    if is_loopback(host):
        return None
    # To go through all variables costs more than to look for these; `no_proxy` alone says nothing.
    if not any(name in os.environ or name.upper() in os.environ for name in (f"{scheme}_proxy", "all_proxy")):
        return None
    proxies = getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(host, proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@lru_cache(256)
def _scheme_and_host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or ""


@lru_cache(16)
def _limits(connect_s: float) -> aiohttp.ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """
    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("example.org")
    (True, True, True, False)
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cause(error: BaseException) -> str:
    """What the network said, without the client's framing."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"its certificate is not accepted ({_tls(error.certificate_error)}); is SSL_CERT_FILE that of the network?"
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS failed ({_tls(error.os_error)}); does the address begin with the right one of http and https?"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host!r} is not known ({error.os_error.strerror or error.os_error})"
    if type(error) is aiohttp.ClientResponseError:
        if "content-encoding" in error.message:  # in what was not asked for, and cannot be read here
            return error.message
        return "what answers there does not speak HTTP as it should; does the address have the right port?"
    if isinstance(error, aiohttp.ClientConnectorError) and error.ssl and not error.os_error.errno:
        return "TLS failed; does the address begin with the right one of http and https?"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused (status {error.status})"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it was closed in the middle of the answer"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it was closed before the answer"
    if isinstance(error, aiohttp.ClientOSError) and error.errno is None:  # while the request was being written
        return "it was closed before the answer"
    if isinstance(error, OSError) and error.strerror:
        # asyncio says "Connect call failed" whatever the reason was.
        return f"{os.strerror(error.errno) if error.errno else error.strerror} (errno {error.errno})"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _tls(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(getattr(error, "reason", None) or error)


# The pools.


class _Pool:
    """The connections of an event loop, and one timer for all answers that come over them.

    To set one for each answer, let alone for each read, would cost as much as reading.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
        self.loop, self.session = loop, session
        self.posts: set[Post] = set()
        """Those that are under way."""
        self.keeper: AsyncGenerator[Any, None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf

    def watch(self, post: Post) -> None:
        """Look after it, from now on and until it is no longer among `posts`."""
        self.posts.add(post)
        post._heard_at = now = self.loop.time()
        at = now + min(post.patience.first_s, post.patience.between_s)
        if at < self._looks_at:
            self._look_at(at)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, at: float) -> None:
        self.close()
        self._looks_at, self._timer = at, self.loop.call_at(at, self._look)

    def _look(self) -> None:
        self._looks_at, now = math.inf, self.loop.time()
        at = min([post.look(now) for post in tuple(self.posts)], default=math.inf)
        if at < math.inf:
            # A thousand answers must not be looked at a thousand times in a second.
            self._look_at(max(at, now + _LEAST_LOOK_S))


_pools: dict[int, _Pool] = {}
_lock = threading.Lock()
_draining: set[asyncio.Task[None]] = set()
_kept_for_ever: list[Any] = []
"""The parent's, in a forked child: collected, they would close what the parent still uses, and complain."""


async def _pool() -> _Pool:
    """The running loop's own."""
    loop = asyncio.get_running_loop()
    found = _pools.get(id(loop))
    if found is not None and found.loop is loop:
        return found
    keeper = _keep(loop)
    pool = await anext(keeper)
    pool.keeper = keeper
    with _lock:
        _pools[id(loop)] = pool
    return pool


async def _keep(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[_Pool, None]:
    import aiohttp

    # No limit: how many runs there are at once is decided elsewhere, and one that waits for a connection looks hung.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=1 << 18)
    pool = _Pool(loop, session)
    try:
        yield pool
    finally:
        pool.close()
        with _lock:
            _pools.pop(id(loop), None)
        await session.close()


async def _drain(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(_DRAIN_S):
            while await response.content.readany():
                pass
        response.release()
    except Exception:
        response.close()
    finally:
        if not response.content.at_eof():
            response.close()


def _forget(session: aiohttp.ClientSession) -> None:
    """Let go of a pool without closing its sockets, and without a complaint when it is collected."""
    connector = session.connector
    session.detach()
    if connector is not None:
        connector._closed = True
        _kept_for_ever.append(connector)


def _leave() -> None:
    """The process ends: close what is idle. A stream that is under way is left as it is, as its run is."""
    for pool in list(_pools.values()):
        loop, session = pool.loop, pool.session
        if loop.is_running() and not getattr(session.connector, "_acquired", None):
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(session.close(), loop).result(1.0)
        if not session.closed:
            _forget(session)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # it may be held by a thread that does not exist in the child
    for pool in _pools.values():
        # The sockets, and what watches them, are shared with the parent: closing them here would end its streams.
        _forget(pool.session)
        _kept_for_ever.append(pool)
    _kept_for_ever.append(tuple(_draining))
    _draining.clear()
    _pools.clear()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
