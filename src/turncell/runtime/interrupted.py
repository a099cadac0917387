"""Runs that their program has left open: what ends them, what they need to be gone on with, what is told of them later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from turncell.core.events import Event, one_by_one
from turncell.core.fold import RunState
from turncell.core.loop_state import LoopState
from turncell.core.parts import Message
from turncell.core.reducer import INTERRUPTED, reduce
from turncell.core.signals import Begin, Resume, Stop
from turncell.errors import UsageError
from turncell.runtime.tools import ToolSource

if TYPE_CHECKING:
    from turncell.runtime.driver import Setup
    from turncell.runtime.session import Session

RESTARTED_SINCE = (
    "The program was restarted since the last message. Variables and open connections of before are gone; what is in "
    "files and in this conversation is still there."
)
DONE_BEFORE = (
    "This message was said before, and that turn was interrupted. It is not shown here, but its calls have been made; do "
    "not repeat what has happened:"
)


def was_cut_short(run: RunState) -> bool:
    """Its program ended in the middle of it, also where it was gone on with."""
    return run.error_kind == INTERRUPTED or any(added.by == "restart" for step in run.steps for added in step.after)


def ended(left: RunState, seq: int, at: float) -> tuple[RunState, tuple[Event, ...]]:
    """An interrupted run as one that nobody goes on with, and the events that say so; `seq` is the session's last."""
    begin = Begin(started=left.started, message=left.prompt or Message("user", ()))
    stop = Stop(at, "cancelled", INTERRUPTED, "the program ended, and the turn was not gone on with")
    done = reduce(reduce(LoopState(), stop).state, Resume(at, begin, left, seq, {}))
    return done.state.run, tuple(one_by_one(done.events))


def check_resumable(session: Session, left: RunState, setup: Setup, sources: tuple[ToolSource, ...] = ()) -> None:
    """Before anything is recorded: a run that cannot be gone on with is left as it was. `sources`: not asked yet."""
    missing = sorted(
        {call.name for call in left.calls if call.is_open and call.digest and call.name not in setup.tools}
    )
    if missing and not sources:
        raise UsageError(
            f"the interrupted run has open calls of {', '.join(missing)}, and this agent has no such tool; it has "
            f"{list(setup.tools)}. Resume it with an agent that has: session.resume(agent=agent)"
        )
    if not setup.policy.is_attended:
        session.check_decided()


def told_of_before(session: Session, replaces: str | None) -> tuple[str, ...]:
    """What the runtime has to say to a model that cannot know it from the conversation."""
    told = []
    if session.was_driven_elsewhere and any(run.calls for run in session.runs):
        told.append(RESTARTED_SINCE)
    if replaces is None:
        return tuple(told)
    done = [
        f"{call.name}({json.dumps(call.arguments)[:500]}): {(call.content or '')[:500]}"
        for run in session.replaced_by(replaces)
        if was_cut_short(run)
        for call in run.calls
        if call.effect != "read" and call.started_at is not None
    ]
    if done:
        told.append("\n- ".join((DONE_BEFORE, *done)))
    return tuple(told)
