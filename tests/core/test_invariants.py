"""What must hold whatever the order of the signals: any interleaving is played on the pure reducer."""

from __future__ import annotations

import json
import os
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.test_fold import accepted_by_providers
from tests.journals.play import Play
from turncell.core import reducer
from turncell.core.context import conversation, messages_of
from turncell.core.deltas import CallFragment, Finished, ReasoningFragment
from turncell.core.digest import call_digest
from turncell.core.events import (
    ArgumentsDelta,
    CallFinished,
    CallProposed,
    CallStarted,
    MessageAdded,
    Noted,
    Option,
    ReasoningDelta,
    Recorded,
    RequestAnswered,
    RequestOpened,
    Resumed,
    RunEnded,
    Steered,
    StepStarted,
    TextDelta,
)
from turncell.core.fold import at_rest, fold
from turncell.core.loop_state import LoopState
from turncell.core.parts import Message, Text, Usage
from turncell.core.signals import (
    Answered,
    Asked,
    CallModel,
    CallReturned,
    Chosen,
    Clock,
    Cut,
    Judged,
    Judgement,
    ModelFailed,
    ModelFinished,
    Note,
    Question,
    Reply,
    Resume,
    Reviewed,
    StartCall,
    Steer,
    Stop,
    Streamed,
    Summarised,
    Traits,
)

NAMES = st.sampled_from(["look", "mail", "save"])
EFFECTS = st.sampled_from(["read", "write", "idempotent"])
TEXTS = st.text(max_size=8)


