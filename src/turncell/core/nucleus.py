"""The generic reducer machine, tied to nothing in particular.

A reducer is a pure function `(state, signal) -> Transition`. A `Nucleus` holds the current state, feeds it
signals and tells its subscribers what happened. Three promises, kept here and nowhere else:

* a reducer that raises leaves the state as it was, and nobody is told of anything;
* after a terminal transition every further signal is a no-op;
* subscribers see events in the order in which they happened, each exactly once; one that raises harms nobody.

The agent's loop (`core.reducer`) is one reducer on this machine.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from turncell.errors import UsageError

S = TypeVar("S")
"""State."""
I = TypeVar("I")  # noqa: E741  (signal in, event out)
"""Signal: what comes in."""
E = TypeVar("E")
"""Event: what comes out."""

log = logging.getLogger("turncell")


@dataclass(frozen=True, slots=True)
class Transition(Generic[S, E]):
    """What one signal led to."""

    state: S
    events: tuple[E, ...] = ()
    commands: tuple[object, ...] = ()
    """Wishes for whoever drives the machine; a reducer itself does nothing."""
    terminal: bool = False


class Nucleus(Generic[S, I, E]):
    """A state, a reducer, and those who listen.

    >>> def count(total: int, signal: int) -> Transition[int, str]:
    ...     return Transition(total + signal, (f"+{signal}",), terminal=total + signal >= 3)
    >>> nucleus = Nucleus(0, count)
    >>> seen: list[str] = []
    >>> unsubscribe = nucleus.subscribe(seen.append)
    >>> for signal in (1, 2, 4):
    ...     _ = nucleus.step(signal)
    >>> nucleus.state, nucleus.is_terminal, seen
    (3, True, ['+1', '+2'])
    """

    def __init__(self, initial_state: S, reducer: Callable[[S, I], Transition[S, E]]) -> None:
        self.state = initial_state
        """The state after the last signal."""
        self.is_terminal = False
        """Whether a signal has ended it."""
        self._reducer = reducer
        self._subscribers: list[Callable[[E], object]] = []
        self._untold: deque[E] = deque()
        self._is_telling = False

    def subscribe(self, subscriber: Callable[[E], object]) -> Callable[[], None]:
        """Call `subscriber(event)` for every event from now on; returns the function that ends it."""
        if not callable(subscriber):
            raise UsageError(f"a subscriber is a function; found {subscriber!r}; of a queue give queue.put_nowait")
        self._subscribers.append(subscriber)
        return lambda: self.unsubscribe(subscriber)

    def unsubscribe(self, subscriber: Callable[[E], object]) -> None:
        """End a subscription; one that does not exist (any more) is no error."""
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)

    def step(self, signal: I) -> Transition[S, E]:
        """Feed one signal. Whatever the reducer raises goes to the caller, with the state unchanged."""
        if self.is_terminal:
            return Transition(self.state, terminal=True)
        transition = self._reducer(self.state, signal)
        self.state, self.is_terminal = transition.state, transition.terminal
        if self._subscribers:
            self._untold.extend(transition.events)
            self._tell()
        return transition

    def _tell(self) -> None:
        """A subscriber that feeds a signal itself only adds to what is told: the others hear it after what came before."""
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._untold:
                event = self._untold.popleft()
                for subscriber in tuple(self._subscribers):
                    try:
                        subscriber(event)
                    except Exception:
                        log.exception("subscriber %r raised on %r", subscriber, event)
        finally:
            self._is_telling = False

    async def run(self, signals: AsyncIterable[I]) -> S:
        """Feed signals until one is terminal or they end; returns the last state."""
        async for signal in signals:
            if self.step(signal).terminal:
                break
        return self.state
