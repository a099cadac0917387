"""From an agent and a message to a run on the background loop: its turn, its first signal, its end."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from turncell.core import events as ev
from turncell.core.fold import RunState
from turncell.core.parts import Message
from turncell.core.signals import Begin, Resume, Review
from turncell.errors import SessionBusy, StoreError, TurncellError, UsageError
from turncell.runtime import secrets, telemetry, trace
from turncell.runtime.agent_options import check_tool_choice
from turncell.runtime.budget import limits_of
from turncell.runtime.bus import Bus
from turncell.runtime.caller_loop import called_from, running_loop
from turncell.runtime.driver import Driver, Setup
from turncell.runtime.hooks import called
from turncell.runtime.inputs import Waiting
from turncell.runtime.interrupted import told_of_before
from turncell.runtime.loop import BackgroundLoop, finished
from turncell.runtime.run import Run
from turncell.runtime.telemetry import TelemetryWriter, record_of
from turncell.runtime.tools import gather_tools

if TYPE_CHECKING:
    from turncell.runtime.agent import Agent

log = trace.log
_late_writers: set[asyncio.Task[None]] = set()
"""asyncio keeps no task that nobody else does."""
RECOVERIES = 2
"""How often a run makes its conversation shorter because a provider has refused it."""

_Begin: TypeAlias = Callable[[str, Message, Setup, list[str]], Begin | Resume]


def launch(
    agent: Agent,
    setup: Setup,
    run_id: str,
    message: Message,
    begin: _Begin,
    terms: tuple[object, ...],
    within: trace.Trace | None,
    is_resumed: bool = False,
) -> Run:
    """Put a run into its session's queue; it is driven when its turn comes. `begin` is asked then, on the loop."""
    session = setup.session
    loop = BackgroundLoop.current()
    with called_from(running_loop()):  # the driver keeps this context for all that runs in the run
        driver = Driver(setup, Bus(loop.loop))
    run = Run(run_id, session, agent, driver, loop, is_resumed=is_resumed)
    session.queue.put(Waiting(run.id, message, run, terms))
    if within is not None:
        loop.call(lambda: within.driver.asking.adopt(run, within.call_id)).result()

    context = contextvars.copy_context()
    session.once_claimed(lambda: loop.begin(_live(agent, run, driver, begin, is_resumed), context))
    return run


async def _live(agent: Agent, run: Run, driver: Driver, begin: _Begin, is_resumed: bool) -> None:
    """From its place in the queue to its end, which the run is told."""
    try:
        state = await _guarded(agent, run, driver, begin, is_resumed)
    except asyncio.CancelledError:
        run.finish(RuntimeError("the background loop was stopped"))
        raise
    except BaseException as error:
        run.finish(error)
    else:
        run.finish(state)


async def _guarded(agent: Agent, run: Run, driver: Driver, begin: _Begin, is_resumed: bool) -> RunState:
    try:
        state = await _turn(agent, run, driver, begin, is_resumed)
    except (asyncio.CancelledError, SessionBusy, UsageError):
        raise
    except StoreError:
        state = driver.state  # it is failed, and says so
    except BaseException as error:
        log.exception("a run could not be driven to its end")
        state = driver.failed(error)
    if agent.telemetry and driver.has_begun and state.is_ended:
        await _tell(agent, state)
    return state


async def _turn(agent: Agent, run: Run, driver: Driver, begin: _Begin, is_resumed: bool) -> RunState:
    session, run_id = driver.setup.session, run.id
    async with session.turn:
        problems = await _connect(agent, run, driver) if agent.tool_sources else []
        said = session.queue.begin(run)
        if said is None:
            # Taken back; or joined with a run, which has had its turn by now.
            return await finished(run.done)
        session.running = run
        try:
            await session.claimed()
            session.check_whole()
            if not is_resumed:
                session.leave_behind()
            first = begin(run_id, said, driver.setup, problems)
        except TurncellError as error:  # whoever watches it must hear of its end
            session.running = None
            driver.withdrawn(str(error), is_refused=True)
            raise
        try:
            state = await driver.drive(first)
        finally:
            session.running = None
        session.add(state)
        return state


