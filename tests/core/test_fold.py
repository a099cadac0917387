"""The fold: the same events always give the same run, live or from the journal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.journals import play
from tests.journals.play import (
    HERE,
    PLAYS,
    Play,
    approved,
    asked_again,
    cancelled,
    closed,
    edited,
    held_elsewhere,
    invalid,
    queued,
    steered,
    streaming,
    two_requests,
)
from turncell.core import codec
from turncell.core.events import MessageAdded, PartialSaved, Recorded, RunEnded, StepStarted
from turncell.core.fold import CallState, RunState, StepState, apply, fold, snapshot, step_messages
from turncell.core.loop_state import LoopState, Turn
from turncell.core.parts import Message, ToolCall, ToolResult
from turncell.core.reducer import reduce
from turncell.core.signals import Signal
from turncell.notebook.wire import RunView


@pytest.mark.parametrize("make", [*PLAYS, asked_again, held_elsewhere], ids=lambda make: make.__name__)
class TestEveryPlay:
    def test_folding_the_recorded_events_gives_the_state_of_the_loop(self, make: type[Play]) -> None:
        play = make()
        recorded = [event for event in play.events if isinstance(event, Recorded)]
        assert fold(recorded) == play.state.run

    def test_the_journal_survives_json(self, make: type[Play]) -> None:
        recorded = [event for event in make().events if isinstance(event, Recorded)]
        assert [codec.decode(codec.encode(event)) for event in recorded] == recorded

    def test_watching_the_deltas_gives_the_live_state(self, make: type[Play]) -> None:
        play = make()
        assert snapshot(fold(play.events)) == snapshot(play.state.live())

    def test_the_kept_journal_is_what_the_reducer_writes(self, make: type[Play]) -> None:
        play = make()
        kept = json.loads((Path(HERE) / f"{make.__name__}.json").read_text())
        now = {"events": play.events, "snapshot": snapshot(fold(play.events))}
        assert kept == json.loads(codec.encode(now)), "run `python -m tests.journals.play` if the change is meant"

    def test_a_snapshot_has_the_shape_of_the_wire(self, make: type[Play]) -> None:
        TypeAdapter(RunView).validate_python(codec.decode_json(codec.encode(snapshot(fold(make().events)))))

    def test_seq_has_no_gaps(self, make: type[Play]) -> None:
        recorded = [event for event in make().events if isinstance(event, Recorded)]
        assert [event.seq for event in recorded] == list(range(1, len(recorded) + 1))


def accepted_by_providers(messages: tuple[Message, ...]) -> bool:
    """Each assistant message with calls is followed by exactly their results, in order."""
    expected: list[str] = []
    for message in messages:
        results = [part.call_id for part in message.parts if isinstance(part, ToolResult)]
        if results != expected:
            return False
        expected = [part.call_id for part in message.parts if isinstance(part, ToolCall)]
        for part in message.parts:
            if isinstance(part, ToolCall) and not isinstance(json.loads(part.arguments_text), dict):
                return False
    return not expected


@pytest.mark.parametrize("make", [*PLAYS, asked_again], ids=lambda make: make.__name__)
def test_providers_accept_the_messages_of_every_run(make: type[Play]) -> None:
    assert accepted_by_providers(fold(make().events).messages())


def test_history_and_model_see_the_edited_call_and_the_record_keeps_the_original() -> None:
    run = fold(edited().events)
    call = run.calls[0]
    assert call.arguments == {"command": "rm -rf exports/tmp"}
    assert call.proposed_arguments == {"command": "rm -rf exports"}
    sent = [part for message in run.messages() for part in message.parts if isinstance(part, ToolCall)]
    assert json.loads(sent[0].arguments_text) == {"command": "rm -rf exports/tmp"}


def test_the_cost_is_unknown_as_soon_as_one_step_is() -> None:
    assert fold(edited().events).cost_usd is None
    assert fold(approved().events).cost_usd == pytest.approx(0.03)


def test_a_denial_tells_the_model_the_reason() -> None:
    denied, failed = fold(two_requests().events).calls
    assert denied.status == "denied" and "not to a" in (denied.content or "")
    assert failed.status == "error" and "no route" in (failed.content or "")


def test_arguments_that_are_no_json_never_run_and_reach_the_model_as_an_object() -> None:
    run = fold(invalid().events)
    assert run.calls[0].status == "invalid"
    sent = [part for message in run.messages() for part in message.parts if isinstance(part, ToolCall)]
    assert json.loads(sent[0].arguments_text) == {"unreadable_arguments": '{"to": '}


@pytest.mark.feature("A11")
def test_a_cancelled_answer_is_kept_and_marked_as_partial() -> None:
    run = fold(cancelled().events)
    message = run.steps[-1].message
    assert run.status == "cancelled" and message is not None and message.is_partial
    assert run.text.startswith("Once upon a time.")


def test_text_on_the_screen_for_a_second_is_in_the_journal() -> None:
    recorded = [event for event in cancelled().events if isinstance(event, PartialSaved)]
    assert recorded and "".join(event.text for event in recorded).startswith("Once upon a time.")


def test_a_saved_piece_taken_twice_changes_nothing() -> None:
    play = streaming()
    piece = PartialSaved(
        seq=9,
        session_id="ses_1",
        run_id="run_1",
        step=1,
        at=1.0,
        kind="text",
        block=1,
        offset=0,
        text="Once upon",
    )
    assert fold([*play.events, piece]).text == "Once upon"


def test_an_ended_run_has_one_terminal_event_and_it_is_the_last() -> None:
    for make in PLAYS:
        ends = [event for event in make().events if isinstance(event, RunEnded)]
        recorded = [event for event in make().events if isinstance(event, Recorded)]
        assert len(ends) <= 1 and (not ends or (recorded[-1] is not None and isinstance(recorded[-1], RunEnded)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"type":"Nothing"}', "type is 'Nothing', which this turncell does not know"),
        ('{"seq":1}', "there is no type in {'seq': 1}"),
        ('{"type":"RunEnded","seq":"one"}', "RunEnded.seq is 'one': input should be a valid integer"),
        ('{"type":"RunEnded","seq":1}', "RunEnded.session_id is missing"),
        ("[1]", "[1]: input should be a valid dictionary"),
        ('{"type":', "no JSON: Expecting value"),
        ("[" * 100_000, "no JSON: nested too deeply"),
    ],
)
def test_data_that_is_no_event_is_refused_with_the_one_thing_that_is_wrong(data: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as caught:
        codec.decode(data)
    assert "ArgumentsDelta" not in str(caught.value), "the names of all events tell nobody anything"


def test_integers_of_any_size_survive_the_journal() -> None:
    assert codec.decode_json(codec.encode({"n": 2**70, "m": -(2**63)})) == {"n": 2**70, "m": -(2**63)}


def test_the_time_of_thinking_is_measured() -> None:
    first = fold(approved().events).steps[0]
    assert first.reasoning_s == pytest.approx(0.2)
    assert fold(approved().events).steps[1].reasoning_s is None


def test_a_lone_surrogate_survives_the_journal() -> None:
    play = Play("odd \ud800 text")
    first = [event for event in play.events if isinstance(event, Recorded)]
    assert [codec.decode(codec.encode(event)) for event in first] == first


@pytest.mark.feature("A5")
def test_messages_in_between_reach_the_model_where_they_were_read() -> None:
    run = fold(steered().events)
    texts = [message.text for message in run.messages() if message.role in ("user", "assistant") and message.text]
    assert texts == [
        "Mail Ana and Bo.",
        "Not Bo, he is on leave.",
        "Ana has it.",
        "Tell me in Norwegian.",
        "Ana har fått den.",
    ]
    assert [call.status for call in run.calls] == ["ok", "skipped"] and not run.queued


@pytest.mark.feature("A5")
def test_a_message_that_was_not_read_is_queued_and_not_told() -> None:
    run = fold(queued().events)
    assert [steered.message.text for steered in run.queued] == ["Five epochs will do."]
    assert "epochs will do" not in " ".join(message.text for message in run.messages())


@pytest.mark.feature("B10")
def test_a_running_call_may_ask_again_and_goes_on_after_each_answer() -> None:
    call = fold(asked_again().events).calls[0]
    assert call.requests == 3 and call.waited_s == pytest.approx(0.3)
    assert call.request is not None and (call.request.question, call.request.answer) == ("Deeper?", "deny")
    # What a person changed was the sub-agent's call, not this one.
    assert call.arguments == {"topic": "papers"} and call.proposed_arguments is None


def test_closing_words_are_the_text_of_the_run() -> None:
    assert fold(closed().events).text == "That is enough for <b>today</b>."


@pytest.mark.parametrize("make", PLAYS)
def test_the_state_before_an_event_stays_as_it_was(make: type[Play]) -> None:
    """Whoever holds one reads it from any thread, while the run goes on."""
    state, before = RunState(), []
    for event in make().events:
        before.append((state, vars(state).copy()))
        state = apply(state, event)
    assert before and all(vars(one) == told for one, told in before)


@pytest.mark.parametrize("make", PLAYS)
def test_the_state_before_a_signal_stays_as_it_was(make: type[Play], monkeypatch: pytest.MonkeyPatch) -> None:
    """A transition changes its own copy more than once; whoever holds the state of before must not see it."""
    before = []

    def watched(state: LoopState, signal: Signal) -> object:
        before.append((state, vars(state).copy()))
        return reduce(state, signal)

    monkeypatch.setattr(play, "reduce", watched)
    make()
    assert before and all(vars(one) == told for one, told in before)


def test_a_transition_knows_the_names_of_the_state() -> None:
    turn = Turn(LoopState(), 0.0)
    turn.set(attempt=2)
    assert turn.state.attempt == 2 and LoopState().attempt == 1
    with pytest.raises(KeyError, match="no field"):
        turn.set(atempt=3)
    with pytest.raises(KeyError, match="no field"):
        Turn(LoopState(), 0.0).set(atempt=3)


def test_a_new_step_and_a_new_call_are_what_their_classes_make() -> None:
    run = Play("go")
    begun = run.events[-1]
    assert isinstance(begun, StepStarted) and run.state.run.steps == (StepState(1, begun.model, begun.at),)
    run.call("mail", to="ana")
    run.finish("tool_calls")
    step = run.state.run.steps[0]
    said = next(event for event in reversed(run.events) if isinstance(event, MessageAdded))
    assert step.calls == (
        CallState(step.calls[0].call_id, 1, "mail", '{"to": "ana"}', status="proposed", proposed_at=said.at),
    )


def test_an_answer_that_ran_as_it_was_written_is_told_as_it_is() -> None:
    step = fold(approved().events).steps[0]
    answer, results = step_messages(step)
    assert answer is step.message and [result.call_id for result in results.parts] == [
        call.call_id for call in step.calls
    ]
    changed = fold(edited().events).steps[0]
    assert changed.message is not None and step_messages(changed)[0].calls != changed.message.calls


def test_a_run_and_its_session_are_those_of_its_beginning() -> None:
    state = fold(approved().events)
    assert (state.run_id, state.session_id) == (state.started.run_id, state.started.session_id) == ("run_1", "ses_1")
    assert (RunState().run_id, RunState(started=state.started).session_id) == ("", "ses_1")
