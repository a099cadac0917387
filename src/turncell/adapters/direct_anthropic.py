"""Anthropic's messages, without LiteLLM between."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack, get_args
from urllib.parse import urlsplit

from turncell.adapters.chat_format import clean, encode
from turncell.adapters.direct_anthropic_format import (
    CacheTime,
    Turns,
    check_forced,
    has_schema_mode,
    is_served,
    messages_body,
    served_text,
)
from turncell.adapters.direct_format import as_object, as_text, count
from turncell.adapters.direct_model import DirectModel, EventReading, Options
from turncell.adapters.kept_bytes import KeptTalks
from turncell.adapters.price import Price
from turncell.adapters.provider_failures import said_failure
from turncell.adapters.seals import ANTHROPIC, BLOCK, REDACTED, seal, sealer_at
from turncell.core.codec import decode_json
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment
from turncell.core.events import FinishReason
from turncell.core.parts import Json, Usage
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime.ports import ModelRequest

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "refusal": "filter", "pause_turn": "paused",
}  # fmt: skip


class DirectAnthropic(DirectModel):
    """A model of Anthropic, or of a server that speaks its format, as "anthropic/claude-..." or its bare name.

    The key is that of ANTHROPIC_API_KEY, the address that of ANTHROPIC_BASE_URL, unless they are given (see
    `DirectModel`). `prompt_cache` is how long the provider keeps what an answer began with ("5m", "1h"), or "off".

    >>> DirectAnthropic("anthropic/claude-sonnet-4-5", prompt_cache="1h").model
    'claude-sonnet-4-5'
    """

    _prefixes = ("anthropic/",)
    _provider = "anthropic"
    _url = "https://api.anthropic.com"
    _url_variable = "ANTHROPIC_BASE_URL"
    _key_variable = "ANTHROPIC_API_KEY"
    _always: ClassVar[dict[str, str]] = {"anthropic-version": "2023-06-01"}

    def __init__(
        self,
        name: str,
        *,
        prompt_cache: CacheTime = "5m",
        **options: Unpack[Options],
    ) -> None:
        if prompt_cache not in get_args(CacheTime):
            raise UsageError(f"prompt_cache is one of {', '.join(get_args(CacheTime))}; found {prompt_cache!r}")
        self.prompt_cache: CacheTime = prompt_cache
        super().__init__(name, **options)
        # Others speak the format and sign their thoughts; each refuses those of another.
        self._sealed_by = ANTHROPIC if self._is_own or "claude" in self.model else sealer_at(self.base_url)
        self._talks = KeptTalks(lambda: Turns(self._sealed_by))

    def _body(self, request: ModelRequest) -> dict[str, Json]:
        return messages_body(request, self.model, self.prompt_cache, self._talks)

    def _fields(self, fields: dict[str, Json], request: ModelRequest) -> dict[str, Json]:
        fields = super()._fields(fields, request)
        thinking = fields.get("thinking")
        if request.tools and isinstance(thinking, dict) and thinking.get("type") != "disabled":
            check_forced(self.name, request.tool_choice)
        return fields

    def _reading(self, key: str | None) -> MessagesReading:
        return MessagesReading(self.name, key, self._sealed_by)

    def _endpoint(self) -> str:
        return self._at("/messages" if urlsplit(self.base_url).path.rstrip("/").endswith("/v1") else "/v1/messages")

    def _let_in(self, key: str) -> dict[str, str]:
        return {"x-api-key": key}

    def _holds_schema(self) -> bool:
        return has_schema_mode(self.model)

    def _priced_usd(self, usage: Usage, price: Price) -> float | None:
        """The cache has prices of its own, as shares of that of other input: a tenth to read, more to write."""
        if price.cached_usd is None:
            price = evolve(price, cached_usd=price.input_usd / 10)
        more = 1.0 if self.prompt_cache == "1h" else 0.25
        whole = price.of(usage)
        return None if whole is None else whole + (usage.cache_write_tokens or 0) * price.input_usd * more / 1e6


class MessagesReading(EventReading):
    """What the events of one stream say.

    Blocks follow each other, each with a number. Some servers number all of them 0; a block begins where it is said to.
    """

    def __init__(self, name: str, key: str | None = None, sealed_by: str = ANTHROPIC) -> None:
        super().__init__(name, key)
        self._sealed_by = sealed_by
        self.answered_by: str | None = None
        self._kinds: dict[Any, str] = {}
        self._seals: dict[Any, str] = {}
        self._inputs: dict[Any, str] = {}
        self._served: dict[Any, dict[str, Json]] = {}
        """Blocks of tools that run at the provider, which go back as they came; their arguments are in `_inputs`."""
        self._tokens: dict[str, Json] = {}
        self._reason: str | None = None

    def _event(self, event: dict[str, Any]) -> list[Fragment]:
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event["index"], event["delta"])
            case "content_block_start":
                return self._ended(event["index"]) + self._start(event["index"], event["content_block"])
            case "content_block_stop":
                return self._stop(event["index"])
            case "message_start":
                message = as_object(event.get("message"))
                self.answered_by = as_text(message.get("model"))
                self._count(message.get("usage"))
            case "message_delta":
                self._reason = as_text(as_object(event.get("delta")).get("stop_reason")) or self._reason
                self._count(event.get("usage"))
            case "message_stop":
                self.is_over = True
                return [fragment for index in (self._inputs | self._seals) for fragment in self._ended(index)]
            case "message":
                return self._whole(event)
            case kind if kind == "error" or event.get("error"):
                raise said_failure(self.name, event, key=self._key)
        return []

    def _end(self) -> Finished:
        return Finished(_REASONS.get(self._reason or "", "other"), self.usage, answered_by=self.answered_by)

    @property
    def usage(self) -> Usage:
        """`input_tokens` of the API are only those that the cache had nothing to do with."""
        read, written = (
            count(self._tokens, "cache_read_input_tokens"),
            count(self._tokens, "cache_creation_input_tokens"),
        )
        fresh = count(self._tokens, "input_tokens")
        return Usage(
            None if fresh is None else fresh + (read or 0) + (written or 0),
            count(self._tokens, "output_tokens"),
            read,
            written,
            count(self._tokens.get("output_tokens_details"), "thinking_tokens"),
        )

    def _whole(self, message: dict[str, Json]) -> list[Fragment]:
        """From a server that does not stream."""
        fragments: list[Fragment] = []
        for index, block in enumerate(message["content"]):
            fragments += self._start(index, block) + self._stop(index)
        self.answered_by, self._reason = as_text(message.get("model")), as_text(message.get("stop_reason"))
        self.is_over = True
        self._count(message.get("usage"))
        return fragments

    def _count(self, usage: Json) -> None:
        """Later counts are totals too; what they leave out, or have as 0, stands as it was."""
        said = as_object(usage)
        self._tokens |= {name: value for name, value in said.items() if value or name not in self._tokens}

    def _start(self, index: Any, block: dict[str, Json]) -> list[Fragment]:
        kind = self._kinds[index] = block["type"]
        self._seals.pop(index, None)
        self._inputs.pop(index, None)
        self._served.pop(index, None)
        if kind == "tool_use":
            # A server that does not stream arguments has them here; Anthropic has `{}`, which they replace.
            self._inputs[index] = encode(block["input"]).decode() if block.get("input") else ""
            return [CallFragment(index, block["id"], block["name"])]
        if is_served(kind):
            self._served[index] = block
            return []
        if kind == "redacted_thinking":
            return [ReasoningFragment("", seal(self._sealed_by, REDACTED + block["data"]))]
        if kind == "thinking":
            self._seals[index] = block.get("signature") or ""
            return [ReasoningFragment(block["thinking"])] if block.get("thinking") else []
        return [block["text"]] if kind == "text" and block.get("text") else []

    def _delta(self, index: Any, delta: dict[str, Json]) -> list[Fragment]:
        kind = delta["type"]
        if kind == "text_delta":
            return [delta["text"]] if delta["text"] else []
        if kind == "thinking_delta":
            return [ReasoningFragment(delta["thinking"])] if delta["thinking"] else []
        if kind == "signature_delta":
            self._seals[index] = self._seals.get(index, "") + (delta["signature"] or "")
        elif kind == "input_json_delta" and index in self._served:
            self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
        elif kind == "input_json_delta" and self._kinds.get(index) == "tool_use" and delta["partial_json"]:
            self._inputs[index] = ""
            return [CallFragment(index, None, None, delta["partial_json"])]
        return []

    def _ended(self, index: Any) -> list[Fragment]:
        """Of a block that nobody has said to end: what came with its beginning, which a call must not run without."""
        return [] if index in self._served else self._stop(index)

    def _stop(self, index: Any) -> list[Fragment]:
        whole, sealed = self._inputs.pop(index, ""), self._seals.pop(index, "")
        if (served := self._served.pop(index, None)) is not None:
            if whole:
                try:
                    served["input"] = decode_json(clean(whole))
                except (ValueError, RecursionError):  # cut at the output limit: nobody will run it
                    return []
            sealed = seal(self._sealed_by, BLOCK + encode(served).decode())
            return [ReasoningFragment(served_text(served), sealed)]
        if whole:
            return [CallFragment(index, None, None, whole)]
        return [ReasoningFragment("", seal(self._sealed_by, sealed))] if sealed else []
