"""What the loop knows of a run, and one transition of it in the making."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from turncell.core import events as ev
from turncell.core.deltas import Assembly, Block
from turncell.core.fold import CallState, RunState, apply, at_rest
from turncell.core.redaction import Open
from turncell.core.signals import Begin, Review, Steer, Stop, TellDenial, Traits
from turncell.core.values import evolve


@dataclass(frozen=True, slots=True)
class Saved:
    """How much of a block was read, and how much came of it in the journal: characters, without its secrets."""

    read_chars: int = 0
    chars: int = 0
    rest: Open = Open()


@dataclass(frozen=True)
class LoopState:
    """The run as its events tell it, and what is in flight besides."""

    run: RunState = RunState()
    assembly: Assembly = Assembly()
    is_streaming: bool = False
    is_judging: bool = False
    saved: tuple[Saved, ...] = ()
    """What of each block is in the journal."""
    saved_at: float = 0.0
    thinking_since: float | None = None
    thought_s: float | None = None
    """Seconds of reasoning of this step that are over."""
    begin: Begin | None = None
    reviewing: Review | None = None
    """Who is being asked; nothing begins meanwhile."""
    cut_short: int = 0
    """Steps in whose middle the program has ended."""
    is_last_word: bool = False
    """The steps are used up and the model is writing a summary."""
    model: int = 0
    """Which of the models answers: a fallback is kept for the steps after it."""
    attempt: int = 1
    recoveries: int = 0
    """How often the conversation was too long for a provider."""
    traits: Mapping[str, Traits] = field(default_factory=dict)
    """Of the calls of this step."""
    denying: frozenset[str] = frozenset()
    """Denied calls whose tool is asked for the words."""
    asking: Mapping[str, int] = field(default_factory=dict)
    """The key of the open question of each running call that asks."""
    terminates: bool = False
    stop: Stop | None = None
    """A stop that came before the beginning: the run begins and ends without a model call."""
    is_left: bool = False
    """Nobody drives it any more, and it has not ended: it can be resumed again."""
    is_unanswered: bool = False
    """Resumed, and no model has said anything since."""
    early: tuple[Steer, ...] = ()
    """What came before the beginning and is said right after it."""

    def live(self) -> RunState:
        """The run with the text that is being written; one that nobody drives any more as its program would leave it."""
        run = self.run
        if self.is_left:
            last = run.steps[-1] if run.steps else None
            told = {} if last is None else {"error_kind": last.error_kind, "error": last.error}
            return evolve(at_rest(run), **told)
        if not self.is_streaming or not run.steps:
            return run
        step = run.steps[-1]
        calls = tuple(CallState(b.call_id, step.step, b.name, b.text) for b in self.assembly.blocks if b.kind == "call")
        blocks = tuple(Block("call", (), b.call_id, b.name) if b.kind == "call" else b for b in self.assembly.blocks)
        return evolve(run, steps=(*run.steps[:-1], evolve(step, blocks=blocks, calls=calls)))

    def reasoning_s(self, at: float) -> float | None:
        """Seconds of reasoning of this step, up to `at`."""
        if self.thinking_since is None:
            return self.thought_s
        return (self.thought_s or 0.0) + max(0.0, at - self.thinking_since)


class Turn:
    """One call of `reducer.reduce` in the making: collects events and folds each at once, so that later lines see it."""

    __slots__ = ("at", "before", "commands", "events", "run", "state")

    def __init__(self, state: LoopState, at: float) -> None:
        self.before, self.state, self.run, self.at = state, state, state.run, at
        self.events: list[ev.Said] = []
        self.commands: list[object] = []

    def record(self, cls: Callable[..., Any], *, step: int | None = None, **values: Any) -> None:
        run = self.run
        event = cls(
            seq=run.seq + 1, session_id=run.session_id, run_id=run.run_id,
            step=len(run.steps) if step is None else step, at=self.at, **values,
        )  # fmt: skip
        self.events.append(event)
        self.run = apply(run, event)

    def set(self, **changes: Any) -> None:
        """Change the state: the first time by a copy, then in that copy, which nobody else has before the transition ends."""
        state = self.state
        if state is self.before:
            self.state = evolve(state, **changes)
            return
        values = state.__dict__
        known = len(values)
        values.update(changes)
        if len(values) != known:
            raise KeyError(f"LoopState has no field of one of these names: {', '.join(changes)}")

    @property
    def calls(self) -> tuple[CallState, ...]:
        return self.run.steps[-1].calls if self.run.steps else ()

    def call(self, call_id: str) -> CallState | None:
        """The call of the open step with this id."""
        return self.run.steps[-1].call(call_id) if self.run.steps else None

    @property
    def begin(self) -> Begin:
        assert self.state.begin is not None
        return self.state.begin

    def finish(self, call: CallState, status: ev.CallEnd, content: str, **shown: Any) -> None:
        duration_s = None if call.started_at is None else max(0.0, self.at - call.started_at)
        self.record(
            ev.CallFinished, call_id=call.call_id, status=status, content=content, duration_s=duration_s, **shown
        )

    def deny(self, call: CallState, content: str, reason: str) -> None:
        """Close a denied call, or let its tool find the words first."""
        if self.state.traits.get(call.call_id, Traits()).answers_denial:
            self.set(denying=self.state.denying | {call.call_id})
            self.commands.append(TellDenial(call, content, reason))
        else:
            self.finish(call, "denied", content)

    def end(
        self, status: ev.EndStatus, kind: str | None = None, message: str | None = None, text: str | None = None
    ) -> None:
        self.record(ev.RunEnded, status=status, kind=kind, message=message, text=text)
