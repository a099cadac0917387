"""`run_turn`: one bounded turn as a function call. Nothing is stored."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

from turncell.core.events import Event
from turncell.core.parts import Message
from turncell.runtime.agent import Agent
from turncell.runtime.journal import Unrecorded
from turncell.runtime.ports import Model
from turncell.runtime.run import Run
from turncell.runtime.step_policy import StepPolicy
from turncell.runtime.tools import Tool

log = logging.getLogger("turncell")

PROGRESS_S = 2.0
"""How long the end of a turn waits for an `on_progress` that is behind."""


async def run_turn(
    *,
    model: str | Model,
    message: str | Message,
    system: str | None = None,
    tools: Iterable[Tool | Callable[..., Any]] | None = None,
    max_steps: int = 40,
    temperature: float | None = None,
    max_tokens: int | None = None,
    reasoning_effort: str | None = None,
    tool_choice: str | None = None,
    step_policy: StepPolicy | None = None,
    on_progress: Callable[[Event], Any] | None = None,
    **options: Any,
) -> Run:
    """Run one turn to its end and store nothing. Any number of turns may run side by side, on any event loop.

    Returns an ended Run: `text`, `messages`, `tool_calls`, `status`, `usage`, `cost_usd`, `events`. `system` are the
    instructions; other `options` are those of `Agent` (`mode`, `hooks`, `output`, `budget`, ...). `on_progress` gets every
    event as it happens: an async function on the caller's event loop, another one in a thread of its own. After the
    end it is waited for at most two seconds.

    Nobody attends the turn, so calls that ask are denied; `mode="auto"` lets them run.

    >>> import asyncio
    >>> from turncell.testing import ScriptedModel
    >>> run = asyncio.run(run_turn(model=ScriptedModel(["Fine."]), message="How are you?"))
    >>> run.text, run.status
    ('Fine.', 'completed')
    """
    limits: dict[str, Any] = {"step_policy": step_policy} if step_policy is not None else {"max_steps": max_steps}
    agent = Agent(
        model, tools=tools or (), instructions=system or "", temperature=temperature, max_tokens=max_tokens,
        reasoning_effort=reasoning_effort, tool_choice=tool_choice, journal=Unrecorded(), **limits, **options,
    )  # fmt: skip
    run = agent.start(message)
    telling: asyncio.Task[None] | None = None
    try:
        if inspect.iscoroutinefunction(on_progress) or inspect.iscoroutinefunction(type(on_progress).__call__):
            telling = asyncio.create_task(_tell(run, on_progress))
        elif on_progress is not None:
            run.subscribe(on_progress)
        await run
        if telling is not None:
            await asyncio.wait([telling], timeout=PROGRESS_S)
            telling.cancel()
        elif on_progress is not None:
            await run.drained(PROGRESS_S)
    except BaseException:
        run.cancel("the caller was cancelled")
        if telling is not None:
            telling.cancel()
        raise
    return run


async def _tell(run: Run, on_progress: Any) -> None:
    async for event in run:
        try:
            await on_progress(event)
        except Exception:
            log.exception("on_progress %r raised on %s", on_progress, event.type)
