"""The scripted model: what a test tells it to say is what the runtime hears."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from turncell.adapters.scripted_model import Call, Entry, ScriptedModel, call, say, stop, think
from turncell.core.deltas import Finished, Fragment, assemble
from turncell.core.parts import Message, Reasoning, Text, ToolCall, Usage
from turncell.errors import ModelFailure, UsageError
from turncell.runtime.ports import Model, ModelRequest

pytestmark = pytest.mark.feature("G5")


def ask(text: str = "one two three") -> ModelRequest:
    return ModelRequest(messages=(Message("user", (Text(text),)),), instructions="be brief", run_id="run_1")


async def hear(model: Model, request: ModelRequest | None = None) -> list[list[Fragment]]:
    return [burst async for burst in model.stream(request or ask())]


def answer(*script: Entry) -> tuple[tuple[object, ...], Finished]:
    bursts = asyncio.run(hear(ScriptedModel(script)))
    assert all(bursts), "a burst is never empty"
    fragments = [fragment for burst in bursts for fragment in burst]
    last = fragments.pop()
    assert isinstance(last, Finished)
    assert not any(isinstance(fragment, Finished) for fragment in fragments)
    return assemble(fragments), last


def test_text_arrives_in_pieces_and_whole() -> None:
    text = "Grüße aus Tromsø 🌦, wo es heute wieder regnet."
    assert len(asyncio.run(hear(ScriptedModel([text])))) > 3
    parts, end = answer(text)
    assert parts == (Text(text),)
    assert end.finish_reason == "stop"


def test_text_thought_and_calls_mix_in_one_entry() -> None:
    parts, end = answer(
        [
            think("hm ... let me see", signature="s1"),
            "Two at once. ",
            call("add", a=1, b=[2, 3]),
            call("add", name="x"),
        ]
    )
    assert parts == (
        Reasoning("hm ... let me see", "s1"),
        Text("Two at once. "),
        ToolCall("call_1", "add", '{"a": 1, "b": [2, 3]}', "scripted_1_1"),
        ToolCall("call_2", "add", '{"name": "x"}', "scripted_1_2"),
    )
    assert end.finish_reason == "tool_calls"


def test_arguments_need_not_be_json() -> None:
    parts, _ = answer(Call("save", '{"path": '))
    assert parts == (ToolCall("call_1", "save", '{"path": ', "scripted_1_1"),)


def test_words_are_tokens_and_the_cost_is_unknown_without_a_price() -> None:
    _, end = answer("four words of answer")
    assert end.usage == Usage(input_tokens=5, output_tokens=4)
    assert (end.cost_usd, end.cost_basis) == (None, "none")


def test_a_price_gives_a_cost() -> None:
    model = ScriptedModel(["four words of answer"], price=(1_000_000, 2_000_000))
    end = asyncio.run(hear(model))[-1][-1]
    assert isinstance(end, Finished)
    assert (end.cost_usd, end.cost_basis) == (5 + 2 * 4, "user")


def test_an_exception_is_raised_where_it_stands() -> None:
    async def main() -> None:
        failure = ModelFailure("overloaded", "busy", status_code=529)
        heard = []
        with pytest.raises(ModelFailure) as caught:
            async for burst in ScriptedModel([["half", failure]]).stream(ask()):
                heard += burst
        assert caught.value is failure
        assert assemble(heard) == (Text("half"),)

    asyncio.run(main())


def test_an_answer_can_be_cut_or_end_without_an_end() -> None:
    assert answer(["half an ans", stop("length")])[1].finish_reason == "length"
    bursts = asyncio.run(hear(ScriptedModel([["half", stop(None)]])))
    assert not any(isinstance(fragment, Finished) for burst in bursts for fragment in burst)


def test_a_function_answers_from_the_request() -> None:
    async def later(request: ModelRequest) -> Entry:
        return f"You said: {request.messages[-1].text}"

    assert answer(lambda request: later)[0] == (Text("You said: one two three"),)


def test_one_function_answers_every_call() -> None:
    model = ScriptedModel(lambda request: request.messages[0].text.upper())

    async def main() -> list[list[list[Fragment]]]:
        return await asyncio.gather(*(hear(model, ask(text)) for text in ("a", "b", "c")))

    assert [assemble(burst[0])[0] for burst in asyncio.run(main())] == [Text("A"), Text("B"), Text("C")]


def test_a_script_that_runs_out_names_the_step() -> None:
    async def main() -> None:
        model = ScriptedModel(["only one"])
        await hear(model)
        with pytest.raises(
            ModelFailure,
            match=r"'scripted': the script has 1 entry, but this is model call 2, for step 7 of run 'run_9'",
        ) as caught:
            await hear(model, ModelRequest(messages=(), run_id="run_9", step=7))
        assert caught.value.kind == "bad_request"
        assert len(model.requests) == 2

    asyncio.run(main())


def test_a_script_with_entries_left_is_not_complete() -> None:
    model = ScriptedModel(["one", "two"])
    asyncio.run(hear(model))
    with pytest.raises(AssertionError, match=r"1 of 2 entries.*'two'"):
        model.assert_complete()
    asyncio.run(hear(model))
    model.assert_complete()


def test_delays_are_kept_and_can_be_cancelled() -> None:
    async def main() -> float:
        began = time.monotonic()
        await hear(ScriptedModel([say("abcd", delay_s=0.01, chunk=1)]))
        took = time.monotonic() - began
        task = asyncio.ensure_future(hear(ScriptedModel(["never"], delay_s=3600)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return took

    assert 0.04 <= asyncio.run(main()) < 20


def test_it_is_a_model() -> None:
    assert isinstance(ScriptedModel([]), Model)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"script": "Fine."}, "the script is 'Fine.'; use a list of entries, one for each model call"),
        ({"script": call("weather")}, "the script is Call"),
        ({"script": {"a": "b"}}, "the script is {'a': 'b'}"),
        ({"script": None}, "the script is None"),
        ({"script": [], "price": 3}, "price is 3; use US dollars per million tokens, (input, output)"),
        ({"script": [], "price": (3,)}, "price is (3,)"),
        ({"script": [], "name": 3}, "name is 3; use a text"),
        ({"script": [], "delay_s": -1}, "delay_s is -1"),
    ],
)
def test_what_is_no_script_is_refused_when_it_is_given(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        ScriptedModel(**given)
    assert told in str(caught.value)


@pytest.mark.parametrize("entry", [3, None, ["Fine.", 3], b"x"])
def test_an_entry_that_is_no_answer_is_named(entry: Any) -> None:
    with pytest.raises(UsageError, match=r"entry 1 of the script has .*, which is no answer"):
        asyncio.run(hear(ScriptedModel([entry])))
