"""What the direct models of all three formats have in common: one request, one stream."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias, TypedDict
from urllib.parse import urlsplit

import orjson

from turncell.adapters.chat_format import encode
from turncell.adapters.halves import Halves, decode
from turncell.adapters.http_stream import Patience, Post, check_url, is_loopback
from turncell.adapters.keys import (
    Key,
    as_fields,
    as_headers,
    as_key,
    environment_key,
    headers_of,
    host_of,
    key_of,
    keyring_key,
    remedy,
)
from turncell.adapters.price import Price, as_price
from turncell.adapters.price_list import list_price, listed_capabilities
from turncell.core.deltas import Finished, Fragment
from turncell.core.events import CostBasis
from turncell.core.parts import Json, Usage
from turncell.errors import ModelFailure, UnknownModelError, UsageError
from turncell.runtime.ports import Capabilities, ModelRequest

Auth: TypeAlias = Callable[[str, bytes], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Gets the URL and the body, and returns the headers that let them in."""


class Options(TypedDict, total=False):
    """What every direct model takes besides its name; see `DirectModel`."""

    base_url: str | None
    api_key: Key | None
    headers: Mapping[str, str] | None
    extra_body: Mapping[str, Json] | None
    auth: Auth | None
    timeout_s: float | Patience
    price: Price | None
    holds_schema: bool | None
    sees_images: bool | None


class Reading(Protocol):
    """What the events of one stream say."""

    is_over: bool
    """The event that ends an answer has come."""
    failure: ModelFailure | None
    """What the provider has failed with inside the stream. Kept, since what came with it must be handed over before it."""

    def read(self, payloads: Sequence[bytes]) -> list[Fragment]:
        """The fragments of these events, up to a failure."""
        ...

    def rest(self) -> list[Fragment]:
        """What was kept back for a piece that has not come."""
        ...

    def finished(self) -> Finished:
        """ModelFailure where there was one, or the stream ended before the answer."""
        ...

    @property
    def usage(self) -> Usage:
        """What was said of tokens so far."""
        ...


class EventReading(ABC):
    """A reading that takes one event after the other."""

    def __init__(self, name: str, key: str | None = None) -> None:
        self.name = name
        self.is_over = False
        self.failure: ModelFailure | None = None
        self._key = key
        self._halves: Halves | None = None

    def read(self, payloads: Sequence[bytes]) -> list[Fragment]:
        fragments: list[Fragment] = []
        for payload in payloads:
            if self.is_over or self.failure is not None:
                break
            try:
                try:
                    event = orjson.loads(payload)
                except orjson.JSONDecodeError:
                    event = decode(payload)
                    self._halves = self._halves or Halves()
                if isinstance(event, dict):  # what is none says nothing
                    fragments += self._event(event)
            except ModelFailure as failure:
                self.failure = failure
                break
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                text = payload.decode("utf-8", "replace")
                self.failure = ModelFailure("protocol", f"{self.name}: an event that cannot be read: {text[:200]!r}")
                self.failure.__cause__ = error
                break
        return fragments if self._halves is None else self._halves.joined(fragments)

    def rest(self) -> list[Fragment]:
        return [] if self._halves is None else self._halves.rest()

    def finished(self) -> Finished:
        if self.failure is not None:
            raise self.failure
        if not self.is_over:
            raise ModelFailure("protocol", f"{self.name}: the stream ended before the answer did; it may be incomplete")
        return self._end()

    @abstractmethod
    def _event(self, event: dict[str, Any]) -> list[Fragment]:
        """The fragments of one event. ModelFailure where it tells of an error; what else it raises means unreadable."""

    @abstractmethod
    def _end(self) -> Finished:
        """The last fragment, of an answer that is over."""


