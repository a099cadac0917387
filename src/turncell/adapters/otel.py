"""OpenTelemetry: runs, model calls and tools as spans and histograms.

Follows the semantic conventions for generative AI of release 1.41.0, the last one before they moved to a repository of
their own (https://github.com/open-telemetry/semantic-conventions-genai); their status is "development". What is ours and
not theirs is called `turncell.…`.

    invoke_agent {agent}    a run; the parent is what was current where the run was started
      chat {model}          one try to ask a model: a retry and a fallback are spans of their own
      execute_tool {tool}   one call that ran, with the retries of its tool; what was denied is an event of the run
        invoke_agent …      a run that was started inside that call

Each is the current span of the code inside it: a request that a tool makes with an instrumented client is its child.
What people, models and tools have said is left out unless `capture_content=True`; names, numbers and kinds are not.
Every text is redacted before it is given to a span (`runtime/secrets.py`).

Errors (`error.type`): of a model the kinds of `ModelFailure`, or "abandoned" where its answer was not waited for; of a
call its status ("error", "timeout", "cancelled"); of a run what `run.state.error_kind` says, or its status.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError("turncell.otel needs opentelemetry-api; pip install 'turncell[otel]'") from error

from turncell.core.events import (
    CallFinished,
    Compacted,
    MessageAdded,
    Noted,
    Resumed,
    RunEnded,
    RunStarted,
    Said,
    StepFailed,
    StepFinished,
)
from turncell.core.fold import CallState, RunState
from turncell.core.parts import Image, Json, Message, Part, Reasoning, Text, ToolCall, Usage
from turncell.errors import UsageError
from turncell.runtime import telemetry
from turncell.runtime.ports import Model, ModelRequest
from turncell.runtime.secrets import redactor

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
PROVIDERS = {
    "azure": "azure.ai.openai", "azure_ai": "azure.ai.inference", "bedrock": "aws.bedrock", "gemini": "gcp.gemini",
    "mistral": "mistral_ai", "vertex_ai": "gcp.vertex_ai", "watsonx": "ibm.watsonx.ai", "xai": "x_ai",
}  # fmt: skip
"""Our prefixes of models that the conventions call by another name."""
FINISH_REASONS = {"tool_calls": "tool_call", "filter": "content_filter"}
# The boundaries that the conventions ask for.
_TOKENS = [4**power for power in range(14)]
_SECONDS = [0.01 * 2**power for power in range(14)]

_NO_USAGE = Usage()

Attributes = dict[str, Any]


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    capture_content: bool = False,
) -> Callable[[], None]:
    """Trace every run of this process that begins from now on; returns what ends that.

    Without providers the global ones are used. `capture_content` puts instructions, messages, arguments and results into
    spans. Calling it again adds to it: two backends are two calls. For one agent: `Agent(telemetry=Spans(...))`.
    """
    spans = Spans(tracer_provider, meter_provider, capture_content=capture_content)
    telemetry.everywhere.append(spans)

    def uninstrument() -> None:
        """Runs that have begun are traced to their end."""
        telemetry.everywhere[:] = [one for one in telemetry.everywhere if one is not spans]

    return uninstrument


class Spans:
    """What `Agent(telemetry=...)` takes to trace the runs of that agent. Parameters are those of `instrument`."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        capture_content: bool = False,
    ) -> None:
        if tracer_provider is not None and not hasattr(tracer_provider, "get_tracer"):
            raise UsageError(f"tracer_provider is {tracer_provider!r}; use an OpenTelemetry TracerProvider")
        if meter_provider is not None and not hasattr(meter_provider, "get_meter"):
            raise UsageError(f"meter_provider is {meter_provider!r}; use an OpenTelemetry MeterProvider")
        from turncell import __version__

        self.tracer = trace.get_tracer("turncell", __version__, tracer_provider, SCHEMA_URL)
        self.captures_content = bool(capture_content)
        meter = metrics.get_meter("turncell", __version__, meter_provider, SCHEMA_URL)
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )  # fmt: skip
        self.durations = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )  # fmt: skip

    def watch(self, started: RunStarted) -> telemetry.RunWatch:
        return _RunSpans(self, started)

    def __repr__(self) -> str:
        return f"Spans(capture_content={self.captures_content})"


class _Open:
    """A span that is not ended, and the attributes of its measurement."""

    def __init__(
        self, of: Spans, name: str, kind: SpanKind, attributes: Attributes, parent: otel_context.Context | None = None
    ) -> None:
        self._of = of
        self.measured = attributes
        self._began_s = time.monotonic()
        clean = _clean(attributes)
        self.span: Span = of.tracer.start_span(redactor().text(name), kind=kind, attributes=clean, context=parent)

    def set(self, attributes: Mapping[str, Any]) -> None:
        if self.span.is_recording():
            self.span.set_attributes(_clean(attributes))

    def event(self, name: str, attributes: Mapping[str, Any]) -> None:
        if self.span.is_recording():
            self.span.add_event(name, _clean(attributes))

    def end(self, error: str | None = None, said: str | None = None, **measured: Any) -> None:
        """`error` is of low cardinality; what was `said` about it may quote anything, so it is content."""
        attributes = _clean(self.measured | measured | ({"error.type": error} if error else {}))
        if error:
            self.set({"error.type": error})
            about = redactor().text(said) if said and self._of.captures_content else None
            self.span.set_status(Status(StatusCode.ERROR, about))
        self._of.durations.record(time.monotonic() - self._began_s, attributes)
        self.span.end()

    @contextmanager
    def as_current(self) -> Iterator[None]:
        token = otel_context.attach(trace.set_span_in_context(self.span))
        try:
            yield
        finally:
            otel_context.detach(token)


