"""What LiteLLM's stream of chunks says: fragments, tokens, cost and why it ended.

LiteLLM adds to what it reads: estimated tokens where the provider gave none, its own prices as `usage.cost`, a "stop"
at the end of a stream that broke off. Its wrapper keeps what the provider sent in `chunks` and `received_finish_reason`;
that is what counts here. Without these attributes the chunks are believed as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from turncell.adapters.chat_reading import ChatReading, as_cost, made_image
from turncell.adapters.direct_format import as_count, as_text
from turncell.adapters.halves import Halves
from turncell.adapters.litellm_parsed import Parsed, has_listeners
from turncell.adapters.seals import ANTHROPIC, REDACTED, seal
from turncell.core.deltas import CallFragment, Fragment, ReasoningFragment
from turncell.core.events import CostBasis, FinishReason
from turncell.core.parts import Usage

_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls", "content_filter": "filter",
}  # fmt: skip


class Reading:
    """What the chunks of one stream say."""

    def __init__(self, litellm: Any, wrapper: Any, sealed_by: str = ANTHROPIC) -> None:
        self.wrapper = wrapper
        self._sealed_by = sealed_by
        self.raw_usage: Any = None
        self.cost_usd: float | None = None
        self._reason: str | None = None
        self._answered_by: str | None = None
        # The wrapper's own list holds what the provider sent; what it hands out was added to.
        self._kept: list[Any] | None = getattr(wrapper, "chunks", None)
        self._is_as_sent = self._kept is not None or isinstance(wrapper, Parsed)
        self._has_calls = False
        self.drops = not has_listeners(litellm)
        self._seen = 0
        self._halves = Halves()
        """LiteLLM reads halves of characters as they come."""
        if hasattr(wrapper, "raise_on_model_repetition"):
            wrapper.raise_on_model_repetition = _nothing

    def read(self, chunk: Any) -> list[Fragment]:
        """The fragments of a chunk, or of texts that were read without one."""
        if isinstance(chunk, list):
            return self._halves.joined(chunk)
        self._note_usage(chunk)
        fragments: list[Fragment] = []
        for choice in chunk.choices[:1]:
            if choice.finish_reason:
                self._reason = choice.finish_reason
            delta = choice.delta
            if delta is None:
                continue
            blocks = getattr(delta, "thinking_blocks", None)
            thought = getattr(delta, "reasoning_content", None)
            if blocks:
                fragments += _thoughts(blocks, thought, self._sealed_by)
            elif thought:
                fragments.append(ReasoningFragment(thought))
            text = getattr(delta, "content", None)
            if text:
                fragments.append(text)
            images = (made_image(one) for one in getattr(delta, "images", None) or ())
            fragments += [image for image in images if image is not None]
            for call in getattr(delta, "tool_calls", None) or ():
                self._has_calls = True
                function = call.function
                name, arguments = getattr(function, "name", None), getattr(function, "arguments", None)
                fragments.append(
                    CallFragment(getattr(call, "index", None), call.id or None, name or None, arguments or "")
                )
        self._answered_by = self._answered_by or getattr(chunk, "model", None)
        return self._halves.joined(fragments)

    def rest(self) -> list[Fragment]:
        """What was kept back for a piece that has not come."""
        return self._halves.rest()

    def _note_usage(self, chunk: Any) -> None:
        kept = self._kept
        if kept is None:
            self._add(getattr(chunk, "usage", None))
            return
        for one in kept[self._seen :]:
            self._add(getattr(one, "usage", None))
        if self.drops:
            kept.clear()
        self._seen = len(kept)

    def _add(self, usage: Any) -> None:
        """Providers that send usage twice send totals, or each half once: the later one counts where it says more."""
        if usage is None:
            return
        cost = as_cost(getattr(usage, "cost", None))
        if self._is_as_sent and cost is not None:
            self.cost_usd = cost
        if self.raw_usage is None:
            self.raw_usage = usage
            return
        for name in ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details",
                     "cache_creation_input_tokens", "cache_read_input_tokens"):  # fmt: skip
            value = getattr(usage, name, None)
            if value:
                setattr(self.raw_usage, name, value)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None where the provider never gave one."""
        names = ("received_finish_reason", "intermittent_finish_reason")
        if all(hasattr(self.wrapper, name) for name in names) and not any(
            getattr(self.wrapper, name) for name in names
        ):
            return None
        reason = _REASONS.get(self._reason or "", "other")
        # Gemini says "stop", whatever it has said before.
        return "tool_calls" if reason == "stop" and self._has_calls else reason

    @property
    def answered_by(self) -> str | None:
        return as_text(getattr(self.wrapper, "_provider_response_model", None)) or as_text(self._answered_by)

    @property
    def usage(self) -> Usage:
        raw = self.raw_usage
        if raw is None:
            return Usage()
        prompt, completion = (
            getattr(raw, "prompt_tokens_details", None),
            getattr(raw, "completion_tokens_details", None),
        )
        read = _count(prompt, "cached_tokens")
        written = _count(prompt, "cache_creation_tokens")
        return Usage(
            _count(raw, "prompt_tokens"),
            _count(raw, "completion_tokens"),
            _count(raw, "cache_read_input_tokens") if read is None else read,
            _count(raw, "cache_creation_input_tokens") if written is None else written,
            _count(completion, "reasoning_tokens"),
        )


