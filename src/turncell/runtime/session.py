"""Session: a conversation. Owns one journal's worth of records and the order of its runs."""

from __future__ import annotations

import asyncio
import builtins
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from turncell.core.context import conversation as told_of
from turncell.core.context import messages_of
from turncell.core.conversation import Conversation, arrange
from turncell.core.events import (
    Arranged,
    Event,
    RecordedEvent,
    RequestAnswered,
    RequestOpened,
    RulesChanged,
)
from turncell.core.fold import CallState, RunState, at_rest, fold
from turncell.core.imported import imported
from turncell.core.parts import Message, Usage
from turncell.core.policy import Rule
from turncell.core.values import evolve
from turncell.errors import SessionInDoubt, StoreError, UsageError
from turncell.runtime import defaults, owners, secrets
from turncell.runtime.inputs import InputQueue
from turncell.runtime.inside import doubtful_calls, events_inside, sessions_inside
from turncell.runtime.interrupted import ended, was_cut_short
from turncell.runtime.journal import Journal, read_whole, to_event
from turncell.runtime.loop import BackgroundLoop, finished
from turncell.runtime.options import text
from turncell.runtime.ports import Damage, SessionInfo, Store, Writer
from turncell.runtime.process import has_ended
from turncell.runtime.prompts import Prompt, new_id
from turncell.runtime.rulebook import check_plain
from turncell.runtime.secrets import redactor
from turncell.runtime.stored_sessions import copy_runs, of_people, session_of

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.report import ContextReport
    from turncell.runtime.room import Known
    from turncell.runtime.run import Run
    from turncell.runtime.threads import Work
    from turncell.runtime.tools import Tool


