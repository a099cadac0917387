"""Characters that a server has cut in two, in whole runs on every wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.byte_server import byte_server, plain
from tests.adapters.streams import hear
from turncell import Agent, Run, Session
from turncell.adapters.chat_format import clean
from turncell.adapters.direct_anthropic import DirectAnthropic
from turncell.adapters.direct_chat import DirectChat
from turncell.adapters.direct_responses import DirectResponses
from turncell.adapters.halves import Halves
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.core.codec import encode
from turncell.core.deltas import CallFragment, Finished, Fragment, ReasoningFragment, assemble
from turncell.core.events import TextDelta
from turncell.core.parts import Text, ToolCall
from turncell.errors import ModelFailure
from turncell.testing import raw, serve

pytestmark = pytest.mark.feature("A2")


def chat(*texts: str) -> str:
    return "".join(f'data: {{"choices": [{{"index": 0, "delta": {{"content": {one}}}}}]}}\n\n' for one in texts) + (
        'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    )


def anthropic(*texts: str) -> str:
    def event(kind: str, more: str = "") -> str:
        return f'event: {kind}\ndata: {{"type": "{kind}"{more}}}\n\n'

    deltas = (
        event("content_block_delta", f', "index": 0, "delta": {{"type": "text_delta", "text": {one}}}') for one in texts
    )
    return (
        event("message_start", ', "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", '
              '"usage": {"input_tokens": 1, "output_tokens": 1}}')
        + event("content_block_start", ', "index": 0, "content_block": {"type": "text", "text": ""}') + "".join(deltas)
        + event("content_block_stop", ', "index": 0')
        + event("message_delta", ', "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}')
        + event("message_stop")
    )  # fmt: skip


def responses(*texts: str) -> str:
    deltas = (f'data: {{"type": "response.output_text.delta", "output_index": 0, "delta": {one}}}\n\n' for one in texts)
    return "".join(deltas) + 'data: {"type": "response.completed", "response": {"status": "completed"}}\n\n'


WIRES: dict[str, tuple[Callable[..., str], Callable[..., Any]]] = {
    "chat": (chat, lambda s: DirectChat("m", base_url=s.base_url)),
    "built by LiteLLM": (chat, lambda s: LiteLLMModel("openai/m", base_url=s.base_url, api_key="k")),
    "LiteLLM whole": (chat, lambda s: LiteLLMModel("openai/m", base_url=s.base_url, api_key="k", is_whole=True)),
    "LiteLLM's parser": (
        anthropic,
        lambda s: LiteLLMModel("anthropic/claude-sonnet-4-5", base_url=s.origin, api_key="k"),
    ),
    "anthropic": (anthropic, lambda s: DirectAnthropic("m", base_url=s.origin)),
    "responses": (responses, lambda s: DirectResponses("m", base_url=s.base_url)),
}
each_wire = pytest.mark.parametrize("wire", WIRES)


def lone(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


@each_wire
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (['"so far "', r'"\ud83d"', r'"\ude00 fine"'], "so far 😀 fine"),
        ([r'"\ud83d"', r'"\ude00"'], "😀"),
        ([r'"a\ud83db "', r'"\udc00"', r'"\ud83d\ude00 \ud83d"'], "a\ufffdb \ufffd😀 \ufffd"),
    ],
)
def test_no_half_of_a_character_is_ever_said(wire: str, pieces: list[str], text: str) -> None:
    async def main(session: Session) -> tuple[Run, str]:
        run = session.send("Hello")
        said = [event.text async for event in run if isinstance(event, TextDelta)]
        assert not any(map(lone, said))
        return run, "".join(said)

    write, make = WIRES[wire]
    with serve([raw(write(*pieces)), "Thanks."]) as server:
        session = Agent(make(server)).session()
        run, said = asyncio.run(main(session))
        assert (run.status, run.text, said) == ("completed", text, text)
        assert len(server.requests) == 1, "an answer that was paid for is not asked for again"
        assert b"\\ud" not in encode(run.state), "as the journal and the page have it"
        assert session.send("And?").result().status == "completed"
        assert text in json.dumps(server.requests[-1], ensure_ascii=False), "as the next request has it"


@each_wire
def test_what_breaks_off_inside_a_character_keeps_what_was_whole(wire: str) -> None:
    write, make = WIRES[wire]
    whole, _, _ = write('"so far "', r'"\ud83d"').partition("ud83d")
    with serve([raw(whole + 'ud83d"}}\n\n' if wire == "responses" else whole)]) as server:
        run = Agent(make(server), attempts=1).run_sync("Hello")
    assert (run.status, run.text) == ("failed", "so far ")


def hear_bytes(wire: str, data: bytes, **more: Any) -> Any:
    async def main() -> Any:
        async with byte_server(plain(data, headers="Content-Type: text/event-stream\r\n", **more)) as server:
            address = SimpleNamespace(base_url=server.url, origin=server.url.removesuffix("/v1"))
            return await hear(WIRES[wire][1](address))

    return asyncio.run(main())


@pytest.mark.parametrize("wire", ["chat", "built by LiteLLM", "anthropic", "responses"])
def test_what_is_no_utf_8_and_no_finite_number_fails_no_answer(wire: str) -> None:
    written = WIRES[wire][0]('"fine "', '"and \udcff"').replace('"delta":', '"logprob": NaN, "delta":')
    (said,), end = hear_bytes(wire, written.encode("utf-8", "surrogateescape"))
    assert isinstance(end, Finished) and said == Text("fine and \ufffd")


@pytest.mark.parametrize("wire", ["chat", "built by LiteLLM", "anthropic", "responses"])
@pytest.mark.parametrize("status", ["200 OK", "429 Too Many Requests"])
def test_an_error_that_is_cut_inside_a_character_is_understood(wire: str, status: str) -> None:
    error = r'{"type": "error", "error": {"message": "Rate limit reached for \ud83d", "code": "rate_limit_exceeded"}}'
    _, found = hear_bytes(wire, f"data: {error}\n\n".encode() if status == "200 OK" else error.encode(), status=status)
    assert isinstance(found, ModelFailure) and found.kind == "rate_limit"
    assert found.message.endswith(": Rate limit reached for \ufffd")


@given(st.lists(st.text(st.sampled_from("a😀🤔é\ud83d\ude00"), max_size=5), max_size=4), st.integers(1, 3))
def test_any_text_that_is_cut_anywhere_is_whole_again(texts: list[str], size: int) -> None:
    """Texts, thoughts and the arguments of calls side by side, by so many units of UTF-16."""
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for text in texts]

    def units(text: str) -> list[str]:
        data = text.encode("utf-16-le", "surrogatepass")
        return [data[at : at + 2 * size].decode("utf-16-le", "surrogatepass") for at in range(0, len(data), 2 * size)]

    def alternating() -> Iterator[Fragment]:
        for number, text in enumerate(texts):
            for piece in units(text):
                yield ReasoningFragment(piece) if number % 2 else piece
        calls = [
            [CallFragment(number, None, None, piece) for piece in units(text)] for number, text in enumerate(texts)
        ]
        for pieces in zip_longest(*calls):
            yield from (piece for piece in pieces if piece is not None)

    halves = Halves()
    found = [one for fragment in alternating() for one in halves.joined([fragment])] + halves.rest()
    wanted: list[Fragment] = [
        ReasoningFragment(clean(text)) if number % 2 else clean(text) for number, text in enumerate(texts) if text
    ]
    wanted += [CallFragment(number, None, None, clean(text)) for number, text in enumerate(texts) if text]
    assert by_name(assemble(found)) == by_name(assemble(wanted))
    assert all(found), "nothing is said that has nothing in it"


def by_name(parts: tuple[Any, ...]) -> list[Any]:
    return [part.arguments_text if isinstance(part, ToolCall) else part for part in parts]
