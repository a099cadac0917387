"""The generic machine, with a reducer that knows nothing of language models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from turncell import Nucleus, Transition, UsageError

pytestmark = pytest.mark.feature("A1")


def add(total: int, signal: int) -> Transition[int, str]:
    """Adds; zero says nothing, a negative number is an error, 10 or more is the end."""
    if signal < 0:
        raise ValueError(f"{signal} is negative")
    total += signal
    return Transition(total, (f"+{signal}",) if signal else (), terminal=total >= 10)


def test_a_signal_changes_the_state_and_tells_what_happened() -> None:
    nucleus = Nucleus(0, add)
    transition = nucleus.step(3)
    assert (transition.state, transition.events, transition.terminal) == (3, ("+3",), False)
    assert nucleus.state == 3


def test_a_reducer_that_raises_leaves_the_state_as_it_was_and_nobody_is_told() -> None:
    nucleus = Nucleus(1, add)
    seen: list[str] = []
    nucleus.subscribe(seen.append)
    with pytest.raises(ValueError, match="-1 is negative"):
        nucleus.step(-1)
    assert (nucleus.state, seen) == (1, [])
    assert nucleus.step(2).state == 3


def test_after_the_end_signals_are_no_ops() -> None:
    nucleus = Nucleus(0, add)
    seen: list[str] = []
    nucleus.subscribe(seen.append)
    assert nucleus.step(12).terminal
    again = nucleus.step(5)
    assert (again.state, again.events, again.terminal) == (12, (), True)
    assert (nucleus.state, nucleus.is_terminal, seen) == (12, True, ["+12"])


def test_subscribers_come_and_go_and_one_that_raises_harms_nobody() -> None:
    nucleus = Nucleus(0, add)
    first: list[str] = []
    second: list[str] = []

    def broken(event: str) -> None:
        raise RuntimeError("no")

    nucleus.subscribe(broken)
    end_first = nucleus.subscribe(first.append)
    nucleus.subscribe(second.append)
    nucleus.step(1)
    end_first()
    nucleus.unsubscribe(broken)
    nucleus.unsubscribe(broken)
    nucleus.step(2)
    assert (first, second) == (["+1"], ["+1", "+2"])
    with pytest.raises(UsageError, match=r"give queue\.put_nowait"):
        nucleus.subscribe(asyncio.Queue())  # type: ignore[arg-type]


def test_run_feeds_signals_until_one_is_terminal() -> None:
    async def signals() -> AsyncIterator[int]:
        for number in (4, 0, 6, 100):
            yield number

    nucleus = Nucleus(0, add)
    assert asyncio.run(nucleus.run(signals())) == 10
    assert nucleus.is_terminal


def test_subscribers_hear_what_one_of_them_has_caused_after_what_came_before() -> None:
    nucleus = Nucleus(0, add)
    first: list[str] = []
    second: list[str] = []

    def steps(event: str) -> None:
        first.append(event)
        if event == "+1":
            nucleus.step(2)

    nucleus.subscribe(steps)
    nucleus.subscribe(second.append)
    nucleus.step(1)
    assert first == second == ["+1", "+2"]