class Session:
    """What was said and done in one place, as a tree of runs. Made by `agent.session()`, `Session.load` or `Session.newest`.

    The conversation is one path through the tree: `runs`, in order. `undo`, `redo`, `retry`, `edit` and `branch` choose
    another path; nothing is erased.
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
        self.before: tuple[RunState, ...] = ()
        """The runs that the running run goes on from."""
        self.known: Known | None = None
        """What its next turn need not find out again."""
        self.windows: dict[str, int] = {}
        """What models have refused as too long, in tokens, by the model's name."""
        self.answers: dict[str, str] = {}
        """What people have answered to questions, by the question's digest: it is not asked twice."""
        self.conversation = Conversation()
        self.seq = 0
        """The last sequence number of its journal."""
        self.left_behind: list[tuple[str, Work[Any]]] = []
        """Writes in threads that could not be stopped: the tool's name, and what is still to come of them."""
        self.notices: tuple[str, ...] | None = None
        """What its next run is told before its message, where that is known already (a replay)."""
        self.pid = os.getpid()
        self._rules: tuple[Rule, ...] = ()
        """The latest last."""
        self._has_new_rules = False
        """There is no run yet to record them with: the first one does."""
        self._all: dict[str, RunState] = {}
        self._open: dict[str, RunState] = {}
        """Those of them that have not ended."""
        self._turn: asyncio.Lock | None = None
        self._is_claimed = False
        self._is_new = False
        self._claiming: Future[None] | None = None
        """The claim of a new session, which its first run has asked for on its way to the loop."""
        self._beginning: builtins.list[Callable[[], None]] | None = None
        """What waits for that."""
        self._begins = threading.RLock()
        self._writer: Writer | None = None
        self._damage: Damage | None = None

    @classmethod
    def new(cls, journal: Journal, title: str = "", messages: Sequence[Message] = ()) -> Session:
        """A session in the current folder: empty, or with the runs that these messages make (see `core.imported`)."""
        session_id, at, project = new_id("ses"), time.time(), os.getcwd()
        told: builtins.list[RecordedEvent] = []
        if messages:
            secrets.refresh()
            ids = iter(partial(new_id, "run"), None)
            brought_in = imported(messages, session_id=session_id, run_ids=ids, at=at)
            told = [secrets.without_secrets(event) for event in brought_in]
            asked = next((message.text for message in messages if message.role == "user"), "")
            title = title or secrets.title_of(asked)
        title = redactor().text(title)
        session = cls(session_id, journal, title)
        session._is_new = True
        journal.create_session(session_id, title=title, project=project, at=at)
        if told:
            session._take_in(told)
        return session

    def _take_in(self, told: builtins.list[RecordedEvent]) -> None:
        """Record whole runs that were held elsewhere: all of them, or none."""
        self.journal.record(told).result()
        self._is_new = False  # whoever claims it reads it first
        for _, events in groupby(told, attrgetter("run_id")):
            self.add(fold(events))

    @classmethod
    def load(cls, session_id: str, journal: Journal | None = None) -> Session:
        """Load a session by its id. UsageError if there is none."""
        journal = defaults.journal(journal)
        session = cls(session_id, journal)
        journal.ask(lambda store: session._read(store))
        return session

    @classmethod
    def of_run(cls, run_id: str, journal: Journal | None = None) -> Session:
        """Load the session that a run is in, such as that of a row of a table. UsageError if there is no such run."""
        found = defaults.journal(journal).ask(lambda store: session_of(store, run_id))
        if found is None:
            raise UsageError(f"there is no run {run_id!r} in this history")
        return cls.load(found, journal)

    @classmethod
    def newest(cls, journal: Journal | None = None, *, everywhere: bool = False) -> Session:
        """Load the session of this folder (or of all) that was used last; not a row of a batch. UsageError if there is none."""
        found = [one for one in cls.list(journal, everywhere=everywhere) if not one.is_row]
        if not found:
            where = "in this history" if everywhere else f"of the folder {os.getcwd()}"
            raise UsageError(f"there is no session {where} yet; begin one with agent.session()")
        return cls.load(found[0].session_id, journal)

    @classmethod
    def list(cls, journal: Journal | None = None, *, everywhere: bool = False) -> tuple[SessionInfo, ...]:
        """The sessions of this folder, or of all, last used first; without those of sub-agents."""
        known = defaults.journal(journal).ask(of_people) or ()
        here = os.getcwd()
        mine = [one for one in known if everywhere or one.project == here]
        return tuple(sorted(mine, key=lambda one: one.updated_at, reverse=True))

    def _read(self, store: Store) -> None:
        """On the journal's thread: everything that is recorded."""
        infos = {info.session_id: info for info in store.sessions()}
        if self.id not in infos:
            raise UsageError(
                f"there is no session {self.id!r} in this history; Session.list(everywhere=True) has the ids and titles"
            )
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
        held = store.writer(self.id)
        self._writer = held if held is not None and held.token != self.journal.writer.token else None
        self._damage = self.journal.known_damage(self.id)
        folded = ((run_id, fold(of_run)) for run_id, of_run in events.items())
        # One whose beginning is lost (a damaged record) has no id: it cannot be gone on with.
        self._all = {run_id: at_rest(run, doubtful_calls(store, run)) for run_id, run in folded if run.run_id}
        self._open = {run_id: run for run_id, run in self._all.items() if not run.is_ended}
        self.answers, self._rules = _answers_in(asking), tuple(rules)

    def once_claimed(self, begin: Callable[[], None]) -> None:
        """Call `begin`, which puts a run on the loop: at once, or, where a new session is yet to be claimed, after that was tried.

        So its first run wakes the loop once and not twice. Whether the claim was granted is for `claimed` to say, which
        the run still waits for: not at all where the session is claimed as it is made. From any thread; what came first
        begins first.
        """
        with self._begins:
            if self._beginning is not None:
                self._beginning.append(begin)
                return
            if self._is_claimed or not self._is_new or self._claiming is not None:
                begin()
                return
            try:
                self._beginning = [begin]
                self._claiming = self.journal.claim_new(self.id) or self.journal.claim(self.id)
                self._claiming.add_done_callback(self._begin)
            except BaseException:  # Ctrl-C, too: whoever comes next must not wait for a claim that nobody makes
                self._begin(None)
                raise

    def _begin(self, _: object) -> None:
        with self._begins:
            waiting, self._beginning = self._beginning or (), None
            for begin in waiting:
                begin()

    async def claimed(self) -> None:
        """Be the one writer, and know all that was written before. Raises SessionBusy."""
        if self._is_claimed:
            return
        owners.own(self)
        claiming, self._claiming = self._claiming or self.journal.claim(self.id), None
        await finished(claiming)
        if not self._is_new:
            await finished(self.journal.submit(self._read))
        self._is_claimed = True

    def _claim(self, *, takes_over: bool = False) -> None:
        """`claimed`, from any thread. Blocks, and needs nobody but the journal's thread."""
        if self._is_claimed and not takes_over:
            return
        owners.own(self)
        self.journal.claim(self.id, takes_over=takes_over).result()
        if not self._is_new:
            self.journal.ask(self._read)
        self._is_claimed = True

    def hold(self) -> None:
        """Become its writer without a run, and stay it until `close`. SessionBusy where somebody else is.

        Also before anything is decided by what the conversation is: another process may have gone on with it.
        """
        self._idle()
        self._claim()

    @staticmethod
    def is_held(session_id: str, journal: Journal) -> bool:
        """A Session object of this process writes it."""
        owner = owners.owner_of(session_id, journal)
        return owner is not None and (owner._is_claimed or owner.is_busy)

    def give_way(self) -> None:
        """Another object of this process writes it now: read it anew before writing again."""
        self._is_claimed = self._is_new = False

    @property
    def is_busy(self) -> bool:
        """A run of it is going on in this process, or waits for its turn."""
        return self.running is not None or len(self.queue) > 0

    def take_over(self) -> None:
        """Become the writer in place of another process, without asking it: for one that is gone for good, or hangs."""
        self._claim(takes_over=True)

    def close(self) -> None:
        """Let other processes write it. Using it again claims it again."""
        self._idle()
        if self._is_claimed or self._claiming is not None:
            self._is_claimed, self._claiming = False, None
            self.journal.release(self.id).result()
        self._is_new = False

    def _idle(self) -> None:
        if self.is_busy:
            raise UsageError("a run of this session is going on; wait for it or cancel it first")

    # What it consists of.

    @property
    def runs(self) -> tuple[RunState, ...]:
        """The runs of the conversation that have ended, or were interrupted, in order."""
        return tuple([self._all[run_id] for run_id in self.conversation.path if run_id in self._all])

    @property
    def all_runs(self) -> tuple[RunState, ...]:
        """All runs, undone and replaced ones too, in the order in which they began. `previous` makes a tree of them."""
        return tuple(self._all.values())

    @property
    def inner_runs(self) -> tuple[RunState, ...]:
        """The runs of sub-agents inside its runs, at any depth, as far as they are recorded and can be read, at rest."""
        if not any(run.calls for run in self.all_runs):
            return ()
        found = self.journal.ask(lambda store: events_inside(store, self.id)) or {}
        return tuple(at_rest(fold(of_run)) for of_run in found.values())

    @property
    def messages(self) -> tuple[Message, ...]:
        """What a model is told before the next message, with results cut and the middle summarised where room was short."""
        return messages_of(told_of(self.runs))

    def runs_before(self, run_id: str | None) -> tuple[RunState, ...]:
        """The runs of the conversation before this one; None: all."""
        if run_id not in self.conversation.path:
            return self.runs
        before = set(self.conversation.before(str(run_id)))
        return tuple(run for run in self.runs if run.run_id in before)

    def run_before(self, run_id: str | None) -> RunState | None:
        """The run before this one; None: the last."""
        path = self.conversation.before(str(run_id)) if run_id in self.conversation.path else self.conversation.path
        return self._all.get(path[-1]) if path else None

    def run_of_cell(self, cell_id: str | None) -> str | None:
        """The run of the conversation that this cell of a notebook began."""
        if cell_id is None:
            return None
        return next((run.run_id for run in self.runs if run.cell_id == cell_id), None)

    @property
    def interrupted(self) -> RunState | None:
        """The run that was cut off when its program ended; `resume` goes on with it. None while another process may still run it."""
        return self.left_open if self.running is None and self.writer is None else None

    @property
    def writer(self) -> Writer | None:
        """Another process that writes it and may still be alive, as of when it was last read; else None."""
        found = self._writer
        return found if found is not None and not self._is_claimed and not has_ended(found) else None

    @property
    def damage(self) -> Damage | None:
        """Where its record is damaged; None if it is whole. A damaged session is read up to there, and goes on in a fork."""
        return self._damage

    @property
    def left_open(self) -> RunState | None:
        """`interrupted`, also for the run that is about to go on with it, or to end it."""
        found = list(self._open.values())  # at once: another thread may be ending one
        return found[-1] if found else None

    def add(self, run: RunState) -> None:
        """A run has ended."""
        run_id = run.run_id
        if not run_id:
            return  # taken back before it began
        owners.mark_driven(self.id)
        if run_id not in self._all:
            self.conversation = arrange(self.conversation, run.started)
        self._all[run_id] = run
        if run.is_ended:
            self._open.pop(run_id, None)
        else:
            self._open[run_id] = run
        self.seq = max(self.seq, run.seq)

    @property
    def in_doubt(self) -> tuple[CallState, ...]:
        """The writes of the interrupted run that may or may not have happened. `resume` has a person decide them."""
        left = self.left_open
        if left is None or left.status != "in_doubt":
            return ()
        return tuple(call for call in left.calls if call.status == "in_doubt")

    def leave_behind(self) -> None:
        """End an interrupted run, because something else is said instead of going on with it. Only where it is claimed."""
        left = self.left_open
        if left is None:
            return
        self.check_decided()
        state, events = ended(left, self.seq, time.time())
        self.journal.record(events)
        self.add(state)

    def check_whole(self) -> None:
        """StoreError where it is damaged: what cannot be recorded must not begin."""
        if self._damage is not None:
            raise StoreError(str(self._damage))

    @property
    def was_driven_elsewhere(self) -> bool:
        """No run of it was driven by this process."""
        return not owners.was_driven(self.id)

    def replaced_by(self, run_id: str | None) -> Iterable[RunState]:
        """A run whose place is taken, and those whose place it has taken, the latest first, up to one that was not cut short."""
        seen: set[str] = set()
        while run_id in self._all and run_id not in seen:
            run = self._all[str(run_id)]
            if run.status == "completed" and not was_cut_short(run):
                return
            seen.add(run.run_id)
            yield run
            run_id = run.started.replaces

    def check_decided(self) -> None:
        """SessionInDoubt where a write of the interrupted run had begun: nothing replaces that run or goes on after it."""
        if not self.in_doubt:
            return
        self._claim()  # another process may have decided it meanwhile
        if self.in_doubt:
            calls = ", ".join(f"{call.name}({_shortened(call.arguments or {})})" for call in self.in_doubt)
            raise SessionInDoubt(
                f"the program ended while the last turn of session {self.id} was running {calls}; whether that has "
                "happened is not known. Go on with it first: run = session.resume(is_attended=True), then run.approve() "
                "runs it again, run.reply(result) says that it has happened, run.deny() skips it"
            )

    # Another path through the history.

    def undo(self) -> RunState:
        """Take the last run out of the conversation and bring back what it replaced; returns it. `redo` puts it back."""
        self.hold()
        if not self.runs:
            raise UsageError("there is nothing to undo: the conversation is empty")
        path = self.conversation.undo()
        undone = next(run_id for run_id in self.conversation.path if run_id not in path)
        self._arrange(path, "undo", undone)
        return self._all[undone]

    def redo(self) -> None:
        """Put back what the last `undo` took out. UsageError if there is nothing, or something was said since."""
        self.hold()
        if not self.conversation.undone:
            raise UsageError("there is nothing to redo")
        path, now = self.conversation.undone[-1], self.conversation.path
        self._arrange(path, "redo", next((run_id for run_id in path if run_id not in now), path[-1]))

    def branch(self, run_id: str) -> None:
        """Go on after this run, which may be any of `all_runs`. What came after it leaves the conversation."""
        self.hold()
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
        """Ask the prompt of the last run, or of `run_id`, again: a new run in its place. What came after is left out."""
        return self.edit(None, run_id, agent=agent, **options)

    def edit(
        self, message: Prompt | None, run_id: str | None = None, *, agent: Agent | None = None, **options: Any
    ) -> Run:
        """Replace the prompt of the last run, or of `run_id`: a new run in its place. What came after is left out."""
        self.hold()
        if not self.runs and run_id is None:
            raise UsageError("there is nothing to say again: the conversation is empty")
        run = self._known(run_id or self.runs[-1].run_id)
        said = message if message is not None else run.prompt
        before = self.conversation
        is_there = run.run_id in before.path
        path = self._path_to(run.run_id if is_there else run.previous)
        agent = self._agent(agent)
        # A mistake must not cost what came after, nor what redo brings.
        agent.check(said or "", session=self, **options)
        if path != before.path:
            self._arrange(path, "branch", run.run_id)
        return self.send(said or "", agent=agent, replaces=run.run_id if is_there else None, **options)

    def resume(self, *, agent: Agent | None = None, **options: Any) -> Run:
        """Go on with the run that was interrupted (see `Agent.resume`)."""
        return self._agent(agent).resume(self, **options)

    def _known(self, run_id: str) -> RunState:
        if run_id not in self._all:
            raise UsageError(f"there is no run {run_id!r} in session {self.id}; its runs are {list(self._all)}")
        return self._all[run_id]

    def _arrange(self, path: tuple[str, ...], reason: Literal["undo", "redo", "branch"], run_id: str) -> None:
        self.leave_behind()
        event = Arranged(
            seq=self.seq + 1, session_id=self.id, run_id=run_id, step=0, at=time.time(), path=path, reason=reason
        )
        self.journal.record([event]).result()
        self.seq += 1
        self.conversation = arrange(self.conversation, event)

    def rename(self, title: str) -> None:
        """Give it another title, in one line; possible also while another process writes the session."""
        title = redactor().text(" ".join(text("title", title).split()))

        def rename(store: Store) -> str:
            store.rename(self.id, title)
            return next((info.title for info in store.sessions() if info.session_id == self.id), title)

        self.title = self.journal.ask(rename) or title

    def delete(self) -> None:
        """Erase it with all its runs, and those of its sub-agents, from the store. It cannot be undone.

        SessionBusy where another process writes it.
        """
        self.hold()
        self.journal.ask(
            lambda store: store.delete([self.id, *(info.session_id for info in sessions_inside(store, self.id))])
        )
        self._all, self._open, self.conversation = {}, {}, Conversation()
        self._is_claimed, self.seq, self._rules = False, 0, ()

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
        self.journal.ask(lambda store: copy_runs(store, self.id, forked.id, path, self.journal.writer.token))
        forked._is_new = False
        self.journal.ask(forked._read)
        if not self.was_driven_elsewhere:
            owners.mark_driven(forked.id)
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

    def export(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it into one file, whole: JSON lines (`.jsonl`) or a readable Markdown document (`.md`).

        Sessions of its sub-agents are in it too. `Session.import_file` reads both. StoreError where it cannot be written,
        UsageError where a file is there already, unless told to `overwrite` it.
        """
        from turncell.runtime import portable

        return portable.export(self, Path(path), overwrite)

    @classmethod
    def import_file(cls, path: str | Path, journal: Journal | None = None) -> Session:
        """A session that `export` has written, under its own id, in this history. StoreError for any other file.

        Also where this history has a session or a run of that id already: what was done must not be counted twice.
        Nothing is imported then. What somebody allowed for the session is not taken over: a file must not allow anything.
        """
        from turncell.runtime import portable

        return portable.import_file(Path(path), defaults.journal(journal))

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
        """Say something, also while a run is going on; returns the run that answers.

        Without `steer` it begins a run, which waits its turn (see `queue`). With `steer=True` the running run reads it
        before its next step; if none is running, it begins a run. `options` are those of `Agent.start`.
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
        if not hasattr(agent, "start"):
            raise UsageError(f"agent is {agent!r}; use an Agent")
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
        """What people asked to remember for this session; the latest first, which is the order in which rules are tried."""
        return self._rules[::-1]

    def remember(self, rule: Rule) -> None:
        """Keep a rule for this session, also over a restart; recorded when this returns, but on the background loop.

        What was said last counts: it takes the place of what was said before of the same tool and arguments. A fork
        begins without rules. UsageError for one that holds a secret, SessionBusy where another process writes the session.
        """
        if not isinstance(rule, Rule):
            raise UsageError(f"{rule!r} is no rule; use Rule(tool, verdict)")
        check_plain(rule)
        kept = evolve(rule, where=dict(rule.where))
        self._change_rules(
            lambda rules: (*(old for old in rules if (old.tool, old.where) != (kept.tool, kept.where)), kept)
        )

    def revoke(self, rule: Rule) -> bool:
        """Forget a remembered rule; returns whether there was one. SessionBusy if another process writes the session."""
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

    def context_report(self, agent: Agent | None = None) -> ContextReport:
        """What an agent (None: this session's) would send before the next prompt, with the tokens of each part."""
        from turncell.runtime.report import context_report

        return context_report(self, self._agent(agent))

    def __repr__(self) -> str:
        count = len(self.conversation.path)
        return f"<Session {self.id}: {count} run{'s' * (count != 1)}>"

    def _repr_html_(self) -> str:
        return defaults.session_html(self)


def _shortened(arguments: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return said if len(said) <= 200 else said[:199] + "…"


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
