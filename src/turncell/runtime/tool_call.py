"""Calls: judged, run, retried, and turned into what the model reads and what people see."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from turncell.core.digest import call_digest
from turncell.core.events import CallEnd
from turncell.core.fold import CallState
from turncell.core.parts import Json
from turncell.core.signals import CallReturned, Judge, Judged, Progressed, Question, TellDenial
from turncell.core.values import copied
from turncell.errors import CallFailed, Declined, StoreError, causes, say
from turncell.runtime import trace
from turncell.runtime.approvals import judge
from turncell.runtime.budget import Refusal, Reservation
from turncell.runtime.context import Shown, ToolContext
from turncell.runtime.hooks import HookFailed, ToolUse, Vetoed
from turncell.runtime.loop import BackgroundLoop, finished
from turncell.runtime.output import Output, shorten, to_json, to_output
from turncell.runtime.output_type import ANSWER_TOOL
from turncell.runtime.telemetry import inside
from turncell.runtime.threads import Work, in_thread
from turncell.runtime.tools import Tool

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver

log = logging.getLogger("turncell")

LAGGARD_S = 2.0
"""How long a write waits for one before it, of this run or an earlier one, that cannot be stopped."""
SMALL = 10_000
"""Characters of a returned text that are looked at on the loop itself."""


async def judge_calls(driver: Driver, command: Judge) -> None:
    setup, run = driver.setup, driver.loop_state.run
    try:
        judgements = await judge(command.calls, run, setup.tools, setup.policy, setup.hooks, driver.is_tainted)
    except Exception as error:  # a policy that fails must not allow anything
        log.exception("judging failed")
        driver.stop("failed", "policy", f"the policy failed: {say(error)}")
        return
    answers = {call.call_id for call in command.calls if call.name == ANSWER_TOOL}
    for judgement in judgements:
        if setup.output is not None and judgement.problem is not None and judgement.call_id in answers:
            driver.misfits += 1
            if driver.misfits >= setup.output_attempts:
                driver.stop("failed", "output", f"the output is no {setup.output.name}: {judgement.problem}")
                return
    at = time.time()
    driver.feed_last(Judged(at, judgements, at + setup.policy.request_timeout_s))


async def tell_denial(driver: Driver, command: TellDenial) -> None:
    """What the tool itself has to say about a denial; where that fails, the plain words."""
    call = command.call
    content = command.content
    try:
        async with asyncio.timeout(LAGGARD_S * 5):
            content = (
                await driver.setup.tools[call.name].run_on_denied(copied(call.arguments or {}), command.reason)
                or content
            )
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.exception("on_denied of %s raised", call.name)
        driver.note("hook", f"on_denied of {call.name} raised {shorten(say(error))}", call.call_id)
    driver.feed_last(CallReturned(time.time(), call.call_id, "denied", to_output(content).content))


async def run_call(driver: Driver, call: CallState, written: Future[None] | None) -> None:
    """Run a call that may run. Ends in one CallReturned, or in a Stop."""
    if written is not None:
        try:
            await finished(written)
        except StoreError:
            return  # the driver ends the run; without a record of the intent nothing happens
    tool, writes = driver.setup.tools.get(call.name), driver.setup.writes
    if tool is None:  # the run was begun by an agent with other tools
        _returned(driver, call, "error", f"{call.name} was not run: this agent has no such tool.")
        return
    reserved = await _reserved(driver, tool)
    if reserved is None:
        return
    try:
        if tool.effect == "read" or tool.parallel:
            await _run_now(driver, tool, call, writes)
        else:
            async with writes:
                # Its own turn is taken: what runs inside it takes turns among itself, and must not wait for its end.
                await _run_now(driver, tool, call, asyncio.Lock())
    finally:
        if call.call_id in driver.not_begun:
            reserved.release()
        else:
            reserved.settle()  # a call that was stopped has been made all the same


async def _reserved(driver: Driver, tool: Tool) -> Reservation | None:
    """What the call takes of the budget; None where the run has ended for it.

    What runs already is paid for, and is let finish before a call too many ends the run. Not while holding `writes`: a
    run inside a call that runs may wait for that.
    """
    while isinstance(reserved := driver.setup.budget.reserve(calls=0 if tool.is_answer else 1), Refusal):
        if driver.is_over:
            return None
        if not driver.pauses:
            driver.stop("budget", "budget", reserved.message)
            return None
        await asyncio.sleep(0.02)
    return reserved


async def _run_now(driver: Driver, tool: Tool, call: CallState, writes: asyncio.Lock) -> None:
    if driver.is_over:
        return  # stopped meanwhile: what has not begun does not begin any more
    if call_digest(call.name, call.arguments) != call.digest:
        _returned(driver, call, "error", f"{call.name} was not run: its arguments are not those that were judged.")
        return
    if tool.effect != "read" and not tool.parallel:
        if (laggard := await _laggard(driver)) is not None:
            content = f"{call.name} was not run: {laggard}, which could not be stopped, is still running."
            _returned(driver, call, "error", content)
            return
        if driver.is_over:
            return  # type: ignore[unreachable]  # it was awaited meanwhile
    driver.not_begun.discard(call.call_id)
    trace.current.set(trace.Trace(driver.chain_inside, call.call_id, driver, writes))
    if not driver.watches:
        await _Running(driver, tool, call).run()
        return
    with inside(driver.watches, lambda watch: watch.calling(call)):
        await _Running(driver, tool, call).run()


async def _laggard(driver: Driver) -> str | None:
    """A write in a thread that could not be stopped: nothing is written beside it. The name of its tool."""
    deadline = time.monotonic() + LAGGARD_S
    left = driver.setup.session.left_behind
    left[:] = [one for one in left if not one[1].done()]
    while alive := [name for name, done in left if not done.done()]:
        if time.monotonic() > deadline:
            return alive[0]
        await asyncio.sleep(0.02)
    return None


class _Running:
    """One call while it runs."""

    def __init__(self, driver: Driver, tool: Tool, call: CallState) -> None:
        self._driver, self._tool, self._call = driver, tool, call
        self._background: Work[Any] | None = None
        self._limit: asyncio.Timeout | None = None
        self._left_s: float | None = None
        self._files: list[str] = []
        self._attempt = 0
        """The one that runs. A thread that goes on after its attempt is told by `is_cancelled`."""

    async def run(self) -> None:
        self._driver.pauses[self._call.call_id] = self._pause
        try:
            await self._to_its_end()
        finally:
            del self._driver.pauses[self._call.call_id]

    async def _to_its_end(self) -> None:
        started = time.monotonic()
        for attempt in range(self._tool.retries + 1):
            status, value = await self._try()
            if status == "ok" or self._driver.is_over or attempt == self._tool.retries or isinstance(value, Declined):
                break
            text = f"{self._tool.name} failed and is tried again: {shorten(_plain(value))}"
            self._driver.note("retry", text, self._call.call_id, {"attempt": attempt + 1})
            await asyncio.sleep(self._tool.retry_wait_s * 2**attempt)
        if self._driver.setup.has_latency:
            self._driver.tell_latency("call", time.monotonic() - started, self._call.call_id)
        if status == "ok":
            await self._show(value)
        elif status == "timeout":
            content = (
                f"{self._call.name} was stopped after its time limit of {self._tool.timeout_s:g} s; "
                "its effect may have happened."
            )
            await self._hand_over("timeout", Output(content))
        else:
            await self._raised(value)

    async def _try(self) -> tuple[str, Any]:
        """("ok", value), ("timeout", error) or ("error", error)."""
        limit: asyncio.Timeout | None = None
        tool, arguments = self._tool, self._call.arguments or {}
        context = self._context()
        try:
            if tool.timeout_s is None:
                return "ok", await tool.call(arguments, context, on_background=self._on_background)
            async with asyncio.timeout(tool.timeout_s) as limit:
                self._limit = limit
                return "ok", await tool.call(arguments, context, on_background=self._on_background)
        except TimeoutError as error:
            if limit is not None and limit.expired():
                self._leave_behind()
                return "timeout", error
            return "error", error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._leave_behind()
                raise
            return "error", RuntimeError(f"{self._call.name} cancelled itself.")
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: a tool that calls exit() must not end the loop of all runs.
            return "error", _alone(error)
        finally:
            self._limit = None  # a question that is still open must not move it any more
            self._attempt += 1

    def _leave_behind(self) -> None:
        if self._background is not None and self._tool.effect != "read" and not self._background.done():
            self._driver.setup.session.left_behind.append((self._tool.name, self._background))

    def _on_background(self, work: Work[Any]) -> None:
        self._background = work

    def _context(self) -> ToolContext:
        driver, call_id, attempt = self._driver, self._call.call_id, self._attempt
        run = driver.loop_state.run

        def soon(fn: Callable[..., None], *values: Any) -> None:
            loop = BackgroundLoop.current()
            if loop.is_here:
                fn(*values)  # at once: what an async tool says last must not come after its result
            else:
                loop.loop.call_soon_threadsafe(fn, *values)

        def progress(shown: Shown) -> None:
            is_rich = isinstance(shown, Mapping)
            data = to_json(shown) if is_rich else None
            text = str(shown.get("text/plain", "")) if isinstance(shown, Mapping) else str(shown)
            soon(driver.feed, Progressed(call_id, to_output(text).content if text else "", data))

        def notice(text: str) -> None:
            said = shorten(str(text))
            soon(driver.note, "notice", said, call_id)
            if (outermost := driver.outermost) is not None:  # the run inside has no next message of a person
                soon(outermost.note, "notice", said)

        def put(question: Question, timeout_s: float | None) -> Future[str]:
            return driver.asking.ask(call_id, question, timeout_s)

        return ToolContext(
            call_id, run.run_id, run.session_id, progress, lambda: driver.is_over or self._attempt != attempt, notice,
            lambda path: self._files.append(os.fspath(path)), put,
        )  # fmt: skip

    def _pause(self, is_waiting: bool) -> None:
        """The time limit of a tool does not count the time that a person takes to answer."""
        limit, now = self._limit, asyncio.get_running_loop().time()
        if limit is None or limit.expired():
            return
        if is_waiting and (when := limit.when()) is not None:
            self._left_s = when - now
            limit.reschedule(None)
        elif not is_waiting and self._left_s is not None:
            limit.reschedule(now + self._left_s)
            self._left_s = None

    async def _show(self, value: Any) -> None:
        """The tool has run, so the call is ok, whatever becomes of showing what it returned."""
        try:
            if isinstance(value, str) and len(value) < SMALL and not self._files:
                output = to_output(value)
            else:
                output = await in_thread(self._with_files, value)
        except Exception as error:
            output = Output(f"Done. It returned a {type(value).__name__} that cannot be shown: {_plain(error)}")
        await self._hand_over("ok", output)

    async def _hand_over(self, status: CallEnd, output: Output) -> None:
        """The result as the hooks leave it."""
        hooks = self._driver.setup.hooks
        if hooks.has("after_tool"):
            try:
                for hook in hooks.each("after_tool"):
                    arguments = copied(self._call.arguments or {})
                    use = ToolUse(self._call.call_id, self._call.name, arguments, self._call.effect, status)
                    given = await hooks.said("after_tool", hook, use, Output, output)
                    output = output if given is None else to_output(given)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if not isinstance(error, Vetoed):
                    self._driver.note(
                        "hook", _plain(error) if not isinstance(error, HookFailed) else str(error), self._call.call_id
                    )
                output = Output(f"{self._call.name} has run, but its result is withheld: {error}")
                status = "error" if status == "ok" else status
        files: Any = tuple(output.files)  # Files, since `to_output`
        self._driver.feed_last(
            CallReturned(
                time.time(), self._call.call_id, status, output.content, output.details, files, tuple(output.display),
                status == "ok" and (self._tool.terminate or output.terminate),
            )
        )  # fmt: skip

    def _with_files(self, value: Any) -> Output:
        output = to_output(value)
        if not self._files:
            return output
        return to_output(
            Output(output.content, output.details, (*output.files, *self._files), output.display, output.terminate)
        )

    async def _raised(self, error: BaseException) -> None:
        # The frames above the tool's own are ours and tell nobody anything.
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if not any(
                of_ours in f.filename.replace("\\", "/") for of_ours in ("turncell/runtime", "turncell/adapters/mcp")
            )
        ]
        lines = "".join(traceback.format_list(frames)) if frames else ""
        said = to_output(_plain(error)).content
        details: Json = {"traceback": to_output(f"{lines}{said}").content} if lines else None
        if isinstance(error, CallFailed) and error.details is not None:
            details = error.details
        await self._hand_over("error", Output(said, details))


def _returned(driver: Driver, call: CallState, status: Any, content: str) -> None:
    driver.feed_last(CallReturned(time.time(), call.call_id, status, content))


def _alone(error: BaseException) -> BaseException:
    """Of a TaskGroup in which one task has failed, what that task has raised."""
    found = causes(error)
    return found[0] if len(found) == 1 else error


def _plain(error: BaseException) -> str:
    return str(error) if isinstance(error, (CallFailed, Declined)) else say(error)
