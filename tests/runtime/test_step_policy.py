"""When a run goes round in circles, and when it only looks like it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell import Agent, LoopDetection, StepLimit, UsageError, tool
from turncell.core.digest import call_digest
from turncell.core.fold import CallState
from turncell.testing import ScriptedModel, call

pytestmark = pytest.mark.feature("A7")


def calls(*made: str | tuple[str, dict[str, Any]]) -> tuple[CallState, ...]:
    """Calls by name, each with the arguments given or none."""
    pairs = [(one, {}) if isinstance(one, str) else one for one in made]
    return tuple(
        CallState(
            f"call_{number}", number, name, json.dumps(arguments), arguments, digest=call_digest(name, arguments),
            status="ok", effect="write" if name in ("mail", "pay") else "read",
        )
        for number, (name, arguments) in enumerate(pairs, 1)
    )  # fmt: skip


def goes_on(policy: LoopDetection, used: tuple[CallState, ...]) -> bool:
    return policy.should_continue(1, used)


class TestTheLimit:
    def test_it_counts_steps_and_lets_the_model_sum_up(self) -> None:
        limit = StepLimit(2)
        assert [limit.should_continue(step, ()) for step in (1, 2, 3)] == [True, False, False]
        assert limit.on_limit_reached(2, ()) is None

    def test_loop_detection_has_one_too(self) -> None:
        policy = LoopDetection(max_steps=2)
        assert not policy.should_continue(2, calls("look"))
        assert policy.on_limit_reached(2, calls("look")) is None

    @pytest.mark.parametrize(
        ("make", "found"),
        [
            (lambda: StepLimit(0), "max_steps is 0"),
            (lambda: LoopDetection(max_steps=1.5), "max_steps is 1.5"),
            (lambda: LoopDetection(repeats=1), "repeats is 1"),
            (lambda: LoopDetection(polling="status"), "polling is 'status'; use a set of names of tools: {'status'}"),
            (lambda: LoopDetection(polling=None), "polling is None; use a set of names of tools"),
            (lambda: LoopDetection(keys=["look"]), "keys are ['look']; use a mapping of names of tools to functions"),
            (lambda: LoopDetection(keys={"look": "path"}), "the key of 'look' is 'path'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, make: Any, found: str) -> None:
        with pytest.raises(UsageError, match=re.escape(found)):
            make()


class TestTheSameCall:
    def test_it_stops_at_the_last_allowed_repetition_and_says_which_call_it_was(self) -> None:
        look = ("look", {"at": "clock"})
        assert goes_on(LoopDetection(), calls(look, "list", look))
        used = calls(look, "list", look, "find", look)
        assert not goes_on(LoopDetection(), used)
        assert LoopDetection().on_limit_reached(5, used) == 'Stopped: look({"at":"clock"}) was called 3 times.'

    def test_a_write_in_between_makes_the_same_question_a_new_one(self) -> None:
        look = ("look", {"at": "clock"})
        assert goes_on(LoopDetection(), calls(look, look, "mail", look, look, "pay", look, look))
        assert not goes_on(LoopDetection(), calls("mail", look, "mail", look, "mail"))

    def test_other_arguments_are_another_call(self) -> None:
        assert goes_on(LoopDetection(), calls(*(("look", {"page": page}) for page in range(30))))

    def test_a_key_says_what_counts_as_the_same(self) -> None:
        policy = LoopDetection(keys={"read": lambda arguments: arguments["path"]})
        used = calls(*(("read", {"path": "a.txt", "line": line}) for line in range(3)))
        assert goes_on(LoopDetection(), used) and not goes_on(policy, used)

    def test_a_key_that_fails_leaves_the_arguments_to_count(self) -> None:
        policy = LoopDetection(keys={"read": lambda arguments: arguments["path"]})
        assert goes_on(policy, calls(*(("read", {"line": line}) for line in range(3))))
        assert not goes_on(policy, calls(*([("read", {"line": 1})] * 3)))

    def test_polling_is_no_loop(self) -> None:
        assert goes_on(LoopDetection(polling={"status"}), calls(*["status"] * 30))

    def test_the_same_mistake_is_a_loop_although_it_never_had_a_digest(self) -> None:
        wrong = tuple(CallState(f"c{n}", n, "mail", '{"to": ', status="invalid") for n in range(3))
        assert not goes_on(LoopDetection(), wrong)
        assert LoopDetection().on_limit_reached(3, wrong) == 'Stopped: mail({"to":) was called 3 times.'

    def test_long_arguments_are_cut_in_the_message(self) -> None:
        used = calls(*[("write", {"text": "x" * 10_000})] * 3)
        assert len(LoopDetection().on_limit_reached(3, used) or "") < 300


class TestTwoInTurn:
    def test_three_rounds_are_a_cycle(self) -> None:
        policy = LoopDetection(repeats=10)
        assert goes_on(policy, calls(*["look", "mail"] * 2, "look"))
        used = calls("pay", *["look", "mail"] * 3)
        assert not goes_on(policy, used)
        assert policy.on_limit_reached(7, used) == (
            "Stopped: look({}) and mail({}) were called in turn, 3 times over."
        )  # fmt: skip

    def test_it_is_seen_also_if_the_same_step_has_called_something_else_since(self) -> None:
        assert not goes_on(LoopDetection(repeats=10), calls(*["look", "mail"] * 3, "pay"))

    def test_polling_in_between_hides_no_cycle(self) -> None:
        policy = LoopDetection(repeats=10, polling={"status"})
        assert not goes_on(policy, calls(*["look", "status", "mail", "status"] * 3))
        assert goes_on(policy, calls(*["look", "status"] * 5))

    def test_one_call_alone_is_no_cycle_of_two(self) -> None:
        assert goes_on(LoopDetection(repeats=10), calls(*["look"] * 9))


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(2, 5))
def test_what_has_stopped_a_run_stops_it_whatever_comes_after_and_has_a_text(used: list[str], repeats: int) -> None:
    policy = LoopDetection(repeats=repeats)
    verdicts = [goes_on(policy, calls(*used[:end])) for end in range(len(used) + 1)]
    assert verdicts == sorted(verdicts, reverse=True)
    assert verdicts[-1] == (policy.on_limit_reached(1, calls(*used)) is None)


class TestWhatToolsSay:
    """An agent tells the detection what its tools say of themselves."""

    def run(self, *numbers: int, **options: Any) -> int:
        @tool(effect="read", **options)
        def look(at: int) -> str:
            """Look."""
            return "x"

        script = ScriptedModel([*(call("look", at=number) for number in numbers), "Done."])
        agent = Agent(script, tools=[look], step_policy=LoopDetection(repeats=3))
        return len(agent.run_sync("go").tool_calls)

    def test_a_key_makes_different_calls_the_same(self) -> None:
        assert self.run(1, 2, 3, 4, 5) == 5
        assert self.run(1, 2, 3, 4, 5, loop_key=lambda arguments: "the same") == 3

    def test_a_polling_tool_may_be_called_again_and_again(self) -> None:
        assert self.run(1, 1, 1, 1, 1) == 3
        assert self.run(1, 1, 1, 1, 1, polling=True) == 5

    def test_a_policy_that_blocks_or_fails_harms_no_other_run(self) -> None:
        class Broken:
            def should_continue(self, step: int, tools_used: tuple[CallState, ...]) -> bool:
                exit(1)

            def on_limit_reached(self, step: int, tools_used: tuple[CallState, ...]) -> None: ...

        @tool(effect="read")
        def look() -> str:
            """Look."""
            return "x"

        run = Agent(ScriptedModel([call("look"), "never"]), tools=[look], step_policy=Broken()).run_sync("go")
        assert (run.status, run.state.error_kind) == ("failed", "hook") and "SystemExit" in (run.state.error or "")
        assert Agent(ScriptedModel(["fine"])).run_sync("go").text == "fine"
