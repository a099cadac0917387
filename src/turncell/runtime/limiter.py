"""How many calls of one provider run at once: found out, not set.

TCP's answer to the same question (RFC 5681), in calls instead of bytes:

    slow start    FIRST calls; each that succeeds lets one more begin, so that a round doubles them
    congestion    a refusal (rate_limit, overloaded) halves the limit, once for all calls that were on their way together
    avoidance     from then on one more for each round that goes well
    Retry-After   nobody begins before the time that the provider has said

One limiter for each provider of the process: two batches that run side by side share what there is. It holds for the
model calls of batches and of all that runs inside them; a person's own turn does not queue behind a thousand rows.
Everything but `of_model` belongs to the background loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

FIRST = 4
MOST = 256
LEAST_PAUSE_S = 0.25
"""After a refusal that names no time."""
REFUSALS: Final = frozenset({"rate_limit", "overloaded"})

is_paced: ContextVar[bool] = ContextVar("turncell_is_paced", default=False)
"""Whether the model calls of this context wait for their slot."""


class Slot:
    """Leave to make one call. It ends once, by `leave`."""

    def __init__(self, limiter: Limiter | None, began: float = 0.0) -> None:
        self._limiter, self._began = limiter, began

    def leave(self, failure: str | None = None, retry_after_s: float | None = None, *, is_made: bool = True) -> None:
        """`failure` is the kind of the `ModelFailure`; with `is_made=False` the call was not made and tells nothing."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._left(self._began, failure, retry_after_s, is_made)


class Limiter:
    """Gives out slots, first come, first served.

    >>> limiter = Limiter(first=2)
    >>> slot = asyncio.run(limiter.slot())
    >>> slot.leave()
    >>> limiter.limit
    3.0
    """

    def __init__(self, *, first: float = FIRST, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = float(first)
        """How many calls may run now; the fraction is what is saved up for the next."""
        self.most = most
        self.running = 0
        self.not_before: float = -math.inf
        """By the clock: until then the provider wants to be left alone."""
        self._clock = clock
        self._threshold = math.inf
        """Where slow start ends: half of what was too much."""
        self._cut_at = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pause_s(self) -> float:
        """Seconds for which nobody may begin; 0 where anybody may."""
        return max(0.0, self.not_before - self._clock())

    async def slot(self) -> Slot:
        """Wait for leave to make a call."""
        if self._waiting or not self._is_free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._admit()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was our turn in the same moment
                    self.running -= 1
                elif turn in self._waiting:
                    self._waiting.remove(turn)
                self._admit()
                raise
        else:
            self.running += 1
        return Slot(self, self._clock())

    @property
    def _is_free(self) -> bool:
        return self.running < int(self.limit) and not self.pause_s

    def _left(self, began: float, failure: str | None, retry_after_s: float | None, is_made: bool) -> None:
        was_full = self.running >= int(self.limit) - 1
        self.running -= 1
        now = self._clock()
        if failure in REFUSALS:
            if began >= self._cut_at:  # the others of this round were begun before anybody could know
                self._threshold = self.limit = max(1.0, self.limit / 2)
                self._cut_at = now
            self.not_before = max(self.not_before, now + (LEAST_PAUSE_S if retry_after_s is None else retry_after_s))
        elif is_made and failure is None and was_full:  # a limit that is not reached proves nothing
            self.limit = min(self.most, self.limit + (1.0 if self.limit < self._threshold else 1.0 / self.limit))
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._is_free:
            turn = self._waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)
        if self._waiting and self.pause_s and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.pause_s, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._admit()

    def __repr__(self) -> str:
        return f"<Limiter {self.running} of {int(self.limit)}, {len(self._waiting)} waiting>"


_limiters: dict[str, Limiter] = {}
_FREE = Slot(None)
"""Leave where nothing is paced: there is nothing to end, so that one is enough."""


def of_model(name: str) -> Limiter:
    """The limiter of the provider of a model: what stands before the slash, the whole name where there is none."""
    return _limiters.setdefault(name.partition("/")[0], Limiter())


async def slot(model: str) -> Slot:
    """A slot for a call of this model; at once where nothing is paced here."""
    return await of_model(model).slot() if is_paced.get() else _FREE


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limiters.clear)  # who waits there is the parent's
