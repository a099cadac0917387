"""What must be true of a session whose process was killed: before anybody goes on with it, and after."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.core.test_fold import accepted_by_providers
from tests.crash.scene import LINES, PROMPTS, Scene, attend, lines_of, open_store
from turncell.core import codec
from turncell.core.events import CallFinished, CallProposed, CallStarted
from turncell.core.fold import RunState
from turncell.errors import UsageError
from turncell.runtime.journal import Journal, read_whole
from turncell.runtime.session import Session

SCREEN_S = 1.0
"""What was on the screen for longer is in the history."""
PIECE_S = 0.15
"""From one thing on the screen to the next it takes less, while a process is not held up."""


@dataclass
class Found:
    """One case, for the table."""

    status: str
    """Of the run that was open; "none" where none was."""
    in_doubt: int
    answers: tuple[str, ...]
    lost_s: float
    """For how long the oldest thing that is lost had been on the screen."""


def check(folder: Path, where: str, killed_at: float, seed: int = 0) -> Found:
    """Raises AssertionError that says what is broken."""
    journal = Journal(lambda: open_store(where))
    try:
        return _check(Scene(folder, pace=0.0), journal, killed_at, random.Random(seed))
    finally:
        journal.close()


def _check(scene: Scene, journal: Journal, killed_at: float, dice: random.Random) -> Found:
    seen = scene.seen()
    world = Counter(lines_of(scene.world))
    assert max(world.values(), default=0) <= 1, f"a write has run twice before the crash: {world}"
    session_id = next((one["session"] for one in seen if "session" in one), None)
    try:
        session = Session.load(session_id or "", journal)
    except UsageError:
        lost_s = next((_shown_s(seen, at, killed_at) for at, one in enumerate(seen) if "run" in one), 0.0)
        assert not world and lost_s <= SCREEN_S, f"the session is lost, {lost_s:.2f} s after it was shown"
        return Found("nothing", 0, (), max(0.0, lost_s))
    events = journal.ask(lambda store: [codec.decode(r.payload) for r in read_whole(store, session_id=session.id)])
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the record has gaps"
    lost_s = _lost_s(seen, killed_at, events, {run.run_id: run for run in session.all_runs})
    assert lost_s <= SCREEN_S, f"what was on the screen for {lost_s:.2f} s is lost"
    left = session.interrupted
    _intents_are_on_disk(events, world)
    _open_writes_are_in_doubt(events, left)
    in_doubt = [call for call in left.calls if call.status == "in_doubt"] if left is not None else []
    answers = _go_on(scene, session, journal, left, dice)
    _all_is_well(scene, session, answers)
    return Found(left.status if left is not None else "none", len(in_doubt), tuple(answers.values()), lost_s)


def _shown_s(seen: list[dict[str, Any]], at: int, killed_at: float) -> float:
    """For how long that one was on the screen, without the time in which the machine let the process do nothing."""
    times = [*(one["at"] for one in seen[at:]), killed_at]
    return sum(max(0.0, min(after - before, PIECE_S)) for before, after in pairwise(times))


def _lost_s(seen: list[dict[str, Any]], killed_at: float, events: list[Any], runs: dict[str, RunState]) -> float:
    """For how long the oldest thing that was shown and is not in the history had been shown."""
    recorded = {(event.run_id, event.seq) for event in events}
    shown: Counter[tuple[str, int]] = Counter()
    lost_s = 0.0
    for at, one in enumerate(seen):
        if "text" in one:
            place = (one["run"], one["step"])
            shown[place] += len(one["text"])
            run = runs.get(one["run"])
            step = next((s for s in run.steps if s.step == one["step"]), None) if run is not None else None
            kept = sum(len(block.text) for block in step.blocks if block.kind != "call") if step is not None else 0
            is_kept = shown[place] <= kept
        elif "seq" in one:
            is_kept = (one["run"], one["seq"]) in recorded
        else:
            continue
        if not is_kept:
            lost_s = max(lost_s, _shown_s(seen, at, killed_at))
    return lost_s


def _intents_are_on_disk(events: list[Any], world: Counter[str]) -> None:
    names = {e.call_id: e.arguments for e in events if isinstance(e, CallProposed)}
    meant = {(names[e.call_id] or {}).get("line") for e in events if isinstance(e, CallStarted) and e.effect == "write"}
    assert set(world) <= meant, f"{set(world) - meant} happened without an intent in the history"


def _open_writes_are_in_doubt(events: list[Any], left: RunState | None) -> None:
    finished = {e.call_id for e in events if isinstance(e, CallFinished)}
    writes = {e.call_id for e in events if isinstance(e, CallStarted) and e.effect == "write"}
    doubtful = {call.call_id for call in left.calls if call.status == "in_doubt"} if left is not None else set()
    assert writes - finished == doubtful, f"in doubt is {doubtful}, should be {writes - finished}"
    if doubtful:
        assert left is not None and left.status == "in_doubt"


def _go_on(
    scene: Scene, session: Session, journal: Journal, left: RunState | None, dice: random.Random
) -> dict[str, str]:
    """Resume, and say what was left to say. A person looks at the world before deciding what is in doubt."""
    answers: dict[str, str] = {}
    agent = scene.agent(journal)
    was_finished = {call.call_id for call in left.calls if not call.is_open} if left is not None else set()

    def decide(call: Any) -> tuple[str, str | None]:
        assert call.call_id not in was_finished, "a finished call is asked about again"
        line = call.arguments["line"]
        if call.request.kind == "in_doubt":
            has_happened = line in lines_of(scene.world)
            answer = dice.choice(["result", "deny"] if has_happened else ["approve", "deny"])
            answers[line] = answer
            return answer, f"wrote {line}" if answer == "result" else None
        return "approve", None

    if left is not None:
        run = session.resume(agent=agent, is_attended=True)
        attend(run, decide)
        assert run.status == "completed", f"the resumed run is {run.status}: {run.state.error}"
        assert run.id == left.run_id
    said = [run.prompt.text for run in session.runs if run.prompt is not None]
    assert said == list(PROMPTS[: len(said)])
    for prompt in PROMPTS[len(said) :]:
        run = attend(session.send(prompt, agent=agent, is_attended=True), decide)
        assert run.status == "completed", f"the next run is {run.status}: {run.state.error}"
    return answers


def _all_is_well(scene: Scene, session: Session, answers: dict[str, str]) -> None:
    assert [run.status for run in session.runs] == ["completed"] * len(PROMPTS)
    assert accepted_by_providers(session.messages), "a provider would refuse these messages"
    world = Counter(lines_of(scene.world))
    assert set(world) <= set(LINES) and max(world.values()) == 1, f"a write has run twice: {world}"
    skipped = {line for line, answer in answers.items() if answer == "deny"}
    assert set(LINES) - set(world) <= skipped, f"{set(LINES) - set(world) - skipped} never happened"
    keys = Counter(line.split()[0] for line in set(lines_of(scene.again)))
    assert set(keys.values()) <= {1}, f"an idempotent call got another key: {lines_of(scene.again)}"
    for call in (call for run in session.all_runs for call in run.calls):
        line = (call.arguments or {}).get("line")
        expected = "skipped" if answers.get(str(line)) == "deny" else "ok"
        assert call.status == expected, f"call {call.name}({line}) is {call.status}"
    again = Session.load(session.id, session.journal)
    kept = [(run.status, run.messages()) for run in again.all_runs]
    assert kept == [(run.status, run.messages()) for run in session.all_runs], "the history tells another story"
