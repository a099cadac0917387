"""What a stream of OpenAI's chat completions says, whoever sends it. Pure: payloads in, fragments out.

The format is one thing on paper and many in the wild, so that nothing is required but JSON: fields may be missing, null or
of another kind. What was seen, and where, stands in tests/streams/chat.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson

from turncell.adapters.chat_format import encode
from turncell.adapters.direct_format import as_count, as_object
from turncell.adapters.halves import Halves, decode
from turncell.adapters.provider_failures import said_failure
from turncell.adapters.seals import THOUGHT, seal
from turncell.core.deltas import CallFragment, Finished, Fragment, ImageFragment, ReasoningFragment
from turncell.core.events import CostBasis, FinishReason
from turncell.core.parts import Usage
from turncell.errors import ModelFailure
from turncell.runtime.images import media_type_of

MOST_IMAGE_CHARS = 14_000_000
"""Of the base64 of an image that a model has made: some ten megabytes, more than any gives now."""
_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop",
    "length": "length", "max_tokens": "length", "max_output_tokens": "length", "model_length": "length",
    "tool_calls": "tool_calls", "tool_use": "tool_calls", "function_call": "tool_calls",
    "content_filter": "filter", "safety": "filter", "sensitive": "filter", "model_context_window_exceeded": "length",
}  # fmt: skip
_NO_COUNTS: dict[str, int] = {}
_FAILED = {"error", "insufficient_system_resource", "network_error", "abort"}
"""Of OpenRouter, DeepSeek, Zhipu and vLLM: the answer is not whole, and asking again may help."""


class ChatReading:
    """The chunks of one answer of `model`, and what they said of tokens, cost and the end.

    A failure inside the stream is kept in `failure`, since fragments that came with it must be handed over before it.
    Sealed thoughts (OpenRouter's `reasoning_details`) are kept as those of `sealed_by`.
    """

    def __init__(self, model: str, key: str | None = None, sealed_by: str = "") -> None:
        self.is_over = False
        """Never: `[DONE]` ends it, or the body does."""
        self.failure: ModelFailure | None = None
        self.reason: str | None = None
        """Why it ended, in the provider's words; None as long as nothing was said."""
        self.answered_by: str | None = None
        self.usage_json: dict[str, Any] = {}
        """What was said of tokens, merged."""
        self.cost_usd: float | None = None
        """The provider's own figure."""
        self._failed_with: str | None = None
        self._has_refused = False
        self._model, self._key, self._sealed_by = model, key, sealed_by
        self._halves: Halves | None = None

    def read(self, payloads: Sequence[bytes]) -> list[Fragment]:
        """The fragments in these payloads, up to a failure."""
        fragments: list[Fragment] = []
        for payload in payloads:
            try:
                chunk = orjson.loads(payload)
            except orjson.JSONDecodeError:
                try:
                    chunk = decode(payload)
                except ValueError as error:
                    start = payload[:80].decode("utf-8", "replace")
                    self.failure = ModelFailure("protocol", f"{self._model}: sent what is no JSON ({error}): {start!r}")
                    self.failure.__cause__ = error
                    break
                self._halves = self._halves or Halves()
            if not isinstance(chunk, dict):
                continue
            choices, is_plain = chunk.get("choices"), False
            if choices and isinstance(choices, list):
                choice = choices[0]
                if isinstance(choice, dict):
                    # A server that does not stream sends the whole message.
                    delta = choice.get("delta") or choice.get("message")
                    if isinstance(delta, dict):
                        text = delta.get("content")
                        # Nearly every chunk is only this.
                        if text and len(delta) == 1 and isinstance(text, str):
                            fragments.append(text)
                            is_plain = True
                        elif _read_delta(delta, fragments, self._sealed_by):
                            self._has_refused = True
                    if choice.get("finish_reason"):
                        self.reason = str(choice["finish_reason"])
                        if self.reason in _FAILED:
                            self._failed_with = str(choice.get("native_finish_reason") or self.reason)
                    if "usage" in choice and choice["usage"]:  # noqa: RUF019  # unlike `get` it is no call, for each chunk
                        self._add_usage(choice["usage"])
            if "usage" in chunk and chunk["usage"]:  # noqa: RUF019
                self._add_usage(chunk["usage"])
            elif "x_groq" in chunk:
                self._add_usage(as_object(chunk["x_groq"]).get("usage"))
            is_failure = "error" in chunk and bool(chunk["error"])
            if is_failure or (not is_plain and "error" in (chunk.get("object"), chunk.get("type"))):
                self.failure = said_failure(self._model, chunk, key=self._key)
                break
            if self.answered_by is None and isinstance(chunk.get("model"), str):
                self.answered_by = chunk["model"] or None
        return fragments if self._halves is None else self._halves.joined(fragments)

    def rest(self) -> list[Fragment]:
        """What was kept back for a piece that has not come."""
        return [] if self._halves is None else self._halves.rest()

    def end(self) -> FinishReason:
        """Why the answer ended; ModelFailure where nobody said that it has."""
        if self.failure is not None:
            raise self.failure
        if self.reason is None:
            raise ModelFailure(
                "protocol", f"{self._model}: the stream ended before the answer did; it may be incomplete"
            )
        if self._failed_with is not None:
            raise ModelFailure(
                "overloaded", f"{self._model}: the provider has ended the answer with {self._failed_with!r}"
            )
        reason = _REASONS.get(self.reason.lower(), "other")
        # A refusal ends like an answer, and to ask for a value of some type again would only be paid for.
        return "filter" if reason == "stop" and self._has_refused else reason

    def finished(self, cost_usd: float | None = None, basis: CostBasis = "none") -> Finished:
        """The last fragment; the provider's own figure counts more than `cost_usd`."""
        if self.cost_usd is not None:
            cost_usd, basis = self.cost_usd, "provider"
        return Finished(self.end(), self.usage, cost_usd, basis, self.answered_by)

    @property
    def usage(self) -> Usage:
        said_of = self.usage_json
        raw, prompt, completion = _counts(said_of), _NO_COUNTS, _NO_COUNTS
        if details := said_of.get("prompt_tokens_details"):
            prompt = _counts(details)
        if details := said_of.get("completion_tokens_details"):
            completion = _counts(details)
        asked, said, total = raw.get("prompt_tokens"), raw.get("completion_tokens"), raw.get("total_tokens")
        # The first that is a count. The details are OpenAI's; the rest is DeepSeek's, Moonshot's and what speaks
        # Anthropic behind.
        thought = completion.get("reasoning_tokens", raw.get("reasoning_tokens"))
        cached = raw.get("prompt_cache_hit_tokens", raw.get("cached_tokens"))
        read = prompt.get("cached_tokens", raw.get("cache_read_input_tokens", cached))
        written = prompt.get("cache_write_tokens", raw.get("cache_creation_input_tokens"))
        written = prompt.get("cache_creation_tokens", written)
        if asked is not None and said is not None and total is not None:
            beside = total - asked - said
            # xAI counts thoughts beside the answer, Google only in the total; both are paid as output.
            if beside > 0 and (beside == thought or (not thought and "gemini" in self._model)):
                said, thought = said + beside, beside
        return Usage(asked, said, read, written, thought)

    def _add_usage(self, usage: Any) -> None:
        """Who sends usage twice sends totals, or each half once: the later one counts where it says more."""
        if not isinstance(usage, dict):
            return
        known = self.usage_json
        for name, value in usage.items():
            if value or name not in known:
                known[name] = value
        for name, per_usd in (("cost", 1), ("cost_in_usd_ticks", 1e10)):  # OpenRouter's, xAI's
            cost = as_cost(known.get(name))
            if cost is not None:
                self.cost_usd = cost / per_usd
        if known.get("is_byok") is True and self.cost_usd is not None:
            # OpenRouter's fee; the provider behind it takes its part from the user's own key.
            self.cost_usd += as_cost(as_object(known.get("cost_details")).get("upstream_inference_cost")) or 0.0


def _read_delta(delta: dict[str, Any], fragments: list[Fragment], sealed_by: str) -> bool:
    """Whether its text refuses."""
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought and isinstance(thought, str):
        fragments.append(ReasoningFragment(thought))
    details = delta.get("reasoning_details")
    if isinstance(details, list):
        _read_details(details, fragments, sealed_by, has_text=bool(thought))
    text = delta.get("content") or delta.get("refusal")
    if text and isinstance(text, str):
        fragments.append(text)
    elif isinstance(text, list):
        _read_blocks(text, fragments)
    images = delta.get("images")
    if isinstance(images, list):
        fragments.extend(image for one in images if (image := made_image(one)) is not None)
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        for call in calls:
            if isinstance(call, dict):
                fragments.append(_call(call))
    elif isinstance(calls, dict):
        fragments.append(_call(calls))
    if isinstance(delta.get("function_call"), dict):  # what tool calls were before 2023-11, and are in old servers
        fragments.append(_call({"function": delta["function_call"]}))
    return isinstance(text, str) and text != "" and not delta.get("content")


def made_image(block: Any) -> ImageFragment | str | None:
    """An image as OpenRouter, LiteLLM and others give it: `{"image_url": {"url": "data:..."}}`, or only the URL."""
    url = as_object(block).get("image_url", block)
    url = as_object(url).get("url", url)
    if not isinstance(url, str):
        return None
    if not url.startswith("data:"):
        return ImageFragment(url) if url.startswith("https://") else None
    return packed_image(url.partition(",")[2])


def packed_image(data: str) -> ImageFragment | str | None:
    """An image of base64, or a text in its place where it is too large to be kept. None for what is none."""
    if len(data) > MOST_IMAGE_CHARS:
        return f"[an image of {len(data) * 3 // 4:,} bytes, left out: it is too large to be kept]"
    try:
        found = base64.b64decode(data, validate=True)
    except ValueError:
        return None
    media_type = media_type_of(found)
    return ImageFragment(data, media_type) if media_type else None


def _read_details(details: list[Any], fragments: list[Fragment], sealed_by: str, *, has_text: bool) -> None:
    """OpenRouter's: the text stands beside them too; what is signed or sealed goes back as it came."""
    for detail in map(as_object, details):
        text = detail.get("text") or detail.get("summary")
        if text and isinstance(text, str) and not has_text:
            fragments.append(ReasoningFragment(text))
        if sealed_by and (detail.get("signature") or detail.get("data")):
            kept = {name: value for name, value in detail.items() if name != "text"}
            fragments.append(ReasoningFragment("", seal(sealed_by, encode(kept).decode())))


def _read_blocks(blocks: list[Any], fragments: list[Fragment]) -> None:
    """Mistral sends content as a list while its models think: thoughts are lists of text again."""
    for block in map(as_object, blocks):
        thought = block.get("thinking")
        if isinstance(thought, list):
            thought = "".join(str(as_object(one).get("text") or "") for one in thought)
        if thought and isinstance(thought, str):
            fragments.append(ReasoningFragment(thought))
        elif isinstance(block.get("text"), str) and block["text"]:
            fragments.append(block["text"])


def _call(call: dict[str, Any]) -> CallFragment:
    function, index = call.get("function"), call.get("index")
    name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else (None, None)
    if not isinstance(arguments, str):
        # Some servers send the object itself.
        arguments = "" if arguments is None else encode(arguments).decode()
    call_id = "" if call.get("id") is None else str(call["id"])
    if extra := call.get("extra_content"):
        signature = as_object(as_object(extra).get("google")).get("thought_signature")
        if signature and isinstance(signature, str):
            call_id += THOUGHT + signature
    return CallFragment(
        index if type(index) is int and index >= 0 else None,
        call_id or None,
        name if name and isinstance(name, str) else None,
        arguments,
    )


def as_cost(value: Any) -> float | None:
    """What a provider says that a call costs, in whatever unit; None for what is no cost."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e18 else None


def _counts(value: Any) -> dict[str, int]:
    """What of an object is a count."""
    counts: dict[str, int] = {}
    if isinstance(value, dict):
        for name, one in value.items():
            if as_count(one) is not None:
                counts[name] = one
    return counts
