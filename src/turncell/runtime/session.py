"""Session: a conversation. Owns one journal's worth of records and the order of its runs."""

from __future__ import annotations

import asyncio
import builtins
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from turncell.core import codec
from turncell.core.conversation import Conversation, arrange
from turncell.core.events import Arranged, Event, RequestAnswered, RequestOpened, RulesChanged, RunStarted
from turncell.core.fold import RunState, at_rest, fold
from turncell.core.parts import Message, Usage
from turncell.core.policy import Rule
from turncell.core.reducer import LoopState, reduce
from turncell.core.signals import Begin, Resume, Stop
from turncell.core.values import evolve
from turncell.errors import SessionBusy, UsageError
from turncell.runtime import defaults
from turncell.runtime.inputs import InputQueue
from turncell.runtime.journal import Journal, read_whole, to_event, to_record
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.ports import SessionInfo, Store
from turncell.runtime.prompts import Prompt, new_id
from turncell.runtime.rulebook import check_plain
from turncell.runtime.secrets import redactor

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.run import Run
    from turncell.runtime.tools import Tool

_owners: WeakValueDictionary[tuple[int, str], Session] = WeakValueDictionary()
"""Which object writes a session of a journal: a claim is the process's, and two objects would not know of each other."""
_owning = threading.Lock()
if hasattr(os, "register_at_fork"):
    # It may be held by a thread that does not exist in the child.
    os.register_at_fork(before=_owning.acquire, after_in_parent=_owning.release, after_in_child=_owning.release)


