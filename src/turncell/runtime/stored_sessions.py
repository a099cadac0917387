"""Sessions as a store has them, none of which is loaded for it: those of a list, and a copy for a fork."""

from __future__ import annotations

from typing import Any

from turncell.core.events import Arranged, Compacted, Pruned, RulesChanged, RunStarted
from turncell.core.fold import at_rest, fold
from turncell.core.values import evolve
from turncell.runtime.inside import doubtful_calls
from turncell.runtime.journal import read_whole, to_event, to_record
from turncell.runtime.owners import may_be_driven
from turncell.runtime.ports import SessionInfo, Store
from turncell.runtime.prompts import new_id


def of_people(store: Store) -> list[SessionInfo]:
    """All sessions but those of sub-agents, which nobody has a conversation with. Says what was left open in each."""
    open_runs: dict[str, str] = {}
    rows: set[str] = set()
    for record in store.read(types=("RunStarted", "RunEnded")):
        if record.type == "RunStarted" and _OF_A_BATCH in record.payload:
            rows.add(record.session_id)
        if record.type == "RunEnded":
            open_runs.pop(record.run_id, None)
        else:
            open_runs[record.run_id] = record.session_id
    last = {session_id: run_id for run_id, session_id in open_runs.items()}
    return [
        _described(store, evolve(one, is_row=True) if one.session_id in rows else one, last.get(one.session_id))
        for one in store.sessions()
        if not one.root_run_id
    ]


def session_of(store: Store, run_id: str) -> str | None:
    """The session that a run is in, by its id; None where there is no such run."""
    return next((record.session_id for record in store.read(run_id=run_id, types=("RunStarted",))), None)


_OF_A_BATCH = b'"cell_id":"map:'
"""In the record of a run that began as a row (see `runtime/batch.py`)."""


def _described(store: Store, info: SessionInfo, open_run: str | None) -> SessionInfo:
    if open_run is None:
        return info
    records = read_whole(store, session_id=info.session_id)
    run = fold(to_event(record) for record in records if record.run_id == open_run)
    run = at_rest(run, doubtful_calls(store, run))
    if not run.run_id or run.is_ended:
        return info
    left: Any = "running" if may_be_driven(store, info.session_id) else run.status
    return evolve(info, left=left)


def copy_runs(store: Store, source: str, target: str, path: tuple[str, ...], token: str) -> None:
    """Copy the records of these runs into a session, under new ids and in the order of the path."""
    names = {run_id: new_id("run") for run_id in path}
    seq, previous = 0, None
    for run_id in path:
        records = []
        for record in read_whole(store, session_id=source, run_id=run_id):
            event = to_event(record)
            # Who asked to remember something for this session has not said so of another one.
            if isinstance(event, Arranged | RulesChanged):
                continue
            seq += 1
            changes: dict[str, Any] = {"session_id": target, "seq": seq, "run_id": names[run_id]}
            if isinstance(event, RunStarted):
                # What a run of before has replaced is not here: the copies follow each other as the path says.
                changes |= {"previous": previous, "replaces": None, "copy_of": event.copy_of or run_id}
                changes |= {"root_run_id": names[run_id], "parent_run_id": None, "parent_call_id": None, "depth": 0}
            elif isinstance(event, Compacted):
                covers = tuple(names.get(covered, covered) for covered in event.covers)
                changes |= {"upto_run_id": names.get(event.upto_run_id, event.upto_run_id), "covers": covers}
            elif isinstance(event, Pruned):
                changes["passages"] = tuple((names.get(run, run), number) for run, number in event.passages)
            records.append(to_record(evolve(event, **changes)))
        store.append(records, durable=False, token=token)
        previous = names[run_id]
