"""OpenAI's responses, without LiteLLM between."""

from __future__ import annotations

from typing import Any, Unpack

from turncell.adapters.chat_reading import packed_image
from turncell.adapters.direct_format import as_object, as_text, count, openai_has_schema_mode
from turncell.adapters.direct_model import DirectModel, EventReading, Options
from turncell.adapters.direct_responses_format import Items, responses_body
from turncell.adapters.kept_bytes import KeptTalks
from turncell.adapters.provider_failures import said_failure
from turncell.adapters.seals import PHASE, RESPONSES, seal, sealer_at
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment
from turncell.core.events import FinishReason
from turncell.core.parts import Json, Usage
from turncell.runtime.ports import ModelRequest

_REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "max_tokens": "length", "content_filter": "filter"}


class DirectResponses(DirectModel):
    """A model at OpenAI's `/responses`, or of a server that has it, as "openai/responses/gpt-5" or its bare name.

    The key is that of OPENAI_API_KEY, the address that of OPENAI_BASE_URL (with `/v1`), unless they are given (see
    `DirectModel`). `reasoning_summary` ("auto", "concise", "detailed") is asked for where a request has a
    `reasoning_effort`; None where the provider refuses to give any.

    >>> DirectResponses("openai/responses/gpt-5").model
    'gpt-5'
    """

    _prefixes = ("openai/responses/", "openai/")
    _provider = "openai"
    _url = "https://api.openai.com/v1"
    _url_variable = "OPENAI_BASE_URL"
    _key_variable = "OPENAI_API_KEY"

    def __init__(
        self,
        name: str,
        *,
        reasoning_summary: str | None = "auto",
        **options: Unpack[Options],
    ) -> None:
        self.reasoning_summary = reasoning_summary
        super().__init__(name, **options)
        self._sealed_by = RESPONSES if self._is_own else sealer_at(self.base_url)
        self._talks = KeptTalks(lambda: Items(self._sealed_by))

    def _body(self, request: ModelRequest) -> dict[str, Json]:
        return responses_body(request, self.model, self.reasoning_summary, self._talks)

    def _reading(self, key: str | None) -> ResponsesReading:
        return ResponsesReading(self.name, key, self._sealed_by)

    def _endpoint(self) -> str:
        return self._at("/responses")

    def _holds_schema(self) -> bool:
        return openai_has_schema_mode(self.model)


