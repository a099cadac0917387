"""Session: a conversation. Owns one journal's worth of records and the order of its runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from turncell.core import codec
from turncell.core.events import Event, RequestAnswered, RequestOpened
from turncell.core.fold import RunState, fold
from turncell.core.parts import Message, Usage
from turncell.core.policy import Rule
from turncell.errors import UsageError
from turncell.runtime.inputs import InputQueue
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Record
from turncell.runtime.prompts import new_id

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.run import Run


class Session:
    """A conversation: `runs` in order, each a RunState. Made by `Session.new` or `Session.load`."""

    def __init__(self, session_id: str, journal: Journal, runs: Iterable[RunState] = ()) -> None:
        self.id = session_id
        self.journal = journal
        self.agent: Agent | None = None
        """Who answers messages that are sent without naming an agent."""
        self.queue = InputQueue()
        """The messages that wait for their turn."""
        self.running: Run | None = None
        """The run whose turn it is."""
        self.answers: dict[str, str] = {}
        """What people have answered to questions, by the question's digest: it is not asked twice."""
        self.left_behind: list[tuple[str, Future[Any]]] = []
        """Writes in threads that could not be stopped: the tool's name, and what is still to come of them."""
        self.pid = os.getpid()
        self._rules: list[Rule] = []
        self._runs: list[RunState] = []
        self._messages: tuple[Message, ...] = ()
        self._turn: asyncio.Lock | None = None
        for run in runs:
            self.add(run)

    @classmethod
    def new(cls, journal: Journal, title: str = "") -> Session:
        session = cls(new_id("ses"), journal)
        at, project = time.time(), os.getcwd()
        journal.submit(lambda store: store.create_session(session.id, title=title, project=project, at=at))
        return session

    @classmethod
    def load(cls, session_id: str, journal: Journal) -> Session:
        """A session from its journal. Raises UsageError if there is none of this id."""
        records = list(journal.ask(lambda store: list(store.read(session_id=session_id))))
        if not records:
            raise UsageError(f"there is no session {session_id!r} in this history")
        session = cls(session_id, journal, runs_of(records))
        session.answers = _answers_in(codec.decode(record.payload) for record in records if record.type in _ASKING)
        return session

    @property
    def runs(self) -> tuple[RunState, ...]:
        """The runs that have ended, in order."""
        return tuple(self._runs)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a model is told before the next message."""
        return self._messages

    @property
    def seq(self) -> int:
        return self._runs[-1].seq if self._runs else 0

    @property
    def current(self) -> Run | None:
        """The run whose turn it is: running, or started a moment ago and not yet begun."""
        first = next(iter(self.queue), None)
        return self.running or (first.run if first is not None else None)

    @property
    def turn(self) -> asyncio.Lock:
        """Held by the run whose turn it is; on the background loop."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        return self._turn

    def add(self, run: RunState) -> None:
        """Another run has ended."""
        self._runs.append(run)
        self._messages += run.messages()

    def send(self, message: str | Message, *, steer: bool = False, agent: Agent | None = None, **options: Any) -> Run:
        """Say something, also while a run is going on.

        With `steer` the running run (or the one that is about to begin) reads it at its next boundary; that run is
        returned, and `options` play no part. Otherwise, and where none is running, it begins a run, which waits its
        turn (see `queue`). `options` are those of `Agent.start`.
        """
        agent = agent or self.agent
        if agent is None:
            raise UsageError("this session has no agent; use agent.session(), or session.send(message, agent=agent)")
        running = self.current
        if steer and running is not None:
            with suppress(UsageError):  # it has ended meanwhile: the message begins a run
                running.steer(message)
                return running
        return agent.start(message, session=self, **options)

    def cancel(self, reason: str = "cancelled by the user") -> bool:
        """Cancel the running run, or the one that is about to begin; whether there was one.

        A session that is idle is left alone, and so is its next run. What else waits in `queue` goes on waiting.
        """
        running = self.current
        if running is None:
            return False
        running.cancel(reason)
        return True

    # What people have asked to remember for this conversation.

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The latest first, which is the order in which they are tried."""
        return tuple(reversed(self._rules))

    def remember(self, rule: Rule) -> None:
        """What was said last counts: it takes the place of what was said before of the same tool and arguments."""
        self._rules = [*(old for old in self._rules if (old.tool, old.where) != (rule.tool, rule.where)), rule]

    def revoke(self, rule: Rule) -> bool:
        """Whether there was such a rule."""
        before = len(self._rules)
        self._rules = [old for old in self._rules if old != rule]
        return len(self._rules) < before

    # What was used.

    @property
    def is_tainted(self) -> bool:
        """The model has read what an untrusted tool returned."""
        return any(run.is_tainted for run in self._runs)

    @property
    def last_usage(self) -> Usage | None:
        """Tokens of the latest model call that said any; None before it."""
        steps = (step for run in reversed(self._runs) for step in reversed(run.steps))
        return next((step.usage for step in steps if step.usage != Usage()), None)

    @property
    def last_total_tokens(self) -> int | None:
        """Input and output tokens of the latest model call: how full the context is. None where they are not known."""
        usage = self.last_usage
        if usage is None or usage.input_tokens is None:
            return None
        return usage.input_tokens + (usage.output_tokens or 0)

    def __repr__(self) -> str:
        return f"<Session {self.id}: {len(self._runs)} run{'s' * (len(self._runs) != 1)}>"


_ASKING = ("RequestOpened", "RequestAnswered")


def _answers_in(events: Iterable[Event]) -> dict[str, str]:
    """What people answered. From the events, for a call keeps only the last of its questions."""
    asked: dict[str, str] = {}
    answers: dict[str, str] = {}
    for event in events:
        if isinstance(event, RequestOpened) and event.kind == "question":
            asked[event.request_id] = event.digest
        elif isinstance(event, RequestAnswered) and event.by == "person" and event.request_id in asked:
            answers[asked[event.request_id]] = event.result or ""
    return {digest: result for digest, result in answers.items() if result}


def runs_of(records: Iterable[Record]) -> list[RunState]:
    """Fold records into their runs, in the order in which the runs began."""
    events: dict[str, list[Event]] = {}
    for record in records:
        events.setdefault(record.run_id, []).append(codec.decode(record.payload))
    return [fold(of_run) for of_run in events.values()]
