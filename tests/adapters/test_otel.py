"""Spans of runs, model calls and tools: a tree with the right parents, no content unless asked, no secret ever."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from tests.runtime.pieces import Gate, Silent, until
from turncell import Agent, Hooks, ModelFailure, UsageError, otel, redact, tool
from turncell.adapters import otel as module
from turncell.testing import ScriptedModel, call

pytestmark = pytest.mark.feature("E7")


class Traced:
    """A provider of this test, and what was exported."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self.tracer = self.provider.get_tracer("test")
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.spans if span.name == name]
        return span

    @property
    def tree(self) -> list[tuple[str, str | None]]:
        """(name, name of the parent), in the order in which they began."""
        names = {span.context.span_id: span.name for span in self.spans}
        return [(span.name, names[span.parent.span_id] if span.parent else None) for span in self.spans]

    @property
    def all_text(self) -> str:
        return "\n".join(span.to_json() for span in self.spans)


@pytest.fixture
def traced() -> Traced:
    return Traced()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@tool(effect="read")
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def test_a_run_its_model_calls_and_its_tools_are_one_tree(traced: Traced) -> None:
    model = ScriptedModel([call("weather", city="Oslo"), "Rain."], name="openai/gpt-5", price=(1.0, 2.0))
    agent = Agent(model, name="clerk", tools=[weather], temperature=0.5, telemetry=otel.Spans(traced.provider))
    run = agent.run_sync("How is Oslo?")
    assert traced.tree == [
        ("invoke_agent clerk", None),
        ("chat gpt-5", "invoke_agent clerk"),
        ("execute_tool weather", "invoke_agent clerk"),
        ("chat gpt-5", "invoke_agent clerk"),
    ]
    whole, first, used, _ = traced.spans
    assert (whole.kind, first.kind, used.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.INTERNAL)
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}
    assert attributes(whole) | {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": "clerk",
        "gen_ai.conversation.id": run.session.id,
        "gen_ai.usage.input_tokens": run.usage.input_tokens,
        "turncell.run_id": run.id,
        "turncell.status": "completed",
        "turncell.cost_usd": run.cost_usd,
    } == attributes(whole)
    assert attributes(first) | {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ("tool_call",),
        "gen_ai.usage.output_tokens": run.state.steps[0].usage.output_tokens,
    } == attributes(first)
    assert attributes(used) | {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.id": run.tool_calls[0].call_id,
        "turncell.status": "ok",
    } == attributes(used)


def test_what_was_said_is_left_out_unless_it_is_asked_for(traced: Traced) -> None:
    open_ = Traced()
    model = ScriptedModel([call("weather", city="Oslo"), "It rains there."])
    tellers = [otel.Spans(traced.provider), otel.Spans(open_.provider, capture_content=True)]
    Agent(model, tools=[weather], instructions="Be brief.", telemetry=tellers).run_sync("How is the north?")
    for said in ("the north", "Oslo", "rain in", "It rains", "Be brief"):
        assert said not in traced.all_text and said in open_.all_text
    asked, answered = [span for span in open_.spans if span.name == "chat scripted"]
    assert json.loads(str(attributes(asked)["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "How is the north?"}]}
    ]
    [said] = json.loads(str(attributes(answered)["gen_ai.output.messages"]))
    assert said == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "It rains there."}],
        "finish_reason": "stop",
    }
    assert json.loads(str(attributes(open_.one("execute_tool weather"))["gen_ai.tool.call.arguments"])) == {
        "city": "Oslo"
    }


def test_a_secret_is_in_no_span(traced: Traced) -> None:
    redact('swordfish "number nine"')
    secret = 'swordfish "number nine"'

    @tool(effect="read")
    def look(word: str) -> str:
        """Look."""
        raise ValueError(f"not {word}")

    model = ScriptedModel([call("look", word=secret), ModelFailure("auth", f"{secret} is no key")])
    agent = Agent(
        model,
        name=f"of {secret}",
        tools=[look],
        instructions=secret,
        telemetry=otel.Spans(traced.provider, capture_content=True),
    )
    assert agent.run_sync(f"Try {secret}").status == "failed"
    assert "redacted: a declared secret" in traced.all_text
    assert "swordfish" not in traced.all_text


