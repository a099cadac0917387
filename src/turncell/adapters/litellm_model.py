"""Any provider that LiteLLM knows, as a model.

LiteLLM is imported by the first call (or by `warm_up` in a background thread), never by this module, and what it
does to its host is undone or kept out. Each of these was seen:

* importing it fetches a price list over the network, loads a `.env` file into the environment and moves tiktoken's
  cache: two variables keep it from the first two for the time of the import, unless the user has set them; the
  third is put back;
* it ends a stream after 100 equal chunks, whatever they mean: its check is disarmed on our stream object alone;
* it keeps every chunk of a stream and walks them again at the end, counting tokens with tokenizers that it may
  download: the chunks are dropped as they pass, unless somebody's callbacks want the whole answer;
* it reports estimated tokens and its own prices as if the provider had said so: usage is read from the provider's
  chunks, and a cost counts as the provider's only if it stood there;
* it ends a stream that broke off before its end with a made-up "stop": that is a failure here;
* it prints advice on stdout when a call fails: switched off while calls of ours are under way, then restored.

What is private in LiteLLM is looked up with a default; without it the behaviour is LiteLLM's own.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import importlib
import inspect
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from turncell.adapters.chat_format import Dialect, chat_messages, chat_tools, mark_prefixes
from turncell.adapters.chat_reading import ChatReading
from turncell.adapters.direct_anthropic_format import CacheTime, check_forced
from turncell.adapters.http_stream import Patience, Post, check_url
from turncell.adapters.keys import Key, as_fields, as_headers, as_key, has_keyring, host_of, key_of, keyring_key
from turncell.adapters.litellm_failures import to_failure
from turncell.adapters.litellm_parsed import parsed
from turncell.adapters.litellm_reading import Reading, cost_of, usage_object
from turncell.adapters.litellm_request import Built, RequestBuilder, dialect_of, response_format, tool_choice_of
from turncell.adapters.price import Price, as_price
from turncell.adapters.price_list import is_listed_to, list_price, listed_capabilities
from turncell.adapters.provider_failures import hide_keys
from turncell.adapters.seals import ANTHROPIC, sealer
from turncell.core.deltas import Finished, Fragment
from turncell.core.events import CostBasis
from turncell.core.parts import Json, Usage
from turncell.errors import ModelFailure, UnknownModelError, UsageError
from turncell.runtime.ports import Capabilities, ModelRequest

_IMPORT_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "TIKTOKEN_CACHE_DIR": None,
}
_SCHEMA_PROVIDERS = ("azure", "openai", "xai")
"""Where a schema and tools may stand in one request, and LiteLLM does not make a tool of the schema."""
_CACHE_PROVIDERS = ("anthropic", "bedrock", "openrouter", "vertex_ai")
"""Through which LiteLLM hands on where Anthropic's cache is to be marked."""
_loaded: Any = None
_is_warm = False
"""All that a call through LiteLLM as a whole imports is there."""
_has_built = False
"""All that a request which it only builds imports is there."""
_load_lock = threading.Lock()
_quiet_lock = threading.Lock()
_quiet_count = 0
_is_quiet_before = False


