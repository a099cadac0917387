"""The runs inside calls, those of sub-agents: each stands under the call that it was started in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from turncell.core.fold import CallState, RunState
from turncell.frames.visible import one_line, visible
from turncell.frames.words import Outcome

Inside: TypeAlias = Mapping[tuple[str, str], Sequence[RunState]]
"""The runs inside, by the run and the call around them."""

MOST_SHOWN = 20
"""Of one call. A batch inside a call has thousands, and all that is shown is saved with the notebook."""
DEEPEST = 8
PROMPT_WIDTH = 100

_OUTCOMES = {
    "running": Outcome("●", "Running", "info"),
    "waiting": Outcome("●", "Waiting for you", "warn"),
    "completed": Outcome("✓", "", "ok"),
    "failed": Outcome("✕", "Failed", "err"),
}
_STOPPED = Outcome("⊘", "Stopped", "quiet")


def by_call(runs: Iterable[RunState]) -> Inside:
    found: dict[tuple[str, str], list[RunState]] = {}
    for run in runs:
        if run.started.parent_run_id and run.started.parent_call_id:
            found.setdefault((run.started.parent_run_id, run.started.parent_call_id), []).append(run)
    return found


def inside_of(run: RunState, call: CallState, inside: Inside) -> tuple[Sequence[RunState], str]:
    """The runs inside a call, and a note on those that are too many. A record may lie: only what is deeper is inside."""
    deeper = [one for one in inside.get((run.run_id, call.call_id), ()) if run.depth < one.depth <= DEEPEST]
    rest = len(deeper) - MOST_SHOWN
    return deeper[:MOST_SHOWN], f"… {rest:,} more run{'s' * (rest != 1)}" if rest > 0 else ""


def agent_of(run: RunState) -> str:
    return visible(run.started.agent) or "Agent"


def prompt_of(run: RunState) -> str:
    return one_line(visible(run.prompt.text), PROMPT_WIDTH) if run.prompt else ""


def steps_of(run: RunState) -> str:
    return f"{len(run.steps)} step{'s' * (len(run.steps) != 1)}"


def outcome_of(run: RunState) -> Outcome:
    return _OUTCOMES.get(run.status, _STOPPED)