def test_the_span_that_is_current_where_the_run_was_started_is_its_parent(traced: Traced) -> None:
    agent = Agent(ScriptedModel(["Fine."] * 2), telemetry=otel.Spans(traced.provider))
    with traced.tracer.start_as_current_span("work"):
        started = agent.start("How are you?")
    with traced.tracer.start_as_current_span("other work"):
        started.result()
        agent.run_sync("And now?")
    parents = [parent for name, parent in traced.tree if name == "invoke_agent"]
    assert parents == ["work", "other work"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_code_inside_a_call_runs_in_its_span_in_a_thread_and_in_a_coroutine(traced: Traced) -> None:
    @tool(effect="read")
    def in_thread() -> str:
        """Look."""
        with traced.tracer.start_as_current_span("sync"):
            return "seen"

    @tool(effect="read")
    async def on_loop() -> str:
        """Look."""
        with traced.tracer.start_as_current_span("async"):
            return "seen"

    def asked(request: Any) -> str:
        with traced.tracer.start_as_current_span("provider"):
            return "Done."

    def hooked(use: Any) -> None:
        traced.tracer.start_span("hook").end()

    agent = Agent(
        ScriptedModel([[call("in_thread"), call("on_loop")], asked]),
        tools=[in_thread, on_loop],
        hooks=Hooks(before_tool=hooked),
        telemetry=otel.Spans(traced.provider),
    )
    agent.run_sync("Look.").raise_for_status()
    tree = dict(traced.tree)
    assert tree["sync"] == "execute_tool in_thread"
    assert tree["async"] == "execute_tool on_loop"
    assert tree["provider"] == "chat scripted"
    assert tree["hook"] == "invoke_agent"


def test_a_run_inside_a_call_is_a_child_of_that_call(traced: Traced) -> None:
    spans = otel.Spans(traced.provider)
    inner = Agent(ScriptedModel(["Nine."]), name="counter", telemetry=spans)
    outer = Agent(
        ScriptedModel([call("counter", task="Count."), "Nine."]),
        name="clerk",
        tools=[inner.as_tool(description="Counts.")],
        telemetry=spans,
    )
    outer.run_sync("How many?").raise_for_status()
    assert dict(traced.tree)["invoke_agent counter"] == "execute_tool counter"
    assert len({span.context.trace_id for span in traced.spans}) == 1


class TestFailures:
    def test_each_try_is_a_span_with_the_kind_of_its_failure(self, traced: Traced) -> None:
        busy = ModelFailure("rate_limit", "slow down, dear Anna", retry_after_s=0.01)
        model, second = (
            ScriptedModel([busy, ModelFailure("auth", "no")], name="a/one"),
            ScriptedModel(["Fine."], "b/two"),
        )
        run = Agent(model, fallbacks=[second], telemetry=otel.Spans(traced.provider)).run_sync("How are you?")
        assert run.status == "completed"
        tries = [(span.name, attributes(span).get("error.type")) for span in traced.spans[1:]]
        assert tries == [("chat one", "rate_limit"), ("chat one", "auth"), ("chat two", None)]
        assert traced.spans[1].status.status_code is StatusCode.ERROR
        assert "Anna" not in traced.all_text

    def test_a_tool_that_fails_and_a_call_that_is_denied(self, traced: Traced) -> None:
        @tool(effect="read")
        def breaks() -> str:
            """Break."""
            raise ValueError("of Anna")

        @tool
        def write() -> str:
            """Write."""
            return "written"

        model = ScriptedModel([[call("breaks"), call("write")], "Well."])
        run = Agent(model, tools=[breaks, write], telemetry=otel.Spans(traced.provider)).run_sync("Go.")
        assert [one.status for one in run.tool_calls] == ["error", "denied"]
        assert attributes(traced.one("execute_tool breaks"))["error.type"] == "error"
        assert "execute_tool write" not in dict(traced.tree)
        [event] = traced.one("invoke_agent").events
        assert event.name == "turncell.not_run" and (event.attributes or {})["turncell.status"] == "denied"
        assert "Anna" not in traced.all_text

    def test_a_cancelled_run_leaves_no_span_open(self, traced: Traced) -> None:
        silent = Silent("Well")
        run = Agent(silent, telemetry=otel.Spans(traced.provider)).start("How are you?")
        assert silent.asked.wait(60)
        run.cancel()
        run.result()
        assert attributes(traced.one("invoke_agent"))["error.type"] == "cancelled"
        assert attributes(traced.one("chat silent"))["error.type"] in ("abandoned", "cancelled")

    def test_so_does_one_that_is_cancelled_inside_a_tool(self, traced: Traced) -> None:
        gate = Gate()
        agent = Agent(ScriptedModel([call("look")]), tools=[gate.read_tool()], telemetry=otel.Spans(traced.provider))
        run = agent.start("Look.")
        gate.was_reached()
        run.cancel()
        run.result()
        assert attributes(traced.one("execute_tool look"))["error.type"] == "cancelled"

    def test_a_watcher_that_fails_harms_no_run(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken:
            def watch(self, started: Any) -> Any:
                raise RuntimeError("broken")

        class Breaks:
            def watch(self, started: Any) -> Any:
                return self

            def see(self, *_: Any) -> None:
                raise RuntimeError("broken")

            asking = calling = end = see

        run = Agent(ScriptedModel(["Fine."]), telemetry=[Broken(), Breaks()]).run_sync("How are you?")
        assert (run.status, run.text) == ("completed", "Fine.")
        assert "broken" in caplog.text


class TestOfTheProcess:
    def test_instrument_traces_every_agent_until_it_is_ended(self, traced: Traced) -> None:
        uninstrument = otel.instrument(traced.provider)
        try:
            Agent(ScriptedModel(["Fine."]), name="one").run_sync("How are you?")
            Agent(ScriptedModel(["Fine."]), name="two").run_sync("How are you?")
        finally:
            uninstrument()
        uninstrument()  # twice is no harm
        Agent(ScriptedModel(["Fine."]), name="three").run_sync("How are you?")
        agents = [span.name for span in traced.spans if span.name.startswith("invoke")]
        assert agents == ["invoke_agent one", "invoke_agent two"]

    def test_what_is_no_provider_is_said_at_once(self) -> None:
        with pytest.raises(UsageError, match="tracer_provider is 'x'"):
            otel.instrument("x")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="meter_provider is 3"):
            otel.Spans(None, 3)  # type: ignore[arg-type]

    def test_importing_turncell_does_not_import_opentelemetry(self) -> None:
        code = "import sys, turncell; turncell.Agent; print([n for n in sys.modules if n.startswith('opentelemetry')])"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_runs_of_a_session_are_one_conversation(traced: Traced) -> None:
    agent = Agent(ScriptedModel(["Fine.", "Still fine."]), telemetry=otel.Spans(traced.provider))
    session = agent.session()
    runs = [session.send(words).result().id for words in ("How are you?", "And now?")]
    found = [attributes(span) for span in traced.spans if span.name == "invoke_agent"]
    assert [one["turncell.run_id"] for one in found] == runs
    assert {one["gen_ai.conversation.id"] for one in found} == {session.id}


def test_tokens_and_durations_are_histograms() -> None:
    reader = InMemoryMetricReader()
    spans = otel.Spans(meter_provider=MeterProvider([reader]))
    model = ScriptedModel([call("weather", city="Oslo"), "Rain."], name="openai/gpt-5")
    run = Agent(model, tools=[weather], telemetry=spans).run_sync("How is Oslo?")
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    tokens = {
        point.attributes["gen_ai.token.type"]: point  # type: ignore[index]
        for point in metrics["gen_ai.client.token.usage"].data.data_points
    }
    assert (tokens["input"].sum, tokens["output"].sum) == (run.usage.input_tokens, run.usage.output_tokens)
    assert tokens["input"].count == 2 and tokens["input"].explicit_bounds[:3] == (1, 4, 16)
    durations = metrics["gen_ai.client.operation.duration"].data.data_points
    counted = {point.attributes["gen_ai.operation.name"]: point.count for point in durations}
    assert counted == {"chat": 2, "execute_tool": 1, "invoke_agent": 1}


def test_every_name_of_the_conventions_is_one_that_they_know() -> None:
    source = Path(module.__file__).read_text("utf-8")
    known = {value for name, value in vars(gen_ai_attributes).items() if name.isupper() and isinstance(value, str)}
    used = set(re.findall(r'"(gen_ai\.[\w.]+)"', source)) - {
        "gen_ai.client.token.usage", "gen_ai.client.operation.duration",
    }  # fmt: skip
    assert len(used) > 20 and used - known == set()


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP endpoint: decodes what exporters send."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Endpoint)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.shutdown()
    made.server_close()


def test_an_otlp_endpoint_gets_the_tree(collector: Collector) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "clerks"}))
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), schedule_delay_millis=600_000))
    model = ScriptedModel([call("weather", city="Oslo"), "Rain."], name="openai/gpt-5")
    Agent(model, tools=[weather], name="clerk", telemetry=otel.Spans(provider)).run_sync("How is Oslo?")
    assert provider.force_flush()
    provider.shutdown()
    until(lambda: collector.requests)
    [resource] = [spans for request in collector.requests for spans in request.resource_spans]
    [scope] = resource.scope_spans
    assert scope.scope.name == "turncell" and scope.schema_url == module.SCHEMA_URL
    by_id = {span.span_id: span.name for span in scope.spans}
    found = {(span.name, by_id.get(span.parent_span_id)) for span in scope.spans}
    assert found == {
        ("invoke_agent clerk", None),
        ("chat gpt-5", "invoke_agent clerk"),
        ("execute_tool weather", "invoke_agent clerk"),
    }
    sent = {each.key for span in scope.spans for each in span.attributes}
    assert {"gen_ai.usage.input_tokens", "gen_ai.provider.name"} <= sent and "gen_ai.input.messages" not in sent