class ResponsesReading(EventReading):
    """What the events of one stream say.

    Every text comes several times: in deltas, whole, in its item, and in the response at the end. The first of these
    that a server sends counts, since some leave the deltas out, or all but the end.
    """

    def __init__(self, name: str, key: str | None = None, sealed_by: str = RESPONSES) -> None:
        super().__init__(name, key)
        self._sealed_by = sealed_by
        self.answered_by: str | None = None
        self._response: dict[str, Json] | None = None
        """The response as it stands at the end."""
        self._read: set[Any] = set()
        """The numbers of items of which something was read."""
        self._whole: set[Any] = set()
        self._phased: set[Any] = set()
        self._calls: dict[Any, str] = {}
        """The ids of calls that have begun, by the number of their item."""
        self._written: set[str | None] = set()
        """The ids of calls whose arguments came; None for arguments of which nobody knows whose they are."""
        self._has_refused = False

    def _event(self, event: dict[str, Any]) -> list[Fragment]:
        match event.get("type"):
            case "response.output_text.delta" | "response.refusal.delta":
                self._has_refused |= event["type"] == "response.refusal.delta"
                return self._text(event["output_index"], event["delta"])
            case "response.function_call_arguments.delta":
                return self._arguments(event["output_index"], event["delta"])
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._thought(event["output_index"], event["delta"])
            case "response.reasoning_summary_part.added" if event.get("summary_index"):
                return self._thought(event["output_index"], "\n\n")
            case "response.output_item.added":
                return self._begun(event["output_index"], event["item"])
            case "response.output_item.done":
                return self._done(event["output_index"], event["item"])
            case "response.created":
                self.answered_by = as_text(as_object(event.get("response")).get("model"))
            case "response.completed" | "response.incomplete":
                return self._closed(event["response"])
            case "response.failed":
                raise said_failure(self.name, event["response"].get("error"), key=self._key)
            case None if event.get("object") == "response":
                return self._whole_response(event)
            case kind if kind == "error" or event.get("error"):
                raise said_failure(self.name, event, key=self._key)
        return []

    def _end(self) -> Finished:
        return Finished(self._reason(self._response or {}), self.usage, answered_by=self.answered_by)

    @property
    def usage(self) -> Usage:
        usage = as_object(as_object(self._response).get("usage"))
        prompt, completion = usage.get("input_tokens_details"), usage.get("output_tokens_details")
        return Usage(
            count(usage, "input_tokens"),
            count(usage, "output_tokens"),
            count(prompt, "cached_tokens"),
            count(prompt, "cache_write_tokens"),
            count(completion, "reasoning_tokens"),
        )

    def _reason(self, response: dict[str, Json]) -> FinishReason:
        if response.get("status") == "incomplete":
            reason = as_text(as_object(response.get("incomplete_details")).get("reason"))
            return _REASONS.get(reason or "", "other")
        if self._calls or self._written:
            return "tool_calls"
        return "filter" if self._has_refused else "stop"

    def _text(self, index: Any, text: str) -> list[Fragment]:
        self._read.add(index)
        return [text] if text else []

    def _thought(self, index: Any, text: str) -> list[Fragment]:
        self._read.add(index)
        return [ReasoningFragment(text)] if text else []

    def _arguments(self, index: Any, text: str) -> list[Fragment]:
        self._read.add(index)
        self._written.add(self._calls.get(index))
        return [CallFragment(index, None, None, text)] if text else []

    def _begun(self, index: Any, item: dict[str, Json]) -> list[Fragment]:
        if item["type"] == "message":
            return self._phase(index, item)
        if item["type"] != "function_call":
            return []
        self._calls[index] = item["call_id"]
        return [CallFragment(index, item["call_id"], item["name"])]

    def _phase(self, index: Any, item: dict[str, Json]) -> list[Fragment]:
        """Codex works worse, and may end early, where it does not get back what it has called its texts."""
        if index in self._phased or not isinstance(item.get("phase"), str):
            return []
        self._phased.add(index)
        return [ReasoningFragment("", seal(PHASE, item["phase"]))]

    def _done(self, index: Any, item: dict[str, Json]) -> list[Fragment]:
        if index in self._whole:
            return []
        self._whole.add(index)
        is_new = index not in self._read
        match item["type"]:
            case "function_call":
                # Again with its id: where the item was never said to begin, it begins here.
                self._calls[index] = item["call_id"]
                if item.get("arguments") or not is_new:
                    self._written.add(item["call_id"])
                return [CallFragment(index, item["call_id"], item["name"], (item.get("arguments") or "") * is_new)]
            case "message" if is_new:
                contents = item.get("content") or ()
                self._has_refused |= any(one.get("type") == "refusal" for one in contents)
                phase = self._phase(index, item)
                return phase + self._text(
                    index, "".join(one.get("text") or one.get("refusal") or "" for one in contents)
                )
            case "image_generation_call" if item.get("result"):
                image = packed_image(item["result"])
                return [image] if image is not None else []
            case "reasoning":
                summary = [one.get("text") or "" for one in item.get("summary") or item.get("content") or ()]
                fragments = self._thought(index, "\n\n".join(summary)) if is_new else []
                sealed = item.get("encrypted_content")
                if sealed:
                    fragments.append(ReasoningFragment("", seal(self._sealed_by, f"{item.get('id') or ''}:{sealed}")))
                return fragments
        return []

    def _whole_response(self, response: dict[str, Json]) -> list[Fragment]:
        """From a server that does not stream."""
        if response.get("status") == "failed":
            raise said_failure(self.name, response.get("error"), key=self._key)
        return self._closed(response)

    def _closed(self, response: dict[str, Json]) -> list[Fragment]:
        self._response, self.is_over = response, True
        self.answered_by = as_text(response.get("model")) or self.answered_by
        output = response.get("output") or ()
        if self._read or self._whole:
            return [call for item in output if (call := self._left_out(item)) is not None]
        return [fragment for index, item in enumerate(output) for fragment in self._done(index, item)]

    def _left_out(self, item: dict[str, Json]) -> CallFragment | None:
        """A call that no event before has told of, or only its name: it must not be lost, nor run without its arguments."""
        is_whole = item["type"] == "function_call" and item.get("status") in (None, "completed")
        if not is_whole or item["call_id"] in self._written:
            return None
        if None in self._written and item["call_id"] in self._calls.values():
            return None
        self._written.add(item["call_id"])
        return CallFragment(None, item["call_id"], item["name"], item.get("arguments") or "")
