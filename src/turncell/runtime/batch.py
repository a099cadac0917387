"""A batch: one run for each row, and a result for each row, whatever became of it.

* A row is known by its key: the batch's name, a digest of the prompt and of all that the agent answers with, and which of
  several equal rows it is. The key is the `cell_id` of its run, so that a row is what a cell of a notebook is: run again,
  it takes the place of its earlier run, in that run's session.
* Under a name that was used before, a row whose run has completed is not run again: its answer is read from the store. One
  whose run was interrupted goes on where it was. One that may have written is never begun anew: a write in doubt is for a
  person (`in_doubt`), and a run that has written and then failed stays as it is.
* All rows spend from one budget. When it is spent the rows that have not begun end with status "budget".
* Rows begin as fast as the provider takes them (`runtime/limiter.py`), at most `concurrency` side by side.
* With an executor a row is driven by a worker, which records in the same store under a claim of its own. The intent of a
  write is on disk there before the effect; so whoever finds the session after a worker's death, another worker that is
  handed the same row included, knows whether it may go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import pickle
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from turncell import settings
from turncell.core import codec
from turncell.core.budget import RESOURCES
from turncell.core.digest import canonical_json
from turncell.core.fold import RunState
from turncell.core.parts import Message
from turncell.core.values import evolve
from turncell.errors import SessionInDoubt, TurncellError, UsageError, say
from turncell.runtime import defaults, limiter, trace
from turncell.runtime.agent_options import as_limits
from turncell.runtime.budget import Budget, Refusal, Reservation, limits_of
from turncell.runtime.hooks import called
from turncell.runtime.inside import has_begun_inside
from turncell.runtime.journal import Journal
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.options import number, text, whole
from turncell.runtime.output_type import ANSWER_TOOL, Misfit, OutputType
from turncell.runtime.ports import Store
from turncell.runtime.prompts import Prompt, as_message, new_id
from turncell.runtime.session import Session
from turncell.runtime.telemetry import TelemetryWriter, record_of
from turncell.runtime.threads import in_thread

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent
    from turncell.runtime.run import Run

log = logging.getLogger("turncell")

CONCURRENCY = 32
"""Rows side by side, where nothing else is said; the limiter lets fewer call a model at once."""
INTERRUPT_S = 0.25
"""How long one wait in the caller's thread lasts: a signal that comes just before it begins is seen only after it."""
_KEY = "map:"
_STOPPED = "the batch was stopped before this row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one row. `status` is that of its run, or "in_doubt", "interrupted"; "failed" also where it could not begin."""

    number: int
    """Its place in the input, 0 ..."""
    status: str
    error: str | None = None
    text: str = ""
    output: Any = None
    """A value of the type that was asked for; None where the row has not completed."""
    tokens: int | None = None
    """Input and output of all its model calls; None where nobody said, or none was made."""
    cost_usd: float | None = None
    run_id: str = ""
    """Empty where no run has begun."""
    session_id: str = ""
    is_reused: bool = False
    """It had completed before, and was read from the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a batch is: after each row that has ended, and at the beginning (`row` is None)."""

    done: int
    total: int
    failed: int
    """Of those done, the ones that have not completed."""
    reused: int
    tokens: int
    cost_usd: float
    """Of what is known."""
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class _Share:
    """What a row may spend elsewhere, and what was set aside for it."""

    limits: Mapping[str, Any]
    reserved: Reservation | None


