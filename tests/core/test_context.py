"""What a model is told: planned on any conversation, and told after any edits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.core.test_fold import accepted_by_providers
from tests.journals.play import Play, compacted
from turncell.core.context import (
    HEAD_CHARS,
    Compact,
    Fits,
    Prune,
    Room,
    TooLong,
    Unit,
    conversation,
    cut,
    messages_of,
    plan,
    summary_text,
    told,
)
from turncell.core.events import Compacted, Pruned
from turncell.core.fold import Edit, RunState, fold
from turncell.core.parts import Image, Message, Text, ToolCall, ToolResult

SIZES = st.sampled_from([0, 1, 40, 300, 1_000, 6_000])
STEP = st.tuples(SIZES, st.lists(SIZES, max_size=3))
RUN = st.tuples(SIZES, st.lists(STEP, max_size=8))


def count(message: Message) -> int:
    """Characters: tokens of a model that has no others."""
    return 10 + sum(len(getattr(part, "text", "") or getattr(part, "content", "")) for part in message.parts)


def size(unit: Unit) -> int:
    return sum(map(count, unit.messages))


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def step(run_id: str, number: int, text: int, results: Sequence[int]) -> Unit:
    ids = [f"{run_id}-{number}-{place}" for place in range(1, len(results) + 1)]
    calls = tuple(ToolCall(call_id, "look", "{}") for call_id in ids)
    answer = Message("assistant", (Text("a" * text), *calls))
    told_back = Message("tool", tuple(ToolResult(i, "look", "r" * n) for i, n in zip(ids, results, strict=True)))
    return Unit(run_id, number, (answer, told_back) if ids else (answer,), (run_id, number))


def units_of(runs: Sequence[tuple[int, Sequence[tuple[int, Sequence[int]]]]]) -> list[Unit]:
    units = []
    for place, (prompt, steps) in enumerate(runs, 1):
        units.append(Unit(f"run_{place}", 0, (user("p" * prompt),), (f"run_{place}", 0)))
        units += (step(f"run_{place}", number, *one) for number, one in enumerate(steps, 1))
    return units


def edit_of(decision: Prune | Compact, running: str, path: Sequence[str], summary_chars: int) -> Edit:
    where = {
        "seq": 1,
        "session_id": "s",
        "run_id": running,
        "step": 1,
        "at": 0.0,
        "tokens_before": 0,
        "tokens_after": 0,
    }
    if isinstance(decision, Prune):
        return Pruned(call_ids=decision.call_ids, head_chars=decision.head_chars, **where)
    covers = tuple(path[: path.index(decision.upto[0]) + 1])
    run_id, number = decision.upto
    return Compacted(upto_run_id=run_id, upto_step=number, covers=covers, summary="s" * summary_chars, **where)


@pytest.mark.feature("C1", "C2", "C3")
@settings(max_examples=300, deadline=None)
@given(
    st.lists(RUN, min_size=1, max_size=4), st.integers(300, 20_000), st.floats(0.3, 1.0), st.integers(1, 4), st.data()
)
def test_any_conversation_is_made_to_fit_or_is_said_to_be_too_long(
    runs: list[tuple[int, list[tuple[int, list[int]]]]], window: int, threshold: float, keep: int, data: st.DataObject
) -> None:
    raw = units_of(runs)
    path = list(dict.fromkeys(unit.run_id for unit in raw))
    running = path[-1]
    room = Room(int(window * threshold), window, int(window * threshold * 0.6), 120)
    edits: list[Edit] = []
    units = told(raw, edits, running)
    for _ in range(60):
        total = sum(map(size, units))
        decision = plan(units, [size(unit) for unit in units], room, count, keep_recent=keep)
        if isinstance(decision, Fits):
            assert decision.tokens == total <= room.hard_tokens
            break
        if isinstance(decision, TooLong):
            assert total > room.hard_tokens
            break
        edits.append(edit_of(decision, running, path, data.draw(st.integers(0, 20))))
        units = told(raw, edits, running)
        assert sum(map(size, units)) < total, "every edit saves something"
        assert accepted_by_providers(messages_of(units)), "no call is told without its result"
        floor = [unit.messages for unit in units if unit.is_floor]
        prompts = [unit.messages for unit in raw if not unit.step and unit.run_id in (path[0], running)]
        assert floor == prompts, "the floor, to the byte"
        assert units[-1].run_id == raw[-1].run_id and units[-1].step == raw[-1].step, (
            "the last unit is never summarised"
        )
    else:
        pytest.fail("planning did not end")


@pytest.mark.feature("C6")
@settings(max_examples=150, deadline=None)
@given(st.lists(RUN, min_size=1, max_size=3), st.integers(1, 6))
def test_between_two_edits_the_messages_only_grow_at_their_end(
    runs: list[tuple[int, list[tuple[int, list[int]]]]], upto: int
) -> None:
    raw = units_of(runs)
    end = raw[min(upto, len(raw) - 1)]
    path = list(dict.fromkeys(unit.run_id for unit in raw))
    edits = [edit_of(Compact(end.upto, ()), end.run_id, path, 30)]
    lengths = range(raw.index(end) + 1, len(raw) + 1)
    tellings = [messages_of(told(raw[:length], edits, raw[length - 1].run_id)) for length in lengths]
    for shorter, longer in pairwise(tellings):
        assert longer[: len(shorter)] == shorter


def test_a_result_is_cut_to_its_head_and_a_mark_and_a_second_time_not() -> None:
    result = ToolResult("c", "look", "x" * 5_000)
    once = cut(result, HEAD_CHARS)
    assert once.content == "x" * HEAD_CHARS + "\n[cut: 4,600 more characters; the whole is in the history]"
    assert cut(once, HEAD_CHARS) is once
    assert cut(short := ToolResult("c", "look", "x" * (HEAD_CHARS + 50)), HEAD_CHARS) is short


def test_images_of_a_result_are_cut_with_it_where_its_head_is_short() -> None:
    seen = ToolResult("c", "look", "[image 1]", images=(Image("iVBO", "image/png"),))
    once = cut(seen, HEAD_CHARS)
    assert (once.content, once.images) == ("[image 1]\n[cut: 1 image; the whole is in the history]", ())
    assert cut(once, HEAD_CHARS) is once and cut(seen, 1_000) is seen
    both = cut(ToolResult("c", "look", "x" * 5_000, images=seen.images * 2), HEAD_CHARS)
    assert both.content.endswith("\n[cut: 4,600 more characters and 2 images; the whole is in the history]")


@pytest.mark.feature("C3")
def test_old_results_go_first_and_as_few_as_are_enough() -> None:
    raw = units_of([(10, [(10, [6_000]), (10, [6_000]), (10, [50]), (10, [50])])])
    units = told(raw, (), "run_1")
    decision = plan(units, [size(unit) for unit in units], Room(12_000, 14_000, 8_000, 100), count)
    assert decision == Prune(("run_1-1-1",), (), HEAD_CHARS)


@pytest.mark.feature("C2")
def test_a_summary_holds_only_for_the_runs_that_it_tells_of() -> None:
    raw = units_of([(10, []), (20, [(5, [])]), (30, [])])
    summary = edit_of(Compact(("run_2", 1), ()), "run_3", ["run_1", "run_2", "run_3"], 9)
    assert user(summary_text("s" * 9)) in messages_of(told(raw, [summary], "run_3"))
    replaced = [Unit("run_9", u.step, u.messages, ("run_9", u.step)) if u.run_id == "run_2" else u for u in raw]
    assert messages_of(told(replaced, [summary], "run_3")) == messages_of(replaced)


class TestARunThatWasCompacted:
    @pytest.fixture
    def run(self) -> RunState:
        return fold(compacted().events)

    def test_each_step_is_told_what_it_was_told_then(self, run: RunState) -> None:
        second, third = (messages_of(conversation([run], number)) for number in (2, 3))
        assert "It was a dark night. " * 40 in second[2].parts[0].content  # type: ignore[union-attr]
        assert third[1].text == summary_text("The first chapter is about a dark night.")
        assert [message.role for message in third] == ["user", "user", "assistant", "tool"]
        assert third[3].parts[0].content.endswith("the whole is in the history]")  # type: ignore[union-attr]

    def test_a_passage_that_was_left_out_is_told_until_then(self, run: RunState) -> None:
        texts = [conversation([run], number)[0].messages[0].text for number in (1, 2, 3)]
        assert texts[0] == texts[1] == "[from library]\nThe book has two chapters.\n\nRead all chapters."
        assert texts[2] == "Read all chapters."

    def test_its_record_has_the_whole(self, run: RunState) -> None:
        assert sum("It was a dark night. " * 40 in (call.content or "") for call in run.calls) == 2
        assert accepted_by_providers(run.messages())

    def test_the_summary_is_paid_by_the_run(self, run: RunState) -> None:
        assert run.cost_usd == pytest.approx(0.032) and run.usage.output_tokens == 3 * 340 + 20


@pytest.mark.feature("C4")
def test_a_refused_conversation_is_sent_again_a_bounded_number_of_times() -> None:
    play = Play("go", recoveries=2)
    for _ in range(2):
        play.fail("context_length", "too long")
        assert play.state.run.status == "running"
    play.fail("context_length", "too long")
    assert (play.state.run.status, play.state.run.error_kind) == ("failed", "context_length")
