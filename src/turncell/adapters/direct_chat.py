"""Whatever speaks OpenAI's chat completions, without a client in between: OpenAI itself, vLLM, Ollama, gateways.

A request is JSON that is joined from messages encoded before; an answer is bytes that are decoded once.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Unpack

from turncell.adapters.chat_format import Dialect, MessageBytes, chat_tool_choice, encode, is_mistral, wants_signatures
from turncell.adapters.chat_reading import ChatReading
from turncell.adapters.direct_format import openai_has_schema_mode, strict_schema
from turncell.adapters.direct_model import DirectModel, Options
from turncell.adapters.seals import sealer_at
from turncell.core.parts import Json
from turncell.runtime.ports import ModelRequest

_WANTS_THOUGHTS = re.compile(r"(^|\.)(deepseek\.com|moonshot\.(ai|cn)|kimi\.(ai|com))$")


class DirectChat(DirectModel):
    """A model behind `base_url` (up to and with "/v1"), as the server calls it; "openai/" before the name is left out.

    The key is that of OPENAI_API_KEY, the address that of OPENAI_BASE_URL or OpenAI's own, unless they are given (see
    `DirectModel`). `max_tokens_field` is what the server calls the limit; `reasoning_field` is where it wants earlier thoughts
    back, if it does ("reasoning_content" at DeepSeek and Moonshot themselves, whose addresses are known).

    >>> DirectChat("openai/llama-3", base_url="http://localhost:8000/v1").model
    'llama-3'
    """

    _prefixes = ("openai/",)
    _provider = "openai"
    _url = "https://api.openai.com/v1"
    _url_variable = "OPENAI_BASE_URL"
    _key_variable = "OPENAI_API_KEY"
    _own_headers: ClassVar[tuple[str, ...]] = ("authorization",)

    def __init__(
        self,
        name: str,
        *,
        max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None,
        reasoning_field: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(name, **options)
        is_renamed = self._is_own or re.match(r"(o\d|gpt-5)", self.model)
        self._max_tokens_field = max_tokens_field or ("max_completion_tokens" if is_renamed else "max_tokens")
        self._sealed_by = sealer_at(self.base_url)
        self._messages = MessageBytes(
            Dialect(
                details_by=self._sealed_by,
                thoughts_in=reasoning_field or field_of_thoughts(self._sealed_by),
                has_signed_calls="gemini" in self.model,
                wants_signatures=wants_signatures(self.model),
                answers_results=is_mistral(self.model),
            )
        )

    def _body(self, request: ModelRequest) -> dict[str, Json]:
        fields: dict[str, Json] = {
            "model": self.model, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if request.temperature is not None:
            fields["temperature"] = request.temperature
        if request.max_tokens is not None:
            fields[self._max_tokens_field] = request.max_tokens
        if request.reasoning_effort is not None:
            fields["reasoning_effort"] = request.reasoning_effort
        if request.tools and request.tool_choice is not None:
            fields["tool_choice"] = chat_tool_choice(request.tool_choice)
        if request.output_schema is not None:
            # A server of one's own may hold more than OpenAI's grammar can: there the schema stays as it is.
            strict = strict_schema(request.output_schema) if self._is_own else None
            schema = request.output_schema if strict is None else strict
            answer = {"name": "answer", "schema": schema, "strict": is_closed(schema)}
            fields["response_format"] = {"type": "json_schema", "json_schema": answer}
        return fields

    def _bytes(self, request: ModelRequest) -> bytes:
        head = encode(self._fields(self._body(request), request))
        messages = self._messages.encode(request.messages, request.instructions)
        # What changes from step to step comes last.
        return b"".join((head[:-1], self._tool_bytes(request), b',"messages":', messages, b"}"))

    def _tool_bytes(self, request: ModelRequest) -> bytes:
        if not request.tools or "tools" in self.extra_body or "tools" in request.extra:
            return b""
        return b',"tools":' + self._messages.tools(request.tools)

    def _reading(self, key: str | None) -> ChatReading:
        return ChatReading(self.name, key, self._sealed_by)

    def _endpoint(self) -> str:
        return self._at("/chat/completions")

    def _holds_schema(self) -> bool:
        # Many servers take the field and do not heed it: only who runs one knows.
        return self._is_own and openai_has_schema_mode(self.model)


def field_of_thoughts(host: str) -> str | None:
    """Where the server there wants earlier thoughts back: these refuse calls without; others refuse the field.

    >>> field_of_thoughts("api.deepseek.com"), field_of_thoughts("api.groq.com")
    ('reasoning_content', None)
    """
    return "reasoning_content" if _WANTS_THOUGHTS.search(host) else None


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