class DirectModel(ABC):
    """A model that is asked over HTTP, without LiteLLM between. Nothing is retried here.

    `name` may begin with the provider ("anthropic/..."), which the provider does not see. Without `base_url` it is the
    provider's variable or the provider itself, and the key is that of its variable; a server that is named here gets the
    key that is given here, or that the keyring has for its host, or none. `api_key` may be a function, sync or async, asked
    for each call; it runs in a thread, and has as long as a connection may take. `auth`, the same, makes headers for one request
    in place of it (signatures). `extra_body` are fields of the request (None takes one away); those of a
    call (`ModelRequest.extra`) go over them. `timeout_s` bounds silence, not the length of an answer; a `Patience` has one bound for
    the connection, one for the first byte and one for those between. `holds_schema` says whether answers can be held to a JSON Schema,
    `sees_images` whether it may be sent images, where the name does not tell.

    Without tokens from the provider, `Usage` stays empty. The cost is the provider's own figure, where it sends one; else what
    `price` makes of the tokens, since who gives one has a contract or a server of their own; else what the price list does,
    where the provider itself is asked.
    """

    _prefixes: ClassVar[tuple[str, ...]]
    _provider: ClassVar[str]
    """As the price list names it."""
    _url: ClassVar[str]
    """Of the provider itself."""
    _url_variable: ClassVar[str]
    _key_variable: ClassVar[str]
    _own_headers: ClassVar[tuple[str, ...]] = ("authorization", "x-api-key")
    """Which of the user's headers stand in the place of a key, in lower case."""
    _always: ClassVar[dict[str, str]] = {}
    """Headers of every request."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: Key | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Json] | None = None,
        auth: Auth | None = None,
        timeout_s: float | Patience = 600.0,
        price: Price | None = None,
        holds_schema: bool | None = None,
        sees_images: bool | None = None,
    ) -> None:
        self.name = name
        self.model = next((name.removeprefix(one) for one in self._prefixes if name.startswith(one)), name)
        """As the provider names it."""
        if not self.model or name.split() != [name]:
            raise UnknownModelError(f"a model is written {self._prefixes[0] + 'name'!r}; found {name!r}")
        self.base_url = check_url(base_url or os.environ.get(self._url_variable) or self._url)
        self.headers = as_headers(headers)
        self.extra_body = as_fields(extra_body)
        self.patience = Patience.of(timeout_s)
        self.price = as_price(price)
        self._is_own = urlsplit(self.base_url).hostname == urlsplit(self._url).hostname
        self._reads_environment = base_url is None
        if auth is not None and not callable(auth):
            raise UsageError(f"auth is a function of URL and body that returns headers; found a {type(auth).__name__}")
        self._api_key, self._auth = as_key(api_key), auth
        self._schema = self._holds_schema() if holds_schema is None else holds_schema
        self._sees_images = sees_images

    def __init_subclass__(cls) -> None:
        """A signature that names all options: it is what a notebook shows."""
        own, common = inspect.signature(cls.__init__), inspect.signature(DirectModel.__init__)
        added = [
            one for one in own.parameters.values() if one.kind is one.KEYWORD_ONLY and one.name not in common.parameters
        ]
        cls.__signature__ = common.replace(parameters=[*list(common.parameters.values())[1:], *added])  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @cached_property
    def capabilities(self) -> Capabilities:
        return listed_capabilities(
            self._provider if self._is_own else "", self.model, schema=self._schema, images=self._sees_images
        )

    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return self._cost(Usage(input_tokens, output_tokens))[0]

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        key = await self._key()
        body = self._bytes(request)
        headers = await self._headers(body, key)
        reading = self._reading(key)
        try:
            async with Post(self.name, self._endpoint(), body, headers, key=key, patience=self.patience) as answer:
                async for payloads in answer:
                    fragments = reading.read(payloads)
                    if reading.is_over:
                        answer.is_over = True
                    if fragments:
                        yield fragments
                    if reading.failure is not None:
                        raise reading.failure
            end = reading.finished()
        except ModelFailure as failure:
            failure.usage = reading.usage
            raise
        if end.cost_usd is None:
            end.cost_usd, end.cost_basis = self._cost(end.usage)
        yield [*reading.rest(), end]

    def _bytes(self, request: ModelRequest) -> bytes:
        """The body of the request."""
        return encode(self._fields(self._body(request), request))

    def _fields(self, fields: dict[str, Json], request: ModelRequest) -> dict[str, Json]:
        """With the extras of the model and of the call; what is None there is not sent."""
        if self.extra_body or request.extra:
            fields = fields | self.extra_body | request.extra
        if None in fields.values():
            fields = {name: value for name, value in fields.items() if value is not None}
        return fields

    @abstractmethod
    def _body(self, request: ModelRequest) -> dict[str, Json]:
        """The fields of the request."""

    @abstractmethod
    def _reading(self, key: str | None) -> Reading:
        """What reads one answer."""

    @abstractmethod
    def _endpoint(self) -> str:
        """The URL that is asked."""

    def _at(self, path: str) -> str:
        """The URL of this path at the server; a query of `base_url` (a gateway's version) stays behind it."""
        base, mark, query = self.base_url.partition("?")
        base = base.rstrip("/")
        return (base if base.endswith(path) else base + path) + mark + query

    def _let_in(self, key: str) -> dict[str, str]:
        """The headers with the key."""
        return {"Authorization": f"Bearer {key}"}

    @abstractmethod
    def _holds_schema(self) -> bool:
        """Whether it is known of this model that its answers can be held to a schema."""

    def _priced_usd(self, usage: Usage, price: Price) -> float | None:
        return price.of(usage)

    async def _headers(self, body: bytes, key: str | None) -> dict[str, str]:
        headers = self._always | self.headers
        if self._auth is not None:
            limit_s = self.patience.connect_s
            return headers | await headers_of(self.name, self._auth, self._endpoint(), body, limit_s)
        return headers if key is None or self._has_own_auth() else self._let_in(key) | headers

    async def _key(self) -> str | None:
        key = await key_of(self.name, self._api_key, self.patience.connect_s)
        if key is not None or self._auth is not None:
            return key
        if self._reads_environment and (key := environment_key(self._key_variable)) is not None:
            return key
        if self._has_own_auth():
            return None
        key = await keyring_key(*self._accounts) if self._accounts else None
        if key is None and self._is_own:
            raise ModelFailure("auth", f"{self.name}: no key: {remedy([self._key_variable], self._provider)}")
        return key

    @cached_property
    def _accounts(self) -> tuple[str, ...]:
        """Of the keyring. What is kept for the provider goes to nobody else."""
        if self._is_own:
            return f"{self._provider}/{self.model}", self._provider
        return () if is_loopback(urlsplit(self.base_url).hostname or "") else (host_of(self.base_url),)

    def _has_own_auth(self) -> bool:
        return bool(self.headers) and any(name.lower() in self._own_headers for name in self.headers)

    def _cost(self, usage: Usage) -> tuple[float | None, CostBasis]:
        if usage.input_tokens is None or usage.output_tokens is None:
            return None, "none"  # half of a cost is none
        price = self.price
        basis: CostBasis = "prices" if price is None else "user"
        if price is None and self._is_own:
            price = list_price(self._provider, self.model, usage.input_tokens)
        cost_usd = None if price is None else self._priced_usd(usage, price)
        return cost_usd, "none" if cost_usd is None else basis
