"""The runs inside calls, those of sub-agents: each stands under the call that it was started in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias, cast

from turncell.core.fold import CallState, RunState
from turncell.errors import UsageError
from turncell.frames.visible import one_line, visible
from turncell.frames.words import Outcome
from turncell.runtime.run import Run
from turncell.runtime.session import Session

Inside: TypeAlias = dict[tuple[str, str], tuple[list[RunState], int]]
"""By the run and the call around them: the runs inside that are shown, and how many more there are."""

Shown: TypeAlias = Run | Session | Iterable[RunState | Run]
"""Runs to be read by people."""

MOST_SHOWN = 20
"""Of one call. A batch inside a call has thousands."""
MOST_SAVED = 100
"""Of one turn, where all that is shown is saved with the notebook."""
DEEPEST = 8
PROMPT_WIDTH = 100

_OUTCOMES = {
    "running": Outcome("●", "Running", "info"),
    "waiting": Outcome("●", "Waiting for you", "warn"),
    "completed": Outcome("✓", "", "ok"),
    "failed": Outcome("✕", "Failed", "err"),
}
_STOPPED = Outcome("⊘", "Stopped", "quiet")


def to_show(what: Shown, inside: Iterable[RunState]) -> tuple[list[RunState], list[RunState]]:
    """The runs, and those inside them: with a Run or a Session its own come along."""
    if isinstance(what, Run):
        return [what.state], [*inside, *what.inner_runs]
    if isinstance(what, Session):
        return list(what.runs), [*inside, *what.inner_runs]
    if not isinstance(what, Iterable):
        raise UsageError(f"what is shown is a Run, a Session or a list of runs; found {what!r}")
    runs = [run.state if isinstance(run, Run) else run for run in what]
    for run in cast(list[object], runs):
        if not isinstance(run, RunState):
            raise UsageError(f"what is shown is a Run, a Session or a list of runs; found {run!r}")
    return runs, list(inside)


def by_call(
    runs: Iterable[RunState],
    inside: Iterable[RunState],
    clean: Callable[[RunState], RunState] = lambda run: run,
    most: int | None = None,
) -> Inside:
    """Which of the runs `inside` stand under the calls of `runs`, at most so many; only those are cleaned.

    A record may lie: only what is deeper is inside, and nothing stands in two places.
    """
    waiting: dict[tuple[str, str], list[RunState]] = {}
    for one in inside:
        if one.started.parent_run_id and one.started.parent_call_id:
            waiting.setdefault((one.started.parent_run_id, one.started.parent_call_id), []).append(one)
    found: Inside = {}
    left = len(waiting) * MOST_SHOWN if most is None else most
    around = deque(runs if waiting else ())
    while around:
        run = around.popleft()
        for call in run.calls:
            key = (run.run_id, call.call_id)
            deeper = [one for one in waiting.pop(key, ()) if run.depth < one.depth <= DEEPEST]
            if deeper:
                shown = [clean(one) for one in deeper[: min(MOST_SHOWN, left)]]
                left -= len(shown)
                found[key] = shown, len(deeper) - len(shown)
                around += shown
    return found


def inside_of(run: RunState, call: CallState, inside: Inside) -> tuple[list[RunState], str]:
    """The runs inside a call, taken out of `inside`, and a note on those that are too many."""
    runs, rest = inside.pop((run.run_id, call.call_id), ([], 0))
    return runs, f"… {rest:,} more run{'s' * (rest != 1)}" if rest > 0 else ""


def agent_of(run: RunState) -> str:
    return visible(run.started.agent) or "Agent"


def prompt_of(run: RunState) -> str:
    return one_line(visible(run.prompt.text), PROMPT_WIDTH) if run.prompt else ""


def outcome_of(run: RunState) -> Outcome:
    return _OUTCOMES.get(run.status, _STOPPED)
