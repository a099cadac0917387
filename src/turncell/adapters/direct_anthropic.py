"""Anthropic's messages, without LiteLLM between."""

from __future__ import annotations

from typing import Any

import orjson

from turncell.adapters.chat_format import REDACTED
from turncell.adapters.direct_format import count
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment, TextFragment
from turncell.core.events import FinishReason
from turncell.core.parts import Json, Usage
from turncell.errors import FailureKind, ModelFailure

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "tool_use": "tool_calls", "refusal": "filter",
}  # fmt: skip
_ERRORS: dict[str, tuple[FailureKind, int]] = {
    "overloaded_error": ("overloaded", 529), "api_error": ("overloaded", 500), "timeout_error": ("timeout", 504),
    "rate_limit_error": ("rate_limit", 429), "authentication_error": ("auth", 401), "billing_error": ("auth", 402),
    "permission_error": ("auth", 403), "not_found_error": ("not_found", 404),
    "request_too_large": ("context_length", 413), "invalid_request_error": ("bad_request", 400),
}  # fmt: skip


class MessagesReading:
    """What the events of one stream say.

    Blocks follow each other, each with a number. Some servers number all of them 0; a block begins where it is said to.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.answered_by: str | None = None
        self._kinds: dict[Any, str] = {}
        self._seals: dict[Any, str] = {}
        self._inputs: dict[Any, str] = {}
        self._tokens: dict[str, Json] = {}
        self._reason: str | None = None
        self._has_stopped = False

    def read(self, data: bytes | str) -> list[Fragment]:
        """The fragments of one event. ModelFailure where it tells of an error, or is none."""
        try:
            event = orjson.loads(data)
            kind = event["type"]
            match kind:
                case "content_block_delta":
                    return self._delta(event["index"], event["delta"])
                case "content_block_start":
                    return self._start(event["index"], event["content_block"])
                case "content_block_stop":
                    return self._stop(event["index"])
                case "message_start":
                    self.answered_by = event["message"].get("model")
                    self._count(event["message"].get("usage"))
                case "message_delta":
                    self._reason = event["delta"].get("stop_reason") or self._reason
                    self._count(event.get("usage"))
                case "message_stop":
                    self._has_stopped = True
                case "error":
                    raise self._failure(event["error"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            text = data if isinstance(data, str) else data.decode("utf-8", "replace")
            raise ModelFailure("protocol", f"{self.name}: an event that cannot be read: {text[:200]!r}") from error
        return []

    def finished(self) -> Finished:
        if not self._has_stopped:
            raise ModelFailure("protocol", f"{self.name}: the stream ended before the answer did; it may be incomplete")
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

    def _count(self, usage: Json) -> None:
        """Later counts are totals too; what they leave out stands as it was."""
        self._tokens |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _start(self, index: Any, block: dict[str, Json]) -> list[Fragment]:
        kind = self._kinds[index] = block["type"]
        self._seals.pop(index, None)
        self._inputs.pop(index, None)
        if kind == "tool_use":
            # A server that does not stream arguments has them here; Anthropic has `{}`, which they replace.
            self._inputs[index] = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            return [CallFragment(index, block["id"], block["name"])]
        if kind == "redacted_thinking":
            return [ReasoningFragment("", REDACTED + block["data"])]
        if kind == "thinking":
            self._seals[index] = block.get("signature") or ""
            return [ReasoningFragment(block["thinking"])] if block.get("thinking") else []
        return [TextFragment(block["text"])] if kind == "text" and block.get("text") else []

    def _delta(self, index: Any, delta: dict[str, Json]) -> list[Fragment]:
        kind = delta["type"]
        if kind == "text_delta":
            return [TextFragment(delta["text"])] if delta["text"] else []
        if kind == "thinking_delta":
            return [ReasoningFragment(delta["thinking"])] if delta["thinking"] else []
        if kind == "signature_delta":
            self._seals[index] = self._seals.get(index, "") + delta["signature"]
        elif kind == "input_json_delta" and self._kinds.get(index) == "tool_use" and delta["partial_json"]:
            # Other blocks with arguments are tools that run at the provider.
            self._inputs[index] = ""
            return [CallFragment(index, None, None, delta["partial_json"])]
        return []

    def _stop(self, index: Any) -> list[Fragment]:
        whole, seal = self._inputs.pop(index, ""), self._seals.pop(index, "")
        if whole:
            return [CallFragment(index, None, None, whole)]
        return [ReasoningFragment("", seal)] if seal else []

    def _failure(self, error: dict[str, Json]) -> ModelFailure:
        said = str(error.get("type"))
        kind, status_code = _ERRORS.get(said, ("unknown", None))
        message = str(error.get("message") or said)
        if kind == "bad_request" and "too long" in message:
            kind = "context_length"
        return ModelFailure(kind, f"{self.name}: {message}", status_code=status_code)
