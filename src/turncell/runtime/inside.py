"""What the runs inside a run have done, as the store has it.

A call that only reads may have had an agent in it, and that agent may have written: its calls stand in a session of its
own. Where such a call is begun again, a new agent does again what the first has done. So a run that is not whole is
asked here before anything of it is repeated.
"""

from __future__ import annotations

from collections.abc import Container

from turncell.core import codec
from turncell.core.events import Event
from turncell.core.fold import RunState
from turncell.runtime.journal import read_whole, to_event
from turncell.runtime.ports import SessionInfo, Store

REPEATABLE = frozenset({"read", "idempotent"})


def has_begun_inside(store: Store, run: RunState, *, since: float = 0.0, but: Container[str] = REPEATABLE) -> bool:
    """Whether a call of another effect than these has begun in a run inside it that began at `since` or later."""
    root = run.root_run_id or run.run_id
    mark = root.encode()
    inside: dict[str, list[tuple[str, float]]] = {}
    for record in store.read(types=("RunStarted",)):
        if record.run_id != root and mark in record.payload:  # most belong elsewhere, and need not be decoded
            started = codec.decode_json(record.payload)
            if not started.get("copy_of"):
                inside.setdefault(str(started.get("parent_run_id")), []).append((record.run_id, record.at))
    looking = [run_id for run_id, at in inside.get(run.run_id, []) if at >= since]
    while looking:
        run_id = looking.pop()
        for record in store.read(run_id=run_id, types=("CallStarted",)):
            if codec.decode_json(record.payload).get("effect") not in but:
                return True
        looking += [inner for inner, _ in inside.get(run_id, [])]
    return False


def doubtful_calls(store: Store, run: RunState) -> frozenset[str]:
    """Calls of a run that was left open, by their ids, that may be begun again for themselves and not for what was in them."""
    if run.is_ended or not run.steps:
        return frozenset()
    begun = [(call.call_id, call.started_at) for call in run.steps[-1].calls if call.is_open]
    return frozenset(id_ for id_, at in begun if at is not None and has_begun_inside(store, run, since=at))


def events_inside(store: Store, session_id: str) -> dict[str, list[Event]]:
    """By run, those of the sub-agents that the runs of a session have had, in the order in which they began."""
    events: dict[str, list[Event]] = {}
    for info in sessions_inside(store, session_id):
        for record in read_whole(store, session_id=info.session_id):
            events.setdefault(record.run_id, []).append(to_event(record))
    return events


def sessions_inside(store: Store, session_id: str) -> list[SessionInfo]:
    """The sessions of the sub-agents that the runs of a session have had, the oldest first."""
    inner = [info for info in store.sessions() if info.root_run_id]
    if not inner:
        return []
    begun = {record.run_id for record in store.read(session_id=session_id, types=("RunStarted",))}
    return sorted((info for info in inner if info.root_run_id in begun), key=lambda info: info.created_at)
