"""What every model must do, as checks that run against a real one. For people who write a model of their own:

>>> from turncell.testing import ScriptedModel, check_model
>>> check_model(lambda: ScriptedModel(lambda request: "Hello. " * 20))

`make()` builds the model, or a new one of the same, each time; it must answer any request with some text, as most do. The
more there is to say, the more can be checked: an answer that comes whole in one burst cannot be broken off. In a test
suite, take the clauses one by one, so that a failure reads as a sentence:

    @pytest.mark.parametrize("clause", MODEL_CLAUSES, ids=lambda clause: clause.__name__)
    def test_my_model(clause): clause(make)

Clauses that need a provider which misbehaves have to be told how: `check_failure(make)` takes a model whose provider
refuses, `check_close(make, is_closed)` one whose answer is long, and a way to ask the provider whether anybody listens.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias, cast, get_args

from turncell.core.deltas import Finished, Fragment
from turncell.core.events import CostBasis
from turncell.core.parts import Image, Message, Reasoning, Text, ToolCall, ToolResult
from turncell.errors import FailureKind, ModelFailure, UsageError
from turncell.runtime.model_call import odd
from turncell.runtime.ports import TOOL_CHOICES, Capabilities, Model, ModelRequest, ToolSpec, capabilities_of

MakeModel: TypeAlias = Callable[[], Model]
ModelClause: TypeAlias = Callable[[MakeModel], None]
PATIENCE_S = 60.0
"""For one answer. A model that is slower is not to be told from one that hangs."""
SOON_S = 1.0
"""Within which a connection is closed."""

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
_ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {"type": "number"}}})
_NOTHING = ToolSpec("now", "", {"type": "object", "properties": {}})


def check_model(make: MakeModel) -> None:
    """Check a model of your own against the contract of `turncell.runtime.ports.Model`.

    `make` builds it: `check_model(lambda: MyModel())`. AssertionError names the clause that does not hold; UsageError if
    `make` does not build a model.
    """
    _check_make(make)
    for clause in MODEL_CLAUSES:
        _hold(clause, make)


def check_failure(make: MakeModel, *kinds: FailureKind) -> None:
    """Check that a model whose provider fails says so with a ModelFailure, of one of `kinds` if there are any."""
    _check_make(make)

    async def main(model: Model) -> None:
        try:
            await _hear(model, _ask())
        except Exception as error:
            found = error
        else:
            raise AssertionError("the provider failed, and nothing was raised")
        if not isinstance(found, ModelFailure):
            raise AssertionError(f"a failure came as {found!r}, not as a ModelFailure") from found
        assert found.message.strip(), "the ModelFailure has no words"
        assert found.kind in get_args(FailureKind), f"the ModelFailure is of a kind that is none: {found.kind!r}"
        assert not kinds or found.kind in kinds, f"the kind: expected one of {kinds}, found {found.kind!r}"

    _run(make, main)


def check_close(make: MakeModel, is_closed: Callable[[], bool]) -> None:
    """Check that a model lets go of its provider within a second of being closed, and of being cancelled.

    Its answer has to go on for longer than that. `is_closed` says whether the provider has nobody left who listens.
    """
    _check_make(make)

    async def let_go(how: str) -> None:
        until = time.monotonic() + SOON_S
        while not await asyncio.to_thread(is_closed):
            if time.monotonic() > until:
                raise _TooLate(f"the connection is still open {SOON_S:g} s after the stream was {how}")
            await asyncio.sleep(0.01)

    async def closed(model: Model) -> None:
        stream = _stream(model, _ask())
        await anext(stream)
        await cast(Any, stream).aclose()
        await let_go("closed")

    async def cancelled(model: Model) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in _stream(model, _ask()):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=SOON_S)
        if not done:
            raise _TooLate("a stream that was cancelled went on")
        assert task.cancelled(), "a stream that was cancelled went on"
        await let_go("cancelled")

    for main in (closed, cancelled):
        _run(make, main)


def it_has_a_name_and_what_it_can_do_has_the_right_shape(make: MakeModel) -> None:
    model = make()
    assert isinstance(cast(object, model.name), str) and model.name.strip(), f"name is {model.name!r}"
    assert model.name == make().name, "the name changes from one to the next"
    if hasattr(model, "capabilities"):
        found = model.capabilities
        assert isinstance(found, Capabilities), f"capabilities is {found!r}, not Capabilities(...)"
        for name in ("context_tokens", "max_output_tokens"):
            count = getattr(found, name)
            assert count is None or (isinstance(count, int) and count > 0), f"{name} is {count!r}"
    price = getattr(model, "price_usd", None)
    if callable(price):
        usd = price(1000, 100)
        assert usd is None or (isinstance(usd, int | float) and 0 <= usd < math.inf), f"price_usd(1000, 100) is {usd!r}"


def bursts_are_lists_of_fragments_and_never_empty(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        async with aclosing(cast(Any, _stream(model, _ask()))) as stream:
            async for burst in stream:
                assert isinstance(burst, list), f"a burst is a list; found {burst!r}"
                assert burst, "a burst is empty"
                for fragment in burst:
                    _check_fragment(fragment)

    _run(make, main)


def exactly_one_finished_comes_and_it_is_the_last(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        fragments = await _hear(model, _ask())
        ends = [fragment for fragment in fragments if isinstance(fragment, Finished)]
        assert len(ends) == 1, f"expected one Finished, found {len(ends)}"
        assert fragments[-1] is ends[0], "something follows Finished"

    _run(make, main)


def an_answer_has_something_in_it(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        assert len(await _hear(model, _ask())) > 1, "nothing came but the end"

    _run(make, main)


def one_model_answers_again_and_again(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        for _ in range(3):
            _check_whole(await _hear(model, _ask()))

    _run(make, main)


def several_streams_stand_open_side_by_side(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        streams = [_stream(model, _ask(f"Number {number}.")) for number in range(4)]
        heard: list[list[Fragment]] = [[] for _ in streams]
        open_ones = list(range(len(streams)))
        while open_ones:
            for number in list(open_ones):
                try:
                    heard[number] += await anext(streams[number])
                except StopAsyncIteration:
                    open_ones.remove(number)
        for fragments in heard:
            _check_whole(fragments)

    _run(make, main)


def a_stream_that_is_left_leaves_the_model_as_it_was(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        for _ in range(3):
            stream = _stream(model, _ask())
            await anext(stream)
            began = time.monotonic()
            await cast(Any, stream).aclose()
            if time.monotonic() - began > SOON_S:
                raise _TooLate(f"closing took more than {SOON_S:g} s")
        _check_whole(await _hear(model, _ask()))

    _run(make, main)


def a_stream_that_was_never_begun_costs_nothing(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        await cast(Any, model.stream(_ask())).aclose()
        _check_whole(await _hear(model, _ask()))

    _run(make, main)


def cancelling_the_reader_ends_it_at_once(make: MakeModel) -> None:
    async def main(model: Model) -> None:
        task = asyncio.create_task(_hear(model, _ask()))
        await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=SOON_S)
        if not done:
            raise _TooLate(f"a stream that was cancelled went on for more than {SOON_S:g} s")
        if not task.cancelled() and (error := task.exception()) is not None:
            raise AssertionError(f"a cancelled stream raised {error!r} in place of CancelledError") from error
        _check_whole(await _hear(model, _ask()))

    _run(make, main)


def it_does_not_hold_up_the_loop(make: MakeModel) -> None:
    """All runs of a process live on one loop: who blocks it, blocks them all. Half a second is forgiven."""

    async def main(model: Model) -> None:
        await _hear(model, _ask())  # what is imported, or connected, at first
        longest_s, is_over = 0.0, False

        async def watch() -> None:
            nonlocal longest_s
            while not is_over:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest_s = max(longest_s, time.monotonic() - before)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await _hear(model, _ask())
        is_over = True
        await watching
        if longest_s > 0.5:
            raise _TooLate(f"the loop stood still for {longest_s:.2f} s")

    _run(make, main)


def lone_surrogates_and_control_characters_are_no_failure(make: MakeModel) -> None:
    odd = "\ud83d a \x00 b \udc00 \x1b[0m"
    _answers(
        make, _ask(odd, instructions=odd, tools=(ToolSpec("add", odd, _ADD.schema),)), _ask(odd, history=_called(odd))
    )


def tools_may_be_none_or_many_and_may_take_nothing(make: MakeModel) -> None:
    many = tuple(ToolSpec(f"tool_{number}", "One of many.", _ADD.schema) for number in range(60))
    _answers(make, _ask(tools=()), _ask(tools=(_NOTHING,)), _ask(tools=many))


def calls_may_have_no_arguments_no_provider_id_and_odd_ids(make: MakeModel) -> None:
    calls = (
        ToolCall("run-1-1-1", "now", ""),
        ToolCall("run-1-1-2", "now", "{}", "functions.now:0"),
        ToolCall("run-1-1-3", "add", '{"a": 1}', "same"),
        ToolCall("run-1-1-4", "add", "{}", "same"),
    )
    results = tuple(ToolResult(one.call_id, one.name, "", one.call_id.endswith("4"), one.provider_id) for one in calls)
    history = (Message("assistant", calls), Message("tool", results))
    _answers(make, _ask(tools=(_ADD, _NOTHING), history=history), _ask(history=history))


def a_history_may_be_long_and_of_any_shape(make: MakeModel) -> None:
    turns = [
        part
        for number in range(100)
        for part in (
            Message("user", (Text(f"Question {number}? " * 20),)),
            Message("assistant", (Text(f"Answer {number}. " * 20),)),
        )
    ]
    other = (
        Message("user", (Text("One."),)),
        Message("user", (Text("And another."),)),
        Message("assistant", (Reasoning("not sealed"), Reasoning("", "nobody:c2VhbA=="), Text(""), Text("Half an"))),
        Message("assistant", (Text("swer"),), is_partial=True),
    )
    _answers(make, _ask(history=tuple(turns)), _ask(history=other), _ask(history=_called("x" * 100_000)))


def images_are_no_failure_unless_it_says_that_it_sees_none(make: MakeModel) -> None:
    if capabilities_of(make()).images is False:
        return  # it is never sent one
    seen = Image(_PNG, "image/png")
    history = (
        Message("assistant", (ToolCall("run-1-1-1", "look", "{}", "call_1"),)),
        Message("tool", (ToolResult("run-1-1-1", "look", "An image.", provider_id="call_1", images=(seen,)),)),
        Message("assistant", (Text("Here:"), seen)),
    )
    asked = ModelRequest(messages=(Message("user", (Text("What is this?"), seen)),))
    _answers(make, asked, _ask(history=history))


def an_output_schema_is_no_failure_if_it_says_that_it_holds_one(make: MakeModel) -> None:
    if capabilities_of(make()).schema:
        schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
        _answers(make, _ask(output_schema=schema))


def a_tool_choice_is_no_failure(make: MakeModel) -> None:
    """A model need not heed it."""
    _answers(make, *(_ask(tools=(_ADD, _NOTHING), tool_choice=choice) for choice in (*TOOL_CHOICES, "now")))


MODEL_CLAUSES: tuple[ModelClause, ...] = (
    it_has_a_name_and_what_it_can_do_has_the_right_shape,
    bursts_are_lists_of_fragments_and_never_empty,
    exactly_one_finished_comes_and_it_is_the_last,
    an_answer_has_something_in_it,
    one_model_answers_again_and_again,
    several_streams_stand_open_side_by_side,
    a_stream_that_is_left_leaves_the_model_as_it_was,
    a_stream_that_was_never_begun_costs_nothing,
    cancelling_the_reader_ends_it_at_once,
    it_does_not_hold_up_the_loop,
    lone_surrogates_and_control_characters_are_no_failure,
    tools_may_be_none_or_many_and_may_take_nothing,
    calls_may_have_no_arguments_no_provider_id_and_odd_ids,
    a_history_may_be_long_and_of_any_shape,
    images_are_no_failure_unless_it_says_that_it_sees_none,
    an_output_schema_is_no_failure_if_it_says_that_it_holds_one,
    a_tool_choice_is_no_failure,
)


def _hold(clause: ModelClause, make: MakeModel) -> None:
    try:
        clause(make)
    except Exception as error:
        words = clause.__name__.replace("_", " ")
        raise AssertionError(f"the model does not hold this: {words}\n{inspect.getdoc(clause) or ''}\n{error!r}") from error  # fmt: skip


def _check_make(make: object) -> None:
    """The mistake of a caller is not to be told as one of the model."""
    if not callable(make):
        raise UsageError(f"make is {make!r}; use a function that builds the model: check_model(lambda: MyModel())")
    model = make()
    missing = [name for name in ("name", "stream") if not hasattr(model, name)]
    if missing:
        raise UsageError(f"make() returned {model!r}, which is no model: it has no {', '.join(missing)}")
    if inspect.iscoroutinefunction(model.stream):
        raise UsageError(
            f"{type(model).__name__}.stream is a coroutine function; it yields: `async def` with `yield` in it"
        )


class _TooLate(AssertionError):
    """It took too long. Once may be the machine's fault."""


