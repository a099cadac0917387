"""What the direct models of Anthropic's messages and OpenAI's responses have in common: one request, one stream."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

from turncell.adapters.chat_format import encode
from turncell.adapters.direct_chat import Auth
from turncell.adapters.http_stream import Patience, Post, check_url, is_loopback
from turncell.adapters.keys import Key, environment_key, host_of, key_of, keyring_key
from turncell.adapters.price import Price
from turncell.adapters.price_list import list_price, listed_capabilities
from turncell.core.deltas import Finished, Fragment
from turncell.core.events import CostBasis
from turncell.core.parts import Json, Usage
from turncell.core.values import evolve
from turncell.errors import ModelFailure, UnknownModelError, UsageError
from turncell.runtime.ports import Capabilities, ModelRequest


class Reading(Protocol):
    """What the events of one stream say."""

    is_over: bool
    """The event that ends an answer has come."""

    def read(self, data: bytes) -> list[Fragment]:
        """The fragments of one event. ModelFailure where it tells of an error, or cannot be read."""
        ...

    def finished(self) -> Finished:
        """ModelFailure where the stream ended before the answer."""
        ...


class DirectModel(ABC):
    """A model that is asked over HTTP, without LiteLLM between. Nothing is retried here.

    `name` may begin with the provider ("anthropic/..."), which the provider does not see. Without `base_url` it is the
    provider's variable or the provider itself, and the key is that of its variable; a server that is named here gets the
    key that is given here, or that the keyring has for its host, or none. `api_key` may be a function, sync or async, asked
    for each call. `auth` makes headers for one request in place of it (signatures). `extra_body` are fields of the request (None takes one away); those of a
    call (`ModelRequest.extra`) go over them. `timeout_s` bounds silence, not the length of an answer. `holds_schema` says
    whether answers can be held to a JSON Schema, `sees_images` whether it may be sent images, where the name does not tell.

    Without tokens from the provider, `Usage` stays empty; without `price` the cost is that of the price list, where the
    provider itself is asked.
    """

    _prefixes: ClassVar[tuple[str, ...]]
    _provider: ClassVar[str]
    """As the price list names it."""
    _url: ClassVar[str]
    """Of the provider itself."""
    _url_variable: ClassVar[str]
    _key_variable: ClassVar[str]
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
        timeout_s: float = 600.0,
        price: Price | None = None,
        holds_schema: bool | None = None,
        sees_images: bool | None = None,
    ) -> None:
        self.name = name
        self.model = next((name.removeprefix(one) for one in self._prefixes if name.startswith(one)), name)
        """As the provider names it."""
        if not self.model or any(char.isspace() for char in name):
            raise UnknownModelError(f"a model is written {self._prefixes[0] + 'name'!r}; found {name!r}")
        if timeout_s <= 0:
            raise UsageError(f"timeout_s is in seconds, more than 0; found {timeout_s!r}")
        self.base_url = check_url(base_url or os.environ.get(self._url_variable) or self._url)
        self.headers = dict(headers or {})
        self.extra_body = dict(extra_body or {})
        self.timeout_s = timeout_s
        self.price = price
        self._is_own = urlsplit(self.base_url).hostname == urlsplit(self._url).hostname
        self._reads_environment = base_url is None
        self._api_key, self._auth = api_key, auth
        self._schema = self._holds_schema() if holds_schema is None else holds_schema
        self._sees_images = sees_images

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
        fields = self._body(request) | self.extra_body | request.extra
        body = encode({name: value for name, value in fields.items() if value is not None})
        headers = await self._headers(body, key)
        reading = self._reading(key)
        patience = Patience(min(Patience().connect_s, self.timeout_s), self.timeout_s, self.timeout_s)
        async with Post(self.name, self._endpoint(), body, headers, key=key, patience=patience) as answer:
            async for payloads in answer:
                fragments: list[Fragment] = []
                failure: ModelFailure | None = None
                try:
                    for payload in payloads:
                        if not reading.is_over:
                            fragments += reading.read(payload)
                except ModelFailure as found:
                    failure = found  # what came before it in the same piece counts
                answer.is_over = answer.is_over or reading.is_over
                if fragments:
                    yield fragments
                if failure is not None:
                    raise failure
        end = reading.finished()
        cost_usd, basis = self._cost(end.usage)
        yield [evolve(end, cost_usd=cost_usd, cost_basis=basis)]

    @abstractmethod
    def _body(self, request: ModelRequest) -> dict[str, Json]:
        """The fields of the request."""

    @abstractmethod
    def _reading(self, key: str | None) -> Reading:
        """What reads one answer."""

    @abstractmethod
    def _endpoint(self) -> str:
        """The URL that is asked."""

    @abstractmethod
    def _let_in(self, key: str) -> dict[str, str]:
        """The headers with the key."""

    @abstractmethod
    def _holds_schema(self) -> bool:
        """Whether the name is one of a model whose answers can be held to a schema."""

    def _priced_usd(self, usage: Usage, price: Price) -> float | None:
        return price.of(usage)

    async def _headers(self, body: bytes, key: str | None) -> dict[str, str]:
        headers = self._always | self.headers
        if self._auth is not None:
            try:
                made = self._auth(self._endpoint(), body)
                return headers | dict(await made if inspect.isawaitable(made) else made)
            except Exception as error:
                text = f"{self.name}: auth() raised {type(error).__name__}; it must return headers"
                raise ModelFailure("auth", text) from error
        return headers if key is None or self._has_own_auth() else self._let_in(key) | headers

    async def _key(self) -> str | None:
        key = await key_of(self.name, self._api_key)
        if key is None and self._reads_environment and self._auth is None:
            key = environment_key(self._key_variable)
        if key is None and self._auth is None and not self._has_own_auth():
            key = await keyring_key(*accounts) if (accounts := self._accounts) else None
        if key is None and self._is_own and self._auth is None and not self._has_own_auth():
            raise ModelFailure(
                "auth",
                f"{self.name}: no key: {self._key_variable} not set in the environment; set it before the kernel "
                f"starts, give `api_key`, or `keyring set turncell {self._provider}`",
            )
        return key

    @cached_property
    def _accounts(self) -> tuple[str, ...]:
        """Of the keyring. What is kept for the provider goes to nobody else."""
        if self._is_own:
            return f"{self._provider}/{self.model}", self._provider
        return () if is_loopback(urlsplit(self.base_url).hostname or "") else (host_of(self.base_url),)

    def _has_own_auth(self) -> bool:
        return any(name.lower() in ("authorization", "x-api-key") for name in self.headers)

    def _cost(self, usage: Usage) -> tuple[float | None, CostBasis]:
        if usage.input_tokens is None:
            return None, "none"
        price = self.price
        basis: CostBasis = "prices" if price is None else "user"
        if price is None and self._is_own:
            price = list_price(self._provider, self.model, usage.input_tokens)
        cost_usd = None if price is None else self._priced_usd(usage, price)
        return cost_usd, "none" if cost_usd is None else basis
