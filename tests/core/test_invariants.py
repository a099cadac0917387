"""What must hold whatever the order of the signals: any interleaving is played on the pure reducer."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.core.test_fold import accepted_by_providers
from tests.journals.play import Play
from turncell.core import reducer
from turncell.core.deltas import CallFragment, Finished, ReasoningFragment, TextFragment
from turncell.core.digest import call_digest
from turncell.core.events import CallFinished, CallProposed, CallStarted, Recorded, RunEnded
from turncell.core.fold import fold
from turncell.core.parts import Usage
from turncell.core.signals import (
    Answered,
    CallReturned,
    Clock,
    Judged,
    Judgement,
    ModelFailed,
    ModelFinished,
    StartCall,
    Stop,
    Streamed,
)

NAMES = st.sampled_from(["look", "mail", "save"])
EFFECTS = st.sampled_from(["read", "write", "idempotent"])
TEXTS = st.text(max_size=8)


class AnyOrder(RuleBasedStateMachine):
    """Signals come in any order, late ones, doubled ones and ones for calls that do not exist included."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Play("go", max_steps=4)
        self.started: dict[str, str] = {}

    def feed(self, signal: Any) -> None:
        self.play.feed(lambda _: signal)
        for command in self.play.commands:
            if isinstance(command, StartCall):
                self.started.setdefault(command.call.call_id, command.call.digest or "")

    def some_call(self, data: st.DataObject) -> str:
        known = [call.call_id for call in self.play.state.run.calls] or ["nobody"]
        return data.draw(st.sampled_from([*known, "nobody"]))

    @rule(text=TEXTS, thought=st.booleans())
    def stream_text(self, text: str, thought: bool) -> None:
        self.feed(Streamed(self.play.at, [ReasoningFragment(text) if thought else TextFragment(text)]))

    @rule(
        index=st.none() | st.integers(0, 2),
        id=st.none() | st.sampled_from("ab"),
        name=st.none() | NAMES,
        text=st.sampled_from(["", "{", "{}", '{"a":', "1}"]),
    )
    def stream_call(self, index: int | None, id: str | None, name: str | None, text: str) -> None:
        self.feed(Streamed(self.play.at, [CallFragment(index, id, name, text)]))

    @rule(reason=st.sampled_from(["stop", "length", "tool_calls", "other"]))
    def model_finishes(self, reason: Any) -> None:
        self.feed(ModelFinished(self.play.at, Finished(reason, Usage(1, 1))))

    @rule()
    def model_fails(self) -> None:
        self.feed(ModelFailed(self.play.at, "connection", "reset"))

    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        judgements = []
        for call in self.play.state.run.steps[-1].calls:
            effect: Any = data.draw(EFFECTS)
            if data.draw(st.booleans()) or call.arguments_text not in ("", "{}"):
                judgements.append(Judgement(call.call_id, effect, problem="not valid"))
            elif data.draw(st.booleans()):
                verdict: Any = data.draw(st.sampled_from(["allow", "ask", "deny"]))
                judgements.append(
                    Judgement(call.call_id, effect, {}, call_digest(call.name, {}), None, verdict, "test")
                )
        self.feed(Judged(self.play.at, tuple(judgements), self.play.at + 5))

    @rule(data=st.data(), answer=st.sampled_from(["approve", "edit", "deny", "result"]))
    def answer(self, data: st.DataObject, answer: Any) -> None:
        digest = call_digest("x", {"edited": True})
        self.feed(
            Answered(
                at=self.play.at,
                request_id=f"{self.some_call(data)}-ask",
                answer=answer,
                by="person",
                arguments={"edited": True},
                digest=digest,
            )
        )

    @rule(data=st.data(), status=st.sampled_from(["ok", "error", "timeout"]))
    def call_returns(self, data: st.DataObject, status: Any) -> None:
        self.feed(CallReturned(self.play.at, self.some_call(data), status, "result"))

    @rule(ahead_s=st.sampled_from([0.0, 1.5, 10.0]))
    def time_passes(self, ahead_s: float) -> None:
        self.play.at += ahead_s
        self.feed(Clock(self.play.at))

    @precondition(lambda self: len(self.play.events) > 12)
    @rule()
    def stop(self) -> None:
        self.feed(Stop(self.play.at))

    @invariant()
    def there_is_at_most_one_end_and_nothing_after_it(self) -> None:
        recorded = [event for event in self.play.events if isinstance(event, Recorded)]
        ends = [number for number, event in enumerate(recorded) if isinstance(event, RunEnded)]
        assert len(ends) <= 1 and (not ends or ends[0] == len(recorded) - 1)

    @invariant()
    def every_proposed_call_ends_exactly_once(self) -> None:
        proposed = [event.call_id for event in self.play.events if isinstance(event, CallProposed)]
        finished = [event.call_id for event in self.play.events if isinstance(event, CallFinished)]
        assert len(set(finished)) == len(finished) and len(set(proposed)) == len(proposed)
        if self.play.state.run.is_ended:
            assert set(proposed) <= set(finished)

    @invariant()
    def nothing_runs_unjudged_or_on_other_arguments_than_were_approved(self) -> None:
        for call in self.play.state.run.calls:
            if call.call_id in self.started:
                assert call.problem is None and call.arguments is not None and call.verdict in ("allow", "ask")
                assert self.started[call.call_id] == call.digest
                if call.verdict == "ask":
                    assert call.request is not None and call.request.answer in ("approve", "edit")

    @invariant()
    def writes_run_one_at_a_time(self) -> None:
        running = [call for call in self.play.state.run.calls if call.status == "running" and call.effect != "read"]
        assert len(running) <= 1
        starts = [event.call_id for event in self.play.events if isinstance(event, CallStarted)]
        assert len(set(starts)) == len(starts)

    @invariant()
    def providers_accept_the_messages_whenever_the_model_is_called(self) -> None:
        if self.play.state.run.is_ended or self.play.state.is_streaming:
            assert accepted_by_providers(self.play.state.run.messages())

    @invariant()
    def folding_the_journal_gives_the_same_run(self) -> None:
        recorded = [event for event in self.play.events if isinstance(event, Recorded)]
        assert fold(recorded) == self.play.state.run

    @invariant()
    def arguments_of_messages_are_objects(self) -> None:
        for message in self.play.state.run.messages():
            for call in message.calls:
                assert isinstance(json.loads(call.arguments_text), dict)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_signals_after_the_end_are_no_ops() -> None:
    play = Play("go")
    play.stop()
    before = (play.state, len(play.events))
    play.say("late")
    play.feed(lambda at: Stop(at))
    assert (play.state, len(play.events)) == before
    assert reducer.reduce(play.state, Clock(1.0)).terminal