class LiteLLMModel:
    """A model by its LiteLLM name, "provider/model".

    `api_key` is a key or a function that returns one (sync in a thread, or async; asked for each call, and given as long as a
    connection may take), otherwise LiteLLM looks into the environment, and we into the keyring. `timeout_s` bounds the silence of the provider, not the length of an answer; a
    `Patience` has one bound for the connection, one for the first byte and one for those between. `headers` and `extra_body` are
    added to the request. `price` counts more than LiteLLM's list, and less than the provider's own figure. `prompt_cache` is how
    long Anthropic's models keep what an answer began with ("5m", "1h"), or "off". `extra` are further arguments of
    `litellm.acompletion`; those of a request go over it. Where the provider speaks OpenAI's format
    LiteLLM only builds the request (see litellm_request), where only LiteLLM can read the answer its parser alone does (see
    litellm_parsed); `is_whole` has it do all, at ten times the cost. `sees_images` says
    whether the model may be sent images and `holds_schema` whether its answers can be held to a schema, where LiteLLM's list does
    not know.

    Nothing is retried here. Without tokens from the provider, `Usage` stays empty.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Json] | None = None,
        timeout_s: float | Patience = 600.0,
        price: Price | None = None,
        prompt_cache: CacheTime = "5m",
        extra: dict[str, Any] | None = None,
        is_whole: bool = False,
        holds_schema: bool | None = None,
        sees_images: bool | None = None,
    ) -> None:
        if not name.strip() or name != name.strip():
            raise UnknownModelError(f"a model is written 'provider/model'; found {name!r}")
        if prompt_cache not in get_args(CacheTime):
            raise UsageError(f"prompt_cache is one of {', '.join(get_args(CacheTime))}; found {prompt_cache!r}")
        self.name = name
        if base_url is not None:
            check_url(base_url)
        self.base_url = base_url
        self.patience = Patience.of(timeout_s)
        self.price = as_price(price)
        self.extra = dict(extra or {})
        if headers:
            self.extra["extra_headers"] = as_headers(headers)
        if fields := as_fields(extra_body):
            self.extra["extra_body"] = fields
        self._holds_schema = holds_schema
        self._mark = self._cache_mark(prompt_cache)
        self._api_key = as_key(api_key)
        self._provider: str | None = None
        self._is_whole = is_whole
        self._sees_images = sees_images
        self._builder: RequestBuilder | None = None

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.name!r})"

    @cached_property
    def capabilities(self) -> Capabilities:
        """Limits are those of the provider itself: a server of one's own may have set others."""
        provider, _, short = self.name.partition("/")
        if self.base_url is not None:
            return Capabilities(schema=bool(self._holds_schema), images=self._sees_images)
        holds = self._holds_schema
        if holds is None:
            holds = provider in _SCHEMA_PROVIDERS and is_listed_to(provider, short, "supports_response_schema")
        return listed_capabilities(provider, short, schema=holds, images=self._sees_images)

    def price_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        provider, _, short = self.name.partition("/")
        price = self.price or list_price(provider, short, input_tokens)
        return None if price is None else price.of(Usage(input_tokens, output_tokens))

    @property
    def is_cold(self) -> bool:
        """LiteLLM is not imported yet, and the next call waits for it."""
        return _loaded is None

    def _cache_mark(self, prompt_cache: CacheTime) -> dict[str, str] | None:
        """None where nothing is to be marked: an older model refuses it, and most providers do it unasked."""
        provider, _, short = self.name.partition("/")
        if prompt_cache == "off" or provider not in _CACHE_PROVIDERS or sealer(provider, short) != ANTHROPIC:
            return None
        if provider in ("bedrock", "vertex_ai") and not is_listed_to(provider, short, "supports_prompt_caching"):
            return None
        return {"type": "ephemeral"} if prompt_cache == "5m" else {"type": "ephemeral", "ttl": prompt_cache}

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        # Its imports are seconds of work that must not stand on the loop.
        litellm = _loaded or await asyncio.to_thread(_imported)
        key = await self._key(litellm)
        wrapper: Any = None
        has_begun = False
        with _quiet(litellm):
            provider = self._provider_of(litellm)
            thinks = request.reasoning_effort not in (None, "none")
            if request.tools and thinks and sealer(provider, self.name) == ANTHROPIC:
                check_forced(self.name, request.tool_choice)
            built: Built | None = None
            if self._builds and (_has_built or _is_warm):
                built = self._built(litellm, request, key, provider)
            elif self._builds:
                built = await asyncio.to_thread(self._first_built, litellm, request, key, provider)
            if built is not None and self._builder is not None:
                # Closed here, at once: whoever leaves this generator does not wait for a collection of that one.
                async with aclosing(self._read(litellm, built, provider, self._builder.dialect)) as bursts:
                    async for burst in bursts:
                        yield burst
                return
            if not _is_warm:
                await asyncio.to_thread(_warm, litellm)
            try:
                async with asyncio.timeout(self.patience.connect_s + self.patience.first_s):
                    wrapper = await litellm.acompletion(**self._arguments(litellm, request, key, provider))
                    chunks: AsyncIterator[Any] = aiter(wrapper)
                    reading = Reading(litellm, wrapper, sealer(provider, self.name))
                    if not self._is_whole and reading.drops:
                        found = await parsed(litellm, wrapper, self.name, provider)
                        if found is not None:
                            chunks, reading = found, Reading(litellm, found, sealer(provider, self.name))
                while True:
                    try:
                        silence_s = self.patience.between_s if has_begun else self.patience.first_s
                        async with asyncio.timeout(silence_s):
                            chunk = await anext(chunks)
                    except StopAsyncIteration:
                        break
                    fragments = reading.read(chunk)
                    if fragments:
                        has_begun = True
                        yield fragments
                yield [*reading.rest(), self._finished(litellm, reading, provider)]
            except (ModelFailure, GeneratorExit, asyncio.CancelledError):
                raise
            except Exception as error:
                missing = [] if key else _missing_variables(litellm, self.name)
                raise to_failure(
                    error, model=self.name, where=self.base_url, key=key,
                    has_begun=has_begun, missing=missing,
                ) from error  # fmt: skip
            finally:
                if wrapper is not None:
                    await _close(wrapper)

    @property
    def _builds(self) -> bool:
        """LiteLLM may only build the request."""
        return not self._is_whole and "custom_llm_provider" not in self.extra

    def _first_built(self, litellm: Any, request: ModelRequest, key: str | None, provider: str) -> Built | None:
        """`_built`, with its imports, for a thread."""
        global _has_built
        with _load_lock, _host_kept():
            built = self._built(litellm, request, key, provider)
            _has_built = _has_built or built is not None
        return built

    def _built(self, litellm: Any, request: ModelRequest, key: str | None, provider: str) -> Built | None:
        if self._builder is None:
            self._builder = RequestBuilder(litellm, self.name, provider, self.base_url, self._mark)
        return self._builder.build(request, key, self.extra | request.extra)

    async def _read(
        self, litellm: Any, built: Built, provider: str, dialect: Dialect
    ) -> AsyncGenerator[list[Fragment], None]:
        """The answer to a request that LiteLLM has only built."""
        reading = ChatReading(self.name, built.key, dialect.details_by)
        async with Post(self.name, built.url, built.body, built.headers, key=built.key, patience=self.patience) as post:
            async for payloads in post:
                if fragments := reading.read(payloads):
                    yield fragments
                if reading.failure is not None:
                    break
            reading.end()
            cost = self._cost(litellm, provider, reading, lambda: usage_object(litellm, reading))
            yield [*reading.rest(), reading.finished(*cost)]

    def _cost(
        self, litellm: Any, provider: str, reading: ChatReading | Reading, usage: Callable[[], Any]
    ) -> tuple[float | None, CostBasis]:
        if reading.cost_usd is None:
            said = reading.usage
            if said.input_tokens is None or said.output_tokens is None:
                return None, "none"  # half of a cost is none
            if self.price is not None:
                return self.price.of(said), "user"
        return cost_of(litellm, self.name, provider, reading.cost_usd, usage)

    async def _key(self, litellm: Any) -> str | None:
        key = await key_of(self.name, self._api_key, self.patience.connect_s)
        if key is None and has_keyring():
            if self.base_url is not None:
                return await keyring_key(host_of(self.base_url))
            if _missing_variables(litellm, self.name):
                return await keyring_key(self.name, self.name.split("/", 1)[0])
        return key

    def _provider_of(self, litellm: Any) -> str:
        if self._provider is None:
            try:
                _, self._provider, _, _ = litellm.get_llm_provider(
                    self.name,
                    custom_llm_provider=self.extra.get("custom_llm_provider"),
                    api_base=self.base_url,
                )
            except Exception as error:
                raise ModelFailure("not_found", _unknown(litellm, self.name, self.base_url)) from error
        return self._provider or ""

    def _arguments(self, litellm: Any, request: ModelRequest, key: str | None, provider: str) -> dict[str, Any]:
        dialect = dialect_of(provider, self.name, self.base_url)
        messages = chat_messages(request.messages, request.instructions, dialect)
        tools = chat_tools(request.tools)
        if self._mark is not None:
            mark_prefixes(messages, tools, self._mark)
        arguments: dict[str, Any] = {
            "model": self.name,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": max(self.patience.first_s, self.patience.between_s),
            "num_retries": 0,
            "max_retries": 0,
        }
        if request.output_schema is not None:
            arguments["response_format"] = response_format(request.output_schema)
        if tools:
            arguments["tools"] = tools
            if (Path(litellm.__file__).parent / "responses/mcp/chat_completions_handler.py").exists():
                # Otherwise LiteLLM imports `mcp` (0.5 s, and an error without it) to see that no tool is a gateway's.
                arguments["_skip_mcp_handler"] = True
        optional = {
            "api_key": key, "base_url": self.base_url, "temperature": request.temperature,
            "max_tokens": request.max_tokens, "reasoning_effort": request.reasoning_effort,
            "tool_choice": tool_choice_of(request),
        }  # fmt: skip
        arguments |= {name: value for name, value in optional.items() if value is not None}
        return arguments | self.extra | request.extra

    def _finished(self, litellm: Any, reading: Reading, provider: str) -> Finished:
        finish_reason = reading.finish_reason
        if finish_reason is None:
            raise ModelFailure("protocol", f"{self.name}: the stream ended before the answer did; it may be incomplete")
        cost_usd, basis = self._cost(litellm, provider, reading, lambda: reading.raw_usage)
        return Finished(finish_reason, reading.usage, cost_usd, basis, reading.answered_by)


