"""Whatever speaks OpenAI's chat completions, without a client in between: OpenAI itself, vLLM, Ollama, gateways.

A request is JSON that is joined from messages encoded before; an answer is bytes that are decoded once.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from turncell.adapters.chat_format import MessageBytes, chat_tools, encode
from turncell.adapters.chat_reading import ChatReading
from turncell.adapters.http_stream import Patience, Post, check_url, is_loopback
from turncell.adapters.keys import Key, environment_key, host_of, key_of, keyring_key
from turncell.adapters.price import Price
from turncell.adapters.price_list import list_price, listed_capabilities
from turncell.core.deltas import Finished, Fragment
from turncell.core.events import CostBasis
from turncell.core.parts import Json, Message, Reasoning, Usage
from turncell.errors import ModelFailure, UnknownModelError
from turncell.runtime.ports import Capabilities, ModelRequest

OPENAI = "https://api.openai.com/v1"
Auth: TypeAlias = Callable[[str, bytes], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Gets the URL and the body, and returns the headers that let them in."""


class DirectChat:
    """A model behind `base_url` (up to and with "/v1"), as the server calls it; "openai/" before the name is left out.

    Without `base_url` it is OPENAI_BASE_URL or OpenAI itself, and the key is OPENAI_API_KEY; a server that is named here
    gets the key that is given here, or that the keyring has for its host, or none. `api_key` may be a function, sync or async, asked for each call. `auth` makes
    headers for one request in place of it (signatures). `extra_body` are fields of the request; those of a call
    (`ModelRequest.extra`) go over them.

    `timeout_s` bounds silence, not the length of an answer. `max_tokens_field` is what the server calls the limit;
    `reasoning_field` is where it wants earlier thoughts back, if it does ("reasoning_content" for DeepSeek and Kimi).
    `holds_schema` says that answers can be held to a JSON Schema, `sees_images` whether it may be sent images.

    Nothing is retried here. Without tokens from the provider, `Usage` stays empty; without `price` the cost is what the
    provider says, or at OpenAI itself what the price list does.
    """

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
        holds_schema: bool = False,
        sees_images: bool | None = None,
        max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None,
        reasoning_field: str | None = None,
    ) -> None:
        if not name.strip() or name != name.strip():
            raise UnknownModelError(f"a model has a name without blanks around it; found {name!r}")
        self.name = name
        self.base_url = check_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI)
        self.price = price
        self._holds_schema, self._sees_images = holds_schema, sees_images
        self._model = name.removeprefix("openai/")
        self._url = self.base_url + ("" if self.base_url.endswith("/chat/completions") else "/chat/completions")
        self._is_openai = urlsplit(self.base_url).hostname == urlsplit(OPENAI).hostname
        self._reads_environment = base_url is None
        self._api_key, self._auth = api_key, auth
        self._headers = dict(headers or {})
        self._extra_body = dict(extra_body or {})
        self._patience = Patience(connect_s=min(20.0, timeout_s), first_s=timeout_s, between_s=timeout_s)
        is_renamed = self._is_openai or re.match(r"(o\d|gpt-5)", self._model)
        self._max_tokens_field = max_tokens_field or ("max_completion_tokens" if is_renamed else "max_tokens")
        self._reasoning_field = reasoning_field
        self._messages = MessageBytes(self._shape)
        self._tools: tuple[Any, bytes] = ((), b"")

    def __repr__(self) -> str:
        return f"DirectChat({self.name!r})"

    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return self.price.of(Usage(input_tokens, output_tokens)) if self.price is not None else None

    @cached_property
    def capabilities(self) -> Capabilities:
        if not self._is_openai:
            return Capabilities(schema=self._holds_schema, images=self._sees_images)
        return listed_capabilities("openai", self._model, schema=self._holds_schema, images=self._sees_images)

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        key = await self._key()
        body = self._body(request)
        reading = ChatReading(self.name, key)
        async with Post(
            self.name, self._url, body, await self._sent(body, key), key=key, patience=self._patience
        ) as post:
            async for payloads in post:
                fragments = reading.read(payloads)
                if fragments:
                    yield fragments
                if reading.failure is not None:
                    break
        # Outside: whoever has got the last fragment leaves, and the connection would be left by a task of its own.
        yield [self._finished(reading)]

    def _finished(self, reading: ChatReading) -> Finished:
        cost_usd, basis = self._cost(reading)
        return reading.finished(cost_usd, basis)

    def _cost(self, reading: ChatReading) -> tuple[float | None, CostBasis]:
        if self.price is not None:
            cost_usd = self.price.of(reading.usage)
            return cost_usd, "none" if cost_usd is None else "user"
        if not self._is_openai:
            return None, "none"
        usage = reading.usage
        listed = list_price("openai", self._model, usage.input_tokens or 0)
        cost_usd = listed.of(usage) if listed is not None else None
        return cost_usd, "none" if cost_usd is None else "prices"

    async def _key(self) -> str | None:
        key = await key_of(self.name, self._api_key)
        if key is None and self._reads_environment and self._auth is None:
            key = environment_key("OPENAI_API_KEY")
        if key is None and self._auth is None and not _has(self._headers, "authorization"):
            # To look whether there is a keyring at all costs as much as a whole request on loopback, which has no account.
            key = await keyring_key(*accounts) if (accounts := self._accounts) else None
        if key is None and self._is_openai and self._auth is None and not _has(self._headers, "authorization"):
            raise ModelFailure(
                "auth", f"{self.name}: no key: OPENAI_API_KEY not set in the environment; set it before the kernel starts, give `api_key`, or `keyring set turncell openai`"
            )  # fmt: skip
        return key

    @cached_property
    def _accounts(self) -> tuple[str, ...]:
        """Of the keyring. What is kept for OpenAI goes to nobody else."""
        if self._is_openai:
            return f"openai/{self._model}", "openai"
        return () if is_loopback(urlsplit(self.base_url).hostname or "") else (host_of(self.base_url),)

    async def _sent(self, body: bytes, key: str | None) -> dict[str, str]:
        """The headers of one request."""
        headers = dict(self._headers)
        if self._auth is not None:
            try:
                made = self._auth(self._url, body)
                headers |= await made if inspect.isawaitable(made) else made
            except Exception as error:
                text = f"{self.name}: auth() raised {type(error).__name__}; it must return headers"
                raise ModelFailure("auth", text) from error
        elif key and not _has(headers, "authorization"):
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _body(self, request: ModelRequest) -> bytes:
        fields: dict[str, Json] = {
            "model": self._model, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        optional = {
            "temperature": request.temperature,
            self._max_tokens_field: request.max_tokens,
            "reasoning_effort": request.reasoning_effort,
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        if request.output_schema is not None:
            schema = {"name": "answer", "schema": request.output_schema, "strict": is_closed(request.output_schema)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        fields |= self._extra_body | request.extra
        # What is None in `extra_body` is not sent: the way to be rid of a field that a server does not know.
        head = encode({name: value for name, value in fields.items() if value is not None})
        messages = self._messages.encode(request.messages, request.instructions)
        # What changes from step to step comes last.
        return head[:-1] + self._tool_bytes(request) + b',"messages":' + messages + b"}"

    def _tool_bytes(self, request: ModelRequest) -> bytes:
        if not request.tools or "tools" in self._extra_body or "tools" in request.extra:
            return b""
        if self._tools[0] is not request.tools:
            self._tools = (request.tools, b',"tools":' + encode(chat_tools(request.tools)))
        return self._tools[1]

    def _shape(self, message: Message, chat: list[dict[str, Json]]) -> None:
        if message.role != "assistant":
            return
        chat[0].pop("thinking_blocks", None)  # LiteLLM's own
        if self._reasoning_field is not None:
            thoughts = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
            if thoughts:
                chat[0][self._reasoning_field] = thoughts


def is_closed(schema: Json) -> bool:
    """Whether a JSON Schema is one that OpenAI can hold to the letter: no optional and no further properties anywhere.

    >>> is_closed({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False})
    True
    """
    if isinstance(schema, list):
        return all(map(is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != set(properties):
            return False
    return all(map(is_closed, schema.values()))


def _has(headers: Mapping[str, str], name: str) -> bool:
    return any(one.lower() == name for one in headers)