class Session:
    """A conversation. Made by `agent.session()`, `Session.new` or `Session.load`.

    `runs` are those the conversation consists of, in order; the history is a tree of all of them, and nothing is erased:
    `undo`, `redo`, `retry`, `edit` and `branch` choose another path through it.
    """

    def __init__(self, session_id: str, journal: Journal, title: str = "") -> None:
        self.id = session_id
        self.journal = journal
        self.title = title
        self.agent: Agent | None = None
        """Who answers messages that are sent without naming an agent."""
        self.queue = InputQueue()
        """The messages that wait for their turn."""
        self.running: Run | None = None
        """The run whose turn it is."""
        self.context: tuple[Message, ...] = ()
        """What the running run's model was told before its message."""
        self.answers: dict[str, str] = {}
        """What people have answered to questions, by the question's digest: it is not asked twice."""
        self.conversation = Conversation()
        self.seq = 0
        """The last sequence number of its journal."""
        self.left_behind: list[tuple[str, Future[Any]]] = []
        """Writes in threads that could not be stopped: the tool's name, and what is still to come of them."""
        self.pid = os.getpid()
        self._rules: tuple[Rule, ...] = ()
        """The latest last."""
        self._has_new_rules = False
        """There is no run yet to record them with: the first one does."""
        self._all: dict[str, RunState] = {}
        self._turn: asyncio.Lock | None = None
        self._is_claimed = False
        self._is_new = False

    @classmethod
    def new(cls, journal: Journal, title: str = "") -> Session:
        title = redactor().text(title)
        session = cls(new_id("ses"), journal, title)
        session._is_new = True
        at, project = time.time(), os.getcwd()
        journal.submit(lambda store: store.create_session(session.id, title=title, project=project, at=at))
        return session

    @classmethod
    def load(cls, session_id: str, journal: Journal | None = None) -> Session:
        """A session from its journal. Raises UsageError if there is none of this id."""
        journal = journal or defaults.journal()
        session = cls(session_id, journal)
        journal.ask(lambda store: session._read(store))
        return session

    @classmethod
    def newest(cls, journal: Journal | None = None, *, everywhere: bool = False) -> Session:
        """The session of this folder (or of all) that was used last. UsageError where there is none."""
        found = cls.list(journal, everywhere=everywhere)
        if not found:
            where = "in this history" if everywhere else f"of the folder {os.getcwd()}"
            raise UsageError(f"there is no session {where} yet; begin one with agent.session()")
        return cls.load(found[0].session_id, journal)

    @classmethod
    def list(cls, journal: Journal | None = None, *, everywhere: bool = False) -> tuple[SessionInfo, ...]:
        """The sessions of this folder, or all of them; the one that was used last first. Not those of sub-agents."""
        known = (journal or defaults.journal()).ask(_of_people) or ()
        here = os.getcwd()
        mine = [one for one in known if everywhere or one.project == here]
        return tuple(sorted(mine, key=lambda one: one.updated_at, reverse=True))

    def _read(self, store: Store) -> None:
        """On the journal's thread: everything that is recorded."""
        infos = {info.session_id: info for info in store.sessions()}
        if self.id not in infos:
            raise UsageError(f"there is no session {self.id!r} in this history")
        events: dict[str, builtins.list[Event]] = {}
        conversation, asking, seq, rules = Conversation(), [], 0, self._rules if self._has_new_rules else ()
        for record in read_whole(store, session_id=self.id):
            event = to_event(record)
            seq = record.seq
            if isinstance(event, RulesChanged):  # also after the end of its run, which it must not change
                rules = event.rules
                continue
            events.setdefault(record.run_id, []).append(event)
            conversation = arrange(conversation, event)
            if isinstance(event, RequestOpened | RequestAnswered):
                asking.append(event)
        self.title, self.conversation, self.seq = infos[self.id].title, conversation, seq
        folded = ((run_id, at_rest(fold(of_run))) for run_id, of_run in events.items())
        self._all = {run_id: run for run_id, run in folded if run.run_id}
        self.answers, self._rules = _answers_in(asking), tuple(rules)

    async def claimed(self) -> None:
        """Be the one writer, and know all that was written before. Raises SessionBusy."""
        if self._is_claimed:
            return
        self._own()
        await asyncio.wrap_future(self.journal.claim(self.id))
        if not self._is_new:
            await asyncio.wrap_future(self.journal.submit(self._read))
        self._is_claimed = True

    def _claim(self, *, takes_over: bool = False) -> None:
        """`claimed`, from any thread. Blocks, and needs nobody but the journal's thread."""
        if self._is_claimed and not takes_over:
            return
        self._own()
        self.journal.claim(self.id, takes_over=takes_over).result()
        if not self._is_new:
            self.journal.ask(self._read)
        self._is_claimed = True

    def _own(self) -> None:
        """Take the place of another object of this process, which reads anew before it writes again."""
        key = (id(self.journal), self.id)
        with _owning:
            other = _owners.get(key)
            if other is not None and other is not self:
                if other.is_busy:
                    raise SessionBusy(
                        f"session {self.id} has a run going on in this process ({self.pid}), by another Session object; "
                        "wait for it or cancel it, or fork the session (session.fork())"
                    )
                other._is_claimed = other._is_new = False
            _owners[key] = self

    def hold(self) -> None:
        """Become its writer without a run, and stay it until `close`. SessionBusy where somebody else is."""
        self._claim_idle()

    @staticmethod
    def is_held(session_id: str, journal: Journal) -> bool:
        """A Session object of this process writes it."""
        owner = _owners.get((id(journal), session_id))
        return owner is not None and (owner._is_claimed or owner.is_busy)

    @property
    def is_busy(self) -> bool:
        """A run of it is going on in this process, or waits for its turn."""
        return self.running is not None or len(self.queue) > 0

    def take_over(self) -> None:
        """Become the writer in the place of another process. Only when that one is gone for good: it is not asked."""
        self._claim(takes_over=True)

    def close(self) -> None:
        """Let other processes write it. It may be used again, and is claimed again then."""
        self._idle()
        if self._is_claimed:
            self._is_claimed = False
            self.journal.release(self.id).result()
        self._is_new = False

    def _idle(self) -> None:
        if self.is_busy:
            raise UsageError("a run of this session is going on; wait for it or cancel it first")

    # What it consists of.

    @property
    def runs(self) -> tuple[RunState, ...]:
        """The runs of the conversation that have ended, or were interrupted, in order."""
        return tuple(self._all[run_id] for run_id in self.conversation.path if run_id in self._all)

    @property
    def all_runs(self) -> tuple[RunState, ...]:
        """All runs, undone and replaced ones too, in the order in which they began. `previous` makes a tree of them."""
        return tuple(self._all.values())

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a model is told before the next message."""
        return tuple(message for run in self.runs for message in run.messages())

    def messages_before(self, run_id: str | None) -> tuple[Message, ...]:
        """The messages of the runs before this one; None: of all."""
        if run_id not in self.conversation.path:
            return self.messages
        before = set(self.conversation.before(str(run_id)))
        return tuple(message for run in self.runs if run.run_id in before for message in run.messages())

    def run_before(self, run_id: str | None) -> RunState | None:
        """The run before this one; None: the last."""
        path = self.conversation.before(str(run_id)) if run_id in self.conversation.path else self.conversation.path
        return self._all.get(path[-1]) if path else None

    def run_of_cell(self, cell_id: str | None) -> str | None:
        """The run of the conversation that this cell of a notebook began."""
        return next((run.run_id for run in self.runs if cell_id is not None and run.cell_id == cell_id), None)

    @property
    def interrupted(self) -> RunState | None:
        """The run that its program has left open; `resume` goes on with it."""
        return self.left_open if self.running is None else None

    @property
    def left_open(self) -> RunState | None:
        """`interrupted`, also for the run that is about to go on with it, or to end it."""
        # One whose beginning is lost (a damaged record) cannot be gone on with.
        return next((run for run in reversed(self._all.values()) if run.run_id and not run.is_ended), None)

    def add(self, run: RunState) -> None:
        """A run has ended."""
        if not run.run_id:
            return  # taken back before it began
        if run.run_id not in self._all:
            self.conversation = arrange(self.conversation, run.started)
        self._all[run.run_id] = run
        self.seq = max(self.seq, run.seq)

    def leave_behind(self) -> None:
        """End an interrupted run, because something else is said instead of going on with it. Only where it is claimed."""
        left = self.left_open
        if left is None:
            return
        at = time.time()
        begin = Begin(started=left.started, message=left.prompt or Message("user", ()))
        stop = Stop(at, "cancelled", "interrupted", "the program ended, and the turn was not gone on with")
        state = reduce(reduce(LoopState(), stop).state, Resume(at, begin, left, self.seq, {}))
        self.journal.record(state.events)
        self.add(state.state.run)

    # Another path through the history.

    def undo(self) -> RunState:
        """Take the last run out of the conversation; returns it. `redo` brings it back."""
        self._claim_idle()
        if not self.runs:
            raise UsageError("there is nothing to undo: the conversation is empty")
        undone = self.runs[-1].run_id
        self._arrange(self.conversation.without_last(), "undo", undone)
        return self._all[undone]

    def redo(self) -> None:
        """Bring back what the last `undo` took out; UsageError where nothing was, or something was said since."""
        self._claim_idle()
        if not self.conversation.undone:
            raise UsageError("there is nothing to redo")
        path = self.conversation.undone[-1]
        self._arrange(path, "redo", path[-1])

    def branch(self, run_id: str) -> None:
        """Go on after this run of the history, whatever came after it before."""
        self._claim_idle()
        self._known(run_id)
        self._arrange(self._path_to(run_id), "branch", run_id)

    def _path_to(self, run_id: str | None) -> tuple[str, ...]:
        if run_id in self.conversation.path:  # its own predecessors may have been replaced since
            return (*self.conversation.before(str(run_id)), str(run_id))
        path: builtins.list[str] = []
        while run_id in self._all and run_id not in path:  # what was imported may go round in a circle
            path.append(str(run_id))
            run_id = self._all[str(run_id)].previous
        return tuple(reversed(path))

    def retry(self, run_id: str | None = None, *, agent: Agent | None = None, **options: Any) -> Run:
        """Ask again what a run (the last, if none is given) was asked: a new run in its place, with nothing after it."""
        return self.edit(None, run_id, agent=agent, **options)

    def edit(
        self, message: Prompt | None, run_id: str | None = None, *, agent: Agent | None = None, **options: Any
    ) -> Run:
        """Say something else in the place of what a run (the last, if none is given) was asked. What came after is left."""
        self._claim_idle()
        if not self.runs and run_id is None:
            raise UsageError("there is nothing to say again: the conversation is empty")
        run = self._known(run_id or self.runs[-1].run_id)
        said = message if message is not None else run.prompt
        before = self.conversation
        is_there = run.run_id in before.path
        path = self._path_to(run.run_id if is_there else run.previous)
        if path != before.path:
            self._arrange(path, "branch", run.run_id)
        try:
            return self.send(said or "", agent=agent, replaces=run.run_id if is_there else None, **options)
        except UsageError:  # a mistake must not cost what came after
            if path != before.path:
                self._arrange(before.path, "branch", before.path[-1])
            raise

    def resume(self, *, agent: Agent | None = None, **options: Any) -> Run:
        """Go on with the run that was interrupted (see `Agent.resume`)."""
        return self._agent(agent).resume(self, **options)

    def _known(self, run_id: str) -> RunState:
        if run_id not in self._all:
            raise UsageError(f"there is no run {run_id!r} in session {self.id}; its runs are {list(self._all)}")
        return self._all[run_id]

    def _claim_idle(self) -> None:
        """Before anything is decided by what the conversation is: another process may have gone on with it."""
        self._idle()
        self._claim()

    def _arrange(self, path: tuple[str, ...], reason: Literal["undo", "redo", "branch"], run_id: str) -> None:
        self.leave_behind()
        event = Arranged(
            seq=self.seq + 1, session_id=self.id, run_id=run_id, step=0, at=time.time(), path=path, reason=reason
        )
        self.journal.record([event]).result()
        self.seq += 1
        self.conversation = arrange(self.conversation, event)

    def rename(self, title: str) -> None:
        title = redactor().text(title)
        self.journal.ask(lambda store: store.rename(self.id, title))
        self.title = title

    def delete(self) -> None:
        """Erase it with all its runs, and those of its sub-agents, from the store. It cannot be undone.

        SessionBusy where another process writes it.
        """
        self._claim_idle()
        mine = set(self._all)
        self.journal.ask(lambda store: store.delete([self.id, *_inside(store, mine)]))
        self._all, self.conversation, self._is_claimed, self.seq, self._rules = {}, Conversation(), False, 0, ()

    def fork(self, upto: str | None = None, title: str = "") -> Session:
        """A new session that begins with copies of this one's runs, up to and with `upto` (None: all that have ended).

        The copies are marked (`copy_of`): what they cost is counted here. A run that has not ended is left out: it may
        be going on elsewhere, and its calls must not be gone on with twice.
        """
        if not self._is_claimed and not self._is_new and not self.is_busy:
            self.journal.ask(self._read)
        path = self.conversation.path
        if upto is not None:
            run = self._known(upto)
            if upto not in path:
                raise UsageError(f"run {upto!r} is not in this conversation; use branch(run_id) first")
            if not run.is_ended:
                raise UsageError(f"run {upto!r} has not ended; resume it first, or fork up to the run before it")
            path = path[: path.index(upto) + 1]
        path = tuple(run_id for run_id in path if run_id in self._all and self._all[run_id].is_ended)
        forked = Session.new(self.journal, title or f"{self.title} (fork)".strip())
        forked.agent = self.agent
        self.journal.ask(lambda store: _copy(store, self.id, forked.id, path, self.journal.writer.token))
        forked._is_new = False
        self.journal.ask(forked._read)
        return forked

    def replay(self, *, tools: Iterable[Tool | Callable[..., Any]] | None = None) -> builtins.list[Run]:
        """Every run of the conversation again, from the record alone: offline, nothing done, nothing stored. Blocks.

        `compare(run, again)` says where one differs. `tools` are those whose schemas and validation count; None makes
        them of the record.
        """
        if BackgroundLoop.current().is_here:
            raise UsageError(
                "session.replay() would block the loop that runs live on; call it from a thread of your own"
            )
        return defaults.replay(self, tools)

    def export(self, path: str | Path) -> Path:
        """Write it into one file, whole: JSON lines (`.jsonl`) or a readable Markdown document (`.md`).

        Sessions of sub-agents are not in it. `Session.import_file` reads both. StoreError where it cannot be written.
        """
        from turncell.runtime import portable

        return portable.export(self, Path(path))

    @classmethod
    def import_file(cls, path: str | Path, journal: Journal | None = None) -> Session:
        """A session that `export` has written, under its own id, in this history. StoreError for any other file.

        Also where this history has a session or a run of that id already: what was done must not be counted twice.
        Nothing is imported then. What somebody allowed for the session is not taken over: a file must not allow anything.
        """
        from turncell.runtime import portable

        return portable.import_file(Path(path), journal or defaults.journal())

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

    def send(self, message: Prompt, *, steer: bool = False, agent: Agent | None = None, **options: Any) -> Run:
        """Say something, also while a run is going on.

        With `steer` the running run (or the one that is about to begin) reads it at its next boundary; that run is
        returned, and `options` play no part. Otherwise, and where none is running, it begins a run, which waits its
        turn (see `queue`). `options` are those of `Agent.start`.
        """
        agent = self._agent(agent)
        running = self.current
        if steer and running is not None:
            with suppress(UsageError):  # it has ended meanwhile: the message begins a run
                running.steer(message)
                return running
        return agent.start(message, session=self, **options)

    def _agent(self, agent: Agent | None) -> Agent:
        agent = agent or self.agent
        if agent is None:
            raise UsageError("this session has no agent; use agent.session(), or name one: agent=agent")
        return agent

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
        return self._rules[::-1]

    def remember(self, rule: Rule) -> None:
        """Keep a rule for this session, also over a restart; recorded when this returns, but on the background loop.

        What was said last counts: it takes the place of what was said before of the same tool and arguments. A fork
        begins without rules. UsageError for one that holds a secret, SessionBusy where another process writes the session.
        """
        check_plain(rule)
        kept = evolve(rule, where=dict(rule.where))
        self._change_rules(
            lambda rules: (*(old for old in rules if (old.tool, old.where) != (kept.tool, kept.where)), kept)
        )

    def revoke(self, rule: Rule) -> bool:
        """Forget a rule, for good. Whether there was such a rule; SessionBusy where another process writes the session."""
        return self._change_rules(lambda rules: tuple(old for old in rules if old != rule))

    def _change_rules(self, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> bool:
        """Whether that changes anything."""
        self._claim()  # another process may have changed them since
        loop = BackgroundLoop.current()
        before, written = loop.call(lambda: (self._rules, self._set_rules(change(self._rules)))).result()
        if written is not None and not loop.is_here:
            written.result()
        return before != self._rules

    def _set_rules(self, rules: tuple[Rule, ...]) -> Future[None] | None:
        """On the loop, where all numbers of a session are given out."""
        if rules == self._rules:
            return None
        self._rules = rules
        run = self.running
        if run is not None and run.take_rules(rules):
            return None
        last = run.state if run is not None and run.state.run_id else next(reversed(self._all.values()), None)
        if last is None:
            self._has_new_rules = True
            return None
        self.seq = max(self.seq, last.seq) + 1
        event = RulesChanged(seq=self.seq, session_id=self.id, run_id=last.run_id, step=0, at=time.time(), rules=rules)
        return self.journal.record([event])

    def take_new_rules(self) -> tuple[Rule, ...]:
        """What was remembered before there was a run to record it with; once."""
        is_new, self._has_new_rules = self._has_new_rules, False
        return self._rules if is_new else ()

    # What was used.

    @property
    def is_tainted(self) -> bool:
        """The model has read what an untrusted tool returned."""
        return any(run.is_tainted for run in self.runs)

    @property
    def last_usage(self) -> Usage | None:
        """Tokens of the latest model call that said any; None before it."""
        steps = (step for run in reversed(self.runs) for step in reversed(run.steps))
        return next((step.usage for step in steps if step.usage != Usage()), None)

    @property
    def last_total_tokens(self) -> int | None:
        """Input and output tokens of the latest model call: how full the context is. None where they are not known."""
        usage = self.last_usage
        if usage is None or usage.input_tokens is None:
            return None
        return usage.input_tokens + (usage.output_tokens or 0)

    def __repr__(self) -> str:
        count = len(self.conversation.path)
        return f"<Session {self.id}: {count} run{'s' * (count != 1)}>"


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


def _copy(store: Store, source: str, target: str, path: tuple[str, ...], token: str) -> None:
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
                changes |= {"root_run_id": names[run_id], "parent_run_id": None, "depth": 0}
            records.append(to_record(evolve(event, **changes)))
        store.append(records, durable=False, token=token)
        previous = names[run_id]


def _of_people(store: Store) -> list[SessionInfo]:
    """All sessions but those of sub-agents, which nobody has a conversation with."""
    started = (codec.decode_json(record.payload) for record in store.read(types=("RunStarted",)))
    inner = {event["session_id"] for event in started if event.get("depth")}
    return [info for info in store.sessions() if info.session_id not in inner]


def _inside(store: Store, run_ids: set[str]) -> set[str]:
    """The sessions of the sub-agents that these runs have had."""
    started = (codec.decode_json(record.payload) for record in store.read(types=("RunStarted",)))
    return {event["session_id"] for event in started if event.get("depth") and event.get("root_run_id") in run_ids}
