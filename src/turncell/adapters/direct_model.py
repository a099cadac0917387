"""What the direct models of Anthropic's messages and OpenAI's responses have in common: one request, one stream."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, Protocol

import orjson

from turncell.adapters.http_stream import Patience, Post, check_url, key_of
from turncell.core.deltas import Finished, Fragment
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


class DirectModel:
    """A model that is asked over HTTP, without LiteLLM between. Nothing is retried here.

    `name` may begin with the provider ("anthropic/..."), which the provider does not see. `api_key` is a key or a function
    that returns one (it may be async; asked for each call); otherwise the provider's variable is read for each call.
    `headers` and `extra_body` go over what is sent, those of a request (`extra`) over them. `timeout_s` bounds the
    provider's silence, not the length of an answer. `price` is US dollars per million (input, output) tokens; a third
    number is that of input that was read from the provider's cache. `has_schema_mode` says that the model can be held to
    a JSON Schema, where its name does not tell.
    """

    _prefixes: ClassVar[tuple[str, ...]]
    _url: ClassVar[str]
    """Of the provider itself."""
    _url_variable: ClassVar[str]
    _key_variable: ClassVar[str]

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | Callable[[], str | Awaitable[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Json] | None = None,
        timeout_s: float = 600.0,
        price: tuple[float, ...] | None = None,
        has_schema_mode: bool | None = None,
    ) -> None:
        self.name = name
        self.model = next((name.removeprefix(one) for one in self._prefixes if name.startswith(one)), name)
        """As the provider names it."""
        if not self.model or any(char.isspace() for char in name):
            raise UnknownModelError(f"a model is written {self._prefixes[0] + 'name'!r}; found {name!r}")
        if price is not None and len(price) not in (2, 3):
            raise UsageError(f"price is US dollars per million (input, output[, cached input]) tokens; found {price!r}")
        if timeout_s <= 0:
            raise UsageError(f"timeout_s is in seconds, more than 0; found {timeout_s!r}")
        self.base_url = check_url(base_url or os.environ.get(self._url_variable) or self._url)
        self.headers = dict(headers or {})
        self.extra_body = dict(extra_body or {})
        self.timeout_s = timeout_s
        self.price = price
        self._api_key = api_key
        known = self._has_schema_mode() if has_schema_mode is None else has_schema_mode
        self.capabilities = Capabilities(schema=known)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return self._cost_usd(Usage(input_tokens, output_tokens))

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        key = await self._key()
        body = _encoded(self._body(request) | self.extra_body | request.extra)
        headers = self._headers_for(key) | self.headers
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
        cost_usd = self._cost_usd(end.usage)
        yield [end if cost_usd is None else evolve(end, cost_usd=cost_usd, cost_basis="user")]

    def _body(self, request: ModelRequest) -> dict[str, Json]:
        raise NotImplementedError

    def _reading(self, key: str | None) -> Reading:
        raise NotImplementedError

    def _endpoint(self) -> str:
        raise NotImplementedError

    def _headers_for(self, key: str | None) -> dict[str, str]:
        raise NotImplementedError

    def _has_schema_mode(self) -> bool:
        raise NotImplementedError

    async def _key(self) -> str | None:
        key = await key_of(self.name, self._api_key)
        if key is None:
            key = (os.environ.get(self._key_variable) or "").strip() or None
        is_own = any(name.lower() in ("authorization", "x-api-key") for name in self.headers)
        if key is None and not is_own and self.base_url == self._url:
            raise ModelFailure(
                "auth",
                f"{self.name}: no key: {self._key_variable} not set in the environment; set it before the kernel "
                "starts, or give `api_key`",
            )
        return key

    def _cost_usd(self, usage: Usage) -> float | None:
        if self.price is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        input_usd, output_usd, *rest = self.price
        read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        read_usd = rest[0] if rest else input_usd * self._read_share
        fresh = max(0, usage.input_tokens - read - written)
        dollars = fresh * input_usd + read * read_usd + written * input_usd * self._write_share
        return (dollars + usage.output_tokens * output_usd) / 1e6

    @property
    def _read_share(self) -> float:
        """The price of a token from the cache, as a share of that of another input token."""
        return 1.0

    @property
    def _write_share(self) -> float:
        return 1.0


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        pass
    try:
        # Whole numbers of more than 64 bits, and what is nested deeper than orjson likes.
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"`extra_body` (or a tool's schema) holds what JSON cannot: {error}") from error