def warm_up() -> Any:
    """Import LiteLLM and all that its first call would import, and return it. Takes seconds: for a background thread."""
    litellm = _imported()
    _warm(litellm)
    return litellm


def _imported() -> Any:
    """LiteLLM itself: enough where it only builds requests."""
    global _loaded
    with _load_lock:
        if _loaded is None:
            with _host_kept():
                # Waits where the user's own import is still going on in another thread.
                _loaded = importlib.import_module("litellm")
        return _loaded


def _warm(litellm: Any) -> None:
    """Have LiteLLM import what its own way of asking needs besides: a third as much again."""
    global _is_warm
    with _load_lock:
        if not _is_warm:
            with _host_kept(), _quiet(litellm), suppress(Exception):
                _call_nobody(litellm)
            _is_warm = True


@contextmanager
def _host_kept() -> Iterator[None]:
    """Environment and garbage collector as they were before; collecting what stays for ever is half of an import."""
    before = {name: os.environ.get(name) for name in _IMPORT_ENVIRONMENT}
    was_enabled = gc.isenabled()
    gc.disable()
    os.environ.update({n: v for n, v in _IMPORT_ENVIRONMENT.items() if v is not None and before[n] is None})
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _call_nobody(litellm: Any) -> None:
    """A call that is answered inside LiteLLM. Synchronous: else its log worker would belong to a loop that ends here."""
    stream = litellm.completion(
        model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "x"}], stream=True, mock_response="x",
        stream_options={"include_usage": True}, api_key="none", num_retries=0, max_retries=0,
    )  # fmt: skip
    for _ in stream:
        pass
    importlib.import_module("openai.resources.chat.completions")
    importlib.import_module("litellm.llms.openai.openai")