class _RunSpans:
    """The spans of one run. Everything here is called on the background loop."""

    def __init__(self, of: Spans, started: RunStarted) -> None:
        self._of = of
        self._common = {"gen_ai.conversation.id": started.session_id}
        model = _of_model(started.model)
        named = {"gen_ai.agent.name": started.agent} if started.agent else {}
        self._run = _Open(
            of, f"invoke_agent {started.agent}".strip(), SpanKind.INTERNAL,
            {"gen_ai.operation.name": "invoke_agent", **model, **named},
        )  # fmt: skip
        self._run.set({
            **self._common, "turncell.run_id": started.run_id, "turncell.parent_run_id": started.parent_run_id,
            "turncell.depth": started.depth, "turncell.mode": started.mode,
        })  # fmt: skip
        if of.captures_content and started.instructions:
            self._run.set({"gen_ai.system_instructions": _json([{"type": "text", "content": started.instructions}])})
        # For the rest of the run's context, which ends with it: nothing has to be detached.
        otel_context.attach(trace.set_span_in_context(self._run.span))
        self._chat: _Open | None = None
        self._model: Attributes = {}
        self._tools: dict[str, _Open] = {}
        self._said: Message | None = None

    # What runs, where.

    def asking(self, model: Model, request: ModelRequest) -> AbstractContextManager[None]:
        self._abandon_chat()
        self._model = _of_model(model.name)
        wanted = {
            **self._common,
            "gen_ai.request.stream": True,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.request.max_tokens": request.max_tokens,
            "turncell.reasoning_effort": request.reasoning_effort,
            "turncell.tool_choice": request.tool_choice,
            "gen_ai.output.type": "json" if request.output_schema is not None else None,
            "turncell.step": request.step,
        }
        # The span of the run is current here; a run around it was when the run began.
        chat = _Open(
            self._of, f"chat {self._model['gen_ai.request.model']}", SpanKind.CLIENT,
            {"gen_ai.operation.name": "chat", **self._model}, trace.set_span_in_context(self._run.span),
        )  # fmt: skip
        chat.set(wanted)
        if self._of.captures_content and chat.span.is_recording():
            chat.set({
                "gen_ai.system_instructions": _json([{"type": "text", "content": request.instructions}])
                if request.instructions else None,
                "gen_ai.input.messages": _json([_message(message) for message in request.messages]),
                "gen_ai.tool.definitions": _json([
                    {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.schema}
                    for tool in request.tools
                ]) if request.tools else None,
            })  # fmt: skip
        self._chat, self._said = chat, None
        return chat.as_current()

    def calling(self, call: CallState) -> AbstractContextManager[None]:
        tool = _Open(
            self._of, f"execute_tool {call.name}", SpanKind.INTERNAL,
            {"gen_ai.operation.name": "execute_tool", "gen_ai.provider.name": "turncell", "gen_ai.tool.name": call.name},
            trace.set_span_in_context(self._run.span),
        )  # fmt: skip
        tool.set({
            **self._common, "gen_ai.tool.call.id": call.call_id, "gen_ai.tool.type": "function",
            "turncell.effect": call.effect, "turncell.step": call.step,
        })  # fmt: skip
        if self._of.captures_content:
            tool.set({"gen_ai.tool.call.arguments": _json(call.arguments or {})})
        self._tools[call.call_id] = tool
        return tool.as_current()

    # What came of it.

    def see(self, events: Sequence[Said]) -> None:
        for event in events:
            if isinstance(event, StepFinished):
                self._answered(event)
            elif isinstance(event, StepFailed):
                self._close_chat(event.kind, event.message, event.usage, event.cost_usd)
            elif isinstance(event, MessageAdded):
                if event.message.role == "assistant":
                    self._said = event.message
            elif isinstance(event, Noted):
                self._noted(event)
            elif isinstance(event, CallFinished):
                self._called(event)
            elif isinstance(event, Compacted):
                self._compacted(event)
            elif isinstance(event, Resumed):
                self._run.event("turncell.resumed", {})
            elif isinstance(event, RunEnded):
                self._abandon_chat()

    def end(self, state: RunState) -> None:
        self._abandon_chat()
        for tool in self._tools.values():  # its run was stopped, and the tool left behind
            tool.end("cancelled")
        self._tools.clear()
        self._run.set({
            **_usage(state.usage), "turncell.cost_usd": state.cost_usd, "turncell.status": state.status,
            "turncell.steps": len(state.steps), "turncell.calls": len(state.calls),
        })  # fmt: skip
        error = None if state.status == "completed" else state.error_kind or state.status
        self._run.end(error, state.error)

    def _answered(self, event: StepFinished) -> None:
        chat = self._chat
        if chat is None:
            return
        reason = FINISH_REASONS.get(event.finish_reason, event.finish_reason)
        answered_by = {"gen_ai.response.model": event.answered_by} if event.answered_by else {}
        chat.set({
            "gen_ai.response.finish_reasons": [reason], "gen_ai.response.time_to_first_chunk": event.first_token_s,
            "turncell.cost_basis": event.cost_basis, **answered_by,
        })  # fmt: skip
        if self._of.captures_content and self._said is not None:
            chat.set({"gen_ai.output.messages": _json([_message(self._said) | {"finish_reason": reason}])})
        self._close_chat(None, None, event.usage, event.cost_usd, **answered_by)

    def _close_chat(
        self, error: str | None, said: str | None, usage: Usage = _NO_USAGE, cost_usd: float | None = None, **more: Any
    ) -> None:
        chat, self._chat = self._chat, None
        if chat is not None:
            chat.set({**_usage(usage), "turncell.cost_usd": cost_usd})
            self._count(usage, chat.measured | more)
            chat.end(error, said, **more)

    def _abandon_chat(self) -> None:
        self._close_chat("abandoned", None)

    def _count(self, usage: Usage, attributes: Attributes) -> None:
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is not None:
                self._of.tokens.record(tokens, _clean({**attributes, "gen_ai.token.type": kind}))

    def _noted(self, event: Noted) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        if event.kind == "retry" and event.call_id is None:
            self._close_chat(str(data.get("kind", "unknown")), event.message)
        elif event.kind == "retry" and event.call_id in self._tools:
            self._tools[event.call_id].event("turncell.retry", {"turncell.attempt": data.get("attempt")})

    def _called(self, event: CallFinished) -> None:
        tool = self._tools.pop(event.call_id, None)
        if tool is None:
            self._run.event("turncell.not_run", {"gen_ai.tool.call.id": event.call_id, "turncell.status": event.status})
            return
        tool.set({"turncell.status": event.status})
        if self._of.captures_content:
            tool.set({"gen_ai.tool.call.result": event.content})
        tool.end(None if event.status == "ok" else event.status, event.content)

    def _compacted(self, event: Compacted) -> None:
        """A summary is made by model calls that nobody streams: what they cost counts, and they are one event."""
        tokens = {"turncell.tokens_before": event.tokens_before, "turncell.tokens_after": event.tokens_after}
        self._run.event("turncell.compacted", {**tokens, **_usage(event.usage)})
        if event.model:
            self._count(event.usage, {"gen_ai.operation.name": "chat", **_of_model(event.model)})


