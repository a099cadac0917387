"""The server that `turncell.testing` has for users' own tests: three wire formats, one script, faults on demand."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.adapters.streams import ask, hear
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_responses import DirectResponses
from turncell.core.parts import Part, Reasoning, Text, ToolCall, Usage
from turncell.errors import UsageError
from turncell.runtime.ports import Model
from turncell.testing import ProviderServer, Reply, call, fault, raw, reply, serve

pytestmark = pytest.mark.feature("G5")

PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/responses")
MODELS: tuple[Callable[[ProviderServer], Model], ...] = (
    lambda server: DirectAnthropic("m", base_url=server.origin),
    lambda server: DirectResponses("m", base_url=server.base_url),
)


def post(server: ProviderServer, path: str, **body: Any) -> Any:
    data = json.dumps({"model": "m", **body}).encode()
    return urllib.request.urlopen(server.origin + path, data, timeout=10)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("options", [{}, {"chunk_bytes": 3}, {"has_crlf": True}, {"has_comments": True}])
def test_one_reply_is_the_same_in_every_format(
    make: Callable[[ProviderServer], Model], options: dict[str, Any]
) -> None:
    usage = Usage(20, 10, cache_read_tokens=5)
    one = reply(
        "Grüße 🌦", reasoning="hm, 考え", signature="c2VhbA==", calls=[call("add", a=1), call("sub", b="ü")],
        usage=usage, **options,
    )  # fmt: skip
    with serve([one]) as server:
        parts, end = asyncio.run(hear(make(server)))
    thought, *rest = parts
    assert isinstance(thought, Reasoning)
    assert (thought.text, (thought.signature or "").split(":")[-1]) == ("hm, 考え", "c2VhbA==")
    expected: list[Part] = [Text("Grüße 🌦"), ToolCall("call_1", "add", '{"a": 1}', "call_1")]
    assert rest == [*expected, ToolCall("call_2", "sub", '{"b": "ü"}', "call_2")]
    assert end.finish_reason == "tool_calls"  # type: ignore[union-attr]
    assert end.usage.input_tokens == 20  # type: ignore[union-attr]
    assert end.usage.cache_read_tokens == 5  # type: ignore[union-attr]


def test_calls_are_replies_as_in_the_script_of_a_model() -> None:
    with serve([call("add", a=1), [call("add", a=1), call("sub", b=2)]]) as server:
        for names in (["add"], ["add", "sub"]):
            parts, _ = asyncio.run(hear(MODELS[0](server)))
            assert [part.name for part in parts if isinstance(part, ToolCall)] == names
    with pytest.raises(UsageError, match="a provider answers with a text"), serve([3]):  # type: ignore[list-item]
        pass


@pytest.mark.parametrize("path", PATHS)
def test_who_does_not_ask_for_a_stream_gets_one_value(path: str) -> None:
    with serve(["Hello"]) as server:
        whole = json.load(post(server, path))
    texts = {
        "/v1/chat/completions": lambda: whole["choices"][0]["message"]["content"],
        "/v1/messages": lambda: whole["content"][0]["text"],
        "/v1/responses": lambda: whole["output"][0]["content"][0]["text"],
    }
    assert texts[path]() == "Hello"


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_has_the_providers_own_body(path: str) -> None:
    with serve([fault(429, "slow down", retry_after_s=2)]) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, path, stream=True)
        body = json.load(caught.value)
        caught.value.close()
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "2")
    assert body["error"]["message"] == "slow down"
    assert (body.get("type"), body["error"]["type"]) == (
        ("error", "rate_limit_error") if path == "/v1/messages" else (None, "error")
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [1, 3])
def test_an_error_comes_after_so_many_events(path: str, count: int) -> None:
    with serve([reply("some longer text", errors_after=count, error="it broke")]) as server:
        events = [line for line in post(server, path, stream=True).read().decode().split("\n\n") if line]
    assert len(events) == count + 1
    assert "it broke" in events[-1]
    assert events[-1].startswith("event: error" if path != "/v1/chat/completions" else "data: ")


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_may_have_no_end(path: str) -> None:
    with serve(["Hi", reply("Hi", has_end=False, has_done=False)]) as server:
        whole, cut = (post(server, path, stream=True).read() for _ in range(2))
    assert whole.startswith(cut)
    assert whole != cut


def test_requests_are_kept_for_assertions_and_a_function_may_answer() -> None:
    numbers = itertools.count(1)

    def script(body: dict[str, Any]) -> Reply | str:
        return raw("data: as it is\n\n") if body["model"] == "raw" else f"answer {next(numbers)}"

    with serve(script) as server:
        assert json.load(post(server, "/v1/messages"))["content"][0]["text"] == "answer 1"
        assert post(server, "/v1/messages", model="raw", stream=True).read() == b"data: as it is\n\n"
        assert [body["model"] for body in server.requests] == ["m", "raw"]
        assert server.paths == ["/v1/messages"] * 2
        assert server.headers[0]["content-type"]


def test_a_script_that_is_too_short_says_so() -> None:
    with serve([]) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, "/v1/responses")
        assert "the script has 0 replies, but this is request 1" in caught.value.read().decode()
        caught.value.close()


def test_a_slow_reply_takes_its_time() -> None:
    async def main(server: ProviderServer) -> int:
        return len([burst async for burst in DirectAnthropic("m", base_url=server.origin).stream(ask())])

    with serve([reply("12345678" * 4, delay_s=0.02)]) as server:
        assert asyncio.run(main(server)) >= 5


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ProviderServer("Fine."), "the script is 'Fine.'; use a list with a reply for each request"),
        (lambda: ProviderServer(None), "the script is None"),  # type: ignore[arg-type]
        (lambda: reply(calls=call("look")), r"calls are Call\(.*; use a list of call"),  # type: ignore[arg-type]
        (lambda: reply(calls="look"), "calls are 'look'"),  # type: ignore[arg-type]
    ],
)
def test_a_text_is_no_list_of_replies_or_calls(make: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make()
