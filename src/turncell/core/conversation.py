"""The conversation of a session: which of its runs it consists of, from the events alone.

A session is a tree: every run knows the one before it, and nothing is erased. The conversation is one path through
it. A new run is appended, or takes the place of another one (a cell that is run again), whose successors keep their
places. Undo, redo and branching arrange the path anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from turncell.core import events as ev


@dataclass(frozen=True, slots=True)
class Conversation:
    path: tuple[str, ...] = ()
    """The ids of its runs, in order."""
    undone: tuple[tuple[str, ...], ...] = ()
    """The paths that redo brings back, the next one last."""

    def before(self, run_id: str) -> tuple[str, ...]:
        """The path up to a run of it, without it."""
        return self.path[: self.path.index(run_id)]

    def without_last(self) -> tuple[str, ...]:
        return self.path[:-1]


def arrange(conversation: Conversation, event: ev.Event) -> Conversation:
    """The conversation after one more event of the session.

    >>> first = ev.RunStarted(seq=1, session_id="s", run_id="a", step=0, at=0.0, model="m", mode="ask", max_steps=1)
    >>> arrange(Conversation(), first).path
    ('a',)
    """
    path = conversation.path
    if isinstance(event, ev.RunStarted):
        if event.replaces in path:
            return Conversation(tuple(event.run_id if run == event.replaces else run for run in path))
        return Conversation((*path, event.run_id))
    if not isinstance(event, ev.Arranged):
        return conversation
    if event.reason == "undo":
        return Conversation(tuple(event.path), (*conversation.undone, path))
    if event.reason == "redo":
        return Conversation(tuple(event.path), conversation.undone[:-1])
    return Conversation(tuple(event.path))


def conversation_of(events: Iterable[ev.Event]) -> Conversation:
    """Fold the events of a session, in order."""
    conversation = Conversation()
    for event in events:
        conversation = arrange(conversation, event)
    return conversation
