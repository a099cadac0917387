"""`run_turn`: one bounded turn as a function call. Nothing is stored."""

from __future__ import annotations

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
    step_policy: StepPolicy | None = None,
    on_progress: Callable[[Event], Any] | None = None,
    **options: Any,
) -> Run:
    """Run one turn to its end. Any number of them may run side by side, on any event loop.

    The result is an ended Run: `text`, `messages`, `tool_calls`, `status`, `usage`, `cost_usd`, `events`. `on_progress`
    gets every event as it happens, sync or async. `options` are those of `Agent` (`mode`, `hooks`, `output`,
    `budget`, ...). As in every run that nobody attends, calls that would ask are denied; `mode="auto"` lets them run.

    >>> import asyncio
    >>> from turncell.testing import ScriptedModel
    >>> run = asyncio.run(run_turn(model=ScriptedModel(["Fine."]), message="How are you?"))
    >>> run.text, run.status
    ('Fine.', 'completed')
    """
    limits: dict[str, Any] = {"step_policy": step_policy} if step_policy is not None else {"max_steps": max_steps}
    agent = Agent(
        model, tools=tools or (), instructions=system or "", temperature=temperature, max_tokens=max_tokens,
        reasoning_effort=reasoning_effort, journal=Unrecorded(), **limits, **options,
    )  # fmt: skip
    run = agent.start(message)
    try:
        if on_progress is not None:
            run.subscribe(on_progress)
        await run
        if on_progress is not None:
            await run.drained()
    except BaseException:
        run.cancel("the caller was cancelled")
        raise
    return run
