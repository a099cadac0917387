"""What waits for its turn in a session: messages that came while a run was going on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from turncell.core.parts import Message, Text

if TYPE_CHECKING:
    from turncell.runtime.run import Run

QueueMode = Literal["one", "all"]
"""one: each waiting message becomes a run of its own. all: what waits when the turn comes becomes one run, as far as it
was sent to the same agent with the same options: a message sent in mode "plan" never runs in another one."""


@dataclass(slots=True)
class Waiting:
    """A message and the run that it will be."""

    input_id: str
    message: Message
    run: Run = field(repr=False)
    terms: tuple[object, ...] = field(default=(), repr=False)
    """Who answers it, and how: messages are joined only where these are equal."""


class InputQueue:
    """The messages that wait, oldest first. Every method may be called from any thread.

    `len(queue)` counts, iterating gives a snapshot, `remove(input_id)` and `clear()` take back what has not begun:
    the runs they were to be end as cancelled at once, and leave no record.
    """

    def __init__(self) -> None:
        self.mode: QueueMode = "one"
        self._waiting: list[Waiting] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._waiting))

    def put(self, waiting: Waiting) -> None:
        with self._lock:
            self._waiting.append(waiting)

    def remove(self, input_id: str, reason: str = "taken back before its turn") -> bool:
        """Whether there was such a message."""
        return self._take_back(lambda waiting: waiting.input_id == input_id, reason) > 0

    def take_back(self, run: Run, reason: str) -> bool:
        """Whether this run was waiting. Not by its id: one that is resumed again may wait twice under the same."""
        return self._take_back(lambda waiting: waiting.run is run, reason) > 0

    def clear(self) -> int:
        """How many there were. None of them begins, also not while others are being taken back."""
        return self._take_back(lambda _: True, "taken back before its turn")

    def _take_back(self, is_wanted: Callable[[Waiting], bool], reason: str) -> int:
        with self._lock:
            found = [waiting for waiting in self._waiting if is_wanted(waiting)]
            self._waiting = [waiting for waiting in self._waiting if not is_wanted(waiting)]
        for waiting in found:
            waiting.run.withdraw(reason)
        return len(found)

    def begin(self, run: Run) -> Message | None:
        """The message of the run whose turn it is, with mode "all" joined with all that wait; None: it was taken.

        Not by its id: a run that is resumed, taken back and resumed again waits twice under the same one.
        """
        with self._lock:
            mine = next((waiting for waiting in self._waiting if waiting.run is run), None)
            if mine is None:
                return None
            taken = [mine]
            if self.mode == "all":
                for other in self._waiting[self._waiting.index(mine) + 1 :]:
                    if other.terms != mine.terms:
                        break
                    taken.append(other)
            for waiting in taken:
                self._waiting.remove(waiting)
        for other in taken:
            if other is not mine:
                other.run.join(mine.run)
        return mine.message if len(taken) == 1 else _joined([waiting.message for waiting in taken])


def _joined(messages: list[Message]) -> Message:
    parts = [part for message in messages for part in (*message.parts, Text("\n\n"))]
    return Message("user", tuple(parts[:-1]))
