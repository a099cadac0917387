"""Limits and what was spent, as values."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncell import UsageError
from turncell.core.budget import RESOURCES, Limits, Spent, exceeded

pytestmark = pytest.mark.feature("E4")

AMOUNTS = st.builds(
    Spent,
    steps=st.integers(0, 5),
    tokens=st.integers(0, 5),
    usd=st.floats(0, 5),
    seconds=st.floats(0, 5),
    calls=st.integers(0, 5),
)
WHOLE = st.none() | st.integers(1, 5)
NUMBER = st.none() | st.floats(0.1, 5)
LIMITS = st.builds(Limits, steps=WHOLE, tokens=WHOLE, usd=NUMBER, seconds=NUMBER, calls=WHOLE)


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"calls": True}, "calls is True"),
        ({"usd": -1}, "usd is -1"),
        ({"usd": float("nan")}, "usd is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"seconds": "60"}, "seconds is '60'"),
        ({"unknown_prices": "guess"}, "unknown_prices is 'guess'"),
    ],
)
def test_a_limit_that_cannot_be_says_what_was_found(limit: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=re.escape(found)):
        Limits(**limit)


@given(LIMITS, AMOUNTS)
def test_a_sentence_comes_exactly_when_some_limit_was_passed(limits: Limits, spent: Spent) -> None:
    def is_passed(name: str) -> bool:
        limit, found = getattr(limits, name), getattr(spent, name)
        if limit is None:
            return False
        return found >= limit if name == "seconds" else found > limit + (1e-9 if name == "usd" else 0)

    assert (exceeded(limits, spent) is not None) == any(map(is_passed, RESOURCES))


def test_the_sentence_says_what_was_found_and_what_the_limit_is() -> None:
    message = exceeded(Limits(tokens=1000), Spent(tokens=1001))
    assert message == "the budget is used up: 1001 tokens spent, the limit is 1000 tokens"


def test_ten_dimes_are_a_dollar() -> None:
    assert exceeded(Limits(usd=1.0), Spent(usd=0.1 * 3 + 0.7)) is None
    assert exceeded(Limits(usd=0.3), Spent(usd=0.1 + 0.1 + 0.1)) is None


def test_an_unknown_cost_stops_only_where_dollars_are_limited_and_the_user_said_so() -> None:
    unknown = Spent(has_unknown_cost=True)
    assert exceeded(Limits(usd=1.0), unknown) is None
    assert exceeded(Limits(steps=5, unknown_prices="stop"), unknown) is None
    message = exceeded(Limits(usd=1.0, unknown_prices="stop"), unknown)
    assert message is not None and "the cost of a model call is unknown" in message
