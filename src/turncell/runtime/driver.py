"""The driver: fulfils what the reducer wishes, and feeds it what came of it.

`feed` is the only way in. It runs on the background loop, never waits and never raises: a signal becomes events, which
go to the journal and to the bus in this order, and commands, which become tasks. Three rules:

* the intent of a write is on disk before the tool runs: its task waits for the record of its CallStarted;
* a task that is late (the run has ended, the call is closed) may still feed: the reducer ignores it;
* when the run has ended, every task is cancelled, the journal is written, and only then is the run done.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any

from turncell.core.deltas import Finished
from turncell.core.digest import call_digest
from turncell.core.events import Event, Recorded
from turncell.core.fold import RunState
from turncell.core.nucleus import Nucleus
from turncell.core.reducer import (
    CallModel,
    CallReturned,
    Clock,
    Judge,
    Judged,
    LoopState,
    ModelFailed,
    ModelFinished,
    Progressed,
    Signal,
    StartCall,
    Stop,
    Streamed,
    reduce,
)
from turncell.errors import ModelFailure, StoreError
from turncell.runtime.approvals import Policy, judge
from turncell.runtime.bus import Bus
from turncell.runtime.journal import Journal
from turncell.runtime.output import Output, to_output
from turncell.runtime.ports import Model, ModelRequest
from turncell.runtime.session import Session
from turncell.runtime.tools import Tool, ToolContext

log = logging.getLogger("turncell")

TICK_S = 1.0


class Driver:
    """Drives one run on the background loop."""

    def __init__(
        self,
        *,
        model: Model,
        tools: Mapping[str, Tool],
        policy: Policy,
        journal: Journal,
        bus: Bus,
        session: Session,
        options: Mapping[str, Any],
    ) -> None:
        self.model, self.tools, self.policy, self.bus = model, tools, policy, bus
        self.recorded: list[Event] = []
        self._journal = journal
        self._session, self._options = session, options
        self._specs = tuple(tool.spec for tool in tools.values())
        self._nucleus: Nucleus[LoopState, Signal, Event] = Nucleus(LoopState(), reduce)
        self._inbox: deque[Signal] = deque()
        self._is_feeding = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()
        self._written: list[Future[None]] = []
        self._ended = asyncio.Event()

    @property
    def state(self) -> RunState:
        """The run with what is being written right now. Any thread."""
        return self._nucleus.state.live()

    async def drive(self, begin: Signal) -> RunState:
        """From the first signal to the last record on disk."""
        self.feed(begin)
        ticker = asyncio.create_task(self._tick())
        try:
            await self._ended.wait()
        finally:
            ticker.cancel()
            for task in self._tasks:
                task.cancel()
            # A tool in a thread cannot be stopped, only left behind; it must not keep the run from ending.
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=0.2)
            for written in self._written:
                try:
                    await asyncio.wrap_future(written)
                except StoreError as error:
                    log.error("a run is not in the history: %s", error)
                    break
            self.bus.close()
        return self._nucleus.state.run

    def feed(self, signal: Signal) -> None:
        """Take a signal. On the loop's thread."""
        self._inbox.append(signal)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._inbox:
                self._step(self._inbox.popleft())
        finally:
            self._is_feeding = False

    def stop(self, status: Any = "cancelled", kind: str | None = None, message: str | None = None) -> None:
        self.feed(Stop(time.time(), status, kind, message))

    def _step(self, signal: Signal) -> None:
        if self._nucleus.is_terminal:
            return
        try:
            transition = self._nucleus.step(signal)
        except Exception as error:
            log.exception("the loop failed on %s", type(signal).__name__)
            if not isinstance(signal, Stop):
                self._inbox.appendleft(Stop(time.time(), "failed", "internal", f"{type(error).__name__}: {error}"))
            else:
                self._ended.set()
            return
        written: Future[None] | None = None
        if transition.events:
            recorded = [event for event in transition.events if isinstance(event, Recorded)]
            if recorded:
                is_intent = any(isinstance(c, StartCall) and c.call.effect != "read" for c in transition.commands)
                written = self._journal.record(recorded, durable=is_intent)
                written.add_done_callback(self._on_written)
                self._written = [future for future in self._written if not future.done()] + [written]
                self.recorded.extend(recorded)
            self.bus.publish(transition.events)
        for command in transition.commands:
            self._fulfil(command, written)
        if transition.terminal:
            self._ended.set()

    def _on_written(self, written: Future[None]) -> None:
        """On the journal's thread. What cannot be recorded must not go on."""
        error = written.exception()
        if error is not None:
            self.bus.loop.call_soon_threadsafe(self.stop, "failed", "store", str(error))

    def _fulfil(self, command: object, written: Future[None] | None) -> None:
        if isinstance(command, CallModel):
            self._start(self._call_model(command.step))
        elif isinstance(command, Judge):
            self._start(self._judge(command))
        elif isinstance(command, StartCall):
            self._start(self._run_call(command, written if command.call.effect != "read" else None))
        else:
            raise AssertionError(f"no way to fulfil {command!r}")

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.bus.loop.create_task(self._guard(coroutine), context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A task that fails ends its run; SystemExit and KeyboardInterrupt must not end the loop of all runs."""
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.exception("a task of the run failed")
            self.stop("failed", "internal", _say(error))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.feed(Clock(time.time()))

    async def _call_model(self, step: int) -> None:
        run = self._nucleus.state.run
        request = ModelRequest(
            messages=self._session.messages + run.messages(), instructions=run.instructions, tools=self._specs,
            run_id=run.run_id, step=step, **self._options,
        )  # fmt: skip
        started = time.monotonic()
        first_token_s: float | None = None
        finished: Finished | None = None
        try:
            async with aclosing(self.model.stream(request)) as stream:  # type: ignore[type-var]
                async for burst in stream:
                    if first_token_s is None:
                        first_token_s = time.monotonic() - started
                    if burst and isinstance(burst[-1], Finished):
                        finished = burst.pop()  # type: ignore[assignment]
                    if burst:
                        self.feed(Streamed(time.time(), burst))
                    if finished is not None:
                        break
        except ModelFailure as failure:
            self.feed(ModelFailed(time.time(), failure.kind, failure.message, first_token_s=first_token_s))
        except Exception as error:
            log.exception("the model %s raised", self.model.name)
            self.feed(ModelFailed(time.time(), "unknown", _say(error), first_token_s=first_token_s))
        else:
            if finished is None:
                message = f"the stream of {self.model.name} stopped before its end"
                self.feed(ModelFailed(time.time(), "protocol", message, first_token_s=first_token_s))
            else:
                self.feed(ModelFinished(time.time(), finished, first_token_s))

    async def _judge(self, command: Judge) -> None:
        try:
            judgements = await judge(command.calls, self.tools, self.policy)
        except Exception as error:  # a policy that fails must not allow anything
            log.exception("judging failed")
            self.stop("failed", "policy", f"the policy failed: {_say(error)}")
            return
        at = time.time()
        self.feed(Judged(at, judgements, at + self.policy.request_timeout_s))

    async def _run_call(self, command: StartCall, written: Future[None] | None) -> None:
        call = command.call
        if written is not None:
            try:
                await asyncio.wrap_future(written)
            except StoreError:
                return  # `_on_written` ends the run; without a record of the intent nothing happens
        if self._nucleus.is_terminal:
            return  # stopped meanwhile: what has not begun does not begin any more
        if call_digest(call.name, call.arguments) != call.digest:
            self._returned(
                call.call_id, "error", f"{call.name} was not run: its arguments are not those that were judged."
            )
            return
        tool = self.tools[call.name]
        context = ToolContext(
            call.call_id, self._nucleus.state.run.run_id, self._nucleus.state.run.session_id,
            self._progress(call.call_id), lambda: self._nucleus.is_terminal,
        )  # fmt: skip
        try:
            async with asyncio.timeout(tool.timeout_s) as limit:
                value = await tool.call(call.arguments or {}, context)
        except TimeoutError as error:
            if limit.expired():
                content = f"{call.name} was stopped after its time limit of {tool.timeout_s:g} s; its effect may have happened."
                self._returned(call.call_id, "timeout", content)
            else:
                self._raised(call.call_id, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._returned(call.call_id, "error", f"{call.name} cancelled itself.")
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: a tool that calls exit() must not end the loop of all runs.
            self._raised(call.call_id, error)
        else:
            await self._show(call.call_id, value)

    async def _show(self, call_id: str, value: Any) -> None:
        """The tool has run, so the call is ok, whatever becomes of showing what it returned."""
        try:
            is_small = isinstance(value, str) and len(value) < 10_000
            output = to_output(value) if is_small else await asyncio.to_thread(to_output, value)
        except Exception as error:
            output = Output(f"Done. It returned a {type(value).__name__} that cannot be shown: {_say(error)}")
        self._returned(call_id, "ok", output.content, output.details)

    def _progress(self, call_id: str) -> Callable[[str], None]:
        def progress(text: str) -> None:
            self.bus.loop.call_soon_threadsafe(self.feed, Progressed(call_id, str(text)))

        return progress

    def _returned(self, call_id: str, status: Any, content: str, details: Any = None) -> None:
        self.feed(CallReturned(time.time(), call_id, status, content, details))

    def _raised(self, call_id: str, error: BaseException) -> None:
        # The frames above the tool's own are ours and tell nobody anything.
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if "turncell/runtime" not in f.filename.replace("\\", "/")
        ]
        trace = "".join(traceback.format_list(frames)) if frames else ""
        said = to_output(_say(error)).content
        self._returned(call_id, "error", said, {"traceback": to_output(f"{trace}{said}").content} if trace else None)


def _say(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