def _thoughts(blocks: Any, thought: str | None, by: str) -> list[Fragment]:
    fragments: list[Fragment] = []
    for number, block in enumerate(blocks):
        if block.get("type") == "redacted_thinking":
            fragments.append(ReasoningFragment("", seal(by, REDACTED + str(block.get("data") or ""))))
            continue
        text = block.get("thinking") or (thought if number == 0 else None) or ""
        signature = block.get("signature") or None
        if text or signature:
            fragments.append(ReasoningFragment(text, seal(by, signature) if signature else None))
    return fragments


def usage_object(litellm: Any, reading: ChatReading) -> Any:
    """What the provider said of tokens, as LiteLLM's own; None where it said nothing that LiteLLM understands."""
    try:
        return litellm.Usage(**reading.usage_json) if reading.usage_json else None
    except Exception:
        return None


def cost_of(
    litellm: Any, name: str, provider: str, said_usd: float | None, usage: Callable[[], Any]
) -> tuple[float | None, CostBasis]:
    """The provider's own figure, or what LiteLLM's price list makes of `usage` (makes LiteLLM's object, if it is needed)."""
    if said_usd is not None:
        return said_usd, "provider"
    short = name.split("/", 1)[-1]
    entries = (litellm.model_cost.get(key) for key in (name, f"{provider}/{short}", short))
    entry = next((entry for entry in entries if entry), None)
    if entry is None and provider.startswith("ollama"):
        return None, "none"  # LiteLLM would ask the server for the prices of its models
    if entry is None and provider == "openai" and not short.startswith("ft:"):
        return None, "none"  # as LiteLLM would say after 0.3 ms
    found = usage()
    if found is None:
        return None, "none"
    try:
        prompt_usd, completion_usd = litellm.cost_per_token(
            model=name, custom_llm_provider=provider, usage_object=found
        )
    except Exception:
        return None, "none"
    cost_usd = as_cost(float(prompt_usd) + float(completion_usd))
    if cost_usd is None:
        return None, "none"
    # Zero is a price only where the table says so; LiteLLM also answers zero where it knows nothing.
    is_known = cost_usd > 0 or (entry is not None and "input_cost_per_token" in entry)
    return (cost_usd, "prices") if is_known else (None, "none")


def _count(holder: Any, name: str) -> int | None:
    return as_count(getattr(holder, name, None))


def _nothing() -> None:
    return None