def _run(make: MakeModel, main: Callable[[Model], Any]) -> None:
    """On a loop of its own, which one model has for good. What came too late is tried once more."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main(make())

    try:
        asyncio.run(bounded())
    except _TooLate:
        asyncio.run(bounded())


def _ask(text: str = "Say something.", *, history: tuple[Message, ...] = (), **options: Any) -> ModelRequest:
    messages = (Message("user", (Text("Begin."),)), *history) if history else ()
    return ModelRequest(messages=(*messages, Message("user", (Text(text),))), run_id="run_1", **options)


def _called(content: str) -> tuple[Message, ...]:
    call = ToolCall("run-1-1-1", "add", '{"a": 1}', "call_1")
    return (
        Message("assistant", (Text(content), call)),
        Message("tool", (ToolResult("run-1-1-1", "add", content, provider_id="call_1"),)),
    )


def _stream(model: Model, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
    return aiter(model.stream(request))


async def _hear(model: Model, request: ModelRequest) -> list[Fragment]:
    fragments: list[Fragment] = []
    async with aclosing(cast(Any, _stream(model, request))) as stream:
        async for burst in stream:
            fragments += burst
    return fragments


def _answers(make: MakeModel, *requests: ModelRequest) -> None:
    async def main(model: Model) -> None:
        for request in requests:
            _check_whole(await _hear(model, request))

    _run(make, main)


def _check_whole(fragments: list[Fragment]) -> None:
    assert fragments and isinstance(fragments[-1], Finished), "an answer has no end"
    for fragment in fragments:
        _check_fragment(fragment)


def _check_fragment(fragment: object) -> None:
    wrong = odd([fragment])  # what a run refuses
    assert wrong is None, wrong
    if isinstance(fragment, Finished):
        assert fragment.cost_basis in get_args(CostBasis), f"a fragment with values of a wrong kind: {fragment!r}"