class Batch:
    """Rows that are run. Made and driven by `map_rows`; everything but `stop` belongs to the background loop.

    `name` finds the rows again in a later batch; without one it gets an id.
    """

    def __init__(
        self,
        agent: Agent,
        prompts: Sequence[Prompt | Exception],
        *,
        output: Any = None,
        budget: Budget | Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        timeout_s: float | None = None,
        name: str | None = None,
        executor: Executor | None = None,
        tell: Callable[[Progress], Any] | None = None,
    ) -> None:
        self.agent, self.prompts, self.executor = agent, prompts, executor
        self.name = text("resume", name) if name is not None else new_id("bat")
        if not self.name:
            raise UsageError("resume is ''; use the name of the batch")
        self.concurrency = CONCURRENCY if concurrency is None else whole("concurrency", concurrency, least=1)
        self.timeout_s = number("timeout_s", timeout_s)
        self.output = agent.output if output is None else OutputType(output)
        self._asked_for = output
        self._tell = tell
        self._told = Progress(done=0, total=len(prompts), failed=0, reused=0, tokens=0, cost_usd=0.0)
        self.rows: list[Row | None] = [None] * len(prompts)
        self.is_stopped = False
        self._runs: set[Run] = set()
        self._away_rows: set[Future[bytes]] = set()
        self._spending: set[int] = set()
        """The rows that are running, by their numbers."""
        self._ends: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        within = trace.current_trace()
        self.budget = _budget(agent, budget, within.driver.setup.budget if within else None)
        agent.check("-", output=output)
        if executor is not None:
            if not callable(getattr(executor, "submit", None)):
                raise UsageError(f"executor is {executor!r}; use a concurrent.futures.Executor")
            if within is not None:
                raise UsageError(
                    "agent.map(executor=...) cannot be used inside a run: its workers would not know of it"
                )
            if agent.journal is not defaults.journal():
                raise UsageError(
                    "rows in workers are recorded in the store of the settings, and this agent has a journal of its own; "
                    "leave out journal=, and set TURNCELL_STORE"
                )
            self._payload = packed(agent)

    # The whole.

    async def run(self) -> list[Row]:
        """Every row, in order. Never raises for what becomes of a row."""
        limiter.is_paced.set(True)
        keys = _keys(self.name, self.agent, self.prompts, self.output)
        wanted = {key for key in keys if key}
        earlier = await in_thread(self.agent.journal.ask, lambda store: _earlier(store, wanted))
        self._say(None)
        free = asyncio.Semaphore(self.concurrency)
        pace = limiter.of_model(self.agent.models.name)
        for number_, key in enumerate(keys):
            await free.acquire()
            # What is done in workers is paced there.
            while not self.is_stopped and self.executor is None and len(self._tasks) >= max(1, int(pace.limit)):
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._guard(number_, key, earlier.get(key)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: free.release())
        while self._tasks:
            await asyncio.wait(self._tasks)
        return [row or Row(number=n, status="cancelled", error=_STOPPED) for n, row in enumerate(self.rows)]

    def stop(self, reason: str = "interrupted") -> None:
        """From any thread: what runs is cancelled, nothing else begins."""

        def end() -> None:
            self.is_stopped = True
            for run in tuple(self._runs):
                run.cancel(reason)
            for future in tuple(self._away_rows):
                future.cancel()  # one that a worker has begun goes on to its end

        BackgroundLoop.current().call(end)

    async def _guard(self, number_: int, key: str, session_id: str | None) -> None:
        try:
            row = await self._row(number_, key, session_id)
        except asyncio.CancelledError:
            if not self.is_stopped:
                raise
            row = Row(number=number_, status="cancelled", error=_STOPPED)
        except SessionInDoubt as error:
            row = Row(number=number_, status="in_doubt", error=str(error), session_id=session_id or "")
        except BaseException as error:
            if not isinstance(error, TurncellError):
                log.exception("row %d of the batch %s failed", number_, self.name)
            said = str(error) if isinstance(error, TurncellError) else say(error)
            row = Row(number=number_, status="failed", error=said, session_id=session_id or "")
        self.rows[number_] = row
        self._say(row)

    def _say(self, row: Row | None) -> None:
        told = self._told
        if row is not None:
            is_paid = not row.is_reused
            told = self._told = Progress(
                done=told.done + 1, total=told.total, failed=told.failed + (row.status != "completed"),
                reused=told.reused + row.is_reused, tokens=told.tokens + (row.tokens or 0) * is_paid,
                cost_usd=told.cost_usd + (row.cost_usd or 0.0) * is_paid, row=row,
            )  # fmt: skip
        if self._tell is not None:
            self._tell(told)

    # One row.

    async def _row(self, number_: int, key: str, session_id: str | None) -> Row:
        prompt = self.prompts[number_]
        if isinstance(prompt, Exception):
            raise prompt
        left: RunState | None = None
        if session_id is not None:
            left = await in_thread(_last_run, session_id, self.agent.journal, key)
        if left is not None and left.status == "completed":
            return self._result(number_, left, is_reused=True)
        if self.is_stopped:
            return Row(number=number_, status="cancelled", error=_STOPPED)
        if left is not None and left.status == "in_doubt":
            return self._result(number_, left)
        if left is not None and left.is_ended and await self._has_written(left):
            row = self._result(number_, left, is_reused=True)
            said = "it has written something before it failed, and is not run again"
            return evolve(row, error=f"{row.error or row.status}; {said}")
        while isinstance(share := self._share(), str):
            if not self._spending:
                return Row(number=number_, status="budget", error=share)
            await self._next_end()  # others have set aside more than they may need
            if self.is_stopped:
                return Row(number=number_, status="cancelled", error=_STOPPED)  # type: ignore[unreachable]
        self._spending.add(number_)
        try:
            if self.executor is not None:
                after = left.run_id if left is not None else ""
                return await self._away(number_, key, prompt, session_id, after, share)
            return await self._here(number_, key, prompt, session_id)
        finally:
            self._spending.discard(number_)
            ends, self._ends = self._ends, []
            for end in ends:
                end.set()

    async def _has_written(self, state: RunState) -> bool:
        """Itself, or an agent in one of its calls, whose own record says so."""
        if has_written(state) or not any(call.started_at is not None for call in state.calls):
            return has_written(state)
        return await in_thread(self.agent.journal.ask, lambda store: has_begun_inside(store, state, but=("read",)))

    async def _next_end(self) -> None:
        end = asyncio.Event()
        self._ends.append(end)
        await end.wait()

    async def _here(self, number_: int, key: str, prompt: Prompt, session_id: str | None) -> Row:
        session = await in_thread(Session.load, session_id, self.agent.journal) if session_id else self._session(prompt)
        state = await drive(
            self.agent, session, prompt, key, output=self._asked_for, timeout_s=self.timeout_s,
            budget=self.budget.child(**_own_limits(self.agent)), begun=self._begun,
        )  # fmt: skip
        return self._result(number_, state)

    def _session(self, prompt: Prompt) -> Session:
        return self.agent.session(f"{self.name}: {as_message(prompt).text[:60]}")

    def _begun(self, run: Run) -> None:
        self._runs.add(run)
        run.done.add_done_callback(lambda _: self._runs.discard(run))
        if self.is_stopped:
            run.cancel("interrupted")

    def _result(self, number_: int, state: RunState, *, is_reused: bool = False) -> Row:
        status, error, output = state.status, state.error, None
        if status == "completed" and self.output is not None:
            output = self.output.of(state)
            if isinstance(output, Misfit):  # the type has changed since
                status, error, output = "failed", f"the output is no {self.output.name}: {output.problem}", None
        if status == "in_doubt":
            error = (
                "its program ended while a write was running, and whether that has happened is not known; decide it with "
                f"Session.load({state.session_id!r}).resume(agent=agent, is_attended=True)"
            )
        used = (state.usage.input_tokens, state.usage.output_tokens)
        return Row(
            number=number_, status=status, error=error, text=state.text, output=output,
            tokens=None if used == (None, None) else sum(one or 0 for one in used), cost_usd=state.cost_usd,
            run_id=state.run_id, session_id=state.session_id, is_reused=is_reused,
        )  # fmt: skip

    # Rows in workers.

    async def _away(
        self, number_: int, key: str, prompt: Prompt, session_id: str | None, after: str, share: _Share
    ) -> Row:
        """`after` is the run that this one takes the place of."""
        assert self.executor is not None
        journal = self.agent.journal
        if session_id is None:
            session_id = self._session(prompt).id
            await asyncio.wrap_future(journal.submit(lambda _: None))  # the worker must find it
        limits = _narrowest(_own_limits(self.agent), share.limits)
        job = (self._payload, session_id, prompt, key, after, self._asked_for, limits, self.timeout_s)
        state: RunState | None = None
        try:
            future = self.executor.submit(_work, pack(job), settings.current())
            self._away_rows.add(future)
            future.add_done_callback(self._away_rows.discard)
            came: bytes = await asyncio.wrap_future(cast("Future[Any]", future))
            state = pickle.loads(came)
        except asyncio.CancelledError:
            self._settle(share.reserved, None)  # else who shares the budget would wait for it
            raise
        except BaseException as error:
            # The worker has died, or could not do it: what it has recorded tells how far it came.
            state = await in_thread(_last_run, session_id, journal, key)
            if state is None or not state.is_ended:
                self._settle(share.reserved, state)
                row = self._result(number_, state) if state is not None else Row(number=number_, status="failed")
                said = str(error) if isinstance(error, TurncellError) else f"its worker failed: {say(error)}"
                return evolve(row, error=row.error or said, session_id=session_id)
        self._settle(share.reserved, state)
        await self._tell_of(state)
        return self._result(number_, state)

    def _share(self) -> _Share | str:
        """What the next row may spend; or that there is nothing, in words.

        A process that cannot see this budget gets an equal part of what is left, which is set aside.
        """
        spent = _spent(self.budget)
        if spent is not None or self.executor is None:
            return spent or _Share({}, None)
        left, free = self.budget.left(), max(1, self.concurrency - len(self._spending))
        limits: dict[str, Any] = {}
        for name in RESOURCES:
            rest = getattr(left, name)
            if rest is not None:
                limits[name] = rest if name == "seconds" else rest / free if name == "usd" else max(1, rest // free)
        reserved = self.budget.reserve(**{name: amount for name, amount in limits.items() if name != "seconds"})
        return reserved.message if isinstance(reserved, Refusal) else _Share(limits, reserved)

    def _settle(self, reserved: Reservation | None, state: RunState | None) -> None:
        """What the row has spent, in the place of its share."""
        if reserved is not None:
            reserved.release()
        if state is None:
            return
        used, calls = state.usage, sum(call.started_at is not None for call in state.calls)
        tokens = (used.input_tokens or 0) + (used.output_tokens or 0)
        self.budget.charge(steps=len(state.steps), calls=calls, tokens=tokens, usd=state.cost_usd)

    async def _tell_of(self, state: RunState) -> None:
        """Telemetry stays here: workers have none of this process's writers."""
        if not state.is_ended:
            return
        for writer in self.agent.telemetry:
            if isinstance(writer, TelemetryWriter):
                try:
                    await called(writer.write, record_of(state, agent=self.agent.name))
                except Exception:
                    log.exception("the telemetry writer %r raised", writer)


def map_rows(agent: Agent, prompts: Sequence[Prompt | Exception], **options: Any) -> tuple[list[Row], Batch]:
    """Run a batch and wait, in any thread but that of the loop. `options` are those of `Batch`.

    An interrupt (Ctrl-C) ends it with what is done: rows that have not completed say "cancelled". A second one is raised.
    What stands in a prompt's place as an exception is the error of its row.
    """
    loop = BackgroundLoop.current()
    if loop.is_here:
        raise UsageError(
            "map would block the loop that runs live on; in async tools use await asyncio.to_thread(agent.map, ...)"
        )
    news: queue.Queue[Progress | None] = queue.Queue()
    tell = options.pop("tell", None)
    batch = Batch(agent, prompts, tell=news.put if tell is not None else None, **options)
    done = loop.spawn(batch.run())
    done.add_done_callback(lambda _: news.put(None))
    is_told = tell is not None
    while True:
        try:
            progress = news.get(timeout=INTERRUPT_S)
            if progress is None:
                break
            if is_told:
                tell(progress)
        except queue.Empty:
            if done.done():  # an interrupt has taken the last news along
                break
        except KeyboardInterrupt:
            if batch.is_stopped:
                raise
            batch.is_stopped = True
            batch.stop()
        except Exception:
            log.exception("the progress callback %r raised", tell)
            is_told = False
    return done.result(), batch


async def drive(
    agent: Agent,
    session: Session,
    prompt: Prompt,
    key: str,
    *,
    output: Any = None,
    budget: Budget | Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    begun: Callable[[Run], None] = lambda _: None,
) -> RunState:
    """A row to its end: begun, or gone on with where it was interrupted. SessionInDoubt where a person must decide."""
    options: dict[str, Any] = {"is_attended": False, "output": output, "budget": budget, "timeout_s": timeout_s}
    session.agent = agent
    if session.left_open is not None:
        run = await in_thread(agent.resume, session, **options)
    else:
        run = agent.start(prompt, session=session, cell_id=key, **options)
    begun(run)
    try:
        await run
    except BaseException:
        run.cancel("the batch was stopped")
        raise
    await in_thread(session.close)
    return run.state


def has_written(state: RunState) -> bool:
    """Whether a call that is no read has begun in it."""
    return any(
        call.started_at is not None and call.effect != "read" and call.name != ANSWER_TOOL for call in state.calls
    )


# In a worker.


def _work(job: bytes, chosen: settings.Settings) -> bytes:
    """Drive one row in this process, which records in the store that the settings name."""
    settings.use(chosen)
    payload, session_id, prompt, key, after, output, limits, timeout_s = pickle.loads(job)
    agent = _unpacked(payload)
    journal = defaults.journal()
    limiter.is_paced.set(True)
    left = _last_run(session_id, journal, key)
    if left is not None and left.is_ended and left.run_id != after:
        return pickle.dumps(left)  # a scheduler that has lost a worker hands out its task again
    session = Session.load(session_id, journal)

    async def drive_here() -> RunState:
        return await drive(agent, session, prompt, key, output=output, budget=limits or None, timeout_s=timeout_s)

    state = BackgroundLoop.current().spawn(drive_here()).result()
    journal.flush()
    return pickle.dumps(state)


def pack(value: Any) -> bytes:
    """As bytes for another process: functions of a notebook too, where cloudpickle is there (Dask brings it)."""
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(value)
    packed_: bytes = cloudpickle.dumps(value)
    return packed_


def packed(agent: Agent) -> bytes:
    """An agent for workers. UsageError where something of it cannot travel."""
    try:
        return pack(agent)
    except Exception as error:
        raise UsageError(
            f"{agent!r} cannot be sent to workers: {say(error)}. Define its tools and functions at the top of a module "
            "that workers can import, or install cloudpickle; give a model by its name"
        ) from error


_agents: dict[bytes, Agent] = {}
"""The agent of the last batch: a worker builds it once, with its models and their connections."""


def _unpacked(payload: bytes) -> Agent:
    digest = hashlib.sha256(payload).digest()
    found = _agents.get(digest)
    if found is None:
        _agents.clear()
        found = _agents[digest] = pickle.loads(payload)
    return found


# Keys, and what is there already.


def _keys(name: str, agent: Agent, prompts: Sequence[Prompt | Exception], output: OutputType | None) -> list[str]:
    """One for each row; "" where there is no prompt."""
    specs = sorted((tool.name, tool.spec.description, tool.spec.schema) for tool in agent.tools.values())
    about = [agent.models.name, agent.instructions, specs, output.schema if output else None, agent.answering]
    of_agent = hashlib.sha256(canonical_json(about).encode()).hexdigest()
    seen: dict[str, int] = {}
    keys = []
    for prompt in prompts:
        try:
            message = as_message(prompt) if not isinstance(prompt, Exception) else None
        except UsageError:
            message = None
        if message is None:
            keys.append("")
            continue
        digest = _digest(of_agent, message)
        seen[digest] = seen.get(digest, 0) + 1
        keys.append(f"{_KEY}{name}:{digest}:{seen[digest]}")
    return keys


def _digest(of_agent: str, message: Message) -> str:
    return hashlib.sha256(of_agent.encode() + codec.encode(message)).hexdigest()[:32]


def _earlier(store: Store, keys: set[str]) -> dict[str, str]:
    """By key, the session in which its row was run last."""
    found: dict[str, str] = {}
    mark = f'"{_KEY}'.encode()
    for record in store.read(types=("RunStarted",)):
        if mark in record.payload:  # most are not of a batch, and need not be decoded
            started = codec.decode_json(record.payload)
            if started.get("cell_id") in keys and not started.get("copy_of"):
                found[started["cell_id"]] = record.session_id
    return found


def _last_run(session_id: str, journal: Journal, key: str) -> RunState | None:
    """The run of a row that counts, as the store has it. Blocks."""
    session = Session.load(session_id, journal)
    runs: Iterable[RunState] = reversed(session.all_runs)
    return next((run for run in runs if run.cell_id == key), None)


# The budget.


def _budget(agent: Agent, budget: Budget | Mapping[str, Any] | None, around: Budget | None) -> Budget:
    if isinstance(budget, Budget):
        return budget
    parent = around or (agent.budget if agent.shares_budget else None)
    return Budget(**({} if budget is None else as_limits(budget)), parent=parent)


def _own_limits(agent: Agent) -> dict[str, Any]:
    """What each run of this agent is limited to."""
    return limits_of(agent.budget) if agent.budget is not None and not agent.shares_budget else {}


def _narrowest(*limits: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in limits:
        for name, value in each.items():
            found[name] = min(found[name], value) if isinstance(found.get(name), int | float) else value
    return found


def _spent(budget: Budget) -> str | None:
    """That nothing is left of it for another row, in words."""
    overrun = budget.overrun()
    if overrun is not None:
        return overrun
    left = budget.left()
    for name in RESOURCES:
        rest = getattr(left, name)
        if rest is not None and name != "calls" and (rest <= 0 or math.isclose(rest, 0.0, abs_tol=1e-12)):
            return f"the budget of the batch has no {name} left; raise it, and run the batch again under its name"
    return None