def _of_model(name: str) -> Attributes:
    """The provider, as the conventions call it, and the model as the provider does."""
    prefix, slash, rest = name.partition("/")
    if not slash:
        return {"gen_ai.provider.name": "turncell" if name == "embedded" else "_OTHER", "gen_ai.request.model": name}
    return {"gen_ai.provider.name": PROVIDERS.get(prefix, prefix), "gen_ai.request.model": rest}


def _usage(usage: Usage) -> Attributes:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def _clean(attributes: Mapping[str, Any]) -> Attributes:
    """Without secrets, and without what nobody knows: None is no value of an attribute."""
    known = redactor()
    return {
        name: known.text(value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None
    }


def _json(value: Json) -> str:
    # Redacted as values: a secret that JSON escapes would not be found in the text.
    return json.dumps(redactor().value(value), ensure_ascii=False)


def _message(message: Message) -> dict[str, Json]:
    return {"role": message.role, "parts": list(_parts(message.parts))}


def _parts(parts: Iterable[Part]) -> Iterator[dict[str, Json]]:
    for part in parts:
        if isinstance(part, Text):
            yield {"type": "text", "content": part.text}
        elif isinstance(part, Reasoning):
            yield {"type": "reasoning", "content": part.text}
        elif isinstance(part, Image):
            yield _image(part)
        elif isinstance(part, ToolCall):
            yield {"type": "tool_call", "id": part.call_id, "name": part.name, "arguments": _arguments(part)}
        else:
            yield {"type": "tool_call_response", "id": part.call_id, "response": part.content}


def _image(image: Image) -> dict[str, Json]:
    """Its address, or its type and size: bytes by the megabyte are what backends refuse spans for."""
    if image.media_type is None:
        return {"type": "uri", "modality": "image", "uri": image.data}
    size = len(image.data) * 3 // 4
    return {"type": "blob", "modality": "image", "mime_type": image.media_type, "content": "", "turncell.bytes": size}


def _arguments(call: ToolCall) -> Json:
    try:
        return json.loads(call.arguments_text)
    except (ValueError, RecursionError):
        return call.arguments_text