class AnyOrder(RuleBasedStateMachine):
    """Signals come in any order, late ones, doubled ones and ones for calls that do not exist included."""

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[str, str] = {}
        self.asked: list[int] = []
        self.restarts: dict[str, int] = {}
        self.told = 0

    @initialize(
        reviews=st.sets(st.sampled_from(["step", "finish"])),
        max_steps=st.integers(0, 4),
        models=st.integers(1, 3),
        attempts=st.integers(1, 3),
        recoveries=st.integers(0, 2),
        summarises=st.booleans(),
        reads_all=st.booleans(),
        early=st.sampled_from(["", "", "", "", "", "steer", "stop"]),
    )
    def begin(self, reviews: Any, early: str, **values: Any) -> None:
        self.play = Play("go", is_begun=False, reviews=frozenset(reviews), **values)
        if early == "steer":
            self.feed(Steer(self.play.at, "early", Message("user", (Text("wait"),))))
        elif early == "stop":
            self.feed(Stop(self.play.at))
        self.play.begin()

    @property
    def is_late(self) -> bool:
        """Before, nothing ends the run: most would end before anything has happened."""
        return len(self.play.events) > 25

    def feed(self, signal: Any) -> None:
        self.play.feed(lambda _: signal)
        for command in self.play.commands:
            if isinstance(command, StartCall):
                self.started.setdefault(command.call.call_id, command.call.digest or "")

    def some_call(self, data: st.DataObject) -> str:
        calls = self.play.state.run.calls
        likely = [call.call_id for call in calls if call.is_open] * 4
        return data.draw(st.sampled_from([*likely, *(call.call_id for call in calls), "nobody"]))

    def some_request(self, data: st.DataObject) -> str:
        calls = self.play.state.run.calls
        likely = [call.request.request_id for call in calls if call.request and call.status == "waiting"] * 6
        asked = [call.request.request_id for call in calls if call.request]
        return data.draw(st.sampled_from([*likely, *asked, "nobody-ask"]))

    @rule(text=TEXTS, thought=st.booleans())
    def stream_text(self, text: str, thought: bool) -> None:
        self.feed(Streamed(self.play.at, [ReasoningFragment(text) if thought else text]))

    @rule(
        index=st.none() | st.integers(0, 2),
        id=st.none() | st.sampled_from("ab"),
        name=st.none() | NAMES,
        text=st.sampled_from(["", "{", "{}", '{"a":', "1}"]),
    )
    def stream_call(self, index: int | None, id: str | None, name: str | None, text: str) -> None:
        self.feed(Streamed(self.play.at, [CallFragment(index, id, name, text)]))

    @precondition(lambda self: self.is_late)
    @rule(reason=st.sampled_from(["stop", "length", "tool_calls", "paused", "other"]))
    def model_finishes(self, reason: Any) -> None:
        self.feed(ModelFinished(self.play.at, Finished(reason, Usage(1, 1))))

    @precondition(lambda self: self.is_late)
    @rule(
        kind=st.sampled_from(["connection", "auth", "bad_request", "context_length"]),
        retry_after_s=st.none() | st.sampled_from([0.5, 900]),
    )
    def model_fails(self, kind: str, retry_after_s: float | None) -> None:
        self.feed(ModelFailed(self.play.at, kind, "reset", retry_after_s=retry_after_s))

    @rule(data=st.data(), names=st.lists(NAMES, min_size=1, max_size=4))
    def a_step_with_calls(self, data: st.DataObject, names: list[str]) -> None:
        """What chance alone would seldom bring about."""
        for number, name in enumerate(names):
            self.feed(Streamed(self.play.at, [CallFragment(number, f"p{number}", name, "{}")]))
        self.feed(ModelFinished(self.play.at, Finished("tool_calls", Usage(1, 1))))
        if data.draw(st.booleans()):
            self.judge(data)

    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        judgements = []
        for call in self.play.state.run.steps[-1].calls if self.play.state.run.steps else ():
            effect: Any = data.draw(EFFECTS)
            chance = data.draw(st.integers(0, 9))
            if chance == 0 or call.arguments_text not in ("", "{}"):
                judgements.append(Judgement(call.call_id, effect, problem="not valid"))
            elif chance > 1:
                verdict: Any = data.draw(st.sampled_from(["allow", "allow", "ask", "deny"]))
                traits = Traits(
                    data.draw(st.none() | st.just(1)),
                    answers_denial=data.draw(st.booleans()),
                    is_answer=call.name == "save",
                )
                judgements.append(
                    Judgement(
                        call.call_id,
                        effect,
                        {},
                        call_digest(call.name, {}),
                        None,
                        verdict,
                        "test",
                        is_trusted=data.draw(st.booleans()),
                        traits=traits,
                    )
                )
        self.feed(Judged(self.play.at, tuple(judgements), self.play.at + 5))

    @precondition(lambda self: bool(self.play.state.run.calls))
    @rule(data=st.data(), default=st.none() | st.just("yes"), is_nested=st.booleans())
    def running_call_asks(self, data: st.DataObject, default: str | None, is_nested: bool) -> None:
        kind: Any = "approval" if is_nested else "question"
        question = Question(
            "d" * 64, kind, "Which?", (Option("yes"),), name="inner" if is_nested else "", default_result=default,
            expires_at=self.play.at + 5,
        )  # fmt: skip
        self.asked.append(len(self.asked) + 1)
        self.feed(Asked(self.play.at, self.some_call(data), self.asked[-1], question))

    @rule(text=TEXTS, number=st.integers(1, 4))
    def person_steers(self, text: str, number: int) -> None:
        self.feed(Steer(self.play.at, f"input_{number}", Message("user", (Text(text or "wait"),))))

    @rule(data=st.data(), tokens=st.integers(0, 99))
    def room_is_made(self, data: st.DataObject, tokens: int) -> None:
        """The driver may be late with this too."""
        run = self.play.state.run
        self.feed(Cut(self.play.at, (self.some_call(data),), (), 40, 100, tokens))
        self.feed(
            Summarised(
                at=self.play.at,
                upto=(run.run_id, data.draw(st.integers(0, max(0, len(run.steps) - 1)))),
                covers=(run.run_id,),
                summary="It was so.",
                tokens_before=100,
                tokens_after=tokens,
            )
        )

    @precondition(lambda self: self.play.state.reviewing is not None)
    @rule(
        review=st.sampled_from(["step", "finish"]),
        may_go_on=st.booleans(),
        text=st.none() | TEXTS,
        says=st.none() | TEXTS,
        fails=st.booleans(),
        is_final=st.booleans(),
    )
    def reviewers_say(
        self, review: Any, may_go_on: bool, text: str | None, says: str | None, fails: bool, is_final: bool
    ) -> None:
        message = None if says is None else Message("user", (Text(says or "go on"),))
        failure = ("hook", "no") if fails else None
        self.feed(Reviewed(self.play.at, review, may_go_on, text, message, failure=failure, is_final=is_final))

    @rule(kind=st.sampled_from(["notice", "hook"]))
    def somebody_notes(self, kind: Any) -> None:
        self.feed(Note(self.play.at, kind, "by the way"))

    @rule(tier=st.none() | st.just("small"))
    def another_model_is_chosen(self, tier: str | None) -> None:
        self.feed(Chosen(self.play.at, "other", tier))

    @precondition(lambda self: bool(self.play.state.run.calls))
    @rule(data=st.data(), answer=st.sampled_from(["approve", "edit", "deny", "result"]))
    def answer(self, data: st.DataObject, answer: Any) -> None:
        digest = call_digest("x", {"edited": True})
        self.feed(
            Answered(
                at=self.play.at,
                request_id=self.some_request(data),
                answer=answer,
                by="person",
                arguments={"edited": True},
                digest=digest,
            )
        )

    @precondition(lambda self: bool(self.play.state.run.calls))
    @rule(data=st.data(), status=st.sampled_from(["ok", "error", "timeout", "denied"]), terminates=st.booleans())
    def call_returns(self, data: st.DataObject, status: Any, terminates: bool) -> None:
        self.feed(CallReturned(self.play.at, self.some_call(data), status, "result", terminates=terminates))

    @precondition(lambda self: self.is_late and not self.play.state.run.is_ended)
    @rule()
    def the_program_dies_and_the_run_is_resumed(self) -> None:
        """All that is left is the record; what was in flight is lost."""
        before, state = fold(self.recorded), self.play.state
        assert state.begin is not None
        self.play.state = LoopState()
        rest = at_rest(before)
        in_doubt = [call.call_id for call in rest.calls if call.status == "in_doubt"]
        self.feed(Resume(self.play.at, state.begin, rest, rest.seq, state.traits, self.play.at + 5))
        waiting = {call.call_id for call in self.play.state.run.open_requests}
        assert self.play.state.run.is_ended or set(in_doubt) <= waiting
        # A read, an idempotent call, or a write that a person wants to see again may begin again.
        for call in rest.calls:
            if call.status in ("allowed", "in_doubt"):
                self.restarts[call.call_id] = self.restarts.get(call.call_id, 0) + 1

    @property
    def recorded(self) -> list[Any]:
        return [event for event in self.play.events if isinstance(event, Recorded)]

    @rule(ahead_s=st.sampled_from([0.0, 1.5, 10.0]))
    def time_passes(self, ahead_s: float) -> None:
        self.play.at += ahead_s
        self.feed(Clock(self.play.at))

    @precondition(lambda self: self.is_late)
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
                    own = f"{call.call_id}-ask"
                    answers = [
                        e.answer for e in self.play.events if isinstance(e, RequestAnswered) and e.request_id == own
                    ]
                    assert answers in (["approve"], ["edit"])

    @invariant()
    def every_question_gets_one_reply_and_no_second(self) -> None:
        replied = [command.key for command in self.play.commands if isinstance(command, Reply)]
        assert len(set(replied)) == len(replied)
        if self.play.state.run.is_ended:
            opened = [e for e in self.play.events if isinstance(e, RequestOpened)]
            answered = [e.request_id for e in self.play.events if isinstance(e, RequestAnswered)]
            assert {e.request_id for e in opened} >= set(answered) and len(set(answered)) == len(answered)
            if not any(isinstance(e, Resumed) for e in self.play.events):
                assert sorted(e.request_id for e in opened) == sorted(answered)

    @invariant()
    def a_steered_message_is_recorded_once_and_read_at_most_once(self) -> None:
        steered = [e.input_id for e in self.play.events if isinstance(e, Steered)]
        read = [e.input_id for e in self.play.events if isinstance(e, MessageAdded) and e.input_id]
        waiting = [q.input_id for q in self.play.state.run.queued]
        assert sorted(read + waiting) == sorted(steered)

    @invariant()
    def no_call_begins_while_a_message_waits(self) -> None:
        waiting = 0
        # A person who says afterwards that a write in doubt is to run again means it.
        wanted: set[str] = set()
        in_doubt = {e.request_id for e in self.play.events if isinstance(e, RequestOpened) and e.kind == "in_doubt"}
        for event in self.play.events:
            if isinstance(event, Steered):
                waiting += 1
                wanted.clear()
            elif isinstance(event, RequestAnswered) and event.request_id in in_doubt and event.answer == "approve":
                wanted.add(event.call_id)
            elif isinstance(event, MessageAdded) and event.input_id:
                waiting -= 1
            elif isinstance(event, CallStarted):
                assert not waiting or event.call_id in wanted
            elif isinstance(event, RequestOpened) and event.kind != "in_doubt":
                assert not waiting

    @invariant()
    def a_model_that_was_heard_is_not_asked_again(self) -> None:
        heard = False
        for event in self.play.events:
            if isinstance(event, StepStarted):
                heard = False
            elif isinstance(event, TextDelta | ReasoningDelta | ArgumentsDelta):
                heard = heard or bool(event.text) or isinstance(event, ArgumentsDelta)
            elif isinstance(event, Noted) and event.kind == "retry":
                assert not heard

    @invariant()
    def steps_are_called_one_after_another_and_not_beyond_the_limit(self) -> None:
        run = self.play.state.run
        if run.max_steps:
            restarts = sum(isinstance(event, Resumed) for event in self.play.events)
            whole = [step for step in run.steps if step.error_kind != reducer.INTERRUPTED]  # a crash uses none up
            assert len(whole) <= run.max_steps + (1 + restarts) * self.play.state.begin.summarises  # type: ignore[union-attr]

    @invariant()
    def writes_run_one_at_a_time(self) -> None:
        calls = self.play.state.run.calls
        running = [call for call in calls if call.started_at is not None and call.is_open and call.effect != "read"]
        assert len(running) <= 1
        starts = [event.call_id for event in self.play.events if isinstance(event, CallStarted)]
        for call_id in set(starts):
            assert starts.count(call_id) <= 1 + self.restarts.get(call_id, 0)

    @invariant()
    def a_value_is_taken_once_in_a_step_and_not_beside_a_failure(self) -> None:
        traits = self.play.state.traits
        calls = self.play.state.run.steps[-1].calls if self.play.state.run.steps else ()
        others = [call for call in calls if call.call_id in traits and not traits[call.call_id].is_answer]
        taken = [
            call for call in calls if call not in others and call.call_id in traits and call.started_at is not None
        ]
        assert sum(call.is_open or call.status == "ok" for call in taken) <= 1
        assert not taken or all(call.status == "ok" for call in others)

    @invariant()
    def a_write_runs_again_only_where_a_person_said_so(self) -> None:
        begun: set[str] = set()
        for event in self.play.events:
            if isinstance(event, RequestAnswered) and event.request_id.startswith(f"{event.call_id}-doubt"):
                if event.answer == "approve":
                    begun.discard(event.call_id)
            elif isinstance(event, CallStarted) and event.effect == "write":
                assert event.call_id not in begun
                begun.add(event.call_id)

    @invariant()
    def providers_accept_the_messages_whenever_the_model_is_called(self) -> None:
        if self.play.state.run.is_ended or self.play.state.is_streaming:
            assert accepted_by_providers(self.play.state.run.messages())
            assert accepted_by_providers(messages_of(conversation([self.play.state.run])))

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
IS_FULL = os.environ.get("TURNCELL_FULL") == "1"
TestAnyOrder.settings = settings(max_examples=1000 if IS_FULL else 150, stateful_step_count=60, deadline=None)


def test_signals_after_the_end_are_no_ops() -> None:
    play = Play("go")
    play.stop()
    before = (play.state, len(play.events))
    play.say("late")
    play.feed(lambda at: Stop(at))
    assert (play.state, len(play.events)) == before
    assert reducer.reduce(play.state, Clock(1.0)).terminal


def test_a_paused_answer_goes_on_after_a_crash() -> None:
    play = Play("go")
    play.say("half an ")
    play.feed(lambda at: ModelFinished(at, Finished("paused", Usage(1, 1))))
    kinds = [event.type for event in play.events]
    assert kinds[-2:] == ["StepFinished", "StepStarted"] and isinstance(play.commands[-1], CallModel)
    assert play.state.begin is not None
    rest = at_rest(fold([event for event in play.events[:-1] if isinstance(event, Recorded)]))
    begin, play.state, play.events = play.state.begin, LoopState(), []
    play.feed(lambda at: Resume(at, begin, rest, rest.seq, {}))
    assert [event.type for event in play.events] == ["Resumed", "MessageAdded", "StepStarted"]
    assert play.commands[-1] == CallModel(2)
