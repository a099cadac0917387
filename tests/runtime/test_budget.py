"""The account that runs share: reserved before, settled after, never overspent side by side."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell import Budget, UsageError
from turncell.core.budget import Left
from turncell.runtime.budget import Refusal, Reservation

pytestmark = pytest.mark.feature("E4")


def granted(given: Reservation | Refusal) -> Reservation:
    assert isinstance(given, Reservation), given
    return given


def refused(given: Reservation | Refusal) -> Refusal:
    assert isinstance(given, Refusal)
    return given


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TestReserving:
    def test_what_is_reserved_is_not_spent_yet_but_nobody_else_can_have_it(self) -> None:
        budget = Budget(tokens=100)
        granted(budget.reserve(tokens=70))
        assert budget.spent.tokens == 0 and budget.left().tokens == 30
        refusal = refused(budget.reserve(tokens=40))
        assert refusal.resource == "tokens"
        assert refusal.message.startswith("the budget has 30 tokens left of 100 tokens, but 40 tokens are wanted")

    def test_it_is_all_or_nothing(self) -> None:
        budget = Budget(tokens=100, calls=1)
        refused(budget.reserve(tokens=10, calls=2))
        assert budget.left() == Left(tokens=100, calls=1)

    def test_to_the_last_bit_is_allowed(self) -> None:
        budget = Budget(usd=0.3)
        for _ in range(3):
            granted(budget.reserve(usd=0.1)).settle(usd=0.1)
        assert budget.left().usd == 0
        refused(budget.reserve(usd=0.001))

    def test_without_limits_nothing_is_refused(self) -> None:
        budget = Budget()
        granted(budget.reserve(steps=10**6, tokens=10**9, usd=1e6, calls=10**6)).settle()
        assert budget.left() == Left() and budget.spent.steps == 10**6

    @pytest.mark.parametrize("wanted", [{"tokens": -1}, {"usd": float("nan")}, {"usd": float("inf")}])
    def test_an_amount_that_cannot_be_is_the_callers_mistake(self, wanted: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="use 0 or more"):
            Budget().reserve(**wanted)


class TestSettling:
    def test_the_actual_amounts_take_the_place_of_the_reserved_ones(self) -> None:
        budget = Budget(tokens=100, usd=1.0, steps=5)
        granted(budget.reserve(steps=1, tokens=80, usd=0.8)).settle(tokens=20, usd=0.1)
        assert (budget.spent.steps, budget.spent.tokens, budget.spent.usd) == (1, 20, 0.1)
        assert (budget.left().steps, budget.left().tokens, budget.left().usd) == (4, 80, 0.9)

    def test_what_is_not_said_counts_as_reserved(self) -> None:
        budget = Budget()
        granted(budget.reserve(calls=1, tokens=5, usd=0.5)).settle()
        spent = budget.spent
        assert (spent.calls, spent.tokens, spent.usd, spent.has_unknown_cost) == (1, 5, 0.5, False)

    def test_after_more_than_was_reserved_the_next_reservation_is_refused_whatever_it_wants(self) -> None:
        budget = Budget(tokens=100)
        granted(budget.reserve(tokens=50)).settle(tokens=130)
        assert budget.left().tokens == 0
        assert refused(budget.reserve(calls=1)).message == (
            "the budget is used up: 130 tokens spent, the limit is 100 tokens"
        )

    def test_a_release_gives_all_back(self) -> None:
        budget = Budget(steps=1, usd=1.0)
        granted(budget.reserve(steps=1, usd=1.0)).release()
        assert budget.left() == Left(steps=1, usd=1.0)

    @pytest.mark.parametrize("end", [Reservation.settle, Reservation.release])
    def test_a_reservation_ends_once(self, end: Callable[[Reservation], None]) -> None:
        budget = Budget(tokens=100)
        reservation = granted(budget.reserve(tokens=10))
        reservation.settle(tokens=7)
        end(reservation)
        assert budget.spent.tokens == 7 and budget.left().tokens == 93

    def test_an_unknown_cost_is_remembered_and_the_reserved_one_counts(self) -> None:
        budget = Budget(usd=1.0)
        granted(budget.reserve(usd=0.25)).settle(usd=None)
        assert budget.spent.has_unknown_cost and budget.spent.usd == 0.25
        granted(budget.reserve(usd=0.25))

    def test_an_unknown_cost_stops_what_comes_next_where_the_user_wants_it(self) -> None:
        budget = Budget(usd=1.0, unknown_prices="stop")
        granted(budget.reserve(steps=1)).settle(usd=None)
        refusal = refused(budget.reserve(steps=1))
        assert refusal.resource == "usd" and "cost of a model call is unknown" in refusal.message


class TestParents:
    def test_what_a_child_spends_is_spent_above(self) -> None:
        batch = Budget(usd=1.0)
        run, other = batch.child(usd=0.6), batch.child(usd=0.6)
        granted(run.reserve(usd=0.5)).settle(usd=0.5)
        assert batch.spent.usd == 0.5 and other.spent.usd == 0
        assert other.left().usd == 0.5
        refusal = refused(other.reserve(usd=0.55))
        assert refusal.message.startswith("the parent's budget has $0.5000 left of $1.0000")
        assert other.left().usd == 0.5

    def test_a_childs_own_limit_holds_even_if_the_parent_has_more(self) -> None:
        child = Budget(tokens=100).child(tokens=10)
        refused(child.reserve(tokens=11))

    def test_a_release_in_a_child_is_one_above(self) -> None:
        parent = Budget(calls=1)
        granted(parent.child().child().reserve(calls=1)).release()
        assert parent.left().calls == 1


class TestChangingLimits:
    def test_a_raised_limit_lets_the_next_reservation_through(self) -> None:
        budget = Budget(steps=1)
        granted(budget.reserve(steps=1)).settle()
        refused(budget.reserve(steps=1))
        budget.set(steps=2)
        granted(budget.reserve(steps=1))

    def test_a_limit_below_what_is_spent_stops_at_the_next_reservation(self) -> None:
        budget = Budget(tokens=100)
        granted(budget.reserve(tokens=50)).settle(tokens=50)
        other = threading.Thread(target=budget.set, kwargs={"tokens": 20})
        other.start()
        other.join()
        assert budget.limits.tokens == 20
        refused(budget.reserve(calls=1))

    def test_a_limit_can_be_lifted(self) -> None:
        budget = Budget(tokens=1, calls=3)
        budget.set(tokens=None)
        assert budget.left() == Left(calls=3)

    def test_a_wrong_change_changes_nothing(self) -> None:
        budget = Budget(tokens=5)
        with pytest.raises(UsageError, match="no limit called 'token'"):
            budget.set(token=6)
        with pytest.raises(UsageError, match="usd is -1"):
            budget.set(tokens=6, usd=-1)
        assert budget.limits.tokens == 5


class TestSeconds:
    def test_they_count_from_the_first_reservation(self) -> None:
        clock = Clock()
        budget = Budget(seconds=10, clock=clock)
        clock.now_s += 60
        assert budget.overrun() is None and budget.spent.seconds == 0
        granted(budget.reserve(steps=1))
        clock.now_s += 9.5
        assert budget.overrun() is None and budget.left().seconds == 0.5
        clock.now_s += 0.5
        assert budget.overrun() == "the budget is used up: 10.0 seconds spent, the limit is 10.0 seconds"
        assert refused(budget.reserve(steps=1)).resource == "seconds"

    def test_a_child_is_over_when_its_parent_is(self) -> None:
        clock = Clock()
        parent = Budget(seconds=10, clock=clock)
        granted(parent.reserve(steps=1))
        clock.now_s += 8
        child = parent.child(seconds=5)
        granted(child.reserve(steps=1))
        clock.now_s += 3
        assert child.spent.seconds == 3 and child.overrun() is not None

    def test_what_is_spent_otherwise_is_no_overrun(self) -> None:
        budget = Budget(tokens=1)
        granted(budget.reserve(tokens=1)).settle(tokens=5)
        assert budget.overrun() is None


class TestSideBySide:
    def test_between_the_look_and_the_grasp_nobody_else_comes_in(self) -> None:
        # The clock is read in between: this one gives every other thread its chance there.
        budget = Budget(calls=5, clock=lambda: threading.Event().wait(0.002) or 0.0)
        granted(budget.reserve(calls=1))
        start = threading.Barrier(8)

        def reserve(_: int) -> Reservation | Refusal:
            start.wait()
            return budget.reserve(calls=1)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(reserve, range(8)))
        assert sum(isinstance(answer, Reservation) for answer in answers) == 4

    def test_parallel_callers_never_reserve_more_than_there_is(self) -> None:
        batch = Budget(tokens=1000, calls=150)
        runs = [batch.child(tokens=400) for _ in range(8)]
        start = threading.Barrier(8)

        def spend(run: Budget) -> int:
            dice = random.Random(runs.index(run))
            used = 0
            start.wait()
            for _ in range(200):
                wanted = dice.randint(1, 20)
                reservation = run.reserve(tokens=wanted, calls=1)
                if isinstance(reservation, Refusal):
                    continue
                if dice.random() < 0.2:
                    reservation.release()
                else:
                    actual = dice.randint(0, wanted)
                    reservation.settle(tokens=actual)
                    used += actual
            return used

        with ThreadPoolExecutor(8) as pool:
            used = list(pool.map(spend, runs))
        assert batch.spent.tokens == sum(used) <= 1000
        assert [run.spent.tokens for run in runs] == used and max(used) <= 400
        assert batch.spent.calls <= 150
        assert batch.left().tokens == 1000 - sum(used)

    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.sampled_from(["settle", "release", "keep"]))))
    def test_whatever_happens_what_is_left_spent_and_reserved_is_the_whole(
        self, moves: list[tuple[int, int, str]]
    ) -> None:
        budget = Budget(tokens=100)
        spent = held = 0
        for wanted, actual, end in moves:
            reservation = budget.reserve(tokens=wanted)
            is_granted = spent <= 100 and (wanted == 0 or spent + held + wanted <= 100)
            assert isinstance(reservation, Reservation) == is_granted
            if not isinstance(reservation, Reservation):
                continue
            if end == "settle":
                reservation.settle(tokens=actual)
                spent += actual
            elif end == "release":
                reservation.release()
            else:
                held += wanted
            assert budget.spent.tokens == spent
            assert budget.left().tokens == max(0, 100 - spent - held)


def test_a_refusal_says_which_budget_has_to_be_raised() -> None:
    shared = Budget(steps=1)
    shared.reserve(steps=1)
    refused = shared.child(steps=5).reserve(steps=1)
    assert isinstance(refused, Refusal) and refused.message == (
        "the parent's budget has 0 steps left of 1 step, but 1 step is wanted; raise it with budget.parent.set(steps=...)"
    )
