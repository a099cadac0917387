"""Session: a conversation. Owns one journal's worth of records and the order of its runs."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterable

from turncell.core import codec
from turncell.core.events import Event
from turncell.core.fold import RunState, fold
from turncell.core.parts import Message
from turncell.errors import UsageError
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Record

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """An id that sorts by the time it was made: milliseconds and 40 random bits in Crockford's base 32.

    Source: the ULID specification's alphabet and order, with fewer random bits.
    """
    number = (time.time_ns() // 1_000_000) << 40 | secrets.randbits(40)
    digits = ""
    while number:
        number, digit = divmod(number, 32)
        digits = _ALPHABET[digit] + digits
    return f"{prefix}_{digits}"


class Session:
    """A conversation: `runs` in order, each a RunState. Made by `Session.new` or `Session.load`."""

    def __init__(self, session_id: str, journal: Journal, runs: Iterable[RunState] = ()) -> None:
        self.id = session_id
        self.journal = journal
        self._runs = list(runs)
        self._messages = tuple(message for run in self._runs for message in run.messages())
        self._turn: asyncio.Lock | None = None

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
        return cls(session_id, journal, runs_of(records))

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
    def turn(self) -> asyncio.Lock:
        """Held by the run whose turn it is; on the background loop."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        return self._turn

    def add(self, run: RunState) -> None:
        self._runs.append(run)
        self._messages += run.messages()

    def __repr__(self) -> str:
        return f"<Session {self.id}: {len(self._runs)} run{'s' * (len(self._runs) != 1)}>"


def runs_of(records: Iterable[Record]) -> list[RunState]:
    """Fold records into their runs, in the order in which the runs began."""
    events: dict[str, list[Event]] = {}
    for record in records:
        events.setdefault(record.run_id, []).append(codec.decode(record.payload))
    return [fold(of_run) for of_run in events.values()]