@contextmanager
def _quiet(litellm: Any) -> Iterator[None]:
    """No advice on stdout while calls of ours are under way. It has no argument for that, only a switch."""
    global _quiet_count, _is_quiet_before
    with _quiet_lock:
        if _quiet_count == 0:
            _is_quiet_before = getattr(litellm, "suppress_debug_info", False)
            litellm.suppress_debug_info = True
        _quiet_count += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if _quiet_count == 0:
                litellm.suppress_debug_info = _is_quiet_before


async def _close(wrapper: Any) -> None:
    """Close the provider's connection, whether the stream was read to its end or not."""
    for stream in (wrapper, getattr(wrapper, "completion_stream", None)):
        close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
        if close is None:
            continue
        try:
            result = close()
            if inspect.isawaitable(result):
                await result
        except Exception:
            continue  # it is closed, or cannot be; either way the answer counts, not this
        return


def _unknown(litellm: Any, name: str, base_url: str | None) -> str:
    provider = name.split("/", 1)[0]
    known = sorted({str(getattr(one, "value", one)) for one in getattr(litellm, "provider_list", ())})
    text = f"no provider is known for the model {name!r}; write it 'provider/model', for example 'openai/gpt-4o-mini'"
    if "/" in name:
        lower = provider.lower()
        close = [lower] if lower in known else difflib.get_close_matches(lower, known, 3)
        text = f"{provider!r} in {name!r} is no provider that LiteLLM knows"
        text += f"; did you mean {' or '.join(map(repr, close))}?" if close else "; its documentation lists them."
    if base_url:
        text += f" A server that speaks OpenAI's format is 'openai/{name}' with base_url={hide_keys(base_url)!r}."
    return text


def _missing_variables(litellm: Any, name: str) -> list[str]:
    try:
        return list(litellm.validate_environment(name)["missing_keys"])
    except Exception:
        return []
