"""The conversation of a session: which of its runs it consists of, from the events alone.

A session is a tree: every run knows the one before it, and nothing is erased. The conversation is one path through
it. A new run is appended, or takes the place of another one (a cell that is run again), whose successors keep their
places. Undo, redo and branching arrange the path anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from turncell.core import events as ev
from turncell.core.values import evolve


@dataclass(frozen=True, slots=True)
class Conversation:
    path: tuple[str, ...] = ()
    """The ids of its runs, in order."""
    undone: tuple[tuple[str, ...], ...] = ()
    """The paths that redo brings back, the next one last."""
    replacements: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """The path before a run took the place of another, and the path with it: undo goes from the second to the first."""
    branched: tuple[str, tuple[str, ...]] | None = None
    """The last change was a branch: to which run, and the path before. An edit is a branch and a run in that run's place."""

    def before(self, run_id: str) -> tuple[str, ...]:
        """The path up to a run of it, without it."""
        return self.path[: self.path.index(run_id)]

    def undo(self) -> tuple[str, ...]:
        """The path before the last message: with what it has replaced, or without its run."""
        return next((before for before, after in self.replacements if after == self.path), self.path[:-1])


def arrange(conversation: Conversation, event: ev.Event) -> Conversation:
    """The conversation after one more event of the session.

    >>> first = ev.RunStarted(seq=1, session_id="s", run_id="a", step=0, at=0.0, model="m", mode="ask", max_steps=1)
    >>> arrange(Conversation(), first).path
    ('a',)
    """
    path = conversation.path
    if isinstance(event, ev.RunStarted):
        if event.replaces not in path:
            return evolve(conversation, path=(*path, event.run_id), undone=(), branched=None)
        after = tuple(event.run_id if run == event.replaces else run for run in path)
        branched = conversation.branched
        before = branched[1] if branched is not None and branched[0] == event.replaces else path
        replacements = (*conversation.replacements, (before, after))
        return evolve(conversation, path=after, undone=(), replacements=replacements, branched=None)
    if not isinstance(event, ev.Arranged):
        return conversation
    now = evolve(conversation, path=tuple(event.path), branched=None)
    if event.reason == "undo":
        return evolve(now, undone=(*conversation.undone, path))
    if event.reason == "redo":
        return evolve(now, undone=conversation.undone[:-1])
    return evolve(now, undone=(), branched=(event.run_id, path))