async def _connect(agent: Agent, run: Run, driver: Driver) -> list[str]:
    """Let the run have the tools of its sources, and say what is missing. Given up when the run is taken back or stopped."""
    gathering = asyncio.ensure_future(gather_tools(driver.setup.tools, agent.tool_sources))
    taken_back: asyncio.Future[Any] = asyncio.shield(asyncio.wrap_future(run.done))
    try:
        first: list[asyncio.Future[Any]] = [gathering, taken_back, driver.told_to_stop]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not gathering.done():
            return []
        tools, problems = gathering.result()
        driver.offer(tools)
        return problems
    finally:
        gathering.cancel()
        taken_back.cancel()


def beginning(
    agent: Agent,
    run_id: str,
    message: Message,
    setup: Setup,
    limit: int,
    cell_id: str | None,
    replaces: str | None,
    within: trace.Trace | None,
    problems: Iterable[str],
) -> Begin:
    """What a run begins with: what was said before it is known, because its turn has come."""
    if agent.tool_sources:
        check_tool_choice(setup.options.get("tool_choice"), setup.tools)
    session = setup.session
    before = session.run_before(replaces)
    session.before = session.runs_before(replaces)
    reviews: set[Review] = set()
    if setup.step_policy is not None or setup.hooks.has("after_step"):
        reviews.add("step")
    if setup.output is not None or setup.hooks.has("before_finish"):
        reviews.add("finish")
    limits = limits_of(setup.budget)
    notices = session.notices
    if notices is None:
        notices = (*(before.notices if before else ()), *told_of_before(session, replaces))
    notices = (*notices, *problems)
    started = ev.RunStarted(
        seq=session.seq + 1, session_id=session.id, run_id=run_id, step=0, at=time.time(), model=agent.models.name,
        mode=setup.policy.mode, max_steps=limit, instructions=agent.instructions, tools=tuple(setup.tools),
        is_attended=setup.policy.is_attended, cell_id=cell_id, previous=before.run_id if before else None,
        replaces=replaces,
        notices=notices, budget=limits or None, agent=agent.name, needs=_needs(agent, setup, limits),
        root_run_id=within.root_run_id if within else run_id, parent_run_id=within.run_id if within else None,
        parent_call_id=(within.call_id or None) if within else None,
        depth=within.depth + 1 if within else 0,
    )  # fmt: skip
    return Begin(
        started=started, message=message, reviews=frozenset(reviews), models=agent.models.count, attempts=agent.attempts,
        summarises=agent.summarises, reads_all=agent.steering == "all", redactor=secrets.redactor(),
        recoveries=0 if agent.context.when_full == "fail" else RECOVERIES,
    )  # fmt: skip


def _needs(agent: Agent, setup: Setup, limits: dict[str, Any]) -> tuple[str, ...]:
    """What a record cannot hold of it, and who goes on with a run must not do without."""
    found = {
        "model": not agent.models.is_a_name, "rules": agent.rules, "hooks": agent.has_hooks,
        "output": setup.output is not None, "step_policy": agent.step_policy is not None,
        "budget": limits or agent.shares_budget, "timeout": setup.timeout_s is not None,
        "options": any(value is not None for name, value in setup.options.items() if name != "output_schema"),
    }  # fmt: skip
    return tuple([name for name, has in found.items() if has])


async def _tell(agent: Agent, state: RunState) -> None:
    """Let the writers write, all at once; who takes longer than WRITER_S goes on without being waited for."""

    async def write(writer: TelemetryWriter) -> None:
        try:
            await called(writer.write, record_of(state, agent=agent.name))
        except asyncio.CancelledError:
            raise
        except BaseException:  # sys.exit() too
            log.exception("the telemetry writer %r raised", writer)

    writing = [asyncio.create_task(write(one)) for one in agent.telemetry if isinstance(one, TelemetryWriter)]
    if writing:
        _, late = await asyncio.wait(writing, timeout=telemetry.WRITER_S)
        if late:
            log.warning("%d telemetry writers take long; run %s is done without them", len(late), state.run_id)
            _late_writers.update(late)
            for task in late:
                task.add_done_callback(_late_writers.discard)
