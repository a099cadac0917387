"""LiteLLM's request without LiteLLM's client: what a provider's own configuration makes of it, as bytes to be sent.

LiteLLM knows some hundred providers that speak OpenAI's chat completions, each with its own address, headers and names of
parameters; that is worth having. Its way of sending and reading costs 260 µs a chunk. So it builds, and we send and read.

`build` answers None wherever it is not sure that the outcome is the same: another wire format, a signed request, settings
of LiteLLM that would count (callbacks, caches, sessions), parameters that LiteLLM reads for itself, a name that is not there
any more. Then LiteLLM does all of it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from turncell.adapters.chat_format import (
    Dialect,
    MessageBytes,
    chat_messages,
    chat_tool_choice,
    chat_tools,
    encode,
    is_mistral,
    legal_id,
    mark_prefixes,
    wants_signatures,
)
from turncell.adapters.direct_format import strict_schema
from turncell.adapters.litellm_parsed import has_listeners
from turncell.adapters.seals import THOUGHT, sealer, sealer_at
from turncell.core.parts import Json
from turncell.runtime.ports import ModelRequest

_OWN_READERS = {"codestral", "fireworks_ai", "groq", "mistral", "openrouter", "xai"}
"""Their configurations read chunks themselves, of OpenAI's format by the providers' documentation."""
_OTHERS = (
    "anthropic", "azure", "bedrock", "clarifai", "cohere", "databricks", "gdc", "gemini", "github_copilot", "huggingface",
    "sagemaker", "sap", "snowflake", "text-completion", "vertex", "watsonx",
)  # fmt: skip
"""Beginnings of names of providers that sign, or whose format or address is their own."""
_SETTINGS = (
    "aclient_session", "cache", "client_session", "headers", "model_alias_map", "organization", "pre_call_rules",
    "post_call_rules", "proxy_auth",
)  # fmt: skip
_VARIABLES = (
    "OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "SSL_CERTIFICATE", "SSL_VERIFY", "SSL_SECURITY_LEVEL",
)  # fmt: skip
_NEVER = {
    "model", "messages", "stream", "stream_options", "tools", "functions", "function_call", "custom_llm_provider", "extra_headers",
    "api_version", "max_retries", "base_model", "kwargs", "web_search_options",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Built:
    """A request that is ready to be sent."""

    url: str
    headers: dict[str, str]
    body: bytes
    key: str | None


class RequestBuilder:
    """Requests for one model. What stays the same from step to step is built once."""

    def __init__(
        self, litellm: Any, name: str, provider: str, base_url: str | None, mark: Mapping[str, str] | None = None
    ) -> None:
        """`mark` is set where prefixes end that are to be cached; see `mark_prefixes`."""
        self._cache_mark = mark
        self._litellm, self._name, self._provider, self._base_url = litellm, name, provider, base_url
        self.dialect = dialect_of(provider, name, base_url)
        self._messages = MessageBytes(self.dialect)
        self._latest: tuple[tuple[Any, ...], _Frame | None] = (), None
        """What a request had but for its messages, and what became of that: replaced as one, since several threads may build."""

    def build(self, request: ModelRequest, key: str | None, extra: Mapping[str, Any]) -> Built | None:
        """The request, or None where LiteLLM must do all of it. `extra` are arguments of `litellm.acompletion`."""
        try:
            return self._build(request, key, extra)
        except Exception:
            # Private names may have gone, or a parameter is refused: LiteLLM as a whole says so better.
            return None

    def _build(self, request: ModelRequest, key: str | None, extra: Mapping[str, Any]) -> Built | None:
        if _is_set_up(self._litellm) or has_listeners(self._litellm):
            return None
        frame_of = (
            request.temperature, request.max_tokens, request.reasoning_effort, request.tool_choice, request.tools,
            key,
            encode(dict(extra)) if extra else b"", encode(request.output_schema) if request.output_schema else b"",
        )  # fmt: skip
        latest_of, frame = self._latest
        if frame_of != latest_of:
            frame = self._new_frame(request, key, dict(extra))
            self._latest = frame_of, frame
        if frame is None:
            return None
        if frame.head is not None:
            messages = self._messages.encode(request.messages, request.instructions)
            body = b"".join((frame.head[:-1], b',"messages":', messages, b"}"))
        else:
            chat = chat_messages(request.messages, request.instructions, self.dialect)
            if self._cache_mark is not None:
                # The tools stand before the instructions, whose mark holds for both.
                mark_prefixes(chat, [], self._cache_mark)
            body = encode(frame.body(chat))
        return Built(frame.url, frame.headers, body, frame.key)

    def _new_frame(self, request: ModelRequest, key: str | None, extra: dict[str, Any]) -> _Frame | None:
        litellm, provider = self._litellm, self._provider
        from litellm.llms.openai.chat.gpt_transformation import OpenAIGPTConfig
        from litellm.main import responses_api_bridge_check
        from litellm.types.utils import LlmProviders
        from litellm.utils import ProviderConfigManager, get_optional_params

        extra_body, own_headers = extra.pop("extra_body", None) or {}, extra.pop("extra_headers", None) or {}
        accepted = set(inspect.signature(get_optional_params).parameters) - _NEVER
        if not set(extra) <= accepted or provider.startswith(_OTHERS):
            return None
        model, _, own_key, base_url = litellm.get_llm_provider(self._name, api_base=self._base_url, api_key=key)
        key = own_key or key or (os.environ.get("OPENAI_API_KEY") if provider == "openai" else None)
        base_url = base_url or self._base_url
        if not key or not base_url:
            return None
        config = ProviderConfigManager.get_provider_chat_config(model, LlmProviders(provider))
        if not isinstance(config, OpenAIGPTConfig) or not _speaks_openai(config, OpenAIGPTConfig, provider, model):
            return None
        tools = chat_tools(request.tools) or None
        info, _ = responses_api_bridge_check(
            model=model, custom_llm_provider=provider, tools=tools, reasoning_effort=request.reasoning_effort, api_base=base_url
        )  # fmt: skip
        if info.get("mode") not in (None, "chat"):
            return None
        given = {
            "temperature": request.temperature, "max_tokens": request.max_tokens,
            "reasoning_effort": request.reasoning_effort, "tools": tools,
            "tool_choice": tool_choice_of(request),
            "response_format": None if request.output_schema is None else response_format(request.output_schema),
        }  # fmt: skip
        given = {name: value for name, value in given.items() if value is not None} | extra
        optional = get_optional_params(
            model=model, custom_llm_provider=provider, stream=True, stream_options={"include_usage": True},
            messages=[], **given,
        )  # fmt: skip
        if {"fake_stream", "json_mode"} & set(optional):
            return None
        common: dict[str, Any] = {"model": model, "optional_params": optional, "litellm_params": {}}
        headers = config.validate_environment(headers={}, messages=[], api_key=key, api_base=base_url, **common)
        url = config.get_complete_url(api_base=base_url, api_key=key, stream=True, **common)
        if urlsplit(url).netloc != urlsplit(base_url).netloc:
            return None  # some configurations leave their address to the caller: the key must not go elsewhere
        headers = _over({str(n): str(v) for n, v in headers.items()}, own_headers)
        frame = _Frame(config, common, headers, url, key, dict(extra_body))
        is_plain = self._cache_mark is None and all(
            getattr(type(config), name) is getattr(OpenAIGPTConfig, name)
            for name in ("transform_request", "_transform_messages")
        )
        if is_plain:
            # It does not look at the messages, so that they may be encoded here, each once.
            fields = frame.body([{"role": "user", "content": ""}])
            del fields["messages"]
            frame.head = encode(fields)
        return frame


def _is_set_up(litellm: Any) -> bool:
    """Whether the user has set what only LiteLLM itself heeds."""
    for name in _SETTINGS:
        if getattr(litellm, name, None):
            return True
    return getattr(litellm, "ssl_verify", True) is not True or any(map(os.environ.get, _VARIABLES))


class _Frame:
    """A request but for its messages."""

    def __init__(
        self,
        config: Any,
        common: dict[str, Any],
        headers: dict[str, str],
        url: str,
        key: str,
        extra_body: dict[str, Any],
    ) -> None:
        self.headers, self.url, self.key = headers, url, key
        self.head: bytes | None = None
        self._config, self._common, self._extra_body = config, common, extra_body

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        common = {**self._common, "optional_params": dict(self._common["optional_params"])}
        body: dict[str, Any] = self._config.transform_request(messages=messages, headers=dict(self.headers), **common)
        return body | (body.pop("extra_body", None) or {}) | self._extra_body


def dialect_of(provider: str, name: str, base_url: str | None) -> Dialect:
    is_google = provider in ("gemini", "vertex_ai")
    return Dialect(
        sealed_by=sealer(provider, name),
        details_by=sealer_at(base_url) if base_url else provider,
        thoughts_in="reasoning_content" if provider in ("deepseek", "moonshot") else None,
        has_signed_calls="gemini" in name and not is_google,
        wants_signatures=wants_signatures(name) and not is_google,  # there LiteLLM sees to it
        wire_id=_signed_id if is_google else legal_id,
        answers_results=is_mistral(name),
    )


def _signed_id(text: str) -> str:
    return text if THOUGHT in text else legal_id(text)


def tool_choice_of(request: ModelRequest) -> Json:
    return None if request.tool_choice is None or not request.tools else chat_tool_choice(request.tool_choice)


def response_format(schema: dict[str, Json]) -> dict[str, Json]:
    """The field that holds an answer to a schema; to the letter, where it can be said so that OpenAI's grammar takes it."""
    strict = strict_schema(schema)
    answer = {"name": "answer", "schema": schema if strict is None else strict, "strict": strict is not None}
    return {"type": "json_schema", "json_schema": answer}


def _over(headers: dict[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The user's headers in the place of those of the same name, however that is written."""
    names = {name.lower() for name in own}
    return {name: value for name, value in headers.items() if name.lower() not in names} | dict(own)


def _speaks_openai(config: Any, openai: type, provider: str, model: str) -> bool:
    """Whether it neither signs, nor reads the answer otherwise, nor makes a stream of an answer that is none."""
    is_plain = type(config).sign_request is openai.sign_request  # type: ignore[attr-defined]
    reads = type(config).get_model_response_iterator is openai.get_model_response_iterator  # type: ignore[attr-defined]
    fakes = config.should_fake_stream(model=model, stream=True, custom_llm_provider=provider)
    return is_plain and (reads or provider in _OWN_READERS) and not fakes and config.has_custom_stream_wrapper is False
