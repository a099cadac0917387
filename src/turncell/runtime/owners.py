"""Which Session object of this process writes a session, and which sessions it has driven."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from turncell.errors import SessionBusy
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Store
from turncell.runtime.process import has_ended

if TYPE_CHECKING:
    from turncell.runtime.run import Run
    from turncell.runtime.session import Session

_owners: WeakValueDictionary[tuple[int, str], Session] = WeakValueDictionary()
"""Which object writes a session of a journal: a claim is the process's, and two objects would not know of each other."""
_owning = threading.Lock()
_driven: set[tuple[int, str]] = set()
if hasattr(os, "register_at_fork"):
    # It may be held by a thread that does not exist in the child.
    os.register_at_fork(before=_owning.acquire, after_in_parent=_owning.release, after_in_child=_owning.release)


def own(session: Session) -> None:
    """Take the place of another object of this process, which reads anew before it writes again."""
    key = (id(session.journal), session.id)
    with _owning:
        other = _owners.get(key)
        if other is not None and other is not session:
            if other.is_busy:
                raise SessionBusy(
                    f"session {session.id} has a run going on in this process ({session.pid}), by another Session object; "
                    "wait for it or cancel it, or fork the session (session.fork())"
                )
            other.give_way()
        _owners[key] = session


def owner_of(session_id: str, journal: Journal) -> Session | None:
    return _owners.get((id(journal), session_id))


def running_runs() -> list[Run]:
    """The runs of this process whose turn it is, one for each session that has one."""
    return [owner.running for owner in list(_owners.values()) if owner.running is not None]


def may_be_driven(store: Store, session_id: str) -> bool:
    """Whether an open run of it may be going on: its writer lives, and is not this process with nothing to do."""
    writer = store.writer(session_id)
    if writer is None or has_ended(writer):
        return False
    mine = [owner.is_busy for (_, known), owner in list(_owners.items()) if known == session_id]
    return writer.pid != os.getpid() or any(mine)


def mark_driven(session_id: str) -> None:
    """A run of it was driven by this process: what the model did in another one has left no variables here."""
    _driven.add((os.getpid(), session_id))


def was_driven(session_id: str) -> bool:
    return (os.getpid(), session_id) in _driven
